"""Restores under clients: nothing that was acknowledged is lost, no id has two texts, the old epoch is over."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2
from tests import registry_tools
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_calls import Registry
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_service import MakeService, Service
from tests.restore_site import Ledger, activate, calls, load, make_backup, prepare, revert, serves, shown


@pytest.mark.slow
@pytest.mark.rotating(3, "long faults")
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
@pytest.mark.timeout(300)
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
