"""Child processes that cannot outlive this process, and the user they run as."""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EXEC_CHILD = Path(__file__).with_name("exec_child.py")
LOG_TAIL_LINES = 12
LOG_BYTES_MAX = 32 * 1024 * 1024
"""A log that is larger at the start of its program is put aside, over the one put aside before."""
POLL_SECONDS = 0.02


class ChildFailed(Exception):
    """A program could not be started or ended by itself; the message holds the end of its log."""


class Confinement(enum.Enum):
    """How a program leaves root behind; PostgreSQL refuses to run as uid 0."""

    NONE = "none"
    NAMESPACE = "namespace"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Identity:
    """The user a child runs as. `user` is set for Confinement.USER only."""

    confinement: Confinement = Confinement.NONE
    user: str | None = None

    @property
    def arguments(self) -> list[str]:
        """Options for exec_child."""
        if self.user is not None:
            return ["--user", self.user]
        return ["--namespace"] if self.confinement is Confinement.NAMESPACE else []

    def own(self, path: Path) -> None:
        """Gives a folder or file, with all it holds, to the user that the child runs as."""
        if os.geteuid() != 0:
            return
        name = self.user or pwd.getpwuid(0).pw_name
        account = pwd.getpwnam(name)
        for entry in (path, *(path.rglob("*") if path.is_dir() else ())):
            os.chown(entry, account.pw_uid, account.pw_gid, follow_symlinks=False)


def unprivileged_identity() -> Identity:
    """The identity under which a program that refuses root runs here.

    A plain user stays as he is. Root enters a user namespace, so files keep their owner and no user is needed; where
    namespaces are forbidden (many containers) root becomes `postgres`, else `nobody`. Raises ChildFailed when neither
    account exists.
    """
    if os.geteuid() != 0:
        return Identity()
    namespace = Identity(Confinement.NAMESPACE)
    if run(["/bin/true"], identity=namespace).returncode == 0:
        return namespace
    return user_identity()


def user_identity() -> Identity:
    """Identity of the first unprivileged account that exists, for root without user namespaces."""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return Identity(Confinement.USER, name)
    raise ChildFailed(
        "PostgreSQL does not run as root, user namespaces are forbidden here, and neither the user `postgres` nor "
        "`nobody` exists: start as a plain user, or create one of them"
    )


def _wrapped(command: Sequence[str], identity: Identity, death_signal: signal.Signals) -> list[str]:
    """The command line that binds a program to this process before it starts."""
    return [
        *(sys.executable, "-I", "-S", str(EXEC_CHILD)),
        *("--parent", str(os.getpid()), "--signal", str(death_signal.value)),
        *identity.arguments,
        "--",
        *command,
    ]


def run(
    command: Sequence[str],
    *,
    identity: Identity,
    limit_seconds: float = 120,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a short program to its end, output captured. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        _wrapped(command, identity, signal.SIGKILL),
        check=False,
        capture_output=True,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=limit_seconds,
    )


def tail(text: str) -> str:
    """The last lines of what a program said, indented."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with a UTF-8 locale and without PostgreSQL's client variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


@dataclass(slots=True)
class Child:
    """One program, startable again after it stopped.

    The kernel sends it `stop_signal` when the thread that started it ends, whatever ended it; therefore only the main
    thread may start one. Output is appended to `log`.
    """

    name: str
    command: Sequence[str]
    log: Path
    identity: Identity = field(default_factory=Identity)
    stop_signal: signal.Signals = signal.SIGINT
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Process id; only of a child that was started."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether the child was ever started."""
        return self._process is not None

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the newest run, negative for a signal; None while it runs or before the first start."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts the program in a session of its own and returns at once."""
        assert not self.running, f"{self.name} runs already"
        if threading.current_thread() is not threading.main_thread():
            raise ChildFailed(f"start {self.name} from the main thread: it stops when its thread ends")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                _wrapped(self.command, self.identity, self.stop_signal),
                cwd=self.cwd,
                env=environment(self.env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until(self, ready: Callable[[], bool], *, limit_seconds: float) -> None:
        """Waits until `ready()`. Raises ChildFailed when the child ends first or the limit is over."""
        deadline = time.monotonic() + limit_seconds
        while not ready():
            if not self.running:
                raise ChildFailed(
                    f"{self.name} ended with code {self.exit_code} before it was ready; its log {self.log} ends:\n"
                    f"{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ChildFailed(
                    f"{self.name} was not ready within {limit_seconds:g} s; its log {self.log} ends:\n{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def log_tail(self) -> str:
        """The last lines that the child wrote."""
        if not self.log.is_file():
            return "(empty)"
        return tail(self.log.read_text(errors="replace"))

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program itself; nothing happens when it has ended."""
        if self.running:
            os.kill(self.pid, number)

    def stop(self, *, limit_seconds: float = 30) -> bool:
        """Stops the child and returns whether it ended by itself within the limit; else its group is killed.

        Repeating it, or stopping what was never started, does nothing and returns True.
        """
        if self._process is None or self._process.poll() is not None:
            return True
        self.send(self.stop_signal)
        try:
            self._process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """Kills the child and its process group at once, as a crash would."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def find_program(names: Sequence[str]) -> Path | None:
    """The first of the programs that is on PATH."""
    return next((Path(found) for name in names if (found := shutil.which(name))), None)
