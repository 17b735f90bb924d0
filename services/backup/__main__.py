"""`python -m services.backup`: serve; `… config`: print the effective settings; `… --version`. And without the service
(services/backup/offline.py): `… list|verify|rebuild-catalog|restore|keygen`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from services.backup import memory, offline

    memory.use_one_arena()

    if len(sys.argv) > 1 and sys.argv[1] in offline.COMMANDS:
        sys.exit(offline.main(sys.argv[1:]))

    from llm_schema_registry.kernel.process import run
    from services.backup.app import DEFINITION

    sys.exit(run(DEFINITION))
