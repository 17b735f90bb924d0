"""The second store: whole, compared on arrival, and independent of what happens to the first."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import Lock, ObjectDamaged, Placement, StorageClass, Stored
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level
from services.backup.usecases.archive import Tip
from services.backup.usecases.copying import FULL_SECONDS, Copying
from services.backup.usecases.make_backup import BackupRules
from tests.backup_parts import NOON, HandClock, Parts, again, make_parts, recipient
from tests.fix_fault_table import FaultTable
from tests.object_faults import FaultyStore, Flip, Plan, Raise
from tests.object_locks import LockingStore

DOWN = errors.ObjectStoreUnavailable("the second store of the test is down")


class Stores:
    """A repository and its copy. plan: faults of the copy's store."""

    def __init__(self, folder: Path) -> None:
        self.parts = make_parts(folder)
        self.plan = Plan()
        self.folder = folder / "second"
        self.second = FaultyStore(DirectoryStore(self.folder, self.parts.clock.now), self.plan)
        self.copying = Copying(self.parts.repository, self.second)

    async def ship(self, start: int) -> str:
        """Archives two changes behind a position, and returns the segment's key."""
        parts = self.parts
        parts.registry.write(2)
        head = await parts.registry.head()
        await parts.archive.ship(Tip(1, start, None), head, parts.registry.history[start:])
        return layout.segment(1, start + 1, start + 2)

    def there(self) -> Parts:
        """The use cases over the copy, as on the day the first store is gone."""
        return again(self.parts, store_folder=self.folder)

    async def keys(self) -> list[str]:
        """Keys in the copy."""
        return [each.key async for each in self.second.list("")]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """A repository and an empty second store."""
    return Stores(tmp_path)


async def test_the_copy_alone_is_enough(stores: Stores, fault_table: FaultTable) -> None:
    """Backups, keys, archive and pins are there, and V3 passes in the copy alone: its evidence is its own."""
    await stores.ship(0)
    made = await stores.parts.proven(pinned=True)
    await stores.copying.round()

    there = stores.there()
    entry = await there.repository.catalog.get(made.id)

    assert stores.copying.state.complete == {made.id}
    assert not stores.copying.state.problem
    assert (entry.level, entry.pinned) == (Level.V0, True)
    assert (await there.look(made.id)).passed
    assert (await there.repository.catalog.get(made.id)).level is Level.V3
    assert len(await there.spans()) == 1
    fault_table("T31", "first store lost, the copy alone", "V3 passes in the copy")


@pytest.mark.parametrize(("kind", "wanted"), [(Kind.HOURLY, "STANDARD"), (Kind.DAILY, "STANDARD_IA")])
async def test_a_copy_is_kept_as_the_backup_is(tmp_path: Path, kind: Kind, wanted: StorageClass) -> None:
    """Hourly ones in the usual storage; durable ones in a cheaper one, locked until the backup's own lock is over."""
    first = LockingStore(DirectoryStore(tmp_path / "store", HandClock().now))
    parts = make_parts(tmp_path, store=first, rules=BackupRules("1.0", lock_days=3))
    made = await parts.backup(kind)
    second = LockingStore(DirectoryStore(tmp_path / "second", HandClock(NOON + timedelta(days=1)).now))

    await Copying(parts.repository, second, lock_days=3).round()

    keys = (layout.manifest(made.id), parts.data(made.manifest))
    assert [second.placements[key] for key in keys] == [first.placements[key] for key in keys]
    lock = Lock("COMPLIANCE", NOON + timedelta(days=3)) if kind is Kind.DAILY else None
    assert second.placements[keys[1]] == Placement(wanted, lock)


@pytest.mark.parametrize(("lock_days", "age"), [(0, timedelta(seconds=-5)), (3, timedelta(days=3))])
async def test_a_copy_is_not_locked_for_longer(tmp_path: Path, lock_days: int, age: timedelta) -> None:
    """Where nothing is to be locked, or the backup's own lock is over, the copy can be deleted."""
    parts = make_parts(tmp_path, rules=BackupRules("1.0", lock_days=lock_days))
    made = await parts.backup(Kind.DAILY)
    second = LockingStore(DirectoryStore(tmp_path / "second", HandClock(NOON + age).now))

    await Copying(parts.repository, second, lock_days).round()

    assert second.placements[parts.data(made.manifest)] == Placement("STANDARD_IA")


