"""Backups and restores of a registry with 1,000 and 100,000 versions (and 1,000,000 with --large).

By hand: `pg_dump | zstd -3` into a file on the same disk, without encryption and without a hash; by the library where
there is no program zstd. Ours: a whole backup over the RPC, with facts of the snapshot, encryption, hashes and the
verification to V2. Targets: at most 1.25 times the wall time by hand, a second for the smallest; at most 160 MiB of
peak memory at any size; writes stopped for at most 2 s by a swap; p99 of the archive's lag at most 7 s under 100 writes
a second; p99 of reads during a backup at most 15 % above that without.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from deploy.local.postgres import Postgres, find_install
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2, restore_pb2, restore_service_pb2
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from tests.bench import large_registry, measuring
from tests.fix_backup import BackupCalls, backup_environment
from tests.fix_service import Service

SIZES = (1_000, 100_000)
LARGE = 1_000_000
MEMORY_MIB_MAX = 160
WRITES_PER_SECOND = 100
WRITING_SECONDS = 30
ZSTD = "import sys, zstandard; zstandard.ZstdCompressor(level=3).copy_stream(sys.stdin.buffer, open(sys.argv[1], 'wb'))"


@dataclass(frozen=True, slots=True)
class Site:
    """A database server, a backup service on one of its databases, and a folder."""

    server: Postgres
    url: str
    service: Service
    folder: Path


@contextmanager
def site(count: int) -> Iterator[Site]:
    with measuring.postgres() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = server.create_database("bench")
        began = time.monotonic()
        large_registry.fill(url, count)
        print(f"{count} versions made in {time.monotonic() - began:.0f} s", flush=True)
        generate_signing_key(folder / "signing.pem", folder / "signing.pub")
        generate_key_file(folder / "recipient.key")
        options: dict[str, object] = {
            "backup__directory": folder / "store",
            "backup__signing_key_path": folder / "signing.pem",
            "backup__key_paths": folder / "recipient.key",
            "archive__seal_seconds": 5,
        }
        (folder / "log").mkdir()
        service = Service(folder / "log", backup_environment(url, options), "backup")
        service.start()
        try:
            yield Site(server, url, service, folder)
        finally:
            service.stop()


def by_hand(where: Site) -> float:
    """Seconds of `pg_dump | zstd -3`."""
    began = time.monotonic()
    dump = subprocess.Popen([find_install().bin / "pg_dump", "-d", where.url], stdout=subprocess.PIPE)
    assert dump.stdout is not None
    path = str(where.folder / "by-hand.zst")
    program = shutil.which("zstd")
    command = [program, "-3", "-q", "-f", "-o", path] if program else [sys.executable, "-c", ZSTD, path]
    subprocess.run(command, stdin=dump.stdout, check=True)
    dump.stdout.close()
    assert dump.wait() == 0
    return time.monotonic() - began


async def ours(calls: BackupCalls) -> tuple[float, backup_pb2.Backup]:
    """Seconds of a backup, and the backup."""
    began = time.monotonic()
    answer = await calls.backups.CreateBackup(backup_service_pb2.CreateBackupRequest())
    made = await calls.done(answer, backup_pb2.Backup())
    return time.monotonic() - began, made


def peak_mib(pid: int) -> float:
    """Most memory that a process had at once. Source: proc(5), VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


async def backups(where: Site, calls: BackupCalls) -> tuple[float, float, backup_pb2.Backup]:
    """The ratio of ours to by hand, the seconds of ours, and the last backup."""
    await asyncio.to_thread(by_hand, where)
    await ours(calls)
    ratios, hand, mine = [], [], []
    for _ in range(measuring.ROUNDS):
        hand.append(await asyncio.to_thread(by_hand, where))
        seconds, made = await ours(calls)
        mine.append(seconds)
        ratios.append(mine[-1] / hand[-1])
    print(
        f"  by hand {statistics.median(hand):6.2f} s   ours {statistics.median(mine):6.2f} s,"
        f" {made.stored_bytes / 2**20:.1f} MiB of {made.dump_bytes / 2**20:.1f} MiB"
    )
    return statistics.median(ratios), statistics.median(mine), made


