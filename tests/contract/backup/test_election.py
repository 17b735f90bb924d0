"""One process of many holds an office, by the database."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from services.backup.adapters.postgres_election import PostgresElection
from tests.fix_postgres import OwnPostgres
from tests.fix_registry import postgres_options

PATIENCE_SECONDS = 30.0
HOLDERS = """
SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND datname = current_database()
"""


def election(url: str) -> PostgresElection:
    """A process that stands for election."""
    return PostgresElection(postgres_options(url), heartbeat_seconds=0.05, answer_seconds_max=0.5)


def holders(url: str) -> list[int]:
    """Processes of the server that hold an office."""
    with psycopg.connect(url) as connection:
        return [pid for (pid,) in connection.execute(HOLDERS.encode()).fetchall()]


async def until_free(url: str) -> None:
    """Waits until no office of the database is held."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while holders(url):  # noqa: ASYNC110 - the server sets no event of ours
            await asyncio.sleep(0.01)


async def test_one_holds_it(database_url: str) -> None:
    """Of two processes one holds an office, the other learns so at once and may hold another office."""
    first, second = election(database_url), election(database_url)

    async with first.held("archiver") as held, second.held("archiver") as also, second.held("scheduler") as other:
        assert (held, also, other) == (True, False, True)


async def test_free_again(database_url: str) -> None:
    """An office is free when its block ended, also by an error."""
    first, second = election(database_url), election(database_url)

    async def fail() -> None:
        async with first.held("archiver") as held:
            raise RuntimeError(f"held: {held}")

    with pytest.raises(RuntimeError, match="held: True"):
        await fail()
    await until_free(database_url)

    async with second.held("archiver") as held:
        assert held


async def test_once_in_a_process(database_url: str) -> None:
    """A process that holds an office does not get it a second time."""
    process = election(database_url)

    async with process.held("archiver") as held, process.held("archiver") as again:
        assert (held, again) == (True, False)


async def test_other_databases(make_database: Callable[[], str]) -> None:
    """Offices of registries in different databases of one server are different."""
    async with election(make_database()).held("archiver") as one, election(make_database()).held("archiver") as other:
        assert (one, other) == (True, True)


async def test_unreachable(free_port: Callable[[], int]) -> None:
    """Without a database the office counts as held: the lease decides."""
    process = election(f"postgresql://nobody@127.0.0.1:{free_port()}/registry")

    async with process.held("archiver") as held:
        assert held
        assert not process.lost("archiver").is_set()


async def test_lost_session(database_url: str) -> None:
    """A holder learns that its session ended, and another process holds the office then."""
    first, second = election(database_url), election(database_url)

    async with first.held("archiver") as held:
        assert held
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", holders(database_url))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await first.lost("archiver").wait()
        await until_free(database_url)  # The server says farewell before it lets go.
        async with second.held("archiver") as taken:
            assert taken
    with pytest.raises(KeyError):
        first.lost("archiver")


async def test_server_stops(own_postgres: Callable[..., OwnPostgres]) -> None:
    """A holder learns that the server stopped, and leaves the block in peace."""
    server = own_postgres()
    process = election(server.url)

    async with process.held("archiver") as held:
        assert held
        await server.stop_async()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.lost("archiver").wait()


async def test_silent_server(database_url: str) -> None:
    """A holder whose session no longer answers counts itself out, and its end does not wait for an answer."""
    process = election(database_url)

    async with process.held("archiver") as held:
        assert held
        [pid] = holders(database_url)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.lost("archiver").wait()
        finally:
            os.kill(pid, signal.SIGCONT)

    await until_free(database_url)


async def test_a_holder_that_is_cut_off_is_noticed_within_seconds(database_url: str) -> None:
    """By the server as well, whether the session was silent or an answer was on its way: so another one can hold it."""
    process = election(database_url)

    async with process._session() as session:
        assert session is not None
        assert await process._taken(session, "archiver")
        told = await (
            await session.execute(
                "SELECT name, setting, unit FROM pg_settings WHERE name LIKE 'tcp_keep%' OR name = 'tcp_user_timeout'"
            )
        ).fetchall()

    found = {name: int(setting) for name, setting, _ in told}
    silent = found["tcp_keepalives_idle"] + found["tcp_keepalives_interval"] * found["tcp_keepalives_count"]
    assert (silent, found["tcp_user_timeout"]) == (5, 5000)


async def test_timeouts_do_not_end_it(database_url: str) -> None:
    """Timeouts of idle sessions that are set on the database do not cost the office."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '50ms'".encode())
    process = PostgresElection(postgres_options(database_url), heartbeat_seconds=1000)

    async with process.held("archiver") as held:
        assert held
        # Longer than the timeout, which the server counts.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.lost("archiver").wait(), 0.3)


async def test_cancelled(database_url: str) -> None:
    """Cancelling a holder frees the office."""
    process, taken = election(database_url), asyncio.Event()

    async def hold() -> None:
        async with process.held("archiver"):
            taken.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await taken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await until_free(database_url)
    async with process.held("archiver") as held:
        assert held
