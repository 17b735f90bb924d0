"""The office of restores: a trial makes room for a restore, and a restore for nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.leases import Leases
from services.backup.usecases import precedence
from services.backup.usecases.precedence import WANTED, needed, trial
from services.backup.usecases.repository import RESTORING
from tests.backup_parts import RealClock
from tests.object_faults import FaultyStore, Plan, Raise

DOWN = errors.ObjectStoreUnavailable("the store of the test is down")


class Offices:
    """Two processes at one store."""

    def __init__(self, folder: Path) -> None:
        clock = RealClock()
        self.plan = Plan()
        store = FaultyStore(DirectoryStore(folder, clock.now), self.plan)
        self.one, self.other = Leases(store, clock, "one"), Leases(store, clock, "other")


@pytest.fixture
def offices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offices:
    """Two processes at an empty store."""
    monkeypatch.setattr(precedence, "LOOK_SECONDS", 0.01)
    return Offices(tmp_path / "store")


async def test_a_trial_makes_room(offices: Offices) -> None:
    """Within the time of a look, and only when a restore wants the office."""
    begun, undone = asyncio.Event(), asyncio.Event()

    async def tries() -> None:
        async with trial(offices.one):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                undone.set()

    trying = asyncio.create_task(tries())
    await begun.wait()
    await asyncio.sleep(0.1)
    assert not trying.done()

    async with asyncio.timeout(20), needed(offices.other):
        assert undone.is_set(), "what it made is taken back before the restore begins"
        assert await offices.other.holder(WANTED) is None
    with pytest.raises(errors.OperationCancelled, match="goes before a trial"):
        await trying


async def test_a_trial_that_nobody_disturbs(offices: Offices) -> None:
    """It has the office to its end, and what it raises is raised."""
    async with trial(offices.one):
        held = await offices.other.holder(RESTORING)
    assert held is not None
    assert await offices.other.holder(RESTORING) is None

    with pytest.raises(TimeoutError, match="its own"):
        async with trial(offices.one):
            raise TimeoutError("its own")


async def test_a_restore_makes_no_room(offices: Offices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one waits for its end, and is refused when that takes too long."""
    order: list[str] = []

    async def waits() -> None:
        async with needed(offices.other):
            order.append("second")

    async with needed(offices.one):
        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.3)
        order.append("first")
    await waiting
    assert order == ["first", "second"]

    monkeypatch.setattr(precedence, "PATIENCE_SECONDS", 0.1)
    async with needed(offices.one):
        with pytest.raises(errors.OperationRunning):
            async with needed(offices.other):
                pass


async def test_a_store_that_is_away_tells_of_nobody(offices: Offices) -> None:
    """The trial goes on; whether it may is for its lease to say."""
    async with trial(offices.one):
        offices.plan.add("get", *[Raise(DOWN)] * 5)
        async with asyncio.timeout(20):
            while not offices.plan.spent:  # noqa: ASYNC110 - what is waited for is told by nobody
                await asyncio.sleep(0.01)
