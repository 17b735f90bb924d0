"""Retention as it is carried out: planned, buried, deleted, and finished whatever ended it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import Lock, ObjectLocked
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level
from services.backup.domain.retention import Policy
from services.backup.usecases.archive import Tip
from services.backup.usecases.make_backup import BackupRules
from services.backup.usecases.prune import Origin, Prune
from tests.backup_parts import NOON, HandClock, Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import Raise
from tests.object_locks import LockingStore

POLICY = Policy(hourly=2, daily=1, monthly=1, floor=1, share_max=1.0)
DENIED = errors.ObjectStoreDenied("no right to delete")


class Killed(BaseException):
    """The process ends here."""


class KilledAt:
    """Ends the process at the n-th time that a point is reached."""

    def __init__(self, name: str, time: int = 1) -> None:
        self.name, self.left = name, time

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                raise Killed


@pytest.fixture
async def parts(tmp_path: Path) -> Parts:
    """A repository of six proven backups, an hour apart; the policy keeps the newest two."""
    parts = make_parts(tmp_path, policy=POLICY)
    parts.registry.dump_bytes = 5_000
    for _ in range(6):
        parts.registry.write(2)
        await parts.proven(Kind.HOURLY, slot=parts.clock.now())
        parts.clock.move(hours=1)
    return parts


async def test_a_plan_changes_nothing_and_says_what_apply_does(parts: Parts) -> None:
    """What is planned is what is done, at every stage: burial, grace, deletion."""
    for _ in range(3):
        before = await parts.keys()
        planned = await parts.prune.plan()
        assert await parts.keys() == before
        done = await parts.prune.apply()
        assert (planned.plan.decisions, planned.buried, planned.deleted, planned.segments, planned.stored_bytes) == (
            done.plan.decisions,
            done.buried,
            done.deleted,
            done.segments,
            done.stored_bytes,
        )
        parts.clock.move(hours=25)
    assert len(await parts.ids()) == 2


async def test_grace_comes_between_burial_and_deletion(parts: Parts) -> None:
    """A buried backup is whole until its time is over; then nothing of it is left, its key included.

    Its tombstone is, until no other backup names it as the one before.
    """
    ids = await parts.ids()
    buried = await parts.prune.apply()
    parts.clock.move(hours=23)
    waiting = await parts.prune.apply()
    assert (buried.buried, buried.deleted, waiting.buried, waiting.deleted) == (4, 0, 0, 0)
    assert await parts.ids() == ids

    parts.clock.move(hours=2)
    gone = await parts.prune.apply()

    assert gone.deleted == 4
    assert await parts.ids() == ids[:2]
    await parts.prune.apply()
    told = "\n".join(key for key in await parts.keys() if key != layout.tombstone(ids[2]))
    assert not any(backup_id in told for backup_id in ids[2:])
    assert len(await parts.keys("keys/")) == 2


async def test_a_pin_saves_what_is_buried(parts: Parts) -> None:
    """A backup that is pinned during its grace is dug out again."""
    await parts.prune.apply()
    saved = (await parts.ids())[-1]
    await parts.repository.catalog.pin(saved, pinned=True)
    parts.clock.move(hours=25)

    await parts.prune.apply()

    entry = await parts.repository.catalog.get(saved)
    assert entry.buried is None
    assert len(await parts.ids()) == 3


async def test_what_is_buried_comes_back_when_the_better_ones_are_damaged(parts: Parts) -> None:
    """Nothing is deleted that has become the best there is since it was buried."""
    await parts.prune.apply()
    ids = await parts.ids()
    for backup_id in ids[:2]:
        parts.flip((await parts.repository.catalog.get(backup_id)).manifest.objects[0].key, 100)
        assert not (await parts.look(backup_id)).passed
    parts.clock.move(hours=25)

    await parts.prune.apply()

    listing = await parts.repository.catalog.listing()
    proven = [entry for entry in listing.entries if entry.level >= Level.V3 and not entry.buried]
    assert ids[2] in {entry.id for entry in proven}


async def test_nothing_is_deleted_while_the_newest_proven_one_is_old(parts: Parts, fault_table: FaultTable) -> None:
    """Also not what was buried before: whoever made no backups for days may need them."""
    await parts.prune.apply()
    parts.clock.move(days=3)

    done = await parts.prune.apply()

    assert done.plan.blocked
    assert len(await parts.ids()) == 6
    fault_table("T24", "clock 3 days ahead, no new backup", "retention blocked, nothing deleted")


@pytest.mark.parametrize("days", [1, -1, 400, -400])
async def test_a_machines_wrong_clock_deletes_nothing(parts: Parts, days: int, fault_table: FaultTable) -> None:
    """T24: ages are the store's clock's; a machine's own may say anything."""
    process = again(parts, policy=POLICY)
    process.repository.store._inner._clock = parts.clock.now  # type: ignore[attr-defined]
    wrong = type(parts.clock)(parts.clock.now() + timedelta(days=days))
    object.__setattr__(process.repository, "clock", wrong)
    expected = await parts.prune.plan()

    found = await process.prune.plan()

    assert found == expected
    fault_table("T24", f"machine's clock {days:+d} days", "the plan is the same")


