"""Operations as messages, with what they made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import Message

from llm_schema_registry import errors
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations import messages
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Request

Shown = Callable[[str], Awaitable[Message]]
"""Makes a message of what an operation works on, found by its id. Raises an error when there is none."""


class Answers:
    """Makes messages of operations."""

    def __init__(self, shown: Mapping[str, Shown]) -> None:
        """shown: by kind of subject; each service of this process adds its own."""
        self._shown = shown

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """See llm_schema_registry.operations.service.Answers."""
        return messages.operation(operation, await self._subject(operation))

    async def _subject(self, operation: Operation) -> Message | None:
        shown = self._shown.get(operation.subject.kind)
        if shown is None or not operation.subject.id:
            return None
        try:
            return await shown(operation.subject.id)
        except (errors.RecoveryNotFound, errors.OperationNotFound):
            return None


def asked(request_id: str, request: Message) -> Request:
    """What a call asked for, so that a repeat of it is recognised."""
    body = request.SerializeToString(deterministic=True)
    # Two methods may have the same fields, and mean the contrary.
    return Request(request_id, request.DESCRIPTOR.full_name.encode() + b"\0" + body)
