"""Backups, verifications and drills as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.message import Message

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.cli.messages import label, moment, seconds
from llm_schema_registry.cli.output import Output
from llm_schema_registry.cli.progress import duration, size

COLUMNS = ("id", "kind", "made", "place", "versions", "stored", "verified", "pinned", "copied")


def yes(value: bool) -> str:
    """`yes`, or nothing."""
    return "yes" if value else ""


def level(message: Message, field: str) -> str:
    """A level of verification; nothing for one that is not verified."""
    return "" if not getattr(message, field) else label(message, field)


def rows(backups: Iterable[backup_pb2.Backup]) -> Iterator[Sequence[object]]:
    """Rows under COLUMNS."""
    for one in backups:
        yield (
            one.id,
            label(one, "kind"),
            moment(one.end_time),
            f"{one.epoch}/{one.position}",
            one.counts.versions,
            size(one.stored_bytes),
            level(one, "verified_level"),
            yes(one.pinned),
            _copied(one),
        )


def record(backup: backup_pb2.Backup) -> Iterator[tuple[str, object]]:
    """A backup's facts; those that are empty are left out."""
    counts = backup.counts
    rows_held = f"{counts.subjects} subjects, {counts.versions} versions, {counts.schemas} schemas"
    verified = level(backup, "verified_level")
    facts = [
        ("backup", backup.id),
        ("kind", label(backup, "kind")),
        ("for", moment(backup.slot_time)),
        ("begun", moment(backup.start_time)),
        ("made", moment(backup.end_time)),
        ("place", f"{backup.epoch}/{backup.position}"),
        ("holds", f"{rows_held}, {counts.changes} changes"),
        ("stored", f"{size(backup.stored_bytes)} of {size(backup.dump_bytes)}, {backup.compression}"),
        ("data key", backup.key_id or "not encrypted"),
        ("verified", f"{verified}, {moment(backup.verified_time)}" if verified else "no"),
        ("pinned", yes(backup.pinned)),
        ("copied", _copied(backup)),
        ("PostgreSQL", f"server {backup.server_version}, pg_dump {backup.dump_version}"),
        ("made by", backup.code_version),
    ]
    yield from ((name, value) for name, value in facts if value)


def tell_backup(output: Output, backup: backup_pb2.Backup) -> None:
    """Writes all that is known of a backup."""
    output.record(record(backup))
    if backup.verifications:
        output.text()
        columns = ("verified", "level", "passed", "took", "problems")
        output.table(columns, (_verification_row(one) for one in backup.verifications))
    if backup.tables:
        output.text()
        output.table(("table", "rows", "sha256"), ((one.name, one.rows, one.sha256.hex()) for one in backup.tables))
    if backup.objects:
        output.text()
        found = ((one.key, size(one.size_bytes), one.sha256.hex()) for one in backup.objects)
        output.table(("object", "size", "sha256"), found)


def tell_verification(output: Output, verification: backup_pb2.Verification) -> None:
    """Writes how a verification ended, each problem on a line."""
    passed = "passed" if verification.passed else "NOT passed"
    took = duration(seconds(verification.duration))
    output.text(f"Backup {verification.backup_id}: {level(verification, 'level')} {passed}, in {took}")
    if verification.HasField("restore_duration"):
        output.text(f"Its restore took {duration(seconds(verification.restore_duration))}.")
    problems(output, verification.problems)


def tell_drill(output: Output, drill: backup_pb2.Drill) -> None:
    """Writes how a drill ended, each problem on a line."""
    passed = "passed" if drill.passed else "NOT passed"
    output.record(
        [
            ("drill", passed),
            ("backup", drill.backup_id),
            ("ended", moment(drill.time)),
            ("recovery time", duration(seconds(drill.recovery_time))),
            ("recovery point", duration(seconds(drill.recovery_point))),
            ("place", f"{drill.epoch}/{drill.position}"),
        ]
    )
    problems(output, drill.problems)


def problems(output: Output, found: Iterable[str]) -> None:
    """Writes problems, each on a line."""
    for problem in found:
        output.text(f"  {problem}")


def _verification_row(one: backup_pb2.Verification) -> Sequence[object]:
    took = duration(seconds(one.duration))
    return moment(one.time), level(one, "level"), "yes" if one.passed else "NO", took, "; ".join(one.problems)


def _copied(backup: backup_pb2.Backup) -> str:
    return ", ".join(f"{one.store}" if one.complete else f"{one.store} (not yet)" for one in backup.copies)
