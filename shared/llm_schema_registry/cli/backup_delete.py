"""`llmsr backup delete` and `prune`."""

from __future__ import annotations

from collections.abc import Iterator

from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.cli import dry_run
from llm_schema_registry.cli.backup import Delete, Prune
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.output import counted
from llm_schema_registry.cli.progress import size
from llm_schema_registry.cli.session import Session


async def delete(session: Session, options: Delete) -> ExitCode:
    """Deletes a backup, or says what that would delete. The service decides whether it may."""
    request = pb.DeleteBackupRequest(backup_id=options.id, dry_run=not options.apply)
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.DeleteBackup, request)
    told = f"backup {options.id}: {counted(len(answer.keys), 'object')}, {size(answer.stored_bytes)}"
    document = {"backup_id": options.id, **as_document(answer)}
    if options.apply:
        dry_run.applied(session.output, [f"Deleted {told}", *(f"  {key}" for key in answer.keys)], document)
    else:
        dry_run.planned(session.output, [f"delete {told}", *(f"delete {key}" for key in answer.keys)], document)
    return ExitCode.FINE


async def prune(session: Session, options: Prune) -> ExitCode:
    """Prunes, or says what that would do. REFUSED when nothing may be deleted."""
    request = pb.PruneBackupsRequest(dry_run=not options.apply, force=options.force)
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.PruneBackups, request)
    if not session.output.json and answer.decisions:
        rows = ((one.backup_id, "goes" if one.delete else "stays", one.cause) for one in answer.decisions)
        session.output.table(("backup", "decision", "cause"), rows, whole=1)
        session.output.text()
    if options.apply and not answer.blocked:
        dry_run.applied(session.output, list(_done(answer)), as_document(answer))
    elif session.output.json or not answer.blocked:
        dry_run.planned(session.output, list(_steps(answer)), as_document(answer))
    if answer.blocked and not session.output.json:
        session.output.note(f"Nothing may be deleted: {answer.blocked}")
    return ExitCode.REFUSED if answer.blocked else ExitCode.FINE


def _steps(answer: pb.PruneBackupsResponse) -> Iterator[str]:
    if answer.buried:
        yield f"bury {counted(answer.buried, 'backup')}; the grace time begins then"
    if answer.deleted:
        yield f"delete {counted(answer.deleted, 'backup')} buried before, once the grace time is over"
    if answer.segments:
        yield f"delete {counted(answer.segments, 'segment')} of the archive"
    if answer.stored_bytes:
        yield f"give {size(answer.stored_bytes)} back in the end"


def _done(answer: pb.PruneBackupsResponse) -> Iterator[str]:
    if answer.buried:
        yield f"Buried {counted(answer.buried, 'backup')}; the grace time begins now"
    if answer.deleted:
        yield f"Deleted {counted(answer.deleted, 'backup')} buried before"
    if answer.segments:
        yield f"Deleted {counted(answer.segments, 'segment')} of the archive"
    if answer.stored_bytes:
        yield f"Gave {size(answer.stored_bytes)} back"
