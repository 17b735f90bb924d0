"""`llmsr backup run`: one backup a slot, for cron."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.cli import backup_inputs, operation_views
from llm_schema_registry.cli.backup import KindName, RunOnce, SlotKind
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import BackupClient, error_of
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2 as operations_pb

ATTEMPTS_MAX = 20
"""Runs of one slot that may fail: each has a request id of its own, by which the service knows a repeat."""
ASK_SECONDS = 1.0
WAIT_SECONDS_MAX = 12 * 3600.0
BROKEN_MAX = 120
"""Times in a row that the service may not answer while it is waited for: longer than its restart takes."""
_SLOT = re.compile(r"[A-Za-z0-9._:-]{1,80}", re.ASCII)
_FORMS = {SlotKind.HOURLY: "%Y-%m-%dT%H", SlotKind.DAILY: "%Y-%m-%d", SlotKind.MONTHLY: "%Y-%m"}

Begin = Callable[[str], Awaitable[Any]]


async def run(session: Session, options: RunOnce) -> ExitCode:
    """Makes the slot's backup unless there is one, and verifies it when that is wanted. REFUSED when either failed."""
    slot = _slot(options)
    kind = backup_inputs.kind(KindName(options.kind.value))
    async with session.connection.backup() as client:

        async def create(request_id: str) -> Any:
            return await client.call(
                client.backups.CreateBackup, pb.CreateBackupRequest(kind=kind, request_id=request_id)
            )

        operation, already = await _ended(client, create, f"run-{options.kind.value}-{slot}")
        backup = operation_views.made(operation, backup_pb2.Backup)
        if backup is None:
            raise _failure(operation)
        found: dict[str, Any] = {"slot": slot, "already": already, "backup": as_document(backup)}
        passed = True
        if options.verify is not None:
            verification = await _verified(client, backup.id, options)
            found["verification"] = as_document(verification)
            passed = verification.passed
            for problem in verification.problems:
                session.output.note(f"Backup {backup.id}: {problem}")
    if session.output.json:
        session.output.document(found)
    return ExitCode.FINE if passed else ExitCode.REFUSED


async def _verified(client: BackupClient, backup_id: str, options: RunOnce) -> backup_pb2.Verification:
    """The verification. Raises what it failed with."""
    assert options.verify is not None
    level = backup_inputs.level(options.verify)

    async def verify(request_id: str) -> Any:
        request = pb.VerifyBackupRequest(backup_id=backup_id, level=level, request_id=request_id)
        return await client.call(client.backups.VerifyBackup, request)

    operation, _ = await _ended(client, verify, f"run-{options.verify.value}-{backup_id}")
    verification = operation_views.made(operation, backup_pb2.Verification)
    if verification is None:
        raise _failure(operation)
    return verification


async def _ended(client: BackupClient, begin: Begin, request_id: str) -> tuple[operation_pb2.Operation, bool]:
    """The operation once it has ended, and whether an earlier run had ended it. One that failed is begun anew, and so
    is one that made what was deleted since."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        operation = (await begin(f"{request_id}-{attempt}")).operation
        if not operation.done:
            return await _waited(client, operation.name), False
        if operation.HasField("response") and await _is_there(client, operation):
            return operation, True
    return operation, False


async def _is_there(client: BackupClient, operation: operation_pb2.Operation) -> bool:
    """Whether what an operation made was not deleted since. A verification is kept as long as its backup."""
    backup = operation_views.made(operation, backup_pb2.Backup)
    if backup is None:
        return True
    try:
        await client.call(client.backups.GetBackup, pb.GetBackupRequest(backup_id=backup.id))
    except errors.BackupNotFound:
        return False
    return True


async def _waited(client: BackupClient, name: str) -> operation_pb2.Operation:
    """The operation once it has ended. Raises errors.Deadline after WAIT_SECONDS_MAX; it goes on then."""
    loop = asyncio.get_running_loop()
    ends, broken = loop.time() + WAIT_SECONDS_MAX, 0
    while loop.time() < ends:
        try:
            answer = await client.call(client.operations.GetOperation, operations_pb.GetOperationRequest(name=name))
            broken = 0
        except errors.Error as failed:
            broken += 1
            if failed.code is not errors.Code.UNAVAILABLE or broken > BROKEN_MAX:
                raise
        else:
            if answer.operation.done:
                found: operation_pb2.Operation = answer.operation
                return found
        await asyncio.sleep(ASK_SECONDS)
    raise errors.Deadline(f"The operation {name} did not end within {WAIT_SECONDS_MAX / 3600:.0f} hours; it goes on.")


def _failure(operation: operation_pb2.Operation) -> errors.Error:
    if operation.HasField("error"):
        return error_of(operation.error)
    return errors.BackupNotFound(f"What the operation {operation.name} made is gone already.")


def _slot(options: RunOnce) -> str:
    """The slot that is wanted, by default the present one."""
    if options.slot and not _SLOT.fullmatch(options.slot):
        raise UsageFault("--slot: at most 80 letters, digits and '-_.:'.")
    return options.slot or datetime.now(UTC).strftime(_FORMS[options.kind])
