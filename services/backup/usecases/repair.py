"""Ends what a process left in the middle of a restore: swaps within seconds, preparations once their lease is over.

Every replica does it, from its start on. The lease decides who goes on: that of a swap lasts `SWAP_TIMES.lease`
seconds, so a live database that a killed process left fenced or closed serves again within that time, LOOK_SECONDS and
the time of what is left to do, about five to seven seconds after the process died in all. What it left of a preparation
is dropped when the lease of restores is over, within a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from llm_schema_registry import errors
from llm_schema_registry.operations.operation import OperationKind
from llm_schema_registry.operations.operations import Operations
from services.backup.domain.restore import Restore, RestoreState
from services.backup.usecases.repository import RESTORING, Repository
from services.backup.usecases.swap import Swap

LOOK_SECONDS = 1.0
"""Between two looks while a swap has not ended; otherwise after each REST_SECONDS."""
REST_SECONDS = 5.0
"""Of a look while nothing is to do: one listing of the journal."""
RETRY_SECONDS_MAX = 60.0
"""Between two tries of a swap that cannot be ended, such as while the database does not answer."""
ACTOR = "repair"

Report = Callable[..., None]


class Repair:
    """Repairs restores of one repository."""

    def __init__(self, repository: Repository, operations: Operations, swap: Swap, report: Report) -> None:
        self._repository = repository
        self._operations = operations
        self._swap = swap
        self._report = report
        self._failures = 0
        self.problem = ""

    async def check(self) -> str | None:
        """Why a swap could not be ended, in words; None when none is left."""
        return self.problem or None

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            busy = False
            try:
                busy = await self.round()
                self._failures, self.problem = 0, ""
            except errors.OperationRunning:
                self._failures = 0  # Another replica does it.
            except errors.Error as failed:
                self._failures += 1
                if failed.message != self.problem:
                    self._report("restore cannot be ended", reason=failed.reason, message=failed.message)
                self.problem = failed.message
            except Exception as defect:  # noqa: BLE001 - the edge of a task that must not end: nobody would notice
                self._failures += 1
                self.problem = "restores cannot be ended by a defect, which the log has"
                self._report("restores cannot be ended", exc_info=defect)
            wait = LOOK_SECONDS if busy or self._failures else REST_SECONDS
            await asyncio.sleep(min(RETRY_SECONDS_MAX, wait * 2.0 ** min(max(0, self._failures - 1), 10)))

    async def round(self) -> bool:
        """Ends what can be ended now; whether something is left that somebody else may work on."""
        for restore in await self._swap.abandoned():
            await self._go_on(restore)
        preparations = await self._swap.prepare.abandoned()
        if preparations and await self._repository.leases.holder(RESTORING) is None:
            with suppress(errors.OperationRunning):
                async with self._repository.leases.held(RESTORING):
                    for name in await self._swap.prepare.sweep():
                        self._report("left-over place dropped", name=name)
        return bool(await self._swap.unfinished())

    async def _go_on(self, restore: Restore) -> None:
        """Goes on with a swap, as an operation. Raises what that failed with."""
        reverting = restore.state is RestoreState.REVERTING
        kind = OperationKind.REVERT_RESTORE if reverting else OperationKind.ACTIVATE_RESTORE
        operation = await self._operations.begin(kind, partial(self._swap.go_on, restore.id), actor=ACTOR)
        ended = await self._operations.wait(operation.name)
        if ended.error is not None:
            cls = errors.by_reason(ended.error.reason) or errors.Internal
            raise cls(ended.error.message, metadata={"operation": operation.name})
