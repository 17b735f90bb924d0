"""`python -m services.admin`: serve; `… config`: print the effective settings; `… --version`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from llm_schema_registry.kernel.process import run
    from services.admin.app import DEFINITION

    sys.exit(run(DEFINITION))
