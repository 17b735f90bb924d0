"""Puts services into a mode while nothing else changes the system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from llm_schema_registry import errors
from services.admin.domain.system import Replica, State
from services.admin.usecases.office import SHORT_SECONDS, SystemOffice
from services.admin.usecases.steer import Steer

STORE_SECONDS = 2 * SHORT_SECONDS


class Modes:
    """Sets modes by themselves, not as part of an operation."""

    def __init__(self, steer: Steer, office: SystemOffice, report: Callable[..., None]) -> None:
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
                    await stack.enter_async_context(self._office.held(patience_seconds=SHORT_SECONDS))
            except (errors.ObjectStoreUnavailable, TimeoutError) as failed:
                self._report("mode set without the office: the object store is away", message=str(failed))
            yield
