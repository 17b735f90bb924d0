"""Brings a database's tables to what the code needs: numbered SQL files, each once, each one transaction.

A file is named `0001_what_it_does.sql` and begins with the line `-- min_code_version: 0.1.0`: older code must not run
on the tables that it leaves behind. A file that was applied never changes: its checksum is recorded with it, in the
table `migrations` of the service's own PostgreSQL schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from llm_schema_registry.kernel.postgres import Connection, PostgresOptions, connect, translated

LOCK_WAIT_SECONDS = 120.0
"""How long a process waits while another one migrates."""
STATEMENT_LOCK_SECONDS = 10.0
"""How long a migration waits for a table that is in use; behind it, all other users of the table wait."""

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_HEADER = re.compile(r"-- min_code_version: (?P<version>\d+\.\d+\.\d+)\n")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_LOCK_NOT_AVAILABLE = "55P03"

Version = tuple[int, int, int]


class MigrationFailed(Exception):
    """The tables are not what this code needs; the message tells the operator what to do. Nothing is half applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, or one that was recorded as applied. checksum: SHA-256 of the file, hexadecimal."""

    number: int
    name: str
    checksum: str
    min_code_version: str
    text: str = ""

    @property
    def title(self) -> str:
        """The file's name."""
        return f"{self.number:04}_{self.name}.sql"


def load(folder: Path) -> list[Migration]:
    """The folder's migrations by number. Raises MigrationFailed for a misnamed file, a gap or a missing header."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        content = path.read_bytes()
        text = content.decode()
        name, header = _FILE.fullmatch(path.name), _HEADER.match(text)
        if name is None:
            raise MigrationFailed(f"{path.name}: a migration is named like 0001_what_it_does.sql")
        if header is None:
            raise MigrationFailed(f"{path.name}: the first line must be like `-- min_code_version: 0.1.0`")
        checksum = hashlib.sha256(content).hexdigest()
        found.append(Migration(int(name["number"]), name["name"], checksum, header["version"], text))
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationFailed(f"{migration.title}: number {expected:04} is missing or given twice")
    return found


def lock_key(schema: str) -> int:
    """Key of the advisory lock under which the schema's migrations run."""
    digest = hashlib.sha256(f"llm_schema_registry migrations {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def migrate(
    options: PostgresOptions,
    folder: Path,
    *,
    schema: str,
    code_version: str,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
) -> list[str]:
    """Applies what is missing and returns the names of those files.

    schema: the PostgreSQL schema that the service owns; made when missing. code_version: of the running code.
    May run in many processes at once: one works, the others wait for it, at most lock_wait_seconds. Tables that newer
    code made are fine as long as they allow this code version. Raises MigrationFailed, DatabaseUnavailable.
    """
    files = load(folder)
    connection = await connect(options, statement_timeout_seconds=0)
    async with connection:
        with translated():
            await _lock(connection, schema, lock_wait_seconds)
            await _make_table(connection, schema)
            recorded = await _recorded(connection, schema)
            _check(files, recorded, code_version)
            missing = files[len(recorded) :]
            for migration in missing:
                await _apply(connection, schema, migration)
    return [migration.title for migration in missing]


async def _lock(connection: Connection, schema: str, wait_seconds: float) -> None:
    """Takes the advisory lock of the schema's migrations, which the end of the session gives back."""
    await _set_lock_timeout(connection, wait_seconds)
    try:
        await connection.execute("SELECT pg_advisory_lock(%s)", [lock_key(schema)])
    except psycopg.errors.LockNotAvailable:
        raise MigrationFailed(
            f"another process has been migrating schema {schema} for {wait_seconds:g} seconds: wait for it, or end it"
        ) from None
    await _set_lock_timeout(connection, STATEMENT_LOCK_SECONDS)


async def _set_lock_timeout(connection: Connection, seconds: float) -> None:
    milliseconds = max(1, round(seconds * 1000))
    await connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(milliseconds)])


async def _make_table(connection: Connection, schema: str) -> None:
    """Makes the schema and its table of migrations, unless they are there."""
    cursor = await connection.execute("SELECT to_regclass(%s)", [f"{schema}.migrations"])
    if await cursor.fetchone() != (None,):
        return
    names = {"schema": sql.Identifier(schema), "table": sql.Identifier(schema, "migrations")}
    statement = """
        CREATE SCHEMA IF NOT EXISTS {schema};
        CREATE TABLE {table} (
            number integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            min_code_version text NOT NULL,
            applied_time timestamptz NOT NULL DEFAULT now()
        )
    """
    try:
        await connection.execute(sql.SQL(statement).format(**names))
    except psycopg.Error as error:
        raise MigrationFailed(f"schema {schema} cannot be made: {error.diag.message_primary}") from error


async def _recorded(connection: Connection, schema: str) -> list[Migration]:
    """What was applied, by number."""
    statement = "SELECT number, name, checksum, min_code_version FROM {} ORDER BY number"
    cursor = await connection.execute(sql.SQL(statement).format(sql.Identifier(schema, "migrations")))
    return [Migration(*row) for row in await cursor.fetchall()]


def _check(files: Sequence[Migration], recorded: Sequence[Migration], code_version: str) -> None:
    """Raises MigrationFailed unless this code may run on these tables, and its files are what made them."""
    newest = max(recorded, key=lambda migration: _parsed(migration.min_code_version), default=None)
    if newest is not None and _parsed(newest.min_code_version) > _parsed(code_version):
        raise MigrationFailed(
            f"the database has migration {newest.title}, which needs version {newest.min_code_version} or later; "
            f"this is {code_version}: start a later version, or restore a backup from before the migration"
        )
    for expected, migration in enumerate(recorded, start=1):
        if migration.number != expected:
            raise MigrationFailed(f"the database has {migration.title} but not number {expected:04}: restore a backup")
    for migration, applied in zip(files, recorded, strict=False):
        if (migration.name, migration.checksum) != (applied.name, applied.checksum):
            raise MigrationFailed(
                f"{migration.title} is not the file that was applied as {applied.title} (checksum "
                f"{migration.checksum[:12]}, applied {applied.checksum[:12]}): put the applied file back, and make the "
                "change in a new migration"
            )
    for migration in files[len(recorded) :]:
        if _parsed(migration.min_code_version) > _parsed(code_version):
            raise MigrationFailed(
                f"{migration.title} needs version {migration.min_code_version}; this is {code_version}"
            )


def _parsed(version: str) -> Version:
    """The numbers of a version; what follows them (`.dev1`, `+local`) does not count."""
    match = _VERSION.match(version)
    if match is None:
        raise MigrationFailed(f"{version!r} is not a version like 0.1.0")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


async def _apply(connection: Connection, schema: str, migration: Migration) -> None:
    """Runs one file and records it, both or neither."""
    record = "INSERT INTO {} (number, name, checksum, min_code_version) VALUES (%s, %s, %s, %s)"
    try:
        async with connection.transaction():
            # Without parameters the text may hold several statements.
            await connection.execute(migration.text.encode())
            await connection.execute(
                sql.SQL(record).format(sql.Identifier(schema, "migrations")),
                [migration.number, migration.name, migration.checksum, migration.min_code_version],
            )
    except psycopg.Error as error:
        hint = ": a table it needs is in use, try again" if error.sqlstate == _LOCK_NOT_AVAILABLE else ""
        reason = error.diag.message_primary or "the connection was lost"
        raise MigrationFailed(f"{migration.title} failed and was undone: {reason}{hint}") from error
