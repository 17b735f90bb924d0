"""Reads a whole registry's database in one snapshot and says what is wrong with it. Writes nothing.

Contents and history are read side by side, on two connections that share the snapshot. Memory is bounded by a batch of
changes, one of contents, and those of contents that are in work (BATCHES_AT_ONCE, BYTES_AT_ONCE), whatever the size of
the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from psycopg import IsolationLevel, sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.adapters.settings_json import from_json
from services.registry.adapters.workers import WorkerPool
from services.registry.domain.events import EpochStarted, SettingsChanged
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.model import Format, Reference, Schema, Settings
from services.registry.tools.apart import Apart, Content, mismatch, problems, unreadable
from services.registry.tools.check_tables import QUESTIONS, exceptions
from services.registry.tools.place import PlaceConnection, Row, answered, connect
from services.registry.tools.reading import WORK_SECONDS_MAX, PlaceStore, languages, library
from services.registry.tools.stored import NotAChange, event

T = TypeVar("T")

PROBLEMS_MAX = 100
BATCH_ROWS = 100
BATCHES_AT_ONCE = 4
"""Batches of contents that are in work at the same time, for the workers' sake."""
BYTES_AT_ONCE = 32 << 20
"""Characters of contents in work beyond which no further batch joins them."""

_FORMATS = frozenset(Format)

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
_TEXT = 2
"""Where a row of contents has its text."""
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
    async with WorkerPool(seconds_max=WORK_SECONDS_MAX) as workers:
        with answered():
            async with _snapshot(options, schema) as (first, second):
                history = _History(first, _Findings())
                contents = _Contents(second, workers, _Findings())
                changes, schemas = await _both(history, contents)
    found = (*history.findings.problems, *contents.findings.problems)
    return Checked(schemas, changes, found[:PROBLEMS_MAX])


@asynccontextmanager
async def _snapshot(options: PostgresOptions, schema: str) -> AsyncIterator[tuple[PlaceConnection, PlaceConnection]]:
    """Two connections in transactions that see the same, and write nothing."""
    async with await connect(options, schema) as first, await connect(options, schema) as second:
        for connection in (first, second):
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
        async with first.transaction(), second.transaction():
            found = await (await first.execute(b"SELECT pg_export_snapshot()")).fetchone()
            assert found is not None, "a function returns a row"
            await second.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(found[0])))
            yield first, second


async def _both(history: _History, contents: _Contents) -> tuple[int, int]:
    """How many changes and contents were read. When one fails, the other ends first."""
    tasks = [asyncio.create_task(history.check()), asyncio.create_task(contents.check())]
    try:
        changes, schemas = await asyncio.gather(*tasks)
    finally:
        await _ended(tasks)
    return changes, schemas


async def _ended(tasks: Sequence[asyncio.Task[T]]) -> None:
    """Cancels tasks and waits for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _streamed(connection: PlaceConnection, name: str, statement: bytes) -> AsyncIterator[Sequence[Row]]:
    """The statement's rows, BATCH_ROWS at a time."""
    async with connection.cursor(name, binary=True) as cursor:
        await cursor.execute(connection.placed(statement))
        while found := await cursor.fetchmany(BATCH_ROWS):
            yield found


