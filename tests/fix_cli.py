"""`llmsr` for tests: in this process where that shows the same, else as a process of its own, or in a terminal."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pytest

from llm_schema_registry.backup.v1 import backup_service_pb2_grpc, restore_service_pb2_grpc
from llm_schema_registry.cli.main import main
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from tests import fix_service
from tests.fix_admin import ADMIN_TOKEN, admin_environment
from tests.fix_backup import backup_environment, fill
from tests.fix_service import Service

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "llm_schema_registry.cli"]
SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """Standard output, which must be JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error of a command with `--output json`: one JSON document on standard error, and nothing else."""
        assert self.stdout == ""
        error: dict[str, Any] = json.loads(self.stderr)["error"]
        assert list(error) == ["reason", "code", "message", "metadata", "violations"]
        return error


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of the program and of gRPC."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LLMSR_", "GRPC_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)]), **more}


def run_here(*arguments: str, **settings: str) -> Ran:
    """Runs the program in a thread of this process, with LLMSR_* settings; standard input must not be read."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    statuses: list[int] = []
    with mock.patch.dict(os.environ, environment(**settings), clear=True), redirect_stdout(out), redirect_stderr(err):
        thread = threading.Thread(target=lambda: statuses.append(main(arguments)))
        thread.start()
        thread.join()
    written = [stream.buffer.getvalue().decode() for stream in (out, err)]
    assert statuses, written
    return Ran(statuses[0], *written)


def run_process(*arguments: str, given: bytes = b"", **settings: str) -> Ran:
    """Runs the program as a process, with bytes on its standard input."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=given,
        capture_output=True,
        env=environment(**settings),
        timeout=SECONDS_MAX,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True, slots=True)
class Shown(Ran):
    """What a terminal got. stdout: both streams, with control sequences."""

    @property
    def screen(self) -> list[str]:
        """The lines without control sequences, each redrawing of a line below the one before, without blank ends."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.stdout)
        return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def run_terminal(*arguments: str, **settings: str) -> Shown:
    """Runs the program in a terminal of 80 columns."""
    return in_terminal(PROGRAM[1:] + list(arguments), **settings)


def in_terminal(arguments: Sequence[str], **settings: str) -> Shown:
    """Runs Python in a terminal of 80 columns."""
    main_end, program_end = pty.openpty()
    fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=program_end,
        stdout=program_end,
        stderr=program_end,
        env=environment(TERM="xterm-256color", **settings),
    )
    os.close(program_end)
    written = b"".join(_everything(main_end))
    os.close(main_end)
    return Shown(process.wait(SECONDS_MAX), written.decode(), "")


def _everything(descriptor: int) -> Iterator[bytes]:
    """What a terminal gets until its program ends. Linux then says EIO."""
    while True:
        try:
            data = os.read(descriptor, 4096)
        except OSError as ended:
            if ended.errno != errno.EIO:
                raise
            return
        if not data:
            return
        yield data


Run = Callable[..., Ran]


@pytest.fixture
def llmsr(registry: Service) -> Run:
    """Runs a command against the registry of the run, in this process: `llmsr("schema", "list")`."""

    def run(*arguments: str, **settings: str) -> Ran:
        return run_here(*arguments, **{"LLMSR_TARGET": registry.target, **settings})

    return run


@pytest.fixture
def llmsr_process(registry: Service) -> Run:
    """The same as a process of its own: `llmsr_process("schema", "list", given=b"")`."""

    def run(*arguments: str, given: bytes = b"", **settings: str) -> Ran:
        return run_process(*arguments, given=given, **{"LLMSR_TARGET": registry.target, **settings})

    return run


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_llmsr(registry: Service) -> Iterator[Start]:
    """Starts the program with pipes and leaves it running: `start_llmsr(["schema", "list"], LLMSR_TIMEOUT="60")`; what
    still runs at the end is killed.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: Sequence[str], **settings: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**{"LLMSR_TARGET": registry.target, **settings}),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A registry of its own with some content, a backup and an admin service beside it, and two backups in its store.

    proven: verified to V3. spare: not verified further than at its creation; nothing protects it. operation: one that
    has ended. store: the folder.
    """

    registry: Service
    backup: Service
    admin: Service
    database_url: str
    store: Path
    proven: str = ""
    spare: str = ""
    operation: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """The program's settings."""
        return {
            "LLMSR_TARGET": self.registry.target,
            "LLMSR_BACKUP_TARGET": self.backup.target,
            "LLMSR_ADMIN_TARGET": self.admin.target,
            "LLMSR_ADMIN_TOKEN": ADMIN_TOKEN,
        }

    def run(self, *arguments: str, **settings: str) -> Ran:
        """Runs a command in this process: `run("backup", "list")`."""
        return run_here(*arguments, **{**self.settings, **settings})

    def json(self, *arguments: str) -> Any:
        """The document of a command that must succeed."""
        ran = self.run(*arguments, "--output", "json")
        assert ran.status == 0, ran.stderr
        return ran.document

    def made(self, *arguments: str) -> Any:
        """What the operation of a command made, which must succeed."""
        ran = self.run(*arguments, "--output", "json")
        assert ran.status == 0, ran.stderr
        [ended] = [line["ended"] for line in ran.lines if "ended" in line]
        return ended["response"]

    def subjects(self) -> frozenset[str]:
        """Names of the subjects that are live."""
        return frozenset(one["name"] for one in self.json("schema", "list")["subjects"])

    def new_backup(self, *options: str) -> str:
        """Makes a backup that is not pinned, of a kind that retention keeps for days, and returns its id."""
        backup_id: str = self.made("backup", "create", "--kind", "safety", *options)["id"]
        self.json("backup", "unpin", backup_id)
        return backup_id


