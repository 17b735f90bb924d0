"""The backup process at the edges of its life: asked to stop in the middle of its work, and without what it needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.client import from_rpc_error
from llm_schema_registry.operation.v1 import operation_service_pb2
from services.backup.domain import layout
from tests.fix_backup import BackupCalls, MakeBackupService, database_of, fill
from tests.fix_launcher import children, wait_gone
from tests.fix_postgres import OwnPostgres
from tests.fix_service import Service

WAIT_SECONDS_MAX = 60
HEALTH = {"health__poll_seconds": 0.1, "health__check_timeout_seconds": 5, "health__failure_threshold": 1}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not await holds():  # noqa: ASYNC110 - what another process does rings no bell here
            await asyncio.sleep(0.02)


async def begun(calls: BackupCalls) -> str:
    """Name of a backup's operation that has read something of the dump and pauses there."""
    name: str = (await calls.backups.CreateBackup(pb.CreateBackupRequest())).operation.name
    request = operation_service_pb2.WatchOperationRequest(name=name)
    watch = calls.operations.WatchOperation(request, timeout=WAIT_SECONDS_MAX)
    async for response in watch:
        assert response.event.WhichOneof("event") != "ended", response
        if response.event.progress.bytes_done:
            break
    watch.cancel()
    return name


def stored(folder: Path, part: str) -> list[Path]:
    """Files of a directory store below a part of it."""
    return sorted(path for path in (folder / part).rglob("*") if path.is_file())


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """Where the backup processes of a test keep their objects."""
    return tmp_path / "store"


async def test_a_backup_that_cannot_end_in_time_is_abandoned(
    filled_registry: Service, make_backup_service: MakeBackupService, store_folder: Path
) -> None:
    """SIGTERM in the middle of a dump that goes nowhere: in the end nothing is listed, stored, or running, and the exit
    status is 0."""
    service = make_backup_service(database_of(filled_registry), server__grace_seconds=0.2)
    service.environment["LLMSR_FAILPOINTS"] = "backup.piece_written:pause:600"
    with psycopg.connect(database_of(filled_registry)) as database:
        # So much that pg_dump cannot have written all of it while nobody reads.
        database.execute("CREATE TABLE filler AS SELECT md5(i::text) FROM generate_series(1, 1000000) AS i")
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        name = await begun(calls)
        programs = children(service.pid)

        status = await service.stop_async()

    assert status == 0, service.log
    assert programs != []
    assert wait_gone(programs) == []
    assert stored(store_folder, "backups") == []
    (record,) = stored(store_folder, "operations")
    assert record.stem == name
    assert json.loads(record.read_text())["error"]["reason"] == errors.OperationCancelled.reason


async def test_a_backup_that_can_end_in_time_is_finished(
    filled_registry: Service, make_backup_service: MakeBackupService, store_folder: Path
) -> None:
    """SIGTERM in the middle of a dump that goes on: the process waits for the backup, which is there afterwards."""
    service = make_backup_service(database_of(filled_registry), server__grace_seconds=20)
    # For longer than a watcher is left without news.
    service.environment["LLMSR_FAILPOINTS"] = "backup.piece_written:pause:3"
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        await begun(calls)

        status = await service.stop_async()

    assert status == 0, service.log
    assert [path.name for path in stored(store_folder, "backups")] == ["data-00001", "manifest.json"]


