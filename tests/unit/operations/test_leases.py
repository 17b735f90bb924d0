"""Leases: one process of many holds an office, and one that was away learns that it no longer does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations import keys
from llm_schema_registry.operations.leases import Held, Lease, Leases, LeaseTimes, _Guard, _Place
from tests.backup_parts import NOON, HandClock
from tests.fix_fault_table import FaultTable
from tests.object_faults import FaultyStore, Plan, Raise, RaiseAfter, Wait

OFFICE = "repository"
DOWN = errors.ObjectStoreUnavailable("the store of the test is down")
HELD = Held("one", 1, NOON)
QUICK = LeaseTimes(lease=3.0, renew=0.01, fence=1.0)


class Offices:
    """Two processes at one store."""

    def __init__(self, folder: Path, times: LeaseTimes = QUICK) -> None:
        self.clock = HandClock()
        self.plan = Plan()
        self.store: ObjectStore = FaultyStore(DirectoryStore(folder, self.clock.now), self.plan)
        self.one = Leases(self.store, self.clock, "one", times)
        self.other = Leases(self.store, self.clock, "other", times)


@pytest.fixture
def offices(tmp_path: Path) -> Offices:
    """Two processes at an empty store."""
    return Offices(tmp_path / "store")


async def test_one_of_many_holds_an_office(offices: Offices) -> None:
    """While one holds it another is refused, and told who holds it and until when."""
    async with offices.one.held(OFFICE):
        with pytest.raises(errors.OperationRunning) as refused:
            async with offices.other.held(OFFICE):
                pass

    assert refused.value.metadata["owner"] == "one"
    assert refused.value.retry_seconds == pytest.approx(QUICK.lease, abs=1)


async def test_an_office_given_back_is_free_at_once(offices: Offices) -> None:
    """Nobody waits for the expiry of a lease that ended in order, and the next generation is larger."""
    async with offices.one.held(OFFICE) as first:
        generation = first.generation

    async with offices.other.held(OFFICE) as second:
        assert second.generation > generation
    assert await offices.one.holder(OFFICE) is None


async def test_whoever_waits_gets_the_office_when_it_is_free(offices: Offices) -> None:
    """With patience an office is waited for."""
    async with offices.other.held(OFFICE) as lease:
        waiting = asyncio.create_task(_wait_for(offices.one))
        await asyncio.sleep(0)

    assert await waiting > lease.generation


async def _wait_for(leases: Leases) -> int:
    async with leases.held(OFFICE, patience_seconds=60) as lease:
        return lease.generation


async def test_an_expired_lease_commits_nothing(offices: Offices, fault_table: FaultTable) -> None:
    """A process that slept past its lease is refused at the commit, whether or not another took over."""
    async with offices.one.held(OFFICE) as lease:
        offices.clock.time += _seconds(QUICK.lease + 1)
        with pytest.raises(errors.LeaseLost):
            await lease.require()

    fault_table("T17", "the holder sleeps past its lease", "LEASE_LOST before the commit")


async def test_a_stale_generation_is_refused(offices: Offices) -> None:
    """Once another took over, the one that held it before is refused, although its clock stood still."""
    leave = asyncio.Event()
    slow = Leases(offices.store, offices.clock, "slow", LeaseTimes(lease=3.0, renew=1.0, fence=2.0))

    async def hold() -> None:
        async with slow.held(OFFICE) as lease:
            await leave.wait()
            await lease.require()

    holding = asyncio.create_task(hold())
    while await offices.other.holder(OFFICE) is None:  # noqa: ASYNC110 - what is waited for is in the store
        await asyncio.sleep(0)
    offices.clock.time += _seconds(4)
    async with offices.other.held(OFFICE) as lease:
        leave.set()
        with pytest.raises(errors.LeaseLost):
            await holding
        await lease.require()


async def test_losing_the_office_cancels_the_block(offices: Offices) -> None:
    """A block whose lease cannot be renewed ends with LeaseLost, also inside a task group."""
    offices.plan.add("put", None, *[Raise(DOWN)] * 1000)

    async def forever() -> None:
        await asyncio.Event().wait()

    async def move() -> None:
        while True:
            offices.clock.seconds += 0.1
            await asyncio.sleep(0.001)

    moving = asyncio.create_task(move())
    with pytest.raises(errors.LeaseLost):
        async with offices.one.held(OFFICE), asyncio.TaskGroup() as group:
            group.create_task(forever())
    moving.cancel()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_holder_gives_up_before_anybody_else_may_take_over(offices: Offices) -> None:
    """Without renewals a holder ends within its fence, while the lease still keeps all others away."""
    lease = await offices.one._take(offices.one._place(OFFICE, QUICK), OFFICE)
    offices.plan.add("put", *[Raise(DOWN)] * 1000)
    offices.clock.seconds += QUICK.fence + 0.001

    await lease.keep()

    with pytest.raises(errors.LeaseLost):
        await lease.require()
    assert await offices.other.holder(OFFICE) is not None


async def test_a_renewal_that_was_cut_off_but_written_is_our_own(offices: Offices) -> None:
    """A renewal whose answer was lost does not cost the office: nobody else writes our name and generation."""
    async with offices.one.held(OFFICE) as lease:
        offices.plan.add("put", RaiseAfter(DOWN))
        with pytest.raises(errors.ObjectStoreUnavailable):
            await lease.require()
        offices.clock.move(seconds=QUICK.fence / 2)

        await lease.require()


async def test_the_end_of_a_block_is_its_own_although_the_office_is_lost_then(offices: Offices) -> None:
    """What a block returned or raised stays when the lease is lost in the moment of its end."""

    async def hold(failure: Exception | None) -> str:
        guard = _Guard(Lease(_Place(offices.store, offices.clock, QUICK, "leases/x.json"), HELD, ""), OFFICE)
        async with guard:
            # The lease is lost here, and the cancellation has no moment to arrive in.
            guard._fired = True
            guard._block.cancel()
            if failure is not None:
                raise failure
            return "done"
        raise AssertionError("the block returns")

    assert await asyncio.create_task(hold(None)) == "done"
    with pytest.raises(ValueError, match="its own"):
        await asyncio.create_task(hold(ValueError("its own")))


async def test_a_cancellation_of_the_caller_stays_one(offices: Offices) -> None:
    """Cancelling who holds an office gives it back, and is not taken for a lost lease."""
    holds = asyncio.Event()

    async def hold() -> None:
        async with offices.one.held(OFFICE):
            holds.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await holds.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await offices.one.holder(OFFICE) is None


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_clock_that_goes_back_blocks_no_office(
    offices: Offices, crashed: bool, fault_table: FaultTable
) -> None:
    """Neither a lease that was given back nor one of a process that is gone is held until the clock is there again."""
    lease = await offices.one._take(offices.one._place(OFFICE, QUICK), OFFICE)
    if not crashed:
        await lease.release()
    offices.clock.time -= timedelta(days=1)

    assert await offices.other.holder(OFFICE) is None
    async with offices.other.held(OFFICE) as taken:
        assert taken.generation > lease.generation
        assert await offices.one.holder(OFFICE) is not None
        with pytest.raises(errors.LeaseLost):
            await lease.require()

    fault_table("T24", "store's clock 1 day back, holder " + ("gone" if crashed else "ended"), "the office is free")


async def test_how_far_a_clock_may_go_back_is_told_by_the_office(offices: Offices) -> None:
    """The holder of an office with short leases is gone after a small step already, for who looks and who takes."""
    long, short = LeaseTimes(), QUICK
    await offices.one._take(offices.one._place(OFFICE, short), OFFICE)
    offices.clock.time -= timedelta(seconds=4)

    assert await offices.other.holder(OFFICE, times=long) is not None
    assert await offices.other.holder(OFFICE, times=short) is None


async def test_only_one_of_two_takers_wins(offices: Offices) -> None:
    """Two that take a free office at the same moment: the conditional write lets one have it."""
    reached, go = asyncio.Event(), asyncio.Event()
    offices.plan.add("put", Wait(reached, go))
    holding = asyncio.create_task(_wait_for(offices.one))
    await reached.wait()
    async with offices.other.held(OFFICE) as lease:
        go.set()
        await asyncio.sleep(0)
        await lease.require()
    generation = await holding

    assert generation > lease.generation


async def test_one_process_holds_an_office_once(offices: Offices) -> None:
    """Two tasks of a process that take a free office within a second: one has it, and the other waits its turn."""
    reached, go = asyncio.Event(), asyncio.Event()
    offices.plan.add("put", Wait(reached, go))
    taking = asyncio.create_task(_wait_for(offices.one))
    await reached.wait()
    async with offices.one.held(OFFICE) as lease:
        go.set()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(taking), 0.2)
        await lease.require()

    assert await taking > lease.generation


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"owner":"x","generation":"y","expires":"z"}', b"\xff"])
async def test_a_damaged_lease_is_named(offices: Offices, content: bytes) -> None:
    """A lease that cannot be read is an error that names the object: a generation must never fall."""
    key = keys.lease(OFFICE)
    await offices.store.put(key, content)

    with pytest.raises(errors.BackupDamaged, match=key):
        async with offices.one.held(OFFICE):
            pass


def test_times_that_would_not_protect_are_refused() -> None:
    """A holder gives up before its lease expires, or the times are refused."""
    with pytest.raises(ValueError, match="renewed"):
        LeaseTimes(lease=10, renew=5, fence=11)


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)
