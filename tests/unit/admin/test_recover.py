"""Recoveries over parts in memory: wherever a process dies, another one goes on or back, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operation import Operation
from llm_schema_registry.operations.operations import Operations, Request
from services.admin.domain.recovery import (
    NAMES,
    Loss,
    Place,
    RecoveryState,
    Safety,
    Spec,
    StepName,
    StepState,
    Target,
    TargetKind,
    Traffic,
)
from services.admin.domain.restoring import (
    Activate,
    BackUp,
    BackupFacts,
    Ended,
    Estimates,
    Live,
    Outlook,
    Prepare,
    RestoreFacts,
    RestoreState,
    Revert,
    VerifyBackup,
    Work,
)
from services.admin.domain.system import Address, Health, MetricPoint, Process, SmokeCheck, State
from services.admin.usecases import recovery_steps
from services.admin.usecases.office import Office
from services.admin.usecases.recover import Records, Recover
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.recovery_steps import RecoverySteps
from services.admin.usecases.recovery_work import RestoreWork
from services.backup.adapters.recipients import system_dice
from tests.backup_parts import NOON, HandClock

LATEST = Spec(Target(TargetKind.LATEST))
EARLIER = Spec(Target(TargetKind.BACKUP, backup_id="01KAX7H2E9P4Z8D3F6G5J1K0MB"))
MOMENTS = [f"recovery.{name}.{at}" for name in NAMES for at in ("before", "begun", "acted", "after")]
BACKUP_ID, RESTORE_ID = "01KAX7H2E9P4Z8D3F6G5J1K0MB", "01KAX7H2E9P4Z8D3F6G5J1K0MR"


@dataclass
class World:
    """What is outside the admin service: replicas of the registry, and the backup service with its places.

    begun: work by request id, each once. serves: what is under the live name. away: replicas that do not answer.
    """

    clock: HandClock = field(default_factory=HandClock)
    modes: dict[str, State] = field(default_factory=lambda: {"a:1": State.SERVING, "b:1": State.SERVING})
    away: set[str] = field(default_factory=set)
    begun: dict[str, Work] = field(default_factory=dict)
    serves: str = "old"
    restore: RestoreFacts | None = None
    epoch: int = 1
    changes: int = 0
    live: Live = Live.READABLE
    level: int = 2
    fails: dict[type, errors.Error] = field(default_factory=dict)
    hiccups: list[errors.Error] = field(default_factory=list)
    smokes: bool = True
    flushed: int = 0

    @property
    def services(self) -> Sequence[str]:
        return ("registry", "backup")

    async def replicas(self, service: str) -> Sequence[Address]:
        """See Peers."""
        return [Address(service, each) for each in (self.modes if service == "registry" else ["c:1"])]

    async def state(self, address: Address) -> Process:
        """See Peers."""
        if address.target in self.away:
            raise errors.PeerUnreachable(f"{address.target} does not answer")
        mode = self.modes.get(address.target, State.SERVING)
        return Process(address.service, "i", "1", "c", NOON, 1.0, mode, 0, Health.HEALTHY)

    async def set_mode(self, address: Address, mode: State) -> Process:
        """See Peers."""
        found = await self.state(address)
        self.modes[address.target] = mode
        return replace(found, state=mode)

    async def flush_caches(self, address: Address) -> str:
        """See Peers."""
        await self.state(address)
        self.flushed += 1
        return ""

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        """See Peers."""
        del address
        return [MetricPoint("registry.change.epoch", "gauge", "", {}, float(self.epoch))]

    async def options(self, address: Address) -> Any:
        """See Peers."""
        raise NotImplementedError

    async def stop(self, address: Address, *, cause: str, restart: bool) -> Process:
        """See Peers."""
        raise NotImplementedError

    # Restores

    def loss(self) -> Loss:
        """What an activation would lose."""
        live = Place(1, 40)
        return Loss(self.live is Live.READABLE, live, self.changes, f"{self.changes}@{live}")

    async def outlook(self, target: Target, backup_id: str = "") -> Outlook:
        """See Restores."""
        del target
        return Outlook(backup_id or BACKUP_ID, self.level, Place(1, 40), 2, self.loss(), self.live)

    async def backup(self, backup_id: str) -> BackupFacts:
        """See Restores."""
        return BackupFacts(backup_id, self.level, self.clock.now())

    async def restored(self, restore_id: str) -> RestoreFacts:
        """See Restores."""
        if self.restore is None:
            raise errors.RestoreNotFound(restore_id)
        return replace(self.restore, loss=self.loss() if self.restore.state is RestoreState.PREPARED else None)

    async def begin(self, work: Work, request_id: str) -> str:
        """See Restores. Work that fails is not noted: it is tried anew under another id."""
        if self.hiccups:
            raise self.hiccups.pop()
        if request_id not in self.begun:
            if failure := self.fails.get(type(work)):
                raise failure
            self.begun[request_id] = work
            self._do(work)
        return request_id

    def _do(self, work: Work) -> None:
        match work:
            case VerifyBackup(level=level):
                self.level = max(level, self.level)
            case Prepare():
                time = NOON - timedelta(minutes=5)
                self.restore = RestoreFacts(RESTORE_ID, RestoreState.PREPARED, Place(1, 40), time)
            case Activate() | Revert():
                assert self.restore is not None
                active = isinstance(work, Activate)
                self.serves, self.epoch = ("new" if active else "old"), self.epoch + 1
                state = RestoreState.ACTIVE if active else RestoreState.REVERTED
                self.restore = replace(self.restore, state=state, epoch=self.epoch, write_outage_seconds=0.5)

    async def ended(self, operation: str) -> Ended | None:
        """See Restores."""
        match self.begun[operation]:
            case BackUp():
                return Ended("safety")
            case Prepare():
                return Ended(RESTORE_ID)
        return Ended(BACKUP_ID)

    async def cancel(self, operation: str) -> None:
        """See Restores."""

    async def release(self, restore_id: str) -> None:
        """See Restores."""
        assert self.restore is not None, restore_id
        self.restore = replace(self.restore, state=RestoreState.RELEASED)

    async def archived_time(self) -> datetime | None:
        """See Restores."""
        return NOON - timedelta(seconds=4)

    async def estimates(self) -> Estimates:
        """See Restores."""
        return {StepName.RESTORE: 30.0}

    async def run(self) -> Sequence[SmokeCheck]:
        """See SmokeTest."""
        return [SmokeCheck("serving", self.smokes, 0.0, "said")]

    def count(self, kind: type) -> int:
        """How often work of a kind was begun."""
        return sum(isinstance(each, kind) for each in self.begun.values())


class BackupSide:
    """The world as the backup service: Peers and Restores have a name in common."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.restore = world.restored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


