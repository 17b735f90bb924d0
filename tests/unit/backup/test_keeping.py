"""What happens by itself: what is due when, and that nothing that fails keeps the rest from being done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import LeaseTimes
from llm_schema_registry.operations.operation import Subject
from llm_schema_registry.operations.operations import Operations
from services.backup.adapters.recipients import system_dice
from services.backup.app import _dependencies
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level
from services.backup.domain.retention import Policy
from services.backup.domain.schedules import Schedule
from services.backup.gauges import Gauges
from services.backup.usecases import keeping as module
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Entry, Listing
from services.backup.usecases.copying import Copying
from services.backup.usecases.drill import Drill
from services.backup.usecases.keeping import Hands, Keeping, Plans, SecondHands, next_verification
from services.backup.usecases.prepare import Prepare
from services.backup.usecases.remarks import Evidence
from services.backup.usecases.status import NamedStore, Status
from tests.backup_parts import NOON, Parts, RealClock, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import Raise

DOWN = errors.ObjectStoreUnavailable("the store of the test is down")
HOURLY, DAILY = Schedule(Kind.HOURLY, "7 * * * *"), Schedule(Kind.DAILY, "20 1 * * *")


class Elected:
    """An election that everybody wins."""

    @asynccontextmanager
    async def held(self, office: str) -> AsyncIterator[bool]:  # noqa: ARG002
        """See Election."""
        yield True


async def nothing(*_: object) -> list[Any]:
    """What has nothing to do."""
    return []


def keep(parts: Parts, *schedules: Schedule, **changes: Any) -> Keeping:
    """The chores of a process. Restores and drills have nothing to do."""
    operations = Operations(parts.store, parts.clock, system_dice, "here", lambda *_, **__: None)
    swap: Any = SimpleNamespace(release_old=nothing, prepare=SimpleNamespace(sweep=nothing))
    drill: Any = changes.get("drill")
    audit = ArchiveAudit(parts.repository, parts.archive)
    second = changes.get("second")
    hands = Hands(operations, parts.make, parts.verify, drill, parts.prune, swap, audit, second)
    plans = Plans(schedules, changes.get("drill_schedule"), changes.get("enabled", True))

    def report(event: str, **facts: object) -> None:
        parts.reported.append(f"{event} {facts}")

    return Keeping(parts.repository, hands, plans, report)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases beside a registry with a little content."""
    parts = make_parts(tmp_path)
    parts.registry.write(3)
    parts.registry.dump_bytes = 5000
    return parts


async def kinds(parts: Parts) -> list[Kind]:
    """Kinds of all backups, oldest first."""
    return [entry.manifest.kind for entry in reversed((await parts.repository.catalog.listing()).entries)]


async def test_a_new_repository_gets_its_first_backup_at_once(parts: Parts) -> None:
    """Nobody waits for the next daily moment."""
    await keep(parts, HOURLY, DAILY).make_due()

    assert await kinds(parts) == [Kind.DAILY]


async def test_a_new_repository_without_a_daily_schedule_gets_one_too(parts: Parts) -> None:
    """The first schedule there is makes the first backup."""
    await keep(parts, HOURLY).make_due()

    assert await kinds(parts) == [Kind.HOURLY]


async def test_missed_moments_are_made_up_for_once(parts: Parts) -> None:
    """After hours of standing still one late backup is made, and then none until the next moment."""
    keeping = keep(parts, HOURLY)
    await keeping.make_due()
    parts.clock.move(hours=5)
    for _ in range(3):
        await keeping.make_due()
        parts.clock.move(minutes=2)

    slots = [entry.manifest.slot for entry in (await parts.repository.catalog.listing()).entries]
    assert slots == [NOON + timedelta(hours=4, minutes=7), NOON - timedelta(minutes=53)]


async def test_a_slot_of_a_wrong_clock_stops_nothing(parts: Parts, fault_table: FaultTable) -> None:
    """T24: a backup for a moment that has not come does not stop the schedule until then."""
    await parts.backup(Kind.HOURLY, slot=NOON + timedelta(days=30))

    await keep(parts, HOURLY).make_due()
    parts.clock.move(hours=1)
    await keep(parts, HOURLY).make_due()

    assert len(await parts.ids()) == 3
    fault_table("T24", "slot 30 days ahead by a wrong clock", "hourly backups go on")


