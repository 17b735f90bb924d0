"""Operations as people and programs read them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf import any_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from llm_schema_registry.admin.v1 import maintenance_pb2, recovery_pb2, system_pb2
from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.cli.messages import as_document, label, moment, seconds
from llm_schema_registry.cli.progress import Amount, Step, StepState
from llm_schema_registry.operation.v1 import operation_pb2

COLUMNS = ("name", "kind", "state", "began", "ended", "by", "told")
KINDS: tuple[type[Message], ...] = (
    backup_pb2.Backup,
    backup_pb2.Verification,
    backup_pb2.Drill,
    restore_pb2.Restore,
    system_pb2.ShutdownRecord,
    maintenance_pb2.MaintenanceRecord,
    recovery_pb2.Recovery,
)
"""What operations work on and make. JSON of an operation needs their descriptors loaded."""
_STATES = {
    operation_pb2.STEP_STATE_DONE: StepState.DONE,
    operation_pb2.STEP_STATE_FAILED: StepState.FAILED,
}

M = TypeVar("M", bound=Message)


def operation_document(operation: operation_pb2.Operation) -> dict[str, Any]:
    """The operation as JSON. What it made is {"@type", and its fields}; {"@type", "value": base64} for a kind that this
    program does not know, because the service is newer.
    """
    known = operation_pb2.Operation()
    known.CopyFrom(operation)
    unknown = {}
    for field in ("metadata", "response"):
        packed: any_pb2.Any = getattr(operation, field)
        if operation.HasField(field) and not _known(packed):
            known.ClearField(field)
            unknown[field] = {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}
    return {**as_document(known), **unknown}


def made(operation: operation_pb2.Operation, kind: type[M]) -> M | None:
    """What the operation made, when it made something of this kind."""
    message = kind()
    return message if operation.HasField("response") and operation.response.Unpack(message) else None


def state(operation: operation_pb2.Operation) -> str:
    """Where it stands: running, done, failed."""
    if not operation.done:
        return "running"
    return "failed" if operation.HasField("error") else "done"


def rows(operations: Sequence[operation_pb2.Operation]) -> Iterator[Sequence[object]]:
    """Rows under COLUMNS."""
    for one in operations:
        began, ended = moment(one.start_time), moment(one.end_time)
        yield one.name, label(one, "kind"), state(one), began, ended, one.actor, _told(one)


def record(operation: operation_pb2.Operation) -> Iterator[tuple[str, object]]:
    """An operation's facts; those that are empty are left out."""
    facts = [
        ("operation", operation.name),
        ("kind", label(operation, "kind")),
        ("state", state(operation)),
        ("began", moment(operation.start_time)),
        ("ended", moment(operation.end_time)),
        ("by", operation.actor),
        ("request id", operation.request_id),
        ("told", _told(operation)),
    ]
    yield from ((name, value) for name, value in facts if value)


def how_to_go_on(name: str, noun: str = "backup") -> str:
    """How an operation is watched and cancelled. noun: whose commands do it."""
    return f"Watch it: llmsr {noun} watch {name}\nCancel it: llmsr {noun} cancel {name}"


def step(message: operation_pb2.OperationStep) -> Step:
    """A step to show. One in a state that this program does not know counts as running."""
    return Step(message.name, _STATES.get(message.state, StepState.RUNNING), message.message)


def amount(message: operation_pb2.OperationProgress) -> Amount:
    """Progress to show."""
    return Amount(
        bytes_done=message.bytes_done,
        bytes_total=message.bytes_total,
        rows_done=message.rows_done,
        parts_done=message.parts_done,
        remaining_seconds=seconds(message.remaining) if message.HasField("remaining") else None,
    )


def _told(operation: operation_pb2.Operation) -> str:
    """The present or last step with its progress, or the error."""
    if operation.HasField("error"):
        return operation.error.message
    if operation.done or not operation.steps:
        return ""
    progress = str(amount(operation.progress))
    return f"{operation.steps[-1].name}" + (f": {progress}" if progress else "")


def _known(packed: any_pb2.Any) -> bool:
    try:
        Default().FindMessageTypeByName(packed.type_url.rpartition("/")[2])
    except KeyError:
        return False
    return True
