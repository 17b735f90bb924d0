"""Binds content to the next version of a subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from llm_schema_registry.errors import LimitExceeded
from services.registry.domain.events import RequestKey, VersionRegistered
from services.registry.domain.evolution.levels import history
from services.registry.domain.evolution.report import Report, Verdict
from services.registry.domain.limits import VERSIONS_PER_SUBJECT_MAX
from services.registry.domain.model import Format, Reference, Schema, State, Version
from services.registry.domain.search import version_words
from services.registry.domain.settings import inherits
from services.registry.ports import Basis, Clock, Store
from services.registry.usecases.compatibility import compare, require_compatible, terms_in_force
from services.registry.usecases.library import Candidate, Library
from services.registry.usecases.writer import Decision, Intent, Writer


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller asks to register. tags: sorted, each once. state: ACTIVE or DRAFT."""

    subject: str
    format: Format
    text: str
    references: tuple[Reference, ...]
    state: State
    description: str
    owner: str
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    normalize: bool = False
    accept_undecided: bool = False


@dataclass(frozen=True, slots=True)
class Registration:
    """The version and its content. created: this request made it, or would make it. report: only of a dry run."""

    version: Version
    schema: Schema
    created: bool
    report: Report | None = None


class Register:
    """Registers schemas."""

    def __init__(self, store: Store, library: Library, writer: Writer, clock: Clock) -> None:
        self._store = store
        self._library = library
        self._writer = writer
        self._clock = clock

    async def __call__(self, draft: Draft, *, actor: str, request: RequestKey | None) -> Registration:
        """The version that holds the draft's content, made when the subject has none that is live.

        Atomic: the history that was checked is the one the version is added to. Raises InvalidSchema,
        UnsupportedFormat, IncompatibleSchema, ReferenceNotFound, ReferenceCycle, ReferenceLimit, LimitExceeded,
        RequestIdReused, Conflict, WritesFenced.
        """
        candidate = await self._understood(draft)
        existing: int | None = None

        async def decide(basis: Basis, now: datetime) -> Decision | None:
            nonlocal existing
            existing = _existing(basis)
            if existing is not None:
                return None
            report = await self._check(basis, draft, candidate)
            accepted = require_compatible(report, draft.subject, accept_undecided=draft.accept_undecided)
            schema = await self._known(basis)
            if schema is None:
                schema_id = basis.schema_id or await self._store.reserve_schema_id()
                schema = _schema(candidate, draft, schema_id, now)
            found_by = await self._stored(candidate, schema)
            return _decision(draft, found_by, schema, basis, now, accepted=accepted)

        intent = Intent(draft.subject, actor, request, candidate.identity)
        change = await self._writer.run(intent, decide)
        if change is None:
            assert existing is not None, "a registration writes nothing only when the version exists"
            return await self._found(draft.subject, existing)
        assert isinstance(change.event, VersionRegistered), "a registration commits nothing else"
        return Registration(change.event.version, change.event.schema, created=True)

    async def dry_run(self, draft: Draft) -> Registration:
        """What registering would do; writes nothing. Incompatible is an answer here, not an error.

        The version has the number it would get, and schema id 0 when the content is new.
        """
        candidate = await self._understood(draft)
        now = self._clock.now()
        basis = await self._store.basis(draft.subject, candidate.identity)
        existing = _existing(basis)
        if existing is not None:
            found = await self._found(draft.subject, existing)
            report = Report(Verdict.COMPATIBLE, terms_in_force(basis, candidate.parsed))
            return Registration(found.version, found.schema, created=False, report=report)
        report = await self._check(basis, draft, candidate)
        schema = await self._known(basis) or _schema(candidate, draft, basis.schema_id or 0, now)
        event = _decision(draft, candidate, schema, basis, now).event
        assert isinstance(event, VersionRegistered), "a registration decides nothing else"
        accepted = report.verdict is Verdict.UNDECIDED and draft.accept_undecided
        created = report.verdict is Verdict.COMPATIBLE or accepted
        return Registration(event.version, event.schema, created=created, report=report)

    async def _understood(self, draft: Draft) -> Candidate:
        """The candidate; with `normalize` the oldest content of the same meaning, when there is one."""
        candidate = await self._library.candidate(draft.format, draft.text, draft.references, subject=draft.subject)
        if not draft.normalize:
            return candidate
        for schema in await self._store.schemas_by_semantic(candidate.semantic, 1):
            parsed = await self._library.parsed(schema)
            return Candidate(parsed, draft.references, schema.identity, schema.semantic)
        return candidate

    async def _check(self, basis: Basis, draft: Draft, candidate: Candidate) -> Report:
        """Drafts do not count, so they are checked only when they become active."""
        terms = terms_in_force(basis, candidate.parsed)
        heads = history(terms.level, basis.live) if draft.state is State.ACTIVE else ()
        return await compare(terms, heads, candidate.parsed, library=self._library)

    async def _known(self, basis: Basis) -> Schema | None:
        """The content as it was first registered, when the registry has it."""
        if basis.schema_id is None or basis.schema_purged:
            return None
        return (await self._library.schemas((basis.schema_id,))).get(basis.schema_id)

    async def _stored(self, candidate: Candidate, schema: Schema) -> Candidate:
        """The candidate as it is stored: a replay of the history knows no other writing of it to take words from."""
        if schema.text == candidate.parsed.text:
            return candidate
        return replace(candidate, parsed=await self._library.parsed(schema))

    async def _found(self, subject: str, number: int) -> Registration:
        version = await self._store.version(subject, number)
        assert version is not None, "a version cannot be purged without being deleted first"
        return Registration(version, await self._library.schema(version.schema_id), created=False)


def _existing(basis: Basis) -> int | None:
    """Number of the live version that holds the content already."""
    if basis.schema_id is None:
        return None
    return next((head.number for head in basis.live if head.schema_id == basis.schema_id), None)


def _schema(candidate: Candidate, draft: Draft, schema_id: int, now: datetime) -> Schema:
    """The candidate as new content."""
    return Schema(
        id=schema_id,
        format=draft.format,
        text=candidate.parsed.text,
        references=candidate.references,
        identity=candidate.identity,
        semantic=candidate.semantic,
        create_time=now,
        dialect=candidate.parsed.dialect,
    )


def _decision(
    draft: Draft, candidate: Candidate, schema: Schema, basis: Basis, now: datetime, *, accepted: bool = False
) -> Decision:
    """The event that registers the candidate as the next version. Raises LimitExceeded."""
    if len(basis.live) >= VERSIONS_PER_SUBJECT_MAX:
        raise LimitExceeded(
            f"subject {draft.subject!r} has {len(basis.live)} live versions: delete some, or use another subject",
            metadata={"limit": "versions_per_subject", "maximum": VERSIONS_PER_SUBJECT_MAX},
        )
    version = Version(
        subject=draft.subject,
        number=basis.next_number,
        schema_id=schema.id,
        state=draft.state,
        description=draft.description,
        owner=draft.owner,
        tags=draft.tags,
        metadata=draft.metadata,
        create_time=now,
        update_time=now,
        activate_time=now if draft.state is State.ACTIVE else None,
    )
    return Decision(
        event=VersionRegistered(version, schema, candidate.references, accepted_undecided=accepted),
        words=version_words(version, candidate.parsed.annotations),
        uses_global=inherits(basis.own) and draft.state is State.ACTIVE,
    )
