"""The live registry's database as the source of backups: one exported snapshot, and pg_dump in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psycopg import sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.migrate import lock_key
from llm_schema_registry.kernel.postgres import Connection, Postgres, PostgresOptions
from llm_schema_registry.operations.ports import Clock
from services.backup.adapters.change_reader import ChangeBell, read_changes, read_head
from services.backup.adapters.client_programs import Programs, find_programs, program_access
from services.backup.adapters.database_facts import SETTINGS, read_facts, server_encoding
from services.backup.adapters.dump_check import DumpCheck
from services.backup.adapters.dump_rows import DumpRows
from services.backup.adapters.pipes import PIECE_BYTES_MAX
from services.backup.adapters.postgres_session import open_session, translated
from services.backup.adapters.programs import Command, ProgramFailed, run_program
from services.backup.domain.model import DatabaseFacts, Head, StoredChange
from services.backup.domain.row_digest import RowDigest

SCHEMA = "registry"
STALL_SECONDS = 300.0
LOCK_WAIT_SECONDS = 30.0
POOL_MAX = 2
PIECE_BYTES = 256 * 1024
"""Of a dump, at least: pg_dump writes some kilobytes at a time, and each piece costs whoever handles it."""

# The whole database, which belongs to the registry alone: one schema of it would leave out the extensions it needs.
# Owners and grants stay in. Large objects are none of the registry's, and reading those of others takes a right more;
# publications and subscriptions are the installation's, and a restored subscription would pull from its old publisher.
_DUMP_OPTIONS = ("-Fc", "-Z0", "-B", "--no-publications", "--no-subscriptions", "--no-sync", "--no-password")

_TABLES = """
SELECT relname::text FROM pg_catalog.pg_class
JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE nspname = %s AND relkind = 'r'
ORDER BY relname COLLATE "C"
"""


log = logging.getLogger(__name__)


class PostgresSource:
    """Source over PostgreSQL: `async with PostgresSource(options, folders, clock) as source`.

    options: the database's own address, not that of a pooler. folders: bin folders to search for client programs first.
    stall_seconds: how long pg_dump may write nothing. lock_wait_seconds: how long a snapshot, and pg_dump, waits for a
    table that someone changes; behind it all other users of the table wait.
    """

    def __init__(
        self,
        options: PostgresOptions,
        folders: Sequence[Path],
        clock: Clock,
        *,
        stall_seconds: float = STALL_SECONDS,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        self._options = options
        self._folders = tuple(folders)
        self._stall_seconds = stall_seconds
        self._lock_wait_seconds = lock_wait_seconds
        # The pool starts no connection before the first question.
        self._database = Postgres(replace(options, pool_min=0, pool_max=POOL_MAX))
        self._bell = ChangeBell(options, clock)

    async def __aenter__(self) -> PostgresSource:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._bell.close()
        finally:
            await self._database.__aexit__()

    async def head(self) -> Head:
        """As Source.head; also raises errors.DatabaseUnfit when it holds no registry."""
        return await self._database.read(lambda connection: read_head(connection, SCHEMA))

    async def changes(self, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """As Source.changes; raises errors.DatabaseUnfit, naming it, for a gap."""

        async def read(connection: Connection) -> Sequence[StoredChange]:
            return await read_changes(connection, after, limit=limit, bytes_max=bytes_max, schema=SCHEMA)

        return await self._database.read(read)

    async def wait(self, timeout_seconds: float) -> None:
        """As Source.wait. One waiter at a time."""
        await self._bell.wait(timeout_seconds)

    async def check(self) -> None:
        """As Source.check."""
        await self._database.check()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        """As Source.snapshot. Leaving the block ends its session and every pg_dump that was begun in it.

        The registry's tables keep their form during the block: they are locked against changes of it (ACCESS SHARE),
        in the order of their names, before the snapshot is taken.
        """
        session = await open_session(self._options)
        try:
            version_num = session.info.server_version
            programs = await asyncio.to_thread(find_programs, version_num, self._folders)
            tables = await self._begin(session)
            token = await _export(session)
            # Before any dump: sequences tell the present, and a restored one must be at or above this.
            head = await read_head(session, SCHEMA)
            command = self._dump_command(session, programs, token)
            dumping = Dumping(programs.version, command, tables, self._stall_seconds)
            snapshot = PostgresSnapshot(session, head, dumping)
            try:
                yield snapshot
            finally:
                await snapshot.end()
        finally:
            await session.close()

    async def _begin(self, session: Connection) -> tuple[str, ...]:
        """Begins the transaction with the registry's tables locked, and returns their names.

        No migration runs meanwhile. Its lock is given back at once: the registry takes it at every start.
        """
        key = [lock_key(SCHEMA)]
        with translated():
            if not await _value(session, "SELECT pg_try_advisory_lock_shared(%s)", key):
                raise errors.DatabaseUnfit(
                    "the registry's tables are being migrated: the backup can be made when that is done",
                    retry_seconds=self._lock_wait_seconds,
                )
            cursor = await session.execute(_TABLES, [SCHEMA])
            tables = tuple(name for (name,) in await cursor.fetchall())
            if not tables:
                raise errors.DatabaseUnfit(
                    f"this database has no tables in schema {SCHEMA}: start the registry, which makes them"
                )
            await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await self._lock(session, tables)
            # The first question takes the snapshot, behind the locks.
            await session.execute("SELECT pg_advisory_unlock_shared(%s)", key)
        return tables

    async def _lock(self, session: Connection, tables: Sequence[str]) -> None:
        milliseconds = max(1, round(self._lock_wait_seconds * 1000))
        # As SET, not as a question, which would take the snapshot before the locks are there.
        await session.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(milliseconds)))
        names = sql.SQL(", ").join(sql.Identifier(SCHEMA, table) for table in tables)
        await session.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        await session.execute("SET LOCAL lock_timeout = 0")

    def _dump_command(self, session: Connection, programs: Programs, token: str) -> Command:
        info = session.info
        server = {"host": info.host, "port": str(info.port)}
        access = program_access(
            replace(self._options, application_name=f"{self._options.application_name} pg_dump"),
            info.server_version,
            server=server | ({"hostaddr": info.hostaddr} if info.hostaddr else {}),
        )
        lock_wait = f"--lock-wait-timeout={max(1, round(self._lock_wait_seconds * 1000))}"
        encoding = f"--encoding={server_encoding(session)}"
        arguments = (*_DUMP_OPTIONS, lock_wait, encoding, f"--snapshot={token}", f"--dbname={access.dbname}")
        # What pg_dump does not set by itself of what a value's text depends on.
        same = " ".join(f"-c {name}={SETTINGS[name]}" for name in ("TimeZone", "bytea_output"))
        environment = {**access.environment, "PGOPTIONS": f"{access.environment.get('PGOPTIONS', '')} {same}".strip()}
        return Command((str(programs.pg_dump), *arguments), environment, access.secrets)


@dataclass(frozen=True, slots=True)
class Dumping:
    """How a snapshot is dumped. version: of pg_dump. tables: those of the registry."""

    version: str
    command: Command
    tables: tuple[str, ...]
    stall_seconds: float


class PostgresSnapshot:
    """Snapshot over a session that holds it. Facts and a dump may be read at the same time.

    head: as it was before any dump.
    """

    def __init__(self, session: Connection, head: Head, dumping: Dumping) -> None:
        self._session = session
        self._head = head
        self._dumping = dumping
        self._turn = asyncio.Lock()
        self._dumps: list[AsyncGenerator[bytes, None]] = []
        self._dumped: Mapping[str, RowDigest] | None = None
        self._dumped_rows = 0

    @property
    def dumped_rows(self) -> int:
        """As Snapshot.dumped_rows."""
        return self._dumped_rows

    @property
    def dump_version(self) -> str:
        """As Snapshot.dump_version."""
        return self._dumping.version

    async def facts(self) -> DatabaseFacts:
        """As Snapshot.facts. One that was broken off has ended the snapshot.

        The digests of tables are those of the dump's rows, once a dump was read to its end; else the tables are read.
        """
        async with self._turn:
            facts = await read_facts(self._session, SCHEMA, self._dumped)
        return replace(facts, head=self._head)

    def dump(self) -> AsyncGenerator[bytes, None]:
        """As Snapshot.dump."""
        dump = self._dump()
        self._dumps.append(dump)
        return dump

    async def _dump(self) -> AsyncGenerator[bytes, None]:
        check, rows = DumpCheck(self._dumping.tables), DumpRows(SCHEMA)
        pieces = run_program(self._dumping.command, stall_seconds=self._dumping.stall_seconds)
        try:
            async for piece in _gathered(pieces):
                check.add(piece)
                await asyncio.to_thread(rows.add, piece)
                self._dumped_rows = rows.count
                yield piece
        except ProgramFailed as failure:
            raise errors.BackupFailed(f"the database was not dumped: {failure}") from None
        finally:
            await pieces.aclose()
        check.finish()
        self._dumped = rows.tables()
        if self._dumped is None:
            log.warning("the dump's rows could not be told, so the tables are read a second time: %s", rows.unread)
        await self._check_session()

    async def _check_session(self) -> None:
        """Raises errors.BackupFailed unless the snapshot is still held: nobody knows then what else was not kept."""
        async with self._turn:
            try:
                with translated():
                    await self._session.execute("SELECT 1")
            except (errors.DatabaseUnavailable, errors.DatabaseUnfit):
                raise errors.BackupFailed(
                    "the database session that held the snapshot ended while pg_dump ran: make the backup anew"
                ) from None

    async def end(self) -> None:
        """Ends the dumps."""
        for dump in self._dumps:
            await dump.aclose()


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The bytes in pieces of PIECE_BYTES at least, but for the last, and PIECE_BYTES_MAX at most, as they come."""
    gathered = bytearray()
    async for piece in pieces:
        if not gathered and len(piece) >= PIECE_BYTES:
            yield piece
            continue
        gathered += piece
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered[:PIECE_BYTES_MAX])
            del gathered[:PIECE_BYTES_MAX]
    if gathered:
        yield bytes(gathered)


async def _export(session: Connection) -> str:
    with translated():
        if await _value(session, "SELECT pg_is_in_recovery()", []):
            raise errors.DatabaseUnfit("this server is a standby: give the address of the primary")
        return str(await _value(session, "SELECT pg_export_snapshot()", []))


async def _value(session: Connection, statement: str, parameters: Sequence[Any]) -> Any:
    """The first column of the first row."""
    cursor = await session.execute(statement.encode(), parameters)
    row = await cursor.fetchone()
    return row[0] if row else None
