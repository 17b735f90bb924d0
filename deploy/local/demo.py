"""Plays a recovery in a terminal: a registry under load loses rows behind its back, and comes back as it was.

    python -m deploy.local.demo

Everything runs in a temporary folder on free ports and is removed at the end. Exit code 0 when nothing that was
acknowledged before the chosen moment is missing, 1 otherwise.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from deploy.local.ports import HOST
from deploy.local.services import ROOT
from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.admin.v1 import recovery_service_pb2 as recoveries
from llm_schema_registry.backup.v1 import backup_service_pb2 as backups
from llm_schema_registry.client import AdminClient, BackupClient, RegistryClient, error_of
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2 as operations
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, subject_service_pb2

WRITERS = 4
LOAD_SECONDS = 5.0
NOTICED_SECONDS = 1.5
"""Between the damage and the moment at which somebody notices."""
ARCHIVE_SECONDS_MAX = 60.0
OPERATION_SECONDS_MAX = 600.0
BROKEN = frozenset({errors.Code.UNAVAILABLE, errors.Code.CANCELLED})
DAMAGE = (
    "DELETE FROM registry.version_references",
    "DELETE FROM registry.versions WHERE ctid IN (SELECT ctid FROM registry.versions LIMIT 200)",
)
_BEGAN = time.monotonic()


def say(line: str) -> None:
    """Tells the person at the terminal, with the seconds since the beginning."""
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {line}", flush=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything runs. ports: by service."""

    home: Path
    ports: dict[str, int]

    def target(self, service: str) -> str:
        """Address of a service."""
        return f"{HOST}:{self.ports[service]}"

    def secret(self, name: str) -> str:
        """A secret of the folder."""
        return (self.home / "secrets" / name).read_text()

    def database(self) -> psycopg.Connection[Any]:
        """A connection past the registry."""
        return psycopg.connect(
            host=HOST, port=self.ports["PostgreSQL"], user="registry", password=self.secret("database_password")
        )


@dataclass
class Load:
    """Registrations as clients make them. acknowledged: id by subject, with the moment of the answer."""

    acknowledged: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    refused: int = 0

    async def run(self, client: RegistryClient, writer: int) -> None:
        """Registers one subject after the other, for ever."""
        number = 0
        while True:
            number += 1
            subject = f"orders-{writer}-{number}"
            request = schema_service_pb2.RegisterSchemaRequest(
                subject=subject,
                format=schema_pb2.SCHEMA_FORMAT_JSON,
                text=f'{{"title": "{subject}", "type": "object"}}',
            )
            try:
                answer = await client.call(client.schemas.RegisterSchema, request)
            except errors.Error:
                self.refused += 1
                await asyncio.sleep(0.2)
            else:
                self.acknowledged[subject] = (answer.schema.id, datetime.now(UTC))


async def play(place: Place) -> bool:
    """Load, damage, recovery, proof; whether nothing is missing."""
    load = Load()
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(RegistryClient(place.target("registry")))
        backup = await stack.enter_async_context(BackupClient(place.target("backup")))
        token = [("authorization", f"Bearer {place.secret('admin_token')}")]
        admin = await stack.enter_async_context(AdminClient(place.target("admin"), metadata=token))
        say(f"{WRITERS} clients register schemas; meanwhile a backup is made")
        writers = [asyncio.create_task(load.run(registry, number)) for number in range(WRITERS)]
        await asyncio.sleep(LOAD_SECONDS / 2)
        answer = await backup.call(backup.backups.CreateBackup, backups.CreateBackupRequest())
        _require_done(await _ended(backup, answer.operation))
        await asyncio.sleep(LOAD_SECONDS / 2)
        moment = _damage(place)
        await asyncio.sleep(NOTICED_SECONDS)
        await _archived(backup, moment)
        recovery = await _recover(admin, moment)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        _tell(recovery)
        return await _proof(registry, load, moment, recovery.end_time.ToDatetime(tzinfo=UTC))


def _damage(place: Place) -> datetime:
    """Deletes rows behind the registry's back, and returns the moment just before."""
    with place.database() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None, "a SELECT without FROM gives one row"
        rows = [connection.execute(statement).rowcount for statement in DAMAGE]
    moment: datetime = row[0]
    say(f"DAMAGE: {rows[-1]} versions deleted by SQL, at {moment:%H:%M:%S.%f} UTC; no change tells it")
    return moment


async def _archived(backup: BackupClient, moment: datetime) -> None:
    """Waits until the archive leads to a moment: it follows within seconds. Raises TimeoutError."""
    async with asyncio.timeout(ARCHIVE_SECONDS_MAX):
        while True:
            answer = await backup.call(backup.backups.GetArchiveStatus, backups.GetArchiveStatusRequest())
            if answer.status.restorable_to.ToDatetime(tzinfo=UTC) >= moment:
                say("the archive has every change up to that moment, and leads to it")
                return
            await asyncio.sleep(0.5)


