"""Recoveries whose helpers are killed: a process is held at a failpoint, somebody is killed, and it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_service_pb2
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.operations.keys import LEASES, OPERATIONS
from llm_schema_registry.operations.operations import SILENT_SECONDS
from tests import registry_tools
from tests.fix_calls import Registry
from tests.fix_faults import POLL_SECONDS, eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import Service
from tests.recovery_site import Site
from tests.restore_site import Ledger, make_backup, serves

LIMIT_SECONDS = 120.0
DOWN_SECONDS = 0.5
"""How long others go on without the one that was killed."""
STILL, OVER = {"STOPPED", "UNCONFIRMED"}, {"DONE", "ABORTED"}


def held(service: Service) -> bool:
    """Whether a process was stopped by a failpoint."""
    return ") T " in Path(f"/proc/{service.pid}/stat").read_text()


def let_time_pass(store: Path) -> None:
    """What time does to the leases and to the records of a process that died, at once."""
    for lease in (store / LEASES).glob("*.json"):
        lease.unlink(missing_ok=True)
    silent = time.time() - SILENT_SECONDS
    for record in (store / OPERATIONS).glob("*.json"):
        os.utime(record, (silent, silent))


@dataclass
class Night:
    """A system, and one of them that is killed again and again: `postgres`, `backup` or `admin`.

    server: PostgreSQL's own of the test, where that is killed. pushes: what had to be done by hand, in words.
    """

    place: Site
    server: OwnPostgres | None
    url: str
    victim: str
    ledger: Ledger = field(default_factory=Ledger)
    pushes: list[str] = field(default_factory=list)
    _asked: set[asyncio.Task[Any]] = field(default_factory=set)

    async def begin(self) -> None:
        """Some content, and a backup that no recovery has read in full yet."""
        await serves(self.place.registry, self.ledger, "before")
        await make_backup(self.place.backup, backup_pb2.VERIFICATION_LEVEL_V2)

    # The recovery

    @property
    def recovery(self) -> tuple[str, str]:
        """Id and state of the newest recovery in the journal, read without the process that may be held."""
        assert self.place.folder is not None
        entries = sorted((self.place.folder / "recoveries").glob("*/*.json"))
        return (entries[-1].parent.name, json.loads(entries[-1].read_text())["state"]) if entries else ("", "DONE")

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns when something is reached; a recovery is begun, or resumed, whenever none goes on."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while not reached():
                recovery_id, state = self.recovery
                if not self._asked and state in OVER | STILL:
                    task = asyncio.create_task(self._push(recovery_id, state))
                    self._asked.add(task)
                    task.add_done_callback(self._asked.discard)
                await asyncio.sleep(POLL_SECONDS)

    async def _push(self, recovery_id: str, state: str) -> None:
        """Begins a recovery, or resumes one that stands still. Where somebody works on it nothing is to be done: the
        journal says so a moment later only, so that it would be asked for twice."""
        admin = self.place.admin
        try:
            if state in OVER:
                await self.place.start()
            else:
                request = recovery_service_pb2.ResumeRecoveryRequest(recovery_id=recovery_id)
                await admin.call(admin.recoveries.ResumeRecovery, request)
        except errors.OperationRunning:
            return
        if state != "DONE":
            self.pushes.append("begun anew" if state in OVER else "resumed")

    def pushed(self) -> str:
        """What had to be done by hand since it was asked for the last time."""
        told = "; ".join(self.pushes) or "went on"
        self.pushes.clear()
        return told

    async def ends(self, state: str = "DONE") -> None:
        """Returns when the recovery has ended so, resumed as often as it stands still."""
        await asyncio.gather(*self._asked)
        await self.until(lambda: self.recovery[1] == state)

    async def holds(self, service: Service) -> None:
        """Returns when a process is held, whatever the recovery does."""

        async def stopped() -> bool:
            return held(service)

        await eventually(stopped)

    async def database(self) -> int:
        """What PostgreSQL knows the database by that has the live name: a rename leaves it as it is."""
        known = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
        return int(await registry_tools.value(self.url, known))

    # The one that is killed

    async def kill(self) -> None:
        """Kills it."""
        if self.server is not None:
            await self.server.kill_async()
        elif self.victim == "admin":
            await asyncio.to_thread(self.place.admin_service.kill)
        else:
            await asyncio.to_thread(self.place.backup_service.kill)

    async def start(self) -> None:
        """Starts it again. Until others know that a backup or admin process has died is not waited for."""
        if self.server is not None:
            await self.server.start_async()
        elif self.victim == "admin":
            await self._replace_admin()
        else:
            let_time_pass(Path(self.place.backup_service.environment["SCHEMA_REGISTRY__BACKUP__DIRECTORY"]))
            await self.place.backup_service.start_async()

    async def _replace_admin(self) -> None:
        """Another admin process goes on with the recovery."""
        self.place.let_the_lease_end()
        await self.place.replace_admin()
        recovery_id, state = self.recovery
        if state not in OVER:
            await self.place.resume(recovery_id)
            self.pushes.append("resumed")

    async def lose(self, holder: Service) -> None:
        """Kills it while a process is held, lets that go on without it for a moment, and starts it again."""
        await self.kill()
        os.kill(holder.pid, signal.SIGCONT)
        await asyncio.sleep(DOWN_SECONDS)
        await self.start()
        await self.one_state_serves()

    async def one_state_serves(self) -> None:
        """Returns once the database under the live name has everything and the registry reads it."""

        async def whole() -> bool:
            with suppress(psycopg.OperationalError):
                return await self.ledger.lost(self.url) == {}
            return False

        async def read() -> bool:
            reads = self.ledger.reads
            async with RegistryClient(self.place.registry.target) as client:
                await self.ledger.read(Registry(client))
            return self.ledger.reads > reads

        await eventually(whole)
        await eventually(read)
        assert self.ledger.twice == []
