"""Reads a whole registry's database in one snapshot and says what is wrong with it. Writes nothing.

Memory is bounded by one batch of contents or changes, whatever the size of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from psycopg import IsolationLevel

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.adapters.settings_json import from_json
from services.registry.adapters.workers import WorkerPool
from services.registry.domain.events import EpochStarted, SettingsChanged
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.model import Format, Reference, Schema, Settings
from services.registry.tools.check_tables import QUESTIONS, exceptions
from services.registry.tools.place import PlaceConnection, Row, answered, connect
from services.registry.tools.reading import WORK_SECONDS_MAX, PlaceStore, library
from services.registry.tools.stored import NotAChange, event
from services.registry.usecases.library import Library

PROBLEMS_MAX = 100
BATCH_ROWS = 200
AT_ONCE = 4
"""Contents of a batch that are read at the same time, for the workers' sake."""

_CONTENTS = b"""
SELECT s.id, s.format, s.text, s.identity, s.semantic, s.create_time, s.dialect, r.names, r.subjects, r.versions
FROM registry.schemas AS s
LEFT JOIN LATERAL (
    SELECT
        array_agg(name ORDER BY ordinal) AS names,
        array_agg(subject ORDER BY ordinal) AS subjects,
        array_agg(version ORDER BY ordinal) AS versions
    FROM registry.schema_references WHERE schema_id = s.id
) AS r ON true
WHERE s.text IS NOT NULL ORDER BY s.id
"""
_CHANGES = b"""
SELECT position, epoch, subject, kind, payload_version, payload FROM registry.changes ORDER BY position
"""
_HEAD = b"SELECT epoch, position, floor, global_settings FROM registry.head"
_LINES = b"SELECT id, parent, fork_position FROM registry.epochs ORDER BY id"


@dataclass(frozen=True, slots=True)
class Checked:
    """schemas: contents whose fingerprints were made anew. changes: that were read. problems: at most PROBLEMS_MAX."""

    schemas: int
    changes: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)

    @property
    def room(self) -> int:
        return PROBLEMS_MAX - len(self.problems)

    def add(self, problem: str) -> None:
        if self.room > 0:
            self.problems.append(problem)


async def check(options: PostgresOptions, schema: str) -> Checked:
    """What is wrong with the place, as of one snapshot. Raises errors.DatabaseUnavailable when it cannot be read.

    Every live content is parsed and its fingerprints made anew; every change's payload is read; the tables are asked
    what check_tables.py says.
    """
    findings = _Findings()
    connection = await connect(options, schema)
    async with WorkerPool(seconds_max=WORK_SECONDS_MAX) as workers, connection:
        with answered():
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            async with connection.transaction():
                changes = await _History(connection, findings).check()
                store = PlaceStore(connection, frozen=True)
                contents = _Contents(store, library(store, workers), findings)
                schemas = await contents.check(connection)
    return Checked(schemas, changes, tuple(findings.problems))


async def _streamed(connection: PlaceConnection, name: str, statement: bytes) -> AsyncIterator[Sequence[Row]]:
    """The statement's rows, BATCH_ROWS at a time."""
    async with connection.cursor(name, binary=True) as cursor:
        await cursor.execute(connection.placed(statement))
        while found := await cursor.fetchmany(BATCH_ROWS):
            yield found


class _Contents:
    """Reads every content again."""

    def __init__(self, store: PlaceStore, reader: Library, findings: _Findings) -> None:
        self._store = store
        self._library = reader
        self._findings = findings
        self._places = asyncio.Semaphore(AT_ONCE)

    async def check(self, connection: PlaceConnection) -> int:
        """How many contents were read."""
        count = 0
        async for found in _streamed(connection, "contents", _CONTENTS):
            problems = await asyncio.gather(*(self._problem(_schema(row)) for row in found))
            for problem in filter(None, problems):
                self._findings.add(problem)
            count += len(found)
        return count

    async def _problem(self, schema: Schema | str) -> str | None:
        """What is wrong with a content."""
        if isinstance(schema, str):
            return schema
        async with self._places:
            try:
                parsed = await self._library.parsed(schema)
                targets = await self._targets(schema)
            except errors.Error as error:
                return f"content {schema.id} cannot be read again: {error.message}"
        identity = fingerprint(
            schema.format, parsed.identity_body, {name: target.identity for name, target in targets.items()}
        )
        semantic = fingerprint(
            schema.format, parsed.semantic_body, {name: target.semantic for name, target in targets.items()}
        )
        wrong = [
            name
            for name, stored, made in (
                ("identity", schema.identity, identity),
                ("semantic", schema.semantic, semantic),
            )
            if stored != made
        ]
        if wrong:
            return f"content {schema.id}: what is stored as its {' and '.join(wrong)} fingerprint is not its text's"
        return None

    async def _targets(self, schema: Schema) -> dict[str, Schema]:
        """What the content's references lead to, by name."""
        if not schema.references:
            return {}
        ids = await self._store.targets(schema.id)
        found = await self._store.schemas(set(ids.values()))
        return {name: found[schema_id] for name, schema_id in ids.items()}


