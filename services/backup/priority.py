"""Lets the registry on the same machine go first."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

NICENESS = 10
"""A tenth of the weight of other threads where all processors are busy, and no difference where one is not. It counts
among the processes of one control group, or of one session where sessions are groups of their own. Source: sched(7),
the nice value and the autogroup feature."""
THREADS_MAX = 8


def threads() -> ThreadPoolExecutor:
    """Threads for compressing, hashing and sealing. The event loop's own thread keeps its priority, so that leases are
    renewed and swaps go on: it waits for the interpreter's lock for the time of a slice of theirs at most."""
    return ThreadPoolExecutor(THREADS_MAX, "bulk", initializer=_give_way)


def _give_way() -> None:
    """Lowers the priority of the calling thread. Linux alone has one for each; elsewhere it is the process's."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), NICENESS))
