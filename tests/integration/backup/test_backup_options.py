"""Options of the backup service that need servers to show: each changes what is stored, and how restores are made."""

from __future__ import annotations

import asyncio
import gzip
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from botocore.session import get_session

from deploy.local.postgres import Install
from deploy.local.postgres import Postgres as Server
from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.kernel.migrate import migrate
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Work
from services.backup.adapters.postgres_election import PostgresElection
from services.backup.assembly import Assembly
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level
from services.backup.domain.targets import Latest
from services.backup.usecases.catalog import Entry
from services.backup.usecases.make_backup import Wanted
from services.backup.usecases.prepare import Aim
from tests.fix_backup import AssembleBackup, BackupCalls, MakeBackupService
from tests.fix_backup_database import MakeStandIns
from tests.fix_registry import MIGRATIONS, postgres_options
from tests.object_servers import S3Server, ministack

SECTIONS = ("s3", "second_store")
WAIT_SECONDS_MAX = 60


async def done(parts: Assembly, kind: OperationKind, work: Work) -> Subject:
    """What work made, as an operation. Raises its error."""
    operation = await parts.operations.begin(kind, work, actor="test")
    ended = await parts.operations.wait(operation.name)
    if ended.error is not None:
        raise (errors.by_reason(ended.error.reason) or AssertionError)(ended.error.message)
    return ended.subject


async def make(parts: Assembly, kind: Kind = Kind.MANUAL) -> Entry:
    """A new backup."""
    subject = await done(parts, OperationKind.BACKUP, lambda running: parts.make.run(Wanted(kind), running))
    return await parts.repository.catalog.get(subject.id)


# Where objects go


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[int, list[list[str]]]]:
    """A proxy that refuses everything: its port, and the lines of the head of each request."""
    heads: list[list[str]] = []
    answer = b"<Error><Code>AccessDenied</Code></Error>"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(
            b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


@pytest.mark.option("s3.region", "s3.endpoint", "s3.path_style", "s3.access_key_id", "s3.bucket", "s3.prefix")
@pytest.mark.option("second_store.region", "second_store.endpoint", "second_store.path_style")
@pytest.mark.option("second_store.access_key_id", "second_store.bucket", "second_store.prefix")
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("path_style", "url"),
    [
        (True, "http://objects.test/the-bucket/below/this/an/object"),
        (False, "http://the-bucket.objects.test/below/this/an/object"),
    ],
)
async def test_requests_name_what_the_options_say(
    assemble_backup: AssembleBackup, monkeypatch: pytest.MonkeyPatch, section: str, url: str, *, path_style: bool
) -> None:
    """A request goes to the endpoint, names the bucket in the path or in the host, and the prefix; it is signed for the
    region with the key."""
    options = {
        "bucket": "the-bucket",
        "endpoint": "http://objects.test",
        "region": "eu-north-7",
        "path_style": path_style,
        "prefix": "below/this/",
        "access_key_id": "the-access-key",
        "secret_access_key": "the-secret",
    }
    async with proxy() as (port, heads):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with assemble_backup(**{f"{section}__{name}": value for name, value in options.items()}) as parts:
            with pytest.raises(errors.ObjectStoreDenied):
                await parts.stores[SECTIONS.index(section)].store.get("an/object")

    urls = [head[0].split(" ")[1] for head in heads]
    credentials = [line for head in heads for line in head if "Credential=" in line]
    assert url in [each.partition("?")[0] for each in urls], urls
    assert credentials
    assert all("Credential=the-access-key/" in line and "/eu-north-7/s3/" in line for line in credentials)


@pytest.mark.option("s3.secret_access_key", "second_store.secret_access_key")
@pytest.mark.parametrize("section", SECTIONS)
async def test_a_store_is_opened_with_its_secret(
    assemble_backup: AssembleBackup, rclone_server: S3Server, section: str
) -> None:
    """With the right secret the store takes an object, with another one it refuses."""
    options = {
        f"{section}__bucket": rclone_server.bucket(),
        f"{section}__endpoint": rclone_server.endpoint,
        f"{section}__path_style": "true",
        f"{section}__access_key_id": rclone_server.access_key_id,
    }
    right, wrong = (
        {**options, f"{section}__secret_access_key": text} for text in (rclone_server.secret_access_key, "x")
    )
    number = SECTIONS.index(section)

    async with assemble_backup(**right) as parts:
        await parts.stores[number].store.put("an-object", b"content")
    async with assemble_backup(**wrong) as parts:
        with pytest.raises(errors.ObjectStoreDenied):
            await parts.stores[number].store.get("an-object")


