"""registry.v1.CompatibilityService."""

from __future__ import annotations

from typing import Any

from llm_schema_registry.registry.v1 import compatibility_service_pb2 as pb
from llm_schema_registry.registry.v1 import compatibility_service_pb2_grpc as rpc
from services.registry.codec import reports
from services.registry.handlers.fields import Fields
from services.registry.ports import Store
from services.registry.usecases.compatibility import Question, compatibility
from services.registry.usecases.library import Library


class CompatibilityService(rpc.CompatibilityServiceServicer):
    """Says whether a schema may follow others, and why not."""

    def __init__(self, store: Store, library: Library, text_bytes_max: int) -> None:
        self._store = store
        self._library = library
        self._text_bytes_max = text_bytes_max

    async def CheckCompatibility(
        self, request: pb.CheckCompatibilityRequest, context: Any
    ) -> pb.CheckCompatibilityResponse:
        """See the contract."""
        fields = Fields()
        question = Question(
            subject=fields.subject(request.subject),
            level=fields.optional_level(request.level, "level"),
            number=fields.number(request.version, "version", optional=True),
        )
        form = fields.format(request.format)
        text = fields.schema_text(request.text, self._text_bytes_max)
        references = fields.references(request.references)
        fields.require_valid()
        candidate = await self._library.candidate(form, text, references, subject=question.subject)
        found = await compatibility(question, candidate, store=self._store, library=self._library)
        return pb.CheckCompatibilityResponse(report=reports.report(found))
