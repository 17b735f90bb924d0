"""Schemas, read and understood: references resolved, texts parsed, validators compiled, all kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from cachetools import LRUCache

from llm_schema_registry.errors import (
    InvalidField,
    LimitExceeded,
    ReferenceCycle,
    ReferenceLimit,
    ReferenceNotFound,
    SchemaNotFound,
    UnsupportedFormat,
)
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.formats import (
    DataRules,
    DataValidator,
    Difference,
    Parsed,
    Problem,
    SchemaFormat,
    Validation,
    work,
)
from services.registry.domain.limits import FINDINGS_MAX, REFERENCE_CLOSURE_MAX, REFERENCE_DEPTH_MAX
from services.registry.domain.model import Format, Reference, Schema
from services.registry.ports import Contents, Store, Workers

K = TypeVar("K")
T = TypeVar("T")

OFFLOAD_BYTES = 64 * 1024
"""Work on larger texts leaves this process, or at least the event loop."""

DIFF_BYTES_MAX = 8 * 1024
"""Comparisons of larger schemas, sources included, leave this process: their cost may grow with the product of the
sizes."""

UNBROKEN_BYTES_MAX = 256 * 1024
"""Payloads that are checked before others may work: about two milliseconds."""

PAYLOAD_BYTES = 512
"""What a payload counts for beside its bytes."""

GIVEN_UP_MAX = 3
"""Payloads of a batch whose checking may be given up before the batch is."""

PART_BYTES_MAX = 4 << 20
"""Payloads that a worker gets at a time."""

PARSED_BYTES_MAX = 64 << 20
VALIDATORS_BYTES_MAX = 32 << 20


@dataclass(frozen=True, slots=True)
class Closure:
    """What a schema's references lead to.

    sources: every text reached, by name. identities, semantics: fingerprints of the direct targets, by name.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, bytes] = field(default_factory=dict)
    semantics: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that its format accepts, with its fingerprints."""

    parsed: Parsed
    references: tuple[Reference, ...]
    identity: bytes
    semantic: bytes


class Library:
    """Reads through the store. What it keeps is immutable, so it is never wrong, and bounded by bytes of text.

    dialects: which version of a language a new text is in that names none itself; else the language's own default.
    """

    def __init__(
        self,
        store: Store,
        contents: Contents,
        formats: Mapping[Format, SchemaFormat],
        workers: Workers,
        dialects: Mapping[Format, str] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._dialects = dialects
        self._contents = contents
        self._workers = workers
        self._formats = formats
        self._parsed: LRUCache[bytes, Parsed] = LRUCache(PARSED_BYTES_MAX, _parsed_bytes)
        self._validators: LRUCache[tuple[bytes, DataRules], tuple[DataValidator, int]] = LRUCache(
            VALIDATORS_BYTES_MAX, lambda kept: kept[1]
        )

    def language(self, form: Format) -> SchemaFormat:
        """The format's implementation. Raises UnsupportedFormat."""
        language = self._formats.get(form)
        if language is None:
            known = ", ".join(sorted(known.name for known in self._formats))
            raise UnsupportedFormat(
                f"this server does not read {form.name} schemas: it reads {known}", metadata={"format": form.name}
            )
        return language

    async def candidate(
        self, form: Format, text: str, references: Sequence[Reference], *, subject: str = ""
    ) -> Candidate:
        """A text understood, for registering under `subject` (empty: under none).

        Raises UnsupportedFormat, InvalidSchema, ReferenceNotFound, ReferenceCycle, ReferenceLimit.
        """
        language = self.language(form)
        closure = await self._resolve(form, tuple(references), subject)
        parsed = await self._parse(language, text, closure.sources, self._dialects.get(form, ""))
        return Candidate(
            parsed=parsed,
            references=tuple(references),
            identity=fingerprint(form, parsed.identity_body, closure.identities),
            semantic=fingerprint(form, parsed.semantic_body, closure.semantics),
        )

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Stored contents by id. Unknown and purged ones are absent."""
        return await self._contents.schemas(ids)

    async def schema(self, schema_id: int) -> Schema:
        """A stored content. Raises SchemaNotFound."""
        found = (await self._contents.schemas((schema_id,))).get(schema_id)
        if found is None:
            raise SchemaNotFound(f"no schema has id {schema_id}", metadata={"schema_id": schema_id})
        return found

    async def parsed(self, schema: Schema) -> Parsed:
        """A stored content, understood."""
        kept = self._parsed.get(schema.identity)
        # The text too: comments of a Protobuf file are none of its identity, and after a purge they may be others.
        if kept is not None and kept.text == schema.text:
            return kept
        language = self.language(schema.format)
        sources = await self._stored_sources(schema)
        parsed = await self._parse(language, schema.text, sources, schema.dialect)
        _keep(self._parsed, schema.identity, parsed)
        return parsed

    async def check(self, schema: Schema, data: bytes, rules: DataRules) -> Validation:
        """Where data does not follow a stored content.

        Raises InvalidField when the data cannot be read or a rule does not fit the schema; LimitExceeded and Overloaded
        when checking it needs a worker.
        """
        parsed = await self.parsed(schema)
        if _needs_worker(parsed, len(data)):
            language = self.language(schema.format)
            return await self._workers.run(work.check, language, parsed, schema.identity, data, rules)
        return self._validator(schema, parsed, rules).check(data)

    async def check_all(self, schema: Schema, payloads: Sequence[bytes], rules: DataRules) -> list[Validation]:
        """For each payload where it does not follow a stored content; one that cannot be read has a problem too.

        Lets others work in between. Raises as `check` does.
        """
        parsed = await self.parsed(schema)
        if _needs_worker(parsed, max(map(len, payloads), default=0)):
            return await self._check_all_in_worker(schema, parsed, payloads, rules)
        validator = self._validator(schema, parsed, rules)
        found: list[Validation] = []
        unbroken = 0
        for payload in payloads:
            found.append(work.read_and_check(validator, payload))
            unbroken += len(payload) + PAYLOAD_BYTES
            if unbroken > UNBROKEN_BYTES_MAX:
                unbroken = 0
                await asyncio.sleep(0)
        return found

    async def _check_all_in_worker(
        self, schema: Schema, parsed: Parsed, payloads: Sequence[bytes], rules: DataRules
    ) -> list[Validation]:
        """A few payloads at a time, because a worker's time is limited; one by one where a part takes too long.

        A payload that alone takes too long has a problem that says so; after GIVEN_UP_MAX of them
        LimitExceeded is raised.
        """
        run = partial(self._workers.run, work.check_all, self.language(schema.format), parsed, schema.identity)
        found: list[Validation] = []
        given_up = 0
        for part in _parts(payloads):
            try:
                found += await run(part, rules)
                continue
            except LimitExceeded:
                pass
            for payload in part:
                try:
                    found += await run([payload], rules)
                except LimitExceeded as error:
                    given_up += 1
                    if given_up > GIVEN_UP_MAX:
                        raise
                    found.append(Validation((Problem("", "", "", error.message),)))
        return found

    def _validator(self, schema: Schema, parsed: Parsed, rules: DataRules) -> DataValidator:
        """The schema, compiled, from those that are kept."""
        key = (schema.identity, rules)
        kept = self._validators.get(key)
        if kept is None:
            kept = self.language(schema.format).validator(parsed, rules), _parsed_bytes(parsed)
            _keep(self._validators, key, kept)
        return kept[0]

    async def diff(self, pairs: Sequence[tuple[Parsed, Parsed]], rules: Rules) -> list[list[Finding]]:
        """For each pair of reader and writer, all of one format, what does harm; one more than FINDINGS_MAX at most.

        Raises LimitExceeded and Overloaded when a worker is needed.
        """
        language = self.language(pairs[0][0].format)
        size = sum(_whole_length(reader) + _whole_length(writer) for reader, writer in pairs)
        if size <= DIFF_BYTES_MAX and "diff" not in language.apart and rules.policy is not Policy.EXACT:
            return work.diff(language, pairs, rules, FINDINGS_MAX + 1)
        return await self._workers.run(work.diff, language, list(pairs), rules, FINDINGS_MAX + 1)

    async def differences(self, before: Parsed, after: Parsed) -> Sequence[Difference]:
        """See SchemaFormat.differences. Raises LimitExceeded and Overloaded when a worker is needed."""
        language = self.language(before.format)
        if _whole_length(before) + _whole_length(after) <= DIFF_BYTES_MAX and "diff" not in language.apart:
            return language.differences(before, after)
        return await self._workers.run(work.differences, language, before, after)

    async def _parse(self, language: SchemaFormat, text: str, sources: Mapping[str, str], dialect: str) -> Parsed:
        """A text understood: here when it is small, in a worker when it is large or may crash."""
        size = len(text) + sum(map(len, sources.values()))
        if size <= OFFLOAD_BYTES and "parse" not in language.apart:
            return language.parse(text, sources, dialect=dialect)
        return await self._workers.run(work.parse, language, text, dict(sources), dialect)

    async def _resolve(self, form: Format, references: tuple[Reference, ...], subject: str) -> Closure:
        """What a candidate's references lead to, now. Raises ReferenceNotFound, ReferenceCycle, ReferenceLimit."""
        if not references:
            return Closure()
        versions = await self._store.versions_by_key([(item.subject, item.version) for item in references])
        live = {(version.subject, version.number): version for version in versions if version.live}
        targets: dict[str, int] = {}
        for index, item in enumerate(references):
            version = live.get((item.subject, item.version))
            if version is None:
                raise ReferenceNotFound(
                    f"references[{index}]: subject {item.subject!r} has no live version {item.version}",
                    metadata={"name": item.name, "subject": item.subject, "version": item.version},
                )
            targets[item.name] = version.schema_id
        await self._require_acyclic(list(live), subject)
        schemas = await self._sources(form, targets)
        return Closure(
            sources={name: schema.text for name, schema in schemas.items()},
            identities={name: schemas[name].identity for name in targets},
            semantics={name: schemas[name].semantic for name in targets},
        )

    async def _require_acyclic(self, keys: Sequence[tuple[str, int]], subject: str) -> None:
        """Raises ReferenceCycle when the references lead back to `subject`, ReferenceLimit when they go too deep."""
        seen = set(keys)
        frontier = set(keys)
        for _ in range(REFERENCE_DEPTH_MAX):
            if any(name == subject for name, _ in frontier):
                raise ReferenceCycle(
                    f"the references of subject {subject!r} lead back to itself: a subject cannot depend on itself",
                    metadata={"subject": subject},
                )
            frontier = set(await self._store.dependencies(frontier)) - seen
            if not frontier:
                return
            seen |= frontier
            if len(seen) > REFERENCE_CLOSURE_MAX:
                raise _too_many()
        raise ReferenceLimit(
            f"references are nested deeper than {REFERENCE_DEPTH_MAX}", metadata={"depth_max": REFERENCE_DEPTH_MAX}
        )

    async def _stored_sources(self, schema: Schema) -> dict[str, str]:
        """Texts that a stored content's references lead to, by name."""
        if not schema.references:
            return {}
        targets = await self._store.targets(schema.id)
        return {name: found.text for name, found in (await self._sources(schema.format, targets)).items()}

    async def _sources(self, form: Format, targets: Mapping[str, int]) -> dict[str, Schema]:
        """Contents that names lead to, directly or through others. One name cannot stand for two contents."""
        found: dict[str, Schema] = {}
        frontier = dict(targets)
        while frontier:
            schemas = await self._contents.schemas(set(frontier.values()))
            following: dict[str, int] = {}
            for name, schema_id in frontier.items():
                found[name] = _usable(schemas.get(schema_id), form, name)
                if schemas[schema_id].references:
                    _merge(following, await self._store.targets(schema_id))
            frontier = {}
            for name, schema_id in following.items():
                if name not in found:
                    frontier[name] = schema_id
                elif found[name].id != schema_id:
                    raise _ambiguous(name)
            if len(found) + len(frontier) > REFERENCE_CLOSURE_MAX:
                raise _too_many()
        return found


