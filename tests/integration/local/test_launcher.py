"""The launcher of local mode, with a stand-in for the services and real servers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deploy.local.ports import HOST, Claims, free_port
from tests.fix_launcher import LINE_SECONDS, ROOT, Launch, Launched, children, wait_gone

LATER_START_SECONDS = 5
LATER_STARTS_MAX = 4


def database_url(launched: Launched, home: Path) -> str:
    """URL of the launcher's database, from its banner."""
    port = re.search(r"PostgreSQL \d+ +127\.0\.0\.1:(\d+)", "\n".join(launched.said))
    assert port is not None
    password = (home / "secrets" / "database_password").read_text()
    return f"postgresql://registry:{password}@{HOST}:{port[1]}/registry"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_orderly_stop(launch_stand_in: Launch, number: signal.Signals) -> None:
    """On Ctrl-C or SIGTERM the services stop first, then Valkey, then PostgreSQL, and the exit code is 0."""
    launched = launch_stand_in()
    launched.wait_started()
    started = children(launched.process.pid)

    launched.signal(number)
    code, said = launched.wait_exit()

    stops = [line.split(" stopped")[0] for line in said.splitlines() if " stopped after " in line]
    assert (code, stops) == (0, ["stand_in", "Valkey", "PostgreSQL"]), said
    assert len(started) == 3
    assert wait_gone(started) == []


def test_banner(launch_stand_in: Launch, local_home: Path) -> None:
    """The banner names ports and folder, and holds the lines to paste."""
    ports = [free_port() for _ in range(4)]
    launched = launch_stand_in(ports=ports)
    banner = launched.wait_started()

    assert f"gRPC {HOST}:{ports[0]}   HTTP http://{HOST}:{ports[1]}" in banner
    assert str(local_home) in banner
    assert re.search(
        rf"^grpcurl -plaintext -d .* {HOST}:{ports[0]} .*SchemaService/RegisterSchema$", banner, re.MULTILINE
    )
    assert re.search(rf"buf curl .* http://{HOST}:{ports[0]}/.*SchemaService/GetSchema$", banner, re.MULTILINE)
    assert f"curl -s http://{HOST}:{ports[1]}/health/ready" in banner


def test_banner_sql_line_runs(launch_stand_in: Launch, local_home: Path) -> None:
    """The line for SQL works as pasted, in a path with a space."""
    launched = launch_stand_in()
    banner = launched.wait_started()
    line = next(line for line in banner.splitlines() if line.startswith("PGPASSWORD="))

    answer = subprocess.run(
        ["/bin/sh", "-c", f"{line} -Atc 'SELECT current_user'"], capture_output=True, text=True, cwd=ROOT, check=False
    )

    assert answer.stdout == "registry\n", answer.stderr


def test_kill_leaves_no_orphans(launch_stand_in: Launch, local_home: Path) -> None:
    """After kill -9 of the launcher nothing of it runs, and PostgreSQL has shut down cleanly."""
    launched = launch_stand_in()
    launched.wait_started()
    started = children(launched.process.pid)

    launched.signal(signal.SIGKILL)
    launched.wait_exit()

    assert len(started) == 3
    assert wait_gone(started) == []
    assert "database system is shut down" in (local_home / "postgresql.log").read_text()


def test_restart_after_kill_keeps_data(launch_stand_in: Launch, local_home: Path) -> None:
    """What was committed before kill -9 is there after the next start, which takes a few seconds at most: the fastest
    of some, for others work on this machine as well."""
    launched, _ = timed_start(launch_stand_in)
    with psycopg.connect(database_url(launched, local_home), autocommit=True) as connection:
        connection.execute("CREATE TABLE seen AS SELECT 7 AS id")
    took: list[float] = []

    while not took or (min(took) >= LATER_START_SECONDS and len(took) < LATER_STARTS_MAX):
        launched.signal(signal.SIGKILL)
        launched.wait_exit()
        launched, seconds = timed_start(launch_stand_in)
        took.append(seconds)
        with psycopg.connect(database_url(launched, local_home)) as connection:
            assert connection.execute("SELECT id FROM seen").fetchone() == (7,)

    assert min(took) < LATER_START_SECONDS


def timed_start(launch_stand_in: Launch) -> tuple[Launched, float]:
    """A launcher that has started everything, and the seconds that took."""
    began = time.monotonic()
    launched = launch_stand_in()
    launched.wait_started()
    return launched, time.monotonic() - began


def test_services_role_is_no_superuser(launch_stand_in: Launch, local_home: Path) -> None:
    """The services' role owns its database and is no superuser."""
    launched = launch_stand_in()
    launched.wait_started()

    with psycopg.connect(database_url(launched, local_home)) as connection:
        row = connection.execute(
            "SELECT rolsuper, pg_get_userbyid(datdba) FROM pg_roles, pg_database"
            " WHERE rolname = current_user AND datname = current_database()"
        ).fetchone()

    assert row == (False, "registry")


