"""Data keys of the archive go when no segment needs them any more, and never before."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from services.backup.domain import layout
from services.backup.domain.retention import Policy
from services.backup.usecases.archive import KEY_LATE, Tip
from services.backup.usecases.audit import EVERY, KEY_REST, ArchiveAudit
from services.backup.usecases.copying import Copying
from services.backup.usecases.prune import Origin, Prune
from tests.backup_parts import Parts, again, make_parts
from tests.fix_fault_table import FaultTable

POLICY = Policy(share_max=1.0)


class World:
    """A repository and its copy, in which things happen in any order; processes come and go."""

    def __init__(self, folder: Path) -> None:
        self.parts = make_parts(folder, policy=POLICY)
        self.parts.registry.dump_bytes = 2_000
        self.there = again(self.parts, store_folder=folder / "second", owner="process-c")
        self.shipper = self.parts
        self.renew()

    def renew(self) -> None:
        """Other processes take over, which know nothing yet."""
        parts, there = self.parts, self.there
        self.shipper = again(parts)
        self.copying = Copying(parts.repository, there.store)
        self.audit = ArchiveAudit(there.repository, there.archive, parts.archive)
        origin = Origin(parts.repository.catalog, parts.archive)
        self.prune_copy = Prune(there.repository, there.archive, self.audit, parts.prune._rules, origin)

    async def ship(self) -> None:
        """Somebody writes, and it is archived."""
        self.parts.registry.write(2)
        async with self.shipper.repository.leases.held("archive") as lease:
            await self.shipper.ship._begin()
            await self.shipper.ship.step(lease)

    async def copy(self) -> None:
        """What is new is copied, and the newest backup read in the copy."""
        await self.copying.round()
        for backup_id in (await self.there.ids())[:1]:
            await self.there.look(backup_id)

    async def look(self) -> None:
        """Both archives are audited as far as a round goes, and retention works in both stores."""
        await self.parts.audit.round()
        await self.audit.round()
        await self.parts.prune.apply()
        await self.prune_copy.apply()

    async def drop(self, parts: Parts) -> None:
        """The oldest segment of a store goes, unless it is the only one; a copy when the first store's is gone."""
        oldest, *others = [*await parts.archive.next_keys(None, 2), None]
        origin = await self.parts.archive.next_keys(None, 1)
        if oldest and others != [None] and (parts is self.parts or [oldest] != origin):
            await parts.store.delete(layout.segment(oldest.epoch, oldest.first, oldest.last))

    async def needed(self, parts: Parts) -> set[str]:
        """Keys that a store's manifests and segments need, all of which open what is there."""
        fresh = again(parts)
        segments = await fresh.archive.next_keys(None, 1000)
        found = {str((await fresh.archive.audit(key, None))[1]) for key in segments}
        for entry in (await fresh.repository.catalog.listing()).entries:
            assert entry.manifest.encryption is not None
            found.add((await fresh.repository.keys.open(entry.manifest.encryption.key_id)).id)
        return found


async def test_a_key_goes_with_its_last_segment(tmp_path: Path, fault_table: FaultTable) -> None:
    """Each day has its key; once a day's segments are gone and a pass has seen that, so is their key."""
    world = World(tmp_path)
    parts = world.parts
    for _ in range(4):
        await world.ship()
        parts.clock.move(days=1)
    parts.clock.move(seconds=KEY_REST.total_seconds())
    await parts.proven()
    await world.look()
    made = len(await parts.repository.keys.ids())
    for _ in range(2):
        await world.drop(parts)
    await world.look()
    resting = len(await parts.repository.keys.ids())
    parts.clock.move(seconds=EVERY.total_seconds())
    await parts.proven()

    await world.look()

    assert (made, resting) == (5, 5)
    assert set(await parts.repository.keys.ids()) == await world.needed(parts)
    assert len(await parts.repository.keys.ids()) == 4
    fault_table("G1", "keys of the archive swept", "gone with their last segment, all others open")


