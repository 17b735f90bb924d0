"""The backup service, over gRPC, as far as recoveries go."""

from __future__ import annotations

from datetime import UTC, datetime

from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as backups_pb
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.client.backup import BackupClient
from llm_schema_registry.client.decode import error_of
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2
from services.admin.adapters.backup_peer import BackupPeer
from services.admin.codec import recoveries
from services.admin.domain.recovery import StepName, Target
from services.admin.domain.restoring import (
    Activate,
    BackUp,
    BackupFacts,
    Ended,
    Estimates,
    Outlook,
    Prepare,
    RestoreFacts,
    Revert,
    VerifyBackup,
    Work,
)

LEVEL = backup_pb2.VERIFICATION_LEVEL_V1
"""Of a base that is chosen: every backup that is stored has it; the recovery verifies it further."""
CHECK_SECONDS = 90.0
"""For a plan: to a moment, the archive is read for it."""
RELEASE_SECONDS = 60.0


class BackupRestores:
    """See Restores."""

    def __init__(self, peer: BackupPeer) -> None:
        self._peer = peer

    async def outlook(self, target: Target, backup_id: str = "") -> Outlook:
        """See Restores."""
        request = pb.PrepareRestoreRequest(
            target=recoveries.target(target), verified_level=LEVEL, validate_only=True, base_backup_id=backup_id
        )
        async with self._peer.client() as client:
            answer = await client.call(client.restores.PrepareRestore, request, timeout_seconds=CHECK_SECONDS)
        return recoveries.read_outlook(answer.plan)

    async def backup(self, backup_id: str) -> BackupFacts:
        """See Restores."""
        async with self._peer.client() as client:
            answer = await client.call(client.backups.GetBackup, backups_pb.GetBackupRequest(backup_id=backup_id))
        found = answer.backup
        verified = found.verified_time.ToDatetime(tzinfo=UTC) if found.HasField("verified_time") else None
        return BackupFacts(found.id, _level(found.verified_level), verified)

    async def restore(self, restore_id: str) -> RestoreFacts:
        """See Restores."""
        async with self._peer.client() as client:
            answer = await client.call(client.restores.GetRestore, pb.GetRestoreRequest(restore_id=restore_id))
        return recoveries.read_restore(answer.restore)

    async def begin(self, work: Work, request_id: str) -> str:
        """See Restores."""
        async with self._peer.client() as client:
            return (await _begun(client, work, request_id)).name

    async def ended(self, operation: str) -> Ended | None:
        """See Restores."""
        async with self._peer.client() as client:
            answer = await client.call(
                client.operations.GetOperation, operation_service_pb2.GetOperationRequest(name=operation)
            )
        found = answer.operation
        if not found.done:
            return None
        if found.HasField("error"):
            return Ended(error=error_of(found.error))
        made = backup_pb2.Backup(), backup_pb2.Verification(), restore_pb2.Restore()
        backup, verification, restore = made
        if found.response.Unpack(backup):
            return Ended(backup.id)
        if found.response.Unpack(verification):
            problems = tuple(verification.problems) or ("it did not pass",)
            return Ended(verification.backup_id, () if verification.passed else problems)
        if found.response.Unpack(restore):
            return Ended(restore.id)
        return Ended()

    async def cancel(self, operation: str) -> None:
        """See Restores."""
        request = operation_service_pb2.CancelOperationRequest(name=operation)
        async with self._peer.client() as client:
            await client.call(client.operations.CancelOperation, request)

    async def release(self, restore_id: str) -> None:
        """See Restores."""
        async with self._peer.client() as client:
            request = pb.ReleaseRestoreRequest(restore_id=restore_id)
            await client.call(client.restores.ReleaseRestore, request, timeout_seconds=RELEASE_SECONDS)

    async def archived_time(self) -> datetime | None:
        """See Restores."""
        async with self._peer.client() as client:
            answer = await client.call(client.backups.GetArchiveStatus, backups_pb.GetArchiveStatusRequest())
        known = answer.status.HasField("heartbeat_time")
        return answer.status.heartbeat_time.ToDatetime(tzinfo=UTC) if known else None

    async def estimates(self) -> Estimates:
        """See Restores."""
        found: dict[StepName, float] = {}
        async with self._peer.client() as client:
            newest = await client.call(client.backups.ListBackups, backups_pb.ListBackupsRequest(page_size=1))
            drills = await client.call(client.backups.ListDrills, backups_pb.ListDrillsRequest(page_size=1))
            for backup in newest.backups:
                found[StepName.SAFETY] = (backup.end_time.ToNanoseconds() - backup.start_time.ToNanoseconds()) / 1e9
                request = backups_pb.GetBackupRequest(backup_id=backup.id)
                full = await client.call(client.backups.GetBackup, request)
                for each in full.backup.verifications:
                    if each.level == backup_pb2.VERIFICATION_LEVEL_V3:
                        found[StepName.VERIFY] = each.duration.ToNanoseconds() / 1e9
        for drill in drills.drills:
            found[StepName.RESTORE] = drill.recovery_time.ToNanoseconds() / 1e9
        return found


async def _begun(client: BackupClient, work: Work, request_id: str) -> operation_pb2.Operation:
    match work:
        case VerifyBackup(backup_id, level):
            verify = backups_pb.VerifyBackupRequest(backup_id=backup_id, level=_LEVELS[level], request_id=request_id)
            return (await client.call(client.backups.VerifyBackup, verify)).operation
        case BackUp():
            create = backups_pb.CreateBackupRequest(
                kind=backup_pb2.BACKUP_KIND_SAFETY, pinned=True, request_id=request_id
            )
            return (await client.call(client.backups.CreateBackup, create)).operation
        case Prepare(target, backup_id):
            prepare = pb.PrepareRestoreRequest(
                target=recoveries.target(target), base_backup_id=backup_id, request_id=request_id
            )
            return (await client.call(client.restores.PrepareRestore, prepare)).operation
        case Activate(restore_id, confirmation):
            activate = pb.ActivateRestoreRequest(
                restore_id=restore_id, confirmation=confirmation, request_id=request_id
            )
            return (await client.call(client.restores.ActivateRestore, activate)).operation
        case Revert(restore_id, confirmation):
            revert = pb.RevertRestoreRequest(restore_id=restore_id, confirmation=confirmation, request_id=request_id)
            return (await client.call(client.restores.RevertRestore, revert)).operation


_LEVELS = {
    1: backup_pb2.VERIFICATION_LEVEL_V1,
    2: backup_pb2.VERIFICATION_LEVEL_V2,
    3: backup_pb2.VERIFICATION_LEVEL_V3,
}


def _level(value: int) -> int:
    """The number of a level: V3 is 3."""
    return max(0, value - backup_pb2.VERIFICATION_LEVEL_V1 + 1)
