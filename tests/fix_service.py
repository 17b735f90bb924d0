"""The registry as a process of its own, as operators run it: started, called, stopped, killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest
import pytest_asyncio

from deploy.local.ports import free_port
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.kernel.serving import READY_FILE

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
PORTS = ("SCHEMA_REGISTRY__SERVER__GRPC_PORT", "SCHEMA_REGISTRY__SERVER__HTTP_PORT")
CONTROL_TOKEN = "a-control-token-for-the-tests"


class ServiceFailed(AssertionError):
    """The process did not start, or not end, as it should; holds its log."""


@dataclass
class Service:
    """A process of one of the services. environment: its options, as SCHEMA_REGISTRY__* variables."""

    folder: Path
    environment: dict[str, str]
    name: str = "registry"
    ports: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _log: TextIO | None = None

    @property
    def target(self) -> str:
        """Address of the gRPC port."""
        return f"127.0.0.1:{self.ports['grpc_port']}"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How the process ended; None while it runs, and when it was not started."""
        return self._process.poll() if self._process is not None else None

    @property
    def log(self) -> str:
        """Everything that the process logged."""
        return (self.folder / "log").read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as JSON lines; one that is being written is none yet."""
        lines = self.log.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def launch(self) -> None:
        """Starts the process without waiting for it. From the main thread."""
        for option in PORTS:
            if self.environment.get(option) == "0":
                # One that the kernel chose could be another's by the time that a restart needs it.
                self.environment[option] = str(free_port())
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self.name}"],
                cwd=ROOT,
                env={**_clean_environment(), **self.environment, READY_FILE: str(ready)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Waits until the process serves, and learns its ports. They stay the same after a restart."""
        ready = self.folder / "ready.json"
        end = time.monotonic() + START_SECONDS_MAX
        while not ready.exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                raise ServiceFailed(f"the {self.name} service did not start:\n{self.log[-4000:]}")
            time.sleep(0.02)
        self.ports = json.loads(ready.read_text())

    def start(self) -> None:
        """Starts the process and waits until it serves."""
        self.launch()
        self.wait_ready()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks the process to end and returns its exit status."""
        process = self._process
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return self._ended(process)

    def kill(self) -> None:
        """Ends the process as a crash would."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def wait(self) -> int:
        """Waits for the end of the process and returns its exit status."""
        assert self._process is not None
        return self._ended(self._process)

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        """Waits for the end of a process, as somebody else may beside us."""
        try:
            status = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServiceFailed(f"the {self.name} service did not stop:\n{self.log[-4000:]}") from None
        if self._process is process:
            self._process = None
        return status

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on the HTTP port."""
        url = f"http://127.0.0.1:{self.ports['http_port']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    async def start_async(self) -> None:
        """As `start`, beside an event loop."""
        self.launch()
        await asyncio.to_thread(self.wait_ready)

    async def stop_async(self, number: signal.Signals = signal.SIGTERM) -> int:
        """As `stop`, beside an event loop."""
        return await asyncio.to_thread(self.stop, number)


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeService]:
    """Makes registry processes: `make_service(database_url, redis_url=None, **options)`, not started yet.

    options: `section__option=value`, for example `server__drain_seconds=0`.
    """
    made: list[Service] = []

    def make(database_url: str, redis_url: str | None = None, **options: object) -> Service:
        service = Service(tmp_path_factory.mktemp("registry"), environment(database_url, redis_url, options))
        made.append(service)
        return service

    yield make
    for service in made:
        service.kill()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, postgres: Any, valkey_server: Any) -> Iterator[Service]:
    """One registry for the run, on a database of its own, with Valkey. Tests share it: use names of your own."""
    database_url = postgres.create_database("registry_of_the_run")
    # Registries of tests share the Valkey: those of other databases have contents under the same ids.
    prefix = {"redis__key_prefix": "of-the-run:"}
    service = Service(tmp_path_factory.mktemp("registry"), environment(database_url, valkey_server.url, prefix))
    service.start()
    yield service
    assert service.stop() == 0, service.log[-4000:]
    postgres.drop_database("registry_of_the_run")


@pytest_asyncio.fixture
async def client(registry: Service) -> AsyncIterator[RegistryClient]:
    """A client of the registry of the run."""
    async with RegistryClient(registry.target) as client:
        yield client


@pytest.fixture
def name() -> Callable[[str], str]:
    """Makes names that no other test uses."""
    token = secrets.token_hex(4)
    numbers = itertools.count(1)

    def make(stem: str = "subject") -> str:
        return f"{stem}-{token}-{next(numbers)}"

    return make


def environment(database_url: str, redis_url: str | None, options: Mapping[str, object]) -> dict[str, str]:
    """The options of a registry on this machine, as environment variables."""
    chosen: dict[str, object] = {
        "server__local_mode": "true",
        "server__grpc_port": 0,
        "server__http_port": 0,
        "server__drain_seconds": 0,
        "server__grace_seconds": 5,
        "control__token": CONTROL_TOKEN,
        "database__url": database_url,
        "database__ssl_enabled": "false",
        "database__pool_min": 1,
        "database__pool_max": 10,
        **({"redis__url": redis_url, "redis__pool_min": 0} if redis_url else {}),
        **options,
    }
    return {f"SCHEMA_REGISTRY__{key.upper()}": str(value) for key, value in chosen.items()}


def _clean_environment() -> dict[str, str]:
    """This process's environment without options of a registry, with the sources on the path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCHEMA_REGISTRY")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)])}
