"""PostgreSQL's own reader of dumps: pg_restore, which writes what it would do to nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from llm_schema_registry import errors
from services.backup.adapters.client_programs import find_programs
from services.backup.adapters.programs import Command, ProgramFailed, run_program

STALL_SECONDS = 300.0


class PostgresDumpCheck:
    """Reads dumps with pg_restore. folders: to search for client programs first."""

    def __init__(self, folders: Sequence[Path] = (), *, stall_seconds: float = STALL_SECONDS) -> None:
        self._folders = tuple(folders)
        self._stall_seconds = stall_seconds

    async def accept(self, dump: AsyncIterator[bytes], server_version_num: int) -> None:
        """See DumpCheck."""
        programs = await asyncio.to_thread(find_programs, server_version_num, self._folders)
        command = Command((str(programs.pg_restore), "--exit-on-error", "--file=/dev/null"))
        try:
            async with aclosing(run_program(command, dump, stall_seconds=self._stall_seconds)) as output:
                async for _ in output:
                    pass
        except ProgramFailed as failed:
            raise errors.BackupDamaged(f"PostgreSQL's own reader refuses the dump: {failed}") from None
