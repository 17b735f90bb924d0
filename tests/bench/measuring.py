"""What the benchmarks share: servers of their own, load, CPU time from /proc, medians of interleaved rounds."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.local.postgres import Postgres
from tests.fix_service import Service, environment

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = 7
"""Rounds of each side, taken in turn: the median of their ratios is what counts."""

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of load. Times in seconds, cpu over all requests."""

    requests: int
    seconds: float
    cpu_seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of the server for one request, in microseconds."""
        return self.cpu_seconds / self.requests * 1e6

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3


async def load(call: Call, *, requests: int, clients: int, pid: int | None = None) -> Round:
    """Runs `requests` calls by `clients` callers that wait for each answer. pid: the server whose CPU is counted."""
    latencies: list[float] = []
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    cpu = cpu_seconds(pid) if pid else 0.0
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    return Round(requests, seconds, (cpu_seconds(pid) if pid else 0.0) - cpu, latencies)


async def steady(call: Call, *, per_second: float, until: Awaitable[object]) -> Round:
    """Runs calls at a fixed rate, whether those before were answered or not, until something has happened.

    What waits for a slow answer does not spare the server the calls behind it, as callers that take turns would.
    """
    latencies: list[float] = []
    end = asyncio.ensure_future(until)

    async def one() -> None:
        began = time.perf_counter()
        await call()
        latencies.append(time.perf_counter() - began)

    calls: set[asyncio.Task[None]] = set()
    began = time.perf_counter()
    while not end.done():
        calls.add(asyncio.create_task(one()))
        await asyncio.sleep(max(0.0, began + len(calls) / per_second - time.perf_counter()))
    await asyncio.gather(end, *calls)
    return Round(len(calls), time.perf_counter() - began, 0.0, latencies)


def cpu_seconds(pid: int) -> float:
    """CPU time that the living threads of a process have used, to the nanosecond.

    Source: Documentation/scheduler/sched-stats.rst of Linux, first field of /proc/<pid>/task/<tid>/schedstat.
    """
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def table(name: str, rounds: Sequence[Round]) -> str:
    """Medians of one side, as a line."""
    middle = {
        "p50": statistics.median(each.percentile_ms(50) for each in rounds),
        "p95": statistics.median(each.percentile_ms(95) for each in rounds),
        "p99": statistics.median(each.percentile_ms(99) for each in rounds),
    }
    rate = statistics.median(each.rate for each in rounds)
    cpu = statistics.median(each.cpu_us for each in rounds)
    times = "  ".join(f"{key} {value:6.2f} ms" for key, value in middle.items())
    return f"{name:28} {rate:7.0f} req/s  {cpu:6.0f} µs CPU  {times}"


def ratio(ours: Sequence[Round], theirs: Sequence[Round], value: Callable[[Round], float]) -> float:
    """The median over the rounds of ours to theirs, each pair taken at about the same time."""
    return statistics.median(value(mine) / value(other) for mine, other in zip(ours, theirs, strict=True))


def verdict(what: str, measured: float, *, at_most: float | None = None, at_least: float | None = None) -> str:
    """A ratio beside its target."""
    if at_most is not None:
        return f"{what}: {measured:.2f} (target: at most {at_most:g}) {'ok' if measured <= at_most else 'MISSED'}"
    assert at_least is not None
    return f"{what}: {measured:.2f} (target: at least {at_least:g}) {'ok' if measured >= at_least else 'MISSED'}"


@contextmanager
def postgres(**options: str) -> Iterator[Postgres]:
    """A PostgreSQL server for one benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder), options=options)
        server.initialise(sync=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def registry(database_url: str, **options: object) -> Iterator[Service]:
    """A registry process for one benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), environment(database_url, None, options))
        service.start()
        try:
            yield service
        finally:
            service.stop()


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    children = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *(each for line in children for child in line for each in tree(int(child)))]


@contextmanager
def apart(*others: int) -> Iterator[None]:
    """This process and what it starts on the last processor, other processes with their trees on those before it, as if
    on machines of their own. All of them on all again afterwards. Linux alone."""
    everywhere = sorted(os.sched_getaffinity(0))
    _place(os.getpid(), everywhere[-1:])
    for pid in others:
        _place(pid, everywhere[:-1])
    try:
        yield
    finally:
        _place(os.getpid(), everywhere)
        for pid in others:
            _place(pid, everywhere)


def _place(pid: int, processors: Sequence[int]) -> None:
    """Binds every thread of a tree to processors. One that ended meanwhile needs none."""
    for each in tree(pid):
        for thread in Path(f"/proc/{each}/task").glob("*"):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), processors)


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python program of ours, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
