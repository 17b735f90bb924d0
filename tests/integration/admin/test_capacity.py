"""Reports on capacity: from the registry's own history, from samples, from Prometheus; without any of them as well."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.client import AdminClient, RegistryClient
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.objects.directory import DirectoryStore
from services.admin.adapters.postgres_maintenance import PostgresMaintenance
from services.admin.adapters.prometheus import QUERIES
from services.admin.domain.capacity import Figure
from services.admin.domain.system import Address, MetricPoint, Option
from services.admin.usecases.capacity import Capacity, Report, Sources
from services.admin.usecases.history import History
from services.admin.usecases.sample import Sampler
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_backup import fill
from tests.fix_calls import Registry
from tests.fix_registry import postgres_options
from tests.fix_service import MakeService, Service

DAYS = 20
WRITE = """
    INSERT INTO registry.changes (position, epoch, time, actor, subject, kind, payload_version, payload)
    SELECT n, 1, now() - make_interval(days => %s) + n * interval '1 hour', 'test', 'subject', 'made', 1,
        decode(repeat(md5(n::text), 100), 'hex')
    FROM generate_series(1, %s * 24) n
"""
METRIC = re.compile(r"\b(?:grpc|process|registry|db|schema_registry)_[a-z_]+")
LABELS = {"grpc_method", "grpc_status"}
WINDOW = timedelta(days=30)
HORIZON = timedelta(days=90)


class Around:
    """Peers and stores: none that answers, or one replica with its options."""

    services = ("registry",)

    def __init__(self, pool_max: int = 0) -> None:
        self._pool_max = pool_max

    async def replicas(self, service: str) -> Sequence[Address]:
        return [Address(service, "127.0.0.1:1")]

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        if not self._pool_max:
            raise errors.PeerUnreachable(f"{address.target} does not answer")
        return [MetricPoint("db.client.connection.count", "gauge", "", {"state": "used"}, 4.0)]

    async def options(self, address: Address) -> Sequence[Option]:
        if not self._pool_max:
            raise errors.PeerUnreachable(f"{address.target} does not answer")
        return [Option("database.pool_max", str(self._pool_max), "default")]

    async def stored_bytes(self) -> int:
        raise errors.PeerUnreachable("the backup service does not answer")


class Recorded:
    """A Prometheus with a rate, or one that is away."""

    def __init__(self, *, there: bool) -> None:
        self._there = there

    async def figures(self, start: datetime, end: datetime) -> Mapping[str, Sequence[Figure]]:  # noqa: ARG002
        if not self._there:
            raise errors.PeerUnreachable("Prometheus does not answer")
        return {"requests_per_second": [Figure(end - timedelta(hours=24 - each), 2.0 + each) for each in range(24)]}


async def report(
    url: str, folder: Path, around: Around, recorded: Recorded | None = None, limit_bytes: int = 0
) -> Report:
    """The report on a registry's database."""
    clock, history = SystemClock(), History(DirectoryStore(folder), 300)
    options = postgres_options(url, pool_min=0)
    async with PostgresMaintenance(options) as database:
        peers: Any = around
        sampler = Sampler(peers, database, around, history, clock)
        sources = Sources(sampler, history, database, peers, recorded)
        return await Capacity(sources, clock, limit_bytes).report(WINDOW, HORIZON)


