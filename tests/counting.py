"""Counts work instead of timing it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


def calls_of(work: Callable[[], object], *, builtin: bool = False) -> int:
    """How many Python functions some work calls: the same on every machine, unlike the time that it takes.

    builtin: functions in C count too.
    """
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call" or (builtin and event == "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
