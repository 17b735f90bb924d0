"""The registry's own tools as child processes, and what tests compare before and after them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from llm_schema_registry.registry.v1.stored_change_pb2 import StoredChange
from tests.fix_service import ROOT

TABLES = (
    *("schemas", "schema_references", "subjects", "versions", "version_references"),
    *("changes", "head", "epochs", "request_ids"),
)
_CHANGES = """
SELECT epoch, position, time, actor, subject, kind, method, request_id, digest, payload_version, payload
FROM registry.changes WHERE position > %s ORDER BY position
"""


@dataclass(frozen=True)
class Said:
    """How a tool ended. result: the last line."""

    status: int
    lines: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        return self.lines[-1]


def environment(url: str) -> dict[str, str]:
    """A tool's environment: the database, and nothing else of a registry."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCHEMA_REGISTRY")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)]),
        "SCHEMA_REGISTRY__DATABASE__URL": url,
        "SCHEMA_REGISTRY__DATABASE__SSL_ENABLED": "false",
    }


async def start(url: str, *arguments: str) -> asyncio.subprocess.Process:
    """A tool that runs: whoever starts it ends it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.registry", *arguments),
        env=environment(url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def run(url: str, *arguments: str, given: bytes = b"") -> Said:
    """What a tool said of its input."""
    process = await start(url, *arguments)
    try:
        output, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, [json.loads(line) for line in output.splitlines()])


async def replay(url: str, changes: Sequence[StoredChange], *arguments: str) -> Said:
    """What `replay` said of changes."""
    return await run(url, "replay", *arguments, given=delimited(changes))


def delimited(changes: Sequence[StoredChange]) -> bytes:
    """The changes as the tool reads them: each after its length, a varint."""
    return b"".join(_varint(len(stored)) + stored for stored in (change.SerializeToString() for change in changes))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


async def changes(url: str, after: int = 0) -> list[StoredChange]:
    """The history of a database, after a position."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        rows = await (await connection.execute(_CHANGES, [after])).fetchall()
    found = []
    for epoch, position, time, actor, subject, kind, method, request_id, digest, payload_version, payload in rows:
        change = StoredChange(epoch=epoch, position=position, actor=actor, subject=subject, kind=kind)
        change.time.FromDatetime(time)
        change.payload_version, change.payload = payload_version, payload
        if method is not None:
            change.request.method, change.request.request_id, change.request.digest = method, request_id, digest
        found.append(change)
    return found


async def tables(url: str, schema: str = "registry") -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, as text, in an order that depends on nothing but them."""
    found = {}
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET timezone = 'UTC'")
        for table in TABLES:
            statement = sql.SQL('SELECT t::text FROM {} AS t ORDER BY t::text COLLATE "C"').format(
                sql.Identifier(schema, table)
            )
            found[table] = await (await connection.execute(statement)).fetchall()
    return found


async def execute(url: str, *statements: str) -> None:
    """Runs statements, each committed."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


async def value(url: str, statement: str) -> Any:
    """The first column of the first row."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(statement.encode())).fetchone()
    assert row is not None
    return row[0]
