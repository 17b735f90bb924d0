"""Reads: contents, versions, subjects, references; pages bound to their question and capped in bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from llm_schema_registry.errors import InvalidField, ReferenceLimit, SchemaNotFound, VersionNotFound
from services.registry.domain.limits import (
    ANSWER_BYTES_MAX,
    DEPENDENTS_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    REFERENCE_DEPTH_MAX,
    SUBJECT_PAGE_SIZE_DEFAULT,
    SUBJECT_PAGE_SIZE_MAX,
)
from services.registry.domain.model import Schema, Subject, Version
from services.registry.ports import Store, VersionFilter
from services.registry.usecases import paging
from services.registry.usecases.change_subject import subject_not_found
from services.registry.usecases.compatibility import version_not_found
from services.registry.usecases.library import Candidate, Library

T = TypeVar("T")

BATCH_READ_IDS = 16
SEMANTIC_MATCHES_MAX = 16
NUMBER_MAX = 2**31 - 1

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items in order. next_token: continues after them, empty on the last page."""

    items: Sequence[T]
    next_token: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Contents in the order of the request; ids that do not exist; ids that did not fit into the answer."""

    schemas: Sequence[Schema]
    missing_ids: Sequence[int]
    unprocessed_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """Which page of an answer. size: 0 for the default."""

    size: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which versions a lookup returns. subject: None for all. semantic: equal meaning is enough."""

    subject: str | None
    semantic: bool
    include_deleted: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """Which references to follow from a version. dependents: towards those that need it, else those it needs."""

    subject: str
    number: int
    dependents: bool
    transitive: bool


class Queries:
    """What can be asked. Nothing here writes."""

    def __init__(self, store: Store, library: Library) -> None:
        self._store = store
        self._library = library

    async def schema(self, schema_id: int) -> Schema:
        """A content by id. Raises SchemaNotFound."""
        return await self._library.schema(schema_id)

    async def schema_by_identity(self, identity: bytes) -> Schema:
        """A content by identity fingerprint. Raises SchemaNotFound."""
        found = await self._store.schema_by_identity(identity)
        if found is None:
            raise _no_content()
        return found

    async def batch(self, ids: Sequence[int]) -> Batch:
        """Contents by id, each once, as many as fit into ANSWER_BYTES_MAX (always at least one).

        Reads a few at a time, so that an answer that is full costs no more memory than two.
        """
        wanted = list(dict.fromkeys(ids))
        schemas: list[Schema] = []
        missing: list[int] = []
        size = 0
        for start in range(0, len(wanted), BATCH_READ_IDS):
            found = await self._library.schemas(wanted[start : start + BATCH_READ_IDS])
            for offset, schema_id in enumerate(wanted[start : start + BATCH_READ_IDS], start):
                if schema_id not in found:
                    missing.append(schema_id)
                    continue
                size += len(found[schema_id].text.encode("utf-8"))
                if schemas and size > ANSWER_BYTES_MAX:
                    return Batch(schemas, missing, wanted[offset:])
                schemas.append(found[schema_id])
        return Batch(schemas, missing, ())

    async def lookup(self, candidate: Candidate, which: Lookup, ask: Ask) -> tuple[Schema, Page[Version]]:
        """The content equal to a candidate, and a page of the versions that hold equal content.

        With a subject, content that the subject does not hold counts as not found. Raises SchemaNotFound.
        """
        if which.semantic:
            schemas = list(await self._store.schemas_by_semantic(candidate.semantic, SEMANTIC_MATCHES_MAX))
        else:
            found = await self._store.schema_by_identity(candidate.identity)
            schemas = [found] if found else []
        versions = VersionFilter(
            subject=which.subject,
            include_deleted=which.include_deleted,
            schema_ids=tuple(schema.id for schema in schemas),
        )
        page = await self._page(versions, ask)
        if which.subject is not None:
            held = {version.schema_id for version in page.items}
            schemas = [schema for schema in schemas if schema.id in held or ask.token]
        if not schemas:
            raise _no_content()
        return schemas[0], page

    async def version(self, subject: str, number: int | None, *, include_deleted: bool) -> tuple[Version, Schema]:
        """A version by number, or with None the latest, and its content.

        Raises SubjectNotFound when the subject has no version to look among, else VersionNotFound.
        """
        if number is None:
            found = await self._store.latest(subject)
        else:
            found = await self._store.version(subject, number)
        if found is not None and (found.live or include_deleted):
            return found, await self._library.schema(found.schema_id)
        await self.subject(subject, include_deleted=include_deleted)
        if number is not None:
            raise version_not_found(subject, number)
        raise VersionNotFound(f"subject {subject!r} has no ACTIVE version", metadata={"subject": subject})

    async def versions(self, which: VersionFilter, ask: Ask) -> Page[Version]:
        """A page of versions by subject and number. Raises SubjectNotFound when `which` names one that is not there."""
        if which.subject is not None:
            await self.subject(which.subject, include_deleted=which.include_deleted)
        return await self._page(which, ask)

    async def _page(self, which: VersionFilter, ask: Ask) -> Page[Version]:
        question = ["versions", repr(which)]
        after = _key(paging.read(ask.token, question))
        size = paging.size(ask.size, default=PAGE_SIZE_DEFAULT, most=PAGE_SIZE_MAX)
        found = await self._store.versions(which, after=after, limit=size + 1)
        return _page(found, size, question)

    async def subject(self, name: str, *, include_deleted: bool) -> Subject:
        """A subject. Raises SubjectNotFound, also for a name that has settings only."""
        found = await self._store.subject(name)
        if found is None or (found.version_count == 0 and not (include_deleted and found.delete_time)):
            raise subject_not_found(name)
        return found

    async def subjects(self, prefix: str, ask: Ask, *, include_deleted: bool) -> Page[Subject]:
        """A page of subjects by name."""
        question = ["subjects", prefix, include_deleted]
        after = paging.read(ask.token, question)
        if not (after is None or isinstance(after, str)):
            raise _bad_token()
        size = paging.size(ask.size, default=SUBJECT_PAGE_SIZE_DEFAULT, most=SUBJECT_PAGE_SIZE_MAX)
        found = await self._store.subjects(prefix=prefix, include_deleted=include_deleted, after=after, limit=size + 1)
        items = found[:size]
        more = len(found) > size
        return Page(items, paging.token(items[-1].name, question) if more else "")

    async def references(self, walk: Walk, ask: Ask) -> Page[Version]:
        """A page of the live versions that a version needs, or that need it, by subject and number.

        Without a number the walk begins at the latest version, and its later pages at the same one.

        Raises SubjectNotFound, VersionNotFound, ReferenceLimit.
        """
        question = ["references", walk.subject, walk.number, walk.dependents, walk.transitive]
        number, after = _walked(paging.read(ask.token, question))
        size = paging.size(ask.size, default=PAGE_SIZE_DEFAULT, most=PAGE_SIZE_MAX)
        start, _ = await self.version(walk.subject, number or walk.number or None, include_deleted=False)
        reached = await self._reached(replace(walk, number=start.number))
        keys = sorted(key for key in reached if after is None or key > after)
        # A version that was deleted since its key was read is left out; the page ends behind it all the same.
        found = [version for version in await self._store.versions_by_key(keys[:size]) if version.live]
        items = fit(found, version_bytes)
        if len(items) < len(found):
            last = (items[-1].subject, items[-1].number)
        elif len(keys) > size:
            last = keys[size - 1]
        else:
            return Page(items, "")
        return Page(items, paging.token([start.number, *last], question))

    async def _reached(self, walk: Walk) -> set[Key]:
        """Keys that the walk reaches, its start left out. Raises ReferenceLimit."""
        start = (walk.subject, walk.number)
        seen = {start}
        frontier: Collection[Key] = {start}
        for _ in range(REFERENCE_DEPTH_MAX + 1 if walk.transitive else 1):
            frontier = set(await self._next(frontier, dependents=walk.dependents)) - seen
            seen |= set(frontier)
            if len(seen) > DEPENDENTS_MAX:
                raise ReferenceLimit(
                    f"more than {DEPENDENTS_MAX} versions are connected by references: ask without `transitive`",
                    metadata={"maximum": DEPENDENTS_MAX},
                )
            if not frontier:
                break
        return seen - {start}

    async def _next(self, frontier: Collection[Key], *, dependents: bool) -> Collection[Key]:
        if not dependents:
            return await self._store.dependencies(frontier)
        return await self._store.dependents(frontier, include_deleted=False, limit=DEPENDENTS_MAX + 1)


