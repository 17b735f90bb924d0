"""Where a process stands in its life: the state table, the calls in flight, the open streams, the wish to stop.

STARTING → SERVING ⇄ READ_ONLY ⇄ MAINTENANCE → DRAINING → STOPPED. Everything here belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping

from llm_schema_registry import errors
from llm_schema_registry.common.v1 import service_state_pb2 as pb

RESUME_SECONDS = 1.0
"""When a caller that was turned away may try again; another replica may answer at once."""
LAST_WRITE_SECONDS = 1.0
"""How long a stream that is asked to end may go on sending the message that it is sending."""


class State(enum.IntEnum):
    """States of common/v1/service_state.proto, by the same numbers."""

    STARTING = pb.SERVICE_STATE_STARTING
    SERVING = pb.SERVICE_STATE_SERVING
    READ_ONLY = pb.SERVICE_STATE_READ_ONLY
    MAINTENANCE = pb.SERVICE_STATE_MAINTENANCE
    DRAINING = pb.SERVICE_STATE_DRAINING
    STOPPED = pb.SERVICE_STATE_STOPPED


MODES = frozenset({State.SERVING, State.READ_ONLY, State.MAINTENANCE})
"""States in which a running process stays until it is told otherwise."""

NEXT: Mapping[State, frozenset[State]] = {
    State.STARTING: MODES | {State.STOPPED},
    State.SERVING: MODES | {State.DRAINING},
    State.READ_ONLY: MODES | {State.DRAINING},
    State.MAINTENANCE: MODES | {State.DRAINING},
    State.DRAINING: MODES | {State.DRAINING, State.STOPPED},
    State.STOPPED: frozenset({State.STOPPED}),
}
"""The states that may follow each state. Staying is a step too where a repeat is harmless."""


def step(state: State, following: State) -> State:
    """The following state. Raises IllegalState when the table has no such step."""
    if following not in NEXT[state]:
        raise errors.IllegalState(
            f"The process is {state.name} and cannot become {following.name} from there.",
            metadata={"state": state.name, "wanted": following.name},
        )
    return following


class Stream:
    """One open streaming call, which a drain may end between two messages."""

    __slots__ = ("_last_write", "_task", "_waiting", "ended")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._waiting = False
        self._last_write: asyncio.TimerHandle | None = None
        self.ended = False

    def end(self) -> None:
        """Asks the call to end. A call that waits for its handler is woken.

        One that sends ends after the message, or without it when the caller does not take it.
        """
        if self.ended:
            return
        self.ended = True
        if self._waiting:
            self._task.cancel()
        else:
            self._last_write = asyncio.get_running_loop().call_later(LAST_WRITE_SECONDS, self._task.cancel)

    def close(self) -> None:
        """The call has ended."""
        if self._last_write is not None:
            self._last_write.cancel()

    def wait_begins(self) -> None:
        """The call is about to wait for its handler. Raises CancelledError when it was asked to end."""
        if self.ended:
            raise asyncio.CancelledError
        self._waiting = True

    def wait_ends(self) -> None:
        """The call has something to send, which must not be interrupted."""
        self._waiting = False


class Lifecycle:
    """The state of one process, and what has to happen before it may change.

    `accepting` is the state that decides which calls are admitted: the state itself, or, while DRAINING, the mode
    before. `stopping` is set once by the first wish to stop, which is never taken back. `abandoned` counts streams
    that were ended while their caller took nothing.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self.accepting = State.STARTING
        self.in_flight = 0
        self.abandoned = 0
        self.stop_cause: str | None = None
        self.restart_wanted = False
        self._stop_wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[Stream] = set()
        self._observers: list[Callable[[State, State], None]] = []

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self.stop_cause is not None

    @property
    def started(self) -> bool:
        """Whether the process has once finished its start."""
        return self.accepting is not State.STARTING

    def on_change(self, observer: Callable[[State, State], None]) -> None:
        """Calls the observer with the old and the new state at every change, within the call that changes it."""
        self._observers.append(observer)

    def enter_mode(self, mode: State) -> None:
        """Starts, resumes or changes the mode: SERVING, READ_ONLY or MAINTENANCE.

        Raises IllegalState when the process is stopping, and for anything that is no mode.
        """
        if mode not in MODES:
            raise errors.IllegalState(
                f"{mode.name} is not a mode; use SERVING, READ_ONLY or MAINTENANCE.",
                metadata={"state": self.state.name, "wanted": mode.name},
            )
        if self.stopping:
            raise _stopping(self.state)
        self.accepting = step(self.state, mode)
        self._become(mode)

    def resume(self, mode: State | None) -> State:
        """Enters a mode, or with None the mode before: while DRAINING the one it drained from, else the present one.

        Returns the mode. Raises IllegalState while starting or stopping, and for anything that is no mode.
        """
        if not self.started:
            raise errors.IllegalState(
                "The process is still starting; wait until it serves.", metadata={"state": self.state.name}
            )
        mode = mode or self.accepting
        self.enter_mode(mode)
        return mode

    def drain(self) -> None:
        """Leaves the rotation and asks every open stream to end. Raises IllegalState while starting or stopped.

        Calls that still arrive are admitted as in the mode before. A repeat changes nothing.
        """
        self._become(step(self.state, State.DRAINING))
        for stream in tuple(self._streams):
            stream.end()

    def stopped(self) -> None:
        """Marks the end. Raises IllegalState unless drained, or still starting."""
        self._become(step(self.state, State.STOPPED))
        self.accepting = State.STOPPED

    def request_stop(self, cause: str, *, restart: bool = False) -> bool:
        """Starts the shutdown; false when it had been requested before. restart: whether a successor is wanted."""
        if self.stopping:
            return False
        self.stop_cause = cause
        self.restart_wanted = restart
        self._stop_wanted.set()
        return True

    async def wait_stop_requested(self) -> str:
        """Waits for the wish to stop and returns its cause."""
        await self._stop_wanted.wait()
        assert self.stop_cause is not None
        return self.stop_cause

    def call_begins(self) -> None:
        """Counts a call in."""
        self.in_flight += 1
        if self.in_flight == 1:
            self._idle.clear()

    def call_ends(self) -> None:
        """Counts a call out."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until no call is in flight; false when the time was over first."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def stream_begins(self) -> Stream:
        """Registers the current task as a streaming call. Raises NotServing while draining."""
        if self.state is State.DRAINING:
            raise drained()
        task = asyncio.current_task()
        assert task is not None
        stream = Stream(task)
        self._streams.add(stream)
        return stream

    def stream_ends(self, stream: Stream) -> None:
        """Forgets a streaming call."""
        stream.close()
        self._streams.discard(stream)

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        before, self.state = self.state, state
        for observer in self._observers:
            observer(before, state)


def drained() -> errors.NotServing:
    """The error that ends a stream on a process that leaves the rotation."""
    return errors.NotServing(
        "This process leaves the rotation. Nothing is wrong: open the stream again, from where it was, on another one.",
        metadata={"state": State.DRAINING.name},
        retry_seconds=RESUME_SECONDS,
    )


def _stopping(state: State) -> errors.IllegalState:
    return errors.IllegalState(
        "The process is stopping and does not come back; wait for its successor.",
        metadata={"state": state.name},
    )
