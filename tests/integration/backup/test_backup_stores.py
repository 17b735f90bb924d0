"""A whole backup against real object stores: made, read in full, archived, pruned, locked."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.s3 import open_s3
from services.backup.domain.model import Kind, Level
from services.backup.usecases.make_backup import BackupRules
from tests.backup_parts import parts_on
from tests.fix_fault_table import FaultTable
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
        pruned = await parts.prune.apply()
        listing, problems = await parts.repository.catalog.rebuild()

    assert made.level is Level.V3
    assert [entry.id for entry in listing.entries] == [made.id]
    assert problems == []
    assert (pruned.buried, pruned.deleted, pruned.segments) == (0, 0, 0)
    fault_table("G1", f"whole life of a backup on {object_place.name}", "V3 passed, nothing left over")


async def test_a_locked_backup_is_not_deleted(s3_server: S3Server, tmp_path: Path, fault_table: FaultTable) -> None:
    """T28: in a bucket with object lock a daily backup cannot be deleted, and that stops nothing else."""
    options = s3_server.options(s3_server.bucket(lock=True))
    async with open_s3(options) as store:
        parts = parts_on(tmp_path, store, rules=BackupRules("1.0", lock_days=1))
        made = await parts.backup(Kind.DAILY)
        locked = await store.head(made.manifest.objects[0].key)
        with pytest.raises(errors.BackupProtected):
            await parts.prune.delete(made.id, dry_run=False)
        listing = await parts.repository.catalog.listing()
        found = await parts.look(made.id)

    assert locked is not None
    assert locked.lock is not None
    assert [entry.id for entry in listing.entries] == [made.id]
    assert found.passed
    fault_table("T28", "DeleteBackup of a locked backup", "BACKUP_PROTECTED, the backup is whole")
