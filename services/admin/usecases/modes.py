"""Puts services into a mode while nothing else changes the system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from llm_schema_registry import errors
from services.admin.domain.system import Replica, State
from services.admin.usecases.office import Office
from services.admin.usecases.steer import Steer

STORE_SECONDS = 6.0
"""Longest wait for the store, within the call's deadline."""
ATTEMPTS_MAX = 5
ATTEMPT_SECONDS = 0.5
"""Between them: another mode that is being set is over soon."""


class Modes:
    """Sets modes by themselves, not as part of an operation."""

    def __init__(self, steer: Steer, office: Office, report: Callable[..., None]) -> None:
        self._steer = steer
        self._office = office
        self._report = report

    async def set(self, services: Sequence[str], mode: State) -> Sequence[Replica]:
        """Puts every replica into a mode. Raises errors.OperationRunning while an operation changes the system."""
        async with self._alone():
            return await self._steer.set_mode(services, mode)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """The office; nothing when the store of journals is away: no operation can go on then, and a mode may be what
        is needed most."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(STORE_SECONDS):
                    await self._take(stack)
            except (errors.ObjectStoreUnavailable, TimeoutError) as failed:
                self._report("mode set without the office: the object store is away", message=str(failed))
            yield

    async def _take(self, stack: AsyncExitStack) -> None:
        """Takes the office. Raises errors.OperationRunning."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await stack.enter_async_context(self._office.held(""))
            except errors.OperationRunning as running:
                # Named is an operation, which takes its time; unnamed is somebody who sets a mode, or puts one back.
                if running.metadata.get("operation") or attempt == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(ATTEMPT_SECONDS)
            else:
                return
