"""Repairs: what a process left in the middle of a restore is ended by another one, and told when it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.operation import OperationKind
from llm_schema_registry.operations.operations import Operations
from services.backup.adapters.recipients import system_dice
from services.backup.domain.restore import Restore, RestoreState
from services.backup.usecases import repair as module
from services.backup.usecases.repair import ACTOR, Repair
from services.backup.usecases.repository import RESTORING, SWAPPING
from services.backup.usecases.swap import SWAP_TIMES
from tests.backup_parts import HandClock
from tests.memory_places import Killed, Moments, Process, World, process, scratches

AFTER_A_SWAPS_LEASE = SWAP_TIMES.lease + 1


@pytest.fixture
def world() -> World:
    """A server with a registry that has three contents."""
    made = World(HandClock())
    for _ in range(3):
        made.register()
    return made


@pytest.fixture
async def one(tmp_path: Path, world: World) -> Process:
    """A process, with a backup and a change behind it."""
    made = process(tmp_path, world)
    await made.backup()
    world.register()
    return made


class Replica:
    """Another process, which repairs. reported: events. told: set at each of them."""

    def __init__(self, folder: Path, world: World) -> None:
        self.process = process(folder, world, owner="process-b")
        self.reported: list[str] = []
        self.facts: list[dict[str, object]] = []
        self.told = asyncio.Event()
        repository = self.process.parts.repository
        self.operations = Operations(repository.store, world.clock, system_dice, "process-b", self.report)
        self.repair = Repair(repository, self.operations, self.process.swap, self.report)

    def report(self, event: str, **facts: object) -> None:
        """Notes what an operator would find in the log."""
        self.reported.append(event)
        self.facts.append(facts)
        self.told.set()


@pytest.fixture
async def other(tmp_path: Path, one: Process, world: World) -> AsyncIterator[Replica]:
    """Another process on the same folder."""
    replica = Replica(tmp_path, world)
    yield replica
    await replica.operations.close(0)


def killed_at(moment: str) -> Moments:
    """Moments of a process that ends at the first one of that name."""

    def act(_: int, name: str) -> None:
        if name == moment:
            raise Killed

    return Moments(act)


async def killed(folder: Path, world: World, moment: str, restore: Restore | None = None) -> None:
    """Has a process prepare, activate or revert a restore, and ends it at a moment."""
    doomed = process(folder, world, killed_at(moment), owner="process-c")
    if restore is None:
        deed = doomed.prepared()
    elif restore.state is RestoreState.ACTIVE:
        deed = doomed.reverted(restore)
    else:
        deed = doomed.activated(restore)
    with pytest.raises(Killed):
        await deed


@asynccontextmanager
async def looking(repair: Repair) -> AsyncIterator[None]:
    """Repairs during the block, as a service does."""
    task = asyncio.create_task(repair.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(fact: Callable[[], bool]) -> None:
    """Returns when a fact is true."""
    async with asyncio.timeout(20):
        while True:
            if fact():
                return
            await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["fenced", "begun", "closed", "renamed"])
async def test_activation_of_a_process_that_ended(
    tmp_path: Path, one: Process, other: Replica, world: World, moment: str
) -> None:
    """Once its lease is over an activation is ended by another process, as an operation that says who did it."""
    prepared = await one.prepared()
    await killed(tmp_path, world, moment, prepared)
    world.clock.move(seconds=AFTER_A_SWAPS_LEASE)

    left = await other.repair.round()

    (operation,) = await other.operations.list()
    assert not left
    assert (operation.kind, operation.actor, operation.error) == (OperationKind.ACTIVATE_RESTORE, ACTOR, None)
    assert (await one.journal.get(prepared.id)).state is RestoreState.ACTIVE
    assert not world.live.fenced
    assert not world.live.closed
    assert world.contents() == world.acknowledged


@pytest.mark.parametrize("back", [timedelta(days=1), timedelta(seconds=20)])
async def test_nobody_waits_for_a_clock_that_went_back(
    tmp_path: Path, one: Process, other: Replica, world: World, back: timedelta
) -> None:
    """A swap is ended at once when the store's clock went back by more than its lease lasts."""
    prepared = await one.prepared()
    await killed(tmp_path, world, "fenced", prepared)
    leases = one.parts.repository.leases
    await leases._take(leases._place(SWAPPING, SWAP_TIMES), SWAPPING)  # nobody renews it or gives it back
    world.clock.time -= back

    await other.repair.round()

    assert (await one.journal.get(prepared.id)).state is RestoreState.ACTIVE


async def test_revert_of_a_process_that_ended(tmp_path: Path, one: Process, other: Replica, world: World) -> None:
    """A revert is ended as a revert."""
    active = await one.activated(await one.prepared())
    await killed(tmp_path, world, "closed", active)
    world.clock.move(seconds=AFTER_A_SWAPS_LEASE)

    await other.repair.round()

    (operation,) = await other.operations.list()
    assert operation.kind is OperationKind.REVERT_RESTORE
    assert (await one.journal.get(active.id)).state is RestoreState.REVERTED


