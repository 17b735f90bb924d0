"""The admin service is killed inside the long steps of a recovery, while the backup service is in the midst of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_service import Service
from tests.recovery_kills import Night, held
from tests.recovery_site import site
from tests.restore_site import FAILPOINTS, existing, serves

pytestmark = [pytest.mark.slow, pytest.mark.rotating(2), pytest.mark.timeout(300)]
LONG_STEPS = (
    "verify.reading",
    "backup.piece_written",
    "backup.before_commit",
    "restore.created",
    "place.restored",
    "journal.prepared",
)
SWAP = ("journaled.activating", "restore.fenced", "restore.epoch_begun", "swap.closed", "swap.first_renamed")


@pytest.fixture
async def night(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
) -> AsyncIterator[Night]:
    """A system with some content and a backup, whose admin service is killed."""
    url = database_of(filled_registry)
    async with site([filled_registry], make_backup_service(url), make_admin_service, tmp_path / "admin", url) as place:
        made = Night(place, None, url, "admin")
        await made.begin()
        yield made


async def hold_at(night: Night, *points: str) -> None:
    """The backup service is stopped at each of these points from now on, once."""
    service = night.place.backup_service
    await asyncio.to_thread(service.kill)
    service.environment[FAILPOINTS] = ",".join(f"{point}:stop" for point in points)
    await service.start_async()


async def ends_well(night: Night) -> None:
    """The recovery is done, nothing that was acknowledged is lost, and one restore was made."""
    await night.ends()
    assert len(await night.place.recoveries()) == 1
    assert len(await existing(night.url)) == 1
    await serves(night.place.registry, night.ledger, "after")
    assert await night.ledger.lost(night.url) == {}
    assert night.ledger.twice == []
    assert (await registry_tools.run(night.url, "check")).result["problems"] == []


async def test_killed_inside_verify_backup_and_restore(night: Night, fault_table: FaultTable) -> None:
    """One recovery, whose process is killed while the backup is read, the safety backup is made and the restore is
    prepared: each time the old state serves, and resumed the recovery finds what was begun and ends."""
    await hold_at(night, *LONG_STEPS)
    for _ in LONG_STEPS:
        await night.until(lambda: held(night.place.backup_service))
        await night.lose(night.place.backup_service)

    await ends_well(night)

    assert len(night.pushes) == len(LONG_STEPS)
    for point in LONG_STEPS:
        fault_table("D11", f"kill -9 of the admin service at {point}", "reads served, resumed, DONE; nothing lost")


@pytest.mark.parametrize("point", SWAP)
async def test_killed_inside_the_switch(night: Night, fault_table: FaultTable, point: str) -> None:
    """The process of a recovery is killed in the midst of the swap: that ends without it, one state serves, and
    resumed the recovery finds it so."""
    await hold_at(night, point)
    await night.until(lambda: held(night.place.backup_service))
    await night.lose(night.place.backup_service)

    await ends_well(night)

    assert len(night.pushes) == 1
    fault_table("D11", f"kill -9 of the admin service at {point}", "one state serves, resumed, DONE; nothing lost")