class MortalStore:
    """A store whose process may be dead: nothing it writes arrives then."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise errors.ObjectStoreUnavailable("the process is dead")
        return getattr(self._store, name)


class ADeath(BaseException):
    """The process died."""


class Admin:
    """An admin process over a folder. dies: at this moment."""

    def __init__(self, folder: Path, world: World, name: str, dies: str = "") -> None:
        self.store: Any = MortalStore(DirectoryStore(folder, world.clock.now))
        self.folder = folder
        self.dies = dies
        self.operations = Operations(self.store, world.clock, system_dice, name, lambda *_, **__: None)
        office = Office(Leases(self.store, world.clock, name), self.operations)
        peers: Any = world
        steps = RecoverySteps(peers, RestoreWork(BackupSide(world)), world, world.clock)
        records = Records(RecoveryJournal(self.store, system_dice), office, system_dice)
        self.recover = Recover(records, self.operations, steps, world.clock, self)

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        if name == self.dies:
            self.store.dead = True
            raise ADeath

    async def start(self, spec: Spec = LATEST, *, dry_run: bool = False) -> Operation:
        """A recovery, once it has ended or stands still."""
        begun = await self.recover.start(spec, dry_run=dry_run, actor="ann", request=Request())
        return await self.operations.wait(begun.name)

    async def resume(self, recovery_id: str, confirmation: str = "") -> Operation:
        """A recovery that goes on, once it has ended or stands still."""
        begun = await self.recover.resume(recovery_id, confirmation, actor="ann", request=Request())
        return await self.operations.wait(begun.name)

    async def abort(self, recovery_id: str) -> Operation:
        """A recovery that goes back, once it has ended or stands still."""
        begun = await self.recover.abort(recovery_id, "", actor="ann", request=Request())
        return await self.operations.wait(begun.name)


@pytest.fixture
def world() -> World:
    """All is well outside."""
    return World()


@pytest.fixture
def admin(tmp_path: Path, world: World) -> Admin:
    """A process."""
    return Admin(tmp_path, world, "one")


async def died(tmp_path: Path, world: World, moment: str) -> tuple[Admin, str]:
    """Another process, and the recovery whose process died at a moment; its lease is over."""
    one = Admin(tmp_path, world, "one", moment)
    await one.start()
    (tmp_path / "leases" / "system.json").unlink()
    two = Admin(tmp_path, world, "two")
    [left] = await two.recover.list()
    return two, left.id


@pytest.mark.parametrize("moment", MOMENTS)
async def test_resumed_wherever_it_died(tmp_path: Path, world: World, moment: str) -> None:
    """Whoever goes on with a recovery finds what was begun: it is done, the new state serves, and each piece of work
    was begun once."""
    two, left = await died(tmp_path, world, moment)
    if moment == "recovery.smoke.after":
        assert (await two.recover.get(left)).state is RecoveryState.DONE
        return
    assert (await two.recover.get(left)).state is RecoveryState.STOPPED

    ended = await two.resume(left)

    recovery = await two.recover.get(left)
    assert ended.error is None
    assert recovery.state is RecoveryState.DONE
    assert world.serves == "new"
    assert world.modes == {"a:1": State.SERVING, "b:1": State.SERVING}
    assert [world.count(kind) for kind in (VerifyBackup, BackUp, Prepare, Activate, Revert)] == [2, 1, 1, 1, 0]
    assert recovery.recovery_point_seconds == 0.0
    assert all(step.attempts == 1 for step in recovery.steps)


@pytest.mark.parametrize("moment", MOMENTS[:-1])
async def test_aborted_wherever_it_died(tmp_path: Path, world: World, moment: str) -> None:
    """Whoever goes back leaves what served before, with every replica in the mode that it had."""
    world.modes["b:1"] = State.READ_ONLY
    two, left = await died(tmp_path, world, moment)

    ended = await two.abort(left)

    recovery = await two.recover.get(left)
    assert ended.error is None
    assert recovery.state is RecoveryState.ABORTED
    assert world.serves == "old"
    assert world.modes == {"a:1": State.SERVING, "b:1": State.READ_ONLY}
    assert world.restore is None or world.restore.state in {RestoreState.RELEASED, RestoreState.REVERTED}
    assert {step.state for step in recovery.steps} <= {StepState.UNDONE, StepState.PENDING, StepState.SKIPPED}


async def test_loss_must_be_confirmed(admin: Admin, world: World) -> None:
    """It stands still before the swap, says the confirmation, and goes on with it; the age of what came back is
    told."""
    world.changes = 3

    stands = await admin.start(EARLIER)
    assert stands.error is not None
    [recovery] = await admin.recover.list()
    assert (recovery.state, world.serves) == (RecoveryState.UNCONFIRMED, "old")
    assert (stands.error.reason, stands.error.metadata["confirmation"]) == ("LOSS_WINDOW_CHANGED", "3@1/40")
    again = await admin.resume(recovery.id)
    assert again.error is not None
    await admin.resume(recovery.id, "3@1/40")

    done = await admin.recover.get(recovery.id)
    assert (done.state, done.recovery_point_seconds) == (RecoveryState.DONE, 300.0)


@pytest.mark.regression("B10")
async def test_dry_run_changes_nothing(admin: Admin, world: World) -> None:
    """A plan says what each step would do, with what it takes; nothing is begun and no recovery is on record."""
    world.changes = 3

    ended = await admin.start(EARLIER, dry_run=True)

    plan = await admin.recover.planned(ended.subject.id)
    assert plan.state is RecoveryState.PLANNED
    assert plan.step(StepName.INTEGRITY).state is StepState.FAILED
    assert "3@1/40" in plan.problem
    assert plan.step(StepName.RESTORE).estimate_seconds == 30.0
    assert world.begun == {}
    assert await admin.recover.list() == []


async def test_one_at_a_time(admin: Admin, tmp_path: Path, world: World) -> None:
    """While one is open no other begins: the error names it. It cannot be resumed while somebody works on it."""
    world.fails[BackUp] = errors.DatabaseUnfit("no rights")
    failed = await admin.start()
    [recovery] = await admin.recover.list()
    with pytest.raises(errors.OperationRunning) as second:
        await admin.start()
    other = Office(Leases(admin.store, world.clock, "other"), admin.operations)
    async with other.held("shutdown-1"):
        with pytest.raises(errors.OperationRunning) as third:
            await admin.resume(recovery.id)

    assert failed.error is not None
    assert failed.error.reason == "RECOVERY_STOPPED"
    assert second.value.metadata["recovery_id"] == recovery.id
    assert third.value.metadata["instance_id"] == "other"
    assert tmp_path.joinpath("recoveries", recovery.id).is_dir()


async def test_a_step_that_failed_is_tried_anew(admin: Admin, world: World) -> None:
    """Resumed, the step that failed is begun again under another request, and the ones before it are not."""
    world.fails[BackUp] = errors.DatabaseUnfit("no rights")
    await admin.start()
    [recovery] = await admin.recover.list()
    del world.fails[BackUp]

    await admin.resume(recovery.id)

    done = await admin.recover.get(recovery.id)
    assert done.state is RecoveryState.DONE
    assert [step.attempts for step in done.steps] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]


async def test_what_is_away_for_a_moment_is_waited_for(admin: Admin, world: World) -> None:
    """A backup service that restarts, or whose sessions a swap ended, does not stop a recovery."""
    world.hiccups += [errors.PeerUnreachable("restarts"), errors.DatabaseUnavailable("sessions ended")]

    ended = await admin.start()

    assert ended.error is None
    assert world.hiccups == []


@pytest.mark.parametrize(
    ("live", "safety", "state"),
    [
        (Live.ABSENT, Safety.REQUIRED, StepState.SKIPPED),
        (Live.EMPTY, Safety.REQUIRED, StepState.SKIPPED),
        (Live.UNREADABLE, Safety.REQUIRED, StepState.DONE),
        (Live.READABLE, Safety.NONE, StepState.SKIPPED),
    ],
)
async def test_safety_backup(admin: Admin, world: World, live: Live, safety: Safety, state: StepState) -> None:
    """The present state is backed up when there is one, unless that was not wanted."""
    world.live = live

    await admin.start(replace(LATEST, safety=safety))

    [recovery] = await admin.recover.list()
    assert (recovery.step(StepName.SAFETY).state, recovery.state) == (state, RecoveryState.DONE)


@pytest.mark.parametrize(
    ("traffic", "mode"),
    [
        (Traffic.FENCE_WRITES, State.READ_ONLY),
        (Traffic.STOP_FIRST, State.MAINTENANCE),
        (Traffic.SERVE, State.SERVING),
    ],
)
async def test_traffic_before_the_swap(admin: Admin, world: World, traffic: Traffic, mode: State) -> None:
    """Replicas take what the policy says until the swap; one that does not answer is named and does not stop it."""
    world.away.add("b:1")
    world.changes = 1

    await admin.start(replace(EARLIER, traffic=traffic))

    [recovery] = await admin.recover.list()
    assert recovery.state is RecoveryState.UNCONFIRMED
    assert world.modes == {"a:1": mode, "b:1": State.SERVING}
    assert traffic is Traffic.SERVE or "b:1" in recovery.step(StepName.FENCE).message


async def test_a_replica_that_is_away_behind_the_fence(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was fenced and cannot be reached any more does not stop it, and is named with its mode, which it is to
    leave when it returns."""
    monkeypatch.setattr(recovery_steps, "MISSING_SECONDS", 0.0)
    world.changes = 1
    await admin.start(EARLIER)
    [recovery] = await admin.recover.list()
    world.away.add("b:1")

    await admin.resume(recovery.id, "1@1/40")

    done = await admin.recover.get(recovery.id)
    assert done.state is RecoveryState.DONE
    assert world.modes == {"a:1": State.SERVING, "b:1": State.READ_ONLY}
    assert "b:1 does not answer" in done.step(StepName.RESUME).message
    assert "READ_ONLY until they return, and put back then: b:1" in done.step(StepName.RESUME).message
    assert done.left == {"b:1": State.SERVING}


