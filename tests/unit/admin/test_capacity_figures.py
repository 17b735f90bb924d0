"""Figures are taken, kept, put together and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_schema_registry.objects.directory import DirectoryStore
from services.admin.domain.advice import Bounds, Outlook, advise, cores_per_request
from services.admin.domain.capacity import (
    RESOURCES,
    Figure,
    Sample,
    Usage,
    Written,
    coarse,
    database_figures,
    from_document,
    thinned,
    to_document,
)
from services.admin.domain.forecast import fitted, forecast
from services.admin.domain.system import Address, MetricPoint
from services.admin.usecases.history import FOLDER, History
from services.admin.usecases.sample import Counts, Sampler

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
MINUTES = timedelta(minutes=5)
DAY = timedelta(days=1)


def samples(start: datetime, count: int, step: timedelta = MINUTES) -> list[Sample]:
    """Samples with a rate that counts up."""
    names = ("requests_per_second", "requests_per_second_peak")
    return [Sample(start + number * step, dict.fromkeys(names, float(number))) for number in range(count)]


def test_coarse_samples_keep_mean_and_peak() -> None:
    """An hour becomes one sample, of rates the mean and of peaks the largest; a repeat changes nothing."""
    once = coarse(samples(NOW, 24))

    assert [each.values for each in once] == [
        {"requests_per_second": 5.5, "requests_per_second_peak": 11.0},
        {"requests_per_second": 17.5, "requests_per_second_peak": 23.0},
    ]
    assert coarse(once) == once


def test_thinned_figures_are_medians() -> None:
    """Figures above the number that is shown become medians of neighbours; below it they stay."""
    figures = [Figure(NOW + number * MINUTES, 1e9 if number == 50 else 1.0) for number in range(1000)]

    assert len(thinned(figures, 100)) <= 100
    assert {each.value for each in thinned(figures, 100)} == {1.0}
    assert thinned(figures, 1000) == figures


def test_documents_are_read_as_they_were_written() -> None:
    """Samples survive their document; a name that a later version wrote is left out."""
    document = to_document(samples(NOW, 3))
    document["rows"][0][1]["of the future"] = 1

    assert from_document(document) == samples(NOW, 3)


def test_database_is_reckoned_back_by_its_content() -> None:
    """Half the content, half the tables; what an empty database takes is always there."""
    written = [Written(NOW - DAY, 10, 500), Written(NOW, 20, 1000)]

    assert [each.value for each in database_figures(Usage(3000, 2000, 20, 20), written)] == [2000, 3000]
    assert database_figures(Usage(3000, 2000, 0, 0), []) == []


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An object store."""
    return DirectoryStore(tmp_path)


async def test_one_of_many_replicas_keeps_a_sample(store: DirectoryStore) -> None:
    """Of two that take a sample at the same time one is kept; the next is kept after the interval."""
    one, other = History(store, 300), History(store, 300)
    first, second = samples(NOW, 2)

    assert await one.add(first)
    assert not await other.add(Sample(first.time + timedelta(seconds=3), first.values))
    assert await other.add(second)

    assert (await one.since(NOW - DAY))[0] == [first, second]


async def test_old_days_are_coarsened_then_removed(store: DirectoryStore) -> None:
    """After a week a day has 24 samples, after 400 days none."""
    history = History(store, 300)
    for day, count in ((NOW - 401 * DAY, 1), (NOW - 10 * DAY, 40), (NOW - DAY, 40)):
        for each in samples(day.replace(hour=0), count):
            await history.add(each)

    await history.tidy(NOW)
    found, problems = await history.since(NOW - 500 * DAY)

    assert problems == []
    assert len([each for each in found if each.time < NOW - 5 * DAY]) == 4
    assert len([each for each in found if each.time > NOW - 5 * DAY]) == 40


async def test_damaged_day_is_a_problem_not_an_end(store: DirectoryStore) -> None:
    """A day that cannot be read is named, and the others are told."""
    history = History(store, 300)
    await history.add(samples(NOW, 1)[0])
    await store.put(f"{FOLDER}2026-06-14.json", b"{")

    found, problems = await history.since(NOW - 5 * DAY)

    assert len(found) == 1
    assert problems == ["capacity/2026-06-14.json, a day of the history of use, cannot be read: delete it"]


def test_restarted_replica_counts_anew() -> None:
    """A counter that fell belongs to a new process: all of it is new."""
    before, after = Counts(100, 5, 50.0), Counts(10, 1, 2.0)

    assert after.since(before) == after
    assert Counts(130, 6, 55.0).since(before) == Counts(30, 1, 5.0)


