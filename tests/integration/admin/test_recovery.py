"""Recoveries by real processes: planned, done under load, not confirmed, gone back on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.operations.forgetting import KEEP_DAYS
from llm_schema_registry.registry.v1 import change_service_pb2
from services.admin.usecases.recovery_journal import PLANS
from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import MakeBackupService, database_of
from tests.fix_calls import Registry
from tests.fix_faults import eventually, once
from tests.fix_service import Service
from tests.recovery_kills import held
from tests.recovery_site import DONE, LIMIT_SECONDS, SKIPPED, STEPS, Site, site, states
from tests.restore_site import FAILPOINTS, Ledger, load, make_backup, serves

SURELY_LATER = 1_000_000
"""A position that no test reaches."""


@pytest_asyncio.fixture
async def place(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
) -> AsyncIterator[Site]:
    """A registry with some content, a backup service, and an admin service."""
    url = database_of(filled_registry)
    async with site([filled_registry], make_backup_service(url), make_admin_service, tmp_path / "admin", url) as made:
        yield made


async def damage(url: str) -> datetime:
    """Rows disappear, and no change says so; the moment just before."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute("SELECT clock_timestamp()")
        [(moment,)] = await cursor.fetchall()
        await connection.execute("DELETE FROM registry.version_references")
        await connection.execute("DELETE FROM registry.versions WHERE subject LIKE 'filled-%'")
    assert isinstance(moment, datetime)
    return moment


async def stop_before_the_switch(place: Site) -> None:
    """The admin service stands still before the switch, until the reads so far are counted."""
    await place.replace_admin(**{FAILPOINTS: "recovery.switch.before:stop"})


async def reads_until_the_switch(place: Site, ledger: Ledger) -> tuple[int, list[str]]:
    """The reads up to there, after which the admin service goes on."""

    async def stopped() -> bool:
        return held(place.admin_service)

    await eventually(stopped, LIMIT_SECONDS)
    found = ledger.reads_so_far()
    os.kill(place.admin_service.pid, signal.SIGCONT)
    return found


async def test_damaged_data_under_load(place: Site) -> None:
    """Rows that were deleted behind the registry's back come back, and everything that was acknowledged is there: every
    read is served until the swap, writes go on but for the fence, the ten steps are seen, RPO and RTO are measured, and
    watchers of the old epoch are told to resync."""
    url, ledger = database_of(place.registry), Ledger()
    await stop_before_the_switch(place)
    await make_backup(place.backup)
    async with RegistryClient(place.registry.target) as client:
        calls = Registry(client)
        listed = await calls.call(calls.changes.ListChanges, change_service_pb2.ListChangesRequest(page_size=10))
        async with load(place.registry.target, ledger, "load", writers=2, readers=1):
            await asyncio.sleep(1)
            await damage(url)
            begun = await place.start(cause="rows are gone")
            recovery, (reads, failed) = await asyncio.gather(place.done(begun), reads_until_the_switch(place, ledger))
            await serves(place.registry, ledger, "after")
        request = change_service_pb2.ListChangesRequest(page_size=10, resume_token=listed.resume_token)
        with pytest.raises(errors.EpochChanged):
            await calls.call(calls.changes.ListChanges, request)

    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE
    assert [each.name for each in recovery.steps] == list(STEPS)
    assert all(each.state in {DONE, SKIPPED} for each in recovery.steps), states(recovery)
    assert place.steps_seen == list(STEPS)
    assert recovery.recovery_point.ToNanoseconds() == 0
    assert 0 < recovery.write_outage.ToNanoseconds() <= recovery.write_pause.ToNanoseconds()
    assert recovery.write_pause.ToNanoseconds() < recovery.recovery_time.ToNanoseconds()
    assert recovery.safety_backup_id
    count = await registry_tools.value(url, "SELECT count(*) FROM registry.versions WHERE subject LIKE 'filled-%'")
    assert count == 5
    assert await ledger.lost(url) == {}
    assert ledger.twice == []
    assert (reads > 0, failed) == (True, [])
    assert (await registry_tools.run(url, "check")).result["problems"] == []


