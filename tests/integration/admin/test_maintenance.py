"""The database is maintained without blocking anybody: real PostgreSQL, real bloat, real locks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Operations, Request
from services.admin.adapters.postgres_maintenance import PostgresMaintenance
from services.admin.domain.maintenance import Maintained, Verb
from services.admin.usecases.maintain import Maintain
from services.admin.usecases.office import SYSTEM, SYSTEM_TIMES, Office
from tests.fix_faults import eventually
from tests.fix_registry import postgres_options

ROWS = 20_000
FILL = """
    INSERT INTO registry.changes (position, epoch, time, actor, subject, kind, payload_version, payload)
    SELECT n, 1, now(), 'test', 'subject', 'made', 1, decode(repeat(md5(n::text), 4), 'hex')
    FROM generate_series(%s::int, %s::int) n
"""
WAITER = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event_type = 'Lock'"
INVALID = "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid"


@dataclass(frozen=True, slots=True)
class Place:
    """A registry's database with what maintains it."""

    url: str
    database: PostgresMaintenance
    operations: Operations
    leases: Leases
    maintain: Maintain

    async def run(self, verb: Verb, *tables: str) -> Operation:
        """The operation once it has ended."""
        begun = await self.begin(verb, *tables)
        return await self.operations.wait(begun.name)

    async def begin(self, verb: Verb, *tables: str) -> Operation:
        """An operation that was begun."""
        return await self.maintain.begin(verb, tables, actor="test", request=Request())

    async def done(self, verb: Verb, *tables: str) -> dict[str, Maintained]:
        """What an operation did that must end well, by name."""
        operation = await self.run(verb, *tables)
        assert operation.error is None, operation.error
        return {each.name: each for each in (await self.maintain.record(operation.name)).objects}

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs a statement in a session of its own, whose counts the server has some moments later."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def dead_rows(self) -> int:
        """Rows of the history that the server has counted as dead."""
        counted = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'registry.changes'::regclass"
        [(rows,)] = self.execute(counted)
        return int(rows)

    def bloat(self, rows: int = ROWS) -> None:
        """Fills the history, deletes most of it, and tells the planner."""
        self.execute("ALTER TABLE registry.changes SET (autovacuum_enabled = false)")
        self.execute(FILL, 1, rows)
        self.execute("DELETE FROM registry.changes WHERE position % 10 <> 0")
        self.execute("ANALYZE registry.changes")


