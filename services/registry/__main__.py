"""`python -m services.registry`: serve; `… config`: print the effective settings; `… --version`.

`… replay`, `… check` and `… begin-epoch` are the tools of a restore: services/registry/tools.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Imported here: worker processes import this module too, and need none of it.
    from services.registry.tools import TOOLS

    if sys.argv[1:2] and sys.argv[1] in TOOLS:
        from services.registry.tools.command import main

        sys.exit(main(sys.argv[1:]))
    from llm_schema_registry.kernel.process import run
    from services.registry.app import DEFINITION

    sys.exit(run(DEFINITION))
