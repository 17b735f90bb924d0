"""Operations as messages, with what they made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import Message

from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operations import messages
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Request

Show = Callable[[str], Awaitable[Message | None]]
"""The message of a result by its id; None when it is not there."""


class Answers:
    """Makes messages of operations."""

    def __init__(self, results: Mapping[str, Show]) -> None:
        """results: how those of each kind of Subject are shown."""
        self._results = results

    async def operation(self, operation: Operation) -> operation_pb2.Operation:
        """See llm_schema_registry.operations.service.Answers."""
        return messages.operation(operation, await self._subject(operation))

    async def _subject(self, operation: Operation) -> Message | None:
        show = self._results.get(operation.subject.kind)
        return await show(operation.subject.id) if show is not None and operation.subject.id else None


def asked(request_id: str, request: Message) -> Request:
    """What a call asked for, so that a repeat of it is recognised."""
    return Request(request_id, request.SerializeToString(deterministic=True))