async def test_no_copy_is_there_before_its_key(stores: Stores) -> None:
    """What is copied can be opened in the copy alone at that very moment, also what is written meanwhile."""
    inner, opened = stores.second.put, []
    other = again(stores.parts)

    async def put(key: str, content: bytes, **options: Any) -> Stored:
        stored = await inner(key, content, **options)
        there = stores.there()
        if segment := layout.segment_of(key):
            await there.archive.read(segment)
            opened.append(key)
            if len(opened) == 1:
                # Another process archives and backs up, each under a key of its own.
                other.registry.write(2)
                await other.archive.ship(Tip(1, 2, None), await other.registry.head(), other.registry.history[2:])
                await other.backup()
        if backup_id := layout.manifest_of(key):
            assert (await there.look(backup_id)).passed
            opened.append(key)
        return stored

    stores.second.put = put  # type: ignore[method-assign]
    await stores.ship(0)
    await stores.copying.round()
    await stores.copying.round()

    assert len(opened) == 3


async def test_a_key_that_is_damaged_here_stays_there(stores: Stores, tmp_path: Path) -> None:
    """What a rotation wrote here and nobody can read takes nothing away from the copy."""
    await stores.ship(0)
    await stores.copying.round()
    recipients = (*stores.parts.recipients, recipient(tmp_path, "new"))
    await again(stores.parts, recipients=recipients).repository.keys.rotate(dry_run=False)
    [document] = [each.key async for each in stores.parts.store.list(layout.KEYS)]
    inner = stores.parts.store.get

    async def get(key: str) -> tuple[bytes, Stored]:
        if key == document:
            raise ObjectDamaged("it rotted, by the test")
        return await inner(key)

    stores.parts.store.get = get  # type: ignore[method-assign]
    await stores.copying.round()

    assert "rotted" in stores.copying.state.problem
    there = stores.there()
    assert [await there.archive.read(segment) for segment in await there.archive.next_keys(None, 10)]


async def test_a_copy_that_was_down_catches_up(stores: Stores, fault_table: FaultTable) -> None:
    """T29: while the second store is down the status says so; when it is back all is copied."""
    one = await stores.parts.backup()
    for method in ("put", "upload", "list", "head"):
        stores.plan.add(method, *[Raise(DOWN)] * 5)
    await stores.copying.round()
    assert "down" in stores.copying.state.problem
    two = await stores.parts.backup()
    segment = await stores.ship(0)
    stores.plan._faults.clear()

    await stores.copying.round()

    assert stores.copying.state.problem == ""
    assert stores.copying.state.complete == {one.id, two.id}
    assert segment in await stores.keys()
    fault_table("T29", "second store down, then back", "problem told meanwhile, then all copied")


async def test_a_copy_that_was_cut_off_is_no_backup_there(stores: Stores) -> None:
    """The manifest comes last: what is listed in the copy is whole."""
    stores.parts.registry.dump_bytes = 2_500_000
    made = await stores.parts.backup()
    stores.plan.add("complete", None, Raise(DOWN))
    await stores.copying.round()
    assert (await stores.copying.catalog.listing()).entries == ()

    await stores.copying.round()

    assert [entry.id for entry in (await stores.copying.catalog.listing()).entries] == [made.id]


async def test_damage_is_not_copied_and_stops_nothing_else(stores: Stores, fault_table: FaultTable) -> None:
    """T29: a damaged object is named and not copied; other backups and the archive are."""
    damaged, whole = await stores.parts.backup(), await stores.parts.backup()
    segment = await stores.ship(0)
    stores.parts.flip(damaged.manifest.objects[0].key, 100)

    await stores.copying.round()

    assert stores.copying.state.complete == {whole.id}
    assert damaged.manifest.objects[0].key in stores.copying.state.problem
    assert segment in await stores.keys()
    fault_table("T29", "object damaged in the first store", "named, not copied, all else is")


async def test_damage_on_the_way_is_found_and_repaired(stores: Stores) -> None:
    """What arrives otherwise than it was is not completed, and is copied in the next round."""
    made = await stores.parts.backup()
    stores.parts.plan.add("read", Flip(10))
    await stores.copying.round()
    assert stores.copying.state.complete == frozenset()

    await stores.copying.round()

    assert stores.copying.state.complete == {made.id}


@pytest.mark.parametrize("damage", ["manifest flipped", "object gone", "object short"])
async def test_a_damaged_copy_is_made_again(stores: Stores, damage: str, fault_table: FaultTable) -> None:
    """T29: what was damaged or lost in the copy is brought back from the first store."""
    made = await stores.parts.backup()
    await stores.copying.round()
    key = layout.manifest(made.id) if damage == "manifest flipped" else made.manifest.objects[0].key
    path = stores.folder / key
    if damage == "object gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "object short" else path.read_bytes()[:-3] + b"xyz")
    stores.copying = Copying(stores.parts.repository, stores.second)

    await stores.copying.round()

    assert stores.copying.state.complete == {made.id}
    assert (await stores.there().look(made.id)).passed
    fault_table("T29", f"copy diverged: {damage}", "copied again, V3 passes there")


