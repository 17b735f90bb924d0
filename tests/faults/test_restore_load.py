"""Backups and restores under many clients at full speed, and without a cache."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_service_pb2, restore_pb2
from llm_schema_registry.client import RegistryClient
from tests import registry_tools
from tests.fix_backup import AssembleBackup, BackupCalls, MakeBackupService, database_of
from tests.fix_calls import Registry
from tests.fix_fault_table import FaultTable
from tests.fix_faults import assert_history_whole, eventually, once, registrations
from tests.fix_service import MakeService, Service
from tests.fix_valkey import OwnValkey
from tests.restore_site import Ledger, activate, calls, load, make_backup, prepare, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WRITERS = 8
CLIENTS = 50
WRITING = 10
"""Of the clients, ten times a second each; the others read."""
REFUSED_SECONDS_MAX = 20.0
"""Of a swap, for each client. The goal is five; the rest is for a busy machine."""


async def test_full_speed(
    make_database: Callable[[], str],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    assemble_backup: AssembleBackup,
    fault_table: FaultTable,
) -> None:
    """T14: backups and the archive beside eight writers at full speed: a backup and the archive lead to tables with the
    digests of the live ones, nothing acknowledged is lost, and positions have no gap, before the swap and after it."""
    url = make_database()
    registry = make_service(url)
    await registry.start_async()
    async with calls(make_backup_service(url)) as backup, once(registry) as one:
        async with registrations(one, "load", WRITERS) as writing:
            await writing.grow(50)
            base = await make_backup(backup)
            await writing.grow(200)
            await backup.ended(await backup.backups.CreateBackup(backup_service_pb2.CreateBackupRequest()))
            await writing.grow(50)
        # A call that nobody waits for any longer may commit until its process has ended.
        assert await registry.stop_async() == 0
        await registry.start_async()
        await assert_history_whole(url, writing.acknowledged)
        position = await registry_tools.value(url, "SELECT position FROM registry.head")

        async def archived() -> bool:
            status = (await backup.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())).status
            return bool(status.position >= position)

        await eventually(archived)
        place = restore_pb2.HistoryPlace(epoch=1, position=position)
        prepared = await prepare(backup, restore_pb2.RestoreTarget(place=place))
        async with assemble_backup(url) as parts:
            restored = (await parts.journal.get(prepared.id)).scratch
            here, there = [await parts.places.facts(name) for name in (parts.places.live, restored)]
        await activate(backup, prepared.id)
        await assert_history_whole(url, writing.acknowledged)

    assert position - base.position > 200, "most of the history came from the archive"
    # The head's row says whether writes are fenced, which those of a prepared place are.
    mine, its = ({each.name: each for each in facts.tables if each.name != "head"} for facts in (here, there))
    assert mine == its
    assert not [error for error in writing.refused if not error.retry_seconds]
    outcome = f"digests equal, {position} changes without a gap, {position - base.position} of them from the archive"
    fault_table("T14", f"{WRITERS} writers at full speed beside backups and archive", outcome)


@pytest.mark.rotating(3, "long faults")
async def test_fifty_clients(filled_registry: Service, backup: BackupCalls, fault_table: FaultTable) -> None:
    """T22: a restore to `latest` beside fifty clients: no wrong answer, nothing lost, and refusals for seconds only."""
    url, ledger = database_of(filled_registry), Ledger()
    async with load(filled_registry.target, ledger, "load", writers=WRITING, readers=CLIENTS - WRITING):
        await make_backup(backup)
        prepared = await prepare(backup)

        async def grown() -> bool:
            return len(ledger.ids) >= wanted

        wanted = len(ledger.ids) + 50
        await eventually(grown)
        ledger.longest_gap = 0.0
        active = await activate(backup, prepared.id)
        wanted = len(ledger.ids) + 50
        await eventually(grown)
        gap = ledger.longest_gap

    assert await ledger.lost(url) == {}
    assert ledger.twice == []
    assert len(ledger.versions) == len(set(ledger.versions.values())), "a request ran twice, or an id was given twice"
    assert gap < REFUSED_SECONDS_MAX
    outage = active.write_outage.ToTimedelta().total_seconds()
    outcome = (
        f"nothing lost of {len(ledger.ids)}, no wrong answer of {ledger.reads}; writes refused {outage:.2f} s,"
        f" longest gap {gap:.2f} s"
    )
    fault_table("T22", f"restore under {CLIENTS} clients", outcome)


async def test_without_a_cache(
    make_database: Callable[[], str],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    own_valkey: Callable[[], OwnValkey],
    fault_table: FaultTable,
) -> None:
    """T27: with Redis gone a restore to an earlier moment completes, and when it is back with what it knew before, an
    id of the lost tail is unknown all the same."""
    url, server = make_database(), own_valkey()
    registry = make_service(url, server.url, cache__memory_bytes_max=0)
    await registry.start_async()
    async with RegistryClient(registry.target) as client, calls(make_backup_service(url)) as backup:
        calls_of = Registry(client)
        kept = await calls_of.register("kept", {"title": "kept"})
        made = await make_backup(backup)
        lost = await calls_of.register("lost", {"title": "lost"})
        for made_id in (kept.version.schema_id, lost.version.schema_id):
            await calls_of.schema(made_id)
        prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))
        await server.stop_async()

        window = (await shown(backup, prepared.id)).loss_window
        await activate(backup, prepared.id, window.confirmation)

        async def forgotten() -> bool:
            try:
                found = await calls_of.schema(lost.version.schema_id)
            except errors.Error as error:
                return error.code.name == "NOT_FOUND"
            assert json.loads(found.text) == {"title": "lost"}
            return False

        without = await eventually(forgotten)
        await server.start_async()
        again = await eventually(forgotten)
        assert json.loads((await calls_of.schema(kept.version.schema_id)).text) == {"title": "kept"}

    outcome = f"completed; lost id unknown {without:.1f} s after it, and {again:.1f} s after Redis was back"
    fault_table("T27", "Redis down during a restore to an earlier moment, then back", outcome)
