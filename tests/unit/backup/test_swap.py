"""Swaps: what serves afterwards, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from services.backup.domain.restore import Restore, RestoreState
from services.backup.domain.targets import AtBackup, AtPlace
from services.backup.usecases.prepare import KEEP
from services.backup.usecases.swap import SwapRules
from tests.backup_parts import HandClock
from tests.fix_fault_table import FaultTable
from tests.memory_places import Killed, Moments, Process, World, process, scratches

FINAL = {RestoreState.PREPARED, RestoreState.ACTIVE, RestoreState.REVERTED, RestoreState.FAILED, RestoreState.RELEASED}
AFTER_A_LEASE = 61.0
MOMENTS_MAX = 300


@pytest.fixture
def world() -> World:
    """A server with a registry that has four contents."""
    made = World(HandClock())
    for _ in range(4):
        made.register()
    return made


@pytest.fixture
async def one(tmp_path: Path, world: World) -> Process:
    """A process, with a backup, an archive, and changes behind both."""
    made = process(tmp_path, world)
    await made.backup()
    world.register()
    await made.archive()
    world.register()
    return made


def whole(world: World) -> None:
    """What must be true whenever nobody works: one live registry that takes writes, and no id with two contents."""
    assert not world.live.fenced
    assert not world.live.closed
    assert world.twice == []
    assert [change.position for change in world.live.history] == list(range(1, world.live.position + 1))
    numbers = [change.epoch for change in world.live.history]
    assert numbers == sorted(numbers)


async def test_latest_keeps_every_acknowledged_change(one: Process, world: World) -> None:
    """A restore to `latest` holds all that was acknowledged, in a new epoch, and gives ids above all of them."""
    prepared = await one.prepared()
    world.register()

    active = await one.activated(prepared)

    assert world.contents() == world.acknowledged
    assert (active.state, active.new_epoch, world.live.epochs[-1].id) == (RestoreState.ACTIVE, 2, 2)
    assert world.register() == active.next_schema_id
    assert active.place == active.fork
    whole(world)


async def test_loss_has_to_be_confirmed(one: Process, world: World) -> None:
    """A target before the newest change is refused until what would be lost is confirmed; a later change refuses it
    again."""
    (backup,) = await one.parts.ids()
    prepared = await one.prepared(AtBackup(backup))
    window = await one.prepare.window(prepared)
    with pytest.raises(errors.LossWindowChanged):
        await one.activated(prepared)
    world.register()

    with pytest.raises(errors.LossWindowChanged) as refused:
        await one.activated(prepared, window.confirmation)
    active = await one.activated(prepared, refused.value.metadata["confirmation"])

    assert window.changes == 2
    assert active.state is RestoreState.ACTIVE
    assert len(world.contents()) == 4
    whole(world)


async def test_change_between_confirmation_and_fence(one: Process, world: World) -> None:
    """A change that comes after the last look and before the fence is not lost: the fence is lifted again."""
    (backup,) = await one.parts.ids()
    prepared = await one.prepared(AtBackup(backup))
    confirmation = (await one.prepare.window(prepared)).confirmation

    def write(_: int, name: str) -> None:
        if name == "writer":
            world.register()

    one.moments.act = write

    with pytest.raises(errors.LossWindowChanged):
        await one.activated(prepared, confirmation)

    restore = await one.journal.get(prepared.id)
    assert restore.state is RestoreState.PREPARED
    assert world.contents() == world.acknowledged
    whole(world)


async def test_revert_after_writes_needs_confirmation(one: Process, world: World) -> None:
    """What was written since the activation is left behind only when that was confirmed; the beginning of the epoch
    counts as nothing."""
    active = await one.activated(await one.prepared())
    assert (await one.swap.revert_window(active)).changes == 0
    world.register()

    with pytest.raises(errors.LossWindowChanged) as refused:
        await one.reverted(active)
    reverted = await one.reverted(active, refused.value.metadata["confirmation"])

    assert refused.value.metadata["changes"] == "1"
    assert (reverted.state, world.live.epochs[-1].id) == (RestoreState.REVERTED, 3)
    assert world.register() not in {None, 0}
    whole(world)


async def test_revert_of_a_restore_below_another(one: Process, world: World) -> None:
    """What a revert would lose is counted along the lines of history, not by positions: they are lower after a restore
    to an earlier moment."""
    first = await one.activated(await one.prepared())
    for _ in range(5):
        world.register()
    await one.activated(await one.prepared(AtPlace(1, 5)), "9@2/999")
    assert (await one.swap.revert_window(first)).changes == 0
    world.register()

    with pytest.raises(errors.LossWindowChanged) as refused:
        await one.reverted(first)
    reverted = await one.reverted(first, refused.value.metadata["confirmation"])

    assert refused.value.metadata["changes"] == "1"
    assert reverted.new_epoch == 4
    whole(world)


async def test_release_drops_what_belongs_to_it(one: Process, world: World) -> None:
    """A release drops the places of its restore, no other's, and may be repeated."""
    first = await one.activated(await one.prepared())
    other = await one.prepared()

    await one.swap.release(first.id)
    again = await one.swap.release(first.id)

    assert again.state is RestoreState.RELEASED
    assert scratches(world) == [other.scratch]
    whole(world)


