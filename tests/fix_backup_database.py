"""A real registry's database with all kinds of content, for backups of it."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from deploy.local.postgres import Install
from deploy.local.postgres import Postgres as Server
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.postgres import Postgres
from services.backup.adapters import client_programs
from services.backup.adapters.postgres_source import PostgresSource
from services.registry.adapters.postgres_store import PostgresStore
from tests.fix_registry import postgres_options
from tests.registry_author import Author
from tests.registry_history import outcome, step

CONTENT_TEMPLATE = "registry_with_content"
STAND_INS = Path(__file__).resolve().parent / "stand_in_programs"
STEPS = 150
ODD_TEXTS = ("", "a\tb\nc\\d\re\x01", "\\N", "ünï → 😀 \u202e", "'\"{},$$", "x" * 70_000)

_ODD = """
INSERT INTO registry.subjects (name, revision, next_number, settings, stored_count, live_count, create_time,
    update_time)
VALUES (%(name)s, 1, 2, %(json)s, 1, 1, now(), '-infinity')
"""
_ODD_CONTENT = """
INSERT INTO registry.schemas (id, format, text, identity, semantic, create_time, dialect)
SELECT nextval('registry.schema_ids'), 1, %(text)s, '\\x00ff0a5c'::bytea || convert_to(%(name)s, 'UTF8'), '\\x0a0d5c',
    '0044-03-15 BC', %(name)s
"""
_ODD_VERSION = """
INSERT INTO registry.versions (subject, number, schema_id, state, description, owner, tags, metadata, words,
    create_time, update_time)
SELECT %(name)s, 1, max(id), 2, %(text)s, '', ARRAY[%(name)s, %(text)s, NULL], %(json)s,
    to_tsvector('simple', 'a:b c ''d'), now(), now()
FROM registry.schemas
"""


@pytest_asyncio.fixture(scope="session")
async def content_template(postgres: Server, registry_template: str) -> str:
    """Name of a database with a registry of some history and odd texts. Nobody is connected to it."""
    url = postgres.create_database(CONTENT_TEMPLATE, template=registry_template)
    async with Postgres(postgres_options(url)) as database:
        author, rng = Author(PostgresStore(database)), random.Random(0)
        for _ in range(STEPS):
            await outcome(step(rng)(author))
    with psycopg.connect(url) as connection:
        for number, text in enumerate(ODD_TEXTS):
            values = {"name": f"odd {number} ç", "text": text, "json": '{"\\u00e9 ": [1.50, null, "\\\\n"]}'}
            for statement in (_ODD, _ODD_CONTENT, _ODD_VERSION):
                connection.execute(statement, values)
    return CONTENT_TEMPLATE


@pytest.fixture
def content_url(content_template: str, make_database: Callable[..., str]) -> str:
    """URL of a fresh copy of the database with content."""
    return make_database(template=content_template)


@pytest.fixture
def program_folders(postgres_install: Install) -> list[Path]:
    """Where the client programs of the test servers are."""
    return [postgres_install.bin]


Restore = Callable[[str, Sequence[bytes]], Awaitable[None]]


@pytest.fixture
def restore(postgres_install: Install) -> Restore:
    """Loads a dump into an empty database as an operator would: `await restore(url, pieces)`."""

    async def load(url: str, pieces: Sequence[bytes]) -> None:
        program = str(postgres_install.bin / "pg_restore")
        process = await asyncio.create_subprocess_exec(
            *(program, "--exit-on-error", "-d", url), stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _, said = await process.communicate(b"".join(pieces))
        assert process.returncode == 0, said.decode()

    return load


@pytest_asyncio.fixture
async def source(content_url: str, program_folders: list[Path]) -> AsyncIterator[PostgresSource]:
    """The database with content, as the source of backups."""
    async with PostgresSource(postgres_options(content_url), program_folders, SystemClock()) as source:
        yield source


@pytest.fixture
def role(postgres: Server) -> Iterator[str]:
    """A role without any right, which may not log in. Ask for it before databases that it will own parts of."""
    name = f"role_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name}".encode())
    yield name
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}".encode())


MakeStandIns = Callable[..., Path]


@pytest.fixture
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> MakeStandIns:
    """Makes a folder of client programs that misbehave: `stand_ins("stalls", version="15.1")`.

    The behaviours are files of tests/stand_in_programs.
    """

    def make(behaviour: str = "empty", *, version: str) -> Path:
        folder = tmp_path_factory.mktemp("stand-ins")
        (folder / "version").write_text(version)
        shutil.copy(STAND_INS / f"{behaviour}.sh", folder / "behaviour")
        for name in ("pg_dump", "pg_restore", "psql"):
            shutil.copy(STAND_INS / "program.sh", folder / name)
            (folder / name).chmod(0o755)
        return folder

    return make


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the client programs of this machine."""
    monkeypatch.setattr(client_programs, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(client_programs, "WHEEL", "no_such_wheel")
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("PG_BINDIR", raising=False)
