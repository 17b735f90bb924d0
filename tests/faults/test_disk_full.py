"""Restores whose database server runs out of disk: the live registry stays whole, and nothing half is left."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.postgres import Install
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.client import RegistryClient
from tests import registry_tools
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_calls import Registry
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import FAST, OwnPostgres
from tests.fix_service import MakeService, Service
from tests.large_texts import MIB, grow
from tests.restore_site import (
    FAILPOINTS,
    LATEST,
    Ledger,
    activate,
    calls,
    existing,
    make_backup,
    prepare,
    serves,
    shown,
)
from tests.small_disk import SmallDisk, file_limit, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.rotating(3, "long faults"), pytest.mark.timeout(300)]
CONTENT_BYTES = 24 * MIB
"""Of the registry: its largest table is longer than a file of the server's log, and so is the log of a restore."""
DISK_BYTES = 512 * MIB
LOG_DISK_BYTES = 256 * MIB
FILE_BYTES_MAX = 18 * MIB
"""More than a file of the server's log, less than the largest table."""
ROOM_BYTES = 4 * MIB
LEFT_BYTES = 64 * 1024


@dataclass
class Site:
    """A registry on a server of its own, and its backup service, which stops itself before it loads a restore."""

    server: OwnPostgres
    registry: Service
    backup: Service
    ledger: Ledger

    @property
    def url(self) -> str:
        """Of the live database."""
        return database_of(self.registry)


def log_elsewhere(server: OwnPostgres, folder: Path) -> None:
    """Moves a server's write-ahead log into another folder."""
    log = server.data / "pg_wal"
    shutil.move(log, folder)
    log.symlink_to(folder)


MakeServer = Callable[[Path], OwnPostgres]
Furnish = Callable[[OwnPostgres], Awaitable[Site]]


@pytest.fixture
def make_server(postgres_install: Install, postgres_cluster: Path) -> Iterator[MakeServer]:
    """Makes servers whose data is in a folder, not started yet: `make_server(folder)`."""
    made: list[OwnPostgres] = []

    def make(folder: Path) -> OwnPostgres:
        shutil.copytree(postgres_cluster, folder)
        options = {**FAST, "max_wal_size": "32MB", "min_wal_size": "32MB"}
        made.append(OwnPostgres(folder, install=postgres_install, options=options))
        return made[-1]

    yield make
    for server in made:
        server.stop(limit_seconds=5)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str, int], SmallDisk]]:
    """Mounts small file systems: `make_disk(name, size_bytes)`. Skips the test where that is not allowed."""
    with ExitStack() as stack:

        def make(name: str, size_bytes: int) -> SmallDisk:
            try:
                return stack.enter_context(small_disk(tmp_path / name, size_bytes))
            except PermissionError as refused:
                pytest.skip(f"this process may not mount a file system: {refused}")

        yield make


@pytest.fixture
def furnish(make_service: MakeService, make_backup_service: MakeBackupService, rng: random.Random) -> Furnish:
    """Starts a server, and a registry with large texts on it: `site = await furnish(server)`."""

    async def furnished(server: OwnPostgres) -> Site:
        await server.start_async()
        url = server.create_database("llm")
        registry, ledger = make_service(url), Ledger()
        await registry.start_async()
        await serves(registry, ledger, "before")
        await asyncio.to_thread(grow, registry.target, CONTENT_BYTES, rng)
        service = make_backup_service(url, archive__enabled="false")
        service.environment[FAILPOINTS] = "restore.created:stop"
        return Site(server, registry, service, ledger)

    return furnished


async def stopped_before_loading(site: Site, backup: BackupCalls) -> pb.PrepareRestoreResponse:
    """Begins a preparation, whose process stops itself when the place is made and empty."""
    answer: pb.PrepareRestoreResponse = await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST))

    async def stopped() -> bool:
        return ") T " in Path(f"/proc/{site.backup.pid}/stat").read_text()  # noqa: ASYNC240 - no disk is read

    await eventually(stopped)
    return answer


async def reads(site: Site) -> None:
    """Reads what was acknowledged first."""
    async with RegistryClient(site.registry.target) as client:
        await Registry(client).schema(next(iter(site.ledger.ids)))


