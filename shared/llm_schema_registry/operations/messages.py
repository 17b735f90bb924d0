"""Operations as messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from llm_schema_registry.common.v1 import failure_pb2
from llm_schema_registry.kernel.messages import duration, timestamp
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations.operation import Operation, OperationKind, Progress, Step, StepState

KINDS: Mapping[OperationKind, operation_pb2.OperationKind.ValueType] = {
    OperationKind.BACKUP: operation_pb2.OPERATION_KIND_BACKUP,
    OperationKind.VERIFY: operation_pb2.OPERATION_KIND_VERIFY,
    OperationKind.PREPARE_RESTORE: operation_pb2.OPERATION_KIND_PREPARE_RESTORE,
    OperationKind.ACTIVATE_RESTORE: operation_pb2.OPERATION_KIND_ACTIVATE_RESTORE,
    OperationKind.REVERT_RESTORE: operation_pb2.OPERATION_KIND_REVERT_RESTORE,
    OperationKind.DRILL: operation_pb2.OPERATION_KIND_DRILL,
    OperationKind.PRUNE: operation_pb2.OPERATION_KIND_PRUNE,
    OperationKind.RECOVERY: operation_pb2.OPERATION_KIND_RECOVERY,
    OperationKind.SHUTDOWN: operation_pb2.OPERATION_KIND_SHUTDOWN,
    OperationKind.VACUUM: operation_pb2.OPERATION_KIND_VACUUM,
    OperationKind.ANALYZE: operation_pb2.OPERATION_KIND_ANALYZE,
    OperationKind.REINDEX: operation_pb2.OPERATION_KIND_REINDEX,
}
STATES: Mapping[StepState, operation_pb2.StepState.ValueType] = {
    StepState.RUNNING: operation_pb2.STEP_STATE_RUNNING,
    StepState.DONE: operation_pb2.STEP_STATE_DONE,
    StepState.FAILED: operation_pb2.STEP_STATE_FAILED,
}


def operation(value: Operation, result: Message | None = None) -> operation_pb2.Operation:
    """An operation. result: what it works on, or made."""
    message = operation_pb2.Operation(
        name=value.name,
        done=value.done,
        kind=KINDS[value.kind],
        actor=value.actor,
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        instance_id=value.instance_id,
        request_id=value.request_id,
        steps=[step(each) for each in value.steps],
        progress=progress(value.progress),
    )
    if result is not None:
        packed = Any()
        packed.Pack(result)
        message.metadata.CopyFrom(packed)
        if value.done and value.error is None:
            message.response.CopyFrom(packed)
    if value.error is not None:
        message.error.CopyFrom(
            failure_pb2.Failure(
                code=value.error.code,
                reason=value.error.reason,
                message=value.error.message,
                metadata=dict(value.error.metadata),
            )
        )
    return message


def step(value: Step) -> operation_pb2.OperationStep:
    """A step."""
    return operation_pb2.OperationStep(
        name=value.name,
        state=STATES[value.state],
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        message=value.message,
    )


def progress(value: Progress) -> operation_pb2.OperationProgress:
    """How far an operation is."""
    return operation_pb2.OperationProgress(
        bytes_done=value.bytes_done,
        bytes_total=value.bytes_total,
        rows_done=value.rows_done,
        parts_done=value.parts_done,
        remaining=duration(value.remaining_seconds),
    )