async def test_back_to_just_before_the_damage(place: Site) -> None:
    """Under load the registry goes back to the moment before rows were deleted: what was acknowledged before that
    moment is there, what was written since is lost as confirmed, no id is given twice, and every read is served until
    the swap."""
    url, ledger = database_of(place.registry), Ledger()
    await stop_before_the_switch(place)
    await make_backup(place.backup)
    async with load(place.registry.target, ledger, "load", writers=2, readers=1):
        await asyncio.sleep(1)
        before = dict(ledger.ids)
        moment = await damage(url)
        await serves(place.registry, ledger, "since")
        await place.archived(await registry_tools.value(url, "SELECT position FROM registry.head"))
        target = restore_pb2.RestoreTarget()
        target.time.FromDatetime(moment)
        stopped = await place.failed(await place.start(target))
        allowed = f"{stopped.metadata['changes']}@1/{SURELY_LATER}"
        resumed = await place.resume(stopped.metadata["recovery_id"], allowed)
        recovery, (reads, failed) = await asyncio.gather(place.done(resumed), reads_until_the_switch(place, ledger))
        await serves(place.registry, ledger, "after")
    lost = await ledger.lost(url)

    assert isinstance(stopped, errors.LossWindowChanged)
    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE
    assert lost
    assert lost.keys().isdisjoint(before)
    assert any(json.loads(text)["title"].startswith("since") for text in lost.values())
    assert ledger.twice == []
    assert await registry_tools.value(url, "SELECT count(*) FROM registry.versions WHERE subject LIKE 'filled-%'") == 5
    assert (reads > 0, failed) == (True, [])


@pytest.mark.slow
@pytest.mark.rotating(3, "long faults")
async def test_damage_that_a_backup_holds(place: Site) -> None:
    """A backup that was made of damaged data leads to no registry: the recovery stands still with what served before,
    says so, and resumed it begins from the backup before that one; nothing acknowledged is lost."""
    url, ledger = database_of(place.registry), Ledger()
    sound = await make_backup(place.backup)
    await serves(place.registry, ledger, "later")
    await damage(url)
    damaged = await make_backup(place.backup)

    stopped = await place.failed(await place.start(cause="rows are gone"))
    recovery = await place.done(await place.resume(stopped.metadata["recovery_id"]))

    assert isinstance(stopped, errors.RecoveryStopped)
    assert damaged.id in stopped.message
    assert recovery.backup_id == sound.id
    assert await registry_tools.value(url, "SELECT count(*) FROM registry.versions WHERE subject LIKE 'filled-%'") == 5
    assert await ledger.lost(url) == {}
    assert (await registry_tools.run(url, "check")).result["problems"] == []


async def test_plan(place: Site) -> None:
    """A dry run says what each step would do and what would be lost, and changes nothing."""
    made = await make_backup(place.backup)
    ledger = Ledger()
    await serves(place.registry, ledger, "later")
    target = restore_pb2.RestoreTarget(backup_id=made.id)

    plan = await place.done(await place.start(target, dry_run=True))

    assert plan.state == recovery_pb2.RECOVERY_STATE_PLANNED
    assert (plan.loss_window.changes, plan.backup_id) == (1, made.id)
    assert states(plan) == {**dict.fromkeys(STEPS, "done"), "verify": "skipped", "integrity": "failed"}
    assert plan.loss_window.confirmation in plan.problem
    assert await place.recoveries() == []
    await serves(place.registry, ledger, "still")