@pytest.mark.option("s3.kms_key_id", "second_store.kms_key_id")
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("key", ["", "arn:aws:kms:us-east-1:1:key/of-the-store"])
async def test_objects_are_encrypted_with_the_key_of_the_store(
    assemble_backup: AssembleBackup, s3_server: S3Server, section: str, key: str
) -> None:
    """What is stored names the key, or the store's own encryption without one."""
    bucket = s3_server.bucket()
    async with assemble_backup(
        **bucket_options(s3_server, bucket, section), **{f"{section}__kms_key_id": key}
    ) as parts:
        await parts.stores[SECTIONS.index(section)].store.put("an-object", b"content")

    head = await asyncio.to_thread(s3_server.client().head_object, Bucket=bucket, Key="an-object")
    assert head["ServerSideEncryption"] == ("aws:kms" if key else "AES256")
    assert head.get("SSEKMSKeyId", "") == key


def bucket_options(server: S3Server, bucket: str, section: str = "s3") -> dict[str, object]:
    """Options of a bucket as a store."""
    return {
        f"{section}__bucket": bucket,
        f"{section}__endpoint": server.endpoint,
        f"{section}__path_style": "true",
        f"{section}__access_key_id": server.access_key_id,
        f"{section}__secret_access_key": server.secret_access_key,
    }


@pytest.mark.option("backup.lock_days")
@pytest.mark.parametrize("days", [0, 3])
async def test_daily_backups_are_locked_for_days(
    assemble_backup: AssembleBackup, s3_server: S3Server, migrated_database_url: str, days: int
) -> None:
    """In a bucket that can lock, what a daily backup stores cannot be deleted for so many days."""
    bucket = s3_server.bucket(lock=True)
    options = bucket_options(s3_server, bucket)

    async with assemble_backup(migrated_database_url, **options, backup__lock_days=days) as parts:
        entry = await make(parts, Kind.DAILY)

    for key in (layout.manifest(entry.id), layout.data(entry.id, 1)):
        head = await asyncio.to_thread(s3_server.client().head_object, Bucket=bucket, Key=key)
        until = head.get("ObjectLockRetainUntilDate")
        assert (until is not None) is bool(days)
        if until is not None:
            assert timedelta(days=days - 1) < until - datetime.now(UTC) < timedelta(days=days + 1)


@pytest.mark.option("backup.directory", "second_store.directory")
async def test_backups_are_kept_in_both_folders(
    assemble_backup: AssembleBackup, migrated_database_url: str, tmp_path: Path
) -> None:
    """A backup is made in one folder, and copied to the other, which is read again by itself and tells so."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"backup__directory": one, "second_store__directory": two}

    async with assemble_backup(migrated_database_url, **options) as parts:
        entry = await make(parts)
        await parts.keeping.copy()
        copied = await parts.stores[1].catalog.get(entry.id)
        await parts.keeping.audit_copy()
        told = [(await parts.status.store(each)).audited for each in parts.stores]

    assert copied.manifest == entry.manifest
    assert [each is not None for each in told] == [False, True]
    for key in (layout.manifest(entry.id), layout.data(entry.id, 1)):
        assert (one / key).read_bytes() == (two / key).read_bytes()


# How backups are made


@pytest.mark.option("backup.compression")
@pytest.mark.parametrize(
    ("compression", "unpack"),
    [
        ("zstd", lambda content: zstandard.ZstdDecompressor().decompressobj().decompress(content)),
        ("gzip", gzip.decompress),
    ],
)
async def test_dumps_are_compressed_as_told(
    assemble_backup: AssembleBackup,
    migrated_database_url: str,
    tmp_path: Path,
    compression: str,
    unpack: Callable[[bytes], bytes],
) -> None:
    """Not encrypted, the stored object is such a file with a dump of pg_dump in it."""
    options = {"backup__compression": compression, "backup__key_paths": ""}

    async with assemble_backup(migrated_database_url, **options) as parts:
        entry = await make(parts)

    assert unpack((tmp_path / "store" / layout.data(entry.id, 1)).read_bytes()).startswith(b"PGDMP")


@pytest.mark.option("backup.tool_folders")
async def test_named_programs_are_used_first(
    assemble_backup: AssembleBackup, migrated_database_url: str, stand_ins: MakeStandIns, postgres_install: Install
) -> None:
    """Programs in a folder that was named come before those of the machine: with one that fails no backup is made."""
    folder = stand_ins("fails", version=f"{postgres_install.major}.1")

    async with assemble_backup(migrated_database_url, backup__tool_folders=f"{folder}:/nowhere") as parts:
        with pytest.raises(errors.BackupFailed):
            await make(parts)


@pytest.mark.option("backup.kms_key_id")
async def test_data_keys_are_wrapped_by_the_key_service(
    assemble_backup: AssembleBackup, migrated_database_url: str, key_service: S3Server
) -> None:
    """A backup sealed for the key service's key alone can be read with its help."""
    key_id = await asyncio.to_thread(make_key, key_service)
    options = {name: value for name, value in bucket_options(key_service, "").items() if not name.endswith("bucket")}

    async with assemble_backup(
        migrated_database_url, **options, backup__key_paths="", backup__kms_key_id=key_id
    ) as parts:
        entry = await make(parts)
        verification = await done(
            parts, OperationKind.VERIFY, lambda running: parts.verify.run(entry.id, Level.V3, running)
        )
        (document,) = [
            await parts.repository.store.get(each.key) async for each in parts.repository.store.list("keys/")
        ]

        assert (await parts.repository.catalog.verification(verification.id)).passed
    assert f"kms:{key_id}".encode() in document[0]


