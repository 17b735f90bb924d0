"""The pool: errors in our words, repeats that are safe, recovery by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import ATTEMPTS_MAX, Connection, Postgres, PostgresOptions
from tests.fix_postgres import OwnPostgres

SLEEPING = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%pg_sleep(60)%%' AND pid <> %s"


@pytest.fixture
def options(database_url: str) -> PostgresOptions:
    return PostgresOptions(database_url, pool_min=1, pool_max=2, ssl_enabled=False)


@pytest_asyncio.fixture
async def database(options: PostgresOptions) -> AsyncIterator[Postgres]:
    async with Postgres(options, jitter=random.Random(0)) as database:
        yield database


async def sleeper(observer: Connection) -> int:
    """Process id of the backend that sleeps, as soon as there is one."""
    while True:
        cursor = await observer.execute(SLEEPING, [observer.info.backend_pid])
        if row := await cursor.fetchone():
            return int(row[0])


async def sleep(connection: Connection) -> str:
    """A query that never ends by itself."""
    await connection.execute("SELECT pg_sleep(60)")
    return "slept"


def hurry(database: Postgres, seconds: float) -> None:
    """Shortens the wait for a connection of a pool that has one: to make the first one may take longer."""
    database.options = replace(database.options, connection_timeout_seconds=seconds)


async def fails_with(connection: Connection, state: str) -> None:
    """A query that PostgreSQL ends with an SQLSTATE."""
    await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$".encode())


@pytest.mark.parametrize(
    ("url", "ssl_enabled", "root", "expected"),
    [
        ("postgresql://host/db", True, None, "require"),
        ("postgresql://host/db?sslmode=disable", True, None, "require"),
        ("postgresql://host/db?sslmode=verify-full", True, None, "verify-full"),
        ("postgresql://host/db?sslmode=prefer", True, Path("/ca.pem"), "verify-full"),
        ("postgresql://host/db", False, Path("/ca.pem"), "disable"),
    ],
)
def test_tls(url: str, ssl_enabled: bool, root: Path | None, expected: str) -> None:
    """TLS is never weaker than the settings say."""
    options = PostgresOptions(url, ssl_enabled=ssl_enabled, ssl_root_cert_path=root)

    given = psycopg.conninfo.conninfo_to_dict(options.conninfo())

    assert given["sslmode"] == expected
    assert given.get("sslrootcert") == (str(root) if expected == "verify-full" and root else None)


def test_secrets() -> None:
    """Neither the options nor an error about the URL show it."""
    options = PostgresOptions("postgresql://user:secret@host/db?nonsense=1")

    with pytest.raises(ValueError, match="not a libpq connection URI") as refused:
        options.conninfo()

    assert "secret" not in repr(options) + str(refused.value)


async def test_session(options: PostgresOptions, database: Postgres) -> None:
    """A connection is in autocommit, in UTC, with the statement timeout and the application's name."""
    async with database.connection() as connection:
        assert connection.autocommit
        cursor = await connection.execute(
            "SELECT current_setting('timezone'), current_setting('statement_timeout'), "
            "current_setting('application_name')"
        )
        assert await cursor.fetchone() == ("UTC", "30s", options.application_name)


async def test_url_options_stay(options: PostgresOptions) -> None:
    """Session settings that the URL gives stay in force beside ours."""
    url = f"{options.url}?options=-c%20work_mem%3D5MB"

    async with Postgres(replace(options, url=url)) as database, database.connection() as connection:
        cursor = await connection.execute("SELECT current_setting('work_mem'), current_setting('timezone')")
        assert await cursor.fetchone() == ("5MB", "UTC")


async def test_statement_timeout(options: PostgresOptions) -> None:
    """A statement that takes too long is DEADLINE, and its connection works on."""
    async with Postgres(replace(options, statement_timeout_seconds=0.3, pool_max=1)) as database:
        with pytest.raises(errors.Deadline):
            await database.read(sleep)
        await database.check()


