"""The live registry as the source of backups: one snapshot, a whole dump or an error, a history without gaps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.migrate import lock_key
from llm_schema_registry.kernel.postgres import Connection, Postgres, connect
from services.backup.adapters.postgres_source import PostgresSource, _gathered
from services.backup.domain.model import StoredChange
from services.registry.adapters.postgres_store import PostgresStore
from tests.fix_backup_database import MakeStandIns
from tests.fix_fault_table import FaultTable
from tests.fix_postgres import OwnPostgres
from tests.fix_registry import MIGRATIONS, postgres_options
from tests.registry_author import Author

PATIENCE_SECONDS = 30.0
# More than all buffers between pg_dump and us, so it cannot end before it is read on.
BULK = """
CREATE TABLE registry.bulk (id integer PRIMARY KEY, text text NOT NULL);
INSERT INTO registry.bulk SELECT number, repeat(md5(number::text), 1000) FROM generate_series(1, 800) number
"""
OTHERS = """
SELECT pid, application_name, query, wait_event_type FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture
def bulky_url(content_url: str) -> str:
    """URL of a registry's database that takes a while to dump."""
    with psycopg.connect(content_url) as connection:
        connection.execute(BULK.encode())
    return content_url


def source_of(url: str, folders: list[Path], **options: float) -> PostgresSource:
    """A source of backups, not entered yet."""
    return PostgresSource(postgres_options(url), folders, SystemClock(), **options)


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What a statement returns, in a session of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


async def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the server sets no event of ours
            await asyncio.sleep(0.01)


def dumpers() -> list[str]:
    """Command lines of the dumps that run as children of this process, or of what it started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if "--snapshot=" in line and parent == os.getpid():
            found.append(line)
    return found


async def whole(dump: AsyncIterator[bytes]) -> bytes:
    """All of a dump."""
    return b"".join([piece async for piece in dump])


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    """Another session with the database."""
    async with await connect(postgres_options(url)) as connection:
        yield connection


@pytest.mark.regression("B3")
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("fails", "pg_dump ended with status 1; it said last: .*on fire; PGPASSWORD is [*]{3}$"),
        ("killed", r"was ended by signal 9 \(SIGKILL\)"),
        ("stalls", "did nothing for 0.3 seconds and was ended"),
        ("talks", "ended with status 2; .*last words$"),
        ("empty", "ended well, but wrote 0 bytes"),
        ("other", "is no archive of its custom format"),
        ("hollow", "has no data of table changes, epochs, head"),
    ],
)
async def test_misbehaving_pg_dump(content_url: str, stand_ins: MakeStandIns, behaviour: str, said: str) -> None:
    """A pg_dump that fails, is killed, stalls, talks too much or writes nothing makes no dump, and no deadlock."""
    major = query(content_url, "SHOW server_version_num")[0][0][:2]
    folders = [stand_ins(behaviour, version=f"{major}.0")]
    stall_seconds = 0.3 if behaviour == "stalls" else PATIENCE_SECONDS

    async with source_of(content_url, folders, stall_seconds=stall_seconds) as source, source.snapshot() as snapshot:
        with pytest.raises(errors.BackupFailed, match=said):
            await whole(snapshot.dump())

    await until(lambda: not query(content_url, OTHERS))


@pytest.mark.usefixtures("no_programs")
async def test_wrong_major(content_url: str, stand_ins: MakeStandIns) -> None:
    """Without a pg_dump of the server's major there is no snapshot, and nothing is left open."""
    async with source_of(content_url, [stand_ins(version="12.1")]) as source:
        with pytest.raises(errors.ToolMismatch, match=r"the server is PostgreSQL \d+\.\d+, but .* are of 12\.1"):
            async with source.snapshot():
                pass

        await until(lambda: not query(content_url, OTHERS))


async def test_dump_version(source: PostgresSource, content_url: str) -> None:
    """A snapshot tells the version of its pg_dump, which is of the server's major."""
    major = query(content_url, "SHOW server_version_num")[0][0][:2]

    async with source.snapshot() as snapshot:
        assert snapshot.dump_version.split(".")[0] == major


