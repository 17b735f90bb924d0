"""What a registry's database holds, said so that a database restored from its dump says the same."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import LiteralString

from psycopg import sql
from psycopg.pq import TransactionStatus

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection
from services.backup.adapters.change_reader import read_head
from services.backup.adapters.copy_stream import copied
from services.backup.adapters.database_roles import read_roles
from services.backup.adapters.postgres_session import translated
from services.backup.domain.model import DatabaseFacts, TableFacts
from services.backup.domain.row_digest import RowDigest

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "quote_all_identifiers": "off",
    "row_security": "off",  # A policy that hides rows is an error, not fewer rows.
}
"""Under which values become text. What the server itself sets differently does not show in a digest."""

_SERVER = """
SELECT now(), current_setting('server_version'), current_setting('server_version_num')::integer,
    pg_encoding_to_char(encoding), datcollate, datctype, pg_database_size(oid),
    (SELECT array_agg(extname::text ORDER BY extname COLLATE "C") FROM pg_catalog.pg_extension),
    (SELECT array_agg(extversion ORDER BY extname COLLATE "C") FROM pg_catalog.pg_extension)
FROM pg_catalog.pg_database
WHERE datname = current_database()
"""
_MIGRATIONS = "SELECT to_char(number, 'FM0000') || '_' || name || '.sql' FROM {} ORDER BY number"

# Columns in their order; generated ones are left out, as in a dump.
_TABLES = """
SELECT relname::text,
    ARRAY(
        SELECT attname::text FROM pg_catalog.pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        ORDER BY attnum
    )
