"""What PostgreSQL's own views say of the registry's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection
from services.admin.domain.bloat import Shape, btree_bloat_bytes, table_bloat_bytes, toast_bloat_bytes
from services.admin.domain.capacity import Usage, Written
from services.admin.domain.maintenance import (
    Bloat,
    DatabaseStats,
    LongQuery,
    StoredSize,
    TableStats,
    without_values,
)

SCHEMA = "registry"
_HIDDEN = "<insufficient privilege>"
"""What pg_stat_activity shows of a query that the role may not see."""

# Rows: those that the server counts as it goes, else those of the newest ANALYZE.
_TABLE_SHAPES = """
    SELECT c.relname, pg_table_size(c.oid), pg_relation_size(c.oid), current_setting('block_size')::int,
        COALESCE(NULLIF(s.n_live_tup, 0), GREATEST(c.reltuples, 0))::float8,
        COALESCE(w.width, 0)::float8, w.columns::int, COALESCE(w.nulls, false), COALESCE(o.fill, 100)::float8,
        w.known OR COALESCE(s.last_vacuum, s.last_autovacuum, s.last_analyze, s.last_autoanalyze) IS NOT NULL,
        COALESCE(pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0), COALESCE(ts.n_live_tup, 0)::float8
    FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
        LEFT JOIN pg_stat_all_tables ts ON ts.relid = c.reltoastrelid
        LEFT JOIN LATERAL (
            SELECT option_value::float8 AS fill FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'
        ) o ON true
        CROSS JOIN LATERAL (
            SELECT count(*) AS columns, bool_or(p.null_frac > 0) AS nulls, bool_or(p.attname IS NOT NULL) AS known,
                sum((1 - p.null_frac) * p.avg_width) AS width
            FROM pg_attribute a LEFT JOIN pg_stats p
                ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = a.attname AND NOT p.inherited
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ) w
    WHERE n.nspname = %s AND c.relkind = 'r'
"""
# A partial index has rows of its own, which ANALYZE counts.
_INDEX_SHAPES = """
    SELECT c.relname, t.relname, pg_relation_size(c.oid), current_setting('block_size')::int,
        CASE WHEN i.indpred IS NULL THEN COALESCE(NULLIF(s.n_live_tup, 0), GREATEST(t.reltuples, 0))
            ELSE GREATEST(c.reltuples, 0) END::float8,
        COALESCE(w.width, 0)::float8, COALESCE(w.nulls, false), COALESCE(o.fill, 90)::float8,
        m.amname = 'btree' AND w.known
    FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am m ON m.oid = c.relam
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = t.relnamespace
        LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid
        LEFT JOIN LATERAL (
            SELECT option_value::float8 AS fill FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'
        ) o ON true
        CROSS JOIN LATERAL (
            SELECT bool_or(p.null_frac > 0) AS nulls, bool_and(p.attname IS NOT NULL) AS known,
                sum((1 - p.null_frac) * p.avg_width) AS width
            FROM unnest(i.indkey::int2[]) AS k(attnum)
                LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum AND k.attnum > 0
                LEFT JOIN pg_stats p ON p.schemaname = n.nspname AND p.tablename = t.relname
                    AND p.attname = a.attname AND NOT p.inherited
        ) w
    WHERE n.nspname = %s AND c.relkind = 'i'
"""
_DATABASE = """
    SELECT d.datname, current_setting('server_version'), pg_database_size(d.oid),
        (SELECT sum(numbackends)::int FROM pg_stat_database), current_setting('max_connections')::int,
        COALESCE(s.blks_hit::float8 / NULLIF(s.blks_hit + s.blks_read, 0), 1), s.xact_commit, s.xact_rollback,
        s.deadlocks, s.stats_reset, age(d.datfrozenxid)
    FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datname = current_database()
"""
_TABLES = """
    SELECT c.relname, pg_total_relation_size(c.oid), COALESCE(s.n_live_tup, 0), COALESCE(s.n_dead_tup, 0),
        COALESCE(s.seq_scan, 0), COALESCE(s.idx_scan, 0), GREATEST(s.last_vacuum, s.last_autovacuum),
        GREATEST(s.last_analyze, s.last_autoanalyze)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE n.nspname = %s AND c.relkind = 'r'
    ORDER BY 2 DESC, 1
