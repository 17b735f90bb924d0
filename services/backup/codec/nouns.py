"""The nouns of backups as messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping

from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.kernel.messages import duration, timestamp
from services.backup.domain.model import Kind, Level, Manifest, Place, Verification
from services.backup.domain.restore import LossWindow, Restore, RestoreState
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target

KINDS: Mapping[Kind, backup_pb2.BackupKind.ValueType] = {
    Kind.HOURLY: backup_pb2.BACKUP_KIND_HOURLY,
    Kind.DAILY: backup_pb2.BACKUP_KIND_DAILY,
    Kind.MONTHLY: backup_pb2.BACKUP_KIND_MONTHLY,
    Kind.MANUAL: backup_pb2.BACKUP_KIND_MANUAL,
    Kind.SAFETY: backup_pb2.BACKUP_KIND_SAFETY,
}
LEVELS: Mapping[Level, backup_pb2.VerificationLevel.ValueType] = {
    Level.V0: backup_pb2.VERIFICATION_LEVEL_UNSPECIFIED,
    Level.V1: backup_pb2.VERIFICATION_LEVEL_V1,
    Level.V2: backup_pb2.VERIFICATION_LEVEL_V2,
    Level.V3: backup_pb2.VERIFICATION_LEVEL_V3,
    Level.V4: backup_pb2.VERIFICATION_LEVEL_V4,
}
STATES: Mapping[RestoreState, restore_pb2.RestoreState.ValueType] = {
    RestoreState.PREPARING: restore_pb2.RESTORE_STATE_PREPARING,
    RestoreState.PREPARED: restore_pb2.RESTORE_STATE_PREPARED,
    RestoreState.ACTIVATING: restore_pb2.RESTORE_STATE_ACTIVATING,
    RestoreState.ACTIVE: restore_pb2.RESTORE_STATE_ACTIVE,
    RestoreState.REVERTING: restore_pb2.RESTORE_STATE_REVERTING,
    RestoreState.REVERTED: restore_pb2.RESTORE_STATE_REVERTED,
    RestoreState.RELEASED: restore_pb2.RESTORE_STATE_RELEASED,
    RestoreState.FAILED: restore_pb2.RESTORE_STATE_FAILED,
}


def backup(manifest: Manifest, *, full: bool = False) -> backup_pb2.Backup:
    """A backup as its manifest tells it; full: with objects and tables."""
    facts = manifest.facts
    message = backup_pb2.Backup(
        id=manifest.id,
        kind=KINDS[manifest.kind],
        slot_time=timestamp(manifest.slot),
        start_time=timestamp(manifest.start_time),
        end_time=timestamp(manifest.end_time),
        epoch=manifest.place.epoch,
        position=manifest.place.position,
        schema_id_high=facts.head.schema_id_high,
        counts=backup_pb2.BackupCounts(
            subjects=facts.rows("subjects"),
            versions=facts.rows("versions"),
            schemas=facts.rows("schemas"),
            changes=facts.rows("changes"),
        ),
        database_bytes=facts.database_bytes,
        dump_bytes=manifest.dump_bytes,
        stored_bytes=manifest.stored_bytes,
        server_version=facts.server_version,
        dump_version=manifest.dump_version,
        code_version=manifest.code_version,
        compression=manifest.compression,
        key_id=manifest.encryption.key_id if manifest.encryption else "",
    )
    if full:
        message.objects.extend(
            backup_pb2.BackupObject(key=each.key, size_bytes=each.size_bytes, sha256=each.sha256)
            for each in manifest.objects
        )
        message.tables.extend(
            backup_pb2.BackupTable(name=each.name, rows=each.rows, sha256=each.sha256) for each in facts.tables
        )
    return message


def verification(value: Verification) -> backup_pb2.Verification:
    """A verification's record."""
    return backup_pb2.Verification(
        backup_id=value.backup_id,
        level=LEVELS[value.level],
        time=timestamp(value.time),
        passed=value.passed,
        problems=value.problems,
        duration=duration(value.duration_seconds),
        restore_duration=duration(value.restore_seconds),
    )


def place(value: Place | None) -> restore_pb2.HistoryPlace | None:
    """A point of the history."""
    return None if value is None else restore_pb2.HistoryPlace(epoch=value.epoch, position=value.position)


def target(value: Target) -> restore_pb2.RestoreTarget:
    """A restore's target."""
    match value:
        case Latest():
            return restore_pb2.RestoreTarget(latest=True)
        case AtBackup(backup_id):
            return restore_pb2.RestoreTarget(backup_id=backup_id)
        case AtTime(time):
            return restore_pb2.RestoreTarget(time=timestamp(time))
        case AtPlace(epoch, position):
            return restore_pb2.RestoreTarget(place=restore_pb2.HistoryPlace(epoch=epoch, position=position))


def window(value: LossWindow) -> restore_pb2.LossWindow:
    """A loss window."""
    return restore_pb2.LossWindow(
        live_readable=value.readable,
        live_place=place(value.live),
        changes=value.changes,
        first_time=timestamp(value.first_time),
        last_time=timestamp(value.last_time),
        confirmation=value.confirmation,
    )


def restore(value: Restore, loss: LossWindow | None = None) -> restore_pb2.Restore:
    """A restore, with its loss window when that was computed."""
    return restore_pb2.Restore(
        id=value.id,
        state=STATES[value.state],
        target=target(value.target),
        backup_id=value.backup_id,
        place=place(value.place),
        place_time=timestamp(value.place_time),
        loss_window=window(loss) if loss else None,
        scratch_name=value.scratch,
        aside_name=value.aside,
        prepare_time=timestamp(value.prepare_time),
        activate_time=timestamp(value.activate_time),
        keep_until=timestamp(value.keep_until),
        new_epoch=value.new_epoch or 0,
        next_schema_id=value.next_schema_id or 0,
        write_outage=duration(value.write_outage_seconds),
        prepare_duration=duration(value.prepare_seconds),
        subjects=value.subjects,
        versions=value.versions,
        schemas=value.schemas,
        problem=value.problem,
    )
