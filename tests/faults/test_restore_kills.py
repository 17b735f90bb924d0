"""Activations and reverts whose process is killed: either the old or the new state serves, nothing half."""

from __future__ import annotations

import pytest

from tests.fix_backup import MakeBackupService
from tests.fix_fault_table import FaultTable
from tests.fix_service import Service
from tests.restore_kills import killed_swap

pytestmark = [pytest.mark.slow, pytest.mark.rotating(9), pytest.mark.timeout(300)]
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
PATIENT = {"restore.fenced", "swap.renamed"}
"""Where the next restore waits for the killed process's lease; it is the same one everywhere."""


@pytest.mark.parametrize("failpoint", ACTIVATION)
async def test_killed_activation(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """Wherever an activation is killed, another process ends it, nothing is lost, and the next restore works."""
    case = "T3" if failpoint.startswith("swap.") else "T2"
    await killed_swap(filled_registry, make_backup_service, fault_table, case, failpoint, patient=failpoint in PATIENT)


@pytest.mark.parametrize("failpoint", REVERT)
async def test_killed_revert(
    filled_registry: Service, make_backup_service: MakeBackupService, fault_table: FaultTable, failpoint: str
) -> None:
    """Wherever a revert is killed, another process ends it, nothing is lost, and the next restore works."""
    await killed_swap(filled_registry, make_backup_service, fault_table, "T3", failpoint, back=True)