async def test_exhausted(options: PostgresOptions) -> None:
    """When no connection becomes free in time it is POOL_EXHAUSTED, with a time to repeat after."""
    async with Postgres(replace(options, pool_max=1)) as database:
        async with database.connection():
            hurry(database, 0.1)
            with pytest.raises(errors.PoolExhausted) as refused:
                await database.check()
            assert database.measure().idle == 0
        await database.check()

    assert refused.value.retry_seconds


async def test_a_busy_pool_is_no_database_that_is_gone(options: PostgresOptions) -> None:
    """With every connection taken the check believes the last answer while it is young, and then asks in vain."""
    async with Postgres(replace(options, pool_max=1)) as database:
        await database.check()
        async with database.connection():
            hurry(database, 0.2)
            await database.check()
            async with asyncio.timeout(10):
                while True:
                    try:
                        await database.check()
                    except errors.PoolExhausted:
                        break
                    await asyncio.sleep(0.05)


async def test_queue_is_bounded(options: PostgresOptions) -> None:
    """More callers than may wait are refused at once."""
    async with Postgres(replace(options, pool_max=1, waiting_max=1)) as database, asyncio.TaskGroup() as group:
        async with database.connection():
            waiter = group.create_task(database.check())
            async with asyncio.timeout(10):
                while database.measure().waiting != 1:  # noqa: ASYNC110 - a place in the queue is told by nobody
                    await asyncio.sleep(0)
            with pytest.raises(errors.PoolExhausted):
                await database.check()
        await waiter


async def test_no_server(options: PostgresOptions, free_port: Callable[[], int]) -> None:
    """Without a server it is DATABASE_UNAVAILABLE: first within the timeout, then fast."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with Postgres(replace(options, url=url, connection_timeout_seconds=2)) as database:
        for _ in range(2):
            with pytest.raises(errors.DatabaseUnavailable) as refused:
                await database.check()

    assert refused.value.retry_seconds
    assert "127.0.0.1" not in refused.value.message


async def test_restart(own_postgres: Callable[..., OwnPostgres]) -> None:
    """While the server is away it is DATABASE_UNAVAILABLE; when it is back the same pool serves at once, writes too."""
    server = own_postgres()
    options = PostgresOptions(server.url, pool_min=4, pool_max=4, ssl_enabled=False)
    async with Postgres(options) as database:
        await asyncio.gather(*(database.check() for _ in range(8)))

        await server.stop_async()
        with pytest.raises(errors.DatabaseUnavailable):
            await database.check()
        await server.start_async()
        await database.check()

        await server.stop_async()
        await server.start_async()
        for _ in range(4):
            async with database.connection() as connection:
                await connection.execute("CREATE TEMPORARY TABLE written () ON COMMIT DROP")


async def test_broken_read_is_repeated(database: Postgres) -> None:
    """A read whose connection is ended is done again on another one."""
    calls = 0

    async def read(connection: Connection) -> str:
        nonlocal calls
        calls += 1
        return await sleep(connection) if calls == 1 else "read"

    async with database.connection() as observer:
        reading = asyncio.create_task(database.read(read))
        await observer.execute("SELECT pg_terminate_backend(%s)", [await sleeper(observer)])

        assert await reading == "read"


async def test_broken_write_is_not_repeated(database: Postgres) -> None:
    """A transaction whose connection is ended may have happened: DATABASE_UNAVAILABLE."""
    async with database.connection() as observer:
        writing = asyncio.create_task(database.transact(sleep))
        await observer.execute("SELECT pg_terminate_backend(%s)", [await sleeper(observer)])

        with pytest.raises(errors.DatabaseUnavailable):
            await writing
    await database.check()


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_conflicts_are_repeated(database: Postgres, state: str) -> None:
    """A transaction that PostgreSQL ends because of others is done again."""
    calls = 0

    async def write(connection: Connection) -> int:
        nonlocal calls
        calls += 1
        if calls < ATTEMPTS_MAX:
            await fails_with(connection, state)
        return calls

    assert await database.transact(write) == ATTEMPTS_MAX


async def test_conflicts_end(database: Postgres) -> None:
    """One that is always in the way of others ends as DATABASE_UNAVAILABLE, after a bounded number of attempts."""
    calls = 0

    async def write(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        await fails_with(connection, "40001")

    with pytest.raises(errors.DatabaseUnavailable):
        await database.transact(write)
    assert calls == ATTEMPTS_MAX


@pytest.mark.parametrize("state", ["57P01", "57P03", "53300", "08006"])
async def test_unavailable_states(database: Postgres, state: str) -> None:
    """What an operator does to a server is DATABASE_UNAVAILABLE, and its words stay inside."""
    with pytest.raises(errors.DatabaseUnavailable) as refused:
        async with database.connection() as connection:
            await fails_with(connection, state)

    assert refused.value.message == "the database cannot be reached: repeat later"


@pytest.mark.parametrize(
    ("state", "told"), [*[(each, f"SQLSTATE {each}") for each in ("53100", "53200", "58030")], ("25006", "standby")]
)
async def test_a_server_that_is_wanting(database: Postgres, state: str, told: str) -> None:
    """A full disk, or a standby, is no defect: DATABASE_UNAVAILABLE, to be repeated later and not at once."""
    calls = 0

    async def read(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        await fails_with(connection, state)

    with pytest.raises(errors.DatabaseUnavailable, match=told) as refused:
        await database.read(read)
    assert refused.value.retry_seconds == 1
    assert calls == 1


async def test_defects_stay(database: Postgres) -> None:
    """A statement that is wrong is a defect of ours and not translated."""
    with pytest.raises(psycopg.errors.UndefinedTable):
        await database.read(lambda connection: connection.execute("SELECT FROM nowhere"))
    await database.check()


async def test_nul(database: Postgres) -> None:
    """A text that PostgreSQL cannot hold is the caller's fault."""
    with pytest.raises(errors.InvalidField, match=r"U\+0000"):
        await database.read(lambda connection: connection.execute("SELECT %s", ["a\0b"]))