@pytest.mark.parametrize("away", [{"b:1"}, {"a:1", "b:1"}])
async def test_a_replica_that_is_away_when_the_fence_is_taken_back(admin: Admin, world: World, away: set[str]) -> None:
    """It does not stop the way back, and is noted with the mode that it had."""
    world.modes["b:1"] = State.READ_ONLY
    world.changes = 1
    await admin.start(replace(EARLIER, traffic=Traffic.STOP_FIRST))
    [recovery] = await admin.recover.list()
    world.away |= away

    await admin.abort(recovery.id)

    aborted = await admin.recover.get(recovery.id)
    assert aborted.state is RecoveryState.ABORTED
    assert aborted.left == {target: recovery.modes[target] for target in away}
    assert f"{2 - len(away)} replicas are as they were" in aborted.step(StepName.FENCE).message


async def test_recovery_point_without_the_database(admin: Admin, world: World) -> None:
    """Of a database that is gone nobody knows the last writes: told is the time since the archive had everything."""
    world.live = Live.ABSENT

    await admin.start()

    [recovery] = await admin.recover.list()
    assert (recovery.state, recovery.recovery_point_seconds) == (RecoveryState.DONE, 4.0)


async def test_what_was_restored_is_gone(admin: Admin, world: World) -> None:
    """A restore that is no longer there when a recovery goes on is made again."""
    world.changes = 1
    await admin.start(EARLIER)
    [recovery] = await admin.recover.list()
    await world.release(RESTORE_ID)

    await admin.resume(recovery.id, "1@1/40")

    assert (await admin.recover.get(recovery.id)).state is RecoveryState.DONE
    assert world.count(Prepare) == 2