class _Contents:
    """Reads every content again."""

    def __init__(self, connection: PlaceConnection, workers: WorkerPool, findings: _Findings) -> None:
        self.findings = findings
        self._connection = connection
        self._store = PlaceStore(connection, frozen=True)
        self._library = library(self._store, workers)
        self._apart = Apart(languages(), workers)
        self._in_work: deque[tuple[int, asyncio.Task[list[str]]]] = deque()

    async def check(self) -> int:
        """How many contents were read. Problems are noted in the order of ids."""
        count = 0
        try:
            async for found in _streamed(self._connection, "contents", _CONTENTS):
                while self._is_full():
                    await self._note_first()
                size = sum(len(row[_TEXT]) for row in found)
                self._in_work.append((size, asyncio.create_task(self._problems(found))))
                count += len(found)
            while self._in_work:
                await self._note_first()
        finally:
            await _ended([task for _, task in self._in_work])
        return count

    def _is_full(self) -> bool:
        """Whether a batch must end before another one joins those in work."""
        return len(self._in_work) == BATCHES_AT_ONCE or sum(size for size, _ in self._in_work) > BYTES_AT_ONCE

    async def _note_first(self) -> None:
        _, task = self._in_work[0]
        for problem in await task:
            self.findings.add(problem)
        self._in_work.popleft()

    async def _problems(self, rows: Sequence[Row]) -> list[str]:
        """What is wrong with the contents of a batch, in its order."""
        found: dict[int, str | None] = {}
        alone: list[Content] = []
        for row in rows:
            content = _content(row)
            if isinstance(content, Content):
                alone.append(content)
            elif isinstance(content, Schema):
                found[content.id] = await self._problem(content)
            else:
                found[row[0]] = content
        for content, problem in zip(alone, await self._apart.run(problems, alone), strict=True):
            found[content.id] = (
                unreadable(content.id, problem) if isinstance(problem, errors.LimitExceeded) else problem
            )
        return [problem for _, problem in sorted(found.items()) if problem is not None]

    async def _problem(self, schema: Schema) -> str | None:
        """What is wrong with a content that has references."""
        try:
            parsed = await self._library.parsed(schema)
            ids = await self._store.targets(schema.id)
            found = await self._store.schemas(set(ids.values()))
            targets = {name: found[schema_id] for name, schema_id in ids.items()}
        except errors.Error as error:
            return unreadable(schema.id, error)
        identities = {name: target.identity for name, target in targets.items()}
        semantics = {name: target.semantic for name, target in targets.items()}
        identity = fingerprint(schema.format, parsed.identity_body, identities)
        semantic = fingerprint(schema.format, parsed.semantic_body, semantics)
        return mismatch(schema.id, (schema.identity, schema.semantic), (identity, semantic))


def _content(row: Row) -> Content | Schema | str:
    """The content, a Schema when it has references; what is wrong with its row when it is none."""
    schema_id, form, text, identity, semantic, create_time, dialect, *references = row
    if form not in _FORMATS:
        return f"content {schema_id} has format {form}, which this version of the registry does not know"
    if references[0] is None:
        return Content(schema_id, Format(form), text, dialect, identity, semantic)
    listed = tuple(Reference(*each) for each in zip(*references, strict=True))
    return Schema(schema_id, Format(form), text, listed, identity, semantic, create_time, dialect)


class _History:
    """Reads every change, and asks the tables."""

    def __init__(self, connection: PlaceConnection, findings: _Findings) -> None:
        self.findings = findings
        self._connection = connection

    async def check(self) -> int:
        """How many changes were read."""
        head = await (await self._connection.execute(_HEAD, binary=True)).fetchone()
        if head is None:
            self.findings.add("the head's row is missing: the history cannot be checked")
            return 0
        epoch, position, floor, general = head
        lines = await (await self._connection.execute(_LINES)).fetchall()
        self._chain(epoch, lines)
        reader = _Reader(floor, sorted((fork, line) for line, _, fork in lines), self.findings)
        count = 0
        async for found in _streamed(self._connection, "changes", _CHANGES):
            for row in found:
                reader.read(row)
            count += len(found)
        if reader.position != position:
            self.findings.add(f"the head stands at position {position}, the history ends at {reader.position}")
        if reader.general is not None and reader.general != from_json(general):
            self.findings.add("the head's global settings are not those that the history ends with")
        for question in QUESTIONS:
            if self.findings.room > 0 and (floor == 0 or not question.whole):
                for problem in await exceptions(self._connection, question, self.findings.room):
                    self.findings.add(problem)
        return count

    def _chain(self, epoch: int, lines: Sequence[Row]) -> None:
        """Every epoch but the first comes from the one before it: a place knows only those of its own history."""
        before = None
        for line, parent, _ in lines:
            if parent != before:
                self.findings.add(f"epoch {line} comes from {parent}, but the one before it here is {before}")
            before = line
        if before != epoch:
            self.findings.add(f"the head stands at epoch {epoch}, the last one that began is {before}")


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
