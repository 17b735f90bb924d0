"""Preparations and releases that are killed, servers that crash and services that stop in the middle of a swap."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from tests import registry_tools
from tests.fix_backup import MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, Service
from tests.recovery_kills import held
from tests.restore_kills import doomed, take_lease_away
from tests.restore_site import (
    FAILPOINTS,
    Ledger,
    activate,
    calls,
    existing,
    final,
    make_backup,
    prepare,
    serves,
    shown,
)

pytestmark = [pytest.mark.slow, pytest.mark.rotating(6), pytest.mark.timeout(300)]
STATES = restore_pb2.RestoreState.Name
PREPARATION = ("journaled.preparing", "place.created", "restore.created", "place.restored", "journal.prepared")
RELEASE = ("place.dropped", "journal.released", "journaled.released")


@pytest.mark.parametrize("failpoint", PREPARATION)
async def test_killed_preparation(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """What a killed preparation left is dropped by the next process by itself, and the live database never noticed."""
    url = database_of(filled_registry)
    healthy = make_backup_service(url)
    async with calls(healthy) as backup:
        await make_backup(backup)
        await healthy.stop_async()

    request = pb.PrepareRestoreRequest(target=restore_pb2.RestoreTarget(latest=True))
    await doomed(make_backup_service, url, failpoint, lambda made: made.restores.PrepareRestore(request))

    another = make_backup_service(url)
    if failpoint != PREPARATION[1]:
        take_lease_away(another)
    async with calls(another) as backup:
        (restore,) = (await backup.restores.ListRestores(pb.ListRestoresRequest())).restores
        found, seconds = await final(backup, restore.id)

        async def dropped() -> bool:
            return await existing(url) == []

        await eventually(dropped)
        assert found.state == restore_pb2.RESTORE_STATE_FAILED
        await activate(backup, (await prepare(backup)).id)
    outcome = f"FAILED and dropped {seconds:.1f} s after the next start; the next restore worked"
    fault_table("T2", f"kill -9 at {failpoint} of a preparation", outcome)


@pytest.mark.parametrize("failpoint", RELEASE)
async def test_killed_release(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """A killed release is repeated."""
    url = database_of(filled_registry)
    healthy = make_backup_service(url)
    async with calls(healthy) as backup:
        await make_backup(backup)
        prepared = await prepare(backup)
        await healthy.stop_async()

    request = pb.ReleaseRestoreRequest(restore_id=prepared.id)
    await doomed(make_backup_service, url, failpoint, lambda made: made.restores.ReleaseRestore(request))

    another = make_backup_service(url)
    if failpoint != RELEASE[0]:
        take_lease_away(another)
    async with calls(another) as backup:
        answer = await backup.restores.ReleaseRestore(request)
        assert answer.restore.state == restore_pb2.RESTORE_STATE_RELEASED
        assert await existing(url) == []
    fault_table("T2", f"kill -9 at {failpoint} of a release", "a repeat released it")


@pytest.mark.parametrize("failpoint", ["restore.fenced", "restore.epoch_begun", "swap.closed", "swap.second_renamed"])
async def test_server_that_crashes(
    own_postgres: Callable[..., OwnPostgres],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    fault_table: FaultTable,
    failpoint: str,
) -> None:
    """A database server that is killed and started in the middle of a swap: the swap is ended by itself, either way."""
    server = own_postgres(durable=True)
    url = server.create_database("llm")
    registry, ledger = make_service(url), Ledger()
    await registry.start_async()
    await serves(registry, ledger, "before")
    service = make_backup_service(url)
    service.environment[FAILPOINTS] = f"{failpoint}:stop"
    async with calls(service) as backup:
        await make_backup(backup)
        prepared = await prepare(backup)
        going = asyncio.create_task(
            backup.ended(await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id)))
        )

        async def stopped() -> bool:
            return held(service)

        await eventually(stopped)
        await server.kill_async()
        await server.start_async()
        os.kill(service.pid, signal.SIGCONT)
        await going

        found, _ = await final(backup, prepared.id)
        await serves(registry, ledger, "after")
        assert await ledger.lost(url) == {}
        assert ledger.twice == []
        told = await registry_tools.run(url, "check")
        assert told.result["problems"] == []
        await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
        assert await existing(url) == []
        await activate(backup, (await prepare(backup)).id)
    fault_table("T13", f"PostgreSQL killed after {failpoint}", f"{STATES(found.state)}; nothing lost; next one worked")


@pytest.mark.parametrize("failpoint", ["restore.fenced", "swap.closed", "journal.active"])
async def test_service_that_is_stopped(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """A service that is asked to stop in the middle of a swap ends it, one way or the other, before it is gone."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    service = make_backup_service(url)
    service.environment[FAILPOINTS] = f"{failpoint}:pause:2"
    async with calls(service) as backup:
        await make_backup(backup)
        prepared = await prepare(backup)
        await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))

        async def begun() -> bool:
            return (await shown(backup, prepared.id)).state != restore_pb2.RESTORE_STATE_PREPARED

        await eventually(begun)
        assert await service.stop_async(signal.SIGTERM) == 0

    async with calls(make_backup_service(url)) as backup:
        found, _ = await final(backup, prepared.id)
        await serves(filled_registry, ledger, "after")
        assert await ledger.lost(url) == {}
        await activate(backup, (await prepare(backup)).id)
    fault_table("T2", f"SIGTERM at {failpoint}", f"{STATES(found.state)}; nothing lost; the next restore worked")
