"""The registry's database, maintained: one table or index after the other, in a session that waits for nobody long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, Postgres, PostgresOptions, connect, translated
from services.admin.adapters import postgres_statistics as statistics
from services.admin.adapters.postgres_statistics import SCHEMA
from services.admin.domain.capacity import Usage, Written
from services.admin.domain.maintenance import Bloat, DatabaseStats, LongQuery, StoredSize

LOCK_SECONDS = 2.0
"""For locks that SKIP_LOCKED does not pass over, those of indexes, and for a leftover index that is dropped."""
REINDEX_LOCK_SECONDS = 20.0
"""For transactions that began before: REINDEX CONCURRENTLY waits for each of them, and nobody waits for it."""
HOLDERS_MAX = 3

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY c.relname COLLATE "C"
"""
# Source: PostgreSQL 17, REINDEX: those of exclusion constraints cannot be rebuilt concurrently.
_INDEXES = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = %s AND t.relname = ANY(%s) AND i.indisvalid AND NOT i.indisexclusion AND c.relkind = 'i'
    ORDER BY t.relname COLLATE "C", c.relname COLLATE "C"
"""
# A CASE, because servers before 17 do not know the privilege.
_WITHOUT_RIGHTS = """
    SELECT c.relname, pg_get_userbyid(c.relowner), current_user, current_setting('server_version_num')::int >= 170000
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind = 'r' AND NOT pg_has_role(c.relowner, 'USAGE')
        AND NOT CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END
    ORDER BY c.relname COLLATE "C"