@pytest.fixture
def key_service(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[S3Server]:
    """A key service that speaks the real protocol."""
    with ministack(tmp_path, free_port(), services="kms") as service:
        yield service


def make_key(service: S3Server) -> str:
    """The id of a new key of the key service."""
    client = get_session().create_client(
        "kms",
        endpoint_url=service.endpoint,
        region_name=service.region,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
    )
    try:
        key_id: str = client.create_key()["KeyMetadata"]["KeyId"]
        return key_id
    finally:
        client.close()


# When


@pytest.mark.option("backup.schedules_enabled", "archive.enabled")
async def test_what_is_enabled_happens_by_itself(
    make_backup_service: MakeBackupService, migrated_database_url: str
) -> None:
    """With schedules a service makes the first daily backup by itself; without the archive it ships nothing."""
    service = make_backup_service(migrated_database_url, backup__schedules_enabled="true", archive__enabled="false")
    await service.start_async()

    async with BackupCalls(service.target) as calls, asyncio.timeout(WAIT_SECONDS_MAX):
        while not (backups := (await calls.backups.ListBackups(pb.ListBackupsRequest())).backups):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        archive = (await calls.backups.GetArchiveStatus(pb.GetArchiveStatusRequest())).status
        schedules = (await calls.backups.ListSchedules(pb.ListSchedulesRequest())).schedules

    assert [backup.kind for backup in backups] == [backup_pb2.BACKUP_KIND_DAILY]
    assert (archive.enabled, archive.segments, archive.HasField("heartbeat_time")) == (False, 0, False)
    assert [schedule.cron for schedule in schedules] == ["7 * * * *", "20 1 * * *", "40 2 1 * *"]


def made_long_ago(store: Path) -> None:
    """Lets a repository be forty days old, so that moments of every schedule have come since."""
    then = time.time() - timedelta(days=40).total_seconds()
    os.utime(store / layout.REPOSITORY, (then, then))


@pytest.mark.option("backup.hourly_schedule", "backup.daily_schedule", "backup.monthly_schedule")
@pytest.mark.parametrize(
    ("crons", "minutes"),
    [
        (("11 * * * *", "22 3 * * *", "33 4 5 * *"), {Kind.HOURLY: 11, Kind.DAILY: 22, Kind.MONTHLY: 33}),
        (("off", "off", "44 4 * * *"), {Kind.MONTHLY: 44}),
    ],
)
async def test_backups_are_made_at_their_moments(
    assemble_backup: AssembleBackup,
    migrated_database_url: str,
    tmp_path: Path,
    crons: tuple[str, str, str],
    minutes: dict[Kind, int],
) -> None:
    """Each kind is made for the moments of its schedule, and not at all when that is off."""
    names = ("backup__hourly_schedule", "backup__daily_schedule", "backup__monthly_schedule")
    options = {"backup__schedules_enabled": "true", **dict(zip(names, crons, strict=True))}

    async with assemble_backup(migrated_database_url, **options) as parts:
        await parts.repository.bind((await parts.source.head()).cluster_id)
        made_long_ago(tmp_path / "store")
        await parts.keeping.make_due()
        listing = await parts.repository.catalog.listing()

    slots = {entry.manifest.kind: entry.manifest.slot for entry in listing.entries}
    assert {kind: slot.minute for kind, slot in slots.items() if slot} == minutes


@pytest.mark.option("backup.drill_schedule")
@pytest.mark.parametrize(("cron", "is_tried"), [("0 4 * * *", True), ("off", False)])
async def test_restores_are_tried_at_their_moments(
    assemble_backup: AssembleBackup, migrated_database_url: str, tmp_path: Path, cron: str, *, is_tried: bool
) -> None:
    """When a moment of the schedule has come since the repository was made, a restore is tried; without one never."""
    options = {"backup__schedules_enabled": "true", "backup__drill_schedule": cron}

    async with assemble_backup(migrated_database_url, **options) as parts:
        await make(parts)
        made_long_ago(tmp_path / "store")
        await parts.keeping.drill_due()
        newest = await parts.drill.newest()

    assert (newest is not None) is is_tried


@pytest.mark.option("archive.seal_bytes")
@pytest.mark.parametrize(("seal_bytes", "is_one"), [(4096, False), (1_048_576, True)])
async def test_segments_are_sealed_at_so_many_bytes(
    assemble_backup: AssembleBackup, content_url: str, seal_bytes: int, *, is_one: bool
) -> None:
    """A history of some ten kilobytes is one segment, or several smaller ones."""
    async with assemble_backup(content_url, archive__seal_bytes=seal_bytes) as parts:
        assert parts.ship is not None
        shipping = asyncio.create_task(parts.ship.run(PostgresElection(postgres_options(content_url))))
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while (status := await parts.status.archive()).lag_seconds != 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            shipping.cancel()
            await asyncio.gather(shipping, return_exceptions=True)

    assert (status.segments == 1) is is_one


# How restores are made


@pytest.fixture
def poor_role(postgres: Server) -> Iterator[Callable[[str], str]]:
    """Makes URLs of databases for a role that may not create databases: `poor_role(url)`, which owns that one then."""
    name, password = f"poor_{secrets.token_hex(4)}", secrets.token_hex(8)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())

    def owned(url: str) -> str:
        database = url.rpartition("/")[2]
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {database} OWNER TO {name}".encode())
        return postgres.database_url(database, role=name, password=password)

    yield owned
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}".encode())


