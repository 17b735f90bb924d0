"""Work that is not left half-done when its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def to_the_end(work: Coroutine[Any, Any, _Result], *, undo: Callable[[_Result], object] | None = None) -> _Result:
    """The work's result. A cancelled caller waits until the work has ended, undoes its result, and is cancelled then.

    The work itself must end within a limit of its own.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if not cancelled:
        return task.result()
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())
    raise asyncio.CancelledError
