"""backup.v1.RestoreService over a real channel, beside a registry that serves."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import grpc
import psycopg
import pytest

from deploy.local.postgres import Postgres as Server
from llm_schema_registry.backup.v1 import backup_service_pb2, restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from services.backup.domain import layout
from tests import registry_tools
from tests.fix_backup import BackupCalls, MakeBackupService, database_of, fill
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import MakeDatabase
from tests.fix_service import MakeService, Service
from tests.restore_site import LATEST, activate, calls, existing, final, make_backup, prepare, refused, revert, shown

UNKNOWN = "01J00000000000000000000000"


def at(epoch: int, position: int) -> restore_pb2.RestoreTarget:
    """The target right after a change."""
    return restore_pb2.RestoreTarget(place=restore_pb2.HistoryPlace(epoch=epoch, position=position))


async def archived(backup: BackupCalls, position: int) -> None:
    """Returns when the archive has a position."""

    async def there() -> bool:
        status = (await backup.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())).status
        return bool(status.position >= position)

    await eventually(there)


async def test_latest_restore_loses_nothing(backup: BackupCalls, filled_registry: Service) -> None:
    """A restore to `latest` holds what was written after its preparation too, and begins a new epoch."""
    await make_backup(backup)
    prepared = await prepare(backup, LATEST)
    await asyncio.to_thread(fill, filled_registry, "later", 3)

    answer = await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
    active = await backup.done(answer, restore_pb2.Restore())

    assert active.state == restore_pb2.RESTORE_STATE_ACTIVE
    assert active.new_epoch == 2
    assert active.place.position == 8
    await asyncio.to_thread(fill, filled_registry, "after", 1)


@pytest.mark.slow
@pytest.mark.rotating(3, "long faults")
async def test_a_rotten_entry_of_another_restore(
    filled_registry: Service, make_backup_service: MakeBackupService, tmp_path: Path
) -> None:
    """A restore whose record in the journal has rotten is not shown, and what is asked of it is refused with the object
    and the remedy, which the store's status tells too; another one is planned, prepared and swapped in."""
    service = make_backup_service(database_of(filled_registry))
    async with calls(service) as backup:
        await make_backup(backup)
        lost = await prepare(backup)
        await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=lost.id))
    entry = max((tmp_path / "store" / layout.restore(lost.id)).iterdir())
    entry.chmod(0o600)
    entry.write_bytes(entry.read_bytes()[:-20])
    key = str(entry.relative_to(tmp_path / "store"))

    async with calls(service) as backup:
        (store,) = (await backup.backups.GetStoreStatus(backup_service_pb2.GetStoreStatusRequest())).stores
        _, error = await refused(backup.restores.GetRestore(pb.GetRestoreRequest(restore_id=lost.id)))
        await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST, validate_only=True))
        active = await activate(backup, (await prepare(backup)).id)
        listed = (await backup.restores.ListRestores(pb.ListRestoresRequest())).restores

    assert (error.reason, error.metadata["key"]) == ("BACKUP_DAMAGED", key)
    assert "brought back" in error.message
    assert key in store.problem
    assert [each.id for each in listed] == [active.id]
    assert service.log.count("restore passed over") >= 1


async def test_restore_to_a_backup_asks_for_confirmation(backup: BackupCalls, filled_registry: Service) -> None:
    """What would be lost has to be confirmed, and is then lost, and comes back with a revert."""
    made = await make_backup(backup)
    await asyncio.to_thread(fill, filled_registry, "later", 3)
    prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
    before = (await backup.restores.GetRestore(pb.GetRestoreRequest(restore_id=prepared.id))).restore
    confirmed = pb.ActivateRestoreRequest(restore_id=prepared.id, confirmation=before.loss_window.confirmation)
    active = await backup.done(await backup.restores.ActivateRestore(confirmed), restore_pb2.Restore())
    answer = await backup.restores.RevertRestore(pb.RevertRestoreRequest(restore_id=prepared.id))
    reverted = await backup.done(answer, restore_pb2.Restore())
    released = (await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))).restore

    assert refusal.value.code() == grpc.StatusCode.ABORTED
    assert before.loss_window.changes == 3
    assert active.place.position == made.position
    assert reverted.state == restore_pb2.RESTORE_STATE_REVERTED
    assert reverted.new_epoch == 3
    assert reverted.next_schema_id > active.next_schema_id
    assert released.state == restore_pb2.RESTORE_STATE_RELEASED
    await asyncio.to_thread(fill, filled_registry, "after", 1)


