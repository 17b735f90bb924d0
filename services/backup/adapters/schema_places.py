"""Places as PostgreSQL schemas within the live database, for roles that may not create databases.

A dump names the live schema throughout. It is loaded as it is, in one transaction in which the live schema has another
name and the place has the live one's: others see nothing of this until it is committed, and then the names are as they
were. Names are changed in the catalogue's rows alone, so the live registry is neither locked nor slowed by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import conninfo, sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions
from services.backup.adapters.change_reader import read_changes, read_head
from services.backup.adapters.client_programs import find_programs
from services.backup.adapters.database_facts import read_facts, read_rows
from services.backup.adapters.database_preflight import preflight
from services.backup.adapters.dump_script import Copy, EndOfRows, NotAScript, Rows, Statements, pieces
from services.backup.adapters.place_errors import LOCKED, refused
from services.backup.adapters.place_names import PlaceNames
from services.backup.adapters.postgres_places import RestoreLimits
from services.backup.adapters.postgres_session import end_when_cut_off, open_session
from services.backup.adapters.programs import Command, ProgramFailed, run_program
from services.backup.adapters.registry_tools import RegistryTools
from services.backup.domain.model import DatabaseFacts, Head, Place, StoredChange
from services.backup.ports import Failpoints, PlaceWriter, RegistryCheck

SCHEMA = "registry"
LOCK_SECONDS = 3.0
"""Of one attempt to swap: behind it, all who want the head wait."""
SWAPS_MAX = 10
PAUSE_SECONDS = 0.2
STATEMENT_SECONDS = 60.0
FENCE_WAIT_SECONDS = 30.0
FAILPOINTS = ("swap.locked", "swap.first_renamed", "swap.second_renamed", "swap.renamed")
"""Where a swap calls `Failpoints.reached`; besides, as for databases, place.created, place.restored, place.dropped."""

_HELD = "{}_held"
"""Name of the live schema while a dump is loaded; nobody else ever sees it."""

_EXISTING = """
SELECT nspname::text, coalesce((
    SELECT sum(pg_total_relation_size(c.oid)) FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'S', 'm')
), 0)::bigint
FROM pg_catalog.pg_namespace AS n
"""
_DESCRIBED = """
SELECT nspname::text, pg_get_userbyid(nspowner)::text, obj_description(oid, 'pg_namespace')
FROM pg_catalog.pg_namespace WHERE nspname = ANY(%s)
"""
_GRANTS = """
SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
FROM pg_catalog.pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS a WHERE nspname = %s
"""
_RIGHTS = """
SELECT current_user::text, current_database()::text, has_database_privilege(current_database(), 'CREATE'),
    (SELECT pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace
    WHERE nspname = %s AND NOT pg_has_role(nspowner, 'USAGE'))
