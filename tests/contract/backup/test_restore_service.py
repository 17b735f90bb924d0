"""backup.v1.RestoreService over a real channel, beside a registry that serves."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2, restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from tests.fix_backup import BackupCalls, fill
from tests.fix_service import Service

LATEST = restore_pb2.RestoreTarget(latest=True)


async def make_backup(backup: BackupCalls) -> backup_pb2.Backup:
    """A backup, verified to V3."""
    answer = await backup.backups.CreateBackup(backup_service_pb2.CreateBackupRequest())
    made: backup_pb2.Backup = await backup.done(answer, backup_pb2.Backup())
    verify = backup_service_pb2.VerifyBackupRequest(backup_id=made.id)
    verification = await backup.done(await backup.backups.VerifyBackup(verify), backup_pb2.Verification())
    assert verification.passed, verification.problems
    return made


async def prepare(backup: BackupCalls, target: restore_pb2.RestoreTarget) -> restore_pb2.Restore:
    """A prepared restore."""
    answer = await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=target))
    prepared: restore_pb2.Restore = await backup.done(answer, restore_pb2.Restore())
    assert prepared.state == restore_pb2.RESTORE_STATE_PREPARED
    return prepared


async def test_latest_restore_loses_nothing(backup: BackupCalls, filled_registry: Service) -> None:
    """A restore to `latest` holds what was written after its preparation too, and begins a new epoch."""
    await make_backup(backup)
    prepared = await prepare(backup, LATEST)
    await asyncio.to_thread(fill, filled_registry, "later", 3)

    answer = await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
    active = await backup.done(answer, restore_pb2.Restore())

    assert active.state == restore_pb2.RESTORE_STATE_ACTIVE
    assert active.new_epoch == 2
    assert active.place.position == 8
    await asyncio.to_thread(fill, filled_registry, "after", 1)


async def test_restore_to_a_backup_asks_for_confirmation(backup: BackupCalls, filled_registry: Service) -> None:
    """What would be lost has to be confirmed, and is then lost, and comes back with a revert."""
    made = await make_backup(backup)
    await asyncio.to_thread(fill, filled_registry, "later", 3)
    prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
    shown = (await backup.restores.GetRestore(pb.GetRestoreRequest(restore_id=prepared.id))).restore
    confirmed = pb.ActivateRestoreRequest(restore_id=prepared.id, confirmation=shown.loss_window.confirmation)
    active = await backup.done(await backup.restores.ActivateRestore(confirmed), restore_pb2.Restore())
    answer = await backup.restores.RevertRestore(pb.RevertRestoreRequest(restore_id=prepared.id))
    reverted = await backup.done(answer, restore_pb2.Restore())
    released = (await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))).restore

    assert refused.value.code() == grpc.StatusCode.ABORTED
    assert shown.loss_window.changes == 3
    assert active.place.position == made.position
    assert reverted.state == restore_pb2.RESTORE_STATE_REVERTED
    assert reverted.new_epoch == 3
    assert reverted.next_schema_id > active.next_schema_id
    assert released.state == restore_pb2.RESTORE_STATE_RELEASED
    await asyncio.to_thread(fill, filled_registry, "after", 1)
