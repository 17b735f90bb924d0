"""A registry, its backup service and clients that remember what they were told, for tests that restore under faults."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2, restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.client import RegistryClient, from_rpc_error
from llm_schema_registry.objects.directory_files import LOCK
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from tests.fix_backup import BackupCalls
from tests.fix_calls import Registry
from tests.fix_faults import POLL_SECONDS, eventually
from tests.fix_service import Service

LATEST = restore_pb2.RestoreTarget(latest=True)
FAILPOINTS = "LLMSR_FAILPOINTS"
FINAL = {
    restore_pb2.RESTORE_STATE_PREPARED,
    restore_pb2.RESTORE_STATE_ACTIVE,
    restore_pb2.RESTORE_STATE_REVERTED,
    restore_pb2.RESTORE_STATE_RELEASED,
    restore_pb2.RESTORE_STATE_FAILED,
}
PAUSE_SECONDS = 0.01
WRITE_PAUSE_SECONDS = 0.1
LIMIT_SECONDS = 90.0
LOCKED_SECONDS = 5.0
"""Longer than anybody writes who is not stopped."""
STOPS_MAX = 5
"""Tries to stop a process while it does not hold the lock of its store."""


async def make_backup(backup: BackupCalls, level: int = backup_pb2.VERIFICATION_LEVEL_V3) -> backup_pb2.Backup:
    """A backup, verified to V3."""
    answer = await backup.backups.CreateBackup(backup_service_pb2.CreateBackupRequest())
    made: backup_pb2.Backup = await backup.done(answer, backup_pb2.Backup())
    verify = backup_service_pb2.VerifyBackupRequest(backup_id=made.id, level=level)  # type: ignore[arg-type]
    found = await backup.done(await backup.backups.VerifyBackup(verify), backup_pb2.Verification())
    assert found.passed, found.problems
    return made


async def prepare(backup: BackupCalls, target: restore_pb2.RestoreTarget = LATEST) -> restore_pb2.Restore:
    """A prepared restore."""
    answer = await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=target))
    prepared: restore_pb2.Restore = await backup.done(answer, restore_pb2.Restore())
    assert prepared.state == restore_pb2.RESTORE_STATE_PREPARED
    return prepared


async def activate(backup: BackupCalls, restore_id: str, confirmation: str = "") -> restore_pb2.Restore:
    """An active restore."""
    request = pb.ActivateRestoreRequest(restore_id=restore_id, confirmation=confirmation)
    active: restore_pb2.Restore = await backup.done(
        await backup.restores.ActivateRestore(request), restore_pb2.Restore()
    )
    assert active.state == restore_pb2.RESTORE_STATE_ACTIVE
    return active


async def revert(backup: BackupCalls, restore_id: str, confirmation: str = "") -> restore_pb2.Restore:
    """A reverted restore."""
    request = pb.RevertRestoreRequest(restore_id=restore_id, confirmation=confirmation)
    return await backup.done(  # type: ignore[no-any-return]
        await backup.restores.RevertRestore(request), restore_pb2.Restore()
    )


async def shown(backup: BackupCalls, restore_id: str) -> restore_pb2.Restore:
    """A restore as it stands."""
    return (await backup.restores.GetRestore(pb.GetRestoreRequest(restore_id=restore_id))).restore


async def final(backup: BackupCalls, restore_id: str) -> tuple[restore_pb2.Restore, float]:
    """A restore once it stands in a final state, and the seconds that took."""
    began = time.monotonic()
    while (found := await shown(backup, restore_id)).state not in FINAL:
        assert time.monotonic() < began + LIMIT_SECONDS, found
        await asyncio.sleep(POLL_SECONDS)
    return found, time.monotonic() - began


async def existing(database_url: str) -> list[str]:
    """Names of restores' databases beside the live one."""
    name = database_url.rsplit("/", 1)[1]
    maintenance = database_url.rsplit("/", 1)[0] + "/postgres"
    async with await psycopg.AsyncConnection.connect(maintenance, autocommit=True) as connection:
        rows = await (
            await connection.execute("SELECT datname::text FROM pg_database WHERE datname LIKE %s", [f"{name}\\_%"])
        ).fetchall()
    return sorted(row[0] for row in rows)


async def refused(call: Any) -> tuple[grpc.StatusCode, errors.Error]:
    """Code and error that a call is refused with."""
    try:
        await call
    except grpc.aio.AioRpcError as failed:
        return failed.code(), from_rpc_error(failed)
    raise AssertionError("the call was not refused")


