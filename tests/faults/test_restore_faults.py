"""Restores whose process, server or clients do not behave: either the old or the new state serves, nothing half."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2
from tests import registry_tools
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_calls import Registry
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, Service
from tests.restore_site import (
    FAILPOINTS,
    Ledger,
    activate,
    calls,
    existing,
    final,
    load,
    make_backup,
    prepare,
    revert,
    serves,
    shown,
)

STATES = restore_pb2.RestoreState.Name
ACTIVATION = (
    "journaled.activating",
    "restore.fenced",
    "restore.epoch_begun",
    "swap.closed",
    "swap.terminated",
    "swap.first_renamed",
    "swap.second_renamed",
    "swap.renamed",
    "journal.active",
    "journaled.active",
)
REVERT = ("journaled.reverting", "restore.fenced", "restore.epoch_begun", "swap.closed", "swap.renamed")
PREPARATION = ("journaled.preparing", "place.created", "restore.created", "place.restored", "journal.prepared")
RELEASE = ("place.dropped", "journal.released", "journaled.released")


async def doomed(
    make_backup_service: MakeBackupService, url: str, failpoint: str, call: Callable[[BackupCalls], object]
) -> None:
    """Begins something in a process that is killed at a failpoint, and waits for its end."""
    service = make_backup_service(url)
    service.environment[FAILPOINTS] = f"{failpoint}:kill"
    await service.start_async()
    async with BackupCalls(service.target) as made:
        with suppress(grpc.aio.AioRpcError):
            await call(made)  # type: ignore[misc]
        await asyncio.to_thread(service.wait)


async def killed_swap(
    registry: Service,
    make_backup_service: MakeBackupService,
    fault_table: FaultTable,
    case: str,
    failpoint: str,
    *,
    back: bool = False,
    further: bool = True,
) -> None:
    """Kills an activation or a revert at a failpoint: another process ends it, and a restore works after that.

    further: tries that restore, which waits for the half minute of the killed process's lease.
    """
    url, ledger = database_of(registry), Ledger()
    await serves(registry, ledger, f"before-{failpoint}-{back}")
    healthy = make_backup_service(url)
    async with calls(healthy) as backup:
        await make_backup(backup)
        prepared = await prepare(backup)
        if back:
            await activate(backup, prepared.id)
        await healthy.stop_async()

    def swap(made: BackupCalls) -> object:
        if back:
            return made.restores.RevertRestore(pb.RevertRestoreRequest(restore_id=prepared.id))
        return made.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))

    await doomed(make_backup_service, url, failpoint, swap)

    async with calls(make_backup_service(url)) as backup:
        found, seconds = await final(backup, prepared.id)
        await serves(registry, ledger, f"after-{failpoint}-{back}")
        assert await ledger.lost(url) == {}
        assert ledger.twice == []
        told = await registry_tools.run(url, "check")
        assert told.result["problems"] == []
        if further:
            await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
            assert await existing(url) == []
            await activate(backup, (await prepare(backup)).id)
    fault_table(
        case,
        f"kill -9 at {failpoint} of {'a revert' if back else 'an activation'}",
        f"{STATES(found.state)} {seconds:.1f} s after the next start; nothing lost"
        + ("; the next restore worked" if further else ""),
    )


@pytest.mark.slow
async def test_killed_when_the_live_database_was_closed(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable
) -> None:
    """A process that is killed while nobody is let in leaves what the next one opens again by itself."""
    await killed_swap(filled_registry, make_backup_service, fault_table, "T3", "swap.closed", further=False)


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ACTIVATION)
async def test_killed_activation(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """Wherever an activation is killed, another process ends it, nothing is lost, and the next restore works."""
    await killed_swap(filled_registry, make_backup_service, fault_table, "T2", failpoint)


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", REVERT)
async def test_killed_revert(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """Wherever a revert is killed, another process ends it, nothing is lost, and the next restore works."""
    await killed_swap(filled_registry, make_backup_service, fault_table, "T3", failpoint, back=True)


@pytest.mark.slow
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

    async with calls(make_backup_service(url)) as backup:
        (restore,) = (await backup.restores.ListRestores(pb.ListRestoresRequest())).restores
        found, seconds = await final(backup, restore.id)

        async def dropped() -> bool:
            return await existing(url) == []

        await eventually(dropped)
        assert found.state == restore_pb2.RESTORE_STATE_FAILED
        await activate(backup, (await prepare(backup)).id)
    outcome = f"FAILED and dropped {seconds:.1f} s after the next start; the next restore worked"
    fault_table("T2", f"kill -9 at {failpoint} of a preparation", outcome)


@pytest.mark.slow
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

    async with calls(make_backup_service(url)) as backup:
        answer = await backup.restores.ReleaseRestore(request)
        assert answer.restore.state == restore_pb2.RESTORE_STATE_RELEASED
        assert await existing(url) == []
    fault_table("T2", f"kill -9 at {failpoint} of a release", "a repeat released it")


@pytest.mark.slow
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
    service.environment[FAILPOINTS] = f"{failpoint}:pause:3"
    async with calls(service) as backup:
        await make_backup(backup)
        prepared = await prepare(backup)
        going = asyncio.create_task(
            backup.ended(await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id)))
        )

        async def fenced() -> bool:
            with suppress(Exception):
                return bool(await registry_tools.value(url, "SELECT fenced FROM registry.head"))
            return True  # Nobody is let in any more.

        await eventually(fenced)
        await server.kill_async()
        await server.start_async()
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


@pytest.mark.slow
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


async def test_swap_under_load(filled_registry: Service, backup: BackupCalls, fault_table: FaultTable) -> None:
    """Under readers and writers that repeat, a restore to `latest` loses nothing that was acknowledged, no id has two
    texts, and a request that is repeated is not run again."""
    url, ledger = database_of(filled_registry), Ledger()
    async with load(filled_registry.target, ledger, "load"):
        await make_backup(backup)
        prepared = await prepare(backup)
        wanted = len(ledger.ids) + 20

        async def grown() -> bool:
            return len(ledger.ids) >= wanted

        await eventually(grown)
        ledger.longest_gap = 0.0
        active = await activate(backup, prepared.id)
        wanted = len(ledger.ids) + 20
        await eventually(grown)
        gap = ledger.longest_gap

    assert await ledger.lost(url) == {}
    assert ledger.twice == []
    assert len(ledger.versions) == len(set(ledger.versions.values())), "a request ran twice, or an id was given twice"
    told = await registry_tools.run(url, "check")
    assert told.result["problems"] == []
    outage = active.write_outage.ToTimedelta().total_seconds()
    fault_table(
        "T22",
        "restore to latest under 4 writers and 2 readers",
        f"nothing lost of {len(ledger.ids)}; writes refused {outage:.2f} s, longest gap of writers {gap:.2f} s;"
        f" {ledger.reads} reads, {len(ledger.failed_reads)} refused",
    )


@pytest.mark.slow
async def test_earlier_target_under_load(
    filled_registry: Service, backup: BackupCalls, fault_table: FaultTable
) -> None:
    """A restore to an earlier moment loses what was confirmed and nothing else; the lost ids are never given again,
    and after a revert all is there again."""
    url, ledger = database_of(filled_registry), Ledger()
    made = await make_backup(backup)
    async with load(filled_registry.target, ledger, "load"):
        prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))
        window = (await shown(backup, prepared.id)).loss_window
        before = set(ledger.ids)
        active = await activate(backup, prepared.id, f"{window.changes}@1/{window.live_place.position + 100_000}")

        async def given_anew() -> bool:
            # The registry first hands out what it had reserved before.
            return any(number >= active.next_schema_id for number in list(ledger.ids))

        await eventually(given_anew)

    lost = await ledger.lost(url)
    assert ledger.twice == []
    assert all(number < active.next_schema_id for number in lost)
    kept = [number for number in ledger.ids if number >= active.next_schema_id]
    assert kept
    since = (await shown(backup, prepared.id)).loss_window
    await revert(backup, prepared.id, since.confirmation)
    # A registry hands out what it had reserved before the swap also after it: such an id has one content all the same.
    assert before.isdisjoint(await ledger.lost(url))
    await serves(filled_registry, ledger, "last")
    assert ledger.twice == []
    fault_table("T26", "restore before acknowledged ids, write, revert", f"{len(lost)} lost as confirmed; no id twice")


async def test_caches_and_watchers_of_the_old_epoch(
    make_database: Callable[[], str],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    valkey_url: str,
    fault_table: FaultTable,
) -> None:
    """After a restore to an earlier moment an id of the lost tail is NOT_FOUND though Redis knew it, contents by id are
    right, a watcher of the old epoch is told to resync, and a repeated request returns what it did."""
    url = make_database()
    registry = make_service(url, valkey_url)
    await registry.start_async()
    async with RegistryClient(registry.target) as client, calls(make_backup_service(url)) as backup:
        calls_of = Registry(client)
        kept = await calls_of.register("kept", {"title": "kept"}, request_id="kept-1")
        made = await make_backup(backup)
        lost = await calls_of.register("lost", {"title": "lost"}, request_id="lost-1")
        for made_id in (kept.version.schema_id, lost.version.schema_id):
            await calls_of.schema(made_id)
        listed = await calls_of.call(calls_of.changes.ListChanges, change_service_pb2.ListChangesRequest(page_size=10))
        prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))
        window = (await shown(backup, prepared.id)).loss_window
        await activate(backup, prepared.id, window.confirmation)

        async def forgotten() -> bool:
            try:
                found = await calls_of.schema(lost.version.schema_id)
            except errors.Error as error:
                return error.code.name == "NOT_FOUND"
            # Until the process hears of the epoch; an id never means anything else.
            assert json.loads(found.text) == {"title": "lost"}
            return False

        seconds = await eventually(forgotten)
        assert json.loads((await calls_of.schema(kept.version.schema_id)).text) == {"title": "kept"}
        with pytest.raises(errors.EpochChanged):
            await calls_of.call(
                calls_of.changes.ListChanges,
                change_service_pb2.ListChangesRequest(page_size=10, resume_token=listed.resume_token),
            )
        again = await calls_of.register("kept", {"title": "kept"}, request_id="kept-1")
        head = await registry_tools.value(url, "SELECT position FROM registry.head")
        anew = await calls_of.register("lost", {"title": "lost"}, request_id="lost-1")

    assert again.version == kept.version
    assert head == made.position + 1
    assert anew.version.schema_id > lost.version.schema_id
    fault_table(
        "T27",
        "Redis and a watcher with the old epoch",
        f"lost id unknown after {seconds:.1f} s; EPOCH_CHANGED; no request twice",
    )