def _needs_worker(parsed: Parsed, data_bytes: int) -> bool:
    """Whether checking data is done where it can be stopped."""
    return parsed.explosive or data_bytes > OFFLOAD_BYTES or _whole_length(parsed) > OFFLOAD_BYTES


def _parts(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Payloads in parts of at most PART_BYTES_MAX bytes, or of one."""
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        if part and size + len(payload) > PART_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(payload)
        size += len(payload) + PAYLOAD_BYTES
    if part:
        yield part


async def offload(size: int, work: Callable[[], T]) -> T:
    """Runs work on `size` characters: here when it is little, else in a thread."""
    return work() if size <= OFFLOAD_BYTES else await asyncio.to_thread(work)


def _whole_length(parsed: Parsed) -> int:
    """Characters of a schema and of all that it references."""
    return len(parsed.text) + sum(map(len, parsed.sources.values()))


def _parsed_bytes(parsed: Parsed) -> int:
    """What is counted for a parsed schema: six times its text, and its sources."""
    return 512 + 6 * len(parsed.text) + sum(len(source) for source in parsed.sources.values())


def _keep(cache: LRUCache[K, T], key: K, value: T) -> None:
    """Keeps a value unless it alone is larger than the cache."""
    if cache.getsizeof(value) <= cache.maxsize:
        cache[key] = value


def _usable(schema: Schema | None, form: Format, name: str) -> Schema:
    if schema is None:
        raise ReferenceNotFound(f"the content that reference {name!r} leads to is purged", metadata={"name": name})
    if schema.format is not form:
        raise InvalidField.of(
            "references", f"{name!r} leads to a {schema.format.name} schema; the schema itself is {form.name}"
        )
    return schema


def _merge(into: dict[str, int], targets: Mapping[str, int]) -> None:
    for name, schema_id in targets.items():
        if into.setdefault(name, schema_id) != schema_id:
            raise _ambiguous(name)


def _ambiguous(name: str) -> InvalidField:
    return InvalidField.of("references", f"{name!r} stands for two different schemas among all that is referenced")


def _too_many() -> ReferenceLimit:
    return ReferenceLimit(
        f"the references lead to more than {REFERENCE_CLOSURE_MAX} schemas",
        metadata={"closure_max": REFERENCE_CLOSURE_MAX},
    )