async def restores(calls: BackupCalls, made: backup_pb2.Backup) -> restore_pb2.Restore:
    """A verification by restore, and a restore to `latest` that is swapped in."""
    request = backup_service_pb2.VerifyBackupRequest(backup_id=made.id, level=backup_pb2.VERIFICATION_LEVEL_V4)
    found = await calls.done(await calls.backups.VerifyBackup(request), backup_pb2.Verification())
    assert found.passed, found.problems
    print(
        f"  V4 {found.duration.ToTimedelta().total_seconds():6.2f} s, of which the restore"
        f" {found.restore_duration.ToTimedelta().total_seconds():.2f} s"
    )
    target = restore_pb2.RestoreTarget(latest=True)
    prepare = restore_service_pb2.PrepareRestoreRequest(target=target, verified_level=backup_pb2.VERIFICATION_LEVEL_V2)
    prepared = await calls.done(await calls.restores.PrepareRestore(prepare), restore_pb2.Restore())
    print(f"  prepared in {prepared.prepare_duration.ToTimedelta().total_seconds():6.2f} s")
    activate = restore_service_pb2.ActivateRestoreRequest(restore_id=prepared.id)
    active: restore_pb2.Restore = await calls.done(
        await calls.restores.ActivateRestore(activate), restore_pb2.Restore()
    )
    return active


async def write(target: str, seconds: float) -> int:
    """Registers WRITES_PER_SECOND schemas a second, and returns how many it registered."""
    count = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub = schema_service_pb2_grpc.SchemaServiceStub(channel)
        ends, pending = time.monotonic() + seconds, set()
        while time.monotonic() < ends:
            text = json.dumps({"title": f"load {count}", "type": "object"})
            request = schema_service_pb2.RegisterSchemaRequest(
                subject=f"load/{count}", format=schema_pb2.SCHEMA_FORMAT_JSON, text=text
            )
            call = asyncio.ensure_future(stub.RegisterSchema(request, timeout=20))
            pending.add(call)
            call.add_done_callback(pending.discard)
            count += 1
            await asyncio.sleep(1 / WRITES_PER_SECOND)
        await asyncio.gather(*pending)
    return count


async def lag(where: Site, calls: BackupCalls) -> list[float]:
    """Lags of the archive, asked every quarter of a second while a registry writes."""
    lags: list[float] = []
    with measuring.registry(where.url, observability__log_level="warning") as registry:
        writing = asyncio.create_task(write(registry.target, WRITING_SECONDS))
        while not writing.done():
            status = (await calls.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())).status
            lags.append(status.lag.ToTimedelta().total_seconds())
            await asyncio.sleep(0.25)
        print(f"  {await writing} writes in {WRITING_SECONDS} s")
    return lags


async def reads(where: Site, calls: BackupCalls) -> float:
    """The 99th percentile of reads during backups to that without, medians of interleaved rounds."""
    ratios = []
    with measuring.registry(where.url, observability__log_level="warning") as registry:
        async with grpc.aio.insecure_channel(registry.target) as channel:
            stub = schema_service_pb2_grpc.SchemaServiceStub(channel)

            async def read() -> None:
                await stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=1))

            await measuring.load(read, requests=500, clients=4)
            for _ in range(measuring.ROUNDS):
                alone = await measuring.load(read, requests=1000, clients=4)
                making = asyncio.create_task(ours(calls))
                during = await measuring.load(read, requests=1000, clients=4)
                await making
                ratios.append(during.percentile_ms(99) / alone.percentile_ms(99))
    return statistics.median(ratios)


def run(count: int) -> bool:
    """Measures one size; whether all targets were met."""
    with site(count) as where:
        lines = asyncio.run(measure(where, count))
    print("\n".join(lines), flush=True)
    return not any("MISSED" in line for line in lines)


async def measure(where: Site, count: int) -> list[str]:
    """The verdicts about one size."""
    async with BackupCalls(where.service.target) as calls:
        idle = peak_mib(where.service.pid)
        ratio, seconds, made = await backups(where, calls)
        memory = peak_mib(where.service.pid)
        print(f"  memory before the first backup {idle:.0f} MiB")
        lines = [
            measuring.verdict("  backup, s", seconds, at_most=1)
            if count < SIZES[-1]
            else measuring.verdict("  backup, ours / by hand", ratio, at_most=1.25),
            measuring.verdict("  peak memory, MiB", memory, at_most=MEMORY_MIB_MAX),
        ]
        if count >= SIZES[-1]:
            lines.append(measuring.verdict("  p99 of reads, during / alone", await reads(where, calls), at_most=1.15))
        lags = sorted(await lag(where, calls))
        lines.append(measuring.verdict("  archive lag p99, s", lags[int(len(lags) * 0.99)], at_most=7))
        active = await restores(calls, made)
        outage = active.write_outage.ToTimedelta().total_seconds()
        lines.append(measuring.verdict("  write outage of the swap, s", outage, at_most=2))
        memory = peak_mib(where.service.pid)
        lines.append(measuring.verdict("  peak memory with restores, MiB", memory, at_most=MEMORY_MIB_MAX))
    return lines


def main() -> int:
    sizes = (*SIZES, LARGE) if "--large" in sys.argv else SIZES
    chosen = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    met = [run(count) for count in chosen or sizes]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
