"""The store in PostgreSQL. Reads are one statement in autocommit; so is nearly every commit (postgres_commit.py)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from llm_schema_registry.kernel.postgres import Connection, Postgres
from services.registry.adapters import postgres_commit, postgres_reads
from services.registry.adapters.gathering import Gathering
from services.registry.adapters.refusals import (
    NAMED_MAX,
    references_not_live,
    schema_ids_exhausted,
    still_referenced,
    writes_fenced,
)
from services.registry.domain.events import Change, EpochStarted, VersionRegistered, VersionsDeleted, VersionsPurged
from services.registry.domain.model import Schema, Subject, Version
from services.registry.ports import Basis, Head, Proposal, Stale, VersionFilter

RESERVED_IDS = 16
"""Schema ids that a process takes at once. Those it does not use are gaps."""

# Two processes may do this at once: each takes rows that the other has not locked.
_FORGET_REQUESTS = """
DELETE FROM registry.request_ids WHERE (actor, method, request_id) IN (
    SELECT actor, method, request_id FROM registry.request_ids
    WHERE time < %(before)s ORDER BY time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""

_SEQUENCE_EXHAUSTED = "2200H"
_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"


class PostgresStore:
    """Store in PostgreSQL, over a pool that someone else opens and closes."""

    def __init__(self, database: Postgres) -> None:
        self._database = database
        self._ids: deque[int] = deque()
        self._reserving = asyncio.Lock()
        self._bases: Gathering[tuple[str, bytes | None], Basis] = Gathering(self._read_bases)

    async def head(self) -> Head:
        """See Store."""
        return await self._database.read(postgres_reads.head)

    async def reserve_schema_id(self) -> int:
        """See Store."""
        while not self._ids:
            async with self._reserving:
                if not self._ids:
                    self._ids.extend(await self._reserve())
        return self._ids.popleft()

    async def _reserve(self) -> list[int]:
        async def take(connection: Connection) -> list[int]:
            try:
                return await postgres_reads.reserve(connection, RESERVED_IDS)
            except psycopg.Error as error:
                if error.sqlstate == _SEQUENCE_EXHAUSTED:
                    raise schema_ids_exhausted() from error
                raise

        return await self._database.read(take)

    async def basis(self, subject: str, identity: bytes | None = None) -> Basis:
        """See Store."""
        return await self._bases((subject, identity))

    async def _read_bases(self, asked: Sequence[tuple[str, bytes | None]]) -> Sequence[Basis]:
        return await self._database.read(lambda db: postgres_reads.bases(db, asked))

    async def commit(self, proposal: Proposal) -> Change:
        """See Store."""
        event = proposal.event
        require_next(proposal)
        statements = postgres_commit.statements(proposal)
        try:
            position = await self._database.transact(lambda db: _in_one_transaction(db, statements))
        except psycopg.Error as error:
            raise await self._refusal(proposal, error) from error
        epoch = event.epoch if isinstance(event, EpochStarted) else proposal.epoch
        return Change(epoch, position, proposal.time, proposal.actor, event, proposal.request)

    async def _refusal(self, proposal: Proposal, error: psycopg.Error) -> Exception:
        """What a commit that PostgreSQL refused raises; the error itself when it is a defect."""
        event, reason = proposal.event, error.diag.message_primary
        if error.sqlstate == _UNIQUE_VIOLATION:
            return Stale(f"someone was faster: {error.diag.constraint_name}")
        is_target = error.diag.constraint_name == postgres_commit.TARGET_CONSTRAINT
        if error.sqlstate == _FOREIGN_KEY_VIOLATION and is_target and isinstance(event, VersionsPurged):
            return await self._still_referenced(event, include_deleted=True)
        if error.sqlstate != postgres_commit.REFUSED:
            return error
        if reason == postgres_commit.STILL_REFERENCED and isinstance(event, VersionsDeleted):
            return await self._still_referenced(event, include_deleted=False)
        if (await self.head()).fenced:
            return writes_fenced()
        if isinstance(event, VersionRegistered) and event.references:
            return await self._references_not_live(event)
        return Stale("what it was decided on has moved")

    async def _references_not_live(self, event: VersionRegistered) -> Exception:
        """Names the references at fault, or Stale when there is none any more."""
        found = await self.versions_by_key([(reference.subject, reference.version) for reference in event.references])
        live = {(version.subject, version.number) for version in found if version.live}
        missing = [each for each in event.references if (each.subject, each.version) not in live]
        return references_not_live(missing) if missing else Stale("a reference was not live for a moment")

    async def _still_referenced(self, event: VersionsDeleted | VersionsPurged, *, include_deleted: bool) -> Exception:
        """Names the dependents, or Stale when there is none any more."""
        keys = [(event.subject, number) for number in event.versions]
        limit = len(keys) + NAMED_MAX + 1
        found = await self.dependents(keys, include_deleted=include_deleted, limit=limit)
        others = sorted(set(found) - set(keys))
        return still_referenced(event.subject, event.versions, others) if others else Stale("was still referenced")

    async def recorded(self, actor: str, method: str, request_id: str) -> Change | None:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.recorded(db, actor, method, request_id))

    async def forget_requests(self, before: datetime, limit: int) -> int:
        """See Store."""

        async def forget(connection: Connection) -> int:
            return (await connection.execute(_FORGET_REQUESTS, {"before": before, "limit": limit})).rowcount

        return await self._database.transact(forget)

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.schemas(db, ids))

    async def schema_by_identity(self, identity: bytes) -> Schema | None:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.schema_by_identity(db, identity))

    async def schemas_by_semantic(self, semantic: bytes, limit: int) -> Sequence[Schema]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.schemas_by_semantic(db, semantic, limit))

    async def targets(self, schema_id: int) -> Mapping[str, int]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.targets(db, schema_id))

    async def orphans(self, subject: str, numbers: Collection[int]) -> Sequence[int]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.orphans(db, subject, numbers))

    async def version(self, subject: str, number: int) -> Version | None:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.version(db, subject, number))

    async def latest(self, subject: str) -> Version | None:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.latest(db, subject))

    async def versions(self, which: VersionFilter, *, after: tuple[str, int] | None, limit: int) -> Sequence[Version]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.versions(db, which, after=after, limit=limit))

    async def versions_by_key(self, keys: Collection[tuple[str, int]]) -> Sequence[Version]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.versions_by_key(db, keys))

    async def subject(self, name: str) -> Subject | None:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.subject(db, name))

    async def subjects(self, *, prefix: str, include_deleted: bool, after: str | None, limit: int) -> Sequence[Subject]:
        """See Store."""
        return await self._database.read(
            lambda db: postgres_reads.subjects(
                db, prefix=prefix, include_deleted=include_deleted, after=after, limit=limit
            )
        )

    async def dependencies(self, keys: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """See Store."""
        return await self._database.read(lambda db: postgres_reads.dependencies(db, keys))

    async def dependents(
        self, keys: Collection[tuple[str, int]], *, include_deleted: bool, limit: int
    ) -> Collection[tuple[str, int]]:
        """See Store."""
        return await self._database.read(
            lambda db: postgres_reads.dependents(db, keys, include_deleted=include_deleted, limit=limit)
        )

    async def changes(self, *, after: int, limit: int, text_bytes_max: int) -> Sequence[Change]:
        """See Store."""
        return await self._database.read(
            lambda db: postgres_reads.changes(db, after=after, limit=limit, bytes_max=text_bytes_max)
        )


def require_next(proposal: Proposal) -> None:
    """Raises Stale for what no row of the database could refuse. Whoever runs a commit's statements asks this first."""
    event = proposal.event
    if isinstance(event, VersionRegistered) and not proposal.revision and event.version.number != 1:
        raise Stale("the first version of a name has number 1")
    if isinstance(event, EpochStarted) and not event.parent == proposal.epoch < event.epoch:
        raise Stale("an epoch begins after the present one")


async def _in_one_transaction(connection: Connection, statements: Sequence[postgres_commit.Step]) -> int:
    """Runs the statements as one transaction and returns the position, which the last one returns.

    Raises the error of the first statement that failed; nothing is written then.
    """
    if len(statements) > 1:
        return await _in_one_batch(connection, statements)
    ((statement, parameters),) = statements
    cursor = await connection.execute(statement.encode(), parameters, prepare=True)
    return await _position(cursor)


async def _in_one_batch(connection: Connection, statements: Sequence[postgres_commit.Step]) -> int:
    failed: psycopg.Error | None = None
    try:
        async with connection.pipeline():
            try:
                for statement, parameters in statements:
                    # Not prepared: the driver would believe so of what a batch that fails before its turn never did.
                    cursor = await connection.execute(statement.encode(), parameters, prepare=False)
            except psycopg.Error as error:
                # Leaving the block with the error would make the driver log a warning about those behind it.
                failed = error
    except psycopg.errors.PipelineAborted:
        if failed is None:
            raise
    if failed is not None:
        raise failed
    return await _position(cursor)


async def _position(cursor: psycopg.AsyncCursor[tuple[Any, ...]]) -> int:
    row = await cursor.fetchone()
    assert row is not None, "the last statement returns the position or fails"
    position: int = row[0]
    return position