async def test_what_is_refused(backup: BackupCalls, filled_registry: Service) -> None:
    """Every call names what is wrong: fields, ids that nobody has, states, targets that cannot be reached."""
    made = await make_backup(backup)
    prepared = await prepare(backup, restore_pb2.RestoreTarget(backup_id=made.id))
    service, known = backup.restores, prepared.id
    future = restore_pb2.RestoreTarget()
    future.time.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    past = restore_pb2.RestoreTarget()
    past.time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    cases: list[tuple[Any, str]] = [
        (service.PrepareRestore(pb.PrepareRestoreRequest()), "INVALID_FIELD"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST, request_id="a b")), "INVALID_FIELD"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=at(0, 1))), "INVALID_FIELD"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=at(1, 99))), "TARGET_UNREACHABLE"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=at(7, 3))), "TARGET_UNREACHABLE"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=at(1, 1))), "TARGET_UNREACHABLE"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=future)), "TARGET_UNREACHABLE"),
        (service.PrepareRestore(pb.PrepareRestoreRequest(target=past)), "TARGET_UNREACHABLE"),
        (service.GetRestore(pb.GetRestoreRequest(restore_id="x")), "INVALID_FIELD"),
        (service.GetRestore(pb.GetRestoreRequest(restore_id=UNKNOWN)), "RESTORE_NOT_FOUND"),
        (service.ActivateRestore(pb.ActivateRestoreRequest(restore_id=UNKNOWN)), "RESTORE_NOT_FOUND"),
        (
            service.ActivateRestore(pb.ActivateRestoreRequest(restore_id=known, confirmation="all of it")),
            "INVALID_FIELD",
        ),
        (service.RevertRestore(pb.RevertRestoreRequest(restore_id=UNKNOWN)), "RESTORE_NOT_FOUND"),
        (service.RevertRestore(pb.RevertRestoreRequest(restore_id=known)), "ILLEGAL_STATE"),
        (service.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=UNKNOWN)), "RESTORE_NOT_FOUND"),
    ]
    for number, (call, reason) in enumerate(cases):
        _, error = await refused(call)
        assert error.reason == reason, (number, error)
    await service.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=known))
    _, error = await refused(service.ActivateRestore(pb.ActivateRestoreRequest(restore_id=known)))
    assert error.reason == "ILLEGAL_STATE"
    assert await existing(database_of(filled_registry)) == []


async def test_repeats(backup: BackupCalls) -> None:
    """A repeat with the same request id returns the same operation, however things stand by then; with another body it
    is refused; a release may be repeated."""
    await make_backup(backup)
    service = backup.restores
    ask = pb.PrepareRestoreRequest(target=LATEST, request_id="prepare-1")
    first = (await service.PrepareRestore(ask)).operation
    restore = await backup.done(await service.PrepareRestore(ask), restore_pb2.Restore())
    other = pb.PrepareRestoreRequest(target=at(1, 5), request_id="prepare-1")
    _, reused = await refused(service.PrepareRestore(other))
    swap = pb.ActivateRestoreRequest(restore_id=restore.id, request_id="activate-1")
    operations = [(await service.ActivateRestore(swap)).operation.name for _ in range(2)]
    await backup.done(await service.ActivateRestore(swap), restore_pb2.Restore())
    _, anew = await refused(service.ActivateRestore(pb.ActivateRestoreRequest(restore_id=restore.id)))
    back = pb.RevertRestoreRequest(restore_id=restore.id, request_id="revert-1")
    reverts = [(await service.RevertRestore(back)).operation.name for _ in range(2)]
    await backup.done(await service.RevertRestore(back), restore_pb2.Restore())
    for _ in range(2):
        released = (await service.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=restore.id))).restore
        assert released.state == restore_pb2.RESTORE_STATE_RELEASED

    # Now that it is released, the operations are still what a repeat is told.
    assert (await service.ActivateRestore(swap)).operation.name == operations[0]
    assert (await service.PrepareRestore(ask)).operation.name == first.name
    assert reused.reason == "REQUEST_ID_REUSED"
    assert anew.reason == "ILLEGAL_STATE"
    assert len(set(operations)) == len(set(reverts)) == 1
    listed = (await service.ListRestores(pb.ListRestoresRequest())).restores
    assert [each.id for each in listed] == [restore.id]