async def test_server_dies(own_postgres: Callable[..., OwnPostgres], program_folders: list[Path]) -> None:
    """A server that dies during a dump fails it, and the facts."""
    server = own_postgres()
    url = server.create_database("registry")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA registry")
        connection.execute(MIGRATIONS.joinpath("0001_registry.sql").read_bytes())
        connection.execute(BULK.encode())
    async with source_of(url, program_folders) as source, source.snapshot() as snapshot:
        dump = snapshot.dump()
        assert (await anext(dump)).startswith(b"PGDMP")

        await server.kill_async()

        with pytest.raises(errors.BackupFailed, match="pg_dump ended with status 1"):
            await whole(dump)
        with pytest.raises(errors.DatabaseUnavailable):
            await snapshot.facts()
        with pytest.raises(errors.DatabaseUnavailable):
            await source.head()
        with pytest.raises(errors.DatabaseUnavailable):
            await source.check()


@pytest.mark.parametrize(
    ("whose", "said"),
    [("LIKE '%pg_dump'", "pg_dump ended with status 1"), ("NOT LIKE '%pg_dump'", "that held the snapshot ended")],
)
async def test_session_ends(bulky_url: str, source: PostgresSource, whose: str, said: str) -> None:
    """A dump fails when the session that holds its snapshot ends, though pg_dump has its own, or pg_dump's ends."""
    async with source.snapshot() as snapshot:
        dump = snapshot.dump()
        await anext(dump)

        query(bulky_url, f"SELECT pg_terminate_backend(pid) FROM ({OTHERS}) others WHERE application_name {whose}")

        with pytest.raises(errors.BackupFailed, match=said):
            await whole(dump)


async def test_migration_runs(content_url: str, source: PostgresSource, fault_table: FaultTable) -> None:
    """No snapshot is taken while a migration runs; the migrations' lock is free again during a snapshot."""
    async with session(content_url) as migrating:
        await migrating.execute("SELECT pg_advisory_lock(%s)", [lock_key("registry")])
        with pytest.raises(errors.DatabaseUnfit, match="are being migrated"):
            async with source.snapshot():
                pass
        await migrating.execute("SELECT pg_advisory_unlock(%s)", [lock_key("registry")])

        async with source.snapshot():
            cursor = await migrating.execute("SELECT pg_try_advisory_lock(%s)", [lock_key("registry")])
            assert await cursor.fetchone() == (True,)
    fault_table("T15", "a migration runs", "DATABASE_UNFIT, at once; works behind it, and holds none up")