"""
_LONG = """
    SELECT pid, application_name, seconds, state, wait, query, pg_blocking_pids(pid), current_user
    FROM (
        SELECT pid, COALESCE(application_name, '') AS application_name, COALESCE(state, '') AS state, query,
            COALESCE(wait_event_type || ': ' || wait_event, '') AS wait,
            extract(epoch FROM clock_timestamp() - CASE WHEN state = 'active' THEN query_start ELSE state_change END)
                ::float8 AS seconds
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
            AND COALESCE(backend_type, 'client backend') = 'client backend'
            AND state IS DISTINCT FROM 'idle'
    ) s
    WHERE seconds >= %s OR query = %s
    ORDER BY seconds DESC NULLS LAST, pid
    LIMIT %s
"""


async def bloat(connection: Connection) -> Sequence[Bloat]:
    """See Database.bloat."""
    found = []
    for row in await (await connection.execute(_TABLE_SHAPES, [SCHEMA])).fetchall():
        name, total_bytes, heap_bytes, block_bytes, rows, width, columns, nulls, fill, known, toast_bytes, chunks = row
        shape = Shape(heap_bytes, block_bytes, rows, width, columns, nulls, fill)
        lost = table_bloat_bytes(shape) + toast_bloat_bytes(toast_bytes, block_bytes, chunks) if known else None
        found.append(Bloat(name, name, False, total_bytes, lost))
    for name, table, size_bytes, block_bytes, rows, width, nulls, fill, known in await (
        await connection.execute(_INDEX_SHAPES, [SCHEMA])
    ).fetchall():
        shape = Shape(size_bytes, block_bytes, rows, width, 0, nulls, fill)
        found.append(Bloat(name, table, True, size_bytes, btree_bloat_bytes(shape) if known else None))
    return sorted(found, key=lambda each: (-(each.bloat_bytes or 0), -each.total_bytes, each.name))


async def stats(connection: Connection) -> DatabaseStats:
    """See Database.stats."""
    row = await (await connection.execute(_DATABASE)).fetchone()
    assert row is not None, "one is connected to a database that is there"
    tables = [
        TableStats(name, StoredSize(total_bytes, live, dead), scans, index_scans, vacuumed, analyzed)
        for name, total_bytes, live, dead, scans, index_scans, vacuumed, analyzed in await (
            await connection.execute(_TABLES, [SCHEMA])
        ).fetchall()
    ]
    return replace(DatabaseStats(*row), tables=tables)


async def long_queries(connection: Connection, at_least_seconds: float, limit: int) -> Sequence[LongQuery]:
    """See Database.long_queries."""
    rows = await (await connection.execute(_LONG, [at_least_seconds, _HIDDEN, limit])).fetchall()
    hidden = next((row for row in rows if row[5] == _HIDDEN), None)
    if hidden is not None:
        role = hidden[7]
        raise errors.DatabaseUnfit(
            f'the role {role} may not see what others run: GRANT pg_read_all_stats TO "{role}"', metadata={"role": role}
        )
    return [
        LongQuery(pid, application, seconds, state, wait, without_values(query), blocked)
        for pid, application, seconds, state, wait, query, blocked, _ in rows
    ]


_USAGE = """
    SELECT pg_database_size(current_database()),
        (SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'),
        (SELECT count(*) FROM registry.versions), (SELECT position FROM registry.head)
"""
# octet_length of a stored bytea reads its head alone, not its content.
_WRITTEN = """
    SELECT to_timestamp((floor(extract(epoch FROM time) / %(seconds)s) + 1) * %(seconds)s), max(position),
        (sum(sum(octet_length(payload))) OVER (ORDER BY floor(extract(epoch FROM time) / %(seconds)s)))::bigint
    FROM registry.changes
    GROUP BY floor(extract(epoch FROM time) / %(seconds)s)
    ORDER BY 1
"""
_NO_REGISTRY = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)


async def usage(connection: Connection) -> Usage:
    """See Database.usage."""
    try:
        row = await (await connection.execute(_USAGE, [SCHEMA])).fetchone()
    except _NO_REGISTRY:
        raise _no_registry() from None
    assert row is not None, "a query without FROM has a row"
    return Usage(row[0], row[1], row[2], row[3] or 0)


async def written(connection: Connection, stretch_seconds: int) -> Sequence[Written]:
    """See Database.written."""
    try:
        rows = await (await connection.execute(_WRITTEN, {"seconds": stretch_seconds})).fetchall()
    except _NO_REGISTRY:
        raise _no_registry() from None
    return [Written(*row) for row in rows]


def _no_registry() -> errors.DatabaseUnfit:
    return errors.DatabaseUnfit(f"the database holds no registry: there is no schema {SCHEMA} with its tables")