@pytest.mark.option("admin.directory")
async def test_old_plans_go(make_admin_service: MakeAdminService, tmp_path: Path) -> None:
    """A process removes what dry runs found longer ago than operations are remembered, and nothing younger."""
    plans = tmp_path / "admin" / PLANS
    plans.mkdir(parents=True)
    old, young = plans / "old.json", plans / "young.json"
    for path, days in ((old, KEEP_DAYS + 1), (young, KEEP_DAYS - 1)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * 86_400,) * 2)

    service = make_admin_service("postgresql://127.0.0.1:1/none", registry=["127.0.0.1:1"], backup=["127.0.0.1:1"])
    await service.start_async()

    async def swept() -> bool:
        return not old.exists()

    await eventually(swept)
    assert young.exists()


async def test_loss_that_is_not_confirmed_and_aborted(place: Site) -> None:
    """A recovery that would lose changes stands still before the swap; no other may begin meanwhile; aborted, the
    registry serves as before, with all that it had. Another admin process shows every step from the start."""
    made = await make_backup(place.backup)
    ledger = Ledger()
    await serves(place.registry, ledger, "later")

    begun = await place.start(restore_pb2.RestoreTarget(backup_id=made.id))
    await place.failed(begun)
    seen = place.steps_seen
    await place.replace_admin()
    refused = await place.failed(begun)
    seen_again = place.steps_seen
    stands = await place.get(refused.metadata["recovery_id"])
    with pytest.raises(errors.OperationRunning) as second:
        await place.start()
    aborted = await place.done(await place.abort(stands.id))

    assert seen == seen_again == list(STEPS[:7])
    assert isinstance(refused, errors.LossWindowChanged)
    assert stands.state == recovery_pb2.RECOVERY_STATE_UNCONFIRMED
    assert refused.metadata["confirmation"] == stands.loss_window.confirmation
    assert second.value.metadata["recovery_id"] == stands.id
    assert aborted.state == recovery_pb2.RECOVERY_STATE_ABORTED
    await serves(place.registry, ledger, "after")
    assert await ledger.lost(database_of(place.registry)) == {}


async def test_loss_that_is_confirmed(place: Site) -> None:
    """With the confirmation it goes on where it stood; what was confirmed is lost, and the age of the newest change
    that came back is told."""
    made = await make_backup(place.backup)
    ledger = Ledger()
    await serves(place.registry, ledger, "later")
    stands = await place.failed(await place.start(restore_pb2.RestoreTarget(backup_id=made.id)))

    recovery = await place.done(await place.resume(stands.metadata["recovery_id"], stands.metadata["confirmation"]))

    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE
    assert recovery.recovery_point.ToNanoseconds() > 0
    assert recovery.steps[5].attempts == 1
    assert len(await ledger.lost(database_of(place.registry))) == 1


async def test_nothing_is_served_before_a_loss_is_confirmed(place: Site) -> None:
    """Under STOP_FIRST neither reads nor writes are answered from the fence on, also while the recovery waits for the
    confirmation of a loss; confirmed, the registry serves again, without what was lost and with all before it."""
    made = await make_backup(place.backup)
    ledger = Ledger()
    await serves(place.registry, ledger, "later")
    [lost] = ledger.ids
    stop = recovery_pb2.TRAFFIC_POLICY_STOP_FIRST
    stands = await place.failed(await place.start(restore_pb2.RestoreTarget(backup_id=made.id), traffic=stop))
    async with once(place.registry) as calls:
        with pytest.raises(errors.NotServing):
            await calls.schema(1)
        with pytest.raises(errors.NotServing):
            await calls.register("refused", {"title": "refused"})

        recovery = await place.done(await place.resume(stands.metadata["recovery_id"], stands.metadata["confirmation"]))

        assert json.loads((await calls.schema(1)).text)["title"] == "filled 0"
        with pytest.raises(errors.SchemaNotFound):
            await calls.schema(lost)
    await serves(place.registry, ledger, "after")
    assert isinstance(stands, errors.LossWindowChanged)
    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE, states(recovery)
    assert "MAINTENANCE" in recovery.steps[1].message
    assert recovery.write_outage.ToNanoseconds() < recovery.write_pause.ToNanoseconds()
    assert [*await ledger.lost(database_of(place.registry))] == [lost]
    assert ledger.twice == []
