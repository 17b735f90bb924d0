"""backup.v1.BackupService and operation.v1.OperationService over a real channel, on a real registry's database."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.client import from_rpc_error
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2 as operations
from services.backup import priority
from services.backup.domain import layout
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_faults import eventually
from tests.fix_service import Service

NOBODY = "01J00000000000000000000000"


async def make(backup: BackupCalls, **fields: object) -> backup_pb2.Backup:
    """A backup."""
    answer = await backup.backups.CreateBackup(pb.CreateBackupRequest(**fields))  # type: ignore[arg-type]
    made: backup_pb2.Backup = await backup.done(answer, backup_pb2.Backup())
    return made


async def refused(call: object) -> errors.Error:
    """The error of a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


async def test_backup_is_made_and_shown(backup: BackupCalls) -> None:
    """A backup exists once its operation is done, verified to V2, with what its snapshot held."""
    answer = await backup.backups.CreateBackup(pb.CreateBackupRequest())

    made = await backup.done(answer, backup_pb2.Backup())
    shown = (await backup.backups.GetBackup(pb.GetBackupRequest(backup_id=made.id))).backup

    assert shown.kind == backup_pb2.BACKUP_KIND_MANUAL
    assert made.verified_level == shown.verified_level == backup_pb2.VERIFICATION_LEVEL_V2
    assert shown.counts.versions > 0
    assert shown.position > 0
    assert {table.name for table in shown.tables} >= {"changes", "head", "schemas", "subjects", "versions"}


async def test_one_backup_from_its_making_to_its_end(backup: BackupCalls, tmp_path: Path) -> None:
    """Made, listed by pages and filters, verified, pinned, protected, and deleted; every level says what it found."""
    pinned = await make(backup, pinned=True, kind=backup_pb2.BACKUP_KIND_DAILY)
    plain = await make(backup)

    listed = (await backup.backups.ListBackups(pb.ListBackupsRequest())).backups
    first = await backup.backups.ListBackups(pb.ListBackupsRequest(page_size=1))
    rest = await backup.backups.ListBackups(pb.ListBackupsRequest(page_size=1, page_token=first.next_page_token))
    daily = await backup.backups.ListBackups(pb.ListBackupsRequest(kind=backup_pb2.BACKUP_KIND_DAILY))
    assert [each.id for each in listed] == [plain.id, pinned.id]
    assert [each.id for each in (*first.backups, *rest.backups)] == [plain.id, pinned.id]
    assert [each.id for each in daily.backups] == [pinned.id]
    assert pinned.pinned

    for level in (backup_pb2.VERIFICATION_LEVEL_V3, backup_pb2.VERIFICATION_LEVEL_V4):
        asked = pb.VerifyBackupRequest(backup_id=plain.id, level=level)
        found = await backup.done(await backup.backups.VerifyBackup(asked), backup_pb2.Verification())
        assert (found.passed, found.level, list(found.problems)) == (True, level, [])
    proven = await backup.backups.ListBackups(pb.ListBackupsRequest(verified_level=backup_pb2.VERIFICATION_LEVEL_V4))
    assert [each.id for each in proven.backups] == [plain.id]

    for backup_id in (pinned.id, plain.id):
        error = await refused(backup.backups.DeleteBackup(pb.DeleteBackupRequest(backup_id=backup_id)))
        assert error.reason == "BACKUP_PROTECTED"
    await backup.backups.UpdateBackup(pb.UpdateBackupRequest(backup_id=pinned.id, pinned=False))
    planned = await backup.backups.DeleteBackup(pb.DeleteBackupRequest(backup_id=pinned.id, dry_run=True))
    done = await backup.backups.DeleteBackup(pb.DeleteBackupRequest(backup_id=pinned.id))
    gone = await refused(backup.backups.GetBackup(pb.GetBackupRequest(backup_id=pinned.id)))
    assert planned.keys[0] == layout.manifest(pinned.id)
    assert set(planned.keys) <= set(done.keys)
    assert gone.reason == "BACKUP_NOT_FOUND"


async def test_status_and_catalog(backup: BackupCalls) -> None:
    """The archive, the stores, the schedules, retention and the catalog each answer."""
    made = await make(backup)

    async def archived() -> bool:
        status = (await backup.backups.GetArchiveStatus(pb.GetArchiveStatusRequest())).status
        return bool(status.position == status.live_position and status.segments and not status.problem)

    await eventually(archived)
    (store,) = (await backup.backups.GetStoreStatus(pb.GetStoreStatusRequest())).stores
    schedules = await backup.backups.ListSchedules(pb.ListSchedulesRequest())
    planned = await backup.backups.PruneBackups(pb.PruneBackupsRequest(dry_run=True))
    applied = await backup.backups.PruneBackups(pb.PruneBackupsRequest())
    rebuilt = await backup.backups.RebuildCatalog(pb.RebuildCatalogRequest())
    rotated = await backup.backups.RotateKeys(pb.RotateKeysRequest())

    assert (store.name, store.newest_backup_id, store.problem) == ("primary", made.id, "")
    assert store.conditional_writes
    assert not schedules.schedules
    assert [each.delete for each in planned.decisions] == [False]
    assert planned == applied
    assert (rebuilt.backups, list(rebuilt.problems)) == (1, [])
    assert rotated.rewrapped == 0
    assert rotated.unchanged >= 1


