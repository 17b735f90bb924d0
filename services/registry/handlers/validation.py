"""registry.v1.ValidationService."""

from __future__ import annotations

from typing import Any

from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from llm_schema_registry.registry.v1 import validation_service_pb2_grpc as rpc
from services.registry.codec import reports
from services.registry.domain.model import Schema
from services.registry.handlers.fields import Fields
from services.registry.usecases.library import Library
from services.registry.usecases.queries import Queries
from services.registry.usecases.validate import validate_schema


class ValidationService(rpc.ValidationServiceServicer):
    """Checks schemas by their format's rules, and data by a schema's."""

    def __init__(self, queries: Queries, library: Library, *, text_bytes_max: int, data_bytes_max: int) -> None:
        self._queries = queries
        self._library = library
        self._text_bytes_max = text_bytes_max
        self._data_bytes_max = data_bytes_max

    async def ValidateSchema(self, request: pb.ValidateSchemaRequest, context: Any) -> pb.ValidateSchemaResponse:
        """See the contract."""
        fields = Fields()
        form = fields.format(request.format)
        text = fields.schema_text(request.text, self._text_bytes_max)
        references = fields.references(request.references)
        fields.require_valid()
        found = await validate_schema(form, text, references, library=self._library)
        return pb.ValidateSchemaResponse(
            valid=not found.problems,
            errors=[reports.problem(problem) for problem in found.problems],
            warnings=[reports.problem(problem) for problem in found.warnings],
        )

    async def ValidateData(self, request: pb.ValidateDataRequest, context: Any) -> pb.ValidateDataResponse:
        """See the contract."""
        fields = Fields()
        key = request.WhichOneof("key")
        if key == "version":
            fields.subject(request.version.subject, "version.subject")
            fields.number(request.version.number, "version.number", optional=True)
        elif key == "schema_id":
            fields.number(request.schema_id, "schema_id")
        else:
            fields.refuse("key", "one of schema_id or version is required")
        if len(request.data) > self._data_bytes_max:
            fields.refuse("data", f"has {len(request.data)} bytes; at most {self._data_bytes_max} are allowed")
        fields.require_valid()
        schema = await self._schema(request)
        found = await self._library.check(schema, request.data, assert_formats=request.assert_formats)
        return pb.ValidateDataResponse(
            valid=not found.problems,
            errors=[reports.problem(problem) for problem in found.problems],
            truncated=found.truncated,
            schema_id=schema.id,
        )

    async def _schema(self, request: pb.ValidateDataRequest) -> Schema:
        if request.WhichOneof("key") == "schema_id":
            return await self._queries.schema(request.schema_id)
        version = request.version
        _, schema = await self._queries.version(version.subject, version.number or None, include_deleted=False)
        return schema
