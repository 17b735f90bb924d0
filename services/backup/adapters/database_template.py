"""Makes a database as another one is: what pg_dump of one database leaves to whoever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from llm_schema_registry.kernel.postgres import Connection
from services.backup.domain.model import DatabaseFacts

LOCALE_COLUMN_SINCE = 17_00_00
"""Majors from 17 keep the locale of ICU and of the built-in provider in `datlocale`, those before only ICU's."""
PROVIDER_SINCE = 15_00_00

_DATABASE: LiteralString = """
SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba)::text, datconnlimit, {provider},
    {locale}, datacl IS NOT NULL
FROM pg_catalog.pg_database WHERE datname = %s
"""
_GRANTS = """
SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
FROM pg_catalog.pg_database, aclexplode(datacl) AS a WHERE datname = %s
"""
_SETTINGS = """
SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole)::text END, c.setting
FROM pg_catalog.pg_db_role_setting
JOIN pg_catalog.pg_database AS d ON d.oid = setdatabase
CROSS JOIN unnest(setconfig) WITH ORDINALITY AS c (setting, ordinal)
WHERE d.datname = %s ORDER BY setrole, ordinal
"""
_LOCALE_OPTIONS: Mapping[str, LiteralString] = {
    "i": "LOCALE_PROVIDER icu ICU_LOCALE {}",
    "b": "LOCALE_PROVIDER builtin BUILTIN_LOCALE {}",
}


async def create_like(session: Connection, name: str, pattern: str, facts: DatabaseFacts) -> None:
    """Makes an empty database with a backup's encoding and collation, and the owner, grants and settings of `pattern`.

    When there is no `pattern`: owned by the session's role, as open as new databases are. One that is there is an error
    of the driver. What fails after the creation leaves the database behind, for its maker to drop.
    """
    found = await _described(session, pattern)
    await session.execute(_creation(name, found, facts))
    if found is None:
        return
    if found.granted:
        await _grant(session, name, pattern)
    await _set(session, name, pattern)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A database that is there. provider: of its locale; locale: unless that is the C library's."""

    encoding: str
    collation: str
    character_type: str
    owner: str
    connections: int
    provider: str
    locale: str | None
    granted: bool


async def _described(session: Connection, pattern: str) -> _Pattern | None:
    version = session.info.server_version
    provider: LiteralString = "datlocprovider::text" if version >= PROVIDER_SINCE else "'c'"
    locale: LiteralString = "NULL"
    if version >= LOCALE_COLUMN_SINCE:
        locale = "datlocale"
    elif version >= PROVIDER_SINCE:
        locale = "daticulocale"
    statement = sql.SQL(_DATABASE).format(provider=sql.SQL(provider), locale=sql.SQL(locale))
    row = await (await session.execute(statement, [pattern])).fetchone()
    return _Pattern(*row) if row is not None else None


def _creation(name: str, found: _Pattern | None, facts: DatabaseFacts) -> sql.Composed:
    parts = [
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
            sql.Identifier(name),
            sql.Literal(facts.encoding),
            sql.Literal(facts.collation),
            sql.Literal(facts.character_type),
        )
    ]
    if found is None:
        return sql.SQL(" ").join(parts)
    parts.append(
        sql.SQL("OWNER {} CONNECTION LIMIT {}").format(sql.Identifier(found.owner), sql.Literal(found.connections))
    )
    same = (found.encoding, found.collation, found.character_type) == (
        facts.encoding,
        facts.collation,
        facts.character_type,
    )
    if same and found.provider in _LOCALE_OPTIONS:
        parts.append(sql.SQL(_LOCALE_OPTIONS[found.provider]).format(sql.Literal(found.locale)))
    return sql.SQL(" ").join(parts)


async def _grant(session: Connection, name: str, pattern: str) -> None:
    """Gives the same rights to the same roles. Without any of its own a database has the default ones."""
    database = sql.Identifier(name)
    await session.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    grants: Sequence[Any] = await (await session.execute(_GRANTS, [pattern])).fetchall()
    for role, privilege, grantable in grants:
        statement = sql.SQL("GRANT {} ON DATABASE {} TO {} {}").format(
            sql.SQL(privilege),
            database,
            sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
            sql.SQL("WITH GRANT OPTION" if grantable else ""),
        )
        await session.execute(statement)


async def _set(session: Connection, name: str, pattern: str) -> None:
    """Gives sessions the same settings, by way of this session's: lists among them are quoted in ways of their own."""
    settings: Sequence[Any] = await (await session.execute(_SETTINGS, [pattern])).fetchall()
    for role, setting in settings:
        option, _, value = setting.partition("=")
        whose = sql.SQL("DATABASE {}").format(sql.Identifier(name))
        if role is not None:
            whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(name))
        async with session.transaction():
            await session.execute("SELECT set_config(%s, %s, true)", [option, value])
            await session.execute(
                sql.SQL("ALTER {} SET {} FROM CURRENT").format(whose, sql.SQL(".").join(_identifiers(option)))
            )


def _identifiers(option: str) -> list[sql.Identifier]:
    """The parts of a setting's name: those of extensions have two."""
    return [sql.Identifier(part) for part in option.split(".")]