async def test_release_by_time(one: Process, world: World) -> None:
    """What was replaced is kept for its time, and dropped then; what is prepared waits for longer."""
    active = await one.activated(await one.prepared())
    prepared = await one.prepared()
    world.clock.move(hours=23)
    assert await one.swap.release_old() == []
    world.clock.move(hours=2)

    released = await one.swap.release_old()

    assert released == [active.id]
    assert scratches(world) == [prepared.scratch]


async def test_what_is_never_activated_is_released(one: Process, world: World) -> None:
    """A prepared restore waits for its time; then its place is dropped, and the journal says why."""
    prepared = await one.prepared()
    assert prepared.keep_until == world.clock.now() + KEEP
    world.clock.move(hours=71)
    assert await one.swap.release_old() == []
    world.clock.move(hours=2)

    assert await one.swap.release_old() == [prepared.id]

    released = await one.journal.get(prepared.id)
    assert released.state is RestoreState.RELEASED
    assert "not activated" in released.problem
    assert scratches(world) == []
    with pytest.raises(errors.IllegalState, match="not activated"):
        await one.activated(prepared)


async def test_a_clock_that_is_a_day_ahead_drops_nothing(tmp_path: Path, one: Process, world: World) -> None:
    """Times of what is kept are the store's, where they are set and where they are compared."""
    active = await one.activated(await one.prepared())
    true = HandClock(world.clock.now())
    store = DirectoryStore(tmp_path / "store", true.now)
    ahead = process(tmp_path, world, store=store, owner="process-b")
    world.clock.move(days=1, minutes=1)

    assert await ahead.swap.release_old() == []
    prepared = await ahead.prepared()
    reverted = await ahead.reverted(active)
    assert prepared.keep_until == true.now() + KEEP
    assert reverted.keep_until == true.now() + SwapRules().keep
    true.move(hours=25)
    assert await ahead.swap.release_old() == [active.id]


async def test_what_is_activated_at_the_last_moment_stays(one: Process, world: World) -> None:
    """One whose time is over, and that is swapped in before the release had the office, loses nothing."""
    prepared = await one.prepared()
    world.clock.move(hours=73)
    seen = await one.journal.list()
    active = await one.activated(prepared)

    async def stale() -> list[Restore]:
        return [*seen]

    one.journal.list = stale  # type: ignore[method-assign]

    assert await one.swap.release_old() == []
    assert (await one.journal.get(prepared.id)).state is RestoreState.ACTIVE
    assert scratches(world) == [active.aside]


async def test_lost_database(one: Process, world: World) -> None:
    """Without a live database the archive's history is restored, and its ids are passed over by the margin."""
    prepared = await one.prepared()
    del world.databases["live"]

    active = await one.activated(prepared)

    assert active.state is RestoreState.ACTIVE
    assert world.contents().items() <= world.acknowledged.items()
    assert world.register() == active.next_schema_id
    whole(world)