class OnePeer:
    """A replica of the registry whose counters go on by a fixed amount between two looks."""

    services = ("registry",)

    def __init__(self) -> None:
        self.looks = 0

    async def replicas(self, service: str) -> Sequence[Address]:
        return [Address(service, "127.0.0.1:1")]

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        del address
        self.looks += 1
        method = {"grpc.method": "llm_schema_registry.registry.v1.SchemaService/GetSchema"}
        return [
            MetricPoint("grpc.server.call.started", "counter", "{call}", method, 300.0 * self.looks),
            MetricPoint("grpc.server.call.started", "counter", "{call}", {"grpc.method": "grpc.health.v1.X/Y"}, 1e9),
            MetricPoint(
                "grpc.server.call.duration",
                "histogram",
                "s",
                {**method, "grpc.status": "INTERNAL"},
                1.0,
                30 * self.looks,
            ),
            MetricPoint("grpc.server.call.duration", "histogram", "s", {**method, "grpc.status": "NOT_FOUND"}, 1.0, 90),
            MetricPoint("process.cpu.time", "counter", "s", {}, 15.0 * self.looks),
            MetricPoint("process.memory.usage", "gauge", "By", {}, 1000.0),
            MetricPoint("registry.cache.hits", "counter", "{schema}", {"tier": "memory"}, 9.0 * self.looks),
            MetricPoint("registry.cache.misses", "counter", "{schema}", {"tier": "memory"}, 1.0 * self.looks),
            MetricPoint("db.client.connection.count", "gauge", "{connection}", {"state": "used"}, 3.0),
            MetricPoint("db.client.connection.count", "gauge", "{connection}", {"state": "idle"}, 7.0),
        ]


class Around:
    """A database and stores with fixed figures."""

    async def usage(self) -> Usage:
        return Usage(5000, 4000, 7, 9)

    async def stored_bytes(self) -> int:
        return 1234


class Ticking:
    """A clock that goes on by 300 s between two looks at the system."""

    def __init__(self, peer: OnePeer) -> None:
        self._peer = peer

    def now(self) -> datetime:
        return NOW + self._peer.looks * MINUTES

    def monotonic(self) -> float:
        return 300.0 * self._peer.looks


async def test_sample_holds_what_was_done_in_between(store: DirectoryStore) -> None:
    """Rates are of the time between two looks, of the registry's own methods; failures are the server's alone."""
    peer, around = OnePeer(), Around()
    sampler = Sampler(peer, around, around, history := History(store, 300), Ticking(peer))  # type: ignore[arg-type]

    assert await sampler.take()
    assert await sampler.take()
    first, second = (await history.since(NOW - DAY))[0]

    assert "requests_per_second" not in first.values
    assert second.values == {
        "requests_per_second": 1.0,
        "requests_per_second_peak": 1.0,
        "errors_per_second": 0.1,
        "cpu_cores": 0.05,
        "cache_hit_ratio": 0.9,
        "memory_bytes": 1000.0,
        "pool_connections": 3.0,
        "replicas": 1.0,
        "database_bytes": 5000.0,
        "versions": 7.0,
        "changes": 9.0,
        "object_store_bytes": 1234.0,
    }


def outlooks(limits: Mapping[str, float] = {}, **values: tuple[float, float]) -> dict[str, Outlook]:
    """Resources that grow from a value by so much a day for a month."""
    found = {}
    for each in RESOURCES:
        if each.name in values:
            level, slope = values[each.name]
            figures = [Figure(NOW - (29 - number) * DAY, level + slope * number) for number in range(30)]
            line = fitted(figures)
            assert line is not None
            limit = limits.get(each.name, 0.0)
            ahead = forecast(line, NOW, 90 * DAY, limit=limit, most=each.most)
            found[each.name] = Outlook(each.name, each.unit, "samples", figures, figures[-1].value, ahead, limit)
    return found


def test_full_disk_has_a_date() -> None:
    """A database that reaches its limit is the most urgent advice, with its date."""
    found = advise(
        outlooks({"database_bytes": 1500.0}, database_bytes=(1000.0, 10.0), cache_hit_ratio=(0.5, 0.0),
                 requests_per_second=(5.0, 0.0)),
        Bounds(), NOW,
    )  # fmt: skip

    assert [each.resource for each in found] == ["database_bytes", "cache_hit_ratio"]
    assert found[0].deadline == NOW + 21 * DAY
    assert found[1].deadline is None


def test_replicas_follow_cost_and_rate() -> None:
    """A request costs 5 ms: 300 a second need 1.5 cores, three processes at 60 %, and one to spare."""
    use = {
        "requests_per_second": (100.0, 0.0),
        "requests_per_second_peak": (300.0, 0.0),
        "cpu_cores": (0.5, 0.0),
        "replicas": (2.0, 0.0),
    }

    [advice] = advise(outlooks({}, **use), Bounds(), NOW)

    assert "run 4 replicas" in advice.text
    assert advice.deadline == NOW
    assert advise(outlooks({}, **{**use, "replicas": (4.0, 0.0)}), Bounds(), NOW) == []


def test_nothing_to_do_says_nothing() -> None:
    """A quiet system that grows slowly has no advice."""
    assert advise(outlooks(database_bytes=(1000.0, 1.0), replicas=(2.0, 0.0)), Bounds(10, 100), NOW) == []
    assert advise({}, Bounds(), NOW) == []


def test_connections_must_fit_into_the_server() -> None:
    """More pooled connections than the server allows are said, and a pool that is nearly used up."""
    found = advise(outlooks({"pool_connections": 100.0}, replicas=(4.0, 0.0), pool_connections=(85.0, 0.0)),
                   Bounds(pool_max=50, connections_max=100), NOW)  # fmt: skip

    assert len(found) == 2
    assert any("max_connections" in each.text for each in found)


def test_cost_of_requests_needs_requests() -> None:
    """Without load nothing is said of the cost of a request."""
    idle = [Figure(NOW + number * MINUTES, 0.0) for number in range(5)]

    assert cores_per_request(idle, idle) is None
