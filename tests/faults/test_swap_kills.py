"""Swaps whose process is killed at random times, or paused until another one has ended its work."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc
import pytest

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
    STOPS_MAX,
    Ledger,
    activate,
    calls,
    existing,
    final,
    make_backup,
    prepare,
    serves,
    stopped,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLS = 12
STATES = restore_pb2.RestoreState.Name


async def test_random_kills_of_activations(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    tmp_path: Path,
    rng: random.Random,
    seed: int,
    fault_table: FaultTable,
) -> None:
    """T2, T3: at whatever time the process of an activation is killed, another one ends it within seconds, nothing
    acknowledged is lost, and the next one works.

    The lease of restores of each dead process is taken away instead of waited for: test_restore_faults.py waits.
    """
    url, ledger = database_of(filled_registry), Ledger()
    states: list[str] = []
    seconds: list[float] = []
    await serves(filled_registry, ledger, "before")
    async with calls(make_backup_service(url)) as backup:
        await make_backup(backup)
        began = time.monotonic()
        first = await activate(backup, (await prepare(backup)).id)
        lasts = time.monotonic() - began
        await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=first.id))
        for number in range(KILLS):
            prepared = await prepare(backup)
            await killed_within(make_backup_service(url), prepared.id, rng.uniform(0, lasts))
            (tmp_path / "store" / keys.lease(RESTORING)).unlink(missing_ok=True)

            found, waited = await final(backup, prepared.id)

            await serves(filled_registry, ledger, f"after-{number}")
            assert await ledger.lost(url) == {}
            assert ledger.twice == []
            states.append(STATES(found.state).removeprefix("RESTORE_STATE_"))
            seconds.append(waited)
            await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
            assert await existing(url) == []
        told = await registry_tools.run(url, "check")
        assert told.result["problems"] == []
        await activate(backup, (await prepare(backup)).id)
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    outcome = f"{counts}; ended after {max(seconds):.1f} s at most, nothing lost, the next one worked"
    fault_table("T3", f"{KILLS} kill -9 of activations at random times, seed {seed}", outcome)


async def killed_within(service: Service, restore_id: str, seconds: float) -> None:
    """Begins an activation in a process of its own, and kills that after a time."""
    await service.start_async()
    async with BackupCalls(service.target) as made:
        answer = await made.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=restore_id))
        ending = asyncio.create_task(made.ended(answer))
        await asyncio.wait({ending}, timeout=seconds)
        await asyncio.to_thread(service.kill)
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            ending.cancel()
            await ending


@pytest.mark.rotating(3, "long faults")
@pytest.mark.parametrize("failpoint", ["restore.fenced", "restore.epoch_begun", "swap.closed"])
async def test_paused_process(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    tmp_path: Path,
    fault_table: FaultTable,
    failpoint: str,
) -> None:
    """T17: a process that is stopped in a swap past its lease, and goes on when another one has ended it, changes
    nothing any more."""
    url, ledger = database_of(filled_registry), Ledger()
    await serves(filled_registry, ledger, "before")
    async with calls(make_backup_service(url)) as backup, AsyncExitStack() as stack:
        await make_backup(backup)
        for _ in range(STOPS_MAX):
            prepared = await prepare(backup)
            slow = make_backup_service(url)
            slow.environment[FAILPOINTS] = f"{failpoint}:stop"
            paused = await stack.enter_async_context(calls(slow))
            answer = await paused.restores.ActivateRestore(pb.ActivateRestoreRequest(restore_id=prepared.id))
            if await stopped(slow, tmp_path / "store"):
                break
            await asyncio.to_thread(slow.kill)
            await final(backup, prepared.id)
        else:
            pytest.fail("it always held the lock")

        found, seconds = await final(backup, prepared.id)
        await serves(filled_registry, ledger, "ended")
        epoch = await registry_tools.value(url, "SELECT epoch FROM registry.head")
        os.kill(slow.pid, signal.SIGCONT)
        ended = await paused.ended(answer)
        await serves(filled_registry, ledger, "woken")
        after, _ = await final(backup, prepared.id)
        assert await ledger.lost(url) == {}
        assert ledger.twice == []
        assert await registry_tools.value(url, "SELECT epoch FROM registry.head") == epoch
        assert not await registry_tools.value(url, "SELECT fenced FROM registry.head")

    assert after == found or after.state == found.state
    assert ended.HasField("error") or found.state == restore_pb2.RESTORE_STATE_ACTIVE
    outcome = (
        f"{STATES(found.state)} by another after {seconds:.1f} s; the woken one: {ended.error.reason or 'nothing'}"
    )
    fault_table("T17", f"SIGSTOP of a swap at {failpoint} past its lease, then SIGCONT", outcome)