@pytest_asyncio.fixture
async def place(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A registry's database, and short patience for locks."""
    store, clock = DirectoryStore(tmp_path / "store"), SystemClock()
    operations = Operations(store, clock, _dice, "here", lambda *_, **__: None)
    leases = Leases(store, clock, "here")
    options = postgres_options(migrated_database_url, pool_min=0)
    async with PostgresMaintenance(options, lock_seconds=0.3, reindex_lock_seconds=0.5) as database:
        maintain = Maintain(database, operations, Office(leases, operations), store, clock)
        yield Place(migrated_database_url, database, operations, leases, maintain)
        await operations.close(0)


@asynccontextmanager
async def patient(place: Place) -> AsyncIterator[Maintain]:
    """The same with long patience for locks."""
    options = postgres_options(place.url, pool_min=0)
    async with PostgresMaintenance(options, reindex_lock_seconds=60) as database:
        yield Maintain(
            database, place.operations, Office(place.leases, place.operations), place.maintain._store, SystemClock()
        )


@contextmanager
def holding(url: str, *statements: str) -> Iterator[int]:
    """Process id of a session whose transaction ran these statements and stays open."""
    with psycopg.connect(url, application_name="holder") as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection.info.backend_pid
        connection.rollback()


async def test_vacuum_tells_before_and_after(place: Place) -> None:
    """Dead rows are gone afterwards, and the figures say how many there were."""
    await asyncio.to_thread(place.bloat)
    await asyncio.to_thread(place.execute, "DELETE FROM registry.changes")
    # What a session counted comes when it ends, which nobody waits for: not behind the vacuum.
    await _until(lambda: place.dead_rows() >= ROWS)

    done = (await place.done(Verb.VACUUM, "changes"))["changes"]

    assert done.before.dead_rows >= ROWS * 0.9
    assert done.after is not None
    assert done.after.dead_rows == 0
    assert done.after.total_bytes < done.before.total_bytes / 2


async def test_analyze_renews_statistics(place: Place) -> None:
    """The planner's count of rows is right afterwards."""
    await asyncio.to_thread(place.execute, FILL, 1, 500)

    await place.done(Verb.ANALYZE, "changes")

    rows = await asyncio.to_thread(
        place.execute, "SELECT reltuples FROM pg_class WHERE oid = 'registry.changes'::regclass"
    )
    assert rows == [(500.0,)]


async def test_reindex_gives_bloat_back(place: Place) -> None:
    """An index whose rows are gone is small afterwards; every index of the table is worked on, and all are valid."""
    await asyncio.to_thread(place.bloat)
    await place.done(Verb.VACUUM, "changes")

    done = (await place.done(Verb.REINDEX, "changes"))["changes_pkey"]

    assert done.index
    assert done.after is not None
    assert done.after.total_bytes < done.before.total_bytes / 3
    assert await asyncio.to_thread(place.execute, INVALID) == []


async def test_bloat_is_estimated_near_what_comes_back(place: Place) -> None:
    """The estimate for an index is within a fifth of what its rebuild gives back; for a table most of it is bloat."""
    await asyncio.to_thread(place.bloat)
    bloats = {each.name: each for each in await place.database.bloat()}

    done = (await place.done(Verb.REINDEX, "changes"))["changes_pkey"]

    assert done.after is not None
    given_back = done.before.total_bytes - done.after.total_bytes
    estimated = bloats["changes_pkey"].bloat_bytes
    assert estimated is not None
    assert abs(estimated - given_back) < 0.2 * done.before.total_bytes
    table = bloats["changes"]
    assert table.bloat_bytes is not None
    assert 0.75 * table.total_bytes < table.bloat_bytes < table.total_bytes


async def test_bloat_of_what_was_never_analyzed_is_not_guessed(place: Place) -> None:
    """Without statistics there is no estimate, and neither for an index that is no B-tree."""
    bloats = {each.name: each.bloat_bytes for each in await place.database.bloat()}

    assert bloats["versions"] is None
    assert bloats["versions_tags"] is None


@pytest.mark.parametrize("verb", [Verb.VACUUM, Verb.ANALYZE])
async def test_locked_table_is_passed_over_and_said(place: Place, verb: Verb) -> None:
    """A table that somebody holds a lock on is passed over at once with who holds it; the others are worked on."""
    with holding(place.url, "LOCK TABLE registry.changes IN SHARE MODE") as pid:
        began = time.monotonic()
        done = await place.done(verb, "changes", "schemas")
        seconds = time.monotonic() - began

    assert done["changes"].after is None
    assert "lock not available" in done["changes"].problem
    assert f"{pid} (holder)" in done["changes"].problem
    assert done["schemas"].problem == ""
    assert seconds < 5


async def test_reindex_gives_up_behind_a_transaction_and_leaves_nothing(place: Place) -> None:
    """An index that cannot be had stays as it was, its problem says why, and no invalid one is left."""
    with holding(place.url, "LOCK TABLE registry.changes IN SHARE MODE"):
        done = await place.done(Verb.REINDEX, "changes")

    assert "locks were not free within 0.5 s" in done["changes_pkey"].problem
    assert await asyncio.to_thread(place.execute, INVALID) == []


async def test_unfinished_index_is_named_and_dropped_later(place: Place) -> None:
    """A rebuild that waited for a writer's transaction too long had begun an index. While that transaction is open it
    cannot be dropped, and is named; the next operation of any kind drops it."""
    with holding(place.url, FILL.replace("%s::int, %s::int", "1, 2")):
        failed = await place.run(Verb.REINDEX, "changes")
    left = (await place.maintain.record(failed.name)).left
    next_one = await place.run(Verb.ANALYZE, "head")

    record = await place.maintain.record(next_one.name)
    assert left == ("changes_pkey_ccnew",)
    assert record.dropped == left
    assert await asyncio.to_thread(place.execute, INVALID) == []


async def test_cancelled_reindex_leaves_nothing(place: Place) -> None:
    """A cancelled rebuild ends its statement on the server; what it had begun is dropped, once nobody holds it."""
    async with patient(place) as maintain:
        with holding(place.url, FILL.replace("%s::int, %s::int", "1, 2")):
            begun = await maintain.begin(Verb.REINDEX, ["changes"], actor="test", request=Request())
            await _until(lambda: bool(place.execute(INVALID)))

            await place.operations.cancel(begun.name)
            ended = await place.operations.wait(begun.name)

    assert ended.error is not None
    assert ended.error.reason == "OPERATION_CANCELLED"
    assert (await place.run(Verb.ANALYZE, "head")).error is None
    assert await asyncio.to_thread(place.execute, INVALID) == []


async def test_one_operation_at_a_time(place: Place) -> None:
    """While another operation changes the system, the error names it; a repeat of that one is answered with it."""
    async with patient(place) as maintain:
        with holding(place.url, "LOCK TABLE registry.changes IN SHARE MODE"):
            request = Request("again", b"same")
            first = await maintain.begin(Verb.REINDEX, ["changes"], actor="test", request=request)
            await _until(lambda: bool(place.operations.running[0].steps))

            with pytest.raises(errors.OperationRunning) as refused:
                await place.begin(Verb.VACUUM, "schemas")
            again = await maintain.begin(Verb.REINDEX, ["changes"], actor="test", request=request)
        await place.operations.wait(first.name)

    assert refused.value.metadata["operation"] == first.name
    assert again.name == first.name


async def test_nothing_begins_while_another_process_has_the_office(place: Place) -> None:
    """What changes the system elsewhere is waited for."""
    async with place.leases.held(SYSTEM, times=SYSTEM_TIMES):
        with pytest.raises(errors.OperationRunning):
            await place.begin(Verb.VACUUM, "schemas")


async def test_missing_right_is_named(place: Place, role: str) -> None:
    """A role that may not maintain the tables is told what to grant, before anything is done."""
    url = f"{place.url}?options=-c%20role%3D{role}"
    await asyncio.to_thread(place.execute, f"GRANT USAGE ON SCHEMA registry TO {role}")
    async with PostgresMaintenance(postgres_options(url, pool_min=0)) as database:
        with pytest.raises(errors.DatabaseUnfit, match="GRANT"):
            await database.require_rights(["changes"])
    await asyncio.to_thread(place.execute, f"REVOKE ALL ON SCHEMA registry FROM {role}")


async def test_long_queries_show_who_blocks_whom_without_values(place: Place) -> None:
    """A session that waits is shown with its blocker, and with no value of its statement; idle ones are not shown."""
    with holding(place.url, "LOCK TABLE registry.changes") as holder:
        waiting = threading.Thread(target=_wait_for_lock, args=(place.url,))
        waiting.start()
        await _until(lambda: bool(place.execute(WAITER)))

        found = {each.pid: each for each in await place.database.long_queries(0, 100)}
        blocked = next(each for each in found.values() if list(each.blocked_by) == [holder])

        assert found[holder].state == "idle in transaction"
        assert blocked.text == "SELECT position FROM registry.changes WHERE actor = ?"
        assert blocked.wait.startswith("Lock")
        assert await place.database.long_queries(3600, 100) == []
    waiting.join()


async def test_long_queries_need_a_right(place: Place, role: str) -> None:
    """A role that may not see what others run is told what to grant."""
    url = f"{place.url}?options=-c%20role%3D{role}"
    with holding(place.url, "SELECT 1"):
        async with PostgresMaintenance(postgres_options(url, pool_min=0)) as database:
            with pytest.raises(errors.DatabaseUnfit, match=f'GRANT pg_read_all_stats TO "{role}"'):
                await database.long_queries(0, 100)


async def test_statistics_are_the_servers(place: Place) -> None:
    """Sizes, connections and the tables are told."""
    await asyncio.to_thread(place.execute, FILL, 1, 2000)

    async def counted() -> bool:
        # The session that wrote tells the server when it ends, which does not wait for it.
        return (await place.database.stats()).tables[0].size.live_rows > 0

    await eventually(counted)
    stats = await place.database.stats()

    assert stats.database == place.url.rpartition("/")[2]
    assert stats.total_bytes > stats.tables[0].size.total_bytes > 0
    assert 0 < stats.connections <= stats.connections_max
    assert 0 <= stats.cache_hit_ratio <= 1
    assert stats.tables[0].name == "changes"
    assert stats.tables[0].size.live_rows == 2000


@pytest.mark.slow
async def test_production_goes_on(place: Place) -> None:
    """Writers and readers work on during REINDEX and VACUUM: none waits as long as a quarter of a second for them."""
    await asyncio.to_thread(place.bloat, 150_000)
    ends = threading.Event()
    slowest = {"write": 0.0, "read": 0.0}
    counts = {"write": 0, "read": 0}

    def work(kind: str, statement: str) -> None:
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '250ms'")
            while not ends.is_set():
                began = time.monotonic()
                connection.execute(statement.encode(), [1_000_000 + counts[kind]])
                slowest[kind] = max(slowest[kind], time.monotonic() - began)
                counts[kind] += 1

    write = FILL.replace("generate_series(%s::int, %s::int) n", "(SELECT %s::int) AS one (n)")
    read = "SELECT payload FROM registry.changes WHERE position = %s"
    threads = [threading.Thread(target=work, args=each) for each in (("write", write), ("read", read))]
    for thread in threads:
        thread.start()
    try:
        reindexed = await place.done(Verb.REINDEX, "changes")
        vacuumed = await place.done(Verb.VACUUM, "changes")
    finally:
        ends.set()
        for thread in threads:
            thread.join()

    assert reindexed["changes_pkey"].problem == vacuumed["changes"].problem == ""
    assert counts["write"] > 20, (counts, slowest)
    assert counts["read"] > 20, (counts, slowest)


def _wait_for_lock(url: str) -> None:
    with suppress(psycopg.Error), psycopg.connect(url, application_name="waiter") as connection:
        connection.execute("SET lock_timeout = '90s'")
        connection.execute("SELECT position FROM registry.changes WHERE actor = 'a secret'")


def _dice(count: int) -> bytes:
    return os.urandom(count)


async def _until(true: Any, seconds: float = 60) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - the server tells no event
            await asyncio.sleep(0.05)
