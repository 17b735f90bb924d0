"""The loop that ships: nothing is lost or invented, whoever ships, and whatever line of history the database is on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import Lease
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey
from services.backup.domain.model import Level, Place, StoredChange
from services.backup.domain.targets import AtTime, Base, Cut, Known, Unreachable, plan
from services.backup.usecases import ship as module
from tests.backup_parts import NOON, Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import Method, Raise, RaiseAfter

METHODS: tuple[Method, ...] = ("put", "get", "list", "now")
DOWN = errors.ObjectStoreUnavailable("the store of the test is down")


class Elected:
    """An election that everybody wins: the lease decides."""

    @asynccontextmanager
    async def held(self, office: str) -> AsyncIterator[bool]:  # noqa: ARG002
        """See Election."""
        yield True


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases beside an empty registry."""
    return make_parts(tmp_path)


async def once(parts: Parts) -> None:
    """What a process that just took the office does first."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        await parts.ship.step(lease)


async def archived(parts: Parts) -> dict[int, list[StoredChange]]:
    """All archived changes by epoch, each once."""
    found: dict[int, dict[int, StoredChange]] = {}
    for span in await parts.spans():
        key = SegmentKey(span.epoch, span.first, span.last)
        segment, _ = await parts.archive.read(key)
        for change in segment.changes:
            assert found.setdefault(key.epoch, {}).setdefault(change.position, change) == change
    return {epoch: [changes[position] for position in sorted(changes)] for epoch, changes in found.items()}


async def test_each_step_ships_what_is_there(parts: Parts) -> None:
    """One step, one segment, and the heartbeat behind it."""
    parts.registry.write(3)
    await once(parts)
    parts.registry.write(2)
    await once(parts)

    assert await archived(parts) == {1: parts.registry.history}
    beat = await parts.archive.heartbeat()
    assert beat is not None
    assert (beat.place.position, beat.schema_id_high, beat.first) == (5, 5, 4)


async def test_a_backlog_is_shipped_in_full_segments(parts: Parts) -> None:
    """A step goes on as long as segments are full: it catches up at once."""
    parts.registry.write(40, payload_bytes=100)
    await once(parts)

    assert await archived(parts) == {1: parts.registry.history}
    assert 4 < len(await parts.spans()) < 20


async def test_a_backlog_that_is_not_shipped_yet_is_not_told_as_shipped(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that ends before it caught up beats no heart: a moment behind the gap is out of reach until it did."""
    monkeypatch.setattr(module, "ROUNDS_MAX", 3)
    start = parts.clock.now()
    parts.registry.write(20, payload_bytes=100)
    parts.clock.move(seconds=10)
    parts.registry.write(20, payload_bytes=100)
    parts.clock.move(seconds=10)
    await once(parts)

    assert 0 < parts.ship.state.shipped < 20
    assert parts.ship.state.pending_since == start
    with pytest.raises(Unreachable):
        await _positions_at(parts, start + timedelta(seconds=5))

    for _ in range(5):
        await once(parts)
    assert await _positions_at(parts, start + timedelta(seconds=5)) == list(range(1, 21))
    assert await _positions_at(parts, start + timedelta(seconds=15)) == list(range(1, 41))


async def _positions_at(parts: Parts, time: datetime) -> list[int]:
    """Positions of the changes that a restore to a moment takes, from a backup of the empty registry on."""
    beat = await parts.archive.heartbeat()
    known = Known(beat.place, beat.time) if beat else None
    bases = [Base("empty", Place(1, 0), NOON, Level.V3)]
    way = plan(AtTime(time), bases, await parts.spans(), parts.registry.epochs, heartbeat=known)
    return [change.position async for change in parts.archive.changes(way, Cut(way))]


async def test_a_steady_load_makes_no_more_segments_than_told(parts: Parts) -> None:
    """While changes keep coming a step ends with the first segment that is not full, and says how far it is."""
    parts.registry.write()
    read = parts.registry.changes

    async def busy(after: int, *, limit: int, bytes_max: int):  # type: ignore[no-untyped-def]
        found = await read(after, limit=limit, bytes_max=bytes_max)
        parts.registry.write()
        return found

    parts.registry.changes = busy  # type: ignore[method-assign]
    await once(parts)

    assert parts.ship.state.segments == 1
    assert await parts.archive.heartbeat() is not None


