"""Faults of the making side of backups: whatever happens, what is listed is whole, and the next run succeeds."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.operation.v1 import operation_service_pb2
from llm_schema_registry.operations.operation import OperationKind
from services.backup.domain import layout
from services.backup.domain.model import Kind
from services.backup.usecases.make_backup import Wanted
from tests.backup_parts import NOON, HandClock, Parts, make_parts
from tests.backup_process import POLICY
from tests.fix_backup import AssembleBackup, BackupCalls, MakeBackupService, database_of, fill
from tests.fix_backup_database import MakeStandIns
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, Service
from tests.recovery_kills import held
from tests.restore_site import FAILPOINTS, STOPS_MAX, calls, stopped

ROOT = Path(__file__).resolve().parents[2]
POINTS = (
    "backup.checked",
    "backup.snapshot_open",
    "backup.piece_written@3",
    "backup.before_complete",
    "backup.object_complete",
    "backup.before_commit",
    "backup.committed",
)


async def child(folder: Path, verb: str, minutes: int, points: str) -> int:
    """Runs a backup or prune that a failpoint may end; its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.backup_process", str(folder), verb, str(minutes)),
        cwd=ROOT,
        env={**os.environ, "LLMSR_FAILPOINTS": points, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"},
    )
    return await process.wait()


def later(folder: Path, minutes: int) -> Parts:
    """The use cases after that, by a clock past the dead process's lease."""
    return make_parts(folder, clock=HandClock(NOON + timedelta(minutes=minutes)), policy=POLICY)


async def whole(parts: Parts) -> int:
    """Reads every listed backup in full (G1), and returns how many there are."""
    listing = await parts.repository.catalog.listing()
    assert not listing.problems
    for entry in listing.entries:
        assert (await parts.look(entry.id)).passed
    return len(listing.entries)


@pytest.mark.parametrize("point", POINTS)
async def test_a_backup_that_is_killed(tmp_path: Path, point: str, fault_table: FaultTable) -> None:
    """T1: kill -9 at any point: nothing half is listed, the next run succeeds, a day later nothing is left of it."""
    assert await child(tmp_path, "backup", 0, f"{point}:kill") == -signal.SIGKILL

    parts = later(tmp_path, 5)
    parts.registry.write(5)
    survived = await whole(parts)
    made = await parts.backup()
    assert await whole(parts) == survived + 1
    parts.clock.move(hours=25)
    await parts.prune.apply()

    kept = set(await parts.ids())
    assert made.id in kept
    assert {layout.backup_of(key) for key in await parts.keys("backups/")} == kept
    assert len({key.split("/")[1] for key in await parts.keys("keys/")}) == len(kept)
    assert not list((parts.folder / ".uploads").rglob(".?*")) or not any(
        path.is_file() for path in (parts.folder / ".uploads").rglob("*")
    )
    assert survived == (point == "backup.committed")
    listed = "the whole backup listed" if survived else "nothing listed"
    fault_table("T1", f"kill -9 at {point}", f"{listed}, the next run succeeds, the rest is swept")


@pytest.mark.parametrize("point", ["prune.buried", "remove.manifest_gone", "remove.object_gone@2"])
async def test_a_prune_that_is_killed(tmp_path: Path, point: str, fault_table: FaultTable) -> None:
    """T4: kill -9 in retention: what is listed is whole, and the next prune finishes without anybody's help."""
    parts = later(tmp_path, 0)
    parts.registry.write(5)
    for _ in range(4):
        await parts.proven(Kind.HOURLY, slot=parts.clock.now())
        parts.clock.move(hours=1)
    if point != "prune.buried":
        await parts.prune.apply()
    newest, before, *_ = await parts.ids()
    minutes = 60 * 30
    assert await child(tmp_path, "prune", minutes, f"{point}:kill") == -signal.SIGKILL

    parts = later(tmp_path, minutes + 5)
    assert await whole(parts) >= 1
    for _ in range(3):
        parts.clock.move(hours=25)
        await parts.prune.apply()

    assert await parts.ids() == [newest]
    assert {layout.backup_of(key) for key in await parts.keys("backups/")} == {newest}
    assert await parts.keys("tombstones/") == [layout.tombstone(before)]
    fault_table("T4", f"kill -9 in retention at {point}", "floor kept, the next prune finishes")