@pytest.mark.parametrize(
    ("point", "time"),
    [
        ("prune.buried", 1),
        ("prune.buried", 3),
        ("remove.manifest_gone", 1),
        ("remove.object_gone", 1),
        ("remove.object_gone", 3),
        ("remove.manifest_gone", 4),
    ],
)
async def test_a_prune_that_is_killed_is_finished_by_the_next(
    parts: Parts, point: str, time: int, fault_table: FaultTable
) -> None:
    """T4: whatever point it ends at, what is listed is whole, the floor is kept, and the next prune finishes."""
    ids = await parts.ids()
    if point != "prune.buried":
        await parts.prune.apply()
        parts.clock.move(hours=25)
    killed = again(parts, policy=POLICY, failpoints=KilledAt(point, time))
    with pytest.raises(Killed):
        await killed.prune.apply()

    between = await again(parts).repository.catalog.listing()
    assert not between.problems
    for entry in between.entries:
        await parts.verify.require_stored(entry.manifest)
    later = again(parts, policy=replace(POLICY, stale_after=timedelta(days=30)))
    for _ in range(3):
        parts.clock.move(hours=25)
        await later.prune.apply()

    assert await parts.ids() == ids[:2]
    assert {layout.backup_of(key) for key in await parts.keys("backups/")} == set(ids[:2])
    assert await parts.keys("tombstones/") == [layout.tombstone(ids[2])]
    assert len(await parts.keys("keys/")) == 2
    fault_table("T4", f"killed in retention, {point} number {time}", "listed ones whole, the next prune finishes")


async def test_a_killed_deletion_of_one_backup_is_finished_by_a_repeat(parts: Parts, fault_table: FaultTable) -> None:
    """DeleteBackup that ended between manifest and data is finished by the same call."""
    victim = (await parts.ids())[-1]
    killed = again(parts, failpoints=KilledAt("remove.manifest_gone"))
    with pytest.raises(Killed):
        await killed.prune.delete(victim, dry_run=False)
    assert await parts.keys(f"backups/{victim}/")

    await parts.prune.delete(victim, dry_run=False)

    assert await parts.keys(f"backups/{victim}/") == []
    with pytest.raises(errors.BackupNotFound):
        await parts.prune.delete(victim, dry_run=False)
    fault_table("T4", "killed in DeleteBackup after the manifest", "the repeat finishes it")


async def test_deleting_one_is_refused_where_it_must_be(parts: Parts) -> None:
    """Pinned ones and the newest three proven ones stay; a dry run says what would go."""
    ids = await parts.ids()
    await parts.repository.catalog.pin(ids[5], pinned=True)

    for protected in (*ids[:3], ids[5]):
        with pytest.raises(errors.BackupProtected):
            await parts.prune.delete(protected, dry_run=True)
    planned = await parts.prune.delete(ids[3], dry_run=True)
    assert ids[3] in await parts.ids()
    done = await parts.prune.delete(ids[3], dry_run=False)

    assert ids[3] not in await parts.ids()
    assert set(planned.keys) <= set(done.keys)
    assert planned.stored_bytes == done.stored_bytes


