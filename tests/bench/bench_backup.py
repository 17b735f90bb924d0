"""Backups and restores of a registry with 1,000 and 100,000 versions; other sizes as arguments, --large: 1,000,000.

By hand: `pg_dump | zstd -3` into a file on the same disk, without encryption and without a hash; by the library where
there is no program zstd. Ours: a whole backup over the RPC, with facts of the snapshot, encryption, hashes and the
verification to V2. Targets: at most 1.25 times the wall time by hand, a second for the smallest; at most 160 MiB of
peak memory at any size, in backups, verifications and restores, and behind a store that takes 1 MB a second; a backup
restored and compared (V4) in 5, 30 and 180 s; writes stopped for at most 2 s by a swap under load, 0.5 s of which the
swap itself; p99 of the archive's lag at most 7 s under 100 writes a second; p99 of reads during a backup at most 15 %
above that without, at 100 reads a second, with registry and readers on a processor of their own, as on a machine of
their own. On shared processors, which pg_dump, its server process and zstd keep busy all, it is compared with that
during a dump by hand, and told beside that alone. The time that each size took is told at its end.

The targets of time are for four processors and eight gigabytes: server, pg_dump, compression and hashes work side by
side there. With fewer of them, one that is missed says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from deploy.local.postgres import Postgres, find_install
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2, restore_pb2, restore_service_pb2
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from tests.bench import large_registry, measuring, slow_store
from tests.fix_backup import BackupCalls, backup_environment
from tests.fix_faults import eventually
from tests.fix_service import Service

SIZES = (1_000, 100_000)
LARGE = 1_000_000
MEMORY_MIB_MAX = 160
V4_SECONDS_MAX = {1_000: 5, 100_000: 30, LARGE: 180}
LARGE_SECONDS_MAX = 900
"""For one operation of any size."""
PROCESSORS = 4
"""Of the machine that the targets of time are for."""
WRITES_PER_SECOND = 100
WRITING_SECONDS = 30
READS_PER_SECOND = 100
WARM_REQUESTS = 500
AROUND_SECONDS = 2
"""Of writing before and after a swap."""
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


async def archived(calls: BackupCalls, position: int) -> None:
    """Returns when the archive has come to a position: what fills it at first is no everyday load."""

    async def reached() -> bool:
        answer = await calls.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())
        return bool(answer.status.position >= position)

    await eventually(reached, LARGE_SECONDS_MAX)


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


async def verify(calls: BackupCalls, made: backup_pb2.Backup, level: backup_pb2.VerificationLevel.ValueType) -> float:
    """Seconds of a verification that must pass."""
    request = backup_service_pb2.VerifyBackupRequest(backup_id=made.id, level=level)
    found = await calls.done(await calls.backups.VerifyBackup(request), backup_pb2.Verification())
    assert found.passed, found.problems
    seconds: float = found.duration.ToTimedelta().total_seconds()
    return seconds


async def prepare(calls: BackupCalls) -> restore_pb2.Restore:
    """A restore to `latest`, prepared."""
    target = restore_pb2.RestoreTarget(latest=True)
    request = restore_service_pb2.PrepareRestoreRequest(target=target, verified_level=backup_pb2.VERIFICATION_LEVEL_V2)
    prepared: restore_pb2.Restore = await calls.done(
        await calls.restores.PrepareRestore(request), restore_pb2.Restore()
    )
    return prepared


async def activate(where: Site, calls: BackupCalls, prepared: restore_pb2.Restore) -> list[str]:
    """Swaps a prepared restore in while a registry writes; the verdicts."""
    with measuring.registry(where.url, observability__log_level="warning") as registry:
        ended = asyncio.Event()
        writing = asyncio.create_task(write(registry.target, ended.wait(), may_fail=True))
        await asyncio.sleep(AROUND_SECONDS)
        request = restore_service_pb2.ActivateRestoreRequest(restore_id=prepared.id)
        operation = await calls.ended(await calls.restores.ActivateRestore(request))
        await asyncio.sleep(AROUND_SECONDS)
        ended.set()
        written = await writing
    assert not operation.HasField("error"), operation.error
    active = restore_pb2.Restore()
    assert operation.response.Unpack(active)
    [step] = [step for step in operation.steps if step.name == "swap"]
    swap = (step.end_time.ToDatetime() - step.start_time.ToDatetime()).total_seconds()
    print(f"  a writer saw no answer for {written.silence:.2f} s at most, {written.failed} of {written.count} failed")
    return [
        measuring.verdict(
            "  write outage of the swap, s", active.write_outage.ToTimedelta().total_seconds(), at_most=2
        ),
        measuring.verdict("  swap itself, s", swap, at_most=0.5),
    ]


@dataclass(slots=True)
class Written:
    """What came of writes. silence: most seconds between two that succeeded."""

    count: int = 0
    failed: int = 0
    silence: float = 0.0
    last: float = 0.0


async def write(target: str, until: Awaitable[object], *, may_fail: bool = False) -> Written:
    """Registers WRITES_PER_SECOND schemas a second, until something has happened."""
    made, run = Written(), secrets.token_hex(4)
    async with grpc.aio.insecure_channel(target) as channel:
        stub = schema_service_pb2_grpc.SchemaServiceStub(channel)

        async def one() -> None:
            made.count += 1
            request = schema_service_pb2.RegisterSchemaRequest(
                subject=f"load/{run}-{made.count}",
                format=schema_pb2.SCHEMA_FORMAT_JSON,
                text=json.dumps({"title": f"load {run} {made.count}", "type": "object"}),
            )
            try:
                await stub.RegisterSchema(request, timeout=20)
            except grpc.aio.AioRpcError:
                if not may_fail:
                    raise
                made.failed += 1
                return
            now = time.monotonic()
            made.silence, made.last = max(made.silence, now - (made.last or now)), now

        await measuring.steady(one, per_second=WRITES_PER_SECOND, until=until)
    return made


async def lag(where: Site, calls: BackupCalls) -> list[float]:
    """Lags of the archive, asked every quarter of a second while a registry writes."""
    lags: list[float] = []
    with measuring.registry(where.url, observability__log_level="warning") as registry:
        writing = asyncio.create_task(write(registry.target, asyncio.sleep(WRITING_SECONDS)))
        while not writing.done():
            status = (await calls.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())).status
            lags.append(status.lag.ToTimedelta().total_seconds())
            await asyncio.sleep(0.25)
        print(f"  {(await writing).count} writes in {WRITING_SECONDS} s")
    return lags


async def reads(where: Site, calls: BackupCalls) -> list[str]:
    """The verdicts about the 99th percentile of reads during backups, medians of interleaved rounds."""
    with measuring.registry(where.url, observability__log_level="warning") as registry:
        async with grpc.aio.insecure_channel(registry.target) as channel:
            stub = schema_service_pb2_grpc.SchemaServiceStub(channel)

            async def read() -> None:
                await stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=1))

            await measuring.load(read, requests=WARM_REQUESTS, clients=4)
            beside = await reading(where, calls, read, "by hand")
            print("  the same, with registry and readers on a processor of their own:")
            with measuring.apart(where.service.pid, postmaster(where.server)):
                alone = await reading(where, calls, read)
    return [
        measuring.verdict("  p99 of reads, during / during a dump by hand", beside["by hand"], at_most=1.15),
        measuring.verdict("  p99 of reads on a processor of their own, during / alone", alone["alone"], at_most=1.15),
    ]


async def reading(
    where: Site, calls: BackupCalls, read: Callable[[], Awaitable[None]], *others: str
) -> dict[str, float]:
    """How many times the 99th percentile of reads during a backup is that of reads alone and during the others."""
    rounds: dict[str, list[measuring.Round]] = {name: [] for name in ("ours", *others, "alone")}

    async def during(name: str, until: Awaitable[object]) -> None:
        rounds[name].append(await measuring.steady(read, per_second=READS_PER_SECOND, until=until))

    for _ in range(measuring.ROUNDS):
        await during("ours", ours(calls))
        if "by hand" in others:
            await during("by hand", asyncio.to_thread(by_hand, where))
        await during("alone", asyncio.sleep(rounds["ours"][-1].seconds))
    for name, each in rounds.items():
        median = statistics.median(one.percentile_ms(99) for one in each)
        print(f"  reads, {name}: p99 {median:.2f} ms, {each[-1].requests} a round")
    return {
        name: measuring.ratio(rounds["ours"], each, lambda one: one.percentile_ms(99))
        for name, each in rounds.items()
        if name != "ours"
    }


def postmaster(server: Postgres) -> int:
    """The server's first process. Source: postmaster.pid, first line."""
    return int((server.data / "postmaster.pid").read_text().split()[0])


