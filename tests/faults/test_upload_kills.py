"""T1 on servers that speak S3: the backup service is killed in the midst of a multipart upload."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.operations.keys import LEASES
from services.backup.domain.model import Level
from services.backup.usecases import prune
from tests.fix_backup import AssembleBackup, BackupCalls, MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_service import Service
from tests.object_servers import S3Server
from tests.restore_site import FAILPOINTS, calls, make_backup

BULK_BYTES = 1_000_000
BULK_ROWS = 40
MIDST = "backup.piece_written@50"
"""Behind the first part of the dump, before its last: pieces are 1/4 to 5/4 MiB, 76 MiB in all, half of that stored."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(params=["s3_server", "rclone_server"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each of the servers."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3Server)
    return found


async def fill_with_bulk(url: str) -> None:
    """What does not become smaller, and takes several parts."""
    rng = random.Random(8)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE registry.bulk (number integer, content bytea)")
        for number in range(BULK_ROWS):
            statement = "INSERT INTO registry.bulk VALUES (%s, %s)"
            await connection.execute(statement, [number, rng.randbytes(BULK_BYTES)])


def let_the_leases_end(server: S3Server, bucket: str) -> None:
    """What time does to the leases of a process that died, at once."""
    client = server.client()
    for each in client.list_objects_v2(Bucket=bucket, Prefix=LEASES).get("Contents", ()):
        client.delete_object(Bucket=bucket, Key=each["Key"])


async def killed_in_the_midst(service: Service, server: S3Server, bucket: str) -> list[str]:
    """Begins a backup and kills its process while the upload is under way; keys of what it left open."""
    service.environment[FAILPOINTS] = f"{MIDST}:pause:600"
    await service.start_async()
    async with BackupCalls(service.target) as backup:
        await backup.backups.CreateBackup(pb.CreateBackupRequest())

        async def under_way() -> bool:
            uploads = await asyncio.to_thread(server.uploads, bucket)
            return bool(uploads) and await asyncio.to_thread(server.stored_parts, bucket) > 0

        await eventually(under_way)
        left = await asyncio.to_thread(server.uploads, bucket)
        await asyncio.to_thread(service.kill)
    del service.environment[FAILPOINTS]
    await asyncio.to_thread(let_the_leases_end, server, bucket)
    return left


async def test_killed_in_the_midst_of_an_upload(
    server: S3Server,
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    assemble_backup: AssembleBackup,
    monkeypatch: pytest.MonkeyPatch,
    fault_table: FaultTable,
) -> None:
    """The upload stays open and no backup is listed; the next run succeeds, and once the upload is old it is swept,
    with everything else that was left, while the backup stays whole."""
    url, bucket = database_of(filled_registry), server.bucket()
    await fill_with_bulk(url)
    options: dict[str, Any] = {
        "s3__bucket": bucket,
        "s3__endpoint": server.endpoint,
        "s3__region": server.region,
        "s3__path_style": "true",
        "s3__access_key_id": server.access_key_id,
        "s3__secret_access_key": server.secret_access_key,
        "archive__enabled": "false",
    }
    left = await killed_in_the_midst(make_backup_service(url, **options), server, bucket)
    async with calls(make_backup_service(url, **options)) as backup:
        listed = (await backup.backups.ListBackups(pb.ListBackupsRequest())).backups
        made = await make_backup(backup, backup_pb2.VERIFICATION_LEVEL_V3)
    still = server.uploads(bucket)
    monkeypatch.setattr(prune, "ORPHAN_AGE", timedelta(minutes=-1))
    async with assemble_backup(url, **options) as parts:
        await parts.prune.apply()
        [entry] = (await parts.repository.catalog.listing()).entries

    assert len(left) == 1
    assert list(listed) == []
    assert still == left
    assert (entry.id, entry.level) == (made.id, Level.V3)
    assert server.uploads(bucket) == []
    keys = [each["Key"] for each in server.client().list_objects_v2(Bucket=bucket, Prefix="backups/")["Contents"]]
    assert {Path(key).parts[1] for key in keys} == {made.id}
    outcome = "nothing listed, the next run passes V3, the open upload is swept"
    fault_table("T1", f"kill -9 in the midst of a multipart upload to {server.name}", outcome)
