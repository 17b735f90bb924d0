"""The whole system on this machine, and supervisors that start again what asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local.ports import free_port
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from tests import fix_service
from tests.fix_admin import ADMIN_TOKEN, admin_environment
from tests.fix_backup import backup_environment

if TYPE_CHECKING:  # Imported at run time, they would be there before pytest could register them as plugins.
    from deploy.local.valkey import Valkey
    from tests.fix_service import Service

RESTART = 75
POLL_SECONDS = 0.05


@dataclass
class System:
    """Processes of all services on one database. store: the folder of the backup service."""

    registries: list[Service]
    backup: Service
    admin: Service
    database_url: str
    store: Path

    @property
    def services(self) -> list[Service]:
        """All of them, in the order in which they start."""
        return [*self.registries, self.backup, self.admin]

    @property
    def settings(self) -> dict[str, str]:
        """The program's settings."""
        return {
            "LLMSR_TARGET": self.registries[0].target,
            "LLMSR_BACKUP_TARGET": self.backup.target,
            "LLMSR_ADMIN_TARGET": self.admin.target,
            "LLMSR_ADMIN_TOKEN": ADMIN_TOKEN,
        }

    def start(self) -> None:
        """Starts all of them."""
        for service in self.services:
            service.launch()
        for service in self.services:
            service.wait_ready()

    async def start_async(self) -> None:
        """As `start`, beside an event loop."""
        for service in self.services:
            service.launch()
        for service in self.services:
            await asyncio.to_thread(service.wait_ready)

    def kill(self) -> None:
        """Ends all of them as a crash would."""
        for service in self.services:
            service.kill()


def make_system(
    folder: Callable[[str], Path],
    database_url: str,
    redis_url: str | None,
    *,
    registries: int = 1,
    registry: Mapping[str, object] = {},
    backup: Mapping[str, object] = {},
    **options: object,
) -> System:
    """Processes on one database, with ports of their own and keys and stores in new folders; not started yet.

    registry, backup: options of these alone, `section__option=value`; options: of all services.
    """
    keys = folder("steered")
    generate_signing_key(keys / "signing.pem", keys / "signing.pub")
    generate_key_file(keys / "recipient.key")

    def placed(name: str, environment: Callable[[dict[str, object]], dict[str, str]], **own: object) -> Service:
        port = free_port()
        chosen = environment({**own, **options, "server__grpc_port": port})
        return fix_service.Service(folder(name), chosen, name, {"grpc_port": port})

    registry_processes = [
        placed("registry", lambda chosen: fix_service.environment(database_url, redis_url, chosen), **registry)
        for _ in range(registries)
    ]
    backup_process = placed(
        "backup",
        lambda chosen: backup_environment(database_url, chosen),
        backup__signing_key_path=keys / "signing.pem",
        backup__key_paths=keys / "recipient.key",
        backup__directory=keys / "store",
        **backup,
    )
    port = free_port()
    peers = {
        "peers__registry": ",".join(each.target for each in registry_processes),
        "peers__backup": backup_process.target,
        "peers__admin": f"127.0.0.1:{port}",
        "server__grpc_port": port,
        "admin__directory": keys / "admin",
    }
    admin = fix_service.Service(folder("admin"), admin_environment(database_url, {**options, **peers}), "admin")
    admin.ports = {"grpc_port": port}
    return System(registry_processes, backup_process, admin, database_url, keys / "store")


@pytest.fixture(scope="session")
def steered(tmp_path_factory: pytest.TempPathFactory, postgres: Any, valkey_server: Valkey) -> Iterator[System]:
    """One whole system for the run. Tests share it: put back what you change."""
    database_url = postgres.create_database("steered_system")
    prefix = {"redis__key_prefix": "steered:"}
    system = make_system(tmp_path_factory.mktemp, database_url, valkey_server.url, registry=prefix)
    try:
        system.start()
        yield system
    finally:
        system.kill()
    postgres.drop_database("steered_system")


MakeSystem = Callable[..., System]


@pytest.fixture
def new_system(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[MakeSystem]:
    """Makes whole systems of the test's own: `new_system(registries=2, server__drain_seconds=1)`, not started yet."""
    made: list[System] = []

    def make(**options: Any) -> System:
        made.append(make_system(tmp_path_factory.mktemp, database_url, None, **options))
        return made[-1]

    yield make
    for system in made:
        system.kill()


@dataclass
class Supervisor:
    """Starts a process again when it ends with the status that asks for it. statuses: how it ended, in order."""

    service: Service
    statuses: list[int] = field(default_factory=list)

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            status = self.service.status
            if status is not None and len(self.statuses) < 100:
                self.statuses.append(status)
                if status != RESTART:
                    return
                self.service.launch()
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def supervised(services: Sequence[Service]) -> AsyncIterator[list[Supervisor]]:
    """Supervisors of processes, for the block."""
    supervisors = [Supervisor(each) for each in services]
    tasks = [asyncio.create_task(each.run()) for each in supervisors]
    try:
        yield supervisors
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
