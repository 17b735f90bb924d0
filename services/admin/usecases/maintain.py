"""Keeps the registry's database in order: one table or index after the other, and nothing that production waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged, ObjectNotFound, ObjectStore, ObjectTooLarge
from llm_schema_registry.operations.forgetting import forget_old
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import Operations, Request, Running
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.maintenance import Maintained, MaintenanceRecord, Verb, from_document, to_document
from services.admin.ports import Database, MaintenanceSession
from services.admin.usecases.office import Office

SUBJECT = "maintenance"
FOLDER = "maintenance/"
SWEEP_SECONDS = 15.0
"""For dropping what a rebuild that was cancelled left; the next run does it otherwise."""
KINDS = {
    Verb.VACUUM: OperationKind.VACUUM,
    Verb.ANALYZE: OperationKind.ANALYZE,
    Verb.REINDEX: OperationKind.REINDEX,
}


class Maintain:
    """Vacuum, analyze and reindex as operations, and their records."""

    def __init__(
        self, database: Database, operations: Operations, office: Office, store: ObjectStore, clock: Clock
    ) -> None:
        self._database = database
        self._operations = operations
        self._office = office
        self._store = store
        self._clock = clock

    async def begin(self, verb: Verb, tables: Sequence[str], *, actor: str, request: Request) -> Operation:
        """Begins to work on tables that there are, and returns the operation.

        Raises errors.OperationRunning while another operation changes the system, errors.DatabaseUnfit when the role
        may not, errors.DatabaseUnavailable.
        """
        # A repeat is answered with what it began, which may be what holds the office.
        if await self._operations.find(KINDS[verb], request.id) is None:
            await self._office.require_free()
        await self._database.require_rights(tables)
        return await self._operations.begin(
            KINDS[verb], partial(self._work, verb, tables), actor=actor, request=request, subject=Subject(SUBJECT)
        )

    async def record(self, operation: str) -> MaintenanceRecord:
        """What an operation did so far. Raises errors.OperationNotFound, errors.BackupDamaged."""
        key = _key(operation)
        try:
            content, _ = await self._store.get(key)
            return from_document(json.loads(content))
        except ObjectNotFound:
            raise errors.OperationNotFound(f"there is no record of the operation {operation}") from None
        except (ObjectDamaged, ObjectTooLarge, ValueError, KeyError, TypeError):
            raise errors.BackupDamaged(
                f"{key}, the record of an operation, cannot be read", metadata={"key": key}
            ) from None

    async def forget_old(self) -> None:
        """Removes records whose operations are forgotten."""
        await forget_old(self._store, FOLDER)

    async def _work(self, verb: Verb, tables: Sequence[str], running: Running) -> Subject:
        name = running.operation.name
        record = MaintenanceRecord(verb)
        async with self._office.held(name):
            running.about(Subject(SUBJECT, name))
            await self._keep(name, record)
            try:
                async with self._database.session() as session:
                    record = await self._swept(session, record)
                    names = await self._database.indexes(tables) if verb is Verb.REINDEX else tables
                    for each in names:
                        record = await self._one(session, record, each, running)
                        await self._keep(name, record)
                    if record.left:
                        record = await self._swept(session, record)
                        await self._keep(name, record)
            except BaseException:
                if verb is Verb.REINDEX:
                    await self._sweep()
                raise
        return Subject(SUBJECT, name)

    async def _one(
        self, session: MaintenanceSession, record: MaintenanceRecord, name: str, running: Running
    ) -> MaintenanceRecord:
        """The record with one more table or index."""
        act = {Verb.VACUUM: session.vacuum, Verb.ANALYZE: session.analyze, Verb.REINDEX: session.reindex}[record.verb]
        async with running.step(f"{record.verb.value} {name}") as say:
            before = await session.size(name)
            if before is None:
                say("it is gone")
                return record
            began = self._clock.monotonic()
            problem = await act(name)
            seconds = self._clock.monotonic() - began
            if problem and record.verb is Verb.REINDEX:
                record = await self._swept(session, record)
            after = None if problem else await session.size(name)
            done = Maintained(name, record.verb is Verb.REINDEX, before, after, seconds, problem)
            say(told(done))
        return replace(record, objects=(*record.objects, done))

    async def _swept(self, session: MaintenanceSession, record: MaintenanceRecord) -> MaintenanceRecord:
        """The record with what was dropped of unfinished indexes, and what could not be."""
        dropped, left = await session.drop_leftovers()
        return replace(record, dropped=(*record.dropped, *dropped), left=tuple(left))

    async def _sweep(self) -> None:
        """Drops what a rebuild left that was cancelled, if the database lets us."""
        with suppress(errors.Error, TimeoutError):
            async with asyncio.timeout(SWEEP_SECONDS), self._database.session() as session:
                await session.drop_leftovers()

    async def _keep(self, name: str, record: MaintenanceRecord) -> None:
        await self._store.put(_key(name), json.dumps(to_document(record), indent=1).encode())


def told(done: Maintained) -> str:
    """What happened to a table or index, for a person."""
    if done.after is None:
        return f"passed over: {done.problem}"
    figures = f"{done.before.total_bytes:,} to {done.after.total_bytes:,} bytes"
    return figures if done.index else f"{figures}, {done.before.dead_rows:,} to {done.after.dead_rows:,} dead rows"


def _key(operation: str) -> str:
    return f"{FOLDER}{operation}.json"
