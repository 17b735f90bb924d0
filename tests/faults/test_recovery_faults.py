"""Recoveries whose processes, server or data are gone: either the old or the new state serves, and it can be ended."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.backup.v1 import restore_pb2
from tests import registry_tools
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_backup import MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, Service, ServiceFailed
from tests.object_servers import S3Server
from tests.recovery_site import STATES, STEPS, Site, site, states
from tests.restore_site import FAILPOINTS, Ledger, existing, load, make_backup, serves

pytestmark = [pytest.mark.slow, pytest.mark.rotating(4), pytest.mark.timeout(400)]


RECOVERY_POINT_SECONDS_MAX = 60.0
AGAIN_SECONDS = 0.5
"""Between two starts of a process that does not start."""


def s3_options(server: S3Server, bucket: str) -> dict[str, object]:
    """Options of a service that keeps its objects in a bucket."""
    return {
        "s3__bucket": bucket,
        "s3__endpoint": server.endpoint,
        "s3__region": server.region,
        "s3__access_key_id": server.access_key_id,
        "s3__secret_access_key": server.secret_access_key,
    }


MakeSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def make_site(make_backup_service: MakeBackupService, make_admin_service: MakeAdminService, tmp_path: Path) -> MakeSite:
    """Makes a backup and an admin service beside a registry: `make_site(registry, url, failpoints="", **options)`.

    failpoints: of the backup service. options: of both; without a bucket each has a folder.
    """

    def made(registry: Service, url: str, *, failpoints: str = "", **options: object) -> Any:
        service = make_backup_service(url, **options)
        if failpoints:
            service.environment[FAILPOINTS] = failpoints
        folder = None if options else tmp_path / "admin"
        return site([registry], service, make_admin_service, folder, url, **options)

    return made


def seconds(recovery: recovery_pb2.Recovery) -> str:
    """What was measured, in words."""
    time, point = recovery.recovery_time.ToNanoseconds() / 1e9, recovery.recovery_point.ToNanoseconds() / 1e9
    outage, pause = recovery.write_outage.ToNanoseconds() / 1e9, recovery.write_pause.ToNanoseconds() / 1e9
    return f"RTO {time:.1f} s, RPO {point:.1f} s, writes refused {outage:.2f} s, paused {pause:.1f} s"


async def fresh_machine(place: Site) -> None:
    """The admin service's process and all of its files are gone; another one begins with its options alone."""
    lost = place.admin_service
    await asyncio.to_thread(lost.kill)
    await place.admin.close()
    shutil.rmtree(lost.folder)
    lost.folder.mkdir()
    await lost.start_async()
    place.admin = admin_client(lost)


async def test_database_that_is_gone(
    own_postgres: Callable[..., OwnPostgres],
    postgres_cluster: Path,
    make_service: MakeService,
    make_site: MakeSite,
    s3_server: S3Server,
    fault_table: FaultTable,
) -> None:
    """Under load the server's data is deleted, and so is all that the admin service had; a fresh server stands on the
    same port: the bucket alone brings all back that was archived, the admin service's own records as well, and the
    registry that waited for its database serves it. No id is given twice."""
    server = own_postgres()
    url = server.create_database("llm")
    registry, ledger = make_service(url), Ledger()
    await registry.start_async()
    options = s3_options(s3_server, s3_server.bucket())
    async with make_site(registry, url, **options) as place:
        await make_backup(place.backup)
        planned = await place.start(dry_run=True)
        assert (await place.done(planned)).state == recovery_pb2.RECOVERY_STATE_PLANNED
        async with load(registry.target, ledger, "load", writers=2, readers=1):
            await asyncio.sleep(1)
            archived = dict(ledger.ids)
            await place.archived(await registry_tools.value(url, "SELECT position FROM registry.head"))
            await server.kill_async()
            told = dict(ledger.ids)
            shutil.rmtree(server.folder)
            await fresh_machine(place)
            shutil.copytree(postgres_cluster, server.folder)
            await server.start_async()

            recovery = await place.done(await place.start(cause="the disk is gone"))

        assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE, states(recovery)
        # What the process before had planned is read from the bucket.
        assert (await place.done(planned)).state == recovery_pb2.RECOVERY_STATE_PLANNED
        assert states(recovery)["safety"] == "skipped"
        # How long it took until the recovery began, and a little more: when the database died nobody knows.
        assert 0 < recovery.recovery_point.ToTimedelta().total_seconds() < RECOVERY_POINT_SECONDS_MAX
        lost = await ledger.lost(url)
        assert lost.keys() <= told.keys() - archived.keys()
        assert len(ledger.ids) > len(told)
        await serves(registry, ledger, "after")
        assert ledger.twice == []
    injected = "PostgreSQL's data and all of the admin service deleted under load, fresh machine, S3 alone"
    fault_table("D1", injected, f"DONE; {len(lost)} that were not archived are lost; {seconds(recovery)}")