"""
_TABLES = """
SELECT relname::text FROM pg_catalog.pg_class
WHERE relnamespace = %s::regnamespace AND relkind = 'r' ORDER BY relname
"""
_FENCE: LiteralString = "UPDATE {} SET fenced = %(fenced)s WHERE fenced <> %(fenced)s"
_MARK = "llm_schema_registry: swapped in from {}"
"""Comment of a schema that was swapped in: it says that this very swap is done."""


class SchemaPlaces:
    """Places within the live database. Needs CREATE on it, and ownership of the registry's schema.

    options: of the live database, at the server itself, not a pooler. folders: to search for client programs first.
    swaps_max: attempts of a swap, of which each waits LOCK_SECONDS at most for those who use the head.
    Nobody's session is ended by a swap: who waits for it goes on in the schema that has the live name then.
    """

    def __init__(
        self,
        options: PostgresOptions,
        failpoints: Failpoints,
        *,
        folders: Sequence[Path] = (),
        limits: RestoreLimits | None = None,
        swaps_max: int = SWAPS_MAX,
    ) -> None:
        database = conninfo.conninfo_to_dict(options.url).get("dbname")
        if not database:
            raise ValueError("the database URL must name the registry's database")
        self._options = options
        self._database = str(database)
        self._names = PlaceNames(SCHEMA)
        self._folders = tuple(folders)
        self._limits = limits or RestoreLimits()
        self._failpoints = failpoints
        self._swaps_max = swaps_max
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
        """See Places."""
        async with self._session() as session:
            with refused("listing the schemas"):
                found = await (await session.execute(_EXISTING)).fetchall()
        return {name: size for name, size in found if name == self.live or self._names.is_made(name)}

    async def preflight(self, facts: DatabaseFacts) -> Sequence[str]:
        """See Places. Roles that a backup does not tell of, or another schema needs, are found out by restoring it."""
        async with self._session() as session:
            with refused("looking at the server"):
                problems = list(await preflight(session, self._database, facts, self._folders, databases=False))
                rights = await (await session.execute(_RIGHTS, [self.live])).fetchone()
        assert rights is not None, "a session has a role"
        role, database, creates, owner = rights
        if not creates:
            problems.append(f"role {role} may not create schemas: GRANT CREATE ON DATABASE {database} TO {role}")
        if owner is not None:
            problems.append(f"role {role} does not own the schema {self.live}, {owner} does: GRANT {owner} TO {role}")
        return problems

    async def create(self, name: str, facts: DatabaseFacts) -> None:
        """See Places. Owner and grants are those of the live schema, if there is one. The collation is the database's:
        the registry's tables name their own. Raises errors.DatabaseUnfit for a backup in another encoding."""
        self._names.require_made(name)
        schema = sql.Identifier(name)
        async with self._session() as session:
            encoding = session.info.parameter_status("server_encoding")
            if encoding != facts.encoding:
                raise errors.DatabaseUnfit(f"the backup is in encoding {facts.encoding}, the database in {encoding}")
            with refused(f"creating the schema {name}"):
                live = (await self._there(session, [self.live])).get(self.live)
                async with session.transaction():
                    await session.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
                    if live is not None:
                        await _grant(session, name, self.live)
                        statement = sql.SQL("ALTER SCHEMA {} OWNER TO {}")
                        await session.execute(statement.format(schema, sql.Identifier(live[0])))
        await self._failpoints.reached("place.created")

    async def drop(self, name: str) -> None:
        """See Places."""
        self._names.require_made(name)
        async with self._session() as session:
            with refused(f"dropping the schema {name}"):
                await session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
        await self._failpoints.reached("place.dropped")

    async def restore(self, name: str, dump: AsyncIterator[bytes]) -> None:
        """See Places. All of it or nothing: one transaction. Of the dump, the registry's schema alone is loaded."""
        self._names.require_made(name)
        async with self._session(statement_seconds=0) as session:
            programs = await asyncio.to_thread(find_programs, session.info.server_version, self._folders)
            command = Command((str(programs.pg_restore), "--file=-", f"--schema={SCHEMA}"))
            try:
                run = run_program(command, dump, stall_seconds=self._limits.stall_seconds)
                async with aclosing(run) as script:
                    await self._load(session, name, script)
            except ProgramFailed as failed:
                raise errors.RestoreFailed(f"the dump could not be read: {failed}") from failed
            except NotAScript as wrong:
                raise errors.RestoreFailed(f"the dump gives no script that can be loaded: {wrong}") from wrong
        await self._failpoints.reached("place.restored")

    async def _load(self, session: Connection, name: str, script: AsyncIterator[bytes]) -> None:
        with refused(f"loading into the schema {name}"):
            found = await self._there(session, [self.live, name])
            if name not in found:
                raise errors.DatabaseUnfit(f"there is no schema {name}")
            held = _HELD.format(name)
            async with session.transaction():
                await _settle(session, self._limits)
                if self.live in found:
                    await _rename(session, self.live, held)
                await _rename(session, name, self.live)
                try:
                    await _run(session, script)
                except psycopg.DatabaseError as error:
                    said = error.diag.message_primary
                    if said is None or (error.sqlstate or "").startswith(("08", "57")):
                        raise
                    raise errors.RestoreFailed(f"the dump could not be loaded into {name}: {said}") from error
                await self._analyse(session)
                await _rename(session, self.live, name)
                if self.live in found:
                    await _rename(session, held, self.live)

    async def _analyse(self, session: Connection) -> None:
        """Makes what was loaded known to the planner: a dump holds no statistics."""
        tables = await (await session.execute(_TABLES, [self.live])).fetchall()
        for (table,) in tables:
            await session.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(self.live, table)))

    async def facts(self, name: str) -> DatabaseFacts:
        """See Places. database_bytes: of the whole database."""
        async with self._session(statement_seconds=0) as session:
            return await read_facts(session, name)

    async def rows(self, name: str) -> Mapping[str, int]:
        """See Places."""
        async with self._session(statement_seconds=0) as session:
            return await read_rows(session, name)

    async def check(self, name: str) -> RegistryCheck:
        """See Places."""
        return await self._tools.check(self._database, schema=name)

    async def head(self, name: str) -> Head:
        """See Places."""
        async with self._session() as session:
            return await read_head(session, name)

    async def changes(self, name: str, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """See Places."""
        async with self._session() as session:
            return await read_changes(session, after, limit=limit, bytes_max=bytes_max, schema=name)

    async def replay(self, name: str, changes: AsyncIterator[StoredChange]) -> Place:
        """See Places."""
        return await self._tools.replay(self._database, changes, schema=name)

    async def set_fenced(self, name: str, *, fenced: bool) -> Head:
        """See Places. Waits for a commit that is under way, FENCE_WAIT_SECONDS at most."""
        async with self._session() as session:
            with refused(f"fencing writes of {name}" if fenced else f"allowing writes to {name}"):
                await _set(session, "lock_timeout", FENCE_WAIT_SECONDS)
                await session.execute(sql.SQL(_FENCE).format(sql.Identifier(name, "head")), {"fenced": fenced})
            return await read_head(session, name)

    @asynccontextmanager
    async def writer(self, name: str) -> AsyncIterator[PlaceWriter]:
        """See Places."""
        async with self._tools.writer(self._database, schema=name) as writer:
            yield writer

    async def swap(self, *, incoming: str, aside: str) -> None:
        """See Places. One transaction, behind all who use the head: whoever waits finds the new one."""
        self._names.require_made(incoming)
        self._names.require_made(aside)
        async with self._session() as session:
            with refused("swapping the schemas"):
                await _set(session, "lock_timeout", LOCK_SECONDS)
                await end_when_cut_off(session)
                for attempt in range(1, self._swaps_max + 1):
                    try:
                        await self._swap(session, incoming, aside)
                        break
                    except psycopg.Error as error:
                        if error.sqlstate != LOCKED or attempt == self._swaps_max:
                            raise
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _swap(self, session: Connection, incoming: str, aside: str) -> None:
        there = await self._there(session, [self.live, incoming, aside])
        mark = _MARK.format(incoming)
        if incoming not in there:
            if self.live not in there or there[self.live][1] != mark:
                raise errors.DatabaseUnfit(
                    f"there is no schema {incoming} to swap in, and it was not swapped in before: restore again"
                )
            return
        if self.live in there and aside in there:
            raise errors.DatabaseUnfit(f"the schema {aside} is there already: drop it, or use another name")
        async with session.transaction():
            if self.live in there:
                head = sql.Identifier(self.live, "head")
                await session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(head))
                await self._failpoints.reached("swap.locked")
                await _rename(session, self.live, aside)
            await self._failpoints.reached("swap.first_renamed")
            await _rename(session, incoming, self.live)
            statement = sql.SQL("COMMENT ON SCHEMA {} IS {}")
            await session.execute(statement.format(sql.Identifier(self.live), sql.Literal(mark)))
            await self._failpoints.reached("swap.second_renamed")
        await self._failpoints.reached("swap.renamed")

    async def _there(self, session: Connection, names: Sequence[str]) -> Mapping[str, tuple[str, str | None]]:
        """Which of the schemas exist: their owners and comments."""
        found = await (await session.execute(_DESCRIBED, [list(names)])).fetchall()
        return {name: (owner, comment) for name, owner, comment in found}

    @asynccontextmanager
    async def _session(self, *, statement_seconds: float = STATEMENT_SECONDS) -> AsyncIterator[Connection]:
        session = await open_session(self._options)
        try:
            await _set(session, "statement_timeout", statement_seconds)
            yield session
        finally:
            await session.close()