async def test_nothing_of_an_unreadable_backup_is_touched(parts: Parts, fault_table: FaultTable) -> None:
    """Data, key and part of the archive stay while a manifest cannot be read, buried or not, however old."""
    async with parts.repository.leases.held("archive"):
        await parts.archive.ship(Tip(1, 0, None), await parts.registry.head(), parts.registry.history[:2])
    await parts.prune.apply()
    ids = await parts.ids()
    for backup_id in (ids[0], ids[-1]):
        parts.flip(layout.manifest(backup_id), 50)
    parts.clock.move(days=1, hours=12)
    kept = {key for key in await parts.keys() if ids[0] in key or ids[-1] in key or key.startswith("archive/")}
    keys = len(await parts.keys("keys/"))

    done = await again(parts, policy=POLICY).prune.apply()

    assert kept <= set(await parts.keys())
    assert len(await parts.keys("keys/")) == keys - done.deleted
    fault_table("T9", "manifest damaged, then retention", "data, key and segments of that backup untouched")


async def test_a_locked_object_stops_neither_the_prune_nor_the_sweep(parts: Parts, fault_table: FaultTable) -> None:
    """T28: what cannot be deleted yet stays buried, the rest goes, and a later prune tries again."""
    await parts.prune.apply()
    parts.clock.move(hours=25)
    parts.plan.add("delete", Raise(ObjectLocked("locked")))

    first = await parts.prune.apply()
    second = await parts.prune.apply()

    assert (first.deleted, second.deleted) == (3, 1)
    fault_table("T28", "object lock denies a delete", "skipped, others deleted, deleted once the lock is over")


async def locking(folder: Path, lock_days: int = 0) -> tuple[Parts, LockingStore]:
    """The use cases over a store that can lock: five daily backups, proven, of which the policy keeps one."""
    clock = HandClock()
    store = LockingStore(DirectoryStore(folder / "store", clock.now))
    rules = BackupRules("1.0", lock_days=lock_days)
    parts = make_parts(folder, clock=clock, store=store, policy=replace(POLICY, hourly=1), rules=rules)
    parts.registry.dump_bytes = 5_000
    for _ in range(5):
        parts.registry.write(2)
        await parts.proven(Kind.DAILY, slot=clock.now())
        clock.move(days=1)
    return parts, store


async def test_a_locked_backup_is_neither_planned_nor_buried(tmp_path: Path, fault_table: FaultTable) -> None:
    """T28: what the store has locked is kept, and says until when; it goes when its lock is over."""
    parts, _ = await locking(tmp_path, lock_days=4)

    planned = await parts.prune.plan()
    done = await parts.prune.apply()

    assert (len(planned.plan.deletions), planned.plan, done.buried) == (2, done.plan, 2)
    reasons = [each.why for each in planned.plan.decisions if "locked until" in each.why]
    assert reasons == ["locked until 2026-03-16 12:00 UTC", "locked until 2026-03-17 12:00 UTC"]
    with pytest.raises(errors.BackupProtected, match="locked until 2026-03-16"):
        await parts.prune.delete((await parts.ids())[2], dry_run=True)
    parts.clock.move(days=1)
    assert (await parts.prune.apply()).buried == 1
    fault_table("T28", "retention of locked backups", "kept until the lock is over, neither planned nor buried")


async def test_a_lock_that_is_set_later_saves_what_is_buried(tmp_path: Path) -> None:
    """A backup that somebody locks during its grace is dug out again, and keeps its manifest."""
    parts, store = await locking(tmp_path)
    await parts.prune.apply()
    entry = (await parts.repository.catalog.listing()).entries[-1]
    assert entry.buried
    await store.extend_lock(parts.data(entry.manifest), Lock("GOVERNANCE", NOON + timedelta(days=30)))
    parts.clock.move(hours=25)
    await parts.proven(Kind.DAILY, slot=parts.clock.now())

    done = await parts.prune.apply()

    assert done.deleted == 3
    assert (await parts.repository.catalog.get(entry.id)).buried is None


async def test_a_locked_orphan_does_not_stop_the_prune(parts: Parts) -> None:
    """T28: data of a failed run that was locked already stays until its lock ends, and blocks nothing."""
    orphan = parts.repository.new_id()
    await parts.store.put(layout.data(orphan, 1), b"locked data")
    parts.clock.move(hours=25)
    await parts.proven()
    parts.plan.add("delete", *[Raise(ObjectLocked("locked"))] * 1)

    await parts.prune.apply()
    assert await parts.keys(f"backups/{orphan}/")
    await parts.prune.apply()

    assert await parts.keys(f"backups/{orphan}/") == []


