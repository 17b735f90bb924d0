"""What works on dumps gives way to the registry on the same machine; what decides does not."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from services.backup import priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a priority for each thread.")


def niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_threads_give_way() -> None:
    """The threads have the lower priority, the event loop keeps its own."""
    before = niceness()

    with priority.threads() as threads:
        found = await asyncio.get_running_loop().run_in_executor(threads, niceness)

    assert found == max(before, priority.NICENESS)
    assert niceness() == before


def test_lower_still() -> None:
    """A process that was started with a still lower priority keeps it."""
    found = []

    def lower() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        with priority.threads() as threads:
            found.append(threads.submit(niceness).result())

    thread = threading.Thread(target=lower)
    thread.start()
    thread.join()

    assert found == [15]