def fit(items: Sequence[T], size: Callable[[T], int]) -> Sequence[T]:
    """The first items that fit into ANSWER_BYTES_MAX together; always at least one."""
    total = 0
    for index, item in enumerate(items):
        total += size(item)
        if total > ANSWER_BYTES_MAX and index > 0:
            return items[:index]
    return items


def version_bytes(version: Version) -> int:
    """About how large a version is in an answer."""
    texts = (version.subject, version.description, version.owner, *version.tags)
    pairs = (part for pair in version.metadata.items() for part in pair)
    return 128 + sum(4 + len(text.encode("utf-8")) for text in (*texts, *pairs))


def _page(found: Sequence[Version], size: int, question: object) -> Page[Version]:
    """A page of at most `size` versions, as many as fit; `found` holds one more when there are more."""
    items = fit(found[:size], version_bytes)
    if len(items) == len(found):
        return Page(items, "")
    return Page(items, paging.token([items[-1].subject, items[-1].number], question))


def _key(value: object) -> Key | None:
    """The (subject, number) that a token holds."""
    match value:
        case None:
            return None
        case [str(subject), int(number)] if 0 < number <= NUMBER_MAX:
            return subject, number
    raise _bad_token()


def _walked(value: object) -> tuple[int | None, Key | None]:
    """The number of the version that a walk began at, and the key that it came to."""
    match value:
        case None:
            return None, None
        case [int(number), *key] if 0 < number <= NUMBER_MAX:
            return number, _key(key)
    raise _bad_token()


def _bad_token() -> InvalidField:
    return InvalidField.of("page_token", "must be the next_page_token of an earlier answer")


def _no_content() -> SchemaNotFound:
    return SchemaNotFound("no schema has this content")