async def test_what_the_first_loses_stays(stores: Stores, fault_table: FaultTable) -> None:
    """A wiped first store deletes nothing in the second."""
    made = await stores.parts.proven()
    await stores.copying.round()
    for key in [each.key async for each in stores.parts.store.list("")]:
        await stores.parts.store.delete(key)

    await stores.copying.round()

    assert (await stores.there().look(made.id)).passed
    fault_table("T31", "first store wiped while copies are made", "the copy keeps everything")


async def test_another_registrys_store_is_refused(stores: Stores, tmp_path: Path) -> None:
    """A second store that belongs to another registry takes nothing."""
    await stores.parts.backup()
    stranger = again(stores.parts, store_folder=stores.folder)
    stranger.registry = stores.parts.registry
    await stranger.repository.bind("another-registry")
    before = await stores.keys()

    await stores.copying.round()

    assert "belongs to something else" in stores.copying.state.problem
    assert await stores.keys() == before


async def test_a_rotation_reaches_the_copy(stores: Stores, tmp_path: Path) -> None:
    """A recipient that was taken away cannot open the copy's keys either."""
    made = await stores.parts.backup()
    await stores.copying.round()
    rotating = again(stores.parts, recipients=(recipient(tmp_path, "new"),))
    # The rotation needs one that opens the old form as well.
    await again(stores.parts, recipients=(*stores.parts.recipients, recipient(tmp_path, "new"))).repository.keys.rotate(
        dry_run=False
    )
    await rotating.repository.keys.rotate(dry_run=False)

    await stores.copying.round()

    assert (await again(rotating, store_folder=stores.folder, recipients=rotating.recipients).look(made.id)).passed
    there = stores.there()
    with pytest.raises(errors.KeyUnavailable):
        await there.verify.verify(made.id, Level.V2, there.running())


async def test_old_segments_are_not_listed_again_in_every_round(stores: Stores) -> None:
    """A round looks at what is new in the archive, and at all of it once in a while."""
    first = await stores.ship(0)
    await stores.copying.round()
    (stores.folder / first).unlink()
    second = await stores.ship(2)

    await stores.copying.round()
    assert second in await stores.keys()
    assert first not in await stores.keys()
    stores.parts.clock.move(seconds=FULL_SECONDS + 1)
    await stores.copying.round()

    assert first in await stores.keys()


async def test_holes_in_the_copy_are_filled(stores: Stores) -> None:
    """What the copy alone has, between, before and behind the others, stays; what it lacks comes."""
    shipped = [await stores.ship(2 * number) for number in range(5)]
    await stores.copying.round()
    for key in (shipped[0], shipped[3]):
        await stores.parts.store.delete(key)
    for key in (shipped[1], shipped[2], shipped[4]):
        await stores.second.delete(key)

    await Copying(stores.parts.repository, stores.second).round()

    assert [key for key in await stores.keys() if key in shipped] == shipped


async def test_segments_of_a_new_epoch_and_of_an_old_one_are_copied(stores: Stores) -> None:
    """A restore's new line is found at once, and so is what an older line gets late."""
    await stores.ship(0)
    await stores.copying.round()
    parts = stores.parts
    parts.registry.write(2)
    tail = parts.registry.history[2:4]
    parts.registry.fork(4)
    head = await parts.registry.head()
    await parts.archive.ship(Tip(2, 4, None), head, parts.registry.history[4:])
    await stores.copying.round()
    await parts.archive.ship(Tip(1, 2, None), head, tail)

    await stores.copying.round()

    assert {layout.segment(2, 5, 5), layout.segment(1, 3, 4)} <= set(await stores.keys())


async def test_what_was_deleted_before_it_was_copied_is_not_missed_in_the_copy(stores: Stores) -> None:
    """A tombstone in the first store speaks for the copy too, where the backup never came to it."""
    parts = stores.parts
    made = [await parts.backup() for _ in range(3)]
    await parts.prune.delete(made[1].id, dry_run=False)

    await stores.copying.round()

    there = await stores.there().repository.catalog.listing()
    assert [entry.id for entry in there.entries] == [made[2].id, made[0].id]
    assert there.problems == ()
