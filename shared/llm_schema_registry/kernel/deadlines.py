"""Deadlines of the calls in work, watched by one timer.

`asyncio.timeout` makes a timer for each call, which costs more than the rest of admission. Nearly every call ends long
before its deadline, so here a call only enters a table, and the timer looks at the table when the earliest deadline of
the time it was set has come.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any


class Deadline:
    """The deadline of one call. `expired` once the call was cancelled for it."""

    __slots__ = ("at", "expired", "task")

    def __init__(self, at: float, task: asyncio.Task[Any]) -> None:
        self.at = at
        self.task = task
        self.expired = False


class Deadlines:
    """All open deadlines of one event loop. Times are those of time.monotonic, which the loop's clock is too."""

    def __init__(self) -> None:
        self._open: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def begin(self, at: float) -> Deadline:
        """Cancels the current task at that time, unless `end` comes first."""
        task = asyncio.current_task()
        assert task is not None
        deadline = Deadline(at, task)
        self._open[deadline] = None
        if at < self._timer_at:
            self._set_timer(at)
        return deadline

    def end(self, deadline: Deadline) -> bool:
        """Forgets the deadline. True when it had expired; its cancellation is taken back then. Call it once."""
        self._open.pop(deadline, None)
        if deadline.expired:
            deadline.task.uncancel()
        return deadline.expired

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._look)

    def _look(self) -> None:
        """Cancels what has expired, and sets the timer for what has not."""
        now = time.monotonic()
        expired = [deadline for deadline in self._open if deadline.at <= now]
        for deadline in sorted(expired, key=lambda found: found.at):
            del self._open[deadline]
            deadline.expired = True
            deadline.task.cancel()
        self._timer, self._timer_at = None, math.inf
        if self._open:
            self._set_timer(min(deadline.at for deadline in self._open))