async def test_archive_that_knows_more_than_a_lost_database_left(one: Process, world: World) -> None:
    """What the archive got after the preparation is not lost silently with the database."""
    prepared = await one.prepared()
    world.register()
    await one.archive()
    del world.databases["live"]

    with pytest.raises(errors.LossWindowChanged):
        await one.activated(prepared)
    active = await one.activated(await one.prepared())

    assert active.state is RestoreState.ACTIVE
    assert world.contents() == world.acknowledged


async def test_database_that_does_not_answer_is_not_lost(one: Process, world: World) -> None:
    """A live database that does not answer for a moment is not taken for one that is gone."""
    prepared = await one.prepared()
    world.register()
    state = {"asked": 0}

    def fail(_: int, name: str) -> None:
        if name == "head of live":
            state["asked"] += 1
            raise errors.DatabaseUnavailable("restarting")

    one.moments.act = fail

    with pytest.raises(errors.DatabaseUnavailable):
        await one.activated(prepared)
    one.moments.act = lambda _count, _name: None
    await one.repaired()

    assert state["asked"] > 0
    assert world.contents() == world.acknowledged
    whole(world)


async def test_unreadable_database_has_to_be_confirmed(one: Process, world: World) -> None:
    """A live database that is there and cannot be read is put aside only by somebody who says so."""
    prepared = await one.prepared()

    def fail(_: int, name: str) -> None:
        if name == "head of live":
            raise errors.DatabaseUnfit("the table registry.head is empty")

    one.moments.act = fail

    with pytest.raises(errors.LossWindowChanged, match="cannot be read") as refused:
        await one.activated(prepared)
    one.moments.act = lambda _count, _name: None

    assert (await one.journal.get(prepared.id)).state is RestoreState.PREPARED
    assert refused.value.metadata["confirmation"]
    whole(world)


async def test_another_registrys_server(one: Process, world: World) -> None:
    """A server on which another registry lives is refused; one with a new, empty registry is not."""
    stranger = World(world.clock).live
    world.databases["live"] = replace(stranger, cluster_id="another")
    prepared = await one.prepared()
    world.register()

    with pytest.raises(errors.WrongCluster):
        await one.activated(prepared)
    with pytest.raises(errors.WrongCluster):
        await one.prepared()

    assert world.live.cluster_id == "another"
    assert not world.live.fenced
    world.databases["live"] = replace(stranger, cluster_id="another", history=[])
    assert (await one.activated(prepared)).state is RestoreState.ACTIVE


async def test_fence_that_somebody_lifted(one: Process, world: World) -> None:
    """A write that came behind the fence, because a paused process lifted it, keeps the swap from being done."""
    prepared = await one.prepared()

    def lift(_: int, name: str) -> None:
        if name == "begun":
            world.live.fenced = False
            world.register()

    one.moments.act = lift

    with pytest.raises(errors.LeaseLost):
        await one.activated(prepared)

    assert world.contents() == world.acknowledged
    assert (await one.journal.get(prepared.id)).state is RestoreState.FAILED
    whole(world)


async def test_process_that_lost_its_office_touches_nothing(tmp_path: Path, one: Process, world: World) -> None:
    """A process that was paused while another one took over neither lifts the fence nor writes the journal."""
    prepared = await one.prepared()
    other = process(tmp_path, world, owner="process-b")
    seen: list[bool] = []

    async def taken_over() -> None:
        world.clock.move(seconds=AFTER_A_LEASE)
        world.live.fenced = True
        restore = await other.journal.get(prepared.id)
        await other.journal.write(restore)
        async with other.swap._swapping():  # the office itself is what the other one needs
            seen.append(world.live.fenced)
            with pytest.raises(errors.LeaseLost):
                await asyncio.wait_for(going, 30)
            seen.append(world.live.fenced)

    paused, go_on = asyncio.Event(), asyncio.Event()

    class Pausing(Moments):
        async def at(self, name: str) -> None:
            await super().at(name)
            if name == "fenced":
                paused.set()
                await go_on.wait()

    slow = process(tmp_path, world, Pausing(), owner="process-c")
    going = asyncio.create_task(slow.activated(prepared))
    await paused.wait()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    await taken_over()

    assert seen == [True, True]