def test_taken_ports(launch_stand_in: Launch) -> None:
    """When the usual ports are taken the services get others, which are printed."""
    ports = [free_port() for _ in range(4)]
    with socket.create_server((HOST, ports[0])), socket.create_server((HOST, ports[1])):
        launched = launch_stand_in(ports=ports)
        banner = launched.wait_started()

    found = re.search(rf"gRPC {HOST}:(\d+)   HTTP http://{HOST}:(\d+)", banner)
    assert found is not None
    assert {int(found[1]), int(found[2])}.isdisjoint(ports)


def test_ports_are_kept_while_a_service_is_down(
    launch: Launch, launch_stand_in: Launch, local_home: Path, tmp_path: Path
) -> None:
    """A second registry on this machine does not take a port of the first on which nothing listens for a moment; after
    the end of the first, however it ended, the port is free."""
    ports = [free_port() for _ in range(4)]
    other = tmp_path / "other"
    shutil.copytree(local_home, other)
    # Nobody listens on the gRPC port of a stand-in.
    first = launch_stand_in(ports=ports)
    first.wait_started()
    module = "tests.integration.local.launch_stand_in"
    second = launch([sys.executable, "-m", module, ",".join(map(str, ports)), str(other)])
    banner = second.wait_started()
    first.signal(signal.SIGKILL)
    first.wait_exit()

    found = re.search(rf"gRPC {HOST}:(\d+)   HTTP http://{HOST}:(\d+)", banner)
    assert found is not None
    assert {int(found[1]), int(found[2])}.isdisjoint(ports)
    with contextlib.closing(Claims()) as claims:
        assert claims.take(ports[0]) == ports[0]


def test_second_launcher_is_refused(launch_stand_in: Launch) -> None:
    """A second launcher on the same data folder says who holds it and changes nothing."""
    first = launch_stand_in()
    first.wait_started()

    code, said = launch_stand_in().wait_exit()

    assert code == 1
    assert f"process {first.process.pid} runs a local registry" in said
    assert len(children(first.process.pid)) == 3


def test_dead_child_stops_the_rest(launch_stand_in: Launch) -> None:
    """When a child ends by itself the launcher says which, stops the rest and exits with 1."""
    launched = launch_stand_in()
    launched.wait_started()
    started = children(launched.process.pid)
    victim = next(pid for pid in started if b"valkey" in Path(f"/proc/{pid}/cmdline").read_bytes())

    os.kill(victim, signal.SIGKILL)
    code, said = launched.wait_exit()

    assert code == 1
    assert "Valkey ended by itself with code -9" in said
    assert wait_gone(started) == []


def test_service_that_fails_at_start(launch_stand_in: Launch) -> None:
    """A service that ends before it is ready: its log is shown, the servers stop, the exit code is 1."""
    code, said = launch_stand_in("--fail").wait_exit()

    assert code == 1
    assert "the database has a cold" in said
    assert "PostgreSQL stopped after" in said


def test_stop_during_start(launch_stand_in: Launch) -> None:
    """Ctrl-C while a service is not ready yet stops everything in order."""
    launched = launch_stand_in("--never-ready")
    launched.wait_line("Valkey is ready")

    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    assert code == 0
    assert "PostgreSQL stopped after" in said


def test_what_is_made_first(launch_stand_in: Launch, local_home: Path) -> None:
    """What a service needs before its first start is made once: a later start finds it, and keeps it."""
    launched = launch_stand_in("--makes")
    launched.wait_started()
    made = (local_home / "made" / "key").stat().st_mtime_ns
    launched.signal(signal.SIGINT)
    launched.wait_exit()

    launch_stand_in("--makes").wait_started()

    assert (local_home / "made" / "key").stat().st_mtime_ns == made


def test_what_cannot_be_made_is_told(launch_stand_in: Launch, local_home: Path) -> None:
    """When that fails the launcher says what the program said, stops the servers, and exits with 1."""
    code, said = launch_stand_in("--make-fails").wait_exit()

    assert code == 1
    assert f"stand_in could not make {local_home / 'made' / 'key'}" in said
    assert "the disk has a cold" in said
    assert "PostgreSQL stopped after" in said
    assert "Traceback" not in said


def test_stop_while_something_is_made(launch_stand_in: Launch, local_home: Path) -> None:
    """Ctrl-C in a terminal reaches what is being made too: everything stops in order, and the exit code is 0."""
    launched = launch_stand_in("--make-waits", start_new_session=True)
    launched.wait_line("Valkey is ready")
    making = local_home / "made" / "making"
    deadline = time.monotonic() + LINE_SECONDS
    while not making.exists():
        assert time.monotonic() < deadline, "nothing was made"
        time.sleep(0.02)

    os.killpg(launched.process.pid, signal.SIGINT)
    code, said = launched.wait_exit()

    assert code == 0, said
    assert "PostgreSQL stopped after" in said
    assert "Traceback" not in said


