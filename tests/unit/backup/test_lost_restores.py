"""What has rotten in the journal or the archive: nothing acts on it, and everything else can be restored."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout
from services.backup.domain.model import Level
from services.backup.domain.restore import Restore, RestoreState
from services.backup.domain.targets import AtBackup, AtPlace, Latest
from services.backup.usecases.journal import Journal
from services.backup.usecases.prepare import Aim
from services.backup.usecases.status import NamedStore, Status
from tests.backup_parts import HandClock
from tests.memory_places import MARGIN, Killed, Moments, Process, World, process, token

AFTER_A_LEASE = 61.0


@pytest.fixture
def world() -> World:
    """A server with a registry that has four contents."""
    made = World(HandClock())
    for _ in range(4):
        made.register()
    return made


@pytest.fixture
async def one(tmp_path: Path, world: World) -> Process:
    """A process, with a backup, and an archive behind it."""
    made = process(tmp_path, world)
    await made.backup()
    world.register()
    await made.archive()
    return made


async def newest_entry(one: Process, restore: Restore) -> str:
    """Key of the newest entry of a restore."""
    return max(await one.parts.keys(layout.restore(restore.id)))


async def rot(one: Process, restore: Restore) -> str:
    """Damages the newest entry of a restore, and returns its key."""
    key = await newest_entry(one, restore)
    one.parts.flip(key, 60)
    return key


def later(tmp_path: Path, world: World) -> Process:
    """A process that begins when no other one is at work."""
    world.clock.move(seconds=AFTER_A_LEASE)
    return process(tmp_path, world, owner="process-b")


def whole(world: World) -> None:
    """One live registry that takes writes, and no id with two contents."""
    assert not world.live.fenced
    assert world.twice == []


async def made_to(one: Process, state: RestoreState) -> Restore:
    """A restore in a state."""
    restore = await one.prepared()
    if state is RestoreState.PREPARED:
        return restore
    restore = await one.activated(restore)
    if state is RestoreState.REVERTED:
        return await one.reverted(restore)
    return await one.swap.release(restore.id) if state is RestoreState.RELEASED else restore


STATES = [RestoreState.PREPARED, RestoreState.ACTIVE, RestoreState.REVERTED, RestoreState.RELEASED]


@pytest.mark.parametrize("state", STATES)
async def test_one_rotten_entry_does_not_block_the_rest(
    tmp_path: Path, one: Process, world: World, state: RestoreState
) -> None:
    """With the newest entry of one restore damaged, another is prepared, swapped in, reverted and released."""
    lost = await made_to(one, state)
    await rot(one, lost)
    kept = set(world.databases)
    world.register()
    second = later(tmp_path, world)
    await second.repaired()

    active = await second.activated(await second.prepared())
    world.register()
    reverted = await second.reverted(active, (await second.swap.revert_window(active)).confirmation)
    await second.swap.release(reverted.id)

    whole(world)
    assert [each.id for each in await second.journal.list()] == [active.id]
    assert set(world.databases) == kept
    assert await second.swap.release_old() == []


async def test_rehearsal_and_outlook(tmp_path: Path, one: Process, world: World) -> None:
    """A drill and a plan need nothing of what is lost either."""
    await rot(one, await made_to(one, RestoreState.RELEASED))
    second = later(tmp_path, world)
    survey = await second.prepare.survey()

    outlook = await second.prepare.outlook(Aim(Latest(), Level.V2))
    way = await second.prepare.way(Latest(), Level.V2, survey)

    assert outlook.place.position == world.live.position
    assert (await second.prepare.rehearse(way, survey, second.running())).problems == ()


@pytest.mark.parametrize("state", STATES)
async def test_nobody_acts_on_a_lost_restore(tmp_path: Path, one: Process, world: World, state: RestoreState) -> None:
    """What is asked of a lost restore is refused, names the object, and changes nothing."""
    lost = await made_to(one, state)
    key = await rot(one, lost)
    second = later(tmp_path, world)
    before, keys = set(world.databases), await second.parts.keys("restores/")

    for act in (second.activated, second.reverted):
        with pytest.raises(errors.BackupDamaged, match=key):
            await act(lost)
    with pytest.raises(errors.BackupDamaged, match=token(lost)):
        await second.swap.release(lost.id)

    assert (set(world.databases), await second.parts.keys("restores/")) == (before, keys)
    whole(world)


async def test_a_lost_swap_is_not_gone_on_with(tmp_path: Path, one: Process, world: World) -> None:
    """A process dies behind the beginning of an epoch, and what it wrote last rots: nobody goes on with the swap, and
    the next one begins an epoch of another number."""
    restore = await one.prepared()

    def die(_: int, name: str) -> None:
        if name == "restore.epoch_begun":
            raise Killed

    doomed = process(tmp_path, world, Moments(die))
    with suppress(Killed):
        await doomed.activated(restore)
    await rot(one, restore)
    taken = world.databases[restore.scratch].epochs[-1].id
    second = later(tmp_path, world)
    await second.repaired()

    active = await second.activated(await second.prepared())

    assert active.new_epoch is not None
    assert active.new_epoch > taken
    assert restore.scratch in world.databases
    assert world.contents() == world.acknowledged
    whole(world)


async def test_ids_of_what_is_lost_count_as_given(tmp_path: Path, one: Process, world: World) -> None:
    """The live database is gone, so is the heartbeat, and the entry that tells from where ids went on is damaged: the
    next restore passes over as many as may have been given."""
    active = await made_to(one, RestoreState.ACTIVE)
    given = [world.register() for _ in range(MARGIN // 2)]
    await rot(one, active)
    for number in range(1, active.number):
        one.parts.flip(layout.restore_entry(active.id, number), 60)
    await one.parts.store.delete(layout.HEARTBEAT)
    world.databases.pop("live")
    second = later(tmp_path, world)

    restored = await second.activated(await second.prepared())

    assert restored.next_schema_id is not None
    assert restored.next_schema_id > max(each or 0 for each in given)
    assert world.register() not in given
    assert world.twice == []


async def test_a_rotten_end_of_the_archive_is_not_needed(tmp_path: Path, one: Process, world: World) -> None:
    """With the newest segments of two lines damaged, a backup is restored all the same, and no id is given twice. The
    operation tells what cannot be read."""
    active = await made_to(one, RestoreState.ACTIVE)
    assert active.fork is not None
    given = [world.register() for _ in range(5)]
    await one.archive()
    segments = sorted(key for key in await one.parts.keys("archive/") if key != layout.HEARTBEAT)
    for key in segments:
        one.parts.flip(key, 200)
    await one.parts.store.delete(layout.HEARTBEAT)
    second = later(tmp_path, world)
    (backup,) = await second.parts.ids()
    prepared = await second.prepared(AtBackup(backup))
    running = second.running()

    await second.swap.activate(prepared.id, (await second.prepare.window(prepared)).confirmation, running)

    (told,) = [each.message for each in running.operation.steps if each.name == "numbers"]
    assert segments[0] in told
    assert world.register() not in given
    whole(world)


async def test_a_newest_line_that_nothing_tells_of(tmp_path: Path, one: Process, world: World) -> None:
    """Where all of the newest line has rotten and the database is gone, `latest` is refused, which names the segment;
    what is known can be restored."""
    active = await made_to(one, RestoreState.ACTIVE)
    world.register()
    await one.archive()
    damaged = sorted(key for key in await one.parts.keys("archive/0000000002/") if key != layout.HEARTBEAT)
    for key in damaged:
        one.parts.flip(key, 200)
    for key in await one.parts.keys(layout.restore(active.id)):
        one.parts.flip(key, 60)
    await one.parts.store.delete(layout.HEARTBEAT)
    world.databases.pop("live")
    second = later(tmp_path, world)

    with pytest.raises(errors.BackupDamaged, match=damaged[-1]):
        await second.prepared()
    earlier = await second.activated(await second.prepared(AtPlace(1, 4)))

    assert earlier.new_epoch is not None
    assert earlier.new_epoch > 2
    assert world.live.position == 5


async def test_an_older_entry_is_not_the_present_one(one: Process) -> None:
    """The entry before a damaged one never counts, wherever restores are listed."""
    active = await made_to(one, RestoreState.ACTIVE)
    await rot(one, active)
    journal = Journal(one.parts.repository)

    found = await journal.history()

    assert found.restores == ()
    assert [replace(each.before, number=0) for each in found.lost if each.before] != []
    assert [each.before.state for each in found.lost if each.before] == [RestoreState.ACTIVATING]


async def test_the_store_tells_what_is_lost(one: Process) -> None:
    """The status of the store names the object of a lost restore, and what to do."""
    parts = one.parts
    key = await rot(one, await made_to(one, RestoreState.RELEASED))
    store = NamedStore("primary", "of the test", parts.store, parts.repository.catalog, parts.audit, one.journal)
    status = Status(parts.registry, parts.archive, parts.repository.catalog, None, parts.audit)

    found = await status.store(store)

    assert key in found.problem
    assert "brought back" in found.problem