def write(url: str) -> None:
    """A change an hour for DAYS."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(WRITE.encode(), [DAYS, DAYS])


async def test_growth_is_told_before_there_are_samples(migrated_database_url: str, tmp_path: Path) -> None:
    """A registry whose admin service starts today has its growth from the times of its changes, and that is said."""
    await asyncio.to_thread(write, migrated_database_url)

    found = await report(migrated_database_url, tmp_path, Around(), limit_bytes=1 << 30)
    resources = {each.name: each for each in found.resources}

    changes, database = resources["changes"], resources["database_bytes"]
    assert changes.source == database.source == "changes"
    assert changes.forecast is not None
    assert changes.forecast.line.slope == pytest.approx(24, rel=0.02)
    assert changes.forecast.value == pytest.approx(24 * (DAYS + 90), rel=0.05)
    assert database.forecast is not None
    assert database.forecast.line.slope > 0
    assert database.limit == 1 << 30
    assert any("reckoned from the history of changes" in each for each in found.problems)
    assert any("does not answer" in each for each in found.problems)


async def test_report_comes_without_anything(tmp_path: Path) -> None:
    """Without database, peers and stores the report says what is missing, and is no error."""
    url = "postgresql://nobody@127.0.0.1:1/none"

    found = await report(url, tmp_path, Around())

    assert found.resources == []
    assert any("database cannot be reached" in each for each in found.problems)
    assert any(each.startswith("no figures yet of requests_per_second") for each in found.problems)


async def test_prometheus_goes_before_samples(migrated_database_url: str, tmp_path: Path) -> None:
    """What Prometheus tells is taken from it; when it is away the report says so and goes on with samples."""
    there = await report(migrated_database_url, tmp_path, Around(10), Recorded(there=True))
    away = await report(migrated_database_url, tmp_path, Around(10), Recorded(there=False))

    requests = next(each for each in there.resources if each.name == "requests_per_second")
    assert requests.source == "prometheus"
    assert requests.current == 25.0
    assert any("Prometheus does not answer; figures of this service's own samples" in each for each in away.problems)


async def test_pool_has_its_limit_from_the_replicas(migrated_database_url: str, tmp_path: Path) -> None:
    """The pool's limit is what the replicas say of their options."""
    found = await report(migrated_database_url, tmp_path, Around(4))
    pool = next(each for each in found.resources if each.name == "pool_connections")

    assert (pool.current, pool.limit) == (4.0, 4.0)
    assert any(each.resource == "pool_connections" and "database.pool_max" in each.text for each in found.advice)


async def test_database_without_registry_is_said(database_url: str, tmp_path: Path) -> None:
    """A database that holds no registry is a problem in the report."""
    found = await report(database_url, tmp_path, Around())

    assert any("holds no registry" in each for each in found.problems)


@pytest.mark.slow
@pytest.mark.option("admin.sample_seconds", "admin.database_bytes_limit")
async def test_samples_of_real_processes(
    make_service: MakeService, make_admin_service: MakeAdminService, database_url: str
) -> None:
    """An admin process takes samples of a registry as it works: rates, processor, memory, cache, pool, database. What
    Prometheus is asked for is on the registry's metrics page by those names."""
    registry = make_service(database_url)
    await registry.start_async()
    options = {"admin__sample_seconds": 10, "admin__database_bytes_limit": 1 << 30}
    admin = make_admin_service(database_url, registry=[registry.target], backup=["127.0.0.1:1"], **options)
    await admin.start_async()
    async with admin_client(admin) as client:
        await asyncio.to_thread(fill, registry, "sampled", 10)
        resources = await _sampled(client, registry, "requests_per_second")
        with pytest.raises(errors.InvalidField, match="must be 86400 to"):
            await client.call(client.system.GetCapacityReport, pb.GetCapacityReportRequest(window=Duration(seconds=1)))

    _, metrics = await asyncio.to_thread(registry.http, "/metrics")
    asked = {name for query in QUERIES.values() for name in METRIC.findall(query)} - LABELS
    assert asked
    assert all(name in metrics for name in asked), asked
    assert resources["requests_per_second"].current > 0
    assert resources["cpu_cores"].current > 0
    assert resources["memory_bytes"].current > 10 << 20
    assert resources["replicas"].current == 1
    assert resources["pool_connections"].limit > 0
    assert resources["database_bytes"].limit == 1 << 30
    assert resources["versions"].current == resources["changes"].current == 10
    assert not resources["versions"].has_forecast


async def _sampled(client: AdminClient, registry: Service, name: str) -> dict[str, capacity_pb2.ResourceForecast]:
    """The report's resources, once one is in use now: of a registry that is read meanwhile."""
    async with RegistryClient(registry.target) as reader:
        for _ in range(60):
            await Registry(reader).schema(1)
            answer = await client.call(client.system.GetCapacityReport, pb.GetCapacityReportRequest())
            resources = {each.name: each for each in answer.report.resources}
            if name in resources and resources[name].current > 0:
                assert answer.report.time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
                return resources
            await asyncio.sleep(1)
    raise AssertionError(f"nothing of {name}: {answer}")
