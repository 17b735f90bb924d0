"""`llmsr backup create`, `verify`, `drill`, `pin`, `unpin`, `rebuild-catalog` and `rotate-keys`."""

from __future__ import annotations

from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.cli import backup_inputs, backup_views, dry_run, operation_results
from llm_schema_registry.cli.backup import Create, Drill, Nothing, Pin, RotateKeys, Verify
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.output import counted
from llm_schema_registry.cli.session import Session


async def create(session: Session, options: Create) -> ExitCode:
    """Makes a backup and writes it. REFUSED when it failed."""
    request = pb.CreateBackupRequest(
        kind=backup_inputs.kind(options.kind), pinned=options.pin, request_id=options.request_id
    )
    async with session.connection.backup() as backup:
        answer = await begun(session, backup.call(backup.backups.CreateBackup, request))
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


async def verify(session: Session, options: Verify) -> ExitCode:
    """Verifies a backup and writes what was found. REFUSED unless it passed."""
    request = pb.VerifyBackupRequest(
        backup_id=options.id, level=backup_inputs.level(options.level), request_id=options.request_id
    )
    async with session.connection.backup() as backup:
        answer = await begun(session, backup.call(backup.backups.VerifyBackup, request))
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


async def drill(session: Session, options: Drill) -> ExitCode:
    """Runs a drill and writes what was found. REFUSED unless it passed."""
    request = pb.RunDrillRequest(request_id=options.request_id)
    async with session.connection.backup() as backup:
        answer = await begun(session, backup.call(backup.backups.RunDrill, request))
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


async def pin(session: Session, options: Pin, *, pinned: bool) -> ExitCode:
    """Pins or unpins a backup."""
    request = pb.UpdateBackupRequest(backup_id=options.id, pinned=pinned)
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.UpdateBackup, request)
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.text(f"{'Pinned' if answer.backup.pinned else 'Unpinned'} backup {answer.backup.id}")
    return ExitCode.FINE


async def rebuild_catalog(session: Session, options: Nothing) -> ExitCode:
    """Rebuilds the catalog and writes what is wrong. REFUSED when anything is."""
    del options
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.RebuildCatalog, pb.RebuildCatalogRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        found = f"{counted(answer.backups, 'backup')}, {counted(len(answer.problems), 'problem')}"
        session.output.text(f"The catalog was written: {found}")
        backup_views.problems(session.output, answer.problems)
    return ExitCode.REFUSED if answer.problems else ExitCode.FINE


async def rotate_keys(session: Session, options: RotateKeys) -> ExitCode:
    """Wraps data keys anew, or says how many that would be."""
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.backups.RotateKeys, pb.RotateKeysRequest(dry_run=not options.apply))
    keys = f"{counted(answer.rewrapped, 'data key')} for {', '.join(answer.recipients)}"
    if options.apply:
        done = [f"Wrapped {keys}"] if answer.rewrapped else []
        dry_run.applied(session.output, done, as_document(answer))
    else:
        steps = [f"wrap {keys}"] if answer.rewrapped else []
        dry_run.planned(session.output, steps, as_document(answer))
    if not session.output.json and answer.unchanged:
        session.output.text(f"With the right recipients already: {counted(answer.unchanged, 'data key')}")
    return ExitCode.FINE
