"""Deadlines: one timer for all calls, and a caller's deadline that leaves no time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from llm_schema_registry.kernel.deadlines import Deadlines
from llm_schema_registry.kernel.identity import ControlCredential, OpenLocal
from llm_schema_registry.kernel.interceptors import ANSWER_SECONDS, Interceptors, Rules
from llm_schema_registry.kernel.lifecycle import Lifecycle, State
from llm_schema_registry.kernel.policy import Method
from llm_schema_registry.kernel.telemetry import Telemetry


async def expires(deadlines: Deadlines, seconds: float, started: asyncio.Event | None = None) -> bool:
    """Waits for ever under a deadline; whether it expired."""
    deadline = deadlines.begin(time.monotonic() + seconds)
    if started is not None:
        started.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return deadlines.end(deadline)
    return False


async def test_calls_expire_in_the_order_of_their_deadlines() -> None:
    """A later deadline that was entered first does not hold up an earlier one, and expires too."""
    deadlines, order = Deadlines(), []

    async def call(name: str, seconds: float) -> None:
        assert await expires(deadlines, seconds)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 0.06), ("early", 0.01), ("middle", 0.03)):
            group.create_task(call(name, seconds))

    assert order == ["early", "middle", "late"]


async def test_ended_calls_are_not_cancelled() -> None:
    """A call that ended in time is left alone when its deadline comes; the timer goes on to the next."""
    deadlines = Deadlines()
    deadline = deadlines.begin(time.monotonic() + 0.005)
    assert not deadlines.end(deadline)

    assert await asyncio.create_task(expires(deadlines, 0.02))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_foreign_cancellation_is_no_deadline() -> None:
    """A call that is cancelled by somebody else has not expired."""
    started = asyncio.Event()
    task = asyncio.create_task(expires(Deadlines(), 60, started))
    await started.wait()
    task.cancel()

    assert not await task


class Aborted(Exception):
    """What the fake context raises."""


class Context:
    """A servicer context whose caller allows so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.code: Any = None

    def time_remaining(self) -> float:
        """What the caller allows."""
        return self._seconds

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """No metadata."""
        return ()

    def peer(self) -> str:
        """Nobody."""
        return "test"

    async def abort(self, code: Any, details: str, trailing: Any) -> None:
        """Remembers the code."""
        self.code = code
        raise Aborted(details, trailing)


class Silent:
    """A logger that says nothing."""

    def warning(self, *_: Any, **__: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("seconds", [ANSWER_SECONDS, 0.001, -1.0])
async def test_work_that_cannot_finish_is_refused(seconds: float) -> None:
    """A call whose deadline leaves only the time for the answer never reaches its handler."""
    life = Lifecycle()
    life.enter_mode(State.SERVING)
    rules = Rules(life, OpenLocal(), ControlCredential(None, ()), 30, 1000)
    method = Method("a.B/C", role=1, seconds=5.0, states=frozenset({int(State.SERVING)}))

    async def handle(request: Any, context: Any) -> bytes:
        raise AssertionError(request, context)

    interceptors = Interceptors(rules, Telemetry(Silent(), metrics=True, sampling_rate=0))
    wrapped: Any = interceptors.wrap(method, grpc.unary_unary_rpc_method_handler(handle))
    context = Context(seconds)
    with pytest.raises(Aborted):
        await wrapped.unary_unary(b"", context)

    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert life.in_flight == 0
