"""A whole backup against real object stores: made, read in full, archived, pruned, locked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.s3 import open_s3
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level
from services.backup.usecases import audit as audit_module
from services.backup.usecases import prune as prune_module
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Entry
from services.backup.usecases.copying import Copying
from services.backup.usecases.make_backup import BackupRules
from services.backup.usecases.status import NamedStore, Status
from tests.backup_parts import Parts, RealClock, again, make_parts, parts_on
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_objects import ObjectPlace
from tests.object_servers import S3Server


async def test_a_backup_from_its_making_to_its_end(
    object_place: ObjectPlace, tmp_path: Path, fault_table: FaultTable
) -> None:
    """Made, V3, archived, planned and pruned, on every kind of store there is."""
    async with object_place.open() as store:
        parts = parts_on(tmp_path, store)
        made = await parts.proven(Kind.DAILY)
        async with parts.repository.leases.held("archive") as lease:
            await parts.ship._begin()
            await parts.ship.step(lease)
        audit = ArchiveAudit(parts.repository, parts.archive)
        breaks = await audit.round()
        known = await ArchiveAudit(parts.repository, parts.archive).known()
        size = await parts.archive.size()
        pruned = await parts.prune.apply()
        listing, problems = await parts.repository.catalog.rebuild()

    assert made.level is Level.V3
    assert known == audit.state
    assert known is not None
    assert (breaks, known.resting, known.segments, size[0]) == ([], True, 1, 1)
    assert [entry.id for entry in listing.entries] == [made.id]
    assert problems == []
    assert (pruned.buried, pruned.deleted, pruned.segments) == (0, 0, 0)
    fault_table("G1", f"whole life of a backup on {object_place.name}", "V3 passed, nothing left over")


async def test_unused_keys_are_swept(
    object_place: ObjectPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """A data key goes after its last segment, on every kind of store; what is left of the archive can be read, and the
    backup passes V3."""
    monkeypatch.setattr(audit_module, "KEY_REST", timedelta(0))
    monkeypatch.setattr(prune_module, "ORPHAN_AGE", timedelta(0))
    async with object_place.open() as store:
        parts = parts_on(tmp_path, store)
        made = await parts.proven(Kind.DAILY)
        for process in (parts, again(parts, store=store)):
            parts.registry.write(2)
            async with process.repository.leases.held("archive") as lease:
                await process.ship._begin()
                await process.ship.step(lease)
        first, second = await parts.archive.next_keys(None, 10)
        keys = await parts.repository.keys.ids()
        await store.delete(layout.segment(first.epoch, first.first, first.last))
        written = await store.now()

        async def later() -> bool:
            return await store.now() > written + timedelta(seconds=1)

        await eventually(later)

        await parts.audit.round()
        await parts.prune.apply()

        fresh = again(parts, store=store)
        await fresh.archive.read(second)
        found = await fresh.look(made.id)
        left = await fresh.repository.keys.ids()

    assert found.passed
    assert (len(keys), len(left)) == (3, 2)
    fault_table("G1", f"unused keys swept on {object_place.name}", "archive read, V3 passed")


async def test_a_backup_that_is_taken_out_is_missed(
    object_place: ObjectPlace, tmp_path: Path, fault_table: FaultTable
) -> None:
    """T11: on every kind of store one that is deleted in order is not missed, and one that just vanishes is."""
    async with object_place.open() as store:
        parts = parts_on(tmp_path, store)
        parts.registry.dump_bytes = 5_000
        made = [await parts.backup(pinned=number == 0) for number in range(4)]
        await parts.prune.delete(made[1].id, dry_run=False)
        in_order = await again(parts, store=store).repository.catalog.listing()
        await store.delete(layout.manifest(made[2].id))
        taken = await again(parts, store=store).repository.catalog.listing()
        pinned = await again(parts, store=store).repository.catalog.get(made[0].id)

    assert in_order.problems == ()
    assert [made[2].sha256.hex() in problem for problem in taken.problems] == [True]
    assert pinned.pinned
    fault_table("T11", f"a manifest removed behind the service on {object_place.name}", "told, with its digest")


async def test_a_locked_backup_is_not_deleted(s3_server: S3Server, tmp_path: Path, fault_table: FaultTable) -> None:
    """T28: in a bucket with object lock a daily backup cannot be deleted, and that stops nothing else."""
    options = s3_server.options(s3_server.bucket(lock=True))
    async with open_s3(options) as store:
        parts = parts_on(tmp_path, store, rules=BackupRules("1.0", lock_days=1))
        made = await parts.backup(Kind.DAILY)
        locked = await store.head(made.manifest.objects[0].key)
        with pytest.raises(errors.BackupProtected, match="locked until"):
            await parts.prune.delete(made.id, dry_run=False)
        async with open_s3(s3_server.options(s3_server.bucket(lock=True))) as second:
            await Copying(parts.repository, second, lock_days=1).round()
            copied = [await second.head(key) for key in (layout.manifest(made.id), made.manifest.objects[0].key)]
        listing = await parts.repository.catalog.listing()
        found = await parts.look(made.id)

    assert locked is not None
    assert locked.lock is not None
    assert [head is not None and head.lock is not None for head in copied] == [True, True]
    assert [entry.id for entry in listing.entries] == [made.id]
    assert found.passed
    fault_table("T28", "DeleteBackup of a locked backup", "BACKUP_PROTECTED, the backup is whole")


async def archived(folder: Path) -> tuple[Parts, Entry]:
    """A repository with a segment in its archive, and its one backup, which is verified."""
    parts = make_parts(folder, clock=RealClock())
    parts.registry.write(6)
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        await parts.ship.step(lease)
    return parts, await parts.proven(Kind.DAILY)


async def test_a_copy_is_verified_where_it_lies(
    object_place: ObjectPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    """V3 in the second store, of every kind, with evidence that is kept there; the first one's is not taken for it. Its
    archive is read again there as well, and where that is broken is told of that store alone."""
    parts, made = await archived(tmp_path)
    async with object_place.open() as store:
        copying = Copying(parts.repository, store)
        await copying.round()
        there = again(parts, store=store)
        before = await there.repository.catalog.get(made.id)
        verify = parts.verify.at(there.repository, "second")
        await verify.run(made.id, Level.V3, parts.running())
        await there.audit.round()
        status = Status(parts.registry, parts.archive, parts.repository.catalog, None, parts.audit)
        told = await status.store(NamedStore("second", "of the test", store, copying.catalog, there.audit))
        [segment] = await there.archive.next_keys(None, 10)
        name = layout.segment(segment.epoch, segment.first, segment.last)
        content, _ = await store.get(name)
        await store.put(name, content[:-1] + bytes([content[-1] ^ 1]))
        monkeypatch.setattr(audit_module, "EVERY", timedelta(0))
        await again(parts, store=store).audit.round()
        broken = await status.store(NamedStore("second", "of the test", store, copying.catalog, there.audit))
        first = await status.store(
            NamedStore("first", "of the test", parts.store, parts.repository.catalog, parts.audit)
        )

    assert before.level is Level.V0
    assert (told.newest, told.verified) == (made.id, made.id)
    assert (told.audited is not None, told.breaks) == (True, ())
    assert len(broken.breaks) == 1
    assert f"broken at {broken.breaks[0]}" in broken.problem
    assert (first.breaks, "broken" in first.problem + told.problem) == ((), False)
    fault_table("G1", f"V3 in a second store, {object_place.name}", "evidence of its own, told by GetStoreStatus")


async def test_a_damaged_copy_is_made_once_more(
    object_place: ObjectPlace, tmp_path: Path, fault_table: FaultTable
) -> None:
    """On every kind of store: what rots in the second one is copied again from the first, and reads right then."""
    parts, made = await archived(tmp_path)
    async with object_place.open() as store:
        copying = Copying(parts.repository, store)
        await copying.round()
        there = again(parts, store=store)
        [key] = await there.archive.next_keys(None, 10)
        segment, [record] = layout.segment(key.epoch, key.first, key.last), made.manifest.objects
        for name in (segment, record.key):
            content, _ = await store.get(name)
            await store.put(name, content[:-1] + bytes([content[-1] ^ 1]))
        audit = ArchiveAudit(there.repository, there.archive, parts.archive)
        breaks = await audit.round()
        damaged = await there.look(made.id, Level.V3)
        await copying.mend(made.id)
        whole = await there.look(made.id, Level.V3)
        stored, _ = await store.get(segment)

    assert (list(breaks), audit.mended) == ([], [key])
    assert stored == (parts.folder / segment).read_bytes()
    assert (damaged.passed, whole.passed) == (False, True)
    fault_table("T29", f"bytes rot in the second store, {object_place.name}", "found, copied again, V3 passes there")
