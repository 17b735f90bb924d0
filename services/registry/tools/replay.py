"""Applies rows of the history to a database: afterwards its tables hold the same rows as where they were committed.

It goes through the statements of a commit (adapters/postgres_commit.py), many changes in one transaction, so a crash
leaves a whole number of changes and a repeat continues behind them. Nobody must serve the place meanwhile. Its fence
does not matter: a dump may have been taken while writes were fenced, and the fence stands again after each transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import BinaryIO

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.adapters import postgres_commit
from services.registry.adapters.postgres_store import require_next
from services.registry.adapters.workers import WorkerPool
from services.registry.domain.events import EpochStarted, VersionRegistered, VersionUpdated
from services.registry.domain.model import Schema
from services.registry.domain.search import version_words
from services.registry.ports import Proposal, Stale
from services.registry.tools.annotations import Annotations, Found
from services.registry.tools.apart import Apart
from services.registry.tools.place import PlaceConnection, answered, connect, refusal
from services.registry.tools.reading import WORK_SECONDS_MAX, PlaceStore, languages, library
from services.registry.tools.stored import NotAChange, StoredRow, rows
from services.registry.usecases.library import Library

BATCH_CHANGES = 200
PART_CHANGES = 50
"""Changes of a batch whose contents workers read while those after them come in."""
BATCH_BYTES = 8 << 20
PROGRESS_SECONDS = 1.0

_HEAD = b"SELECT epoch, position, floor, fenced FROM registry.head FOR UPDATE"
_SET_FENCED = b"UPDATE registry.head SET fenced = %(fenced)s"
_LINES = b"SELECT id, fork_position FROM registry.epochs ORDER BY id"
_STORED = b"""
SELECT position, epoch, time, actor, subject, kind, method, request_id, digest, payload_version, payload
FROM registry.changes WHERE position BETWEEN %(first)s AND %(last)s
"""
_REVISIONS = b"SELECT name, revision FROM registry.subjects WHERE name = ANY(%(names)s::text[])"
# An id may have been forgotten after its time and used again. The newer use is the one that counts.
_FORGET_REQUESTS = b"""
DELETE FROM registry.request_ids WHERE (actor, method, request_id) IN (
    SELECT * FROM unnest(%(actors)s::text[], %(methods)s::text[], %(ids)s::text[])
)
"""
# Outside the transaction's reach, as sequences are; it never falls.
RAISE_SEQUENCE = b"""
SELECT setval('registry.schema_ids', %(next)s, false) FROM registry.schema_ids
WHERE last_value + is_called::integer < %(next)s
"""
SCHEMA_ID_MAX = 2**31 - 1
_EXHAUST_SEQUENCE = b"SELECT setval('registry.schema_ids', %(last)s, true)"

_REFUSALS = ("22", "23")
"""SQLSTATE classes (data exception, integrity violation) of rows that cannot be what the history made."""

Key = tuple[str, str, str]


class CannotFollow(Exception):
    """A change does not follow what the place holds. Those before it are applied; nothing of it is."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where the place stands. applied: changes that this run wrote. unread: contents whose words were left out of the
    search, because this code does not accept their texts."""

    epoch: int
    position: int
    applied: int
    unread: int


@dataclass(slots=True)
class _Line:
    """The head while a batch is applied."""

    epoch: int
    position: int
    floor: int
    fenced: bool


async def replay(
    options: PostgresOptions,
    schema: str,
    source: BinaryIO,
    *,
    clock: Clock,
    ready: Callable[[], None],
    progress: Callable[[Replayed], None],
) -> Replayed:
    """Applies the changes that the source holds, in order, and says where the place stands then.

    Changes up to the head are passed over when they are the very rows that are there. Raises CannotFollow, NotAChange,
    errors.Internal for a payload of newer code, errors.DatabaseUnavailable. A repeat continues.
    ready: called once the database is reached, before the source is read. progress: told about every PROGRESS_SECONDS.
    """
    async with WorkerPool(seconds_max=WORK_SECONDS_MAX) as workers:
        run = _Run(options, schema, workers)
        try:
            await run.open()
            ready()
            batches = _Batches(rows(source), run.expect)
            told = clock.monotonic()
            while batch := await batches.next():
                await run.apply(batch)
                if clock.monotonic() - told >= PROGRESS_SECONDS:
                    told = clock.monotonic()
                    progress(run.replayed)
            return run.replayed
        finally:
            await run.close()


class _Batches:
    """The rows, BATCH_CHANGES at a time, fewer when they are large. What ends them is raised after them.

    expect: told of rows once they are read, PART_CHANGES at a time, while the rest of their batch is read.
    """

    def __init__(self, found: Iterator[StoredRow], expect: Callable[[Sequence[StoredRow]], None]) -> None:
        self._found = found
        self._expect = expect
        self._failure: Exception | None = None

    async def next(self) -> list[StoredRow]:
        """The next batch; an empty one at the end."""
        batch: list[StoredRow] = []
        room = BATCH_BYTES
        while len(batch) < BATCH_CHANGES and room > 0:
            # In a thread: the other end of the pipe may take its time.
            part = await asyncio.to_thread(self._part, room)
            if not part:
                break
            self._expect(part)
            batch += part
            room -= sum(len(row.payload.stored) for row in part)
        if not batch and self._failure is not None:
            raise self._failure
        return batch

    def _part(self, room: int) -> list[StoredRow]:
        """The next rows, until they fill the room."""
        part: list[StoredRow] = []
        try:
            for row in self._found:
                part.append(row)
                room -= len(row.payload.stored)
                if len(part) == PART_CHANGES or room <= 0:
                    break
        except (NotAChange, errors.Internal) as error:
            self._failure = error
        return part


class _Run:
    """One connection to the place, and what is known of it."""

    def __init__(self, options: PostgresOptions, schema: str, workers: WorkerPool) -> None:
        self._options = options
        self._schema = schema
        self._workers = workers
        self._opened: tuple[PlaceConnection, PlaceStore, Library] | None = None
        self._annotations = Annotations(Apart(languages(), workers))
        self._unread: set[bytes] = set()
        self.replayed = Replayed(0, 0, 0, 0)

    async def open(self) -> None:
        """Connects and reads where the place stands."""
        connection = await connect(self._options, self._schema)
        store = PlaceStore(connection, frozen=False)
        self._opened = connection, store, library(store, self._workers)
        with answered():
            async with self._connection.transaction():
                self._stands(await self._head())

    async def close(self) -> None:
        """Ends the session and the workers' work, whatever they were doing."""
        await self._annotations.close()
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._opened is not None:
            await self._connection.close()

    @property
    def _connection(self) -> PlaceConnection:
        assert self._opened is not None, "opened before"
        return self._opened[0]

    @property
    def _reads(self) -> tuple[PlaceStore, Library]:
        assert self._opened is not None, "opened before"
        return self._opened[1:]

    def expect(self, found: Sequence[StoredRow]) -> None:
        """Has contents read that need nothing of the place, for rows that are to be applied soon."""
        self._annotations.begin(
            row.event.schema
            for row in found
            if row.position > self.replayed.position
            and isinstance(row.event, VersionRegistered)
            and not row.event.schema.references
        )

    async def apply(self, batch: Sequence[StoredRow]) -> None:
        """Applies the batch; when one of it cannot follow, those before it.

        Raises CannotFollow, errors.DatabaseUnavailable.
        """
        try:
            await self._together(batch)
            await self._annotations.settle()
        except CannotFollow:
            if len(batch) == 1:
                raise
            # Which one it was is not known of a batch, and those before it are to stay. The driver's memory of prepared
            # statements is wrong after a batch that failed, so this is another session.
            await self._disconnect()
            await self.open()
            for row in batch:
                await self._together([row])
            raise

    async def _together(self, batch: Sequence[StoredRow]) -> None:
        """Applies the batch in one transaction, or nothing of it."""
        try:
            async with self._connection.transaction():
                line = await self._head()
                new = await self._new(line, batch)
                if new:
                    await self._write(line, new)
        except psycopg.Error as error:
            raise _refusal(batch[0].position, error) from error
        self._stands(line, applied=len(new))

    async def _head(self) -> _Line:
        found = await (await self._connection.execute(_HEAD)).fetchone()
        assert found is not None, "the head has one row for ever"
        return _Line(*found)

    def _stands(self, line: _Line, *, applied: int = 0) -> None:
        self.replayed = Replayed(line.epoch, line.position, self.replayed.applied + applied, len(self._unread))

    async def _new(self, line: _Line, batch: Sequence[StoredRow]) -> list[StoredRow]:
        """What comes after the head. Raises CannotFollow when what comes before is not what is there."""
        known = [row for row in batch if row.position <= line.position]
        if known:
            await self._require_same(line, known)
        return [row for row in batch if row.position > line.position]

    async def _require_same(self, line: _Line, known: Sequence[StoredRow]) -> None:
        bounds = {"first": known[0].position, "last": known[-1].position}
        stored = {
            row[0]: row for row in await (await self._connection.execute(_STORED, bounds, binary=True)).fetchall()
        }
        lines = await (await self._connection.execute(_LINES)).fetchall()
        for row in known:
            if row.position <= line.floor:
                # The row is no longer kept; the line it was on still is.
                same = row.epoch == max(epoch for epoch, fork in lines if fork < row.position or epoch == lines[0][0])
            else:
                same = stored.get(row.position) == _columns(row)
            if not same:
                raise CannotFollow(
                    row.position, f"the place holds another change at position {row.position} than the one given"
                )

    async def _write(self, line: _Line, new: Sequence[StoredRow]) -> None:
        if line.fenced:
            await self._connection.execute(_SET_FENCED, {"fenced": False})
        names = list({row.subject for row in new if row.subject})
        found = await (await self._connection.execute(_REVISIONS, {"names": names})).fetchall()
        revisions: dict[str, int] = dict(found)
        await self._forget([_key(row) for row in new])
        # One alone is sent without a pipeline, which would hide the reason of a refusal behind what comes after it.
        async with self._connection.pipeline() if len(new) > 1 else nullcontext():
            seen: set[Key] = set()
            for row in new:
                _require_next(line, row)
                key = _key(row)
                if key in seen:
                    await self._forget([key])
                if key is not None:
                    seen.add(key)
                await self._commit(line, row, revisions)
        highest = max((row.event.schema.id for row in new if isinstance(row.event, VersionRegistered)), default=0)
        await raise_sequence(self._connection, highest + 1)
        if line.fenced:
            await self._connection.execute(_SET_FENCED, {"fenced": True})

    async def _forget(self, keys: Sequence[Key | None]) -> None:
        """Forgets earlier uses of request ids."""
        given = [key for key in keys if key is not None]
        if given:
            actors, methods, ids = map(list, zip(*given, strict=True))
            await self._connection.execute(_FORGET_REQUESTS, {"actors": actors, "methods": methods, "ids": ids})

    async def _commit(self, line: _Line, row: StoredRow, revisions: dict[str, int]) -> None:
        """Sends the statements of the change's commit."""
        event = row.event
        proposal = Proposal(
            event=event,
            epoch=line.epoch,
            revision=revisions.get(row.subject, 0),
            global_revision=None,
            actor=row.actor,
            time=row.time,
            words=await self._words(row),
            request=row.request,
        )
        try:
            require_next(proposal)
        except Stale as error:
            raise CannotFollow(row.position, str(error)) from None
        for statement, parameters in postgres_commit.statements(proposal, row.payload):
            await self._connection.execute(statement.encode(), parameters, prepare=True)
        if row.subject:
            revisions[row.subject] = proposal.revision + 1
        line.epoch, line.position = row.epoch, row.position

    async def _words(self, row: StoredRow) -> tuple[str, ...]:
        """What a search finds the version by; without the content's own words when it cannot be read."""
        store, _ = self._reads
        event = row.event
        if isinstance(event, VersionRegistered):
            schema = event.schema
            if event.references:
                store.planned = {schema.id: await store.leads_to(event.references)}
        elif isinstance(event, VersionUpdated):
            store.planned = {}
            found = (await store.schemas([event.version.schema_id])).get(event.version.schema_id)
            if found is None:
                raise CannotFollow(row.position, f"the place has no content {event.version.schema_id}")
            schema = found
        else:
            return ()
        annotations = await self._read(schema)
        if annotations is None:
            # A restore must not fail on what is only searched by; `check` names the content.
            self._unread.add(schema.identity)
        return version_words(event.version, annotations or ())

    async def _read(self, schema: Schema) -> Found:
        """The content's titles and descriptions; None when it cannot be read."""
        if not schema.references:
            return await self._annotations.of(schema)
        _, reader = self._reads
        try:
            return (await reader.parsed(schema)).annotations
        except errors.Error:
            return None


