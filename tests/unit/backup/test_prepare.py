"""Preparations: what can be reached, what is lost, and what is left behind."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain.model import Kind, Level, Place
from services.backup.domain.restore import RestoreState
from services.backup.domain.targets import AtBackup, AtPlace, AtTime
from services.backup.usecases.prepare import Aim, follows
from tests.backup_parts import HandClock
from tests.fix_fault_table import FaultTable
from tests.memory_places import Killed, Latest, Moments, Process, World, process, scratches


@pytest.fixture
def world() -> World:
    """A server with a registry."""
    return World(HandClock())


@pytest.fixture
async def one(tmp_path: Path, world: World) -> Process:
    """A process; positions 1 to 3 are in a backup, 4 to 6 in the archive, one a second."""
    made = process(tmp_path, world)
    for _ in range(3):
        world.clock.move(seconds=1)
        world.register()
    await made.backup()
    for _ in range(3):
        world.clock.move(seconds=1)
        world.register()
    await made.archive()
    return made


async def test_exactly_at_a_place(one: Process, world: World, fault_table: FaultTable) -> None:
    """A restore to a place ends there, and its database is fenced."""
    for position in range(3, 7):
        prepared = await one.prepared(AtPlace(1, position))

        assert prepared.place == Place(1, position)
        assert world.databases[prepared.scratch].position == position
        assert world.databases[prepared.scratch].fenced
    fault_table("T25", "target exactly at a commit, in the backup and in the archive", "ends there")


async def test_exactly_at_a_time(one: Process, world: World) -> None:
    """A restore to the moment of a change holds it, and none after it."""
    time = world.live.history[4].time

    assert (await one.prepared(AtTime(time))).place == Place(1, 5)
    assert (await one.prepared(AtTime(time - timedelta(microseconds=1)))).place == Place(1, 4)


@pytest.mark.parametrize(
    "target", [AtPlace(1, 2), AtPlace(1, 7), AtPlace(2, 3), AtBackup("01J00000000000000000000000")]
)
async def test_unreachable(one: Process, world: World, target: AtPlace | AtBackup, fault_table: FaultTable) -> None:
    """A target before the oldest backup, behind the archive, on an unknown line or of no backup is an error, and never
    something near it."""
    with pytest.raises(errors.TargetUnreachable):
        await one.prepared(target)

    assert scratches(world) == []
    assert await one.journal.list() == []
    fault_table("T25", f"target {target}", "TARGET_UNREACHABLE, never something near it")


async def test_target_before_everything(one: Process, world: World, fault_table: FaultTable) -> None:
    """A time before the oldest backup is an error that tells what is near."""
    with pytest.raises(errors.TargetUnreachable) as refused:
        await one.prepared(AtTime(world.live.history[0].time))

    assert refused.value.metadata["nearest_after"] == "1/3"
    fault_table("T25", "target before the first backup", "TARGET_UNREACHABLE, names the nearest after it")


async def test_gap(one: Process, world: World, fault_table: FaultTable) -> None:
    """A segment that is gone makes what lies behind it unreachable; what is before it can be reached."""
    world.register()
    await one.archive()
    segments = sorted(await one.parts.keys("archive/"))
    segments = [key for key in segments if "heartbeat" not in key]
    one.parts.path(segments[-2]).unlink()

    with pytest.raises(errors.TargetUnreachable, match="gap"):
        await one.prepared(AtPlace(1, 7))

    assert (await one.prepared(AtPlace(1, 3))).place == Place(1, 3)
    fault_table("T25", "target inside a gap of the archive", "TARGET_UNREACHABLE; what is before it can be reached")


async def test_abandoned_tail_is_not_entered(one: Process, world: World, fault_table: FaultTable) -> None:
    """After a restore to an earlier place, a restore to a moment of the first line ends before what was abandoned, and
    `latest` follows the new line."""
    await one.activated(await one.prepared(AtPlace(1, 4)), "2@1/6")
    for _ in range(2):
        world.clock.move(seconds=1)
        world.register()
    await one.archive()
    served = [change.place for change in world.live.history]

    latest = await one.prepared()
    earlier = await one.prepared(AtTime(world.live.history[3].time))
    abandoned = await one.prepared(AtPlace(1, 6))

    assert [change.place for change in world.databases[latest.scratch].history] == served
    assert earlier.place == Place(1, 4)
    assert [change.epoch for change in world.databases[abandoned.scratch].history] == [1] * 6
    fault_table("T25", "targets across the line of an earlier restore", "latest on the new line, the left one by name")


async def test_lost_right_after_a_restore(one: Process, world: World) -> None:
    """The line that a restore began counts before anything of it is in the archive: `latest` does not go back to the
    tail that was left behind on purpose."""
    await one.activated(await one.prepared(AtPlace(1, 4)), "2@1/6")
    del world.databases["live"]

    latest = await one.prepared()

    assert latest.place == Place(1, 4)


async def test_line_that_only_the_archive_knows(one: Process, world: World) -> None:
    """A line that was left by a revert can still be restored to, from the archive."""
    active = await one.activated(await one.prepared())
    world.register()
    await one.archive()
    position = world.live.position
    window = await one.swap.revert_window(active)
    await one.reverted(active, window.confirmation)
    world.register()
    await one.archive()

    prepared = await one.prepared(AtPlace(2, position))

    assert prepared.place == Place(2, position)


async def test_window(one: Process, world: World) -> None:
    """The loss window tells how many changes, which, and from when."""
    prepared = await one.prepared(AtPlace(1, 4))
    world.clock.move(seconds=1)
    world.register()

    window = await one.prepare.window(prepared)

    assert (window.readable, window.changes, window.confirmation) == (True, 3, "3@1/7")
    assert (window.first_time, window.last_time) == (world.live.history[4].time, world.live.history[6].time)


async def test_damaged_backup(one: Process, world: World) -> None:
    """A damaged byte fails the preparation; its place is dropped, and the journal says why."""
    (backup,) = await one.parts.ids()
    entry = await one.parts.repository.catalog.get(backup)
    one.parts.flip(one.parts.data(entry.manifest), -1)

    with pytest.raises(errors.BackupDamaged):
        await one.prepared()

    (restore,) = await one.journal.list()
    assert restore.state is RestoreState.FAILED
    assert restore.problem
    assert scratches(world) == []


async def test_dead_preparation_that_made_nothing_yet(tmp_path: Path, one: Process, world: World) -> None:
    """A preparation whose process ended before its database was there ends as failed, by the sweep."""

    def kill(_: int, name: str) -> None:
        if name == "create":
            raise Killed

    with pytest.raises(Killed):
        await process(tmp_path, world, Moments(kill), owner="process-b").prepared(Latest())
    world.clock.move(seconds=60)

    await one.repaired()

    (restore,) = await one.journal.list()
    assert restore.state is RestoreState.FAILED


async def test_place_that_cannot_be_dropped_now(one: Process, world: World) -> None:
    """A preparation that fails while the server is away stays one until its place is dropped; its problem is kept."""

    def fail(_: int, name: str) -> None:
        if name == "restored":
            world.down = True
            raise errors.RestoreFailed("no space left")

    one.moments.act = fail
    with pytest.raises(errors.RestoreFailed):
        await one.prepared()
    one.moments.act = lambda _count, _name: None
    (waiting,) = await one.prepare.abandoned()
    await one.prepare.sweep()
    (still,) = await one.journal.list()
    world.down = False

    await one.prepare.sweep()

    (ended,) = await one.journal.list()
    assert (waiting.state, waiting.problem) == (RestoreState.PREPARING, "no space left")
    assert still == waiting, "a sweep that cannot drop it writes nothing"
    assert (ended.state, ended.problem) == (RestoreState.FAILED, "no space left")
    assert scratches(world) == []


async def test_sweep_leaves_what_is_used(one: Process, world: World) -> None:
    """A sweep drops what nobody owns, and neither what is prepared nor what was put aside."""
    active = await one.activated(await one.prepared())
    prepared = await one.prepared()
    stray = "live_restore_abcdefghij01"
    stray = next(name for name in [prepared.scratch[:-12] + "abcdefghij01", stray])
    world.databases[stray] = World(world.clock).live

    dropped = await one.prepare.sweep()

    assert dropped == [stray]
    assert scratches(world) == sorted([active.aside, prepared.scratch])


async def test_follows(one: Process, world: World) -> None:
    """A live history goes on from its own earlier places, not from ones that it left."""
    await one.activated(await one.prepared(AtPlace(1, 4)), "2@1/6")
    live = world.live.head()

    assert follows(live, Place(1, 4))
    assert follows(live, Place(2, 5))
    assert not follows(live, Place(1, 5))
    assert not follows(live, Place(9, 1))


async def test_outlook_makes_nothing(one: Process, world: World) -> None:
    """What a preparation would do is told without making anything: base, end, and what would be lost."""
    world.register()
    time = world.live.history[4].time

    place = await one.prepare.outlook(Aim(AtPlace(1, 4), Level.V1))
    moment = await one.prepare.outlook(Aim(AtTime(time), Level.V1))
    latest = await one.prepare.outlook(Aim(Latest(), Level.V1, place.entry.id))

    assert (place.place, place.window.changes) == (Place(1, 4), 3)
    assert (moment.place, moment.window.changes) == (Place(1, 5), 2)
    assert (latest.place, latest.window.changes) == (Place(1, 7), 0)
    assert scratches(world) == []
    assert await one.journal.list() == []


async def test_safety_backups_are_the_last_choice(one: Process, world: World) -> None:
    """One of the state that a restore replaced may hold what was wrong with it: an older one is begun from, unless the
    safety backup is named or nothing else leads there."""
    older = (await one.parts.ids())[0]
    safety = (await one.parts.backup(Kind.SAFETY)).id

    latest = await one.prepare.outlook(Aim(Latest(), Level.V1))
    named = await one.prepare.outlook(Aim(AtBackup(safety), Level.V1))
    gap, *_ = [key for key in sorted(await one.parts.keys("archive/")) if "heartbeat" not in key]
    one.parts.path(gap).unlink()
    alone = await one.prepare.outlook(Aim(Latest(), Level.V1))

    assert [each.entry.id for each in (latest, named, alone)] == [older, safety, safety]


async def test_a_backup_of_damage_is_passed_over(one: Process, world: World) -> None:
    """A backup that was made after the damage fails once: the check's finding is noted, and the next preparation begins
    from the one before."""
    older = (await one.parts.ids())[0]
    whole = world.live.history
    world.live.history = [*whole[:2], *whole[3:]]
    damaged = await one.backup()
    world.live.history = whole

    with pytest.raises(errors.RestoreFailed, match=damaged):
        await one.prepared()
    prepared = await one.prepared()

    assert prepared.backup_id == older
    assert (await one.parts.repository.catalog.get(damaged)).level == Level.V3


async def test_another_base_than_the_named_one_is_never_taken(one: Process) -> None:
    """A base that is named and is not there is an error."""
    with pytest.raises(errors.TargetUnreachable):
        await one.prepare.outlook(Aim(Latest(), Level.V1, "01J00000000000000000000000"))
