"""Operations as messages, with what they made."""

from __future__ import annotations

from google.protobuf.message import Message

from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations import messages
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Request


class Answers:
    """Makes messages of operations. Each service of this process adds how its results are shown."""

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """See llm_schema_registry.operations.service.Answers."""
        return messages.operation(operation, await self._subject(operation))

    async def _subject(self, operation: Operation) -> Message | None:
        return None


def asked(request_id: str, request: Message) -> Request:
    """What a call asked for, so that a repeat of it is recognised."""
    return Request(request_id, request.SerializeToString(deterministic=True))
