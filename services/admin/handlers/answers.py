"""Operations as messages, with what they made."""

from __future__ import annotations

from google.protobuf.message import Message

from llm_schema_registry import errors
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations import messages
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Request
from services.admin.codec import maintenance
from services.admin.usecases import maintain
from services.admin.usecases.maintain import Maintain


class Answers:
    """Makes messages of operations. Each service of this process adds how its results are shown."""

    def __init__(self, maintain: Maintain) -> None:
        self._maintain = maintain

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """See llm_schema_registry.operations.service.Answers."""
        return messages.operation(operation, await self._subject(operation))

    async def _subject(self, operation: Operation) -> Message | None:
        subject = operation.subject
        try:
            match subject.kind:
                case maintain.SUBJECT if subject.id:
                    return maintenance.record(await self._maintain.record(subject.id))
                case _:
                    return None
        except errors.OperationNotFound:
            return None


def asked(request_id: str, request: Message) -> Request:
    """What a call asked for, so that a repeat of it is recognised."""
    return Request(request_id, request.SerializeToString(deterministic=True))