@pytest.mark.slow
async def test_point_in_time_across_a_restore(
    backup: BackupCalls, filled_registry: Service, fault_table: FaultTable
) -> None:
    """Any place and moment of the archive can be restored to, exactly, also on a line that was left; `latest` is on the
    newest."""
    await make_backup(backup)
    await asyncio.to_thread(fill, filled_registry, "first", 3)
    await archived(backup, 8)
    url = database_of(filled_registry)
    moment = await registry_tools.value(url, "SELECT time FROM registry.changes WHERE position = 7")
    early = await prepare(backup, at(1, 6))
    window = (await shown(backup, early.id)).loss_window
    await activate(backup, early.id, window.confirmation)
    await asyncio.to_thread(fill, filled_registry, "second", 2)
    await archived(backup, 9)

    time = restore_pb2.RestoreTarget()
    time.time.FromDatetime(moment)
    abandoned, latest, by_time = await prepare(backup, at(1, 7)), await prepare(backup), await prepare(backup, time)

    assert early.place.position == 6
    assert window.changes == 2
    assert (abandoned.place.epoch, abandoned.place.position) == (1, 7)
    assert (latest.place.epoch, latest.place.position) == (2, 9)
    # On the line that serves, that moment lies before its own epoch began.
    assert (by_time.place.epoch, by_time.place.position) == (1, 6)
    fault_table("T25", "targets across a restore's fork, by place and time", "exact, also on the line that was left")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_database_that_does_not_answer(
    own_postgres: Any, make_service: MakeService, make_backup_service: MakeBackupService
) -> None:
    """Restores are shown while the database server is down; what needs it says so, and does nothing."""
    server = own_postgres()
    url = server.create_database("llm")
    registry = make_service(url)
    await registry.start_async()
    await asyncio.to_thread(fill, registry, "filled", 3)
    async with calls(make_backup_service(url)) as backup:
        await make_backup(backup)
        first = await prepare(backup)
        await activate(backup, first.id)
        prepared = await prepare(backup)
        await server.stop_async()

        active, waiting = await shown(backup, first.id), await shown(backup, prepared.id)
        answer = await backup.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
        ended = await backup.ended(answer)
        _, error = await refused(backup.restores.RevertRestore(pb.RevertRestoreRequest(restore_id=first.id)))
        await server.start_async()
        found, _ = await final(backup, prepared.id)
        await activate(backup, prepared.id)

    assert active.state == restore_pb2.RESTORE_STATE_ACTIVE
    assert not active.HasField("loss_window")
    assert not waiting.loss_window.live_readable
    assert "DATABASE_UNAVAILABLE" in str(ended.error)
    assert error.reason == "DATABASE_UNAVAILABLE"
    assert found.state == restore_pb2.RESTORE_STATE_PREPARED


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_another_registrys_server(
    backup: BackupCalls,
    make_database: MakeDatabase,
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    fault_table: FaultTable,
) -> None:
    """A store's backups are not restored onto a server where another registry lives; onto an empty new one they are."""
    await make_backup(backup)
    url = make_database()
    other = make_service(url)
    await other.start_async()
    async with calls(make_backup_service(url, archive__enabled="false")) as stranger:
        fresh = await prepare(stranger)
        await asyncio.to_thread(fill, other, "its own", 1)
        _, error = await refused(stranger.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST)))
        answer = await stranger.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=fresh.id))
        ended = await stranger.ended(answer)
        await stranger.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=fresh.id))

    assert error.reason == "WRONG_CLUSTER"
    assert "WRONG_CLUSTER" in str(ended.error)
    await asyncio.to_thread(fill, other, "goes on", 1)
    fault_table(
        "T22", "target is empty, then another registry's", "prepared; then WRONG_CLUSTER, the other one goes on"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_schemas_as_places(
    postgres: Server,
    make_database: MakeDatabase,
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    rng: random.Random,
) -> None:
    """Without CREATEDB the same is done by schemas: activated, reverted, released."""
    role = f"schema_role_{rng.randrange(10**9)}"
    url = make_database()
    parts = urlsplit(url)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret-of-schemas'".encode())
        connection.execute(f"ALTER DATABASE {parts.path[1:]} OWNER TO {role}".encode())
    own = urlunsplit(parts._replace(netloc=f"{role}:secret-of-schemas@{parts.netloc.rpartition('@')[2]}"))
    registry = make_service(own)
    await registry.start_async()
    try:
        await asyncio.to_thread(fill, registry, "filled", 3)
        async with calls(make_backup_service(own, restore__place="schema")) as backup:
            await make_backup(backup)
            prepared = await prepare(backup)
            await asyncio.to_thread(fill, registry, "later", 2)
            active = await activate(backup, prepared.id)
            await asyncio.to_thread(fill, registry, "after", 1)
            window = (await shown(backup, prepared.id)).loss_window
            reverted = await revert(backup, prepared.id, window.confirmation)
            await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
        await asyncio.to_thread(fill, registry, "last", 1)
        assert await registry.stop_async() == 0
        checked = await registry_tools.run(own, "check")
    finally:
        await asyncio.to_thread(registry.kill)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {parts.path[1:]} OWNER TO CURRENT_USER".encode())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER".encode())
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())

    assert active.place.position == 5
    assert window.changes == 1
    assert reverted.state == restore_pb2.RESTORE_STATE_REVERTED
    assert checked.result["problems"] == []