@pytest.mark.regression("B13")
async def test_two_leaders_make_one_backup_a_slot(parts: Parts, fault_table: FaultTable) -> None:
    """T17: two processes that both believe to lead make one backup of a moment."""
    other = again(parts)
    await asyncio.gather(keep(parts, HOURLY).make_due(), keep(other, HOURLY).make_due())

    assert len(await parts.ids()) == 1
    fault_table("T17", "two leaders, same moment", "one backup")


async def test_one_kind_that_fails_does_not_stop_the_others(parts: Parts) -> None:
    """Every schedule is tried, and the first failure is told."""
    keeping = keep(parts, HOURLY, DAILY)
    await keeping.make_due()
    parts.clock.move(hours=14)
    tried: list[Kind] = []

    async def run(wanted: Any, running: Any) -> Any:
        tried.append(wanted.kind)
        raise errors.BackupFailed(f"{wanted.kind.value} of the test")

    parts.make.run = run  # type: ignore[method-assign]
    with pytest.raises(errors.BackupFailed, match="hourly"):
        await keeping.make_due()

    assert tried == [Kind.HOURLY, Kind.DAILY]


async def test_a_backup_that_cannot_be_verified_is_put_off(parts: Parts) -> None:
    """One whose key nobody has keeps no other from being verified."""
    blocked = await parts.backup(Kind.DAILY, slot=NOON)
    parts.clock.move(minutes=1)
    free = await parts.backup(Kind.DAILY, slot=NOON + timedelta(days=1))
    verify = parts.verify.run
    names = [free.id, blocked.id]

    async def run(backup_id: str, level: Level, running: Any) -> Any:
        if backup_id == names[0]:
            raise errors.KeyUnavailable("nobody has it")
        return await verify(backup_id, level, running)

    parts.verify.run = run  # type: ignore[method-assign]
    keeping = keep(parts, HOURLY)
    with pytest.raises(errors.KeyUnavailable):
        await keeping.verify_due()
    await keeping.verify_due()

    assert (await parts.repository.catalog.get(names[1])).level is Level.V3


def _entry(kind: Kind, *evidence: tuple[Level, datetime, bool]) -> Entry:
    manifest: Any = SimpleNamespace(kind=kind, id=f"{kind.value}-{len(evidence)}")
    found = sorted((Evidence(*each) for each in evidence), key=lambda each: each.time, reverse=True)
    return Entry(manifest=manifest, sha256=b"", evidence=tuple(found))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([_entry(Kind.DAILY, (Level.V2, NOON, True))], ("daily-1", Level.V3)),
        ([_entry(Kind.DAILY, (Level.V3, NOON, True))], ("daily-1", Level.V4)),
        ([_entry(Kind.DAILY, (Level.V4, NOON, True))], None),
        ([_entry(Kind.DAILY, (Level.V1, NOON, False))], None),
        ([_entry(Kind.DAILY, (Level.V3, NOON, True), (Level.V4, NOON, False))], None),
        ([_entry(Kind.HOURLY, (Level.V2, NOON, True))], ("hourly-1", Level.V3)),
        ([_entry(Kind.HOURLY, (Level.V3, NOON - timedelta(days=8), True))], ("hourly-1", Level.V3)),
        ([_entry(Kind.HOURLY, (Level.V3, NOON - timedelta(days=6), True))], None),
    ],
)
def test_what_is_verified_next(entries: list[Entry], expected: tuple[str, Level] | None) -> None:
    """Daily ones to V3, the newest to V4, all again after a week; what was found damaged is not read in every round."""
    assert next_verification(Listing(tuple(entries)), NOON) == expected


async def test_a_long_verification_makes_no_backup_late(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is verified, or copied, for as long as it takes, backups are made at their moments."""
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.001)
    began, go = asyncio.Event(), asyncio.Event()

    async def run(*_: Any) -> Any:
        began.set()
        await go.wait()
        raise errors.KeyUnavailable("of the test")

    parts.verify.run = run  # type: ignore[assignment,method-assign]
    keeping = keep(parts, HOURLY)
    await keeping.make_due()
    running = asyncio.create_task(keeping.run(Elected()))
    await began.wait()
    parts.clock.move(hours=1)
    while len(await parts.ids()) < 2:  # noqa: ASYNC110 - what is waited for is in the store
        await asyncio.sleep(0.001)
    go.set()
    running.cancel()
    await asyncio.wait({running})

    assert keeping.state.leading is False


async def _runs(keeping: Keeping, holds: Callable[[], Awaitable[bool]]) -> None:
    """Lets the chores run until something holds."""
    running = asyncio.create_task(keeping.run(Elected()))
    while not await holds():
        assert not running.done()
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait({running})


async def test_a_defect_of_a_chore_ends_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is logged and told, and the other chores go on."""
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.001)

    async def defect() -> list[Any]:
        raise KeyError("of the test")

    keeping = keep(parts, HOURLY)
    keeping._hands.swap.release_old = defect  # type: ignore[method-assign]

    async def made() -> bool:
        return bool(await parts.ids()) and "kept databases" in keeping.state.problems

    await _runs(keeping, made)

    assert any("chore failed by a defect" in each for each in parts.reported)