async def test_the_parents_tail_is_shipped_before_the_new_epoch(parts: Parts, fault_table: FaultTable) -> None:
    """A restore forks the line behind what is archived: the rest of the parent comes first, under its own epoch."""
    parts.registry.write(3)
    await once(parts)
    parts.registry.write(4)
    parts.registry.fork(6)
    parts.registry.write(2)

    await once(again(parts))

    found = await archived(parts)
    assert found[1] + found[2] == parts.registry.history
    assert [change.position for change in found[2]] == [7, 8, 9]
    fault_table("T25", "fork behind the archived position", "the parent's tail and the new epoch are both archived")


async def test_a_fork_below_what_is_archived_begins_a_line_of_its_own(parts: Parts) -> None:
    """What the old line went on to stays archived, and the new one begins behind the fork."""
    parts.registry.write(6)
    await once(parts)
    old = list(parts.registry.history)
    parts.registry.fork(2)
    await once(again(parts))
    parts.registry.fork(2)
    await once(again(parts))

    found = await archived(parts)
    assert found[1] == old
    assert [change.position for change in found[2]] == [3]
    assert found[3] == parts.registry.history[2:]


async def test_a_restore_while_it_ships_is_followed(parts: Parts) -> None:
    """A process that ships notices the new epoch by itself."""
    async with parts.repository.leases.held("archive") as lease:
        parts.registry.write(5)
        await parts.ship._begin()
        await parts.ship.step(lease)
        parts.registry.fork(3)
        await parts.ship.step(lease)
        parts.registry.write(2)
        await parts.ship.step(lease)

    found = await archived(parts)
    assert [change.position for change in found[2]] == [4, 5, 6]
    assert parts.ship.state.tip is not None
    assert (parts.ship.state.tip.epoch, parts.ship.state.tip.position) == (2, 6)


@pytest.mark.parametrize("written_since", [0, 2, 7])
async def test_a_database_put_back_by_other_means_is_refused(
    parts: Parts, written_since: int, fault_table: FaultTable
) -> None:
    """However far it went on since: its positions would mean two things."""
    parts.registry.write(5)
    await once(parts)
    parts.registry.put_back(3)
    parts.clock.move(seconds=10)
    parts.registry.write(written_since)

    with pytest.raises(errors.WrongCluster, match="other means"):
        await once(again(parts))
    fault_table("T22", f"database put back by hand, {written_since} changes since", "WRONG_CLUSTER, nothing archived")


async def test_changes_that_are_gone_are_a_gap_that_is_named(parts: Parts) -> None:
    """When the database no longer has what follows, that is an error and no silent gap."""
    parts.registry.write(3)
    await once(parts)
    parts.registry.write(5)
    parts.registry.trim(5)

    with pytest.raises(errors.BackupDamaged, match="ends at 3"):
        await once(again(parts))


