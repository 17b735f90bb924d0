"""Takes figures of the whole system from time to time, and keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.capacity import (
    CACHE,
    CHANGES,
    CPU,
    DATABASE,
    FAILURES,
    MEMORY,
    OBJECTS,
    PEAK,
    POOL,
    REPLICAS,
    REQUESTS,
    SECONDS_PER_DAY,
    VERSIONS,
    Sample,
    Usage,
)
from services.admin.domain.system import REGISTRY, Address, MetricPoint
from services.admin.ports import Database, Peers, Stores
from services.admin.usecases.history import History

T = TypeVar("T")

ASK_SECONDS = 10.0
"""For each thing that is asked."""
OUR_METHODS = "llm_schema_registry.registry.v1."
FAILURE_NAMES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are the service's doing, not its caller's."""

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replica has counted since it started."""

    requests: float = 0.0
    failures: float = 0.0
    cpu_seconds: float = 0.0
    hits: float = 0.0
    misses: float = 0.0

    def since(self, before: Counts | None) -> Counts:
        """What was counted in between; all of it when the replica started anew, or is new."""
        if before is None or self.cpu_seconds < before.cpu_seconds:
            return self
        return Counts(
            self.requests - before.requests,
            self.failures - before.failures,
            self.cpu_seconds - before.cpu_seconds,
            self.hits - before.hits,
            self.misses - before.misses,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """Every replica of the registry at one moment. gauges: by resource."""

    time: datetime
    counts: dict[Address, Counts] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Takes samples. Only one of many replicas keeps each: the history decides."""

    def __init__(self, peers: Peers, database: Database, stores: Stores, history: History, clock: Clock) -> None:
        self._peers = peers
        self._database = database
        self._stores = stores
        self._history = history
        self._clock = clock
        self._before: Look | None = None

    async def run(self, interval_seconds: float, report: Report, chore: Callable[[], Awaitable[None]]) -> None:
        """Takes a sample every so often, and does a chore every day; ends when its task is cancelled."""
        failing = ""
        tidied = -float(SECONDS_PER_DAY)
        while True:
            try:
                await self.take()
                if self._clock.monotonic() - tidied >= SECONDS_PER_DAY:
                    tidied = self._clock.monotonic()
                    await self._history.tidy(self._clock.now())
                    await chore()
                failing = ""
            except errors.Error as failed:
                if failed.message != failing:
                    failing = failed.message
                    report("history of use not kept", message=failing)
            await asyncio.sleep(interval_seconds)

    async def take(self) -> bool:
        """Takes a sample and keeps it, unless another process has; whether it did."""
        sample, look, _ = await self._found()
        self._before = look
        return bool(sample.values) and await self._history.add(sample)

    async def now(self) -> tuple[Sample, Sequence[str]]:
        """What is used at this moment, and what could not be found out. Nothing is kept."""
        sample, _, problems = await self._found()
        return sample, problems

    async def _found(self) -> tuple[Sample, Look, Sequence[str]]:
        found = await asyncio.gather(
            _asked("the registry", self._look()),
            _asked("the database", self._database.usage()),
            _asked("the object store", self._stores.stored_bytes()),
        )
        look, usage, stored_bytes = found
        problems = [each for each in found if isinstance(each, str)]
        values: dict[str, float] = {}
        if isinstance(look, Look):
            values |= look.gauges | _rates(look, self._before)
        if isinstance(usage, Usage):
            values |= {DATABASE.name: usage.database_bytes, VERSIONS.name: usage.versions, CHANGES.name: usage.changes}
        if isinstance(stored_bytes, int):
            values[OBJECTS.name] = stored_bytes
        time = self._clock.now()
        return Sample(time, values), look if isinstance(look, Look) else Look(time), problems

    async def _look(self) -> Look:
        """Raises errors.PeerUnreachable when no replica answers; one of many that does not is left out."""
        addresses = await self._peers.replicas(REGISTRY)
        time = self._clock.now()
        answers: dict[Address, Sequence[MetricPoint]] = {}

        async def ask(address: Address) -> None:
            with suppress(errors.Error):
                answers[address] = await self._peers.metrics(address)

        await asyncio.gather(*(ask(each) for each in addresses))
        if not answers:
            raise errors.PeerUnreachable("no replica of the registry answers", retry_seconds=5)
        gauges = {
            REPLICAS.name: float(len(answers)),
            MEMORY.name: _total(answers.values(), "process.memory.usage"),
            POOL.name: _total(answers.values(), "db.client.connection.count", ("state", "used")),
        }
        return Look(time, {address: _counts(points) for address, points in answers.items()}, gauges)


def _counts(points: Sequence[MetricPoint]) -> Counts:
    calls = [each for each in points if each.attributes.get("grpc.method", "").startswith(OUR_METHODS)]
    return Counts(
        requests=_total([calls], "grpc.server.call.started"),
        failures=float(
            sum(
                each.count
                for each in calls
                if each.name == "grpc.server.call.duration" and each.attributes.get("grpc.status") in FAILURE_NAMES
            )
        ),
        cpu_seconds=_total([points], "process.cpu.time"),
        hits=_total([points], "registry.cache.hits", ("tier", "memory")),
        misses=_total([points], "registry.cache.misses", ("tier", "memory")),
    )


def _rates(now: Look, before: Look | None) -> dict[str, float]:
    """What was done in between, by second; nothing for the first look."""
    seconds = (now.time - before.time).total_seconds() if before else 0.0
    if before is None or not before.counts or seconds <= 0:
        return {}
    done = [counts.since(before.counts.get(address)) for address, counts in now.counts.items()]
    requests = sum(each.requests for each in done) / seconds
    rates = {
        REQUESTS.name: requests,
        PEAK.name: requests,
        FAILURES.name: sum(each.failures for each in done) / seconds,
        CPU.name: sum(each.cpu_seconds for each in done) / seconds,
    }
    asked = sum(each.hits + each.misses for each in done)
    if asked > 0:
        rates[CACHE.name] = sum(each.hits for each in done) / asked
    return rates


def _total(answers: Iterable[Sequence[MetricPoint]], name: str, only: tuple[str, str] | None = None) -> float:
    """The sum of a metric's values. only: an attribute that they must have, and its value."""
    return sum(
        each.value
        for points in answers
        for each in points
        if each.name == name and (only is None or each.attributes.get(only[0]) == only[1])
    )


async def _asked(what: str, question: Awaitable[T]) -> T | str:
    """The answer, or why there is none."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await question
    except errors.Error as failed:
        return f"{what}: {failed.message}"
    except TimeoutError:
        return f"{what}: no answer within {ASK_SECONDS:g} s"
