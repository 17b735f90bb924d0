"""`llmsr` for tests: in this process where that shows the same, else as a process of its own, or in a terminal."""

from __future__ import annotations

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
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from llm_schema_registry.cli.main import main
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
    """This process's environment without settings of the program."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LLMSR_")}
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


@pytest.fixture
def start_llmsr(registry: Service) -> Iterator[Callable[[Sequence[str]], subprocess.Popen[bytes]]]:
    """Starts the program with pipes and leaves it running; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(LLMSR_TARGET=registry.target),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()