async def migrated_by_another_release(url: str) -> None:
    """A later release has changed the tables, and says from which version on they can be used."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("ALTER TABLE registry.versions RENAME COLUMN number TO version_number")
        await connection.execute(
            "INSERT INTO registry.migrations (number, name, checksum, min_code_version)"
            " SELECT max(number) + 1, 'the_wrong_one', 'of a later release', '99.0.0' FROM registry.migrations"
        )


async def supervised(registry: Service) -> int:
    """Starts a registry until it serves, as a supervisor does; how often that took."""
    for count in itertools.count(1):
        try:
            await registry.start_async()
        except ServiceFailed:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return count
    raise AssertionError


async def refused_again(registry: Service) -> bool:
    """Whether a registry has refused to start more than once."""
    return [line["event"] for line in registry.log_lines()].count("start failed") > 1


async def test_migration_that_breaks(
    filled_registry: Service,
    make_site: MakeSite,
    fault_table: FaultTable,
) -> None:
    """Under load a wrong release has migrated the tables, so that the old one refuses to start: recovered to before
    that, the old release starts by itself and serves all that was acknowledged."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    async with make_site(filled_registry, url) as place:
        await make_backup(place.backup)
        async with load(filled_registry.target, ledger, "load", writers=2, readers=1):
            await asyncio.sleep(1)
            await filled_registry.stop_async()
            position = await registry_tools.value(url, "SELECT position FROM registry.head")
            await place.archived(position)
            await migrated_by_another_release(url)
            with pytest.raises(ServiceFailed, match=r"which needs version 99\.0\.0 or later"):
                await filled_registry.start_async()
            starting = asyncio.create_task(supervised(filled_registry))
            await eventually(lambda: refused_again(filled_registry))
            target = restore_pb2.RestoreTarget(place=restore_pb2.HistoryPlace(epoch=1, position=position))
            safety, traffic = recovery_pb2.SAFETY_POLICY_NONE, recovery_pb2.TRAFFIC_POLICY_STOP_FIRST
            recovery = await place.done(await place.start(target, safety=safety, traffic=traffic))
            refused = await starting - 1

        assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE, states(recovery)
        assert refused > 0
        await serves(filled_registry, ledger, "after")
        assert await ledger.lost(url) == {}
        assert ledger.twice == []
    injected = f"a release migrated the schema under load; the old one refused to start {refused + 1} times"
    fault_table("D2", injected, f"DONE; the old release starts and serves; nothing lost; {seconds(recovery)}")


async def killed(place: Site, failpoint: str) -> str:
    """Begins, or goes on with, the one recovery in a process that is killed at a failpoint; the recovery's id."""
    await place.replace_admin(**{FAILPOINTS: f"{failpoint}:kill"})
    place.let_the_lease_end()
    found = await place.recoveries()
    with suppress(errors.Error):
        await (place.resume(found[0].id) if found else place.start())
    await asyncio.to_thread(place.admin_service.wait)
    return failpoint