async def test_a_backup_tells_how_far_it_is(filled_registry: Service, make_backup_service: MakeBackupService) -> None:
    """Watchers of a backup see bytes, rows and parts, and an estimate by the size of the one before."""
    with psycopg.connect(database_of(filled_registry)) as database:
        # 50 MiB that hardly get smaller, in few rows: each costs the service something.
        database.execute(
            "CREATE TABLE filler AS SELECT string_agg(encode(sha256(i::text::bytea), 'base64'), '')"
            " FROM generate_series(1, 1200000) AS i GROUP BY i % 1200"
        )
    service = make_backup_service(database_of(filled_registry))
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        made = await calls.done(await calls.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
    await service.stop_async()
    # Pieces are 1/4 to 5/4 MiB: a part is full after 35 of them and the dump goes on, where it stands still for longer
    # than a watcher is left without news.
    service.environment["LLMSR_FAILPOINTS"] = "backup.piece_written@35:pause:3"
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        name = (await calls.backups.CreateBackup(pb.CreateBackupRequest())).operation.name
        watch = calls.operations.WatchOperation(
            operation_service_pb2.WatchOperationRequest(name=name), timeout=WAIT_SECONDS_MAX
        )
        told = [response.event.progress async for response in watch if response.event.HasField("progress")]

    dumping = [each for each in told if each.bytes_total]
    assert {each.bytes_total for each in dumping} == {made.dump_bytes}
    assert [each for each in dumping if each.rows_done and each.parts_done and each.HasField("remaining")], told


def segments(folder: Path) -> list[tuple[int, int]]:
    """First and last positions of the segments in a directory store."""
    keys = (layout.segment_of(str(path.relative_to(folder))) for path in stored(folder, "archive"))
    return [(key.first, key.last) for key in keys if key]


@pytest.mark.option("archive.seal_seconds")
async def test_the_tail_of_the_archive_is_shipped(
    filled_registry: Service, make_backup_service: MakeBackupService, store_folder: Path
) -> None:
    """A change waits for the next segment, seal_seconds after the one before; at the end of the process it is archived
    all the same."""
    service = make_backup_service(database_of(filled_registry), archive__seal_seconds=3600)
    await service.start_async()
    await until(lambda: has_segment(store_folder, (1, 5)))
    await asyncio.to_thread(fill, filled_registry, "last", 1)
    before = segments(store_folder)

    status = await service.stop_async()

    assert status == 0, service.log
    assert before == [(1, 5)]
    assert segments(store_folder) == [(1, 5), (6, 6)]


async def test_the_tail_is_shipped_behind_a_segment_that_was_cut_off(
    filled_registry: Service, make_backup_service: MakeBackupService, store_folder: Path
) -> None:
    """A process that ends while it writes a segment, and does not know whether that arrived, still ships the rest."""
    service = make_backup_service(database_of(filled_registry))
    service.environment["LLMSR_FAILPOINTS"] = "archive.put:pause:600"
    await service.start_async()
    await until(lambda: has_segment(store_folder, (1, 5)))
    await asyncio.to_thread(fill, filled_registry, "last", 1)

    status = await service.stop_async()

    assert status == 0, service.log
    assert segments(store_folder) == [(1, 5), (6, 6)]


async def has_segment(folder: Path, wanted: tuple[int, int]) -> bool:
    """Whether these changes are archived."""
    return wanted in segments(folder)


async def has_health(service: Service, wanted: tuple[int, str]) -> bool:
    """Whether the readiness page has this status, and says so in all."""
    status, body = await asyncio.to_thread(service.http, "/health/ready")
    return (status, json.loads(body)["status"]) == wanted


async def test_without_the_database_the_service_is_degraded_and_ready(
    own_postgres: Callable[..., OwnPostgres], make_backup_service: MakeBackupService
) -> None:
    """It starts without PostgreSQL and is ready; backups fail with the reason, what is stored can be read."""
    server = own_postgres()
    await server.stop_async()
    service = make_backup_service(server.database_url("registry"), **HEALTH)

    await service.start_async()
    async with BackupCalls(service.target) as calls:
        listed = await calls.backups.ListBackups(pb.ListBackupsRequest())
        operation = await calls.ended(await calls.backups.CreateBackup(pb.CreateBackupRequest()))

        await until(lambda: has_health(service, (200, "DEGRADED")))

    assert not listed.backups
    assert operation.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert errors.DatabaseUnavailable.reason in str(operation.error)


def take_away(folder: Path) -> None:
    """Makes a folder unusable."""
    folder.rename(folder.with_name("away"))
    # What the system answers for it is neither "there" nor "not there".
    folder.symlink_to(folder)


def bring_back(folder: Path) -> None:
    """Undoes `take_away`."""
    folder.unlink()
    folder.with_name("away").rename(folder)


async def test_without_the_store_the_service_is_degraded_and_ready(
    filled_registry: Service, make_backup_service: MakeBackupService, store_folder: Path
) -> None:
    """When the store is gone the process goes on and is ready; calls that need it fail with the reason, until it is
    back."""
    service = make_backup_service(database_of(filled_registry), **HEALTH)
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        await until(lambda: has_health(service, (200, "HEALTHY")))
        take_away(store_folder)
        await until(lambda: has_health(service, (200, "DEGRADED")))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls.backups.ListBackups(pb.ListBackupsRequest())
        bring_back(store_folder)
        await until(lambda: has_health(service, (200, "HEALTHY")))
        await calls.backups.ListBackups(pb.ListBackupsRequest())

    assert isinstance(from_rpc_error(refused.value), errors.ObjectStoreUnavailable)
