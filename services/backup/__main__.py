"""`python -m services.backup`: serve; `… config`: print the effective settings; `… --version`; and, without the service
and without the database, `… list|verify|rebuild-catalog|restore|keygen`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from llm_schema_registry.kernel.process import run
    from services.backup.app import DEFINITION

    sys.exit(run(DEFINITION))
