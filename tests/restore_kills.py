"""Processes that are killed in the middle of a restore, and what must be true when another one goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.operations import keys
from services.backup.usecases.repository import RESTORING
from tests import registry_tools
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_service import Service
from tests.restore_site import (
    FAILPOINTS,
    Ledger,
    activate,
    calls,
    existing,
    final,
    make_backup,
    prepare,
    serves,
)

STATES = restore_pb2.RestoreState.Name
ATTEMPTS_MAX = 5


def take_lease_away(service: Service) -> None:
    """Ends the lease of restores of a process that was killed, so that nobody has to wait for its half minute."""
    store = Path(service.environment["SCHEMA_REGISTRY__BACKUP__DIRECTORY"])
    (store / keys.lease(RESTORING)).unlink(missing_ok=True)


async def doomed(
    make_backup_service: MakeBackupService, url: str, failpoint: str, call: Callable[[BackupCalls], Awaitable[Any]]
) -> None:
    """Begins something in a process that is killed at a failpoint, and waits for its end.

    A process that a busy machine keeps from renewing its lease gives up before the failpoint: it is asked again.
    """
    service = make_backup_service(url)
    service.environment[FAILPOINTS] = f"{failpoint}:kill"
    await service.start_async()
    async with BackupCalls(service.target) as made:
        for _ in range(ATTEMPTS_MAX):
            with suppress(grpc.aio.AioRpcError):
                answer = await call(made)
                if hasattr(answer, "operation"):
                    ended = await made.ended(answer)
                    assert ended.error.reason == "LEASE_LOST", ended
                    continue
            break
    assert await asyncio.to_thread(service.wait) == -signal.SIGKILL


async def killed_swap(
    registry: Service,
    make_backup_service: MakeBackupService,
    fault_table: FaultTable,
    case: str,
    failpoint: str,
    *,
    back: bool = False,
    patient: bool = False,
) -> None:
    """Kills an activation or a revert at a failpoint: another process ends it, and a restore works after that.

    patient: that restore waits for the half minute of the killed process's lease, which is taken away otherwise.
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

    def swap(made: BackupCalls) -> Awaitable[Any]:
        if back:
            return made.restores.RevertRestore(pb.RevertRestoreRequest(restore_id=prepared.id))
        return made.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))

    await doomed(make_backup_service, url, failpoint, swap)

    another = make_backup_service(url)
    async with calls(another) as backup:
        found, seconds = await final(backup, prepared.id)
        await serves(registry, ledger, f"after-{failpoint}-{back}")
        assert await ledger.lost(url) == {}
        assert ledger.twice == []
        told = await registry_tools.run(url, "check")
        assert told.result["problems"] == []
        if not patient:
            take_lease_away(another)
        await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
        assert await existing(url) == []
        await activate(backup, (await prepare(backup)).id)
    fault_table(
        case,
        f"kill -9 at {failpoint} of {'a revert' if back else 'an activation'}",
        f"{STATES(found.state)} {seconds:.1f} s after the next start; nothing lost; the next restore worked",
    )