async def test_admin_service_killed_at_every_boundary(
    filled_registry: Service,
    make_site: MakeSite,
    fault_table: FaultTable,
) -> None:
    """One recovery, whose process is killed at each step in turn: after each kill reads are served, the next process
    goes on, nothing is begun twice, and in the end the new state serves."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    async with make_site(filled_registry, url) as place:
        await make_backup(place.backup)
        for step in STEPS:
            await killed(place, f"recovery.{step}.acted")
            assert (await registry_tools.value(url, "SELECT count(*) FROM registry.subjects")) >= len(ledger.ids)
        await place.replace_admin()
        place.let_the_lease_end()
        [left] = await place.recoveries()
        assert left.state == recovery_pb2.RECOVERY_STATE_STOPPED

        recovery = await place.done(await place.resume(left.id))

        assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE
        assert [each.attempts for each in recovery.steps] == [1] * 10
        await serves(filled_registry, ledger, "after")
        assert await ledger.lost(url) == {}
        assert len(await existing(url)) == 1, "a restore was made twice"
    for step in STEPS:
        fault_table("D3", f"kill -9 of the admin service in {step}", "resumed; one restore; nothing lost")


@pytest.mark.parametrize("step", ["fence", "restore", "switch"])
async def test_admin_service_killed_and_aborted(
    filled_registry: Service,
    make_site: MakeSite,
    fault_table: FaultTable,
    step: str,
) -> None:
    """A recovery whose process was killed is gone back on: what served before serves, with all that was written."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    async with make_site(filled_registry, url) as place:
        await make_backup(place.backup)
        await killed(place, f"recovery.{step}.acted")
        await place.replace_admin()
        [left] = await place.recoveries()

        aborted = await place.done(await place.abort(left.id))

        assert aborted.state == recovery_pb2.RECOVERY_STATE_ABORTED
        await serves(filled_registry, ledger, "after")
        assert await ledger.lost(url) == {}
    fault_table("D4", f"kill -9 of the admin service in {step}, aborted", "the old state serves; nothing lost")


@pytest.mark.parametrize("failpoint", ["restore.created", "restore.epoch_begun", "swap.closed"])
async def test_backup_service_killed(
    filled_registry: Service,
    make_site: MakeSite,
    fault_table: FaultTable,
    failpoint: str,
) -> None:
    """A backup service that is killed in the middle of a long step and started again: the recovery ends, or stands
    still with the old state and ends when it is resumed."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    async with make_site(filled_registry, url, failpoints=f"{failpoint}:kill") as place:
        service = place.backup_service
        await make_backup(place.backup)
        operation = await place.start()
        await asyncio.to_thread(service.wait)
        del service.environment[FAILPOINTS]
        await service.start_async()

        ended = await place.ended(operation)

        [left] = await place.recoveries()
        if left.state != recovery_pb2.RECOVERY_STATE_DONE:
            assert ended.error.reason == "RECOVERY_STOPPED"
            await place.done(await place.resume(left.id))
        await serves(filled_registry, ledger, "after")
        assert await ledger.lost(url) == {}
    fault_table(
        "D5",
        f"kill -9 of the backup service at {failpoint}",
        f"{STATES(left.state)} by itself; then DONE; nothing lost",
    )


async def test_database_server_killed(
    own_postgres: Callable[..., OwnPostgres],
    make_service: MakeService,
    make_site: MakeSite,
    fault_table: FaultTable,
) -> None:
    """PostgreSQL that is killed while the backup is restored: the old state serves when it is back, and the recovery is
    resumed to its end."""
    server = own_postgres(durable=True)
    url = server.create_database("llm")
    registry, ledger = make_service(url), Ledger()
    await registry.start_async()
    await serves(registry, ledger, "before")
    async with make_site(registry, url, failpoints="restore.created:pause:3") as place:
        await make_backup(place.backup)
        operation = await place.start()

        async def created() -> bool:
            return len(await existing(url)) == 1

        await eventually(created)
        await server.kill_async()
        await server.start_async()
        ended = await place.ended(operation)
        [left] = await place.recoveries()
        if left.state != recovery_pb2.RECOVERY_STATE_DONE:
            assert ended.HasField("error")
            await place.done(await place.resume(left.id))
        await serves(registry, ledger, "after")
        assert await ledger.lost(url) == {}
    fault_table(
        "D6", "PostgreSQL killed while the backup is restored", f"{STATES(left.state)}; then DONE; nothing lost"
    )