async def test_table_is_locked(
    content_url: str, source: PostgresSource, program_folders: list[Path], fault_table: FaultTable
) -> None:
    """A table that somebody changes is waited for no longer than the limit."""
    async with session(content_url) as other, source_of(content_url, program_folders, lock_wait_seconds=0.1) as hasty:
        async with other.transaction():
            await other.execute("LOCK TABLE registry.versions IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(errors.DatabaseUnfit, match="locked by someone who changes it"):
                async with hasty.snapshot():
                    pass

        async with source.snapshot() as snapshot:
            assert await whole(snapshot.dump())
    fault_table("T15", "a table is locked by who changes it", "DATABASE_UNFIT within the limit; works behind it")


async def test_tables_keep_their_form(content_url: str, source: PostgresSource, fault_table: FaultTable) -> None:
    """Nobody changes a table's form during a snapshot, reads and writes go on."""
    async with session(content_url) as other:
        await other.execute("SET lock_timeout = '50ms'")
        async with source.snapshot():
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await other.execute("ALTER TABLE registry.versions ADD COLUMN more text")
            await other.execute("UPDATE registry.versions SET description = 'changed'")

        await until(lambda: not query(content_url, f"{OTHERS} AND state <> 'idle'"))
        await other.execute("ALTER TABLE registry.versions ADD COLUMN more text")
    fault_table("T15", "a table is changed during a snapshot", "the change waits; reads and writes go on")


async def test_change_of_form_waits(content_url: str, program_folders: list[Path], fault_table: FaultTable) -> None:
    """When someone waits to change a table, pg_dump does not wait behind him for longer than the limit."""
    async with source_of(content_url, program_folders, lock_wait_seconds=0.2) as source, session(content_url) as other:
        async with source.snapshot() as snapshot:
            change = asyncio.create_task(other.execute("ALTER TABLE registry.versions ADD COLUMN more text"))
            await until(lambda: query(content_url, f"{OTHERS} AND wait_event_type = 'Lock'"))

            with pytest.raises(errors.BackupFailed, match=r"(lock|statement) timeout"):
                await whole(snapshot.dump())

        await change
    fault_table("T15", "pg_dump behind who waits to change a table", "BACKUP_FAILED within the limit; nobody piles up")


async def test_timeouts_do_not_end_it(bulky_url: str, program_folders: list[Path]) -> None:
    """Timeouts that are set on the database end neither the snapshot's session nor pg_dump's."""
    name = query(bulky_url, "SELECT current_database()")[0][0]
    with psycopg.connect(bulky_url, autocommit=True) as connection:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '100ms'".encode())
    async with source_of(bulky_url, program_folders) as source, source.snapshot() as snapshot:
        dump = snapshot.dump()
        first = await anext(dump)

        # Longer than the timeouts, which the server counts.
        await asyncio.sleep(0.4)

        assert len(first + await whole(dump)) > 25_000_000
        assert (await snapshot.facts()).rows("bulk") == 800


async def test_cancelled(bulky_url: str, source: PostgresSource, fault_table: FaultTable) -> None:
    """Cancelling a backup leaves neither pg_dump nor a session behind."""
    begun = asyncio.Event()

    async def backup() -> None:
        async with source.snapshot() as snapshot:
            facts = asyncio.create_task(snapshot.facts())
            async for _ in snapshot.dump():
                begun.set()
                await facts
                await asyncio.Event().wait()

    task = asyncio.create_task(backup())
    await begun.wait()
    assert dumpers()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not dumpers()
    await until(lambda: not query(bulky_url, OTHERS))
    fault_table("T30", "a backup is cancelled in the midst of its dump", "no program and no session is left")


async def test_cancelled_facts(bulky_url: str, source: PostgresSource) -> None:
    """Facts that were broken off end the snapshot: what is asked of it next fails."""
    async with source.snapshot() as snapshot:
        facts = asyncio.create_task(snapshot.facts())
        await until(lambda: query(bulky_url, f"{OTHERS} AND query LIKE 'COPY%'"))
        facts.cancel()
        with pytest.raises(asyncio.CancelledError):
            await facts

        with pytest.raises((errors.DatabaseUnavailable, errors.BackupFailed)):
            await whole(snapshot.dump())
        with pytest.raises(errors.DatabaseUnavailable):
            await snapshot.facts()

    await until(lambda: not query(bulky_url, OTHERS))


async def test_session_ends_in_facts(bulky_url: str, source: PostgresSource) -> None:
    """Facts fail when their session ends while rows are read."""
    async with source.snapshot() as snapshot:
        facts = asyncio.create_task(snapshot.facts())
        await until(lambda: query(bulky_url, f"{OTHERS} AND query LIKE 'COPY%'"))

        query(bulky_url, f"SELECT pg_terminate_backend(pid) FROM ({OTHERS}) others")

        with pytest.raises(errors.DatabaseUnavailable):
            await facts


@pytest.mark.regression("B9")
async def test_password_is_not_shown(bulky_url: str, source: PostgresSource) -> None:
    """The password is on no command line while pg_dump runs."""
    password = psycopg.conninfo.conninfo_to_dict(bulky_url)["password"]

    async with source.snapshot() as snapshot:
        await anext(snapshot.dump())

        lines = dumpers()

    assert len(lines) == 1
    assert str(password) not in lines[0]


async def test_long_transaction(content_url: str, source: PostgresSource, fault_table: FaultTable) -> None:
    """A transaction that stays open holds nothing up; what it wrote is in snapshots after its commit, not before."""
    head = await source.head()
    async with Postgres(postgres_options(content_url)) as database, session(content_url) as other:
        async with other.transaction():
            await other.execute("UPDATE registry.subjects SET revision = revision + 1 WHERE name LIKE 'odd%'")
            await Author(PostgresStore(database)).register("meanwhile", "text")
            async with source.snapshot() as snapshot:
                before = await snapshot.facts()
                assert await whole(snapshot.dump())
        async with source.snapshot() as snapshot:
            after = await snapshot.facts()

    assert before.head.position == after.head.position == head.position + 1
    assert [each.name for each in after.tables if each not in before.tables] == ["subjects"]
    fault_table("T16", "a transaction stays open", "holds no backup up; in the next one once it commits")


async def test_head(content_url: str, source: PostgresSource) -> None:
    """The head is the registry's; no id that was reserved is above its mark."""
    assert query(content_url, "SELECT nextval('registry.schema_ids')") == [((await source.head()).schema_id_high,)]

    head = await source.head()

    [(cluster, position)] = query(content_url, "SELECT cluster_id::text, position FROM registry.head")
    assert (head.cluster_id, head.position, head.epoch, head.floor, head.fenced) == (cluster, position, 1, 0, False)
    assert [(each.id, each.parent, each.fork_position) for each in head.epochs] == [(1, None, 0)]


async def test_head_of_a_new_registry(migrated_database_url: str, program_folders: list[Path]) -> None:
    """A registry that never reserved an id has the mark 0, and no changes."""
    async with source_of(migrated_database_url, program_folders) as source:
        head, changes = await source.head(), await source.changes(0, limit=10, bytes_max=1000)

    assert (head.position, head.schema_id_high, list(changes)) == (0, 0, [])


async def test_no_registry(database_url: str, program_folders: list[Path]) -> None:
    """A database without a registry is said to be unfit for every question."""
    async with source_of(database_url, program_folders) as source:
        await source.check()
        with pytest.raises(errors.DatabaseUnfit, match="holds no registry"):
            await source.head()
        with pytest.raises(errors.DatabaseUnfit, match="holds no registry"):
            await source.changes(0, limit=1, bytes_max=1)
        with pytest.raises(errors.DatabaseUnfit, match="no tables in schema registry"):
            async with source.snapshot():
                pass


async def read_from(source: PostgresSource, after: int, *, end: int) -> list[StoredChange]:
    """The history behind a position, up to another one, in small portions."""
    found: list[StoredChange] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while after < end:
            portion = await source.changes(after, limit=7, bytes_max=3000)
            assert len(portion) <= 7
            found += portion
            after = found[-1].position if found else after
            if not portion:
                await source.wait(0.5)
    return found


async def test_changes_under_writers(content_url: str, source: PostgresSource) -> None:
    """A reader beside eight writers gets every change once, in order, without a gap."""
    writers, each_writes = 8, 25
    start = (await source.head()).position

    async def write(database: Postgres, number: int) -> None:
        author = Author(PostgresStore(database))
        for turn in range(each_writes):
            await author.register(f"writer {number}", f"text {number} {turn}")

    async with Postgres(postgres_options(content_url)) as database, asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(database, number))
        reader = group.create_task(read_from(source, 0, end=start + writers * each_writes))

    positions = [change.position for change in reader.result()]
    assert positions == list(range(1, start + writers * each_writes + 1))
    assert sum(change.subject.startswith("writer") for change in reader.result()) == writers * each_writes


