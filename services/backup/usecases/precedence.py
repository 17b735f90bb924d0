"""Who goes first in the office of restores: what is only tried makes room for what is needed.

A trial, which may take as long as a restore, would otherwise keep a recovery waiting with its writes fenced. Whoever
needs the office and finds it taken says so by a second one; a trial looks at that while it works, and ends itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import PATIENCE_SECONDS, Leases
from services.backup.usecases.repository import RESTORING

WANTED = "restore-wanted"
LOOK_SECONDS = 1.0
"""Between two looks of a trial at whether it is to make room."""


@asynccontextmanager
async def needed(leases: Leases) -> AsyncIterator[None]:
    """The office of restores, for the block. Raises errors.OperationRunning when it stays taken for PATIENCE_SECONDS:
    by another restore, for trials end."""
    async with AsyncExitStack() as office:
        try:
            await office.enter_async_context(leases.held(RESTORING))
        except errors.OperationRunning:
            loop = asyncio.get_running_loop()
            ends = loop.time() + PATIENCE_SECONDS
            async with leases.held(WANTED, patience_seconds=PATIENCE_SECONDS):
                left = max(0.0, ends - loop.time())
                await office.enter_async_context(leases.held(RESTORING, patience_seconds=left))
        yield


@asynccontextmanager
async def trial(leases: Leases) -> AsyncIterator[None]:
    """The office of restores, for a block that is cancelled when a restore needs it. Raises errors.OperationCancelled
    then, and errors.OperationRunning when the office stays taken for PATIENCE_SECONDS."""
    async with leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
        try:
            async with asyncio.timeout(None) as room:
                looking = asyncio.create_task(_make_room(leases, room), name="precedence of restores")
                try:
                    yield
                finally:
                    looking.cancel()
                    await asyncio.wait({looking})
        except TimeoutError:
            if not room.expired():
                raise
            raise errors.OperationCancelled(
                "A restore needs the place, and goes before a trial of one: repeat when that has ended."
            ) from None


async def _make_room(leases: Leases, room: asyncio.Timeout) -> None:
    """Ends the trial once a restore wants the office."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        # A store that is away tells of nobody, and the trial goes on.
        with suppress(errors.Error):
            if await leases.holder(WANTED) is not None:
                room.reschedule(loop.time())
                return
