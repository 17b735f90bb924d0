"""PostgreSQL or the backup service is killed during recoveries: at each boundary of the steps, inside the long ones."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.client import error_of
from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import MakeBackupService
from tests.fix_fault_table import FaultTable
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, ServiceFailed
from tests.recovery_kills import Night, held
from tests.recovery_site import STEPS, site
from tests.restore_site import FAILPOINTS, existing, serves

pytestmark = [pytest.mark.slow, pytest.mark.rotating(8), pytest.mark.timeout(400)]
NAMES = {"postgres": "PostgreSQL", "backup": "the backup service"}
LONG_STEPS = (
    "verify.reading",
    "backup.snapshot_open",
    "backup.piece_written",
    "backup.before_commit",
    "backup.committed",
    "restore.created",
    "place.restored",
    "journal.prepared",
    "journaled.prepared",
)
SWAP_BEGINS = ("journaled.activating", "restore.fenced", "restore.epoch_begun", "swap.closed", "swap.terminated")
SWAP_ENDS = (
    "swap.first_renamed",
    "swap.second_renamed",
    "swap.renamed",
    "journal.active",
    "journaled.active",
)


@pytest.fixture(params=["postgres", "backup"])
async def night(
    request: pytest.FixtureRequest,
    own_postgres: Callable[..., OwnPostgres],
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
) -> AsyncIterator[Night]:
    """A system with some content and a backup, and who is killed in it."""
    server = own_postgres(durable=True)
    url = server.create_database("llm")
    registry = make_service(url)
    await registry.start_async()
    async with site([registry], make_backup_service(url), make_admin_service, tmp_path / "admin", url) as place:
        made = Night(place, server if request.param == "postgres" else None, url, request.param)
        await made.begin()
        yield made


async def ends_well(night: Night) -> str:
    """The recovery is done and the new state serves: what had to be done by hand for that."""
    await night.ends()
    pushed = night.pushed()
    await serves(night.place.registry, night.ledger, "after")
    assert await night.ledger.lost(night.url) == {}
    assert night.ledger.twice == []
    assert (await registry_tools.run(night.url, "check")).result["problems"] == []
    return pushed


@pytest.mark.parametrize("moment", ["begun", "acted"])
async def test_killed_at_every_boundary(night: Night, fault_table: FaultTable, moment: str) -> None:
    """One recovery, in each step of which somebody is killed: where the journal says that it began and nothing is done,
    or where all is done and the journal does not say so. Each time one state serves, and in the end the new one."""
    points = ",".join(f"recovery.{step}.{moment}:stop" for step in STEPS)
    await night.place.replace_admin(**{FAILPOINTS: points})
    admin, behind = night.place.admin_service, []
    for _ in STEPS:
        await night.until(lambda: held(admin))
        behind.append(night.pushed())
        await night.lose(admin)
    behind.append(await ends_well(night))

    async def one_kept() -> bool:
        return len(await existing(night.url)) == 1

    await eventually(one_kept)
    for step, pushed in zip(STEPS, behind[1:], strict=True):
        injected = f"kill -9 of {NAMES[night.victim]} in {step}, {moment}"
        fault_table("D8", injected, f"reads served, nothing lost; {pushed}; DONE")


@pytest.mark.parametrize("points", [LONG_STEPS, SWAP_BEGINS, SWAP_ENDS], ids=["long-steps", "swap-begins", "swap-ends"])
async def test_killed_inside_long_steps(night: Night, fault_table: FaultTable, points: Sequence[str]) -> None:
    """Recoveries in the middle of whose verification, backup, restore and swap somebody is killed, once at each point:
    each time one state serves, and in the end the new one."""
    service, behind = night.place.backup_service, []
    await asyncio.to_thread(service.kill)
    if night.victim == "postgres":
        service.environment[FAILPOINTS] = ",".join(f"{point}:stop" for point in points)
        await service.start_async()
    for point in points:
        if night.victim == "postgres":
            await night.until(lambda: held(service))
            behind.append(night.pushed())
            await night.lose(service)
        else:
            await restarted(night, f"{point}:kill")
            await night.until(lambda: service.status is not None)
            assert service.status == -signal.SIGKILL
            behind.append(night.pushed())
            await restarted(night, "")
            await night.one_state_serves()
    behind.append(await ends_well(night))
    for point, pushed in zip(points, behind[1:], strict=True):
        injected = f"kill -9 of {NAMES[night.victim]} at {point}"
        fault_table("D9", injected, f"reads served, nothing lost; {pushed}; DONE")


async def restarted(night: Night, failpoints: str) -> None:
    """The backup service runs again, with other failpoints: it may reach one before it is ready."""
    service = night.place.backup_service
    await asyncio.to_thread(service.kill)
    service.environment[FAILPOINTS] = failpoints
    try:
        await night.start()
    except ServiceFailed:
        if not failpoints or service.status is None:
            raise


async def gone_back(night: Night) -> recovery_pb2.Recovery:
    """The recovery, aborted. What the smoke test wrote is lost by going back, and has to be confirmed."""
    recovery_id, _ = night.recovery
    ended = await night.place.ended(await night.place.abort(recovery_id))
    if ended.HasField("error"):
        refused = error_of(ended.error)
        assert isinstance(refused, errors.LossWindowChanged), refused
        await night.place.done(await night.place.abort(recovery_id, refused.metadata["confirmation"]))
    return await night.place.get(recovery_id)


@pytest.mark.parametrize("steps", [STEPS[1:5], STEPS[5:8], STEPS[8:]], ids=["before", "restore-and-switch", "behind"])
async def test_killed_and_aborted(night: Night, fault_table: FaultTable, steps: Sequence[str]) -> None:
    """The admin service and another one are killed at once, behind a step; aborted, the old state serves: the same
    database as before, with all that was written, and nothing half restored beside it."""
    place, kept = night.place, 0
    for step in steps:
        await serves(place.registry, night.ledger, f"before-{step}")
        before = await night.database()
        await place.replace_admin(**{FAILPOINTS: f"recovery.{step}.acted:stop"})
        place.let_the_lease_end()
        begun = asyncio.create_task(place.start())
        await night.holds(place.admin_service)
        await asyncio.to_thread(place.admin_service.kill)
        await asyncio.gather(begun, return_exceptions=True)
        await night.kill()
        await night.start()
        await place.replace_admin()
        place.let_the_lease_end()

        aborted = await gone_back(night)

        assert aborted.state == recovery_pb2.RECOVERY_STATE_ABORTED
        assert await night.database() == before
        await serves(place.registry, night.ledger, f"after-{step}")
        assert await night.ledger.lost(night.url) == {}
        kept += step in STEPS[STEPS.index("switch") :]
        assert len(await existing(night.url)) == kept, "what was swapped in is kept, anything else is dropped"
        injected = f"kill -9 of the admin service and {NAMES[night.victim]} behind {step}, aborted"
        fault_table("D10", injected, "the old database serves; nothing lost")