async def test_changes_are_the_rows(content_url: str, source: PostgresSource) -> None:
    """A change holds what the registry wrote."""
    [change, *_] = await source.changes(40, limit=1, bytes_max=1)

    assert (await source.changes(40, limit=5, bytes_max=10**9))[0] == change
    [row] = query(
        content_url,
        "SELECT position, epoch, time, actor, subject, kind, method, request_id, digest, payload_version, payload "
        "FROM registry.changes WHERE position = 41",
    )
    assert tuple(getattr(change, name) for name in StoredChange.__slots__) == row


async def test_bytes_of_changes(source: PostgresSource) -> None:
    """No more changes come once they pass the bytes, but always one."""
    everything = await source.changes(0, limit=1000, bytes_max=10**9)

    for bytes_max in (0, 1, 500, 1000, 5000):
        portion = await source.changes(0, limit=1000, bytes_max=bytes_max)

        assert portion == everything[: len(portion)]
        assert len(portion) >= 1
        assert sum(each.size_bytes for each in portion[:-1]) <= bytes_max


@pytest.mark.parametrize(("gone", "missing"), [("= 20", 20), ("<= 20", 1), (">= 60", 60)])
async def test_gap(content_url: str, source: PostgresSource, gone: str, missing: int) -> None:
    """What comes before a missing change is still read; then it is an error that names its position."""
    with psycopg.connect(content_url) as connection:
        connection.execute("DELETE FROM registry.request_ids")
        connection.execute(f"DELETE FROM registry.changes WHERE position {gone}".encode())

    before = await source.changes(0, limit=1000, bytes_max=10**9) if missing > 1 else []

    assert [change.position for change in before] == list(range(1, missing))
    with pytest.raises(errors.DatabaseUnfit, match=f"has no position {missing},"):
        await source.changes(missing - 1, limit=1000, bytes_max=10**9)