def _require_next(line: _Line, row: StoredRow) -> None:
    """Raises CannotFollow unless the row is the next one of the line."""
    event = row.event
    if row.position != line.position + 1:
        raise CannotFollow(row.position, f"position {row.position} does not follow position {line.position}")
    if isinstance(event, EpochStarted):
        follows = (event.epoch, event.parent, event.fork_position) == (row.epoch, line.epoch, line.position)
    else:
        follows = row.epoch == line.epoch
    if not follows:
        raise CannotFollow(
            row.position, f"the change of epoch {row.epoch} does not follow {line.epoch}/{line.position}"
        )


async def raise_sequence(connection: PlaceConnection, next_id: int) -> None:
    """Lets the sequence give nothing below an id. It never falls."""
    if next_id > SCHEMA_ID_MAX:
        await connection.execute(_EXHAUST_SEQUENCE, {"last": SCHEMA_ID_MAX})
    else:
        await connection.execute(RAISE_SEQUENCE, {"next": next_id})


def _key(row: StoredRow) -> Key | None:
    return (row.actor, row.request.method, row.request.id) if row.request else None


def _columns(row: StoredRow) -> tuple[object, ...]:
    """The row as _STORED returns it."""
    request = (row.request.method, row.request.id, row.request.digest) if row.request else (None, None, None)
    first = (row.position, row.epoch, row.time, row.actor, row.subject, row.kind)
    return (*first, *request, row.payload.version, row.payload.stored)


def _refusal(position: int, error: psycopg.Error) -> Exception:
    """A change that PostgreSQL refused to follow what is there; else the error in our words."""
    state = error.sqlstate or ""
    aborted = isinstance(error, psycopg.errors.PipelineAborted)
    if aborted or state == postgres_commit.REFUSED or state.startswith(_REFUSALS):
        return CannotFollow(position, f"what the change says does not fit what the place holds at position {position}")
    return refusal(error)
