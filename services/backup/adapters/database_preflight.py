"""What would keep a backup from being restored beside the live database, asked of the server. Changes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection
from services.backup.adapters.client_programs import find_programs
from services.backup.adapters.database_roles import missing_roles
from services.backup.domain.model import DatabaseFacts

ROOM_FACTOR = 1.3
"""Of the backup's database: its indexes are built beside its tables, and its log is kept for a while."""

_ROLE = """
SELECT current_user::text, rolsuper, rolcreatedb, pg_has_role('pg_signal_backend', 'USAGE'), pg_is_in_recovery()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_LIVE = """
SELECT pg_get_userbyid(datdba)::text, pg_has_role(datdba, 'MEMBER'), pg_encoding_to_char(encoding)
FROM pg_catalog.pg_database WHERE datname = %s
"""
_STRANGERS = """
SELECT DISTINCT pg_get_userbyid(usesysid)::text FROM pg_catalog.pg_stat_activity
JOIN pg_catalog.pg_roles ON pg_roles.oid = usesysid
WHERE datname = %s AND (rolsuper OR NOT (%s OR pg_has_role(usesysid, 'USAGE')))
"""
_EXTENSIONS = """
SELECT wanted.name, a.name IS NOT NULL, coalesce(bool_or(v.trusted OR NOT v.superuser), false)
FROM unnest(%s::text[]) AS wanted (name)
LEFT JOIN pg_catalog.pg_available_extensions AS a ON a.name = wanted.name
LEFT JOIN pg_catalog.pg_available_extension_versions AS v ON v.name = wanted.name AND v.version = a.default_version
GROUP BY wanted.name, a.name ORDER BY wanted.name
"""
_ALWAYS_THERE = "plpgsql"
_DATA_FOLDER = """
SELECT setting FROM pg_catalog.pg_settings
WHERE name = 'data_directory' AND (inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr())
"""


async def preflight(
    session: Connection, live: str, facts: DatabaseFacts, folders: Sequence[Path], *, databases: bool = True
) -> Sequence[str]:
    """As Places.preflight. databases: places are databases, so they must be made, renamed and emptied of sessions."""
    problems = [problem async for problem in _server(session, facts, folders)]
    role = await (await session.execute(_ROLE)).fetchone()
    assert role is not None, "a session has a role"
    name, is_superuser, creates, signals, standby = role
    if standby:
        problems.append("the server is a standby, which cannot be written: name the primary")
    if databases and not (is_superuser or creates):
        problems.append(f"role {name} may not create databases: ALTER ROLE {name} CREATEDB")
    problems += [problem async for problem in _live(session, live, facts, name if databases else None)]
    if databases and not is_superuser:
        strangers = await (await session.execute(_STRANGERS, [live, signals])).fetchall()
        problems += [
            f"role {name} may not end the sessions of {stranger}: GRANT pg_signal_backend TO {name}, or let no"
            " superuser be connected"
            for (stranger,) in strangers
        ]
    problems += [problem async for problem in _extensions(session, facts, is_superuser=is_superuser)]
    missing = await missing_roles(session, facts.roles)
    problems += [f"the backup needs the role {name}, which this server does not have: create it" for name in missing]
    problems += await _room(session, facts)
    return problems


async def _server(session: Connection, facts: DatabaseFacts, folders: Sequence[Path]) -> AsyncIterator[str]:
    version = session.info.server_version
    if facts.server_major > version // 10_000:
        yield (
            f"the backup is of PostgreSQL {facts.server_version}, the server is {version // 10_000}:"
            " restore it into a server of the same major or a later one"
        )
    try:
        await asyncio.to_thread(find_programs, version, folders)
    except errors.ToolMismatch as error:
        yield error.message


async def _live(session: Connection, live: str, facts: DatabaseFacts, role: str | None) -> AsyncIterator[str]:
    """role: that must own it; None when nobody need."""
    found: tuple[Any, ...] | None = await (await session.execute(_LIVE, [live])).fetchone()
    if found is None:
        return  # It is made as the backup's was.
    owner, owns, encoding = found
    if role is not None and not owns:
        yield f"role {role} does not own the database {live}, {owner} does: GRANT {owner} TO {role}"
    if encoding != facts.encoding:
        yield f"the backup is in encoding {facts.encoding}, the database {live} in {encoding}"


async def _extensions(session: Connection, facts: DatabaseFacts, *, is_superuser: bool) -> AsyncIterator[str]:
    names = [name for name, _ in facts.extensions if name != _ALWAYS_THERE]
    for name, available, allowed in await (await session.execute(_EXTENSIONS, [names])).fetchall():
        if not available:
            yield f"the backup needs the extension {name}, which this server does not have: install it"
        elif not (allowed or is_superuser):
            yield f"the backup needs the extension {name}, which only a superuser may create"


async def _room(session: Connection, facts: DatabaseFacts) -> Sequence[str]:
    """Asked of the file system when the server is on this machine and says where its data is."""
    needed = int(facts.database_bytes * ROOM_FACTOR)
    found = await (await session.execute(_DATA_FOLDER)).fetchone()
    if found is None:
        return []
    free = await asyncio.to_thread(_free_bytes, Path(found[0]))
    if free is None or free >= needed:
        return []
    return [f"the restore needs {needed} bytes of disk, the server has {free}: make room, or restore elsewhere"]


def _free_bytes(folder: Path) -> int | None:
    """What is left where a server keeps its data; None when that is not here, or not ours to see."""
    try:
        if not (folder / "PG_VERSION").is_file():
            return None
        state = os.statvfs(folder)
    except OSError:
        return None
    return state.f_bavail * state.f_frsize