@pytest.mark.regression("B11")
async def test_a_smoke_test_that_fails_can_be_gone_back_on(admin: Admin, world: World) -> None:
    """What does not pass stands still behind the swap; aborted, the replaced database serves again."""
    world.smokes = False
    failed = await admin.start()
    [recovery] = await admin.recover.list()

    await admin.abort(recovery.id)

    assert failed.error is not None
    assert "serving: said" in failed.error.message
    assert (await admin.recover.get(recovery.id)).state is RecoveryState.ABORTED
    assert (world.serves, world.count(Revert)) == ("old", 1)


async def test_a_preflight_that_fails_leaves_nothing_open(admin: Admin, world: World) -> None:
    """Nothing was changed, so there is nothing to resume: the next one may begin at once."""
    world.away.add("c:1")
    refused = await admin.start()
    world.away.clear()

    done = await admin.start()

    assert refused.error is not None
    assert refused.error.reason == "PEER_UNREACHABLE"
    assert done.error is None


async def test_a_rotten_record_does_not_block_another_recovery(tmp_path: Path, world: World) -> None:
    """One whose record rots while it is open is not gone on with, which names the object; a new one is done."""
    two, left = await died(tmp_path, world, "recovery.fence.acted")
    newest = max((tmp_path / "recoveries" / left).iterdir())
    newest.write_bytes(b"\0")
    two = Admin(tmp_path, world, "two")

    for act in (two.resume, two.abort):
        with pytest.raises(errors.BackupDamaged, match=newest.name):
            await act(left)
    ended = await two.start()

    assert ended.error is None
    assert [each.state for each in await two.recover.list()] == [RecoveryState.DONE]
    assert world.serves == "new"