@pytest.mark.parametrize("why", ["unread", "missed", "young", "blocked", "unsigned"])
async def test_a_key_stays_while_it_is_not_certain(tmp_path: Path, why: str) -> None:
    """No key goes after a pass that could not read a segment, or missed one, or that began soon after it was made; none
    while retention stands still, or while nobody whom we trust says that it is not needed."""
    world = World(tmp_path)
    parts = world.parts
    await world.ship()
    parts.clock.move(days=1)
    await world.ship()
    await world.drop(parts)
    if why == "missed":
        await world.ship()
        await world.ship()
        await parts.store.delete(layout.segment(1, 5, 6))
    if why != "young":
        parts.clock.move(seconds=KEY_REST.total_seconds())
    await parts.proven()
    if why == "unread":
        parts.flip(layout.segment(1, 3, 4), -1)
    if why == "unsigned":
        stranger = again(parts, seed=b"x" * 32, trusted=[parts.repository.signer.verifier])
        await stranger.audit.round()
    else:
        await parts.audit.round()
    if why == "blocked":
        for _ in range(3):
            await parts.backup()
        parts.clock.move(days=3)

    await parts.prune.apply()

    assert len(await parts.keys("keys/")) == len(await parts.ids()) + 2


async def test_a_segment_that_is_stored_late_keeps_its_key(tmp_path: Path, fault_table: FaultTable) -> None:
    """A process that stood still with a sealed segment in its hands writes the key down again, though it was swept."""

    class Pause:
        async def reached(self, name: str) -> None:
            """See Failpoints."""
            if name == "archive.before_put" and parts.clock.now() == began:
                parts.clock.move(seconds=KEY_REST.total_seconds() + 1)
                await parts.proven()
                await parts.audit.round()
                await parts.prune.apply()
                left.extend(await stalled.repository.keys.ids())

    left: list[str] = []
    parts = make_parts(tmp_path)
    stalled = again(parts, failpoints=Pause())
    parts.registry.write(2)
    began = parts.clock.now()

    await stalled.archive.ship(Tip(1, 0, None), await parts.registry.head(), parts.registry.history)

    assert stalled.archive._sealing is not None
    assert stalled.archive._sealing.key.id not in left
    fresh = again(parts)
    assert [await fresh.archive.read(key) for key in await fresh.archive.next_keys(None, 10)]
    assert KEY_LATE < KEY_REST
    fault_table("T17", "a segment stored after its key was swept", "the key is written down again")


@pytest.mark.parametrize(
    "seed",
    [*range(3), *(pytest.param(seed, marks=(pytest.mark.slow, pytest.mark.rotating(2))) for seed in range(3, 9))],
)
async def test_whatever_happens_no_key_goes_that_is_needed(tmp_path: Path, seed: int) -> None:
    """Segments, backups, rotations, audits, copies, losses of segments, new processes, in any order, over months: after
    each step every segment can be read and every backup opened, in both stores. In the end no other key is left."""
    rng, world = random.Random(seed), World(tmp_path)
    parts, there = world.parts, world.there
    done: Counter[str] = Counter()
    steps = {
        "ship": 6,
        "look": 4,
        "time": 4,
        "drop": 3,
        "drop a copy": 2,
        "copy": 3,
        "backup": 1,
        "rotate": 1,
        "renew": 2,
    }
    for _ in range(60):
        [step] = rng.choices([*steps], [*steps.values()])
        done[step] += 1
        match step:
            case "ship":
                await world.ship()
            case "look":
                await world.look()
            case "time":
                parts.clock.move(days=rng.choice([0.3, 1, 4, 9]))
            case "drop":
                await world.drop(parts)
            case "drop a copy":
                await world.drop(there)
            case "copy":
                await world.copy()
            case "backup":
                await parts.proven()
            case "rotate":
                await parts.repository.keys.rotate(dry_run=False)
            case "renew":
                world.renew()
        await world.needed(parts)
        await world.needed(there)

    for _ in range(3):
        parts.clock.move(days=9)
        await parts.proven()
        await world.copy()
        first, wanted, copied = (
            set(await parts.repository.keys.ids()),
            await world.needed(parts),
            await world.needed(there),
        )
        await world.look()

    # What retention deletes in the last look has not been seen to be gone.
    assert await world.needed(parts) <= set(await parts.repository.keys.ids()) <= wanted
    assert await world.needed(there) <= set(await there.repository.keys.ids()) <= copied | first
