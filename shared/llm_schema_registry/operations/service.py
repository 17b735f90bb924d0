"""operation.v1.OperationService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from llm_schema_registry.kernel.fields import Fields
from llm_schema_registry.kernel.messages import timestamp
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2 as pb
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc as rpc
from llm_schema_registry.operations import messages as codec
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Operations
from llm_schema_registry.operations.ports import Clock

INTERVAL_SECONDS = 0.5
INTERVAL_SECONDS_MIN = 0.1
INTERVAL_SECONDS_MAX = 60.0


class Answers(Protocol):
    """Makes messages of operations with what they work on or made."""

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """An operation with what it works on or made, as far as that is still there."""
        ...


class OperationService(rpc.OperationServiceServicer):
    """Shows and steers operations."""

    def __init__(self, operations: Operations, answers: Answers, clock: Clock) -> None:
        self._operations = operations
        self._answers = answers
        self._clock = clock

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Any) -> pb.ListOperationsResponse:
        """See the contract."""
        fields = Fields()
        size, after = fields.page_size(request.page_size), fields.page_token(request.page_token)
        fields.require_valid()
        found = await self._operations.list()
        names = [operation.name for operation in found]
        if after and after not in names:
            fields.refuse("page_token", "names an operation that is no longer on record: begin with the first page")
            fields.require_valid()
        start = names.index(after) + 1 if after else 0
        left = [each for each in found[start:] if not (request.running_only and each.done)]
        page = left[:size]
        token = page[-1].name if len(left) > size else ""
        return pb.ListOperationsResponse(operations=[codec.operation(each) for each in page], next_page_token=token)

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        """See the contract."""
        operation = await self._operations.get(_name(request.name))
        return pb.GetOperationResponse(operation=await self._answers.operation(operation))

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Any) -> pb.CancelOperationResponse:
        """See the contract."""
        operation = await self._operations.cancel(_name(request.name))
        return pb.CancelOperationResponse(operation=await self._answers.operation(operation))

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, context: Any
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """See the contract."""
        name = _name(request.name)
        interval = _interval(request)
        before: Operation | None = None
        async with aclosing(self._operations.watch(name, interval)) as states:
            async for operation in states:
                for event in self._events(before, operation):
                    yield pb.WatchOperationResponse(event=event)
                before = operation
        if before is not None and before.done:
            ended = operation_pb2.OperationEvent(
                time=timestamp(before.end_time), ended=await self._answers.operation(before)
            )
            yield pb.WatchOperationResponse(event=ended)

    def _events(self, before: Operation | None, now: Operation) -> list[operation_pb2.OperationEvent]:
        """What happened between two looks: every step that changed, then the progress."""
        time = timestamp(self._clock.now())
        known = before.steps if before else ()
        events = [
            operation_pb2.OperationEvent(time=timestamp(step.end_time or step.start_time), step=codec.step(step))
            for number, step in enumerate(now.steps)
            if number >= len(known) or known[number] != step
        ]
        if not now.done and (before is None or before.progress != now.progress):
            events.append(operation_pb2.OperationEvent(time=time, progress=codec.progress(now.progress)))
        return events


def _name(value: str) -> str:
    fields = Fields()
    name = fields.name(value)
    fields.require_valid()
    return name


def _interval(request: pb.WatchOperationRequest) -> float:
    if not request.HasField("progress_interval"):
        return INTERVAL_SECONDS
    seconds = request.progress_interval.seconds + request.progress_interval.nanos / 1e9
    return min(max(seconds, INTERVAL_SECONDS_MIN), INTERVAL_SECONDS_MAX)