async def test_access_denied_on_delete_is_said_and_repeated(parts: Parts, fault_table: FaultTable) -> None:
    """T20: a cleaner without the right to delete fails clearly, nothing half-deleted is listed, and it is repeated."""
    await parts.prune.apply()
    parts.clock.move(hours=25)
    parts.plan.add("delete", None, Raise(DENIED))
    with pytest.raises(errors.ObjectStoreDenied):
        await parts.prune.apply()
    listing = await parts.repository.catalog.listing()
    for entry in listing.entries:
        await parts.verify.require_stored(entry.manifest)

    await parts.prune.apply()

    assert len(await parts.ids()) == 2
    fault_table("T20", "AccessDenied on a delete of retention", "OBJECT_STORE_DENIED, the next prune finishes")


async def test_a_running_backup_is_not_swept(parts: Parts, fault_table: FaultTable) -> None:
    """T18: retention of another process waits for a backup that runs, and takes nothing of it."""

    class PruneMeanwhile:
        async def reached(self, name: str) -> None:
            if name == "backup.object_complete":
                other = again(parts, policy=POLICY, owner="process-c")
                patience = other.prune.apply()
                other.repository.leases._clock = Impatient()  # type: ignore[assignment]
                with pytest.raises(errors.OperationRunning):
                    await patience

    made = await again(parts, failpoints=PruneMeanwhile()).backup()

    assert (await parts.look(made.id)).passed
    fault_table("T18", "retention on B while a backup runs on A", "OPERATION_RUNNING, the backup is whole")


class Impatient:
    """A clock by which every patience is over at once."""

    def __init__(self) -> None:
        self.count = 0.0

    def monotonic(self) -> float:
        """See Clock."""
        self.count += 1000
        return self.count


async def test_old_segments_go_when_no_backup_needs_them(parts: Parts) -> None:
    """Segments before the oldest kept backup, and older than the archive is kept, are removed; the others stay."""
    head = await parts.registry.head()
    history = parts.registry.history
    tip = Tip(1, 0, None)
    async with parts.repository.leases.held("archive"):
        for start in range(0, 12, 4):
            tip = await parts.archive.ship(tip, head, history[start : start + 4])
    await parts.prune.apply()
    parts.clock.move(days=40)
    await parts.proven()
    await parts.proven()
    await parts.prune.apply()

    done = await parts.prune.apply()

    spans = await parts.spans()
    assert len(spans) < 3
    assert done.plan.blocked is None
    entries = (await parts.repository.catalog.listing()).entries
    oldest = min(entry.manifest.place.position for entry in entries)
    assert all(span.last > oldest for span in spans)


async def test_the_copy_deletes_only_what_the_first_no_longer_has(parts: Parts, tmp_path: Path) -> None:
    """The second store's retention spares what the first keeps, by the same rules otherwise."""
    rules = replace(parts.prune._rules, policy=Policy(hourly=1, daily=1, monthly=1, floor=1, share_max=1.0))
    origin = Origin(parts.repository.catalog, parts.archive)
    copy_of = again(parts)
    copy_prune = Prune(copy_of.repository, copy_of.archive, copy_of.audit, rules, origin)

    planned = await copy_prune.plan()

    assert planned.plan.deletions == ()


async def test_tombstones_are_kept_as_long_as_a_manifest_refers_to_theirs(parts: Parts) -> None:
    """What retention deleted is never missed, however long it deletes, and the tombstones do not grow."""
    for _ in range(12):
        parts.clock.move(hours=6)
        await parts.proven(Kind.HOURLY, slot=parts.clock.now())
        await parts.prune.apply()
        listing = await again(parts).repository.catalog.listing()
        assert listing.problems == ()
        going = sum(1 for entry in listing.entries if entry.buried)
        gone = {each.backup_id for each in listing.tombstones} - {entry.id for entry in listing.entries}
        assert len(gone) <= len(listing.entries)
    assert going
    assert len(listing.entries) < 12


async def test_a_pin_that_nobody_trusts_is_deleted_by_nobody_either(parts: Parts) -> None:
    """A pin that was damaged does not count, but what carries one is not deleted until somebody has looked."""
    saved = (await parts.ids())[-1]
    await parts.repository.catalog.pin(saved, pinned=True)
    parts.flip(layout.pin(saved), 30)
    await parts.prune.apply()
    parts.clock.move(hours=25)

    await parts.prune.apply()

    assert saved in await parts.ids()
