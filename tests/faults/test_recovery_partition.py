"""A replica that nobody reaches while a recovery swaps the database: it writes nowhere, and comes back into the new
epoch."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2
from services.admin.usecases.recovery_steps import EPOCH_METRIC
from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import MakeBackupService, fill
from tests.fix_calls import Registry
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import MakeDatabase
from tests.fix_service import MakeService, Service
from tests.link import Link, link
from tests.recovery_kills import held
from tests.recovery_site import LIMIT_SECONDS, Site, site, states
from tests.restore_site import FAILPOINTS, Ledger, existing, load, make_backup, serves

pytestmark = [pytest.mark.slow, pytest.mark.rotating(3), pytest.mark.timeout(300)]
AWAY_SECONDS = 1.0
"""Behind the cut, for answers that were on their way."""
WATCH_SECONDS = 30.0
"""For a watch to learn, once its replica has caught up, that its epoch is over."""
GRACE_SECONDS = 3.0
"""Behind the return, for writes that come late."""


@dataclass
class Far:
    """A replica that the admin service and PostgreSQL reach over links; clients reach it directly."""

    service: Service
    control: Link
    database: Link

    def leave(self, how: str) -> None:
        """Cuts it off: `links`, the `control` link alone, or as a process that is `paused`."""
        if how == "paused":
            os.kill(self.service.pid, signal.SIGSTOP)
            return
        self.control.cut()
        if how == "links":
            self.database.cut()

    def come_back(self, how: str) -> None:
        """Undoes it."""
        if how == "paused":
            os.kill(self.service.pid, signal.SIGCONT)
        self.control.mend()
        self.database.mend()

    async def serves_epoch(self, epoch: int) -> bool:
        """Whether it says that it follows an epoch."""
        _, page = await asyncio.to_thread(self.service.http, "/metrics")
        name = EPOCH_METRIC.replace(".", "_")
        return any(line.startswith(name) and float(line.split()[-1]) == epoch for line in page.splitlines())


@dataclass
class Partitioned:
    """A system of two replicas on a database."""

    url: str
    near: Service
    far: Far
    place: Site


@pytest.fixture
async def system(
    make_database: MakeDatabase,
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
) -> AsyncIterator[Partitioned]:
    """Two replicas, one of them behind links, with some content, a backup and an admin service."""
    url = make_database()
    port = urlsplit(url).port
    assert port is not None
    near = make_service(url)
    await near.start_async()
    await asyncio.to_thread(fill, near, "filled", 5)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(link(port))
        service = make_service(url.replace(f":{port}/", f":{database.port}/"))
        await service.start_async()
        far = Far(service, await stack.enter_async_context(link(service.ports["grpc_port"])), database)
        peers = f"{near.target},{far.control.target}"
        backup = make_backup_service(url)
        folder = tmp_path / "admin"
        place = await stack.enter_async_context(
            site([near], backup, make_admin_service, folder, url, peers__registry=peers)
        )
        yield Partitioned(url, near, far, place)
        await asyncio.to_thread(service.kill)


@asynccontextmanager
async def watched(far: Far) -> AsyncIterator[tuple[str, asyncio.Task[str]]]:
    """A token of the replica's epoch, and how a watch that is open there ends: the reason of its error."""
    async with RegistryClient(far.service.target) as client:
        changes = client.changes
        listed = await client.call(changes.ListChanges, change_service_pb2.ListChangesRequest(page_size=10))
        opened = asyncio.Event()

        async def follow() -> str:
            try:
                async with aclosing(
                    client.stream(changes.WatchChanges, change_service_pb2.WatchChangesRequest(now=True))
                ) as answers:
                    async for _ in answers:
                        opened.set()
            except errors.Error as ended:
                return ended.reason
            return ""

        task = asyncio.create_task(follow())
        try:
            await asyncio.wait_for(opened.wait(), LIMIT_SECONDS)
            yield listed.resume_token, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def refused_token(far: Far, token: str) -> bool:
    """Whether the replica tells the owner of a token to read everything again."""
    async with RegistryClient(far.service.target) as client:
        request = change_service_pb2.ListChangesRequest(page_size=10, resume_token=token)
        try:
            await client.call(client.changes.ListChanges, request)
        except errors.EpochChanged:
            return True
    return False