async def test_swap_that_somebody_may_work_on(tmp_path: Path, one: Process, other: Replica, world: World) -> None:
    """While somebody has the office of swaps a swap is left alone, and the round says that something is left."""
    prepared = await one.prepared()
    await killed(tmp_path, world, "fenced", prepared)

    async with one.swap._swapping():  # the office itself is what the other one must respect
        assert await other.repair.round()

    assert await other.operations.list() == []
    assert (await one.journal.get(prepared.id)).state is RestoreState.ACTIVATING
    assert world.live.fenced


async def test_nothing_to_do(one: Process, other: Replica, world: World) -> None:
    """What is prepared or active is not touched, and no operation is begun for it."""
    await one.activated(await one.prepared())
    prepared = await one.prepared()
    world.clock.move(seconds=AFTER_A_SWAPS_LEASE)
    before = dict(world.databases)

    assert not await other.repair.round()

    assert world.databases == before
    assert (await one.journal.get(prepared.id)).state is RestoreState.PREPARED
    assert await other.operations.list() == []
    assert other.reported == []


async def test_preparation_of_a_process_that_ended(tmp_path: Path, one: Process, other: Replica, world: World) -> None:
    """A preparation is left alone while somebody has the office of restores, and dropped and ended after that."""
    await killed(tmp_path, world, "restored")
    left = scratches(world)
    async with one.parts.repository.leases.held(RESTORING):
        assert not await other.repair.round()
        assert scratches(world) == left
        assert [each.state for each in await one.journal.list()] == [RestoreState.PREPARING]

    await other.repair.round()

    assert scratches(world) == []
    assert [each.state for each in await one.journal.list()] == [RestoreState.FAILED]
    assert other.reported == []


async def test_place_that_its_restore_left(one: Process, other: Replica, tmp_path: Path, world: World) -> None:
    """A place whose restore has failed already is dropped with the next preparation that a process left, and named."""
    await killed(tmp_path, world, "restored")
    (left,) = scratches(world)
    (failed,) = await one.journal.list()
    await one.journal.write(failed, state=RestoreState.FAILED)
    world.clock.move(seconds=1)
    another = one.parts.repository.new_id()
    scratch = left[: -ids.TOKEN_LENGTH] + ids.token(another)
    await one.journal.write(replace(failed, id=another, number=0, scratch=scratch))

    await other.repair.round()

    assert scratches(world) == []
    assert other.reported == ["left-over place dropped"]
    assert other.facts == [{"name": left}]


async def test_what_cannot_be_ended_is_told_once(
    tmp_path: Path, one: Process, other: Replica, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swap that cannot be ended is tried again and again, told once, shown by the check, and ended when it can be."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(module, "REST_SECONDS", 0)
    prepared = await one.prepared()
    await killed(tmp_path, world, "fenced", prepared)
    world.clock.move(seconds=AFTER_A_SWAPS_LEASE)
    world.down = True

    async with looking(other.repair):
        await until(lambda: other.repair._failures > 2)
        problem = await other.repair.check()
        world.down = False
        await until(lambda: not other.repair.problem)

    assert problem == "the server of the test is down"
    assert await other.repair.check() is None
    assert other.reported.count("restore cannot be ended") == 1
    assert {"reason": "DATABASE_UNAVAILABLE", "message": problem} in other.facts
    assert (await one.journal.get(prepared.id)).state is RestoreState.ACTIVE


async def test_replica_that_is_faster(one: Process, other: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """That another replica works on it is no problem."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(module, "REST_SECONDS", 0)
    tried: list[int] = []

    async def busy() -> bool:
        tried.append(len(tried))
        raise errors.OperationRunning("another replica has the office")

    monkeypatch.setattr(other.repair, "round", busy)

    async with looking(other.repair):
        await until(lambda: len(tried) > 2)

    assert await other.repair.check() is None
    assert other.reported == []


async def test_defect_does_not_end_the_task(one: Process, other: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is logged with its trace and told by the check; the task looks on, and the problem ends with it."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(module, "REST_SECONDS", 0)
    defect = ZeroDivisionError("a defect of the test")
    outcomes: list[BaseException | bool] = [defect, errors.OperationRunning("another one"), False]
    problems: list[str] = []

    async def round_of_the_test() -> bool:
        problems.append(other.repair.problem)
        outcome = outcomes.pop(0) if outcomes else False
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(other.repair, "round", round_of_the_test)

    async with looking(other.repair):
        await until(lambda: len(problems) > 3)

    assert other.reported == ["restores cannot be ended"]
    assert other.facts == [{"exc_info": defect}]
    assert "defect" in problems[1]
    assert problems[3] == ""