async def whole_afterwards(site: Site, backup: BackupCalls) -> None:
    """With room again: the live registry takes writes, nothing acknowledged is lost, and a restore works."""
    await serves(site.registry, site.ledger, "after")
    assert await site.ledger.lost(site.url) == {}
    assert site.ledger.twice == []

    async def dropped() -> bool:
        return await existing(site.url) == []

    await eventually(dropped)
    await activate(backup, (await prepare(backup)).id)
    await serves(site.registry, site.ledger, "restored")
    assert await site.ledger.lost(site.url) == {}


async def test_data_disk_is_full(
    tmp_path: Path,
    make_disk: Callable[[str, int], SmallDisk],
    make_server: MakeServer,
    furnish: Furnish,
    fault_table: FaultTable,
) -> None:
    """T21: room that goes while a restore is loaded fails it, and its place is dropped; too little room is said before
    anything is begun, with the bytes that are needed. Readers notice nothing."""
    disk = make_disk("disk", DISK_BYTES)
    server = make_server(disk.folder / "server")
    log_elsewhere(server, tmp_path / "log")
    site = await furnish(server)
    async with calls(site.backup) as backup:
        await make_backup(backup)
        answer = await stopped_before_loading(site, backup)
        disk.fill(ROOM_BYTES)
        os.kill(site.backup.pid, signal.SIGCONT)
        ended = await backup.ended(answer)
        await reads(site)
        disk.fill(ROOM_BYTES)
        refused = await backup.ended(await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST)))
        disk.empty()
        await whole_afterwards(site, backup)

    assert ended.error.reason == "RESTORE_FAILED"
    assert "No space left on device" in ended.error.message
    assert refused.error.reason == "DATABASE_UNFIT"
    told = re.search(r"needs (\d+) bytes of disk, the server has (\d+)", refused.error.message)
    assert told is not None
    assert int(told[1]) > CONTENT_BYTES
    assert int(told[1]) > int(told[2])
    outcome = f"RESTORE_FAILED, place dropped; then DATABASE_UNFIT: {told[0]}; live intact, the next restore worked"
    fault_table("T21", "data disk full while a restore is loaded", outcome)


async def test_log_disk_is_full(
    tmp_path: Path,
    make_disk: Callable[[str, int], SmallDisk],
    make_server: MakeServer,
    furnish: Furnish,
    fault_table: FaultTable,
) -> None:
    """T21: a server that ends because the disk of its log is full while a restore is loaded has lost nothing when it
    has room again, and what was begun is dropped by itself."""
    disk = make_disk("log", LOG_DISK_BYTES)
    server = make_server(tmp_path / "server")
    log_elsewhere(server, disk.folder / "pg_wal")
    site = await furnish(server)
    async with calls(site.backup) as backup:
        await make_backup(backup)
        answer = await stopped_before_loading(site, backup)
        disk.fill(LEFT_BYTES)
        os.kill(site.backup.pid, signal.SIGCONT)
        ended = await backup.ended(answer)
        disk.empty()
        await server.kill_async()
        await server.start_async()
        told = await registry_tools.run(site.url, "check")
        (begun,) = (await backup.restores.ListRestores(pb.ListRestoresRequest())).restores
        await whole_afterwards(site, backup)
        first = await shown(backup, begun.id)

    assert ended.error.reason in {"RESTORE_FAILED", "DATABASE_UNAVAILABLE"}
    assert told.result["problems"] == []
    assert first.state == restore_pb2.RESTORE_STATE_FAILED
    fault_table(
        "T21", "disk of the write-ahead log full", f"{ended.error.reason}; live intact, the next restore worked"
    )


async def test_no_file_may_grow(
    tmp_path: Path, make_server: MakeServer, furnish: Furnish, fault_table: FaultTable
) -> None:
    """T21, where nothing can be mounted: a server whose files may not grow fails the restore, which is dropped."""
    site = await furnish(make_server(tmp_path / "server"))
    async with calls(site.backup) as backup:
        await make_backup(backup)
        answer = await stopped_before_loading(site, backup)
        postmaster = int((site.server.data / "postmaster.pid").read_text().split()[0])
        with file_limit(postmaster, FILE_BYTES_MAX):
            os.kill(site.backup.pid, signal.SIGCONT)
            ended = await backup.ended(answer)
            await reads(site)
        await whole_afterwards(site, backup)

    assert ended.error.reason == "RESTORE_FAILED"
    assert "File too large" in ended.error.message
    fault_table(
        "T21", "no file of the server may grow", "RESTORE_FAILED, dropped; live intact, the next restore worked"
    )