"""
_SIZE = """
    SELECT pg_total_relation_size(c.oid), COALESCE(s.n_live_tup, 0), COALESCE(s.n_dead_tup, 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE n.nspname = %s AND c.relname = %s
"""
# Source: PostgreSQL 17, REINDEX, "Rebuilding Indexes Concurrently": what a rebuild that failed leaves is invalid and
# ends in _ccnew, or in _ccold when the old one could not be dropped; both are to be dropped.
_LEFTOVERS = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
        AND NOT EXISTS (
            SELECT FROM pg_stat_progress_create_index p WHERE p.datname = current_database() AND p.relid = i.indrelid
        )
    ORDER BY c.relname COLLATE "C"
"""
_HOLDERS = """
    SELECT l.pid, COALESCE(NULLIF(a.application_name, ''), a.backend_type, '')
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> pg_backend_pid() AND l.database = (
            SELECT oid FROM pg_database WHERE datname = current_database()
        ) AND l.relation IN (
            SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname = %(name)s
            UNION ALL
            SELECT i.indrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname = %(name)s
        )
    GROUP BY 1, 2 ORDER BY 1 LIMIT %(limit)s
"""


class PostgresMaintenance:
    """See Database."""

    def __init__(
        self,
        options: PostgresOptions,
        *,
        lock_seconds: float = LOCK_SECONDS,
        reindex_lock_seconds: float = REINDEX_LOCK_SECONDS,
    ) -> None:
        self._options = options
        self._lock_seconds = lock_seconds
        self._reindex_lock_seconds = reindex_lock_seconds
        self._database = Postgres(options)

    async def __aenter__(self) -> PostgresMaintenance:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.__aexit__()

    async def check(self) -> None:
        """Returns when the database answers."""
        await self._database.check()

    async def tables(self) -> Sequence[str]:
        """See Database."""
        return [row[0] for row in await self._rows(_TABLES, [SCHEMA])]

    async def indexes(self, tables: Sequence[str]) -> Sequence[str]:
        """See Database."""
        return [row[0] for row in await self._rows(_INDEXES, [SCHEMA, list(tables)])]

    async def require_rights(self, tables: Sequence[str]) -> None:
        """See Database."""
        lacking = await self._rows(_WITHOUT_RIGHTS, [SCHEMA, list(tables)])
        if not lacking:
            return
        _, owner, role, knows_maintain = lacking[0]
        names = ", ".join(row[0] for row in lacking)
        remedy = f'GRANT "{owner}" TO "{role}"'
        if knows_maintain:
            remedy += f' or GRANT MAINTAIN ON ALL TABLES IN SCHEMA {SCHEMA} TO "{role}"'
        raise errors.DatabaseUnfit(f"the role {role} may not maintain {names}: {remedy}", metadata={"role": role})

    @asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresSession]:
        """See Database."""
        held = await connect(self._options, statement_timeout_seconds=0)
        async with held:
            session = PostgresSession(held, self._lock_seconds, self._reindex_lock_seconds)
            await session.prepare()
            yield session

    async def bloat(self) -> Sequence[Bloat]:
        """See Database."""
        return await self._database.read(statistics.bloat)

    async def stats(self) -> DatabaseStats:
        """See Database."""
        return await self._database.read(statistics.stats)

    async def long_queries(self, at_least_seconds: float, limit: int) -> Sequence[LongQuery]:
        """See Database."""

        async def read(connection: Connection) -> Sequence[LongQuery]:
            return await statistics.long_queries(connection, at_least_seconds, limit)

        return await self._database.read(read)

    async def usage(self) -> Usage:
        """See Database."""
        return await self._database.read(statistics.usage)

    async def written(self, stretch_seconds: int) -> Sequence[Written]:
        """See Database."""

        async def read(connection: Connection) -> Sequence[Written]:
            return await statistics.written(connection, stretch_seconds)

        return await self._database.read(read)

    async def _rows(self, statement: LiteralString, values: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        async def read(connection: Connection) -> Sequence[tuple[Any, ...]]:
            return await (await connection.execute(statement, values)).fetchall()

        return await self._database.read(read)


class PostgresSession:
    """See MaintenanceSession."""

    def __init__(self, connection: Connection, lock_seconds: float, reindex_lock_seconds: float) -> None:
        self._connection = connection
        self._lock_seconds = lock_seconds
        self._reindex_lock_seconds = reindex_lock_seconds
        self._warnings: list[str] = []
        connection.add_notice_handler(self._noticed)

    async def prepare(self) -> None:
        """Makes the server end what runs here soon after this process is gone, where it can."""
        statement = """
            SELECT set_config('client_connection_check_interval', '1s', false) FROM pg_settings
            WHERE name = 'client_connection_check_interval'
        """
        # Not every system can tell the server that a client is gone.
        with translated(), suppress(psycopg.errors.InvalidParameterValue):
            await self._connection.execute(statement)

    async def size(self, name: str) -> StoredSize | None:
        """See MaintenanceSession."""
        with translated():
            row = await (await self._connection.execute(_SIZE, [SCHEMA, name])).fetchone()
        return StoredSize(*row) if row else None

    async def vacuum(self, table: str) -> str:
        """See MaintenanceSession."""
        # Empty pages at the end of the table go back to the system too: VACUUM gives that up at once while anybody
        # waits for the table. Source: PostgreSQL 17, VACUUM, TRUNCATE.
        return await self._run("VACUUM (ANALYZE false, SKIP_LOCKED true) {}", table, self._lock_seconds)

    async def analyze(self, table: str) -> str:
        """See MaintenanceSession."""
        return await self._run("ANALYZE (SKIP_LOCKED true) {}", table, self._lock_seconds)

    async def reindex(self, index: str) -> str:
        """See MaintenanceSession."""
        return await self._run("REINDEX INDEX CONCURRENTLY {}", index, self._reindex_lock_seconds)

    async def drop_leftovers(self) -> tuple[Sequence[str], Sequence[str]]:
        """See MaintenanceSession."""
        with translated():
            found = await (await self._connection.execute(_LEFTOVERS, [SCHEMA])).fetchall()
        dropped: list[str] = []
        left: list[str] = []
        for (name,) in found:
            problem = await self._run("DROP INDEX CONCURRENTLY IF EXISTS {}", name, self._lock_seconds)
            (left if problem else dropped).append(name)
        return dropped, left

    async def _run(self, statement: LiteralString, name: str, lock_seconds: float) -> str:
        """Why the server did not do it, empty when it did. The name is one of the catalog's, and quoted."""
        self._warnings.clear()
        command = sql.SQL(statement).format(sql.Identifier(SCHEMA, name))
        with translated():
            try:
                await self._connection.execute(
                    "SELECT set_config('lock_timeout', %s, false)", [str(round(lock_seconds * 1000))]
                )
                await self._connection.execute(command, prepare=False)
            except psycopg.errors.LockNotAvailable:
                return f"locks were not free within {lock_seconds:g} s{await self._holders(name)}"
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject):
                return "it is gone"
            except psycopg.errors.InsufficientPrivilege as refused:
                return str(refused.diag.message_primary)
            except psycopg.errors.DiskFull as failed:
                return f"the server has no room: {failed.diag.message_primary}"
            if self._warnings:
                return "; ".join(self._warnings) + await self._holders(name)
        return ""

    async def _holders(self, name: str) -> str:
        """Who holds locks on it, in words."""
        asked = {"schema": SCHEMA, "name": name, "limit": HOLDERS_MAX}
        rows = await (await self._connection.execute(_HOLDERS, asked)).fetchall()
        holders = ", ".join(f"{pid} ({application})" for pid, application in rows)
        return f"; held by process {holders}" if holders else ""

    def _noticed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING" and diagnostic.message_primary:
            self._warnings.append(diagnostic.message_primary)
