"""What an operation made, or why it failed, once it has ended."""

from __future__ import annotations

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import maintenance_pb2, recovery_pb2
from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as restores_pb
from llm_schema_registry.cli import backup_views, db_views, operation_views, recover_views, restore_views
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_views import made
from llm_schema_registry.cli.operation_wait import OperationsClient
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import BackupClient, error_of
from llm_schema_registry.operation.v1 import operation_pb2

_VERBS = {
    operation_pb2.OPERATION_KIND_ACTIVATE_RESTORE: "activate",
    operation_pb2.OPERATION_KIND_REVERT_RESTORE: "revert",
}


async def tell(session: Session, client: OperationsClient, operation: operation_pb2.Operation | None) -> ExitCode:
    """Writes what the operation made; nothing for None, one that nobody waits for.

    REFUSED when it failed, or found that something is not as it should be.

    As JSON only what the events have not said: the error, and {"restore"} with the loss window of one that is prepared.
    """
    output = session.output
    if operation is None:
        return ExitCode.FINE
    if operation.HasField("error"):
        error = error_of(operation.error)
        _tell_confirmation(session, operation, error)
        output.error(error)
        return ExitCode.REFUSED
    if found := made(operation, backup_pb2.Verification):
        if not output.json:
            backup_views.tell_verification(output, found)
        return _status(passed=found.passed)
    if drill := made(operation, backup_pb2.Drill):
        if not output.json:
            backup_views.tell_drill(output, drill)
        return _status(passed=drill.passed)
    if record := made(operation, maintenance_pb2.MaintenanceRecord):
        if not output.json:
            db_views.tell_record(output, record)
        return _status(passed=not any(one.problem for one in record.objects))
    if recovery := made(operation, recovery_pb2.Recovery):
        if not output.json:
            recover_views.tell(output, recovery)
        planned = recovery.state == recovery_pb2.RECOVERY_STATE_PLANNED
        return _status(passed=not (planned and recovery.problem))
    if restore := made(operation, restore_pb2.Restore):
        await _tell_restore(session, client, restore)
    elif not output.json:
        copy = made(operation, backup_pb2.Backup)
        output.record(backup_views.record(copy) if copy else operation_views.record(operation))
    return ExitCode.FINE


async def _tell_restore(session: Session, client: OperationsClient, restore: restore_pb2.Restore) -> None:
    """Writes a restore. What its activation would lose is not part of the operation, and is asked for."""
    if isinstance(client, BackupClient) and restore.state == restore_pb2.RESTORE_STATE_PREPARED:
        request = restores_pb.GetRestoreRequest(restore_id=restore.id)
        answer = await client.call(client.restores.GetRestore, request)
        restore = answer.restore
        if session.output.json:
            session.output.line(as_document(answer))
    if not session.output.json:
        restore_views.tell_restore(session.output, restore)


def tell_confirmation(session: Session, verb: str, restore_id: str, error: errors.Error) -> None:
    """Writes the line that confirms what would be lost, for people; programs find it in the error's metadata."""
    confirmation = error.metadata.get("confirmation", "")
    if confirmation and not session.output.json:
        session.output.note(f"To lose that: {restore_views.apply_line(verb, restore_id, confirmation)}")


def _tell_confirmation(session: Session, operation: operation_pb2.Operation, error: errors.Error) -> None:
    recovery_id, confirmation = error.metadata.get("recovery_id", ""), error.metadata.get("confirmation", "")
    if operation.kind == operation_pb2.OPERATION_KIND_RECOVERY:
        if not recovery_id or session.output.json or error.metadata.get("step") == "preflight":
            return
        confirm = f" --confirm {confirmation}" if confirmation else ""
        session.output.note(f"To go on: llmsr recover resume {recovery_id}{confirm} --apply")
        session.output.note(f"To go back: llmsr recover abort {recovery_id} --apply")
        return
    restore = restore_pb2.Restore()
    if operation.kind in _VERBS and operation.metadata.Unpack(restore):
        tell_confirmation(session, _VERBS[operation.kind], restore.id, error)


def _status(*, passed: bool) -> ExitCode:
    return ExitCode.FINE if passed else ExitCode.REFUSED
