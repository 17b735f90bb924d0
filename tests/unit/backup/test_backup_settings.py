"""Options of the backup service: what each makes of the parts, over a folder; and what is wrong with bad values."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load, variable
from llm_schema_registry.operations import ids
from services.backup.adapters.recipients import generate_key_file, generate_signing_key, load_recipient
from services.backup.assembly import Assembly
from services.backup.domain import layout, manifest
from services.backup.domain.model import Kind, Level, Manifest, ObjectRecord, PartRecord, Verification
from services.backup.domain.remarks import Tombstone
from services.backup.settings import BackupServiceSettings
from tests.backup_parts import HandClock, MemoryRegistry
from tests.fix_backup import AssembleBackup, backup_environment

DAY = timedelta(days=1)


async def keep(parts: Assembly, made: datetime) -> str:
    """Puts a backup of that time into the store, verified to V3, and returns its id. Its data is not there."""
    backup_id = ids.new_id(made, os.urandom(ids.RANDOM_BYTES))
    registry = MemoryRegistry(HandClock(made))
    registry.write(5)
    async with registry.snapshot() as snapshot:
        facts = await snapshot.facts()
    record = ObjectRecord(layout.data(backup_id, 1), 10, bytes(32), (PartRecord(10, bytes(32)),))
    document = Manifest(
        id=backup_id,
        cluster_id=facts.head.cluster_id,
        kind=Kind.MANUAL,
        slot=None,
        start_time=made,
        end_time=made,
        lease_generation=1,
        previous_sha256=None,
        code_version="1.0",
        dump_version="17.0",
        dump_format="pgc/1",
        dump_bytes=10_000,
        dump_sha256=bytes(32),
        compression="zstd",
        encryption=None,
        facts=facts,
        objects=(record,),
    )
    repository = parts.repository
    await repository.store.put(layout.manifest(backup_id), manifest.encode(document, repository.signer))
    await repository.catalog.record(Verification(backup_id, Level.V3, made, (), 1.0, None))
    return backup_id


def age(path: Path, by: timedelta) -> None:
    """Makes a file older."""
    then = time.time() - by.total_seconds()
    os.utime(path, (then, then))


@asynccontextmanager
async def some_history(assemble: AssembleBackup, **options: object) -> AsyncIterator[Assembly]:
    """A repository with a backup of each of the last nine hours, days and months."""
    now = datetime.now(UTC)
    async with assemble(**options) as parts:
        for number in range(9):
            for unit in (timedelta(hours=1), DAY, 31 * DAY):
                await keep(parts, now - number * unit - timedelta(minutes=1))
        yield parts


@pytest.mark.option("backup.keep_hourly", "backup.keep_daily", "backup.keep_monthly")
async def test_so_many_buckets_are_kept(assemble_backup: AssembleBackup) -> None:
    """Of each unit of time so many of the newest are kept as its option says."""
    options = {"backup__keep_hourly": 2, "backup__keep_daily": 5, "backup__keep_monthly": 3}
    async with some_history(assemble_backup, **options) as parts:
        plan = (await parts.prune.plan()).plan

    kept = Counter(bucket.partition(" ")[0] for decision in plan.decisions for bucket in decision.buckets)
    assert kept == {"hour": 2, "day": 5, "month": 3}


@pytest.mark.option("backup.delete_grace_hours")
@pytest.mark.parametrize(("grace_hours", "is_deleted"), [(24, True), (48, False)])
async def test_what_was_buried_is_deleted_after_the_grace(
    assemble_backup: AssembleBackup, tmp_path: Path, grace_hours: float, is_deleted: bool
) -> None:
    """A backup that was buried 30 hours ago is gone when the grace time is 24 hours, and there when it is 48."""
    options = {"backup__keep_hourly": 1, "backup__keep_daily": 0, "backup__keep_monthly": 0}
    async with some_history(assemble_backup, **options, backup__delete_grace_hours=grace_hours) as parts:
        (buried, *_) = (await parts.prune.plan(force=True)).plan.deletions
        entry = await parts.repository.catalog.get(buried)
        await parts.repository.catalog.remarks.bury(Tombstone(buried, entry.sha256, "of the test"))
        age(tmp_path / "store" / layout.tombstone(buried), timedelta(hours=30))

        await parts.prune.apply(force=True)

        there = await parts.repository.store.head(layout.manifest(buried)) is not None
    assert there is not is_deleted


@pytest.mark.option("archive.keep_days")
@pytest.mark.parametrize(("days", "segments"), [(30, 1), (60, 0)])
async def test_segments_are_kept_for_days(
    assemble_backup: AssembleBackup, tmp_path: Path, days: int, segments: int
) -> None:
    """A segment of forty days ago that no backup needs may go when segments are kept for thirty, not for sixty."""
    async with assemble_backup(archive__keep_days=days) as parts:
        await keep(parts, datetime.now(UTC) - DAY)
        await parts.repository.store.put(layout.segment(1, 1, 5), b"a segment")
        age(tmp_path / "store" / layout.segment(1, 1, 5), 40 * DAY)

        assert (await parts.prune.plan()).segments == segments


@pytest.mark.option("backup.signing_key_path", "backup.trusted_key_paths")
async def test_manifests_of_trusted_keys_are_believed(assemble_backup: AssembleBackup, tmp_path: Path) -> None:
    """After a rotation of the signing key earlier backups are told as not trusted, unless their key is named."""
    generate_signing_key(tmp_path / "new.pem", tmp_path / "new.pub")
    async with assemble_backup() as parts:
        backup_id = await keep(parts, datetime.now(UTC))
    async with assemble_backup(backup__signing_key_path=tmp_path / "new.pem") as parts:
        strange = await parts.repository.catalog.listing()
    trusting = {"backup__signing_key_path": tmp_path / "new.pem", "backup__trusted_key_paths": tmp_path / "signing.pub"}
    async with assemble_backup(**trusting) as parts:
        known = await parts.repository.catalog.listing()

    assert not strange.entries
    assert backup_id in strange.problems[0]
    assert ([entry.id for entry in known.entries], known.problems) == ([backup_id], ())


@pytest.mark.option("backup.key_paths")
async def test_data_keys_are_wrapped_for_every_named_key(assemble_backup: AssembleBackup, tmp_path: Path) -> None:
    """Each of two named keys opens what both were named for; another one does not."""
    for name in ("one", "two", "three"):
        generate_key_file(tmp_path / name)
    async with assemble_backup(backup__key_paths=f"{tmp_path / 'one'}:{tmp_path / 'two'}") as parts:
        key = await parts.repository.keys.create("cluster", "test")

    for name in ("one", "two"):
        async with assemble_backup(backup__key_paths=tmp_path / name) as parts:
            assert await parts.repository.keys.open(key.id) == key
    async with assemble_backup(backup__key_paths=tmp_path / "three") as parts:
        with pytest.raises(errors.KeyUnavailable) as refused:
            await parts.repository.keys.open(key.id)
    assert load_recipient(tmp_path / "one").recipient.name in refused.value.message


# Bad values


@pytest.fixture
def good(backup_keys: dict[str, object], tmp_path: Path) -> dict[str, str]:
    """The environment of a service that starts."""
    environment = backup_environment(
        "postgresql://u:hunter2@db/registry", {**backup_keys, "backup__directory": tmp_path}
    )
    assert load(BackupServiceSettings, environment)
    return environment


@pytest.mark.parametrize(
    ("options", "at_fault"),
    [
        ({"backup.hourly_schedule": "every hour"}, "backup.hourly_schedule"),
        ({"backup.daily_schedule": "0 0 31 2 *"}, "backup.daily_schedule"),
        ({"backup.monthly_schedule": "61 * * * *"}, "backup.monthly_schedule"),
        ({"backup.drill_schedule": "* * * * * *"}, "backup.drill_schedule"),
        ({"backup.keep_hourly": "0", "backup.keep_daily": "0", "backup.keep_monthly": "0"}, "backup.keep_daily"),
        ({"backup.keep_hourly": "-1"}, "backup.keep_hourly"),
        ({"backup.delete_grace_hours": "-1"}, "backup.delete_grace_hours"),
        ({"backup.lock_days": "4000"}, "backup.lock_days"),
        ({"backup.compression": "lzma"}, "backup.compression"),
        ({"backup.signing_key_path": ""}, "backup.signing_key_path"),
        ({"backup.signing_key_path": "/nowhere"}, "backup.signing_key_path"),
        ({"backup.key_paths": "/nowhere:/neither"}, "backup.key_paths"),
        ({"backup.trusted_key_paths": "/nowhere"}, "backup.trusted_key_paths"),
        ({"backup.kms_key_id": "alias/backups"}, "backup.kms_key_id"),
        ({"backup.directory": ""}, "backup.directory"),
        ({"s3.bucket": "as-well"}, "backup.directory"),
        ({"s3.bucket": "no bucket"}, "s3.bucket"),
        ({"s3.prefix": "no-slash"}, "s3.prefix"),
        ({"s3.prefix": "../"}, "s3.prefix"),
        ({"s3.endpoint": "minio:9000"}, "s3.endpoint"),
        ({"s3.endpoint": "http://me:hunter2@minio:9000"}, "s3.endpoint"),
        ({"s3.access_key_id": "half"}, "s3.secret_access_key"),
        ({"s3.secret_access_key": "hunter2"}, "s3.access_key_id"),
        ({"second_store.access_key_id": "half"}, "second_store.secret_access_key"),
        ({"second_store.endpoint": "http://me:hunter2@minio"}, "second_store.endpoint"),
        ({"second_store.bucket": "one", "second_store.directory": "/another"}, "second_store.directory"),
        ({"archive.seal_seconds": "0"}, "archive.seal_seconds"),
        ({"archive.seal_bytes": "1"}, "archive.seal_bytes"),
        ({"archive.keep_days": "0"}, "archive.keep_days"),
        ({"restore.place": "table"}, "restore.place"),
        ({"restore.maintenance_database": "registry"}, "restore.maintenance_database"),
        ({"restore.keep_hours": "0"}, "restore.keep_hours"),
        ({"restore.schema_id_margin": "-1"}, "restore.schema_id_margin"),
        ({"database.url": "postgresql://u:hunter2@db"}, "database.url"),
        ({"backup.keep_weekly": "1"}, "backup.keep_weekly"),
    ],
)
def test_bad_values_are_told_by_their_option(good: dict[str, str], options: dict[str, str], at_fault: str) -> None:
    """Whatever cannot work is refused at the start, with the option's name and no secret."""
    with pytest.raises(SettingsInvalid) as refused:
        load(BackupServiceSettings, {**good, **{variable(name): value for name, value in options.items()}})

    told = {problem.option: str(problem) for problem in refused.value.problems}
    assert set(told) == {at_fault}
    assert "hunter2" not in "".join(told.values())


def test_a_second_store_is_another_place(good: dict[str, str], tmp_path: Path) -> None:
    """The first store is no second one."""
    with pytest.raises(SettingsInvalid) as same_folder:
        load(BackupServiceSettings, {**good, variable("second_store.directory"): str(tmp_path)})
    buckets = {variable(f"{section}.bucket"): "the-same" for section in ("s3", "second_store")}
    with pytest.raises(SettingsInvalid) as same_bucket:
        load(BackupServiceSettings, {**good, **buckets, variable("backup.directory"): ""})

    assert [problem.option for problem in same_folder.value.problems] == ["second_store.directory"]
    assert [problem.option for problem in same_bucket.value.problems] == ["second_store.bucket"]


def test_a_live_database_named_like_the_maintenance_one_is_fine_for_schemas(good: dict[str, str]) -> None:
    """Restores within the live database need no other one."""
    changed = {variable("restore.place"): "schema", variable("database.url"): "postgresql://u@db/postgres"}

    assert load(BackupServiceSettings, {**good, **changed}).settings.restore.place == "schema"