async def behind_slow_store(where: Site) -> list[str]:
    """The verdict about the memory of a backup, V2 and V3 behind a slow store."""
    async with slow_store.service(where.server, where.folder) as service, BackupCalls(service.target) as calls:
        seconds, made = await ours(calls)
        await verify(calls, made, backup_pb2.VERIFICATION_LEVEL_V3)
        rate = made.stored_bytes / seconds / 1e6
        print(f"  behind a slow store: {made.stored_bytes / 2**20:.0f} MiB in {seconds:.0f} s, {rate:.2f} MB/s")
        return [
            measuring.verdict("  peak memory behind a slow store, MiB", peak_mib(service.pid), at_most=MEMORY_MIB_MAX)
        ]


def run(count: int) -> bool:
    """Measures one size; whether all targets were met."""
    began = time.monotonic()
    with site(count) as where:
        lines = asyncio.run(measure(where, count))
    there = len(os.sched_getaffinity(0))
    fewer = f" on {there} of the {PROCESSORS} processors that it is for" if there < PROCESSORS else ""
    print("\n".join(f"{line}{fewer}" if line.endswith("MISSED") else line for line in lines))
    print(f"{count} versions measured in {time.monotonic() - began:.0f} s", flush=True)
    return not any("MISSED" in line for line in lines)