async def _recover(admin: AdminClient, moment: datetime) -> recovery_pb2.Recovery:
    """Recovers to a moment: what came after it is named first, and given up by confirming that."""
    spec = recovery_pb2.RecoverySpec(cause="rows are gone")
    spec.target.time.FromDatetime(moment)
    say("RECOVERY to just before it, through the admin service:")
    begun = await admin.call(admin.recoveries.StartRecovery, recoveries.StartRecoveryRequest(spec=spec))
    operation = await _ended(admin, begun.operation)
    if operation.HasField("error"):
        refused = error_of(operation.error)
        if not isinstance(refused, errors.LossWindowChanged):
            raise refused
        say(f"  what was written after that moment will be lost, and must be confirmed: {refused.message}")
        request = recoveries.ResumeRecoveryRequest(
            recovery_id=refused.metadata["recovery_id"], confirmation=refused.metadata["confirmation"]
        )
        resumed = await admin.call(admin.recoveries.ResumeRecovery, request)
        operation = await _ended(admin, resumed.operation)
    _require_done(operation)
    recovery = recovery_pb2.Recovery()
    assert operation.response.Unpack(recovery), "a recovery that ended well is its operation's result"
    return recovery


def _tell(recovery: recovery_pb2.Recovery) -> None:
    seconds = [
        each.ToNanoseconds() / 1e9 for each in (recovery.recovery_time, recovery.write_outage, recovery.recovery_point)
    ]
    say(f"recovered in {seconds[0]:.1f} s; writes stood still for {seconds[1]:.1f} s; given up: {seconds[2]:.1f} s")


async def _proof(registry: RegistryClient, load: Load, moment: datetime, ended: datetime) -> bool:
    """Reads back everything that was acknowledged before the moment, or after the recovery."""
    before = {name: made for name, (made, time) in load.acknowledged.items() if time < moment}
    since = {name: made for name, (made, time) in load.acknowledged.items() if time > ended}
    kept = before | since
    missing = []
    for name, made in kept.items():
        request = subject_service_pb2.GetVersionRequest(subject=name, number=1)
        try:
            found = (await registry.call(registry.subjects.GetVersion, request)).version.schema_id
        except errors.Error:
            found = 0
        if found != made:
            missing.append(name)
    given_up = len(load.acknowledged) - len(kept)
    say(f"PROOF: {len(before)} registrations were acknowledged before the moment and {len(since)} since the recovery;")
    say(f"       of these {len(missing)} are missing")
    say(f"       {given_up} came between, and were given up knowingly; {load.refused} were refused meanwhile")
    return not missing and bool(before)


async def _ended(client: AdminClient | BackupClient, begun: operation_pb2.Operation) -> operation_pb2.Operation:
    """The operation once it has ended, its steps told."""
    told: set[str] = set()
    async with asyncio.timeout(OPERATION_SECONDS_MAX):
        while True:
            try:
                request = operations.WatchOperationRequest(name=begun.name)
                async for answer in client.stream(client.operations.WatchOperation, request):
                    step = answer.event.step
                    if step.state == operation_pb2.STEP_STATE_DONE and step.name not in told:
                        told.add(step.name)
                        say(f"  {step.name}" + (f": {step.message}" if step.message else ""))
                    if answer.event.HasField("ended"):
                        return answer.event.ended
            except errors.Error as broken:
                if broken.code not in BROKEN:
                    raise
            await asyncio.sleep(0.5)


def _require_done(operation: operation_pb2.Operation) -> None:
    if operation.HasField("error"):
        raise error_of(operation.error)


def _started(launcher: subprocess.Popen[str], home: Path) -> Place:
    """Reads what the launcher says until everything runs. Raises RuntimeError when it ends first."""
    assert launcher.stdout is not None, "its output is a pipe"
    ports, said = {}, []
    for line in launcher.stdout:
        said.append(line)
        if found := re.match(r"(\w+) is ready: gRPC port (\d+)", line):
            ports[found[1]] = int(found[2])
        elif found := re.match(r"PostgreSQL .* is ready on port (\d+)", line):
            ports["PostgreSQL"] = int(found[1])
        elif "Ctrl-C stops everything" in line:
            return Place(home, ports)
    raise RuntimeError("the system did not start:\n" + "".join(said))


def main() -> int:
    """Plays it and returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="llmsr-demo-") as folder:
        home = Path(folder) / "home"
        say("PostgreSQL, Valkey, registry, backup and admin service start, in a temporary folder")
        with subprocess.Popen(
            [sys.executable, "-m", "deploy.local", "--home", str(home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        ) as launcher:
            try:
                proven = asyncio.run(play(_started(launcher, home)))
            except (errors.Error, RuntimeError, TimeoutError, psycopg.Error) as failed:
                say(f"FAILED: {failed}")
                proven = False
            finally:
                launcher.send_signal(signal.SIGINT)
                launcher.communicate(timeout=120)
        say("stopped and removed" if launcher.returncode == 0 else "stopped, not everything in order")
    return 0 if proven and launcher.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
