"""Real PostgreSQL: one server for the run with a database per test, and own servers that a test may stop."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.postgres import Install, Postgres, find_install

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For servers whose data nobody misses. An own server with `durable=True` runs without."""

MakeDatabase = Callable[..., str]


class OwnPostgres(Postgres):
    """A server that belongs to one test: start and stop it as often as the fact needs, always on the same port.

    Beside an event loop use the `_async` forms. They fork in the main thread and wait in another one.
    """

    async def start_async(self) -> None:
        """Starts the server and waits until it accepts."""
        self.launch()
        await asyncio.to_thread(self.wait_ready)

    async def stop_async(self) -> None:
        """Stops the server as an operator would: open transactions are rolled back."""
        await asyncio.to_thread(self.stop)

    async def kill_async(self) -> None:
        """Kills the server as a crash would."""
        await asyncio.to_thread(self.kill)


@pytest.fixture(scope="session")
def postgres_install() -> Install:
    """The install whose server the run uses; its tools (pg_dump, psql) fit that server."""
    return find_install()


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory, postgres_install: Install) -> Path:
    """A folder with fresh data that no server has touched: own servers start from a copy."""
    server = Postgres(tmp_path_factory.mktemp("postgres-cluster"), install=postgres_install)
    server.initialise(sync=False)
    return server.folder


@pytest.fixture(scope="session")
def postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_install: Install, postgres_cluster: Path
) -> Iterator[Postgres]:
    """The server of the run. Do not stop it: take `own_postgres` for that."""
    folder = tmp_path_factory.mktemp("postgres") / "server"
    shutil.copytree(postgres_cluster, folder)
    server = Postgres(folder, install=postgres_install, options=FAST)
    server.start()
    yield server
    assert server.stop(), "PostgreSQL did not stop within its limit"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _database_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def make_database(postgres: Postgres, _database_numbers: Iterator[int]) -> Iterator[MakeDatabase]:
    """Makes fresh databases and returns their URLs: `make_database(template=None)`.

    template: name of a database to copy, which nobody may be connected to; see `postgres.create_database` to make one
    for a session-scoped fixture. The databases are dropped after the test.
    """
    made: list[str] = []

    def make(template: str | None = None) -> str:
        name = f"test_{next(_database_numbers)}"
        url = postgres.create_database(name, template=template)
        made.append(name)
        return url

    yield make
    for name in made:
        postgres.drop_database(name)


@pytest.fixture
def database_url(make_database: MakeDatabase) -> str:
    """URL of a fresh, empty database."""
    return make_database()


@pytest.fixture
def own_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_install: Install, postgres_cluster: Path
) -> Iterator[Callable[..., OwnPostgres]]:
    """Makes running servers of the test's own: `own_postgres(durable=False, options=None)`.

    durable: keep fsync, for tests about what survives a crash.
    """
    made: list[OwnPostgres] = []

    def make(*, durable: bool = False, options: dict[str, str] | None = None) -> OwnPostgres:
        folder = tmp_path_factory.mktemp("own-postgres") / "server"
        shutil.copytree(postgres_cluster, folder)
        settings = {**({} if durable else FAST), **(options or {})}
        server = OwnPostgres(folder, install=postgres_install, options=settings)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        # Not killed: PostgreSQL would leave its shared memory segment to the system.
        server.stop(limit_seconds=5)
        shutil.rmtree(server.folder)