def niceness(pid: int) -> dict[int, int]:
    """Of each thread of a process, by its number."""
    found = {}
    for each in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # One that has ended since.
            found[int(each.name)] = os.getpriority(os.PRIO_PROCESS, int(each.name))
    return found


async def test_dumps_give_way(filled_registry: Service, make_backup_service: MakeBackupService) -> None:
    """Threads that worked on a dump have a lower priority than the process, which keeps that of the registry's."""
    service = make_backup_service(database_of(filled_registry))
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        await calls.done(await calls.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
        found = niceness(service.pid)

    assert found[service.pid] == os.getpriority(os.PRIO_PROCESS, filled_registry.pid) < priority.NICENESS
    assert priority.NICENESS in found.values()


async def test_a_drill_tries_a_restore(backup: BackupCalls) -> None:
    """A drill restores the newest backup and the archive, and says what a recovery would take."""
    error = await refused(backup.backups.RunDrill(pb.RunDrillRequest()))
    assert error.reason == "BACKUP_NOT_FOUND"
    made = await make(backup)

    drill = await backup.done(await backup.backups.RunDrill(pb.RunDrillRequest()), backup_pb2.Drill())

    assert (drill.backup_id, drill.passed, list(drill.problems)) == (made.id, True, [])


async def test_a_forged_drill_does_not_count(backup: BackupCalls, tmp_path: Path) -> None:
    """What somebody put into the bucket who cannot sign is not listed: not a copy of a true record either."""
    await make(backup)
    drill = await backup.done(await backup.backups.RunDrill(pb.RunDrillRequest()), backup_pb2.Drill())
    [true] = (tmp_path / "store" / layout.DRILLS).iterdir()
    true.with_name("29990101T000000.000000Z.json").write_bytes(true.read_bytes())
    true.with_name("29990102T000000.000000Z.json").write_text("{}")

    listed = (await backup.backups.ListDrills(pb.ListDrillsRequest())).drills

    assert list(listed) == [drill]


async def test_a_repeat_is_the_same_operation(backup: BackupCalls) -> None:
    """With its request id a call is repeated; with another request it is refused."""
    request = pb.CreateBackupRequest(request_id="the-one", pinned=True)
    first = await backup.backups.CreateBackup(request)
    again = await backup.backups.CreateBackup(request)
    made = await backup.done(first, backup_pb2.Backup())
    later = await backup.backups.CreateBackup(request)
    other = await refused(backup.backups.CreateBackup(pb.CreateBackupRequest(request_id="the-one")))
    verify = pb.VerifyBackupRequest(backup_id=made.id, request_id="the-other")
    verified = await backup.backups.VerifyBackup(verify)
    await backup.ended(verified)
    drilled = await backup.backups.RunDrill(pb.RunDrillRequest(request_id="the-third"))
    await backup.ended(drilled)

    assert first.operation.name == again.operation.name == later.operation.name
    assert later.operation.done
    assert other.reason == "REQUEST_ID_REUSED"
    assert (await backup.backups.VerifyBackup(verify)).operation.name == verified.operation.name
    repeated = await backup.backups.RunDrill(pb.RunDrillRequest(request_id="the-third"))
    assert repeated.operation.name == drilled.operation.name
    listed = (await backup.backups.ListBackups(pb.ListBackupsRequest())).backups
    assert [each.id for each in listed] == [made.id]


async def test_every_replica_shows_operations_from_their_start(
    filled_registry: Service, make_backup_service: MakeBackupService
) -> None:
    """A late watcher, also at another replica, sees every step and the end, and may cancel."""
    one, other = (make_backup_service(database_of(filled_registry)) for _ in range(2))
    one.environment["LLMSR_FAILPOINTS"] = "backup.snapshot_open@2:pause:100"
    await one.start_async()
    await other.start_async()
    async with BackupCalls(one.target) as here, BackupCalls(other.target) as there:
        ended = (await here.ended(await here.backups.CreateBackup(pb.CreateBackupRequest()))).name

        async def recorded() -> bool:
            shown = await there.operations.GetOperation(operations.GetOperationRequest(name=ended))
            return bool(shown.operation.done)

        await eventually(recorded)
        late = [
            each.event async for each in there.operations.WatchOperation(operations.WatchOperationRequest(name=ended))
        ]
        running = (await here.backups.CreateBackup(pb.CreateBackupRequest())).operation.name

        async def dumping() -> bool:
            shown = await there.operations.GetOperation(operations.GetOperationRequest(name=running))
            return any(step.name == "dump" for step in shown.operation.steps)

        await eventually(dumping)
        only = await there.operations.ListOperations(operations.ListOperationsRequest(running_only=True))
        for _ in range(2):
            await there.operations.CancelOperation(operations.CancelOperationRequest(name=running))
        watch = here.operations.WatchOperation(operations.WatchOperationRequest(name=running))
        cancelled = [each.event async for each in watch][-1].ended
        listed = await there.operations.ListOperations(operations.ListOperationsRequest(page_size=1))
        rest = await there.operations.ListOperations(
            operations.ListOperationsRequest(page_size=1, page_token=listed.next_page_token)
        )
        backups = (await there.backups.ListBackups(pb.ListBackupsRequest())).backups

    steps = [event.step.name for event in late if event.WhichOneof("event") == "step"]
    assert steps == ["check", "dump", "verify", "commit"]
    assert late[-1].ended.response.Unpack(backup_pb2.Backup())
    assert [each.name for each in only.operations] == [running]
    assert cancelled.error.reason == "OPERATION_CANCELLED"
    assert cancelled.steps[-1].state == operation_pb2.STEP_STATE_FAILED
    assert [each.name for each in (*listed.operations, *rest.operations)] == [running, ended]
    assert len(backups) == 1


async def test_what_is_wrong_with_requests_is_said(backup: BackupCalls) -> None:
    """Every field at fault is named, and what is not there has its own reason."""
    calls, shown = backup.backups, backup.operations
    cases = [
        (calls.CreateBackup(pb.CreateBackupRequest(request_id="not allowed", kind=99)), "INVALID_FIELD"),  # type: ignore[arg-type]
        (calls.ListBackups(pb.ListBackupsRequest(page_size=-1)), "INVALID_FIELD"),
        (calls.GetBackup(pb.GetBackupRequest(backup_id="nobody")), "INVALID_FIELD"),
        (calls.GetBackup(pb.GetBackupRequest(backup_id=NOBODY)), "BACKUP_NOT_FOUND"),
        (calls.VerifyBackup(pb.VerifyBackupRequest(backup_id=NOBODY)), "BACKUP_NOT_FOUND"),
        (calls.UpdateBackup(pb.UpdateBackupRequest(backup_id=NOBODY)), "BACKUP_NOT_FOUND"),
        (calls.DeleteBackup(pb.DeleteBackupRequest(backup_id=NOBODY)), "BACKUP_NOT_FOUND"),
        (shown.GetOperation(operations.GetOperationRequest(name="../x")), "OPERATION_NOT_FOUND"),
        (shown.GetOperation(operations.GetOperationRequest()), "INVALID_FIELD"),
        (shown.CancelOperation(operations.CancelOperationRequest(name="nobody")), "OPERATION_NOT_FOUND"),
        (shown.ListOperations(operations.ListOperationsRequest(page_token="nobody")), "INVALID_FIELD"),
    ]

    for call, reason in cases:
        assert (await refused(call)).reason == reason


async def test_damage_is_a_result_and_names_the_object(backup: BackupCalls, tmp_path: Path) -> None:
    """A verification that finds damage says what and where; a damaged manifest is a problem of the list."""
    damaged, unreadable = await make(backup), await make(backup)
    key = (await backup.backups.GetBackup(pb.GetBackupRequest(backup_id=damaged.id))).backup.objects[0].key
    path = tmp_path / "store" / key
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (tmp_path / "store" / layout.manifest(unreadable.id)).write_bytes(b"{}")

    answer = await backup.backups.VerifyBackup(pb.VerifyBackupRequest(backup_id=damaged.id))
    found = await backup.done(answer, backup_pb2.Verification())
    listed = await backup.backups.ListBackups(pb.ListBackupsRequest())
    error = await refused(backup.backups.GetBackup(pb.GetBackupRequest(backup_id=unreadable.id)))

    assert not found.passed
    assert key in found.problems[0]
    assert [each.id for each in listed.backups] == [damaged.id]
    assert layout.manifest(unreadable.id) in listed.problems[0]
    assert error.reason == "BACKUP_DAMAGED"


async def test_without_the_database_what_is_stored_is_served(
    backup: BackupCalls, filled_registry: Service, make_backup_service: MakeBackupService
) -> None:
    """A process that never reached a database lists and verifies, and says that it can make none."""
    made = await make(backup)
    alone = make_backup_service("postgresql://nobody@127.0.0.1:1/none")
    await alone.start_async()
    async with BackupCalls(alone.target) as calls:
        listed = (await calls.backups.ListBackups(pb.ListBackupsRequest())).backups
        verified = await calls.done(
            await calls.backups.VerifyBackup(pb.VerifyBackupRequest(backup_id=made.id)), backup_pb2.Verification()
        )
        failed = await calls.ended(await calls.backups.CreateBackup(pb.CreateBackupRequest()))

    assert [each.id for each in listed] == [made.id]
    assert verified.passed
    assert failed.error.reason == "DATABASE_UNAVAILABLE"
