"""Replicas that come back behind a recovery: out of its fence by themselves, and not against anybody's will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import Listed
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operations import Operations
from services.admin.domain.recovery import Recovery, RecoveryState, Spec, Target, TargetKind, Traffic
from services.admin.domain.system import Address, Process, State
from services.admin.usecases import returning as module
from services.admin.usecases.office import Office
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.returning import BEGUN_SINCE, GIVE_UP, Returning
from services.backup.adapters.recipients import system_dice
from tests.admin_parts import StandInPeers
from tests.backup_parts import NOON, HandClock

ID, LATER = (ids.new_id(NOON + timedelta(minutes=number), bytes(ids.RANDOM_BYTES)) for number in (0, 1))
RECOVERY = Recovery(
    id=ID,
    state=RecoveryState.DONE,
    spec=Spec(Target(TargetKind.LATEST)),
    actor="ann",
    start_time=NOON,
    end_time=NOON,
    modes={"registry-1:1": State.SERVING, "registry-2:1": State.SERVING},
)


class Scene:
    """Two replicas of the registry, and an admin process. far: the second one's address."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.store = DirectoryStore(folder, self.clock.now)
        self.peers = StandInPeers()
        self.near, self.far = self.peers.add("registry", 1), self.peers.add("registry", 2)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.journal = RecoveryJournal(self.store, system_dice)
        operations = Operations(self.store, self.clock, system_dice, "one", self.report)
        self.office = Office(Leases(self.store, self.clock, "one"), operations)
        self.returning = Returning(self.peers, self.journal, self.office, self.clock, self.report)

    def report(self, event: str, **facts: Any) -> None:
        """Where an operator's notes go."""
        self.told.append((event, facts))

    async def leave(self, left: Mapping[str, State], fenced: State = State.READ_ONLY, **facts: Any) -> Process:
        """A recovery ends while the far replica is away behind its fence; the replica."""
        await self.journal.write(replace(RECOVERY, end_time=self.clock.now(), left=left, **facts))
        away = self.peers.places[self.far]
        assert away is not None
        self.peers.places[self.far] = None
        return replace(away, state=fenced)

    async def left(self) -> Mapping[str, State]:
        """Who is still to be put back."""
        return (await self.journal.get(ID)).left

    def state(self, address: Address) -> State:
        """The mode of a replica that is there."""
        found = self.peers.places[address]
        assert found is not None
        return found.state


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Before the recovery."""
    return Scene(tmp_path / "store")


SERVES = {"registry-2:1": State.SERVING}


async def test_who_returns_takes_writes_again(scene: Scene) -> None:
    """Looked for until it is back, put back once, and told."""
    far = await scene.leave(SERVES)
    assert await scene.returning.look()
    assert scene.peers.asked == []

    scene.peers.places[scene.far] = far

    assert not await scene.returning.look()
    assert not await scene.returning.look()
    assert scene.peers.asked == ["SERVING registry-2:1"]
    assert await scene.left() == {}
    assert [event for event, _ in scene.told] == ["replica put back"]


async def test_nobody_is_away(scene: Scene) -> None:
    """Before any recovery, behind one that left nobody, and while one is open."""
    assert not await scene.returning.look()
    await scene.journal.write(RECOVERY)
    assert not await scene.returning.look()
    open_one = replace(RECOVERY, id=LATER, state=RecoveryState.STOPPED, left=SERVES)
    await scene.journal.write(open_one)
    assert not await scene.returning.look()
    assert scene.peers.asked == []


async def test_the_mode_of_an_aborted_recovery_is_the_one_before(scene: Scene) -> None:
    """Each goes back to what it was, as the others went."""
    modes = {"registry-1:1": State.SERVING, "registry-2:1": State.READ_ONLY}
    far = await scene.leave(
        {"registry-2:1": State.READ_ONLY},
        State.MAINTENANCE,
        state=RecoveryState.ABORTED,
        spec=replace(RECOVERY.spec, traffic=Traffic.STOP_FIRST),
        modes=modes,
    )
    scene.peers.places[scene.far] = far

    assert not await scene.returning.look()
    assert scene.peers.asked == ["READ_ONLY registry-2:1"]


async def test_a_mode_that_was_set_since_counts(scene: Scene) -> None:
    """While the others are in another mode, nobody is let out of the fence."""
    far = await scene.leave(SERVES)
    scene.peers.places[scene.far] = far
    await scene.peers.set_mode(scene.near, State.READ_ONLY)
    scene.peers.asked.clear()

    assert await scene.returning.look()
    assert scene.state(scene.far) is State.READ_ONLY
    await scene.peers.set_mode(scene.near, State.SERVING)

    assert not await scene.returning.look()
    assert scene.state(scene.far) is State.SERVING


@pytest.mark.parametrize("mode", [State.SERVING, State.MAINTENANCE])
async def test_one_that_is_not_behind_the_fence_is_let_be(scene: Scene, mode: State) -> None:
    """Started anew, it serves; put elsewhere by somebody, it stays there."""
    scene.peers.places[scene.far] = await scene.leave(SERVES, mode)

    assert not await scene.returning.look()
    assert scene.peers.asked == []
    assert await scene.left() == {}


async def test_nobody_gets_in_the_way_of_an_operation(scene: Scene) -> None:
    """While somebody else changes the system it is left for later."""
    scene.peers.places[scene.far] = await scene.leave(SERVES)
    async with scene.office.held("operation"):
        assert await scene.returning.look()
    assert scene.peers.asked == []

    assert not await scene.returning.look()


@pytest.mark.parametrize("later", [RecoveryState.ABORTED, RecoveryState.DONE])
async def test_a_later_recovery_forgets_nobody(scene: Scene, later: RecoveryState) -> None:
    """One that ended while the replica was still away, whether it knew of that or not: both are over at once then."""
    far = await scene.leave(SERVES)
    left = SERVES if later is RecoveryState.DONE else {}
    await scene.journal.write(replace(RECOVERY, id=LATER, state=later, left=left))
    assert await scene.returning.look()
    scene.peers.places[scene.far] = far

    assert not await scene.returning.look()
    assert scene.peers.asked == ["SERVING registry-2:1"]
    assert await scene.left() == (await scene.journal.get(LATER)).left == {}


async def test_a_recovery_that_is_open_decides(scene: Scene) -> None:
    """Its own fence may hold the replica: nobody is put back before it is over."""
    scene.peers.places[scene.far] = await scene.leave(SERVES)
    later = await scene.journal.write(replace(RECOVERY, id=LATER, state=RecoveryState.STOPPED))
    assert not await scene.returning.look()
    assert scene.peers.asked == []

    await scene.journal.write(replace(later, state=RecoveryState.ABORTED))

    assert not await scene.returning.look()
    assert scene.peers.asked == ["SERVING registry-2:1"]


@pytest.mark.parametrize("before", [State.DRAINING, State.READ_ONLY, State.SERVING])
async def test_others_that_were_started_since_serve(scene: Scene, before: State) -> None:
    """Behind an abort the others are in the mode that they had, or serve as whoever is started does."""
    modes = {"registry-1:1": before, "registry-2:1": State.SERVING}
    scene.peers.places[scene.far] = await scene.leave(SERVES, state=RecoveryState.ABORTED, modes=modes)

    assert not await scene.returning.look()
    assert scene.state(scene.far) is State.SERVING


async def test_no_old_recovery_is_listed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept for ever."""
    old = ids.new_id(scene.clock.now() - BEGUN_SINCE - timedelta(minutes=1), bytes(ids.RANDOM_BYTES))
    await scene.journal.write(replace(RECOVERY, id=old, left=SERVES))
    listed: list[str] = []
    real = scene.store.list

    async def noted(prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        async for each in real(prefix, after=after):
            listed.append(each.key)
            yield each

    monkeypatch.setattr(scene.store, "list", noted)

    assert not await scene.returning.look()
    assert listed == []


async def test_one_that_refuses_is_asked_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays on the list, and is told of."""
    scene.peers.places[scene.far] = await scene.leave(SERVES)

    async def refused(address: Address, mode: State) -> Process:
        raise errors.PeerUnreachable(f"{address.target} does not answer to {mode}")

    with monkeypatch.context() as patched:
        patched.setattr(scene.peers, "set_mode", refused)
        assert await scene.returning.look()
    assert await scene.left() == SERVES
    assert [event for event, _ in scene.told] == ["replica not put back yet"]

    assert not await scene.returning.look()


async def test_it_gives_up_in_the_end(scene: Scene) -> None:
    """An address that stays silent for a day is nobody's any more."""
    await scene.leave(SERVES)
    scene.clock.move(seconds=(GIVE_UP + timedelta(seconds=1)).total_seconds())

    assert not await scene.returning.look()


async def test_it_goes_on_looking(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one look meets, the next one is made, sooner while somebody is away. The same failure is told once."""
    pauses: list[float] = []
    away, gone, defect = [True], errors.ObjectStoreUnavailable("gone"), RuntimeError("unforeseen")
    outcomes: list[list[bool] | Exception] = [away, gone, gone, defect, gone, [False], gone]

    async def look() -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome[0]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not outcomes:
            raise asyncio.CancelledError

    monkeypatch.setattr(scene.returning, "look", look)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await scene.returning.run()

    assert pauses == [module.AWAY_SECONDS, *[module.LOOK_SECONDS] * 6]
    told = [(facts["message"], "exc_info" in facts) for _, facts in scene.told]
    assert told == [("gone", False), ("unforeseen", True), ("gone", False), ("gone", False)]
