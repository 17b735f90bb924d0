"""Real Valkey: one server for the run, emptied for each test, and own servers that a test may stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis

from deploy.local.valkey import Valkey


class OwnValkey(Valkey):
    """A server that belongs to one test, always on the same port. Beside an event loop use the `_async` forms."""

    async def start_async(self) -> None:
        """Starts the server and waits until it answers."""
        self.launch()
        await asyncio.to_thread(self.wait_ready)

    async def stop_async(self) -> None:
        """Stops the server."""
        await asyncio.to_thread(self.stop)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The server of the run. Do not stop it: take `own_valkey` for that."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    assert server.stop(), "Valkey did not stop within its limit"


@pytest.fixture
def valkey_url(valkey_server: Valkey) -> str:
    """URL of an empty database."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], OwnValkey]]:
    """Makes running servers of the test's own: `own_valkey()`."""
    made: list[OwnValkey] = []

    def make() -> OwnValkey:
        server = OwnValkey(tmp_path_factory.mktemp("own-valkey"))
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()
