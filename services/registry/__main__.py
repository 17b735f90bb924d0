"""`python -m services.registry`: serve; `… config`: print the effective settings; `… --version`."""

from __future__ import annotations

import sys

from llm_schema_registry.kernel.process import run
from services.registry.app import DEFINITION

if __name__ == "__main__":
    sys.exit(run(DEFINITION))