@pytest.fixture(scope="session")
def backed_up(tmp_path_factory: pytest.TempPathFactory, postgres: Any) -> Iterator[BackedUp]:
    """One registry with a backup service for the run. Tests share it: make what you change."""
    database_url = postgres.create_database("registry_with_backups")
    folder = tmp_path_factory.mktemp("backed-up")
    generate_signing_key(folder / "signing.pem", folder / "signing.pub")
    generate_key_file(folder / "recipient.key")
    options = {
        "backup__signing_key_path": folder / "signing.pem",
        "backup__key_paths": folder / "recipient.key",
        "backup__directory": folder / "store",
        "server__grace_seconds": 1,
    }
    registry = Service(tmp_path_factory.mktemp("registry"), fix_service.environment(database_url, None, {}))
    backup = Service(tmp_path_factory.mktemp("backup"), backup_environment(database_url, options), "backup")
    made = ExitStack()
    try:
        registry.launch()
        registry.wait_ready()
        fill(registry, "filled", 5)
        backup.start()
        peers = {"peers__registry": registry.target, "peers__backup": backup.target}
        admin_options = {"admin__directory": folder / "admin", "server__grace_seconds": 1, **peers}
        admin = Service(tmp_path_factory.mktemp("admin"), admin_environment(database_url, admin_options), "admin")
        made.callback(admin.kill)
        admin.start()
        place = BackedUp(registry, backup, admin, database_url, folder / "store")
        proven, spare = place.new_backup(), place.new_backup()
        assert place.made("backup", "verify", proven)["passed"]
        operation = place.json("backup", "operations", "--limit", "1")["operations"][0]["name"]
        yield dataclasses.replace(place, proven=proven, spare=spare, operation=operation)
        assert admin.stop() == 0, admin.log[-4000:]
        assert backup.stop() == 0, backup.log[-4000:]
        assert registry.stop() == 0, registry.log[-4000:]
    finally:
        made.close()
        backup.kill()
        registry.kill()
    postgres.drop_database("registry_with_backups")


@dataclass(frozen=True, slots=True)
class Restored:
    """Two restores to `latest`: one that was activated, and one that is prepared.

    command, told: the preparation of the first one, and what it wrote. planned: the dry run of its activation, two
    changes later. before, after: the subjects that were live around the activation.
    """

    active: str
    prepared: str
    command: str
    told: Ran
    planned: Ran
    before: frozenset[str]
    after: frozenset[str]


@pytest.fixture(scope="session")
def restored(backed_up: BackedUp) -> Restored:
    """Restores of the registry with backups, for the run. Tests share them: change them not at all."""
    command = "llmsr restore prepare --latest"
    told = backed_up.run(*command.split()[1:])
    assert told.status == 0, told.stderr
    active = told.stdout.split()[1]
    fill(backed_up.registry, "after-preparation", 2)
    planned = backed_up.run("restore", "activate", active)
    before = backed_up.subjects()
    assert backed_up.made("restore", "activate", active, "--apply")["state"] == "RESTORE_STATE_ACTIVE"
    after = backed_up.subjects()
    prepared = backed_up.made("restore", "prepare", "--latest")["id"]
    return Restored(active, prepared, command, told, planned, before, after)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A recovery that stands still because its loss is not confirmed. started: what the command that began it wrote.

    operation: of the admin service, a plan, which has ended.
    """

    id: str
    operation: str
    started: Ran


@pytest.fixture(scope="session")
def recovered(backed_up: BackedUp) -> Recovered:
    """A recovery of the registry with backups, for the run. Tests share it: do not let it go on."""
    fill(backed_up.registry, "behind-the-backup", 1)
    started = backed_up.run("recover", "start", "--to", backed_up.proven, "--no-safety", "--serve", "--apply")
    recovery_id = backed_up.json("recover", "list")["recoveries"][0]["id"]
    assert backed_up.run("recover", "start").status == 0
    operation = backed_up.json("operation", "list", "--limit", "1")["operations"][0]["name"]
    return Recovered(recovery_id, operation, started)


@contextmanager
def serving_backup(*servicers: Any, port: int = 0) -> Iterator[str]:
    """Address of a server with these servicers of backup, restore and operation services: one that answers as the test
    says. port: 0 for a free one.
    """
    server = grpc.server(ThreadPoolExecutor(4))
    for servicer in servicers:
        match servicer:
            case backup_service_pb2_grpc.BackupServiceServicer():
                backup_service_pb2_grpc.add_BackupServiceServicer_to_server(servicer, server)
            case restore_service_pb2_grpc.RestoreServiceServicer():
                restore_service_pb2_grpc.add_RestoreServiceServicer_to_server(servicer, server)
            case operation_service_pb2_grpc.OperationServiceServicer():
                operation_service_pb2_grpc.add_OperationServiceServicer_to_server(servicer, server)
    taken = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{taken}"
    finally:
        server.stop(0).wait()
