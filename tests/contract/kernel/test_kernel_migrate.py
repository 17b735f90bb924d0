"""Migrations: each once, each whole, in order, by whichever process comes first."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.kernel.migrate import MigrationFailed, load, lock_key, migrate
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions, connect

PROCESSES = 4
PROGRAM = Path(__file__).with_name("migrate_process.py")
SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture
def options(database_url: str) -> PostgresOptions:
    return PostgresOptions(database_url, ssl_enabled=False)


@pytest_asyncio.fixture
async def connection(options: PostgresOptions) -> AsyncIterator[Connection]:
    async with await connect(options) as connection:
        yield connection


class Folder:
    """A folder of migrations."""

    def __init__(self, path: Path, options: PostgresOptions) -> None:
        self.path = path
        self.options = options

    def add(self, name: str, text: str, min_code_version: str = "0.1.0") -> Path:
        """Writes a migration."""
        path = self.path / name
        path.write_text(f"-- min_code_version: {min_code_version}\n{text}\n")
        return path

    async def migrate(self, *, code_version: str = "0.1.0", lock_wait_seconds: float = 60) -> list[str]:
        """Applies what is missing."""
        return await migrate(
            self.options,
            self.path,
            schema="kernel_test",
            code_version=code_version,
            lock_wait_seconds=lock_wait_seconds,
        )


@pytest.fixture
def folder(tmp_path: Path, options: PostgresOptions) -> Folder:
    folder = Folder(tmp_path, options)
    folder.add(
        "0001_first.sql", "CREATE TABLE kernel_test.one (a text DEFAULT '100%');\nCREATE TABLE kernel_test.two ();"
    )
    return folder


async def applied(connection: Connection) -> list[tuple[int, str]]:
    """Number and name of what is recorded."""
    cursor = await connection.execute("SELECT number, name FROM kernel_test.migrations ORDER BY number")
    return [(number, name) for number, name in await cursor.fetchall()]


async def test_once(folder: Folder, connection: Connection) -> None:
    """What is missing is applied in order; a second run applies nothing."""
    folder.add("0002_second.sql", "INSERT INTO kernel_test.one VALUES ('x')")

    assert await folder.migrate() == ["0001_first.sql", "0002_second.sql"]
    assert await folder.migrate() == []

    assert await applied(connection) == [(1, "first"), (2, "second")]
    cursor = await connection.execute("SELECT count(*) FROM kernel_test.one")
    assert await cursor.fetchone() == (1,)


async def test_later_files(folder: Folder, connection: Connection) -> None:
    """A file that is new is applied to tables that are there."""
    await folder.migrate()
    folder.add("0002_second.sql", "ALTER TABLE kernel_test.one ADD b text")

    assert await folder.migrate() == ["0002_second.sql"]


async def test_whole_or_not_at_all(folder: Folder, connection: Connection) -> None:
    """A file that fails leaves nothing of itself, and what came before stays; the message names it."""
    folder.add("0002_second.sql", "CREATE TABLE kernel_test.half ();\nSELECT 1/0;")

    with pytest.raises(MigrationFailed, match=r"0002_second.sql failed and was undone: division by zero"):
        await folder.migrate()

    assert await applied(connection) == [(1, "first")]
    cursor = await connection.execute("SELECT to_regclass('kernel_test.half'), to_regclass('kernel_test.one')::text")
    assert await cursor.fetchone() == (None, "kernel_test.one")


async def test_changed_file(folder: Folder) -> None:
    """A file that was applied may not change."""
    await folder.migrate()
    folder.add("0001_first.sql", "CREATE TABLE kernel_test.one ()")

    with pytest.raises(MigrationFailed, match=r"0001_first.sql is not the file that was applied"):
        await folder.migrate()


async def test_older_code(folder: Folder, connection: Connection) -> None:
    """Code older than any migration allows is refused, and told which version it takes."""
    second = folder.add("0002_second.sql", "SELECT 1", min_code_version="0.10.0")
    third = folder.add("0003_third.sql", "SELECT 1", min_code_version="0.9.0")
    await folder.migrate(code_version="0.10.0")
    second.unlink()
    third.unlink()

    with pytest.raises(MigrationFailed, match=r"0002_second.sql, which needs version 0.10.0 or later; this is 0.9.9"):
        await folder.migrate(code_version="0.9.9")
    assert await folder.migrate(code_version="0.11.0.dev1") == []


async def test_newer_tables(folder: Folder, connection: Connection) -> None:
    """Tables that newer code made are fine while they allow this code."""
    second = folder.add("0002_second.sql", "SELECT 1", min_code_version="0.1.0")
    await folder.migrate(code_version="0.2.0")
    second.unlink()

    assert await folder.migrate(code_version="0.1.0") == []


async def test_own_files_too_new(folder: Folder, connection: Connection) -> None:
    """A file that needs newer code than it comes with is refused before anything is applied."""
    folder.add("0002_second.sql", "SELECT 1", min_code_version="9.0.0")

    with pytest.raises(MigrationFailed, match=r"needs version 9\.0\.0; this is 0\.1\.0"):
        await folder.migrate()

    assert await applied(connection) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("second.sql", "-- min_code_version: 0.1.0\n", "is named like"),
        ("0003_third.sql", "-- min_code_version: 0.1.0\n", "0002 is missing or given twice"),
        ("0001_again.sql", "-- min_code_version: 0.1.0\n", "0002 is missing or given twice"),
        ("0002_second.sql", "SELECT 1;\n", "the first line must be"),
        ("0002_second.sql", "-- min_code_version: 1\n", "the first line must be"),
    ],
)
def test_folder(folder: Folder, name: str, text: str, message: str) -> None:
    """A folder that is not in order is refused with the file's name."""
    (folder.path / name).write_text(text)

    with pytest.raises(MigrationFailed, match=message):
        load(folder.path)


async def test_bounded_wait(folder: Folder, options: PostgresOptions) -> None:
    """A process that waits too long for another one's migration gives up with a message."""
    await folder.migrate()
    async with await connect(options) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", [lock_key("kernel_test")])

        with pytest.raises(MigrationFailed, match="another process has been migrating schema kernel_test"):
            await folder.migrate(lock_wait_seconds=0.05)

    assert await folder.migrate() == []


async def test_no_server(folder: Folder, free_port: Callable[[], int]) -> None:
    """Without a server it is DATABASE_UNAVAILABLE."""
    folder.options = PostgresOptions(f"postgresql://nobody@127.0.0.1:{free_port()}/none", ssl_enabled=False)

    with pytest.raises(errors.DatabaseUnavailable):
        await folder.migrate()


async def test_four_processes(folder: Folder, options: PostgresOptions, connection: Connection) -> None:
    """Four processes that start at once apply each file once, and all of them succeed."""
    folder.add("0002_second.sql", "INSERT INTO kernel_test.one VALUES ('x'); SELECT pg_sleep(0.1)")
    environment = {**os.environ, "PYTHONPATH": str(SHARED), "DATABASE_URL": options.url}
    command = (sys.executable, str(PROGRAM), str(folder.path))

    processes = [
        await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    answers = await asyncio.gather(*(process.communicate() for process in processes))

    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert sorted(name for output, _ in answers for name in output.decode().split()) == [
        "0001_first.sql",
        "0002_second.sql",
    ]
    assert await applied(connection) == [(1, "first"), (2, "second")]
    cursor = await connection.execute("SELECT count(*) FROM kernel_test.one")
    assert await cursor.fetchone() == (1,)
