"""registry.v1.SchemaService."""

from __future__ import annotations

from typing import Any

from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.registry.v1 import schema_service_pb2 as pb
from llm_schema_registry.registry.v1 import schema_service_pb2_grpc as rpc
from services.registry.codec import nouns, reports
from services.registry.domain import limits
from services.registry.domain.model import State
from services.registry.domain.search import query_words
from services.registry.handlers.encoded import EncodedSchemas
from services.registry.handlers.fields import Fields
from services.registry.ports import VersionFilter
from services.registry.usecases.library import Library
from services.registry.usecases.queries import Ask, Lookup, Queries, Walk
from services.registry.usecases.register import Draft, Register, Registration

FINGERPRINT_BYTES = 33


class SchemaService(rpc.SchemaServiceServicer):
    """Registers content and finds it again."""

    def __init__(
        self, register: Register, queries: Queries, library: Library, encoded: EncodedSchemas, text_bytes_max: int
    ) -> None:
        self._register = register
        self._queries = queries
        self._library = library
        self._text_bytes_max = text_bytes_max
        self._encoded = encoded

    async def RegisterSchema(self, request: pb.RegisterSchemaRequest, context: Any) -> pb.RegisterSchemaResponse:
        """See the contract."""
        fields = Fields()
        draft = _draft(request, fields, self._text_bytes_max)
        key = fields.request("RegisterSchema", request, request.request_id)
        fields.require_valid()
        if request.validate_only:
            return _registration(await self._register.dry_run(draft))
        return _registration(await self._register(draft, actor=current_caller().name, request=key))

    async def GetSchema(self, request: pb.GetSchemaRequest, context: Any) -> Any:
        """See the contract. Answers with encoded bytes: this is the call that serializers make."""
        if request.id > 0:
            return self._encoded.answer(await self._queries.schema(request.id))
        fields = Fields()
        if request.WhichOneof("key") == "identity_fingerprint":
            if len(request.identity_fingerprint) != FINGERPRINT_BYTES:
                fields.refuse("identity_fingerprint", f"must have {FINGERPRINT_BYTES} bytes")
            fields.require_valid()
            return self._encoded.answer(await self._queries.schema_by_identity(request.identity_fingerprint))
        fields.number(request.id, "id")
        raise fields.invalid()

    async def BatchGetSchemas(self, request: pb.BatchGetSchemasRequest, context: Any) -> pb.BatchGetSchemasResponse:
        """See the contract."""
        fields = Fields()
        if not 1 <= len(request.ids) <= limits.BATCH_IDS_MAX:
            fields.refuse("ids", f"are {len(request.ids)}; 1 to {limits.BATCH_IDS_MAX} are allowed")
        else:
            for index, schema_id in enumerate(request.ids):
                fields.number(schema_id, f"ids[{index}]")
        fields.require_valid()
        batch = await self._queries.batch(request.ids)
        return pb.BatchGetSchemasResponse(
            schemas=[nouns.schema(schema) for schema in batch.schemas],
            missing_ids=batch.missing_ids,
            unprocessed_ids=batch.unprocessed_ids,
        )

    async def LookupSchema(self, request: pb.LookupSchemaRequest, context: Any) -> pb.LookupSchemaResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject, optional=True)
        form = fields.format(request.format)
        text = fields.schema_text(request.text, self._text_bytes_max)
        references = fields.references(request.references)
        if request.kind not in pb.FingerprintKind.values():
            fields.refuse("kind", "must be one of IDENTITY, SEMANTIC")
        fields.require_valid()
        candidate = await self._library.candidate(form, text, references)
        which = Lookup(
            subject=subject or None,
            semantic=request.kind == pb.FINGERPRINT_KIND_SEMANTIC,
            include_deleted=request.include_deleted,
        )
        schema, page = await self._queries.lookup(candidate, which, Ask(request.page_size, request.page_token))
        return pb.LookupSchemaResponse(
            schema=nouns.schema(schema),
            versions=[nouns.version(version) for version in page.items],
            next_page_token=page.next_token,
        )

    async def SearchSchemas(self, request: pb.SearchSchemasRequest, context: Any) -> pb.SearchSchemasResponse:
        """See the contract."""
        fields = Fields()
        query = fields.line(request.query, "query", limits.QUERY_CHARACTERS_MAX)
        words = query_words(query)
        if query and not words:
            fields.refuse("query", "has no word: a word is made of letters and digits")
        if len(words) > limits.QUERY_WORDS_MAX:
            fields.refuse("query", f"has {len(words)} words; at most {limits.QUERY_WORDS_MAX} are allowed")
        which = VersionFilter(
            words=words,
            tags=fields.tags(request.tags, most=limits.QUERY_TAGS_MAX),
            owner=fields.line(request.owner, "owner", limits.OWNER_CHARACTERS_MAX) or None,
            format=fields.optional_format(request.format),
            state=fields.optional_state(request.state),
        )
        fields.require_valid()
        page = await self._queries.versions(which, Ask(request.page_size, request.page_token))
        return pb.SearchSchemasResponse(
            versions=[nouns.version(version) for version in page.items], next_page_token=page.next_token
        )

    async def ListReferences(self, request: pb.ListReferencesRequest, context: Any) -> pb.ListReferencesResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject)
        number = fields.number(request.version, "version", optional=True)
        if request.direction not in (pb.REFERENCE_DIRECTION_DEPENDENCIES, pb.REFERENCE_DIRECTION_DEPENDENTS):
            fields.refuse("direction", "must be one of DEPENDENCIES, DEPENDENTS")
        fields.require_valid()
        dependents = request.direction == pb.REFERENCE_DIRECTION_DEPENDENTS
        walk = Walk(subject, number, dependents=dependents, transitive=request.transitive)
        page = await self._queries.references(walk, Ask(request.page_size, request.page_token))
        return pb.ListReferencesResponse(
            versions=[nouns.version(version) for version in page.items], next_page_token=page.next_token
        )


def _draft(request: pb.RegisterSchemaRequest, fields: Fields, text_bytes_max: int) -> Draft:
    """What a request asks to register."""
    return Draft(
        subject=fields.subject(request.subject),
        format=fields.format(request.format),
        text=fields.schema_text(request.text, text_bytes_max),
        references=fields.references(request.references),
        state=fields.state(request.state or State.ACTIVE, among=(State.ACTIVE, State.DRAFT)),
        description=fields.prose(request.description, "description", limits.DESCRIPTION_CHARACTERS_MAX),
        owner=fields.line(request.owner, "owner", limits.OWNER_CHARACTERS_MAX),
        tags=fields.tags(request.tags),
        metadata=fields.metadata(request.metadata),
        normalize=request.normalize,
        accept_undecided=request.accept_undecided,
    )


def _registration(value: Registration) -> pb.RegisterSchemaResponse:
    return pb.RegisterSchemaResponse(
        version=nouns.version(value.version),
        schema=nouns.schema(value.schema),
        created=value.created,
        report=reports.report(value.report) if value.report else None,
    )
