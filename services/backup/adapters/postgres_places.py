"""Places as databases beside the live one, on its server.

Statements about databases run on a session with the maintenance database, because nobody can be connected to a database
that is renamed. A database that was put aside lets nobody in; it is opened for the moment in which this code connects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg import conninfo, sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions
from services.backup.adapters.change_reader import read_changes, read_head
from services.backup.adapters.client_programs import find_programs, program_access
from services.backup.adapters.database_facts import read_facts, read_rows
from services.backup.adapters.database_preflight import preflight
from services.backup.adapters.database_swap import FAILPOINTS as SWAP_FAILPOINTS
from services.backup.adapters.database_swap import Swap
from services.backup.adapters.database_template import create_like
from services.backup.adapters.place_errors import refused
from services.backup.adapters.place_names import PlaceNames
from services.backup.adapters.postgres_session import open_session
from services.backup.adapters.programs import Command, ProgramFailed, run_program
from services.backup.adapters.registry_tools import RegistryTools
from services.backup.domain.model import DatabaseFacts, Head, Place, StoredChange
from services.backup.ports import Failpoints, PlaceWriter, RegistryCheck

SCHEMA = "registry"
STALL_SECONDS = 300.0
STATEMENT_SECONDS = 60.0
"""Of one statement about a database: none of them reads its data, but CREATE and DROP wait for the server's disk."""
EMPTYING_SECONDS = 10.0
FENCE_WAIT_SECONDS = 30.0
"""For a commit that holds the head's row."""
MAINTENANCE_MEMORY_MB = 256
MAINTENANCE_WORKERS = 2
FAILPOINTS = ("place.created", "place.restored", "place.dropped", *SWAP_FAILPOINTS)
"""Where `Failpoints.reached` is called."""

_EXISTING = """
SELECT datname::text,
    CASE WHEN has_database_privilege(oid, 'CONNECT') THEN coalesce(pg_database_size(oid), 0) ELSE 0 END
FROM pg_catalog.pg_database WHERE NOT datistemplate
"""
_ALLOWS = "SELECT datallowconn FROM pg_catalog.pg_database WHERE datname = %s"
_FENCE = "UPDATE registry.head SET fenced = %(fenced)s WHERE fenced <> %(fenced)s"


@dataclass(frozen=True, slots=True)
class RestoreLimits:
    """How a dump is loaded. maintenance_memory_mb, workers: for building indexes. stall_seconds: of pg_restore."""

    maintenance_memory_mb: int = MAINTENANCE_MEMORY_MB
    maintenance_workers: int = MAINTENANCE_WORKERS
    stall_seconds: float = STALL_SECONDS


