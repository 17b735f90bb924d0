"""`llmsr backup list`, `show`, `schedules`, `archive` and `stores`."""

from __future__ import annotations

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.cli import backup_inputs, backup_views
from llm_schema_registry.cli.backup import List, Nothing, Show
from llm_schema_registry.cli.backup_views import yes
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document, label, moment, seconds
from llm_schema_registry.cli.output import Output
from llm_schema_registry.cli.paging import listed, note_more
from llm_schema_registry.cli.progress import duration, size
from llm_schema_registry.cli.session import Session

PAGE_MAX = 200
"""Largest page that the service gives. Source: backup_service.proto."""


async def list_(session: Session, options: List) -> ExitCode:
    """Writes backups, and which manifests cannot be trusted."""
    problems: list[str] = []
    async with session.connection.backup() as backup:

        async def read(page_size: int, token: str) -> pb.ListBackupsResponse:
            request = pb.ListBackupsRequest(
                kind=backup_inputs.kind(options.kind),
                verified_level=backup_inputs.level(options.verified),
                page_size=page_size,
                page_token=token,
            )
            answer = await backup.call(backup.backups.ListBackups, request)
            problems[:] = answer.problems  # Every page holds all of them.
            return answer

        found = await listed(
            read, lambda page: page.backups, limit=options.limit, token=options.page_token, page_size_max=PAGE_MAX
        )
    if session.output.json:
        entries = [as_document(one) for one in found.entries]
        document = {"backups": entries, "next_page_token": found.next_page_token, "problems": problems}
        session.output.document(document)
        return ExitCode.FINE
    session.output.table(backup_views.COLUMNS, backup_views.rows(found.entries), whole=1)
    note_more(session.output, found)
    for problem in problems:
        session.output.note(f"Not listed: {problem}")
    return ExitCode.FINE


async def show(session: Session, options: Show) -> ExitCode:
    """Writes all that is known of a backup."""
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.GetBackup, pb.GetBackupRequest(backup_id=options.id))
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        backup_views.tell_backup(session.output, answer.backup)
    return ExitCode.FINE


async def schedules(session: Session, options: Nothing) -> ExitCode:
    """Writes the schedules."""
    del options
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.ListSchedules, pb.ListSchedulesRequest())
    if session.output.json:
        session.output.document(as_document(answer))
        return ExitCode.FINE
    rows = (
        (label(one, "kind"), one.cron, moment(one.next_time), moment(one.last_slot_time)) for one in answer.schedules
    )
    session.output.table(("kind", "cron", "next", "last"), rows)
    if not answer.schedules:
        session.output.note("The service has no schedules: nothing is backed up by itself.")
    return ExitCode.FINE


async def archive(session: Session, options: Nothing) -> ExitCode:
    """Writes how the archive is. REFUSED when it has a problem, or is broken somewhere."""
    del options
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.GetArchiveStatus, pb.GetArchiveStatusRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        _tell_archive(session.output, answer.status)
    return ExitCode.REFUSED if answer.status.problem or answer.status.breaks else ExitCode.FINE


async def stores(session: Session, options: Nothing) -> ExitCode:
    """Writes how the stores are. REFUSED when one has a problem."""
    del options
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.GetStoreStatus, pb.GetStoreStatusRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        columns = (
            "store",
            "location",
            "checksums",
            "conditional",
            "lock",
            "encryption",
            "newest",
            "verified",
            "archive read",
            "problem",
        )
        session.output.table(
            columns,
            (
                (
                    one.name,
                    one.location,
                    yes(one.checksums),
                    yes(one.conditional_writes),
                    yes(one.object_lock),
                    one.encryption,
                    one.newest_backup_id,
                    one.newest_verified_backup_id,
                    moment(one.archive_audit_time) or "not yet",
                    one.problem,
                )
                for one in answer.stores
            ),
        )
    return ExitCode.REFUSED if any(one.problem for one in answer.stores) else ExitCode.FINE


def _tell_archive(output: Output, status: backup_pb2.ArchiveStatus) -> None:
    known = status.HasField("live_position")
    lag = duration(seconds(status.lag)) if status.HasField("lag") else "unknown: the database cannot be reached"
    since, until = moment(status.restorable_from), moment(status.restorable_to)
    output.record(
        [
            ("archiving", "yes" if status.enabled else "no"),
            ("place", f"{status.epoch}/{status.position}"),
            ("live position", status.live_position if known else "unknown: the database cannot be reached"),
            ("lag", lag),
            ("restorable", f"from {since} to {until}" if since else "no: there is no verified backup"),
            ("heartbeat", moment(status.heartbeat_time)),
            ("segments", f"{status.segments}, {size(status.stored_bytes)}"),
            ("schema ids", f"up to {status.schema_id_high}"),
            ("audited", moment(status.audit_time) or "not yet"),
            ("problem", status.problem),
            *(("broken", one) for one in status.breaks),
        ]
    )