async def _settle(session: Connection, limits: RestoreLimits) -> None:
    """For building indexes, until the end of the transaction."""
    settings = {
        "maintenance_work_mem": f"{limits.maintenance_memory_mb}MB",
        "max_parallel_maintenance_workers": str(limits.maintenance_workers),
    }
    for name, value in settings.items():
        await session.execute("SELECT set_config(%s, %s, true)", [name, value])


async def _run(session: Connection, script: AsyncIterator[bytes]) -> None:
    """Runs a script of pg_restore in the session's transaction."""
    found = pieces(script)
    async for piece in found:
        match piece:
            case Statements(text):
                await session.execute(text)
            case Copy(statement):
                async with session.cursor().copy(statement) as copy:
                    async for rows in found:
                        if isinstance(rows, EndOfRows):
                            break
                        assert isinstance(rows, Rows), "rows follow a COPY until their end"
                        await copy.write(rows.data)


async def _grant(session: Connection, name: str, pattern: str) -> None:
    """Gives the same rights to the same roles. The owner's come with the ownership."""
    for role, privilege, grantable in await (await session.execute(_GRANTS, [pattern])).fetchall():
        statement = sql.SQL("GRANT {} ON SCHEMA {} TO {} {}").format(
            sql.SQL(privilege),
            sql.Identifier(name),
            sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
            sql.SQL("WITH GRANT OPTION" if grantable else ""),
        )
        await session.execute(statement)


async def _rename(session: Connection, name: str, other: str) -> None:
    statement = sql.SQL("ALTER SCHEMA {} RENAME TO {}")
    await session.execute(statement.format(sql.Identifier(name), sql.Identifier(other)))


async def _set(session: Connection, setting: str, seconds: float) -> None:
    await session.execute("SELECT set_config(%s, %s, false)", [setting, f"{seconds * 1000:.0f}"])