@pytest.mark.option("restore.place")
async def test_a_role_without_createdb_restores_within_the_database(
    assemble_backup: AssembleBackup, poor_role: Callable[[str], str], make_database: Callable[[], str]
) -> None:
    """A restore into a database of its own says which right is missing; one into a schema needs none of it."""
    url = poor_role(make_database())
    await migrate(postgres_options(url), MIGRATIONS, schema="registry", code_version="0.1.0")

    async with assemble_backup(url) as parts:
        entry = await make(parts)
        with pytest.raises(errors.DatabaseUnfit, match="may not create databases"):
            await restored(parts, entry)
    async with assemble_backup(url, restore__place="schema") as parts:
        found = await restored(parts, entry)
        left = await parts.places.existing()

    assert found == []
    assert list(left) == ["registry"]


async def restored(parts: Assembly, entry: Entry) -> list[str]:
    """What a backup that was restored into a scratch place, and compared, differs in."""
    subject = await done(parts, OperationKind.VERIFY, lambda running: parts.verify.run(entry.id, Level.V4, running))
    return list((await parts.repository.catalog.verification(subject.id)).problems)


@pytest.mark.option("restore.maintenance_database")
async def test_the_server_is_asked_over_the_maintenance_database(
    assemble_backup: AssembleBackup, migrated_database_url: str, database_url: str
) -> None:
    """Any database that is there will do; one that is not keeps restores from being made."""
    live = migrated_database_url.rpartition("/")[2]
    async with assemble_backup(
        migrated_database_url, restore__maintenance_database=database_url.rpartition("/")[2]
    ) as parts:
        there = await parts.places.existing()
    async with assemble_backup(migrated_database_url, restore__maintenance_database="no_such_database") as parts:
        with pytest.raises(errors.Error, match="cannot be reached"):
            await parts.places.existing()

    assert live in there


@pytest.mark.option("restore.keep_hours", "restore.prepared_keep_hours", "restore.schema_id_margin")
async def test_a_swap_keeps_the_old_one_and_passes_ids_over(
    assemble_backup: AssembleBackup, migrated_database_url: str
) -> None:
    """What is prepared or replaced is kept for so many hours, and so many ids beside the known ones are passed over."""
    options: dict[str, Any] = {
        "restore__keep_hours": 7,
        "restore__prepared_keep_hours": 5,
        "restore__schema_id_margin": 12_345,
    }

    async with assemble_backup(migrated_database_url, **options) as parts:
        await make(parts)
        known = (await parts.source.head()).schema_id_high
        restore_id = parts.repository.new_id()
        await done(
            parts,
            OperationKind.PREPARE_RESTORE,
            lambda running: parts.prepare.run(restore_id, Aim(Latest(), Level.V0), running),
        )
        prepared = await parts.journal.get(restore_id)
        await done(parts, OperationKind.ACTIVATE_RESTORE, lambda running: parts.swap.activate(restore_id, "", running))
        restore = await parts.journal.get(restore_id)
        await parts.swap.release(restore_id)

    assert prepared.keep_until is not None
    assert prepared.prepare_time is not None
    assert prepared.keep_until - prepared.prepare_time == timedelta(hours=5)
    assert restore.keep_until is not None
    assert restore.activate_time is not None
    assert restore.keep_until - restore.activate_time == timedelta(hours=7)
    assert restore.next_schema_id == known + 1 + 12_345
