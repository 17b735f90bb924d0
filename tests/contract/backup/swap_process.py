"""Swaps places and is killed at a failpoint: `swap_process.py KIND INCOMING ASIDE FAILPOINT`, the URL in `URL`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from services.backup.adapters.postgres_places import DatabasePlaces
from services.backup.adapters.schema_places import SchemaPlaces
from tests.fix_registry import postgres_options


class Kill:
    """Ends the process at one failpoint, as a crash would."""

    def __init__(self, at: str) -> None:
        self._at = at

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        if name == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Swaps."""
    kind, incoming, aside, failpoint = sys.argv[1:]
    places = {"databases": DatabasePlaces, "schemas": SchemaPlaces}[kind](
        postgres_options(os.environ["URL"]), Kill(failpoint)
    )
    asyncio.run(places.swap(incoming=incoming, aside=aside))


if __name__ == "__main__":
    main()
