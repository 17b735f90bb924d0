"""A backup or a prune over a folder, in a process of its own that a failpoint may end.

Run as `python -m tests.backup_process`. Arguments: the folder, `backup` or `prune`, and the minutes by which its clock
is past noon. The failpoints are those of LLMSR_FAILPOINTS.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from llm_schema_registry.kernel.failpoints import failpoints
from services.backup.domain.retention import Policy
from tests.backup_parts import NOON, HandClock, make_parts

POLICY = Policy(hourly=1, daily=1, monthly=1, floor=1, share_max=1.0, stale_after=timedelta(days=100))


async def main(folder: Path, verb: str, minutes: int) -> None:
    """Does it."""
    clock = HandClock(NOON + timedelta(minutes=minutes))
    parts = make_parts(
        folder, clock=clock, failpoints=failpoints(os.environ), policy=POLICY, owner=f"pid-{os.getpid()}"
    )
    parts.registry.write(5)
    parts.registry.dump_bytes = 2_500_000
    if verb == "backup":
        await parts.backup()
    else:
        await parts.prune.apply()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
