"""`llmsr restore activate`, `revert` and `release`."""

from __future__ import annotations

from collections.abc import Iterator

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.cli import dry_run, operation_results
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document, label
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.restore import Release, Swap
from llm_schema_registry.cli.restore_views import apply_line, confirmation_needed, loss
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import BackupClient

ACTIVATE = "activate"
REVERT = "revert"


async def activate(session: Session, options: Swap) -> ExitCode:
    """Activates a restore, or says what that would do. REFUSED when it failed, or would."""
    async with session.connection.backup() as backup:
        if not options.apply:
            return await _plan(session, backup, options, ACTIVATE)
        request = pb.ActivateRestoreRequest(
            restore_id=options.id, confirmation=options.confirm, request_id=options.request_id
        )
        try:
            answer = await begun(session, backup.call(backup.restores.ActivateRestore, request))
        except errors.LossWindowChanged as refused:
            operation_results.tell_confirmation(session, ACTIVATE, options.id, refused)
            raise
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


async def revert(session: Session, options: Swap) -> ExitCode:
    """Reverts a restore, or says what that would do. REFUSED when it failed, or would."""
    async with session.connection.backup() as backup:
        if not options.apply:
            return await _plan(session, backup, options, REVERT)
        request = pb.RevertRestoreRequest(
            restore_id=options.id, confirmation=options.confirm, request_id=options.request_id
        )
        try:
            answer = await begun(session, backup.call(backup.restores.RevertRestore, request))
        except errors.LossWindowChanged as refused:
            operation_results.tell_confirmation(session, REVERT, options.id, refused)
            raise
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


async def release(session: Session, options: Release) -> ExitCode:
    """Releases a restore, or says what that would drop."""
    async with session.connection.backup() as backup:
        if not options.apply:
            restore = await _get(backup, options.id)
            steps = [f"drop {name}" for name in _kept(restore)]
            dry_run.planned(session.output, steps, {"restore": as_document(restore)})
            return ExitCode.FINE
        answer = await backup.call(backup.restores.ReleaseRestore, pb.ReleaseRestoreRequest(restore_id=options.id))
    done = [f"Released restore {answer.restore.id}: nothing of it is kept beside the live database"]
    dry_run.applied(session.output, done, as_document(answer))
    return ExitCode.FINE


async def _plan(session: Session, backup: BackupClient, options: Swap, verb: str) -> ExitCode:
    """Says what `--apply` would do. Raises what it would raise, as far as that can be seen without doing it."""
    if options.request_id or options.no_wait:
        raise UsageFault("--request-id and --no-wait go with --apply: without it nothing is begun.")
    restore = await _get(backup, options.id)
    wanted = restore_pb2.RESTORE_STATE_PREPARED if verb == ACTIVATE else restore_pb2.RESTORE_STATE_ACTIVE
    if restore.state != wanted:
        raise _wrong_state(restore, "activated" if verb == ACTIVATE else "reverted")
    steps = list(_activation(restore) if verb == ACTIVATE else _reversal(restore))
    output = session.output
    if not output.json:
        output.text(f"{loss(restore)}\n")
    dry_run.planned(output, steps, {"restore": as_document(restore)})
    if not output.json:
        output.text(f"\nNext: {apply_line(verb, restore.id, confirmation_needed(restore))}")
    return ExitCode.FINE


def _activation(restore: restore_pb2.Restore) -> Iterator[str]:
    if restore.target.latest:
        yield "replay what was written since the restore was prepared"
    yield "refuse writes for a moment; reads go on"
    yield f"let {restore.scratch_name} serve under the name of the live database"
    yield "keep the replaced database beside it, for a revert"
    yield "begin a new epoch, with schema ids that were never given"


def _reversal(restore: restore_pb2.Restore) -> Iterator[str]:
    yield "refuse writes for a moment; reads go on"
    yield f"let {restore.aside_name}, which was replaced, serve under the name of the live database"
    yield f"keep what serves now as {restore.scratch_name}"
    yield "begin a new epoch, with schema ids that were never given"


def _kept(restore: restore_pb2.Restore) -> list[str]:
    """Databases beside the live one. Raises IllegalState while they are being made or swapped."""
    match restore.state:
        # After a revert what was restored lies under its first name again.
        case restore_pb2.RESTORE_STATE_PREPARED | restore_pb2.RESTORE_STATE_FAILED | restore_pb2.RESTORE_STATE_REVERTED:
            return [restore.scratch_name]
        case restore_pb2.RESTORE_STATE_ACTIVE:
            return [restore.aside_name]
        case restore_pb2.RESTORE_STATE_RELEASED:
            return []
    raise _wrong_state(restore, "released")


def _wrong_state(restore: restore_pb2.Restore, verb: str) -> errors.IllegalState:
    """As the service says it."""
    state = label(restore, "state")
    problem = f" ({restore.problem})" if restore.problem else ""
    return errors.IllegalState(
        f"Restore {restore.id} is {state}{problem}: it cannot be {verb} now.",
        metadata={"restore_id": restore.id, "state": state},
    )


async def _get(backup: BackupClient, restore_id: str) -> restore_pb2.Restore:
    answer = await backup.call(backup.restores.GetRestore, pb.GetRestoreRequest(restore_id=restore_id))
    return answer.restore
