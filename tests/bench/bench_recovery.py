"""Recoveries by the admin service of a registry with 1,000 and 100,000 versions; other sizes as arguments.

Twice for each size, under 100 writes and 100 reads a second: rows are deleted behind the registry's back, and writes go
on until the swap; then the database is dropped, and what clients were told since the archive's last segment is lost.
The backup that is restored was not read in full before, and the present state is backed up where there is one, so all
ten steps are done. Targets: each recovery in 60 s; writes refused for at most 2 s by the swap; a recovery point, as the
recovery tells it and as the clients find it, of at most 10 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.client import error_of
from llm_schema_registry.operation.v1 import operation_service_pb2
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from tests import recovery_site, registry_tools
from tests.bench import bench_backup, measuring
from tests.fix_admin import admin_client, admin_environment
from tests.fix_backup import BackupCalls
from tests.fix_service import Service

SIZES = (1_000, 100_000)
PER_SECOND = 100
"""Writes, and as many reads."""
AROUND_SECONDS = 5
"""Of clients before the damage, and behind a recovery."""
CALL_SECONDS = 20
SECONDS_MAX, OUTAGE_SECONDS_MAX, POINT_SECONDS_MAX = 60, 2, 10
DAMAGED = "team-1/%"
COUNT = f"SELECT count(*) FROM registry.versions WHERE subject LIKE '{DAMAGED}'"


@dataclass(slots=True)
class Clients:
    """What came of calls. told: when each schema id was acknowledged. silence: most seconds between two of these."""

    run: str = field(default_factory=lambda: secrets.token_hex(4))
    told: dict[int, float] = field(default_factory=dict)
    writes: int = 0
    reads: int = 0
    failed: int = 0
    failed_reads: int = 0
    silence: float = 0.0
    last: float = 0.0

    async def write(self, stub: Any) -> None:
        """Registers a schema."""
        self.writes += 1
        name = f"{self.run}-{self.writes}"
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=f"load/{name}",
            format=schema_pb2.SCHEMA_FORMAT_JSON,
            text=json.dumps({"title": f"load {name}", "type": "object"}),
        )
        try:
            answer = await stub.RegisterSchema(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            self.failed += 1
            return
        now = time.monotonic()
        self.told[answer.version.schema_id] = now
        self.silence, self.last = max(self.silence, now - (self.last or now)), now

    async def read(self, stub: Any) -> None:
        """Reads a content."""
        self.reads += 1
        try:
            await stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=1 + self.reads % 1000), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            self.failed_reads += 1


@asynccontextmanager
async def clients(target: str) -> AsyncIterator[Clients]:
    """Clients of a registry, for the block; calls that fail are not repeated."""
    made, over = Clients(), asyncio.Event()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = schema_service_pb2_grpc.SchemaServiceStub(channel)
        calls = (lambda: made.write(stub)), (lambda: made.read(stub))
        running = [asyncio.create_task(measuring.steady(c, per_second=PER_SECOND, until=over.wait())) for c in calls]
        try:
            yield made
        finally:
            over.set()
            await asyncio.gather(*running)


@contextmanager
def admin_service(where: bench_backup.Site, registry: Service) -> Iterator[Service]:
    """An admin process beside a registry and a backup process."""
    options: dict[str, object] = {
        "admin__directory": where.folder / "admin",
        "peers__registry": registry.target,
        "peers__backup": where.service.target,
    }
    (where.folder / "admin-log").mkdir()
    service = Service(where.folder / "admin-log", admin_environment(where.url, options), "admin")
    service.start()
    try:
        yield service
    finally:
        service.stop()


async def recovered(place: recovery_site.Site, **spec: object) -> recovery_pb2.Recovery:
    """A recovery to the newest change that is done. A loss is confirmed at once."""
    ended = await place.ended(await place.start(**spec))  # type: ignore[arg-type]
    if ended.HasField("error"):
        refused = error_of(ended.error)
        assert isinstance(refused, errors.LossWindowChanged), refused
        confirmation = refused.metadata["confirmation"]
        ended = await place.ended(await place.resume(refused.metadata["recovery_id"], confirmation))
    assert not ended.HasField("error"), ended.error
    recovery = recovery_pb2.Recovery()
    assert ended.response.Unpack(recovery)
    prepared = await place.backup.operations.ListOperations(operation_service_pb2.ListOperationsRequest(page_size=50))
    newest = next(each for each in prepared.operations if each.name.startswith("prepare-restore"))
    print(f"  {took(recovery.steps)}\n  of restore: {took(newest.steps)}", flush=True)
    return recovery


def took(steps: Iterable[Any]) -> str:
    """How long each step took, in words."""
    return ", ".join(f"{each.name} {seconds(each.end_time) - seconds(each.start_time):.1f}" for each in steps)


async def damaged(where: bench_backup.Site, place: recovery_site.Site) -> list[str]:
    """The verdicts about a recovery from deleted rows."""
    there = await registry_tools.value(where.url, COUNT)
    async with clients(place.registry.target) as load:
        await asyncio.sleep(AROUND_SECONDS)
        await registry_tools.execute(where.url, f"DELETE FROM registry.versions WHERE subject LIKE '{DAMAGED}'")
        recovery = await recovered(place, traffic=recovery_pb2.TRAFFIC_POLICY_SERVE)
        await asyncio.sleep(AROUND_SECONDS)
    assert await registry_tools.value(where.url, COUNT) == there
    assert not await lost(where, load)
    print(
        f"  {load.writes} writes, {load.failed} failed, none acknowledged for {load.silence:.2f} s at most;"
        f" {load.reads} reads, {load.failed_reads} failed"
    )
    return [
        measuring.verdict("  recovery from deleted rows, s", seconds(recovery.recovery_time), at_most=SECONDS_MAX),
        measuring.verdict("  write outage of its swap, s", seconds(recovery.write_outage), at_most=OUTAGE_SECONDS_MAX),
        measuring.verdict("  its recovery point, s", seconds(recovery.recovery_point), at_most=POINT_SECONDS_MAX),
    ]


async def gone(where: bench_backup.Site, place: recovery_site.Site) -> list[str]:
    """The verdicts about a recovery of a database that was dropped."""
    server, name = where.url.rsplit("/", 1)
    async with clients(place.registry.target) as load:
        await asyncio.sleep(2 * AROUND_SECONDS)
        await registry_tools.execute(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")
        dropped = time.monotonic()
        recovery = await recovered(place)
        await asyncio.sleep(AROUND_SECONDS)
    without = await lost(where, load)
    point = max((dropped - load.told[each] for each in without), default=0.0)
    print(f"  of {len(load.told)} writes that were acknowledged {len(without)} are lost")
    return [
        measuring.verdict("  recovery of a dropped database, s", seconds(recovery.recovery_time), at_most=SECONDS_MAX),
        measuring.verdict("  its recovery point, s", seconds(recovery.recovery_point), at_most=POINT_SECONDS_MAX),
        measuring.verdict("  its recovery point by the clients, s", point, at_most=POINT_SECONDS_MAX),
    ]


async def lost(where: bench_backup.Site, load: Clients) -> set[int]:
    """Ids that were acknowledged and are not in the database."""
    kept = await registry_tools.value(where.url, "SELECT json_agg(id)::text FROM registry.schemas")
    return set(load.told) - set(json.loads(kept))


def seconds(duration: Any) -> float:
    """A duration or a time of an answer, in seconds."""
    return float(duration.ToNanoseconds()) / 1e9


async def measure(where: bench_backup.Site, registry: Service, admin: Service) -> list[str]:
    """The verdicts about one size."""
    async with BackupCalls(where.service.target) as calls, admin_client(admin) as client:
        await bench_backup.ours(calls)
        place = recovery_site.Site([registry], where.service, admin, calls, client, None)
        return [*await damaged(where, place), *await gone(where, place)]


def run(count: int) -> bool:
    """Measures one size; whether all targets were met."""
    began = time.monotonic()
    with (
        bench_backup.site(count) as where,
        measuring.registry(where.url, observability__log_level="warning") as registry,
        admin_service(where, registry) as admin,
    ):
        lines = asyncio.run(measure(where, registry, admin))
    print("\n".join(lines))
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"{count} versions measured in {time.monotonic() - began:.0f} s, load average {load}", flush=True)
    return not any("MISSED" in line for line in lines)


def main() -> int:
    met = [run(int(word)) for word in sys.argv[1:] or SIZES]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