async def test_behind_the_head(source: PostgresSource) -> None:
    """There are no changes behind the head, nor behind a position that was never reached."""
    head = await source.head()

    assert list(await source.changes(head.position, limit=5, bytes_max=100)) == []
    assert list(await source.changes(head.position + 100, limit=5, bytes_max=100)) == []


async def test_wait_hears_commits(content_url: str, source: PostgresSource) -> None:
    """A wait ends when the registry commits, long before its timeout, also after its session was ended; the end of its
    session ends it too."""
    await source.wait(PATIENCE_SECONDS)
    async with Postgres(postgres_options(content_url)) as database:
        author = Author(PostgresStore(database))
        async with asyncio.timeout(PATIENCE_SECONDS):
            waiting = asyncio.create_task(source.wait(1000))
            await author.register("heard", "1")
            await waiting

        listening = f"SELECT pg_terminate_backend(pid) FROM ({OTHERS}) others WHERE query LIKE 'LISTEN%'"
        assert query(content_url, listening) == [(True,)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await source.wait(1000)
            await source.wait(1000)
            waiting = asyncio.create_task(source.wait(1000))
            await author.register("heard", "2")
            await waiting


async def test_wait_without_a_server(program_folders: list[Path], free_port: Callable[[], int]) -> None:
    """A wait ends at its timeout when there is no server, and raises nothing; all other questions say so."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/registry"
    async with source_of(url, program_folders) as source:
        await source.wait(0.1)

        with pytest.raises(errors.DatabaseUnavailable):
            await source.head()
        with pytest.raises(errors.DatabaseUnavailable):
            async with source.snapshot():
                pass


async def test_cancelled_wait(content_url: str, source: PostgresSource) -> None:
    """A cancelled wait ends its session, and the next one listens again."""
    await source.wait(PATIENCE_SECONDS)
    waiting = asyncio.create_task(source.wait(1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await until(lambda: not query(content_url, f"{OTHERS} AND query LIKE 'LISTEN%'"))
    await source.wait(PATIENCE_SECONDS)


async def test_rows_are_counted_on_the_way(content_url: str, source: PostgresSource) -> None:
    """A snapshot says how many rows of its dump have passed; in the end, all of them."""
    async with source.snapshot() as snapshot:
        before = snapshot.dumped_rows
        async for _ in snapshot.dump():
            pass
        after, facts = snapshot.dumped_rows, await snapshot.facts()

    assert before == 0
    assert after == sum(table.rows for table in facts.tables) > 0


@pytest.mark.parametrize("sizes", [[32, 1024], [32, 1024, 1024, 5], [255, 1024, 100], [1024], [5], []])
async def test_pieces_that_are_gathered(sizes: list[int]) -> None:
    """However they come, in KiB, pieces are gathered to 256 KiB to 1 MiB, but for the last."""

    async def pieces() -> AsyncIterator[bytes]:
        for number, size in enumerate(sizes):
            yield bytes([number]) * (size * 1024)

    found = [piece async for piece in _gathered(pieces())]

    assert b"".join(found) == b"".join([piece async for piece in pieces()])
    assert all(len(piece) >= 256 * 1024 for piece in found[:-1])
    assert all(0 < len(piece) <= 1024 * 1024 for piece in found)


@pytest.mark.regression("B6")
async def test_pieces(bulky_url: str, source: PostgresSource) -> None:
    """A dump comes in pieces of 256 KiB to 1 MiB, but for the last."""
    async with source.snapshot() as snapshot:
        sizes = [len(piece) async for piece in snapshot.dump()]

    assert sum(sizes) > 25_000_000
    assert min(sizes[:-1]) >= 256 * 1024
    assert max(sizes) <= 1024 * 1024