async def measure(where: Site, count: int) -> list[str]:
    """The verdicts about one size."""
    smallest, pid = count < SIZES[-1], where.service.pid
    async with BackupCalls(where.service.target, wait_seconds=LARGE_SECONDS_MAX) as calls:
        await archived(calls, count)
        print(f"  memory before the first backup {peak_mib(pid):.0f} MiB")
        ratio, seconds, made = await backups(where, calls)
        lines = [
            measuring.verdict("  backup, s", seconds, at_most=1)
            if smallest
            else measuring.verdict("  backup, ours / by hand", ratio, at_most=1.25),
            measuring.verdict("  peak memory of backups, MiB", peak_mib(pid), at_most=MEMORY_MIB_MAX),
        ]
        if not smallest:
            lines += await reads(where, calls)
        print(f"  V3 in {await verify(calls, made, backup_pb2.VERIFICATION_LEVEL_V3):.2f} s")
        restored = await verify(calls, made, backup_pb2.VERIFICATION_LEVEL_V4)
        if count in V4_SECONDS_MAX:
            lines.append(measuring.verdict("  V4, s", restored, at_most=V4_SECONDS_MAX[count]))
        lags = sorted(await lag(where, calls))
        lines.append(measuring.verdict("  archive lag p99, s", lags[int(len(lags) * 0.99)], at_most=7))
        prepared = await prepare(calls)
        print(f"  prepared in {prepared.prepare_duration.ToTimedelta().total_seconds():.2f} s")
        lines += await activate(where, calls, prepared)
        lines.append(measuring.verdict("  peak memory with restores, MiB", peak_mib(pid), at_most=MEMORY_MIB_MAX))
    return [*lines, *(await behind_slow_store(where) if smallest else [])]


def main() -> int:
    sizes = (*SIZES, LARGE) if "--large" in sys.argv else SIZES
    chosen = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    met = [run(count) for count in chosen or sizes]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
