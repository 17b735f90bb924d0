"""What a command line says of backups, as the contract takes it."""

from __future__ import annotations

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.cli.backup import KindName, LevelName


def kind(name: KindName | None) -> backup_pb2.BackupKind.ValueType:
    """A kind; unspecified when none is named."""
    return backup_pb2.BackupKind.Value(f"BACKUP_KIND_{name.name if name else 'UNSPECIFIED'}")


def level(name: LevelName | None) -> backup_pb2.VerificationLevel.ValueType:
    """A level; unspecified when none is named."""
    return backup_pb2.VerificationLevel.Value(f"VERIFICATION_LEVEL_{name.name if name else 'UNSPECIFIED'}")
