"""Processes for work that may take for ever, or end the process that does it.

Native code cannot be interrupted and holds the interpreter's lock, so a thread does not help: the process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Any, TypeVar

from llm_schema_registry.errors import LimitExceeded, Overloaded

T = TypeVar("T")

WORKERS = 2
WAITING_MAX = 256
"""Pieces of work in hand. Those that wait hold nothing but what their caller holds anyway, and end with the caller."""
WORK_SECONDS_MAX = 3.0
START_SECONDS_MAX = 20.0
LENGTH_BYTES = 4
MODULE = "services.registry.worker"


class WorkerPool:
    """`async with WorkerPool() as workers`. A process starts with the first work that finds none idle."""

    def __init__(self, seconds_max: float = WORK_SECONDS_MAX, waiting_max: int = WAITING_MAX) -> None:
        self._seconds_max = seconds_max
        self._waiting_max = waiting_max
        self._places = asyncio.Semaphore(WORKERS)
        self._idle: list[Process] = []
        self._taken = 0

    async def __aenter__(self) -> WorkerPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await _end(self._idle.pop())

    async def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """See Workers."""
        if self._taken >= self._waiting_max:
            raise Overloaded(
                f"{self._taken} pieces of work wait already: repeat later",
                metadata={"maximum": self._waiting_max},
                retry_seconds=self._seconds_max,
            )
        self._taken += 1
        try:
            async with self._places:
                good, value = await self._done(pickle.dumps((work, arguments, named)))
        finally:
            self._taken -= 1
        if not good:
            raise value
        result: T = value
        return result

    async def _done(self, frame: bytes) -> tuple[bool, Any]:
        """What a worker makes of a frame. A worker that is not done, whatever the reason, is ended."""
        process = await self._worker()
        try:
            async with asyncio.timeout(self._seconds_max):
                answer: tuple[bool, Any] = pickle.loads(await _exchange(process, frame))  # noqa: S301 - our own child
        except TimeoutError:
            await _end(process)
            raise LimitExceeded(
                f"the work took longer than {self._seconds_max:g} s and was ended: the schema or the data makes it"
                " explode, for example by references that lead to themselves in several ways",
                metadata={"limit": "work_seconds", "maximum": f"{self._seconds_max:g}"},
            ) from None
        except (EOFError, ConnectionError):
            await _end(process)
            raise LimitExceeded(
                "the work ended its process: native code crashed on the schema or the data, or took too much memory",
                metadata={"limit": "work_memory"},
            ) from None
        except BaseException:
            await _end(process)
            raise
        self._idle.append(process)
        return answer

    async def _worker(self) -> Process:
        """A worker that lives: an idle one, or a new one."""
        while self._idle:
            idle = self._idle.pop()
            if idle.returncode is None:
                return idle
        process: Process | None = None
        try:
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", MODULE, stdin=PIPE, stdout=PIPE)
            async with asyncio.timeout(START_SECONDS_MAX):
                await _frame(process)
        except BaseException as error:
            if process is not None:
                await _end(process)
            killed = isinstance(error, EOFError) and process is not None and (process.returncode or 0) < 0
            if killed or isinstance(error, OSError | TimeoutError):
                raise _not_started() from error
            raise
        return process


def _not_started() -> Overloaded:
    return Overloaded(
        "no process could be started for the work, for want of memory or processes or time: repeat later",
        retry_seconds=START_SECONDS_MAX,
    )


async def _exchange(process: Process, frame: bytes) -> bytes:
    assert process.stdin is not None
    process.stdin.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
    await process.stdin.drain()
    return await _frame(process)


async def _frame(process: Process) -> bytes:
    """The next frame that a worker writes. Raises IncompleteReadError, an EOFError, when it ends first."""
    assert process.stdout is not None
    length = await process.stdout.readexactly(LENGTH_BYTES)
    return await process.stdout.readexactly(int.from_bytes(length, "big"))


async def _end(process: Process) -> None:
    """Kills a worker and waits for its end, also when the caller is cancelled meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    await asyncio.shield(process.wait())