class DatabasePlaces:
    """Places over one server. Needs CREATEDB, ownership of the live database, and the right to end its sessions.

    options: of the live database, at the server itself, not a pooler. folders: to search for client programs first.
    maintenance_database: one that is always there, other than the live one.
    """

    def __init__(
        self,
        options: PostgresOptions,
        failpoints: Failpoints,
        *,
        maintenance_database: str = "postgres",
        folders: Sequence[Path] = (),
        limits: RestoreLimits | None = None,
    ) -> None:
        live = conninfo.conninfo_to_dict(options.url).get("dbname")
        if not live or live == maintenance_database:
            raise ValueError("the database URL must name the registry's own database, other than the maintenance one")
        self._options = options
        self._names = PlaceNames(str(live))
        self._maintenance = maintenance_database
        self._folders = tuple(folders)
        self._limits = limits or RestoreLimits()
        self._failpoints = failpoints
        self._tools = RegistryTools(options)

    @property
    def live(self) -> str:
        """See Places."""
        return self._names.live

    def scratch(self, token: str) -> str:
        """See Places."""
        return self._names.scratch(token)

    def aside(self, token: str) -> str:
        """See Places."""
        return self._names.aside(token)

    async def existing(self) -> Mapping[str, int]:
        """See Places. A database that this role may not connect to counts no bytes."""
        async with self._server() as session:
            with refused("listing the databases"):
                found = await (await session.execute(_EXISTING)).fetchall()
        return {name: size for name, size in found if name == self.live or self._names.is_made(name)}

    async def preflight(self, facts: DatabaseFacts) -> Sequence[str]:
        """See Places. Roles that a backup does not tell of, or another schema needs, are found out by restoring it."""
        async with self._server() as session:
            with refused("looking at the server"):
                return await preflight(session, self.live, facts, self._folders)

    async def create(self, name: str, facts: DatabaseFacts) -> None:
        """See Places. Owner, grants and settings are the live one's, when there is one: no dump has them."""
        self._names.require_made(name)
        async with self._server() as session:
            with refused(f"creating the database {name}"):
                await create_like(session, name, self.live, facts)
        await self._failpoints.reached("place.created")

    async def drop(self, name: str) -> None:
        """See Places. Ends the sessions that are connected to it."""
        self._names.require_made(name)
        async with self._server() as session:
            with refused(f"dropping the database {name}"):
                await session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        await self._failpoints.reached("place.dropped")

    async def restore(self, name: str, dump: AsyncIterator[bytes]) -> None:
        """See Places. Owners and grants are restored too, so the roles they name must exist."""
        self._names.require_made(name)
        async with self._server() as session:
            version = session.info.server_version
        programs = await asyncio.to_thread(find_programs, version, self._folders)
        access = program_access(self._options, version, database=name)
        environment = dict(access.environment)
        environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {self._session_options()}".strip()
        command = Command(
            (str(programs.pg_restore), "--exit-on-error", "--no-password", f"--dbname={access.dbname}"),
            environment,
            access.secrets,
        )
        try:
            run = run_program(command, dump, stall_seconds=self._limits.stall_seconds)
            async with aclosing(run) as output:
                async for _ in output:
                    pass
        except ProgramFailed as failed:
            await self._empty(name)
            raise errors.RestoreFailed(f"the dump could not be loaded into {name}: {failed}") from failed
        await self._settle(name)
        await self._failpoints.reached("place.restored")

    async def _empty(self, name: str) -> None:
        """Gives back the room of a place that is to be dropped, as far as the server lets it.

        DROP DATABASE begins with a checkpoint, and a server whose disk is full ends itself in one.
        """
        with suppress(errors.Error):
            async with self._inside(name) as session:
                with refused(f"emptying the database {name}"):
                    await _set(session, "statement_timeout", EMPTYING_SECONDS)
                    await session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))

    def _session_options(self) -> str:
        """For a place that counts only when all of it is there: its commits need not wait for the disk one by one."""
        limits = self._limits
        return (
            f"-c synchronous_commit=off -c maintenance_work_mem={limits.maintenance_memory_mb}MB"
            f" -c max_parallel_maintenance_workers={limits.maintenance_workers}"
        )

    async def _settle(self, name: str) -> None:
        """Makes what was loaded durable, and known to the planner: a dump holds no statistics.

        The log is written in order, so a commit that waits for the disk waits for those before it.
        """
        async with self._inside(name) as session:
            with refused(f"analysing the database {name}"):
                await session.execute("SET synchronous_commit = on")
                await session.execute("ANALYZE")

    async def facts(self, name: str) -> DatabaseFacts:
        """See Places."""
        async with self._inside(name) as session:
            return await read_facts(session, SCHEMA)

    async def rows(self, name: str) -> Mapping[str, int]:
        """See Places."""
        async with self._inside(name) as session:
            return await read_rows(session, SCHEMA)

    async def check(self, name: str) -> RegistryCheck:
        """See Places."""
        async with self._open(name):
            return await self._tools.check(name)

    async def head(self, name: str) -> Head:
        """See Places."""
        async with self._inside(name) as session:
            return await read_head(session, SCHEMA)

    async def changes(self, name: str, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """See Places."""
        async with self._inside(name) as session:
            return await read_changes(session, after, limit=limit, bytes_max=bytes_max, schema=SCHEMA)

    async def replay(self, name: str, changes: AsyncIterator[StoredChange]) -> Place:
        """See Places."""
        async with self._open(name):
            return await self._tools.replay(name, changes)

    async def set_fenced(self, name: str, *, fenced: bool) -> Head:
        """See Places. Waits for a commit that is under way, FENCE_WAIT_SECONDS at most.

        A live database that a killed swap left closed is open again afterwards.
        """
        if name == self.live:
            async with self._server() as session:
                with refused(f"opening the database {name}"):
                    if await self._lets_in(session, name) is False:
                        await _allow(session, name, allowed=True)
        async with self._inside(name) as session:
            with refused(f"fencing writes of {name}" if fenced else f"allowing writes to {name}"):
                await _set(session, "lock_timeout", FENCE_WAIT_SECONDS)
                await session.execute(_FENCE, {"fenced": fenced})
            return await read_head(session, SCHEMA)

    @asynccontextmanager
    async def writer(self, name: str) -> AsyncIterator[PlaceWriter]:
        """See Places."""
        async with self._open(name), self._tools.writer(name) as writer:
            yield writer

    async def swap(self, *, incoming: str, aside: str) -> None:
        """See Places. Both renames are one transaction, so there is no moment in which they are half done."""
        self._names.require_made(incoming)
        self._names.require_made(aside)
        async with self._server() as session:
            with refused("swapping the databases"):
                await Swap(session, self._failpoints, live=self.live, incoming=incoming, aside=aside).run()

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Connection]:
        """A session with the maintenance database, whose statements have a limit."""
        async with self._session(self._maintenance) as session:
            await _set(session, "statement_timeout", STATEMENT_SECONDS)
            yield session

    @asynccontextmanager
    async def _inside(self, name: str) -> AsyncIterator[Connection]:
        """A session with a place. One that lets nobody in is closed again as soon as the session is there."""
        async with AsyncExitStack() as stack:
            async with self._open(name):
                session = await stack.enter_async_context(self._session(name))
            yield session

    @asynccontextmanager
    async def _session(self, database: str) -> AsyncIterator[Connection]:
        url = conninfo.make_conninfo(self._options.url, dbname=database)
        session = await open_session(replace(self._options, url=url))
        try:
            yield session
        finally:
            await session.close()

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[None]:
        """A place that lets sessions in, for the block at least. Raises errors.DatabaseUnfit when there is none.

        The live one is not opened: it is closed while it is swapped, and another one may have its name a moment later.
        Raises errors.DatabaseUnavailable then.
        """
        async with self._server() as session:
            with refused(f"opening the database {name}"):
                lets_in = await self._lets_in(session, name)
                if lets_in is None:
                    raise errors.DatabaseUnfit(f"there is no database {name}")
                if not lets_in and name == self.live:
                    raise errors.DatabaseUnavailable(
                        f"the database {name} is being swapped and lets nobody in: repeat", retry_seconds=1
                    )
                if not lets_in:
                    await _allow(session, name, allowed=True)
            try:
                yield
            finally:
                if not lets_in:
                    with refused(f"closing the database {name}"):
                        await _allow(session, name, allowed=False)

    async def _lets_in(self, session: Connection, name: str) -> bool | None:
        """Whether the database admits clients; None when there is none."""
        found = await (await session.execute(_ALLOWS, [name])).fetchone()
        return None if found is None else bool(found[0])


async def _allow(session: Connection, name: str, *, allowed: bool) -> None:
    statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    await session.execute(statement.format(sql.Identifier(name), sql.Literal(allowed)))


async def _set(session: Connection, setting: str, seconds: float) -> None:
    await session.execute("SELECT set_config(%s, %s, false)", [setting, f"{seconds * 1000:.0f}"])
