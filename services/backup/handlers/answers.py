"""Messages that need more than one use case: backups with what is said of them, operations with what they made."""

from __future__ import annotations

from google.protobuf.message import Message

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.kernel.messages import duration, timestamp
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations import messages as codec
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Request
from services.backup.codec import nouns
from services.backup.domain.model import Verification
from services.backup.domain.remarks import DrillRecord
from services.backup.usecases.catalog import Catalog, Entry
from services.backup.usecases.copying import NAME, Copying
from services.backup.usecases.drill import Drill
from services.backup.usecases.journal import Journal


class Answers:
    """Makes messages of what the use cases return."""

    def __init__(self, catalog: Catalog, journal: Journal, drill: Drill, copying: Copying | None) -> None:
        self._catalog = catalog
        self._journal = journal
        self._drill = drill
        self._copying = copying

    def backup(self, entry: Entry) -> backup_pb2.Backup:
        """A backup for a list."""
        return self._with_state(nouns.backup(entry.manifest), entry)

    async def full_backup(self, entry: Entry) -> backup_pb2.Backup:
        """A backup with all that is known of it."""
        message = self._with_state(nouns.backup(entry.manifest, full=True), entry)
        for verification in await self._catalog.verifications(entry.id):
            message.verifications.append(nouns.verification(verification))
        return message

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """An operation with what it works on or made, as far as that is still there."""
        return codec.operation(operation, await self._subject(operation))

    async def _subject(self, operation: Operation) -> Message | None:
        subject = operation.subject
        if not subject.id:
            return None
        made = operation.done and operation.error is None
        try:
            match subject.kind:
                case "backup" if made:
                    return self.backup(await self._catalog.get(subject.id))
                case "backup":
                    return backup_pb2.Backup(id=subject.id)
                case "verification" if made:
                    return nouns.verification(await self._verification(subject.id))
                case "verification":
                    return backup_pb2.Verification(backup_id=subject.id)
                case "restore":
                    return nouns.restore(await self._journal.get(subject.id))
                case "drill" if made:
                    return drill(await self._drill.get(subject.id))
        except errors.RestoreNotFound:
            return restore_pb2.Restore(id=subject.id)
        except (errors.BackupNotFound, errors.BackupDamaged, errors.OperationNotFound):
            return backup_pb2.Backup(id=subject.id) if subject.kind == "backup" else None
        return None

    async def _verification(self, key: str) -> Verification:
        """A verification, of whichever store."""
        try:
            return await self._catalog.verification(key)
        except errors.OperationNotFound:
            if self._copying is None:
                raise
            return await self._copying.catalog.verification(key)

    def _with_state(self, message: backup_pb2.Backup, entry: Entry) -> backup_pb2.Backup:
        message.verified_level = nouns.LEVELS[entry.level]
        if time := timestamp(entry.verified_time):
            message.verified_time.CopyFrom(time)
        message.pinned = entry.pinned
        if self._copying is not None:
            complete = entry.id in self._copying.state.complete
            message.copies.append(backup_pb2.BackupCopy(store=NAME, complete=complete))
        return message


def asked(request_id: str, request: Message) -> Request:
    """What a call asked for, so that a repeat of it is recognised."""
    return Request(request_id, request.SerializeToString(deterministic=True))


def drill(record: DrillRecord) -> backup_pb2.Drill:
    """A drill's record."""
    return backup_pb2.Drill(
        backup_id=record.backup_id,
        time=timestamp(record.time),
        passed=record.passed,
        problems=record.problems,
        recovery_time=duration(record.recovery_seconds),
        recovery_point=duration(record.recovery_point_seconds),
        epoch=record.place.epoch,
        position=record.place.position,
    )
