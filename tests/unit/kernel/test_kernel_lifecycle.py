"""The state table, the counter of calls, and the ordered shutdown."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel.lifecycle import MODES, NEXT, Lifecycle, State, step
from llm_schema_registry.kernel.shutdown import Steps

LEGAL = {
    ("STARTING", "SERVING"), ("STARTING", "READ_ONLY"), ("STARTING", "MAINTENANCE"), ("STARTING", "STOPPED"),
    ("SERVING", "SERVING"), ("SERVING", "READ_ONLY"), ("SERVING", "MAINTENANCE"), ("SERVING", "DRAINING"),
    ("READ_ONLY", "SERVING"), ("READ_ONLY", "READ_ONLY"), ("READ_ONLY", "MAINTENANCE"), ("READ_ONLY", "DRAINING"),
    ("MAINTENANCE", "SERVING"), ("MAINTENANCE", "READ_ONLY"), ("MAINTENANCE", "MAINTENANCE"),
    ("MAINTENANCE", "DRAINING"),
    ("DRAINING", "SERVING"), ("DRAINING", "READ_ONLY"), ("DRAINING", "MAINTENANCE"), ("DRAINING", "DRAINING"),
    ("DRAINING", "STOPPED"),
    ("STOPPED", "STOPPED"),
}  # fmt: skip


@pytest.mark.parametrize("following", State)
@pytest.mark.parametrize("state", State)
def test_state_table(state: State, following: State) -> None:
    """Every pair of states is a legal step or raises ILLEGAL_STATE."""
    if (state.name, following.name) in LEGAL:
        assert step(state, following) is following
    else:
        with pytest.raises(errors.IllegalState):
            step(state, following)


def test_every_state_has_a_row() -> None:
    """The table is complete."""
    assert set(NEXT) == set(State)


async def running(mode: State = State.SERVING) -> Lifecycle:
    """A lifecycle that has started."""
    life = Lifecycle()
    life.enter_mode(mode)
    return life


async def test_drained_process_resumes() -> None:
    """A drain keeps the mode that admits calls; a resume ends it, in any mode."""
    life = await running(State.READ_ONLY)
    life.drain()
    assert (life.state, life.accepting) == (State.DRAINING, State.READ_ONLY)

    life.enter_mode(State.SERVING)
    assert (life.state, life.accepting) == (State.SERVING, State.SERVING)


@pytest.mark.parametrize("drains", [True, False])
@pytest.mark.parametrize("mode", sorted(MODES))
async def test_resume_without_a_mode_keeps_it(mode: State, *, drains: bool) -> None:
    """A drained process comes back in the mode that it drained from; a running one stays as it is."""
    life = await running(mode)
    if drains:
        life.drain()
        life.drain()

    assert life.resume(None) is mode
    assert (life.state, life.accepting) == (mode, mode)


async def test_resume_with_a_mode_changes_it() -> None:
    """A mode that is named wins over the one before."""
    life = await running(State.READ_ONLY)
    life.drain()

    assert life.resume(State.SERVING) is State.SERVING
    assert (life.state, life.accepting) == (State.SERVING, State.SERVING)


@pytest.mark.parametrize("mode", [None, State.SERVING])
async def test_starting_process_does_not_resume(mode: State | None) -> None:
    """Nobody ends the start of a process from outside."""
    with pytest.raises(errors.IllegalState):
        Lifecycle().resume(mode)


async def test_stopping_process_does_not_resume() -> None:
    """Once a stop is requested no mode can be entered, named or not."""
    life = await running()
    life.request_stop("SIGTERM")
    life.drain()

    with pytest.raises(errors.IllegalState):
        life.enter_mode(State.SERVING)
    with pytest.raises(errors.IllegalState):
        life.resume(None)


@pytest.mark.parametrize("state", sorted(set(State) - MODES))
async def test_only_modes_can_be_entered(state: State) -> None:
    """STARTING, DRAINING and STOPPED are no modes."""
    life = await running()

    with pytest.raises(errors.IllegalState):
        life.enter_mode(state)


async def test_starting_process_cannot_drain() -> None:
    """A drain before the first mode is illegal."""
    with pytest.raises(errors.IllegalState):
        Lifecycle().drain()


async def test_first_wish_to_stop_counts() -> None:
    """The second wish changes nothing and says so."""
    life = await running()

    assert life.request_stop("SIGTERM")
    assert not life.request_stop("SIGINT")
    assert await life.wait_stop_requested() == "SIGTERM"


async def test_observers_see_each_change_once() -> None:
    """Observers get the state before and after; a repeat is no change."""
    seen: list[tuple[State, State]] = []
    life = Lifecycle()
    life.on_change(lambda before, after: seen.append((before, after)))
    life.enter_mode(State.SERVING)
    life.enter_mode(State.SERVING)
    life.drain()
    life.stopped()

    assert seen == [
        (State.STARTING, State.SERVING),
        (State.SERVING, State.DRAINING),
        (State.DRAINING, State.STOPPED),
    ]


async def test_idle_is_waited_for() -> None:
    """The wait ends with the last call, or with its time."""
    life = await running()
    life.call_begins()
    life.call_begins()
    assert not await life.wait_idle(0)

    waiting = asyncio.create_task(life.wait_idle(60))
    life.call_ends()
    life.call_ends()
    assert await waiting


class Log:
    """Remembers log lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        """Remembers."""
        self.lines.append({"event": event, **fields})

    error = info


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime.datetime:
        """A fixed day."""
        return datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)

    def monotonic(self) -> float:
        """What the test set."""
        return self.seconds


async def test_steps_run_newest_first_and_all() -> None:
    """Steps are unwound; one that fails or hangs is logged and does not keep the others from running."""
    log, ran = Log(), []
    steps = Steps(ManualClock(), log)

    async def close(name: str) -> None:
        ran.append(name)
        if name == "fails":
            raise RuntimeError(name)
        if name == "hangs":
            await asyncio.Event().wait()

    for name in ("first", "fails", "hangs", "last"):
        steps.add(name, lambda name=name: close(name), 0.01)  # type: ignore[misc]
    steps.begin(10)
    await steps.close()

    assert ran == ["last", "hangs", "fails", "first"]
    assert steps.failed == ["hangs", "fails"]
    assert [(line["step"], line["outcome"]) for line in log.lines] == [
        ("last", "done"),
        ("hangs", "timeout"),
        ("fails", "failed"),
        ("first", "done"),
    ]


async def test_budget_bounds_every_step() -> None:
    """A step gets no more than what is left of the whole; a little is always left."""
    clock = ManualClock()
    steps = Steps(clock, Log())
    steps.begin(5)
    clock.seconds = 4
    assert steps.remaining_seconds() == 1

    clock.seconds = 100
    steps.begin(5)
    assert steps.remaining_seconds() == 0.1


async def test_entered_resources_are_left() -> None:
    """A context manager is entered at once and left as a step."""
    log, events = Log(), []

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        events.append("open")
        yield "pool"
        events.append("close")

    steps = Steps(ManualClock(), log)
    assert await steps.enter("close database", pool()) == "pool"
    assert events == ["open"]
    await steps.close()

    assert events == ["open", "close"]
    assert [line["step"] for line in log.lines] == ["close database"]
