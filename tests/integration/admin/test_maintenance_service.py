"""MaintenanceService of a process: names are refused, the database may be away, and a killed process leaves no debt."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2, maintenance_pb2
from llm_schema_registry.admin.v1 import maintenance_service_pb2 as pb
from llm_schema_registry.client import AdminClient
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_service import Service

INVALID = "SELECT 1 FROM pg_index WHERE NOT indisvalid"
WRITE = """
    INSERT INTO registry.changes (position, epoch, time, actor, subject, kind, payload_version, payload)
    VALUES (1, 1, now(), 'test', 'subject', 'made', 1, '')
"""
LEASE_SECONDS = 10
"""After a process was killed, its office is free again."""


@asynccontextmanager
async def serving(make: MakeAdminService, url: str, **options: object) -> AsyncIterator[tuple[Service, AdminClient]]:
    """An admin process that steers nobody, and a client of it."""
    service = make(url, registry=["127.0.0.1:1"], backup=["127.0.0.1:1"], **options)
    await service.start_async()
    async with admin_client(service) as client:
        yield service, client
    service.kill()


async def ended(client: AdminClient, name: str) -> operation_pb2.Operation:
    """The operation once it has ended."""
    request = operation_service_pb2.WatchOperationRequest(name=name)
    async for answer in client.stream(client.operations.WatchOperation, request):
        if answer.event.HasField("ended"):
            found: operation_pb2.Operation = answer.event.ended
            return found
    raise AssertionError("the watch ended before the operation")


@pytest.mark.slow
@pytest.mark.option("database.url")
async def test_operations_show_their_record(make_admin_service: MakeAdminService, migrated_database_url: str) -> None:
    """Vacuum, Analyze and Reindex answer with their operation, whose response is what was done; a request id gives the
    same one again."""
    async with serving(make_admin_service, migrated_database_url) as (_, client):
        calls: list[tuple[Any, Any]] = [
            (client.maintenance.Vacuum, pb.VacuumRequest(tables=["head", "subjects", "head"])),
            (client.maintenance.Analyze, pb.AnalyzeRequest()),
            (client.maintenance.Reindex, pb.ReindexRequest(tables=["versions"])),
        ]
        records = []
        for method, request in calls:
            answer = await client.call(method, request)
            operation = await ended(client, answer.operation.name)
            record = maintenance_pb2.MaintenanceRecord()
            assert operation.response.Unpack(record), operation
            assert [step.name.partition(" ")[2] for step in operation.steps] == [one.name for one in record.objects]
            records.append(record)
        first = pb.AnalyzeRequest(tables=["head"], request_id="a")
        same = [(await client.call(client.maintenance.Analyze, first)).operation.name for _ in range(2)]
        await ended(client, same[0])
        with pytest.raises(errors.RequestIdReused):
            await client.call(client.maintenance.Analyze, pb.AnalyzeRequest(request_id="a"))
        stats = (await client.call(client.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())).stats
        bloats = (await client.call(client.maintenance.GetBloat, pb.GetBloatRequest())).bloats

    vacuumed, analyzed, reindexed = records
    assert same[0] == same[1]
    assert [each.name for each in vacuumed.objects] == ["head", "subjects"]
    assert {each.name for each in analyzed.objects} == {each.name for each in stats.tables}
    assert "versions_words" in {each.name for each in reindexed.objects}
    assert all(each.HasField("after") and not each.problem for record in records for each in record.objects)
    assert {each.name for each in bloats if not each.index} == {each.name for each in stats.tables}


NO_TABLES = ('head"; DROP TABLE registry.head; --', "pg_catalog.pg_class", "HEAD", "head_pkey", "")


async def test_only_names_of_tables_are_taken(make_admin_service: MakeAdminService, migrated_database_url: str) -> None:
    """What is no table of the registry is refused with the names that are allowed, and nothing happens."""
    async with serving(make_admin_service, migrated_database_url) as (_, client):
        for name in NO_TABLES:
            with pytest.raises(errors.InvalidField, match="changes, epochs, head") as refused:
                await client.call(client.maintenance.Reindex, pb.ReindexRequest(tables=["changes", name]))
            assert [each.field for each in refused.value.violations] == ["tables"]
        listed = await client.call(client.operations.ListOperations, operation_service_pb2.ListOperationsRequest())

    assert not listed.operations


@pytest.mark.slow
@pytest.mark.option("database.connection_timeout_seconds")
async def test_process_is_ready_without_its_database(
    make_admin_service: MakeAdminService, own_postgres: Callable[..., Any]
) -> None:
    """Without PostgreSQL the process starts, is ready and degraded, and says so; with it everything works."""
    server = own_postgres()
    url = server.create_database("registry")
    await server.stop_async()
    options = {"database__pool_max": 1, "database__connection_timeout_seconds": 2}
    async with serving(make_admin_service, url, **options) as (service, client):
        status, page = await asyncio.to_thread(service.http, "/health/ready")
        with pytest.raises(errors.DatabaseUnavailable):
            await client.call(client.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())
        with pytest.raises(errors.DatabaseUnavailable):
            await client.call(client.maintenance.Vacuum, pb.VacuumRequest())
        await client.call(client.system.GetSystemStatus, admin_service_pb2.GetSystemStatusRequest())

        await server.start_async()
        stats = await _answered(client)

    assert status == 200
    assert "postgresql" in page
    assert stats.database == "registry"


@pytest.mark.slow
@pytest.mark.option("database.statement_timeout_seconds")
async def test_maintenance_knows_no_statement_timeout(
    make_admin_service: MakeAdminService, migrated_database_url: str
) -> None:
    """The timeout ends what is asked of the database, but not a rebuild that takes longer."""
    options = {"database__statement_timeout_seconds": 0.5}
    async with serving(make_admin_service, migrated_database_url, **options) as (_, client):
        with psycopg.connect(migrated_database_url) as writer:
            writer.execute(WRITE.encode())
            answer = await client.call(client.maintenance.Reindex, pb.ReindexRequest(tables=["changes"]))
            with psycopg.connect(migrated_database_url, autocommit=True) as look:
                await _until(lambda: look.execute(INVALID).fetchone() is not None)
            await asyncio.sleep(1.5)  # As long as the rebuild takes, at least: it waits for the writer.
            writer.rollback()
        operation = await ended(client, answer.operation.name)
        with psycopg.connect(migrated_database_url) as other:
            other.execute("LOCK TABLE pg_catalog.pg_namespace IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(errors.Error) as refused:
                await client.call(client.maintenance.GetBloat, pb.GetBloatRequest())

    record = maintenance_pb2.MaintenanceRecord()
    assert operation.response.Unpack(record)
    assert not record.objects[0].problem
    assert record.objects[0].duration.ToSeconds() >= 1
    assert refused.value.reason == "DEADLINE"


@pytest.mark.slow
@pytest.mark.option("database.ssl_enabled")
async def test_tls_is_required_of_the_database(
    make_admin_service: MakeAdminService, migrated_database_url: str
) -> None:
    """With TLS required, a server without it counts as away."""
    options = {"database__ssl_enabled": "true", "database__connection_timeout_seconds": 2}
    async with serving(make_admin_service, migrated_database_url, **options) as (_, client):
        with pytest.raises(errors.DatabaseUnavailable):
            await client.call(client.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())


@pytest.mark.slow
async def test_killed_reindex_is_cleaned_up(make_admin_service: MakeAdminService, migrated_database_url: str) -> None:
    """After kill -9 during a rebuild the server ends it, and the next process drops what was left of it."""
    with psycopg.connect(migrated_database_url, autocommit=True) as look:
        async with serving(make_admin_service, migrated_database_url) as (service, client):
            with psycopg.connect(migrated_database_url) as writer:
                writer.execute(WRITE.encode())
                await client.call(client.maintenance.Reindex, pb.ReindexRequest(tables=["changes"]))
                await _until(lambda: look.execute(INVALID).fetchone() is not None)
                await service.stop_async(signal.SIGKILL)
                rebuilding = "SELECT 1 FROM pg_stat_progress_create_index"
                await _until(lambda: look.execute(rebuilding).fetchone() is None)
                writer.rollback()
        assert look.execute(INVALID).fetchone() is not None

        async with serving(make_admin_service, migrated_database_url) as (_, client):
            answer = await _begun(client, pb.ReindexRequest(tables=["changes"]))
            operation = await ended(client, answer.operation.name)

        record = maintenance_pb2.MaintenanceRecord()
        assert operation.response.Unpack(record), operation
        assert list(record.dropped_indexes) == ["changes_pkey_ccnew"]
        assert not record.objects[0].problem
        assert look.execute(INVALID).fetchone() is None


async def _begun(client: AdminClient, request: pb.ReindexRequest) -> Any:
    """The answer once the office of the killed process is free."""
    ends = time.monotonic() + LEASE_SECONDS + 30
    while True:
        try:
            return await client.call(client.maintenance.Reindex, request)
        except errors.OperationRunning:
            if time.monotonic() > ends:
                raise
        await asyncio.sleep(1)


async def _answered(client: AdminClient) -> maintenance_pb2.DatabaseStats:
    """The statistics, once the database answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await client.call(client.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())
            except errors.DatabaseUnavailable:
                await asyncio.sleep(0.2)
            else:
                stats: maintenance_pb2.DatabaseStats = answer.stats
                return stats


async def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - the server tells no event
            await asyncio.sleep(0.1)