@pytest.mark.parametrize("how", ["links", "control", "paused"])
async def test_replica_that_is_away_during_the_swap(system: Partitioned, fault_table: FaultTable, how: str) -> None:
    """One of two replicas, both under writers, is cut off before the fence and comes back behind the recovery: the
    recovery names it and ends without it; what it had under way reaches neither the replaced database nor, in the lost
    epoch, the new one; it serves the new epoch, and tells watchers of the old one to resync."""
    url, far, place, ledger = system.url, system.far, system.place, Ledger()
    await make_backup(place.backup)
    async with (
        watched(far) as (token, watch),
        load(system.near.target, ledger, "near", writers=2, readers=1),
        load(far.service.target, ledger, "far", writers=2, readers=0),
    ):
        await asyncio.sleep(AWAY_SECONDS)
        far.leave(how)
        await asyncio.sleep(AWAY_SECONDS)
        known = acknowledged(ledger, "far")
        recovery = await place.done(await place.start(cause="a partition"))
        epoch = await registry_tools.value(url, "SELECT epoch FROM registry.head")
        assert how == "control" or acknowledged(ledger, "far") == known

        far.come_back(how)
        back = await eventually(lambda: far.serves_epoch(epoch))
        await serves(far.service, ledger, "back")
        await asyncio.sleep(GRACE_SECONDS)
        assert await refused_token(far, token)
        ended = await asyncio.wait_for(watch, WATCH_SECONDS)

    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE, states(recovery)
    messages = {each.name: each.message for each in recovery.steps}
    assert far.control.target in messages["fence"]
    assert far.control.target in messages["resume"]
    assert ended == "EPOCH_CHANGED"
    assert await written_since(url, epoch) == 0
    assert await ledger.lost(url) == {}
    assert ledger.twice == []
    assert (await registry_tools.run(url, "check")).result["problems"] == []
    fault_table(
        "D7",
        f"one of two replicas partitioned during the swap ({how})",
        f"named; nothing written there, nothing lost; in the new epoch {back:.1f} s after its return",
    )


async def test_replica_that_leaves_behind_the_fence(system: Partitioned, fault_table: FaultTable) -> None:
    """A replica that took the fence and is cut off then is named with its mode; back again it reads the new epoch,
    takes no writes while there is no admin service, and takes them once another process of that finds it noted."""
    far, place, ledger = system.far, system.place, Ledger()
    await serves(far.service, ledger, "before")
    await make_backup(place.backup)
    await place.replace_admin(**{FAILPOINTS: "recovery.fetch.begun:stop"})
    begun = asyncio.create_task(place.start())

    async def fenced() -> bool:
        return held(place.admin_service)

    await eventually(fenced)
    far.leave("links")
    os.kill(place.admin_service.pid, signal.SIGCONT)
    recovery = await place.done(await begun)
    await asyncio.to_thread(place.admin_service.kill)
    far.come_back("links")

    message = {each.name: each.message for each in recovery.steps}["resume"]
    assert f"READ_ONLY until they return, and put back then: {far.control.target}" in message
    epoch = await registry_tools.value(system.url, "SELECT epoch FROM registry.head")
    await eventually(lambda: far.serves_epoch(epoch))
    async with RegistryClient(far.service.target) as client:
        await ledger.read(Registry(client))
        with pytest.raises(errors.Error):
            await Registry(client).register("refused", {"title": "refused"})
    await place.replace_admin()

    async def takes_writes() -> bool:
        async with RegistryClient(far.service.target) as client:
            try:
                await Registry(client).register("taken", {"title": "taken"})
            except errors.Error:
                return False
            return True

    back = await eventually(takes_writes)
    await serves(far.service, ledger, "after")
    assert ledger.failed_reads == []
    fault_table(
        "D7",
        "a replica partitioned behind the fence",
        f"named, with its mode; back, it reads the new epoch, and writes {back:.1f} s after an admin process began",
    )


async def written_since(url: str, epoch: int) -> int:
    """Changes that the replaced database got behind the fork of an epoch. It lets nobody in until now."""
    [replaced] = await existing(url)
    server = url.rsplit("/", 1)[0]
    admits = f"SELECT datallowconn FROM pg_database WHERE datname = '{replaced}'"
    assert not await registry_tools.value(f"{server}/postgres", admits)
    await registry_tools.execute(f"{server}/postgres", f"ALTER DATABASE {replaced} ALLOW_CONNECTIONS true")
    assert await registry_tools.value(f"{server}/{replaced}", "SELECT fenced FROM registry.head")
    position: int = await registry_tools.value(f"{server}/{replaced}", "SELECT position FROM registry.head")
    fork: int = await registry_tools.value(url, f"SELECT fork_position FROM registry.epochs WHERE id = {epoch}")
    return position - fork


def acknowledged(ledger: Ledger, stem: str) -> int:
    """How many writes of a stem were acknowledged."""
    return sum(1 for subject, _ in ledger.versions if subject.startswith(stem))