def _schema(row: Row) -> Schema | str:
    """The content; what is wrong with its row when it is none."""
    schema_id, form, text, identity, semantic, create_time, dialect, *references = row
    if form not in set(Format):
        return f"content {schema_id} has format {form}, which this version of the registry does not know"
    named = zip(*references, strict=True) if references[0] is not None else ()
    listed = tuple(Reference(*each) for each in named)
    return Schema(schema_id, Format(form), text, listed, identity, semantic, create_time, dialect)


class _History:
    """Reads every change, and asks the tables."""

    def __init__(self, connection: PlaceConnection, findings: _Findings) -> None:
        self._connection = connection
        self._findings = findings

    async def check(self) -> int:
        """How many changes were read."""
        head = await (await self._connection.execute(_HEAD, binary=True)).fetchone()
        if head is None:
            self._findings.add("the head's row is missing: the history cannot be checked")
            return 0
        epoch, position, floor, general = head
        lines = await (await self._connection.execute(_LINES)).fetchall()
        self._chain(epoch, lines)
        reader = _Reader(floor, sorted((fork, line) for line, _, fork in lines), self._findings)
        count = 0
        async for found in _streamed(self._connection, "changes", _CHANGES):
            for row in found:
                reader.read(row)
            count += len(found)
        if reader.position != position:
            self._findings.add(f"the head stands at position {position}, the history ends at {reader.position}")
        if reader.general is not None and reader.general != from_json(general):
            self._findings.add("the head's global settings are not those that the history ends with")
        for question in QUESTIONS:
            if self._findings.room > 0 and (floor == 0 or not question.whole):
                for problem in await exceptions(self._connection, question, self._findings.room):
                    self._findings.add(problem)
        return count

    def _chain(self, epoch: int, lines: Sequence[Row]) -> None:
        """Every epoch but the first comes from the one before it: a place knows only those of its own history."""
        before = None
        for line, parent, _ in lines:
            if parent != before:
                self._findings.add(f"epoch {line} comes from {parent}, but the one before it here is {before}")
            before = line
        if before != epoch:
            self._findings.add(f"the head stands at epoch {epoch}, the last one that began is {before}")


class _Reader:
    """Follows the history. position: of the last change read. general: the global settings after it, None: unknown."""

    def __init__(self, floor: int, forks: Sequence[tuple[int, int]], findings: _Findings) -> None:
        self.position = floor
        self.general: Settings | None = Settings() if floor == 0 else None
        self._forks = forks
        self._findings = findings

    def read(self, row: Row) -> None:
        """Notes what is wrong with the next change."""
        position, epoch, subject, kind, payload_version, payload = row
        if position != self.position + 1:
            self._findings.add(f"position {position} follows position {self.position} in the history")
        self.position = position
        expected = max((line for fork, line in self._forks if fork < position), default=1)
        if epoch != expected:
            self._findings.add(f"position {position} is of epoch {epoch}, by the forks of epoch {expected}")
        try:
            found = event(payload_version, payload, kind, subject)
        except (errors.Internal, NotAChange) as error:
            said = error.message if isinstance(error, errors.Internal) else str(error)
            self._findings.add(f"position {position} cannot be read: {said}")
            return
        if isinstance(found, SettingsChanged) and not found.subject:
            self.general = found.settings
        begins = (position - 1, epoch) in self._forks and epoch != 1
        if isinstance(found, EpochStarted) != begins:
            self._findings.add(f"position {position} and the table of epochs disagree on where epoch {epoch} began")