@dataclass
class Ledger:
    """What clients were told, for ever. ids: text by schema id. versions: (subject, number) to (id, epoch unknown).

    twice: ids that were told with two texts. gaps: seconds between two acknowledged writes of the load, the longest.
    """

    ids: dict[int, str] = field(default_factory=dict)
    versions: dict[tuple[str, int], int] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    reads: int = 0
    failed_reads: list[str] = field(default_factory=list)
    longest_gap: float = 0.0
    last: float = 0.0
    _numbers: Any = field(default_factory=itertools.count)

    def told(self, subject: str, answer: schema_service_pb2.RegisterSchemaResponse, text: str) -> None:
        """Notes an acknowledged registration."""
        number = answer.version.schema_id
        if self.ids.setdefault(number, text) != text:
            self.twice.append(number)
        self.versions[subject, answer.version.number] = number
        now = time.monotonic()
        if self.last:
            self.longest_gap = max(self.longest_gap, now - self.last)
        self.last = now

    async def write(self, registry: Registry, stem: str) -> None:
        """Registers one content, repeating the request until it is acknowledged."""
        count = next(self._numbers)
        subject, text = f"{stem}/{count}", json.dumps({"title": f"{stem} {count}", "type": "object"})
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=text, request_id=f"{stem}-{count}"
        )
        while True:
            try:
                answer = await registry.call(registry.schemas.RegisterSchema, request)
            except errors.Error:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.told(subject, answer, text)
                return

    async def read(self, registry: Registry) -> None:
        """Reads a content by an id that was told, and compares it."""
        if not self.ids:
            await asyncio.sleep(PAUSE_SECONDS)
            return
        number = next(reversed(self.ids))
        try:
            found = await registry.schema(number)
        except errors.Error as error:
            self.failed_reads.append(f"{number}: {error.reason}")
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            self.reads += 1
            if json.loads(found.text) != json.loads(self.ids[number]):
                self.twice.append(number)

    def reads_so_far(self) -> tuple[int, list[str]]:
        """How many reads were answered until now, and those that were not."""
        return self.reads, list(self.failed_reads)

    async def lost(self, database_url: str) -> dict[int, str]:
        """What was told and is not in a database."""
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            rows = await (await connection.execute("SELECT id, text FROM registry.schemas")).fetchall()
        stored = {number: text for number, text in rows if text is not None}
        for number, text in self.ids.items():
            if number in stored and json.loads(stored[number]) != json.loads(text):
                self.twice.append(number)
        return {number: text for number, text in self.ids.items() if number not in stored}


@asynccontextmanager
async def load(target: str, ledger: Ledger, stem: str, *, writers: int = 4, readers: int = 2) -> AsyncIterator[None]:
    """Writers that repeat, and readers, during the block."""
    over = asyncio.Event()

    async def writing(registry: Registry, name: str) -> None:
        while not over.is_set():
            await ledger.write(registry, name)
            await asyncio.sleep(WRITE_PAUSE_SECONDS)

    async def reading(registry: Registry) -> None:
        while not over.is_set():
            await ledger.read(registry)
            await asyncio.sleep(PAUSE_SECONDS)

    async with RegistryClient(target) as client:
        registry = Registry(client)
        tasks = [asyncio.create_task(writing(registry, f"{stem}-{number}")) for number in range(writers)]
        tasks += [asyncio.create_task(reading(registry)) for _ in range(readers)]
        try:
            yield
        finally:
            over.set()
            async with asyncio.timeout(LIMIT_SECONDS):
                await asyncio.gather(*tasks)


async def serves(registry: Service, ledger: Ledger, stem: str) -> None:
    """Returns when the registry takes a write."""
    async with RegistryClient(registry.target) as client, asyncio.timeout(LIMIT_SECONDS):
        await ledger.write(Registry(client), stem)


async def stopped(service: Service, store: Path) -> bool:
    """Waits until a failpoint has stopped a process, and returns whether others can use its store: none of its threads
    may have been stopped with the folder's lock, for which everybody would wait as long as it stands still."""

    async def stands_still() -> bool:
        return ") T " in Path(f"/proc/{service.pid}/stat").read_text()  # noqa: ASYNC240 - no disk is read

    def is_free() -> bool:
        with (store / LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    await eventually(stands_still)
    ends = time.monotonic() + LOCKED_SECONDS
    while not (free := is_free()) and time.monotonic() < ends:  # noqa: ASYNC110 - a lock has no event
        await asyncio.sleep(0.01)  # Another process writes.
    return free


@asynccontextmanager
async def calls(service: Service) -> AsyncIterator[BackupCalls]:
    """Calls to a backup process, which is killed at the end of the block if it is still there."""
    await service.start_async()
    try:
        async with BackupCalls(service.target) as made:
            yield made
    finally:
        with suppress(ProcessLookupError):
            await asyncio.to_thread(service.kill)