FROM pg_catalog.pg_class c
WHERE relnamespace = %s::regnamespace AND relkind = 'r'
ORDER BY relname COLLATE "C"
"""

# Each statement lists one kind of thing, a JSON array a row. With the schema alone on the search path PostgreSQL writes
# names in it without the schema's; what it writes with it (functions, sequences) is put together from columns. Numbers
# that a restore gives anew (oid, attnum behind a dropped column) do not enter.
_STRUCTURE: tuple[LiteralString, ...] = (
    # Tables, indexes, sequences, views: their options.
    """
    SELECT 'relation', relname, relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity,
        (SELECT array_agg(option ORDER BY option COLLATE "C") FROM unnest(reloptions) option),
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
        CASE WHEN relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
        CASE WHEN relispartition THEN pg_get_expr(relpartbound, c.oid) END,
        (SELECT amname FROM pg_catalog.pg_am a WHERE a.oid = relam)
    FROM pg_catalog.pg_class c
    WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p', 'i', 'I', 'S', 'v', 'm', 'c', 'f')
    """,
    """
    SELECT 'column', relname, row_number() OVER (PARTITION BY c.oid ORDER BY attnum), attname,
        format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage, attcompression,
        attoptions, (SELECT collname FROM pg_catalog.pg_collation o WHERE o.oid = attcollation),
        pg_get_expr(adbin, adrelid)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_catalog.pg_attrdef ON adrelid = c.oid AND adnum = attnum
    WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'c', 'f')
    """,
    """
    SELECT 'constraint', conrelid::regclass::text, contypid::regtype::text, conname, contype, convalidated,
        condeferrable, condeferred, pg_get_constraintdef(oid)
    FROM pg_catalog.pg_constraint
    WHERE connamespace = %s::regnamespace
    """,
    # The pretty form, which leaves out the schema.
    """
    SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid, 0, true), indisprimary, indisunique,
        indisvalid, indisready, indisreplident
    FROM pg_catalog.pg_index
    JOIN pg_catalog.pg_class c ON c.oid = indexrelid
    WHERE relnamespace = %s::regnamespace
    """,
    """
    SELECT 'sequence', seqrelid::regclass::text, format_type(seqtypid, NULL), seqstart, seqincrement, seqmax, seqmin,
        seqcache, seqcycle,
        (SELECT refobjid::regclass::text || '/' || attname
        FROM pg_catalog.pg_depend
        JOIN pg_catalog.pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE objid = seqrelid AND classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
            AND deptype IN ('a', 'i'))
    FROM pg_catalog.pg_sequence
    JOIN pg_catalog.pg_class c ON c.oid = seqrelid
    WHERE relnamespace = %s::regnamespace
    """,
    """
    SELECT 'function', proname, prokind, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), lanname,
        provolatile, proisstrict, prosecdef, proleakproof, proparallel, procost, prorows, proconfig, prosrc,
        pg_get_function_sqlbody(p.oid)
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = prolang
    WHERE pronamespace = %s::regnamespace AND prokind <> 'a'
    """,
    """
    SELECT 'trigger', relname, tgname, tgenabled, pg_get_triggerdef(t.oid, true)
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = tgrelid
    WHERE relnamespace = %s::regnamespace AND NOT tgisinternal
    """,
    """
    SELECT 'policy', relname, polname, polpermissive, polcmd, pg_get_expr(polqual, polrelid),
        pg_get_expr(polwithcheck, polrelid)
    FROM pg_catalog.pg_policy
    JOIN pg_catalog.pg_class c ON c.oid = polrelid
    WHERE relnamespace = %s::regnamespace
    """,
    """
    SELECT 'type', typname, typtype, typnotnull, typdefault,
        CASE WHEN typtype = 'd' THEN format_type(typbasetype, typtypmod) END,
        (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_catalog.pg_enum WHERE enumtypid = t.oid)
    FROM pg_catalog.pg_type t
    WHERE typnamespace = %s::regnamespace AND typtype IN ('e', 'd', 'r')
    """,
    """
    SELECT 'statistics', stxname, stxrelid::regclass::text, stxkind, pg_get_statisticsobjdef_columns(oid)
    FROM pg_catalog.pg_statistic_ext
    WHERE stxnamespace = %s::regnamespace
    """,
)

# Owners, and grants as they are in effect: none given is the same as the default ones given. An empty grantee is
# PUBLIC; who granted is left out, since a restore grants in the owner's name.
_ACCESS: tuple[LiteralString, ...] = (
    """
    WITH wanted AS (SELECT %s::regnamespace AS space),
    things AS (
        SELECT 'schema' AS kind, '' AS name, nspowner AS owner, coalesce(nspacl, acldefault('n', nspowner)) AS grants
        FROM pg_catalog.pg_namespace JOIN wanted ON oid = space
        UNION ALL
        SELECT 'relation', relname, relowner,
            coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))
        FROM pg_catalog.pg_class JOIN wanted ON relnamespace = space
        WHERE relkind IN ('r', 'p', 'S', 'v', 'm', 'f')
        UNION ALL
        SELECT 'column', relname || '.' || attname, relowner, attacl
        FROM pg_catalog.pg_class c JOIN wanted ON relnamespace = space
        JOIN pg_catalog.pg_attribute ON attrelid = c.oid
        WHERE attacl <> '{}' AND NOT attisdropped
        UNION ALL
        SELECT 'function', proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', proowner,
            coalesce(proacl, acldefault('f', proowner))
        FROM pg_catalog.pg_proc p JOIN wanted ON pronamespace = space
        UNION ALL
        SELECT 'type', typname, typowner, coalesce(typacl, acldefault('T', typowner))
        FROM pg_catalog.pg_type JOIN wanted ON typnamespace = space
        WHERE typtype IN ('e', 'd', 'r')
        UNION ALL
        SELECT 'default', defaclobjtype::text, defaclrole, defaclacl
        FROM pg_catalog.pg_default_acl JOIN wanted ON defaclnamespace = space
    )
    SELECT kind, name, pg_get_userbyid(owner), ARRAY(
        SELECT coalesce(rolname::text, '') || ' ' || privilege_type || CASE WHEN is_grantable THEN ' *' ELSE '' END
        FROM aclexplode(grants)
        LEFT JOIN pg_catalog.pg_roles ON oid = grantee
        ORDER BY rolname, privilege_type, is_grantable
    )
    FROM things
    """,
)


async def read_facts(
    connection: Connection, schema: str = "registry", dumped: Mapping[str, RowDigest] | None = None
) -> DatabaseFacts:
    """What the registry in a PostgreSQL schema holds: in the connection's transaction, or in a snapshot of its own.

    A table's digest is the RowDigest of what `COPY (SELECT its columns) TO STDOUT` writes in the database's encoding
    under SETTINGS. Digests do not depend on the order of rows, the schema's name, nor on oids, and are the same in a
    database of the same major and encoding that was restored from a dump of this snapshot. Not so database_bytes and
    head.schema_id_high: sequences tell the present, so a restored one is at or above it.

    dumped: the digests of a dump of the same snapshot, which spare reading the tables; they are counted all the same.
    The settings stay until the transaction ends. Raises errors.DatabaseUnavailable, DatabaseUnfit, and BackupFailed
    when the dump has not the rows that there are.
    """
    with translated():
        async with _transaction(connection):
            await _settle(connection, schema)
            head = await read_head(connection, schema)
            server = await (await connection.execute(_SERVER)).fetchone()
            assert server is not None, "a session is in a database"
            time, version, version_num, encoding, collation, character_type, size, names, versions = server
            return DatabaseFacts(
                head=head,
                time=time,
                server_version=version,
                server_version_num=version_num,
                encoding=encoding,
                collation=collation,
                character_type=character_type,
                extensions=tuple(zip(names or (), versions or (), strict=True)),
                migrations=await _migrations(connection, schema),
                tables=await _tables(connection, schema, dumped),
                structure_sha256=await _listed(connection, schema, _STRUCTURE),
                access_sha256=await _listed(connection, schema, _ACCESS),
                database_bytes=size,
                roles=await read_roles(connection, _quoted(connection, schema)),
            )


async def read_rows(connection: Connection, schema: str) -> Mapping[str, int]:
    """How many rows each table has that `read_facts` tells of, in one snapshot. Raises errors.DatabaseUnavailable."""
    with translated():
        async with _transaction(connection):
            await _settle(connection, schema)
            tables = await (await connection.execute(_TABLES, [_quoted(connection, schema)])).fetchall()
            return {name: await _count(connection, schema, name) for name, _ in tables}


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """One snapshot for the block: that of the transaction there is, or of a new one, which changes nothing."""
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        yield
        return
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    except BaseException:
        # Whatever state it is in, it is not to be used again.
        await connection.close()
        raise
    await connection.execute("ROLLBACK")


async def _settle(connection: Connection, schema: str) -> None:
    """Makes values and names become the same text everywhere, until the end of the transaction."""
    cursor = await connection.execute("SELECT to_regnamespace(%s) IS NULL", [_quoted(connection, schema)])
    if await cursor.fetchone() == (True,):
        raise errors.DatabaseUnfit(f"this database has no schema {schema}: start the registry, which makes its tables")
    settings = SETTINGS | {"search_path": _quoted(connection, schema)}
    for name, value in settings.items():
        await connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _quoted(connection: Connection, name: str) -> str:
    return sql.Identifier(name).as_string(connection)


async def _migrations(connection: Connection, schema: str) -> tuple[str, ...]:
    cursor = await connection.execute(sql.SQL(_MIGRATIONS).format(sql.Identifier(schema, "migrations")))
    return tuple(title for (title,) in await cursor.fetchall())


async def _listed(connection: Connection, schema: str, statements: Sequence[LiteralString]) -> bytes:
    """SHA-256 over what the statements list, each list sorted."""
    digest = hashlib.sha256()
    for statement in statements:
        cursor = await connection.execute(statement, [_quoted(connection, schema)])
        # Sorted here: the database's own order depends on its collation.
        rows = sorted(json.dumps(row, ensure_ascii=False, default=_text) for row in await cursor.fetchall())
        digest.update("".join(f"{row}\n" for row in rows).encode())
        digest.update(b"\n")
    return digest.digest()


def _text(value: object) -> str:
    """Catalogue values that JSON does not have: the one-byte type "char" comes as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def server_encoding(connection: Connection) -> str:
    """The database's encoding, which every restored one has as well."""
    return str(connection.info.parameter_status("server_encoding"))


