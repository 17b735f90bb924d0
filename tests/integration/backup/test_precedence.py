"""A restore that is needed does not wait for one that is only tried, in whichever process that goes on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2
from llm_schema_registry.client import error_of
from llm_schema_registry.operations.leases import PATIENCE_SECONDS
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_faults import eventually
from tests.fix_service import Service
from tests.restore_site import FAILPOINTS, Ledger, activate, calls, existing, make_backup, prepare, serves


@pytest.mark.parametrize(
    ("what", "replicas"),
    [
        ("verification to V4", 1),
        pytest.param("drill", 2, marks=(pytest.mark.slow, pytest.mark.rotating(3, "long faults"))),
    ],
)
async def test_a_trial_makes_room(
    filled_registry: Service, make_backup_service: MakeBackupService, what: str, replicas: int
) -> None:
    """It is cancelled, its database is dropped, and what it tried is not told to be damaged."""
    url = database_of(filled_registry)
    trying = make_backup_service(url)
    trying.environment[FAILPOINTS] = "restore.created:pause:300"
    needing = make_backup_service(url) if replicas == 2 else trying
    async with calls(trying) as backup:
        made = await make_backup(backup)
        if what == "drill":
            begun: Any = await backup.backups.RunDrill(backup_service_pb2.RunDrillRequest())
        else:
            level = backup_pb2.VERIFICATION_LEVEL_V4
            request = backup_service_pb2.VerifyBackupRequest(backup_id=made.id, level=level)
            begun = await backup.backups.VerifyBackup(request)

        async def tried() -> bool:
            return len(await existing(url)) == 1

        await eventually(tried)
        if needing is not trying:
            await needing.start_async()
        async with BackupCalls(needing.target) as other:
            started = time.monotonic()
            prepared = await prepare(other)
            waited = time.monotonic() - started
            await activate(other, prepared.id)
        ended = await backup.ended(begun)

        assert isinstance(error_of(ended.error), errors.OperationCancelled)
        assert waited < PATIENCE_SECONDS
        found = (await backup.backups.GetBackup(backup_service_pb2.GetBackupRequest(backup_id=made.id))).backup
        assert all(each.passed for each in found.verifications)
        await serves(filled_registry, Ledger(), "after")
