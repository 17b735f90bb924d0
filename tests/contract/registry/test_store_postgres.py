"""The store in PostgreSQL keeps the promises of the port, and those that only a real one can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.kernel.migrate import migrate
from llm_schema_registry.kernel.postgres import Connection, Postgres, connect
from services.registry.adapters.postgres_bell import PostgresBell
from services.registry.adapters.postgres_store import PostgresStore
from services.registry.domain.events import RequestKey, SettingsChanged
from services.registry.domain.model import Settings
from services.registry.ports import Store
from tests.contract.registry.store_races import RaceSuite
from tests.contract.registry.store_suite import CommitSuite, ExhaustIds, Fence, image
from tests.contract.registry.store_suite_reads import Forget, ReadSuite
from tests.fix_postgres import OwnPostgres
from tests.fix_registry import MIGRATIONS, postgres_options
from tests.registry_author import Author, fingerprint, proposal


@pytest.fixture
def store(postgres_store: PostgresStore) -> Store:
    return postgres_store


@pytest.fixture
def fence(registry_database: Postgres) -> Fence:
    async def fence(fenced: bool) -> None:
        async with registry_database.connection() as connection:
            await connection.execute("UPDATE registry.head SET fenced = %s", [fenced])

    return fence


@pytest.fixture
def forget(registry_database: Postgres) -> Forget:
    async def forget(floor: int) -> None:
        async with registry_database.connection() as connection, connection.transaction():
            await connection.execute("UPDATE registry.head SET floor = %s", [floor])
            await connection.execute("DELETE FROM registry.changes WHERE position <= %s", [floor])

    return forget


@pytest.fixture
def exhaust_ids(registry_database: Postgres) -> ExhaustIds:
    async def exhaust() -> None:
        async with registry_database.connection() as connection:
            await connection.execute("SELECT setval('registry.schema_ids', 2147483647)")

    return exhaust


class TestCommits(CommitSuite):
    """store_suite.py"""


class TestReads(ReadSuite):
    """store_suite_reads.py"""


class TestRaces(RaceSuite):
    """store_races.py"""


async def waiting_backend(observer: Connection) -> int:
    """Process id of the backend that waits for a lock, as soon as there is one."""
    while True:
        cursor = await observer.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        if row := await cursor.fetchone():
            return int(row[0])


@pytest_asyncio.fixture
async def blocked_commit(
    postgres_store: PostgresStore, registry_database: Postgres
) -> AsyncIterator[tuple[asyncio.Task[object], Connection]]:
    """A registration that has written everything but the head, which is locked, and a connection to look on."""
    async with registry_database.connection() as observer, await connect(registry_database.options) as holder:
        async with holder.transaction(force_rollback=True):
            await holder.execute("SELECT FROM registry.head FOR UPDATE")
            task: asyncio.Task[object] = asyncio.create_task(Author(postgres_store).register("user", "text"))
            await waiting_backend(observer)
            yield task, observer
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_crash_leaves_nothing(
    postgres_store: PostgresStore, blocked_commit: tuple[asyncio.Task[object], Connection]
) -> None:
    """A commit whose connection dies before its end leaves nothing, and the caller knows that it may have happened."""
    before = await image(postgres_store, "user")
    task, observer = blocked_commit

    await observer.execute("SELECT pg_terminate_backend(%s)", [await waiting_backend(observer)])

    with pytest.raises(errors.DatabaseUnavailable):
        await task
    assert await image(postgres_store, "user") == before
    assert await postgres_store.schemas(range(100)) == {}


async def test_cancelled_commit_leaves_nothing(
    postgres_store: PostgresStore, blocked_commit: tuple[asyncio.Task[object], Connection]
) -> None:
    """A commit that is cancelled before its end leaves nothing."""
    before = await image(postgres_store, "user")
    task, _ = blocked_commit

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await image(postgres_store, "user") == before


async def test_bases_of_one_moment(postgres_store: PostgresStore) -> None:
    """Bases that are asked at once, of known names and contents and of new ones, are those that each gets alone."""
    author = Author(postgres_store)
    for number in range(3):
        await author.register("known", f"text {number}")
    asked = [
        ("first", None),
        ("known", fingerprint("text 1")),
        ("known", fingerprint("new")),
        ('quote " and \\ and é', None),
        ("new", fingerprint("text 2")),
        ("known", None),
    ]

    together = await asyncio.gather(*(postgres_store.basis(*each) for each in asked))

    assert together == [await postgres_store.basis(*each) for each in asked]
    assert [len(basis.live) for basis in together] == [0, 3, 3, 0, 0, 3]
    assert [basis.schema_id is None for basis in together] == [True, False, True, True, False, True]


async def test_lost_answer(postgres_store: PostgresStore) -> None:
    """After a commit whose answer was lost, its request id tells that it happened."""
    author = Author(postgres_store)
    request = RequestKey("UpdateConfig", "one", b"digest")
    change = await author.commit("user", lambda _: SettingsChanged("user", Settings("NONE")), request)

    recorded = await postgres_store.recorded("author", request.method, request.id)

    assert recorded == change


async def test_two_processes(registry_database: Postgres) -> None:
    """Two stores on one database reserve different ids and see each other's commits."""
    one, two = PostgresStore(registry_database), PostgresStore(registry_database)

    ids = [await store.reserve_schema_id() for store in (one, two) for _ in range(40)]
    await Author(one).register("user", "text")

    assert len(set(ids)) == len(ids)
    assert (await two.basis("user")).revision == 1


