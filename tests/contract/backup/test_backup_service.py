"""backup.v1.BackupService over a real channel, on a real registry's database."""

from __future__ import annotations

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from tests.fix_backup import BackupCalls


async def test_backup_is_made_and_shown(backup: BackupCalls) -> None:
    """A backup exists once its operation is done, verified to V2, with what its snapshot held."""
    answer = await backup.backups.CreateBackup(pb.CreateBackupRequest())

    made = await backup.done(answer, backup_pb2.Backup())
    shown = (await backup.backups.GetBackup(pb.GetBackupRequest(backup_id=made.id))).backup

    assert shown.kind == backup_pb2.BACKUP_KIND_MANUAL
    assert shown.counts.versions > 0
    assert shown.position > 0
    assert {table.name for table in shown.tables} >= {"changes", "head", "schemas", "subjects", "versions"}
