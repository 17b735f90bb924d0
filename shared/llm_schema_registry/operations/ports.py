"""What operations and leases need from outside, besides an object store."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present moment, with time zone UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class Dice(Protocol):
    """Random bytes fit for keys."""

    def __call__(self, count: int) -> bytes:
        """So many bytes that nobody can guess."""
        ...