@pytest.mark.parametrize("behaviour", ["empty", "fails", "hollow", "killed", "talks"])
async def test_a_dump_program_that_misbehaves(
    filled_registry: Service,
    assemble_backup: AssembleBackup,
    stand_ins: MakeStandIns,
    no_programs: None,
    behaviour: str,
    fault_table: FaultTable,
) -> None:
    """T12: through the service's own parts, a pg_dump that fails in any way commits nothing and leaves nothing."""
    with psycopg.connect(database_of(filled_registry)) as connection:
        version = str(connection.info.parameter_status("server_version")).split()[0]
    folder = stand_ins(behaviour, version=version)
    async with assemble_backup(database_of(filled_registry), backup__tool_folders=folder) as parts:
        begun = await parts.operations.begin(
            OperationKind.BACKUP, lambda running: parts.make.run(Wanted(Kind.MANUAL), running), actor="test"
        )
        ended = await parts.operations.wait(begun.name)

        assert ended.error is not None
        assert (await parts.repository.catalog.listing()).entries == ()
        assert [each async for each in parts.repository.store.list("backups/")] == []
        fault_table("T12", f"pg_dump {behaviour}", f"{ended.error.reason}, nothing stored")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_stopped_process_commits_nothing_when_it_wakes_up(
    filled_registry: Service, make_backup_service: MakeBackupService, tmp_path: Path, fault_table: FaultTable
) -> None:
    """T17: SIGSTOP before the commit until another process has made its own backup, then SIGCONT: one backup."""
    url = database_of(filled_registry)
    async with calls(make_backup_service(url)) as there, AsyncExitStack() as stack:
        for _ in range(STOPS_MAX):
            one = make_backup_service(url)
            one.environment[FAILPOINTS] = "backup.before_commit:stop"
            here = await stack.enter_async_context(calls(one))
            begun = (await here.backups.CreateBackup(pb.CreateBackupRequest())).operation.name
            if await stopped(one, tmp_path / "store"):
                break
            await asyncio.to_thread(one.kill)
        else:
            pytest.fail("it always held the lock")

        made = await there.done(await there.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
        os.kill(one.pid, signal.SIGCONT)
        ended = await here.ended(await _again(here, begun))
        listed = (await there.backups.ListBackups(pb.ListBackupsRequest())).backups

    assert ended.error.reason == "LEASE_LOST"
    assert [each.id for each in listed] == [made.id]
    fault_table("T17", "SIGSTOP before the commit past the lease, then SIGCONT", "LEASE_LOST, one backup")


async def _again(backup: BackupCalls, name: str) -> operation_service_pb2.GetOperationResponse:
    request = operation_service_pb2.GetOperationRequest(name=name)
    found: operation_service_pb2.GetOperationResponse = await backup.operations.GetOperation(request)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_server_restarts_in_the_middle_of_a_dump(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable
) -> None:
    """T13: with its sessions ended in mid-dump a run fails and leaves nothing; the next one succeeds."""
    service = make_backup_service(database_of(filled_registry))
    service.environment["LLMSR_FAILPOINTS"] = "backup.snapshot_open:stop"
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        answer = await calls.backups.CreateBackup(pb.CreateBackupRequest())

        async def stopped() -> bool:
            return held(service)

        await eventually(stopped)
        async with await psycopg.AsyncConnection.connect(database_of(filled_registry), autocommit=True) as database:
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        os.kill(service.pid, signal.SIGCONT)
        ended = await calls.ended(answer)
        made = await calls.done(await calls.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
        listed = (await calls.backups.ListBackups(pb.ListBackupsRequest())).backups

    assert ended.HasField("error")
    assert [each.id for each in listed] == [made.id]
    fault_table("T13", "every session ended in mid-dump", f"{ended.error.reason}, the next run succeeds")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_server_crashes_in_the_middle_of_a_dump(
    own_postgres: Callable[..., OwnPostgres],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    fault_table: FaultTable,
) -> None:
    """T13: a server that is killed in mid-dump and comes back: the run fails, leaves nothing, the next one succeeds."""
    server = own_postgres(durable=True)
    url = server.create_database("llm")
    registry = make_service(url)
    await registry.start_async()
    await asyncio.to_thread(fill, registry, "filled", 3)
    service = make_backup_service(url)
    service.environment["LLMSR_FAILPOINTS"] = "backup.snapshot_open:stop"
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        answer = await calls.backups.CreateBackup(pb.CreateBackupRequest())

        async def stopped() -> bool:
            return ") T " in Path(f"/proc/{service.pid}/stat").read_text()  # noqa: ASYNC240 - no disk is read

        await eventually(stopped)
        await server.kill_async()
        os.kill(service.pid, signal.SIGCONT)
        ended = await calls.ended(answer)
        await server.start_async()
        made = await calls.done(await calls.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
        listed = (await calls.backups.ListBackups(pb.ListBackupsRequest())).backups

    assert ended.HasField("error")
    assert [each.id for each in listed] == [made.id]
    fault_table("T13", "PostgreSQL killed in mid-dump", f"{ended.error.reason}, the next run succeeds")


OFFICES = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'llm_schema_registry backup%'
"""


@pytest.mark.slow
async def test_the_holders_session_ends(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    assemble_backup: AssembleBackup,
    fault_table: FaultTable,
) -> None:
    """T13: when all sessions of the backup service are ended, those that offices are held by too, again and again, the
    archive goes on without a gap. Who leads goes on under its lease in the store."""
    url = database_of(filled_registry)
    one, other = (make_backup_service(url) for _ in range(2))
    await one.start_async()
    await other.start_async()
    async with BackupCalls(one.target) as calls, await psycopg.AsyncConnection.connect(url, autocommit=True) as live:

        async def archived() -> bool:
            status = (await calls.backups.GetArchiveStatus(pb.GetArchiveStatusRequest())).status
            return bool(status.position >= position)

        async def elected() -> bool:
            return bool(await (await live.execute(OFFICES)).fetchall())

        await eventually(elected)
        for position in (6, 7, 8):
            assert await (await live.execute(END_SESSIONS)).fetchall()
            await asyncio.to_thread(fill, filled_registry, f"later-{position}", 1)
            await eventually(archived)
    async with assemble_backup(url) as parts:
        spans = [(span.first, span.last) for span in await parts.archive.run(lambda _: True)]

    assert spans[0][0] == 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(spans))
    fault_table("T13", "all sessions ended, three times", f"archive without a gap up to {spans[-1][1]}")
