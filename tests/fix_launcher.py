"""The launcher of local mode as a program of its own, and what it says."""

from __future__ import annotations

import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deploy.local.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
LINE_SECONDS = 60
EXIT_SECONDS = 60

Launch = Callable[..., "Launched"]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pids: Sequence[int], *, limit_seconds: float = LINE_SECONDS) -> list[int]:
    """Waits until none of the processes runs; returns those that still do after the limit."""
    deadline = time.monotonic() + limit_seconds
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [pid for pid in pids if is_running(pid)]


def children(pid: int) -> list[int]:
    """Processes that a process has started and that run."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words if is_running(int(word))]


class Launched:
    """A running launcher."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            start_new_session=start_new_session,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.decode().rstrip("\n"))
        self._lines.put(None)

    def wait_line(self, part: str) -> str:
        """Reads on until a line that contains `part`, and returns it."""
        deadline = time.monotonic() + LINE_SECONDS
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"ended without {part!r}:\n" + "\n".join(self.said)
            self.said.append(line)
            if part in line:
                return line

    def wait_started(self) -> str:
        """Reads to the end of the banner and returns all that was said."""
        self.wait_line("Ctrl-C stops everything")
        return "\n".join(self.said)

    def wait_exit(self) -> tuple[int, str]:
        """Waits for the end and returns the exit code and all that was said."""
        code = self.process.wait(EXIT_SECONDS)
        self._reader.join()
        while (line := self._lines.get()) is not None:
            self.said.append(line)
        return code, "\n".join(self.said)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the launcher only."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Kills the launcher if it runs, and frees the pipe."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts programs as `Launched(command, ...)` and kills those that the test left running."""
    made: list[Launched] = []

    def start(command: Sequence[str], **options: object) -> Launched:
        launched = Launched(command, **options)  # type: ignore[arg-type]
        made.append(launched)
        return launched

    yield start
    for launched in made:
        started = children(launched.process.pid) if is_running(launched.process.pid) else []
        launched.close()
        assert wait_gone(started) == [], "a child outlived its launcher"


@pytest.fixture
def local_home(tmp_path: Path, postgres_cluster: Path) -> Path:
    """A data folder with fresh PostgreSQL data, in a path with a space."""
    home = tmp_path / "with space" / "home"
    shutil.copytree(postgres_cluster, home)
    return home


@pytest.fixture
def launch_stand_in(launch: Launch, local_home: Path) -> Launch:
    """Starts the launcher with a stand-in service: `launch_stand_in(*stand_in_options, ports=None, root=ROOT)`.

    start_new_session: as a shell starts what a terminal's Ctrl-C reaches, with all its children.
    """

    def start(
        *options: str,
        ports: Sequence[int] | None = None,
        root: Path = ROOT,
        prefix: Sequence[str] = (),
        start_new_session: bool = False,
    ) -> Launched:
        chosen = ports or [free_port() for _ in range(4)]
        module = "tests.integration.local.launch_stand_in"
        command = [*prefix, sys.executable, "-m", module, ",".join(map(str, chosen)), str(local_home), *options]
        return launch(command, cwd=root, start_new_session=start_new_session)

    return start
