"""`python -m services.registry`: serve; `… config`: print the effective settings; `… --version`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Imported here: worker processes import this module too, and need none of it.
    from llm_schema_registry.kernel.process import run
    from services.registry.app import DEFINITION

    sys.exit(run(DEFINITION))