def test_services_that_end_in_order(launch_stand_in: Launch) -> None:
    """When every service was stopped by somebody else the rest stops too, and the exit code is 0."""
    launched = launch_stand_in()
    launched.wait_started()
    service = next(
        pid for pid in children(launched.process.pid) if b"stand_in" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )

    os.kill(service, signal.SIGTERM)
    code, said = launched.wait_exit()

    assert code == 0, said
    assert "stand_in was stopped" in said
    assert "PostgreSQL stopped after" in said


def test_second_signal_forces(launch_stand_in: Launch) -> None:
    """A service that does not stop is killed at the second Ctrl-C, and the exit code is 1."""
    launched = launch_stand_in("--deaf")
    launched.wait_started()
    started = children(launched.process.pid)

    launched.signal(signal.SIGINT)
    launched.wait_line("stopping")
    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    assert code == 1
    assert "stand_in killed after" in said
    assert wait_gone(started) == []


def test_signals_that_come_together_ask_once(launch_stand_in: Launch) -> None:
    """As when a group of processes is ended and make passes that on: everything stops in order."""
    launched = launch_stand_in()
    launched.wait_started()

    for number in (signal.SIGTERM, signal.SIGHUP):
        launched.signal(number)
    code, said = launched.wait_exit()

    assert code == 0, said
    assert "killed" not in said
    assert "PostgreSQL stopped after" in said


def test_services_are_asked_to_stop_once(launch_stand_in: Launch, local_home: Path) -> None:
    """One Ctrl-C is one SIGTERM: a second one would make a service give up its orderly shutdown."""
    launched = launch_stand_in("--impatient")
    launched.wait_started()

    launched.signal(signal.SIGINT)
    launched.wait_exit()

    assert "asked twice" not in (local_home / "stand_in.log").read_text()


def test_secrets(launch_stand_in: Launch, local_home: Path) -> None:
    """Secrets are made once, are readable by their owner only, and are in no environment and no command line."""
    launched = launch_stand_in()
    launched.wait_started()
    token = (local_home / "secrets" / "control_token").read_text()
    handed_over = local_home / "service-secrets"
    shown = b"".join(
        Path(f"/proc/{pid}/{part}").read_bytes()
        for pid in children(launched.process.pid)
        for part in ("environ", "cmdline")
    )
    launched.signal(signal.SIGINT)
    launched.wait_exit()
    launch_stand_in().wait_started()

    assert (local_home / "secrets" / "control_token").read_text() == token
    assert (handed_over / "control__token").read_text() == token
    files = [path for folder in ("secrets", "service-secrets") for path in (local_home / folder).iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert [path.name for path in files if path.read_text().encode() in shown] == []


def test_first_start_makes_the_data(launch_stand_in: Launch, local_home: Path) -> None:
    """Without a data folder the launcher makes everything."""
    shutil.rmtree(local_home)

    launched = launch_stand_in()
    launched.wait_started()

    assert "made a PostgreSQL" in "\n".join(launched.said)
    assert stat.S_IMODE(local_home.stat().st_mode) == 0o700


@pytest.fixture
def moved_tree(tmp_path: Path) -> Iterator[Path]:
    """A copy of the tree in a path with a space."""
    target = tmp_path / "a tree with space"
    for part in ("deploy", "tests"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    yield target
    shutil.rmtree(target)


def test_tree_in_a_path_with_space(launch_stand_in: Launch, moved_tree: Path) -> None:
    """The launcher works from a checkout whose path has a space."""
    launched = launch_stand_in(root=moved_tree)
    launched.wait_started()

    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    assert code == 0, said


PLAIN_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
"""In a user namespace the files of this tree and of the interpreter stay readable, wherever they are."""


def test_plain_user(launch_stand_in: Launch) -> None:
    """A user who is not root and has no capability starts and stops everything."""
    if os.geteuid() != 0:
        pytest.skip("not root: every other test shows it")
    if not shutil.which("unshare") or subprocess.run([*PLAIN_USER, "true"], check=False).returncode:
        pytest.skip("user namespaces are forbidden here")

    launched = launch_stand_in(prefix=PLAIN_USER)
    launched.wait_started()
    status = [Path(f"/proc/{pid}/status").read_text() for pid in children(launched.process.pid)]
    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    assert code == 0, said
    assert len(status) == 3
    assert all(re.search(r"^CapEff:\t0+$", text, re.MULTILINE) for text in status)