async def test_losing_the_office_ends_the_leading_and_not_the_task(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose lease was taken leads again when it can."""
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.001)
    keeping = keep(parts)
    lease_key = "leases/schedule.json"
    generations: set[bytes] = set()

    async def led_twice() -> bool:
        if keeping.state.leading:
            content, _ = await parts.store.get(lease_key)
            if content not in generations:
                generations.add(content)
                parts.clock.time += timedelta(seconds=60)
                parts.clock.seconds += 60
        return len(generations) > 1 and keeping.state.leading

    parts.repository.leases._times = LeaseTimes(renew=0.002)

    await _runs(keeping, led_twice)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (DOWN, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]),
        (errors.BackupFailed("the backup of the test fails"), [60, 120, 240, 480, 900, 900]),
    ],
    ids=["away", "failed"],
)
async def test_failures_are_told_once_and_tried_ever_less_often(
    parts: Parts, failure: errors.Error, expected: list[float]
) -> None:
    """A chore that fails is repeated after a minute, or soon when something is only away, then ever later.

    Its success clears it.
    """
    keeping = keep(parts, HOURLY)
    chore = next(each for each in keeping._chores if each.name == "backups")
    waits = []
    for _ in expected:
        parts.plan.add("list", Raise(failure))
        await keeping._do(chore)
        waits.append(chore.next_time - parts.clock.monotonic())
    parts.plan._faults.clear()
    told = await keeping.check()
    await keeping._do(chore)

    assert waits == expected
    assert told == f"backups: {failure.message}"
    assert await keeping.check() is None
    assert sum("chore failed" in each for each in parts.reported) == 1


def second_hands(parts: Parts, there: Parts) -> SecondHands:
    """What works in the store of `there`, which is a copy of that of `parts`."""
    return SecondHands(
        Copying(parts.repository, there.store),
        parts.verify.at(there.repository, "second"),
        there.prune,
        ArchiveAudit(there.repository, there.archive, parts.archive),
    )


async def test_copies_are_read_in_the_second_store(parts: Parts, tmp_path: Path) -> None:
    """A copy is verified there, to V3, with evidence of its own; one that rots there is found within a week, and told
    as that store's, while the first one's stays good."""
    made = await parts.proven(Kind.DAILY)
    there = again(parts, store_folder=tmp_path / "second")
    second = second_hands(parts, there)
    keeping = keep(parts, HOURLY, second=second)
    store = NamedStore("second", "of the test", there.store, second.copying.catalog, there.audit)
    status = Status(parts.registry, parts.archive, parts.repository.catalog, None, keeping._hands.audit)
    [record] = made.manifest.objects

    await keeping.copy()
    copied = await second.copying.catalog.get(made.id)
    for _ in range(2):
        await keeping.verify_copy_due()
    good = await status.store(store)
    original = (parts.folder / record.key).read_bytes()
    for folder in (parts.folder, there.folder):
        (folder / record.key).write_bytes(b"\0" * record.size_bytes)
    parts.clock.move(days=8)
    await keeping.copy()
    await keeping.verify_copy_due()
    bad = await status.store(store)
    reported = list(parts.reported)
    (parts.folder / record.key).write_bytes(original)

    assert copied.level is Level.V0
    assert (good.newest, good.verified, good.verified_time, good.problem) == (made.id, made.id, NOON, "")
    assert (bad.newest, bad.verified) == (made.id, "")
    assert f"backup {made.id} was found damaged" in bad.problem
    assert ["a copy stays damaged" in each for each in reported] == [True]
    assert record.key in reported[0]
    assert (await parts.repository.catalog.get(made.id)).level is Level.V3


async def test_a_damaged_copy_is_made_once_more(tmp_path: Path) -> None:
    """A backup that rots in the second store is copied again when that is found, or an hour after it failed, when the
    first store's is whole; it is read again at once."""
    parts = make_parts(tmp_path, clock=RealClock())
    made = await parts.proven(Kind.DAILY)
    there = again(parts, store_folder=tmp_path / "second")
    second = second_hands(parts, there)
    keeping = keep(parts, HOURLY, second=second)
    [record] = made.manifest.objects
    await keeping.copy()
    await keeping.verify_copy_due()
    original = (parts.folder / record.key).read_bytes()
    for folder in (parts.folder, there.folder):
        (folder / record.key).write_bytes(b"\0" * record.size_bytes)
    parts.clock.move(days=8)
    for _ in range(2):
        await keeping.verify_copy_due()
    (parts.folder / record.key).write_bytes(original)
    await keeping.verify_copy_due()
    early = (there.folder / record.key).read_bytes()
    parts.clock.move(hours=1.5)

    await keeping.verify_copy_due()

    entry = await second.copying.catalog.get(made.id)
    assert early != original
    assert [each.passed for each in entry.evidence] == [True, False, True]
    assert entry.level is Level.V3
    assert (there.folder / record.key).read_bytes() == original
    assert [each.partition(" {")[0] for each in parts.reported] == [
        "a copy stays damaged",
        "a damaged copy was made once more",
    ]
    assert "'passed': True" in parts.reported[1]


async def test_a_broken_archive_is_told_once(parts: Parts) -> None:
    """The chore reads the archive's chain, and what it finds is reported when it is new."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        await parts.ship.step(lease)
    parts.flip(layout.segment(1, 1, 3), -1)
    keeping = keep(parts)
    chore = next(each for each in keeping._chores if each.name == "audit of the archive")

    await keeping._do(chore)
    parts.clock.move(days=5)
    await keeping._do(chore)

    assert [each.startswith("the archive is broken") and "1/1 to 1/3" in each for each in parts.reported] == [True]


async def archived_twice(parts: Parts, there: Parts) -> Keeping:
    """With a segment in the archive of both stores."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        await parts.ship.step(lease)
    keeping = keep(parts, second=second_hands(parts, there))
    await keeping.copy()
    return keeping


async def test_a_broken_copy_of_the_archive_is_told_as_such(parts: Parts, tmp_path: Path) -> None:
    """What rots in both stores is told of each, and nothing is copied."""
    there = again(parts, store_folder=tmp_path / "second")
    keeping = await archived_twice(parts, there)
    name = layout.segment(1, 1, 3)
    there.flip(name, -1)
    parts.flip(name, -2)
    before = (there.folder / name).read_bytes()

    for chore in ("audit of the archive", "audit of the second store"):
        await keeping._do(next(each for each in keeping._chores if each.name == chore))

    wheres = ("the archive is broken", "the archive in the second store is broken")
    assert [each.startswith(where) for each, where in zip(parts.reported, wheres, strict=True)] == [True, True]
    assert all("1/1 to 1/3" in each for each in parts.reported)
    assert (there.folder / name).read_bytes() == before


async def test_a_damaged_copy_of_a_segment_is_made_once_more(parts: Parts, tmp_path: Path) -> None:
    """What rots in the second store alone is copied again when it is read, which is told; the archive is whole then."""
    there = again(parts, store_folder=tmp_path / "second")
    keeping = await archived_twice(parts, there)
    name = layout.segment(1, 1, 3)
    there.flip(name, -1)

    for chore in ("audit of the archive", "audit of the second store"):
        await keeping._do(next(each for each in keeping._chores if each.name == chore))

    assert [each.startswith("a segment in the second store was damaged") for each in parts.reported] == [True]
    assert "1/1" in parts.reported[0]
    assert (there.folder / name).read_bytes() == (parts.folder / name).read_bytes()
    assert keeping._hands.second is not None
    assert await keeping._hands.second.audit.check() is None


async def test_a_forged_drill_is_told_once_and_delays_none(parts: Parts) -> None:
    """A drill is due although somebody put a record of a later one into the bucket; that is reported when it is new."""
    await parts.proven()
    await parts.store.put(layout.drill(NOON + timedelta(days=100)), b"{}")
    tried: list[object] = []

    async def run(running: object) -> Subject:
        tried.append(running)
        return Subject("drill", "")

    drill = Drill(parts.repository, cast("Prepare", None))
    drill.run = run  # type: ignore[method-assign]
    keeping = keep(parts, drill=drill, drill_schedule=Schedule(Kind.MANUAL, "0 13 * * *"))
    parts.clock.move(hours=2)

    for _ in range(2):
        await keeping.drill_due()

    assert len(tried) == 2
    assert [each.startswith("record of a drill passed over") for each in parts.reported] == [True]


async def test_a_trial_that_makes_room_is_no_failure(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of a recovery nobody is told of problems that are none; it is tried again after an hour."""
    made = await parts.proven(Kind.DAILY)
    tried: list[str] = []

    async def drills(_: object) -> Subject:
        tried.append("drill")
        raise errors.OperationCancelled("a restore goes first")

    async def verifies(backup_id: str, level: Level, _: object) -> Subject:
        tried.append(f"{backup_id} V{int(level)}")
        raise errors.OperationCancelled("a restore goes first")

    drill = Drill(parts.repository, cast("Prepare", None))
    monkeypatch.setattr(drill, "run", drills)
    monkeypatch.setattr(parts.verify, "run", verifies)
    keeping = keep(parts, DAILY, drill=drill, drill_schedule=Schedule(Kind.MANUAL, "0 13 * * *"))
    parts.clock.move(hours=2)

    for _ in range(2):
        for chore in (keeping.drill_due, keeping.verify_due):
            await chore()
    assert tried == ["drill", f"{made.id} V4"]

    parts.clock.move(seconds=module.HOUR_SECONDS + 1)
    await keeping.drill_due()
    await keeping.verify_due()
    assert tried[2:] == tried[:2]
    assert await keeping.check() is None


async def blocked(parts: Parts, keeping: Keeping) -> tuple[object, str | None]:
    """What the gauge and the health of the service say of retention."""
    operations, repair = SimpleNamespace(running=()), SimpleNamespace(problem="", check=nothing)
    audit = SimpleNamespace(check=nothing)
    assembly: Any = SimpleNamespace(
        keeping=keeping,
        operations=operations,
        repair=repair,
        ship=None,
        source=parts.registry,
        stores=[SimpleNamespace(name="primary", store=parts.store, audit=audit)],
    )
    told = {metric.name: metric for metric in Gauges(assembly, parts.clock).metrics()}
    (found,) = [each for each in _dependencies(assembly) if each.name == "retention"]
    assert not found.critical
    (point,) = told["backup.retention.blocked"].points
    return getattr(point, "value", None), await found.check()


async def test_retention_that_is_blocked_is_told(tmp_path: Path) -> None:
    """By a gauge, by the service's health and once in the log, until somebody saw to it."""
    policy = Policy(hourly=1, daily=1, monthly=1, floor=1)
    parts = make_parts(tmp_path, policy=policy)
    parts.registry.dump_bytes = 5_000
    there = again(parts, store_folder=tmp_path / "second")
    keeping = keep(parts, second=second_hands(parts, there))
    for _ in range(5):
        await parts.proven(Kind.HOURLY, slot=parts.clock.now())
        parts.clock.move(hours=1)
    assert await blocked(parts, keeping) == (0, None)

    for _ in range(2):
        await keeping.prune()
        await keeping.prune_copy()
    value, why = await blocked(parts, keeping)
    await parts.prune.apply(force=True)
    await keeping.prune()

    assert value == 1
    assert why is not None
    assert why.startswith("primary store: 4 of 5 backups would be deleted")
    assert [each.startswith("retention deletes nothing") for each in parts.reported] == [True]
    assert await blocked(parts, keeping) == (0, None)


async def test_without_schedules_nothing_is_made_or_deleted(parts: Parts) -> None:
    """What is switched off does nothing; what a restore kept is still dropped when its time is over, and the archive is
    read. What cron has to call is said at the start."""
    keeping = keep(parts, enabled=False)
    names = {chore.name for chore in keeping._chores}

    assert not names & {"backups", "verification", "drill", "retention"}
    assert {"kept databases", "audit of the archive", "audit of the second store"} <= names

    async def said() -> bool:
        return bool(parts.reported)

    await _runs(keeping, said)

    assert "llmsr backup prune --apply" in parts.reported[0]


async def test_without_schedules_what_was_left_over_is_removed(parts: Parts, tmp_path: Path) -> None:
    """Data of a run that ended early goes after a day in both stores, and no backup does."""
    there = again(parts, store_folder=tmp_path / "second")
    keeping = keep(parts, enabled=False, second=second_hands(parts, there))
    made = await parts.proven()
    orphan = parts.repository.new_id()
    for store in (parts.store, there.store):
        await store.put(layout.data(orphan, 1), b"half of a backup")
    parts.clock.move(days=400)

    for name in ("left-over objects", "left-over objects of the second store"):
        await keeping._do(next(each for each in keeping._chores if each.name == name))

    for each in (parts, there):
        assert await each.keys(f"backups/{orphan}/") == []
    assert await parts.ids() == [made.id]
    assert (await parts.repository.catalog.get(made.id)).buried is None
