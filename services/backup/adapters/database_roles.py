"""The roles that a registry's schema cannot be restored without."""

from __future__ import annotations

from llm_schema_registry.kernel.postgres import Connection
from services.backup.domain.manifest import ROLES_MAX

# Who owns something, grants it or was granted it. What belongs to an extension comes with that, not with the dump.
_ROLES = """
WITH wanted AS (SELECT %s::regnamespace AS space),
things AS (
    SELECT 'pg_namespace'::regclass AS class, oid, nspowner AS owner, nspacl AS grants
    FROM pg_catalog.pg_namespace JOIN wanted ON oid = space
    UNION ALL
    SELECT 'pg_class'::regclass, oid, relowner, relacl
    FROM pg_catalog.pg_class JOIN wanted ON relnamespace = space
    WHERE relkind IN ('r', 'p', 'S', 'v', 'm', 'f')
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, relowner, attacl
    FROM pg_catalog.pg_class c JOIN wanted ON relnamespace = space
    JOIN pg_catalog.pg_attribute ON attrelid = c.oid
    WHERE attacl <> '{}' AND NOT attisdropped
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proowner, proacl
    FROM pg_catalog.pg_proc JOIN wanted ON pronamespace = space
    UNION ALL
    SELECT 'pg_type'::regclass, oid, typowner, typacl
    FROM pg_catalog.pg_type JOIN wanted ON typnamespace = space
    WHERE typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT 'pg_default_acl'::regclass, oid, defaclrole, defaclacl
    FROM pg_catalog.pg_default_acl JOIN wanted ON defaclnamespace = space
),
named AS (
    SELECT role FROM things
    CROSS JOIN LATERAL (
        SELECT owner AS role
        UNION ALL
        SELECT unnest(ARRAY[grantor, grantee]) FROM aclexplode(grants)
    ) AS roles
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend
        WHERE classid = things.class AND objid = things.oid AND deptype = 'e'
    )
    UNION ALL
    SELECT unnest(polroles)
    FROM pg_catalog.pg_policy
    JOIN pg_catalog.pg_class c ON c.oid = polrelid
    JOIN wanted ON relnamespace = space
)
SELECT DISTINCT rolname::text COLLATE "C"
FROM named JOIN pg_catalog.pg_roles ON oid = role
ORDER BY 1 LIMIT %s
"""
_MISSING = "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regrole(quote_ident(name)) IS NULL ORDER BY 1"


async def read_roles(connection: Connection, schema: str) -> tuple[str, ...]:
    """Names of the roles that own something in a schema, have a right there or gave one, by name; ROLES_MAX at most.

    schema: quoted where it must be.
    """
    found = await (await connection.execute(_ROLES, [schema, ROLES_MAX])).fetchall()
    return tuple(name for (name,) in found)


async def missing_roles(connection: Connection, names: tuple[str, ...]) -> list[str]:
    """Those that the server has not."""
    found = await (await connection.execute(_MISSING, [list(names)])).fetchall()
    return [name for (name,) in found]
