"""Backups over an object store that fails on the way: a black hole, completions that lie, a store that is slow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.objects.s3 import open_s3
from llm_schema_registry.objects.s3_upload import QUEUED_PARTS
from llm_schema_registry.objects.store import PART_BYTES_MIN
from llm_schema_registry.operations.leases import LeaseTimes
from services.backup.domain.model import Kind
from services.backup.usecases.make_backup import BackupRules, Wanted
from services.backup.usecases.repository import WRITING
from tests.backup_parts import Parts, parts_on
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_service import Service
from tests.large_texts import MIB, grow_table
from tests.object_proxy import FOR_EVERY, BlackHole, Delay, ErrorIn200, Fault, FaultProxy, LoseReply
from tests.object_servers import S3Server

BOTH = pytest.mark.parametrize("server", ["rclone_server", "s3_server"], indirect=True)
LARGE_BYTES = 6_000_000
"""Of a dump: more than one part, so a completion makes it an object."""
SMALL_BYTES = 50_000
ENDLESS_BYTES = 400 * MIB
CONCURRENCY = 3
CHUNKS_BYTES_MAX = 16 * MIB
"""What may wait between the dump and the parts: pieces that are read, compressed and sealed."""
BLACK_HOLE_SECONDS_MAX = 45.0
"""Of a run whose requests are given up after two seconds: the upload, its abort, the cleaning and the lease have limits
of their own; the rest is for a busy machine."""
LIMIT_SECONDS = 60.0
SLOW_DATABASE_BYTES = 52 * MIB
"""More than an upload holds of parts, and the database is read ahead: one part fills, CONCURRENCY travel."""
ANSWER_SECONDS = 0.5
SLOW_SECONDS_MAX = 200.0
"""Of a backup at that speed; a third of it on a machine that has nothing else to do."""
GROWTH_BYTES_MAX = 160 * MIB


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    """A server that speaks S3."""
    chosen: S3Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def bucket(server: S3Server) -> str:
    """An empty bucket."""
    return server.bucket()


@pytest.fixture
async def proxy(server: S3Server) -> AsyncIterator[FaultProxy]:
    """What stands before the server."""
    async with FaultProxy(server.endpoint) as proxy:
        yield proxy


async def listed_whole(parts: Parts) -> list[str]:
    """Ids of all backups that are listed, every byte of which was read (G1), and no object of any other is there."""
    listing = await parts.repository.catalog.listing()
    assert not listing.problems
    for entry in listing.entries:
        assert (await parts.look(entry.id)).passed
    known = {f"backups/{entry.id}/manifest.json" for entry in listing.entries}
    known |= {each.key for entry in listing.entries for each in entry.manifest.objects}
    assert set(await parts.keys("backups/")) == known
    return [entry.id for entry in listing.entries]


@BOTH
@pytest.mark.parametrize(
    "lie",
    [
        (ErrorIn200(), "200 with an error, not done"),
        (ErrorIn200(done=True), "200 with an error, done"),
        (LoseReply(), "done, its reply is lost"),
    ],
    ids=["error", "error-done", "lost-reply"],
)
async def test_completion_that_lies(
    server: S3Server, proxy: FaultProxy, tmp_path: Path, fault_table: FaultTable, lie: tuple[Fault, str]
) -> None:
    """T8: a completion whose answer is wrong or lost is decided by what is there: one backup, its objects once."""
    fault, told = lie
    bucket = server.bucket()
    async with open_s3(server.options(bucket, endpoint=proxy.endpoint)) as store:
        parts = parts_on(tmp_path, store, rules=BackupRules("1.0"))
        parts.registry.dump_bytes = LARGE_BYTES
        proxy.plan("CompleteMultipartUpload", fault)

        made = await parts.backup()

        assert proxy.spent
        assert await listed_whole(parts) == [made.id]
        parts.registry.dump_bytes = SMALL_BYTES
        following = await parts.backup()
        assert await parts.ids() == [following.id, made.id]
        assert await asyncio.to_thread(server.uploads, bucket) == []
    fault_table("T8", f"completion on {server.name}: {told}", "one whole backup, no object twice, no upload left")


@pytest.mark.slow
@BOTH
async def test_black_hole(
    server: S3Server, bucket: str, proxy: FaultProxy, tmp_path: Path, fault_table: FaultTable
) -> None:
    """T6: a store that stops answering in mid-upload ends the run in its time, what is read ahead stays bounded, the
    office is free once its lease is over, and the next run succeeds by itself."""
    options = server.options(bucket, endpoint=proxy.endpoint, retry_seconds=2, request_seconds=2)
    times = LeaseTimes(lease=12.0, renew=2.0, fence=10.0)
    async with open_s3(options) as store:
        await store.probe()
        parts = parts_on(tmp_path, store, rules=BackupRules("1.0"), lease_times=times)
        before = await parts.proven()
        parts.registry.dump_bytes = ENDLESS_BYTES
        proxy.plan("UploadPart", None, None)
        running = parts.running()
        going = asyncio.create_task(parts.make.run(Wanted(Kind.MANUAL), running))
        uploaded = proxy.requests["UploadPart"]
        async with asyncio.timeout(LIMIT_SECONDS):
            await proxy.until(lambda proxy: proxy.requests["UploadPart"] >= uploaded + 3 or going.done())
        proxy.always(FOR_EVERY, BlackHole)
        began = time.monotonic()

        with pytest.raises(errors.ObjectStoreUnavailable):
            await going
        seconds = time.monotonic() - began
        read = max(running.operation.progress.bytes_done, 0)
        proxy.always(FOR_EVERY, None)

        assert seconds < BLACK_HOLE_SECONDS_MAX
        assert read < (CONCURRENCY + QUEUED_PARTS + 4) * PART_BYTES_MIN + CHUNKS_BYTES_MAX
        parts.registry.dump_bytes = LARGE_BYTES
        made = await parts.backup()
        assert await parts.repository.leases.holder(WRITING) is None
        listing = await parts.repository.catalog.listing()
        assert [entry.id for entry in listing.entries] == [made.id, before.id]
        for entry in listing.entries:
            assert (await parts.look(entry.id)).passed
        # What the run could not take back is no backup's, and swept once it is a day old.
        assert await store.sweep("", await store.now() + timedelta(days=1)) <= 1
        assert await asyncio.to_thread(server.uploads, bucket) == []
    outcome = f"failed after {seconds:.1f} s, {read / MIB:.0f} MiB of the dump read, the next run succeeded by itself"
    fault_table("T6", f"{server.name} is a black hole in mid-upload, then back", outcome)


@pytest.mark.rotating(3, "long faults")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", ["s3_server"], indirect=True)
async def test_slow_store(
    server: S3Server,
    proxy: FaultProxy,
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    rng: random.Random,
    fault_table: FaultTable,
) -> None:
    """T7: behind a store that takes 1 MB/s and answers late, the process does not grow with the database."""
    url = database_of(filled_registry)
    await asyncio.to_thread(grow_table, url, SLOW_DATABASE_BYTES, rng)
    service = make_backup_service(
        url,
        s3__bucket=server.bucket(),
        s3__endpoint=proxy.endpoint,
        s3__path_style="true",
        s3__access_key_id=server.access_key_id,
        s3__secret_access_key=server.secret_access_key,
    )
    await service.start_async()
    async with BackupCalls(service.target, wait_seconds=SLOW_SECONDS_MAX) as calls:
        proxy.bytes_per_second = 1_000_000 // CONCURRENCY
        proxy.always(FOR_EVERY, lambda: Delay(ANSWER_SECONDS))
        idle = _reset_peak(service.pid)
        began = time.monotonic()
        made = await calls.done(await calls.backups.CreateBackup(pb.CreateBackupRequest()), backup_pb2.Backup())
        seconds = time.monotonic() - began
        growth = _memory(service.pid, "VmHWM") - idle
        proxy.bytes_per_second = None
        proxy.always(FOR_EVERY, None)
        verify = pb.VerifyBackupRequest(backup_id=made.id, level=backup_pb2.VERIFICATION_LEVEL_V3)
        found = await calls.done(await calls.backups.VerifyBackup(verify), backup_pb2.Verification())

    assert made.stored_bytes > SLOW_DATABASE_BYTES
    assert found.passed
    assert growth <= GROWTH_BYTES_MAX
    outcome = f"{made.stored_bytes / MIB:.0f} MiB stored in {seconds:.0f} s, peak RSS grew by {growth / MIB:.0f} MiB"
    fault_table("T7", "store takes 1 MB/s, every answer is half a second late", outcome)


def _memory(pid: int, name: str) -> int:
    """Bytes that the system tells of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _reset_peak(pid: int) -> int:
    """Begins the peak anew, and returns what the process has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory(pid, "VmRSS")
