"""registry.v1.CompatibilityService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from llm_schema_registry.errors import Error
from llm_schema_registry.registry.v1 import compatibility_service_pb2 as pb
from llm_schema_registry.registry.v1 import compatibility_service_pb2_grpc as rpc
from services.registry.codec import nouns, reports
from services.registry.domain import limits
from services.registry.domain.evolution.report import Report
from services.registry.domain.formats import Parsed
from services.registry.domain.model import Settings
from services.registry.domain.settings import in_force, terms_of
from services.registry.handlers.fields import Fields
from services.registry.handlers.streams import one_ahead
from services.registry.ports import Store
from services.registry.usecases.compatibility import Assumptions, Question, asked_rules, compatibility
from services.registry.usecases.differences import differences
from services.registry.usecases.library import Library
from services.registry.usecases.queries import Queries


class CompatibilityService(rpc.CompatibilityServiceServicer):
    """Says whether a schema may follow others, and why not."""

    def __init__(self, store: Store, queries: Queries, library: Library, text_bytes_max: int) -> None:
        self._store = store
        self._queries = queries
        self._library = library
        self._text_bytes_max = text_bytes_max

    async def CheckCompatibility(
        self, request: pb.CheckCompatibilityRequest, context: Any
    ) -> pb.CheckCompatibilityResponse:
        """See the contract."""
        return pb.CheckCompatibilityResponse(report=reports.report(await self._check(request)))

    async def StreamCheckCompatibility(
        self, request_iterator: AsyncIterator[pb.StreamCheckCompatibilityRequest], context: Any
    ) -> AsyncIterator[pb.StreamCheckCompatibilityResponse]:
        """See the contract."""
        async for request in one_ahead(request_iterator):
            answer = pb.StreamCheckCompatibilityResponse(key=request.key[: limits.STREAM_KEY_CHARACTERS_MAX])
            try:
                fields = Fields()
                fields.line(request.key, "key", limits.STREAM_KEY_CHARACTERS_MAX)
                fields.require_valid()
                answer.report.CopyFrom(reports.report(await self._check(request.check)))
            except Error as error:
                answer.error.CopyFrom(reports.failure(error))
            yield answer

    async def DiffSchemas(self, request: pb.DiffSchemasRequest, context: Any) -> pb.DiffSchemasResponse:
        """See the contract."""
        fields = Fields()
        for name in ("before", "after"):
            self._read_source(getattr(request, name), fields, name)
        policy = fields.optional_policy(request.policy, "policy")
        fields.require_valid()
        before = await self._parsed(request.before, "before")
        after = await self._parsed(request.after, "after")
        basis = await self._store.basis("")
        rules = terms_of(in_force(Settings(), basis.general), after.format).rules
        rules = asked_rules(rules, policy, _assumptions(request))
        found = await differences(before, after, rules, library=self._library)
        return pb.DiffSchemasResponse(
            differences=[reports.difference(each) for each in found.differences],
            truncated=found.truncated,
            backward=reports.verdict(found.backward),
            forward=reports.verdict(found.forward),
            suggested_step=pb.VersionStep.ValueType(int(found.step)),
            findings=[reports.finding(each) for each in found.findings],
            policy=nouns.policy_value(rules.policy),
        )

    async def _check(self, request: pb.CheckCompatibilityRequest) -> Report:
        fields = Fields()
        question = Question(
            subject=fields.subject(request.subject),
            level=fields.optional_level(request.level, "level"),
            number=fields.number(request.version, "version", optional=True),
            policy=fields.optional_policy(request.policy, "policy"),
            assumptions=_assumptions(request),
        )
        form = fields.format(request.format)
        text = fields.schema_text(request.text, self._text_bytes_max)
        references = fields.references(request.references)
        fields.require_valid()
        candidate = await self._library.candidate(form, text, references, subject=question.subject)
        return await compatibility(question, candidate, store=self._store, library=self._library)

    def _read_source(self, source: pb.SchemaSource, fields: Fields, name: str) -> None:
        """Notes what is wrong with one of the two schemas."""
        match source.WhichOneof("source"):
            case "schema_id":
                fields.number(source.schema_id, f"{name}.schema_id")
            case "version":
                fields.subject(source.version.subject, f"{name}.version.subject")
                fields.number(source.version.number, f"{name}.version.number", optional=True)
            case "text":
                fields.format(source.text.format, f"{name}.text.format")
                fields.schema_text(source.text.text, self._text_bytes_max, f"{name}.text.text")
                fields.references(source.text.references)
            case _:
                fields.refuse(name, "one of schema_id, version or text is required")

    async def _parsed(self, source: pb.SchemaSource, name: str) -> Parsed:
        """One of the two schemas, understood. `_read_source` has checked it."""
        match source.WhichOneof("source"):
            case "schema_id":
                return await self._library.parsed(await self._queries.schema(source.schema_id))
            case "version":
                key = source.version
                _, schema = await self._queries.version(key.subject, key.number or None, include_deleted=False)
                return await self._library.parsed(schema)
            case _:
                text = source.text
                form = Fields().format(text.format)
                references = Fields().references(text.references)
                return (await self._library.candidate(form, text.text, references)).parsed


def _assumptions(request: pb.CheckCompatibilityRequest | pb.DiffSchemasRequest) -> Assumptions | None:
    """What a request says about readers and writers, None when it leaves that to the settings."""
    if not request.HasField("assumptions"):
        return None
    assumed = request.assumptions
    return Assumptions(assumed.declared_properties_only, assumed.reader_fills_defaults, assumed.assert_formats)