async def test_cancelled(options: PostgresOptions) -> None:
    """A cancelled task cancels its query, and the connection serves the next caller."""
    async with Postgres(replace(options, pool_min=2)) as database, database.connection() as observer:
        task = asyncio.create_task(database.transact(sleep))
        backend = await sleeper(observer)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async with database.connection() as connection:
            assert connection.info.backend_pid == backend
            assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


async def test_cancelled_batch(options: PostgresOptions) -> None:
    """A pipeline that is cancelled writes nothing, and the pool goes on."""
    async with Postgres(options) as database, database.connection() as observer:
        await observer.execute("CREATE TABLE written (number integer)")

        async def write(connection: Connection) -> None:
            async with connection.pipeline():
                await connection.execute("INSERT INTO written VALUES (1)")
                await sleep(connection)

        task = asyncio.create_task(database.transact(write))
        await sleeper(observer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        cursor = await observer.execute("SELECT count(*) FROM written")
        assert await cursor.fetchone() == (0,)
        await database.check()


async def test_left_open(database: Postgres) -> None:
    """A block that leaves a transaction open loses it, and its connection."""
    async with database.connection() as connection:
        await connection.execute("BEGIN")
        backend = connection.info.backend_pid

    async with database.connection() as connection:
        assert connection.info.backend_pid != backend


async def test_measure(options: PostgresOptions) -> None:
    """The pool tells its size, its idle connections and its waiting callers."""
    async with Postgres(replace(options, pool_max=1)) as database:
        await database.check()
        async with database.connection():
            busy = database.measure()
        free = database.measure()

    assert (busy.size, busy.idle, busy.waiting) == (1, 0, 0)
    assert free.idle == free.size


async def test_closed(options: PostgresOptions) -> None:
    """A closed pool is DATABASE_UNAVAILABLE."""
    async with Postgres(options) as database:
        await database.check()

    with pytest.raises(errors.DatabaseUnavailable):
        await database.check()