async def test_large_text(postgres_store: PostgresStore) -> None:
    """A text of a mebibyte is stored and its change is read back."""
    text = "é" * (1 << 19)

    event = await Author(postgres_store).register("user", text)

    assert (await postgres_store.schemas([event.schema.id]))[event.schema.id].text == text
    (change,) = await postgres_store.changes(after=0, limit=10, text_bytes_max=10)
    assert change.event == event


async def test_unknown_payload(postgres_store: PostgresStore, registry_database: Postgres) -> None:
    """A change that newer code wrote stops the reader."""
    await Author(postgres_store).register("user", "text")
    async with registry_database.connection() as connection:
        await connection.execute("UPDATE registry.changes SET payload_version = 2")

    with pytest.raises(errors.Internal):
        await postgres_store.changes(after=0, limit=1, text_bytes_max=0)


async def test_database_away(own_postgres: Callable[..., OwnPostgres]) -> None:
    """Without the database reads and commits are DATABASE_UNAVAILABLE; when it is back both work."""
    server = own_postgres()
    options = postgres_options(server.url)
    await migrate(options, MIGRATIONS, schema="registry", code_version="0.1.0")
    async with Postgres(options) as database:
        store = PostgresStore(database)
        await Author(store).register("user", "1")
        basis = await store.basis("user")

        await server.stop_async()
        with pytest.raises(errors.DatabaseUnavailable):
            await store.head()
        with pytest.raises(errors.DatabaseUnavailable):
            await store.commit(proposal(SettingsChanged("user", Settings("NONE")), basis))
        await server.start_async()
        await Author(store).register("user", "2")

        assert (await store.head()).position == 2


async def test_bell(postgres_store: PostgresStore, registry_database: Postgres) -> None:
    """The bell rings at its connect, at a commit of any process, and at nothing else."""
    async with PostgresBell(registry_database.options) as bell:
        await bell.wait(30)
        assert not await rings(bell, 0.05)

        await Author(postgres_store).register("user", "text")
        assert await rings(bell, 30)
        assert not await rings(bell, 0.05)


async def test_bell_after_a_lost_connection(postgres_store: PostgresStore, registry_database: Postgres) -> None:
    """A bell whose connection is ended rings when it is back, for what it missed, and goes on."""
    async with PostgresBell(registry_database.options) as bell, registry_database.connection() as observer:
        await bell.wait(30)

        await observer.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        assert await rings(bell, 30)

        await Author(postgres_store).register("user", "text")
        assert await rings(bell, 30)


async def rings(bell: PostgresBell, limit_seconds: float) -> bool:
    """Whether the bell rings within the limit."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await bell.wait(limit_seconds)
    return loop.time() - start < limit_seconds