async def test_a_wiped_archive_is_shipped_again(parts: Parts, fault_table: FaultTable) -> None:
    """T31: with the bucket gone and the database alive, all that the database keeps is archived again."""
    parts.registry.write(5)
    await once(parts)
    for key in [each.key async for each in parts.store.list("")]:
        await parts.store.delete(key)

    await once(parts)

    assert await archived(parts) == {1: parts.registry.history}
    fault_table("T31", "archive wiped, database alive", "all changes are archived again")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_nothing_is_lost_or_invented(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Over any run of writes, forks, failures of the store and changes of process, the archive is the history."""
    parts = make_parts(tmp_path_factory.mktemp("ship"))
    registry, other, history = parts.registry, again(parts), {}
    for _ in range(data.draw(st.integers(1, 8))):
        act = data.draw(st.sampled_from(["write", "write", "fork", "fail", "ship", "other"]))
        if act == "write":
            registry.write(data.draw(st.integers(1, 4)), payload_bytes=300)
        elif act == "fork":
            registry.fork(data.draw(st.integers(0, registry.position)))
        elif act == "fail":
            method: Method = data.draw(st.sampled_from(METHODS))
            fault = Raise(DOWN) if data.draw(st.booleans()) else RaiseAfter(DOWN)
            parts.plan.add(method, *[None] * data.draw(st.integers(0, 4)), fault)
        parts.clock.move(seconds=60)
        for change in registry.history:
            history[change.epoch, change.position] = change
        if act in {"ship", "fail", "other"}:
            with suppress(errors.ObjectStoreUnavailable, errors.LeaseLost):
                await once(other if act == "other" else parts)
    parts.plan._faults.clear()
    parts.clock.move(seconds=60)
    await once(other)

    found = await archived(parts)
    for changes in found.values():
        for change in changes:
            assert history[change.epoch, change.position] == change
    for change in registry.history:
        assert change in found[change.epoch]


async def test_one_of_two_processes_ships_and_the_other_takes_over(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """T14, T17: two processes, one leads; when it ends in order it ships the rest, and the other goes on."""
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS", 1.0)
    other = again(parts)
    first = asyncio.create_task(parts.ship.run(Elected()))
    parts.registry.write(3)
    await _until(lambda: parts.ship.state.shipped == 3)
    second = asyncio.create_task(other.ship.run(Elected()))
    parts.registry.write(2)
    first.cancel()
    await asyncio.wait({first})
    parts.registry.write(2)
    await _until(lambda: other.ship.state.tip is not None and other.ship.state.tip.position == 7)
    second.cancel()
    await asyncio.wait({second})

    assert await archived(parts) == {1: parts.registry.history}
    assert parts.ship.state.shipped + other.ship.state.shipped == 7
    fault_table("T14", "two archivers, the leader ends under load", "the other goes on, nothing lost or doubled")


async def test_another_process_ships_seconds_after_a_crash(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """T14: what is written after the process that shipped is gone is archived in less than ten seconds."""
    other = again(parts)
    first = asyncio.create_task(parts.ship.run(Elected()))
    parts.registry.write(3)
    await _until(lambda: parts.ship.state.shipped == 3)

    async def gone(*_: object) -> None:
        """What a process that ends by itself does, and one that crashes does not."""

    monkeypatch.setattr(Lease, "release", gone)
    monkeypatch.setattr(parts.ship, "_last_step", gone)
    first.cancel()
    await asyncio.wait({first})
    parts.registry.write(2)
    second = asyncio.create_task(other.ship.run(Elected()))
    parts.clock.move(seconds=module.SHIP_TIMES.lease)
    async with asyncio.timeout(10 - module.SHIP_TIMES.lease):
        await _until(lambda: other.ship.state.tip is not None and other.ship.state.tip.position == 5)
    second.cancel()
    await asyncio.wait({second})

    fault_table("T14", "the archiver crashes", "another one ships in less than 10 s")


async def test_a_defect_does_not_end_the_archiver(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is reported, and shipping goes on."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    good = parts.registry.head
    failed: list[int] = []

    async def bad():  # type: ignore[no-untyped-def]
        if not failed:
            failed.append(1)
            raise KeyError("defect")
        return await good()

    parts.registry.head = bad  # type: ignore[method-assign]
    running = asyncio.create_task(parts.ship.run(Elected()))
    parts.registry.write(2)
    await _until(lambda: parts.ship.state.shipped == 2)
    running.cancel()
    await asyncio.wait({running})

    assert any("archive stands still" in each for each in parts.reported)


async def test_a_stale_archiver_ships_nothing_after_the_next_one(parts: Parts, fault_table: FaultTable) -> None:
    """T17: a process that slept past its lease is refused before it writes a segment."""
    parts.registry.write(2)
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        parts.clock.time += timedelta(seconds=60)
        await once(again(parts))
        before = await parts.keys(layout.ARCHIVE)
        parts.registry.write(1)
        with pytest.raises(errors.LeaseLost):
            await parts.ship.step(lease)
        assert await parts.keys(layout.ARCHIVE) == before
    fault_table("T17", "archiver sleeps past its lease", "LEASE_LOST, no segment written")


async def _until(holds) -> None:  # type: ignore[no-untyped-def]
    while not holds():  # noqa: ASYNC110 - what is waited for is told by nobody
        await asyncio.sleep(0.001)