Deed = Callable[[Process, Restore], Awaitable[object]]


async def activate(process: Process, restore: Restore) -> object:
    """Activates."""
    return await process.activated(restore)


async def revert(process: Process, restore: Restore) -> object:
    """Reverts, whatever is lost by it."""
    return await process.reverted(restore, "1@2/999999")


async def release(process: Process, restore: Restore) -> object:
    """Releases."""
    return await process.swap.release(restore.id)


async def prepare(process: Process, restore: Restore) -> object:
    """Prepares another one."""
    return await process.prepared()


def failure_of(kind: str) -> BaseException:
    """What a moment fails with."""
    return {
        "killed": Killed(),
        "unavailable": errors.DatabaseUnavailable("the server went away"),
        "unfit": errors.DatabaseUnfit("the server refuses"),
        "cancelled": asyncio.CancelledError(),
    }[kind]


KINDS = ("killed", "unavailable", "unfit", "cancelled")
DEEDS = (activate, revert, release, prepare)
STRIDE = 12


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("deed", DEEDS)
async def test_failure_at_some_moments(tmp_path: Path, deed: Deed, fault_table: FaultTable) -> None:
    """As below, at every twelfth moment, each kind from another one on."""
    for offset, kind in enumerate(KINDS):
        folder = tmp_path / kind
        folder.mkdir()
        await fail_at_moments(folder, deed, kind, range(1 + 3 * offset, MOMENTS_MAX, STRIDE))
    fault_table("T30", f"{deed.__name__} cancelled at moments of it", "one registry serves; no place is left over")


@pytest.mark.slow
@pytest.mark.rotating(2)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deed", DEEDS)
async def test_failure_at_every_moment(tmp_path: Path, deed: Deed, kind: str) -> None:
    """Wherever a deed fails or its process ends: what is acknowledged stays, one registry serves, the journal ends in a
    final state by itself, nothing is left over, and the next restore works. Clients write at every moment."""
    await fail_at_moments(tmp_path, deed, kind, range(1, MOMENTS_MAX))


async def fail_at_moments(tmp_path: Path, deed: Deed, kind: str, numbers: range) -> None:
    """Does the deed once for each number, and has that moment of it fail; ends behind its last moment."""
    outcomes = set()
    for number in numbers:
        world = World(HandClock())
        for _ in range(3):
            world.register()
        folder = tmp_path / str(number)
        folder.mkdir()
        first = process(folder, world)
        await first.backup()
        await first.archive()
        restore = await first.prepared()
        if deed in {revert, release}:
            restore = await first.activated(restore)
        kept = dict(world.acknowledged)

        def act(count: int, _name: str, number: int = number, world: World = world) -> None:
            world.register()
            if count == number:
                raise failure_of(kind)

        doomed = process(folder, world, Moments(act), owner="process-b")
        with suppress(Killed, errors.Error, asyncio.CancelledError):
            await deed(doomed, restore)
        reached = doomed.moments.count >= number
        world.clock.move(seconds=AFTER_A_LEASE)

        second = process(folder, world, owner="process-c")
        await second.repaired()

        whole(world)
        states = {each.state for each in await second.journal.list()}
        assert states <= FINAL, (number, doomed.moments.names)
        if deed is revert:
            assert kept.items() <= world.contents().items()
        else:
            assert world.contents() == world.acknowledged, (number, doomed.moments.names)
        outcomes |= states
        for each in await second.journal.list():
            await second.swap.release(each.id)
        assert scratches(world) == [], (number, doomed.moments.names)
        await second.activated(await second.prepared())
        whole(world)
        if not reached:
            break
    else:
        pytest.fail("the deed has more moments than were tried")
    assert outcomes