async def _tables(
    connection: Connection, schema: str, dumped: Mapping[str, RowDigest] | None
) -> tuple[TableFacts, ...]:
    tables = await (await connection.execute(_TABLES, [_quoted(connection, schema)])).fetchall()
    if dumped is None:
        return tuple([await _table(connection, schema, name, columns) for name, columns in tables])
    return tuple([await _counted(connection, schema, name, dumped.get(name)) for name, _ in tables])


async def _table(connection: Connection, schema: str, name: str, columns: Sequence[str]) -> TableFacts:
    """The table's rows and digest, from one stream."""
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (ENCODING {})").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(schema, name),
        sql.Literal(server_encoding(connection)),
    )
    digest = RowDigest()
    async with aclosing(copied(connection, statement.as_bytes(connection))) as pieces:
        async for rows in pieces:
            await asyncio.to_thread(digest.add, rows)
    return TableFacts(name, digest.rows, digest.digest())


async def _counted(connection: Connection, schema: str, name: str, found: RowDigest | None) -> TableFacts:
    """The table's rows and digest, from the dump, when that has as many rows as the table."""
    count = await _count(connection, schema, name)
    if found is None or found.rows != count:
        raise errors.BackupFailed(
            f"pg_dump ended well, but its dump has {found.rows if found else 'no'} rows of table {name}, and the"
            f" snapshot has {count}"
        )
    return TableFacts(name, found.rows, found.digest())


async def _count(connection: Connection, schema: str, name: str) -> int:
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None, "a count is one row"
    return int(row[0])
