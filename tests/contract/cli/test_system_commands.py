"""`llmsr system` and `llmsr smoke` against a whole system."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.fix_cli import SECONDS_MAX, Ran, run_here
from tests.fix_steering import System


def run(system: System, *arguments: str, **settings: str) -> Ran:
    """Runs a command."""
    return run_here(*arguments, **{**system.settings, **settings})


def document(system: System, *arguments: str, status: int = 0) -> Any:
    """The JSON of a command."""
    ran = run(system, "--output", "json", *arguments)
    assert ran.status == status, ran.stderr
    return ran.document


def settled(system: System) -> Any:
    """The status once the archive has begun: it finds no tables while the registry, started with it, makes them."""
    ends = time.monotonic() + SECONDS_MAX
    while len((found := document(system, "system", "status"))["problems"]) != 1:
        assert time.monotonic() < ends, found
        time.sleep(0.1)
    return found


def test_status(steered: System) -> None:
    """A row for each replica, then what is wrong; the same as JSON."""
    found = settled(steered)
    told = run(steered, "system", "status")

    assert told.status == 0
    lines = told.stdout.splitlines()
    for service in steered.services:
        assert any(line.startswith(service.name) and service.target in line and "SERVING" in line for line in lines)
    assert "Problems:\n  there is no backup yet" in told.stdout
    assert [each["service"] for each in found["services"]] == ["registry", "backup", "admin"]
    assert found["health"] == "HEALTH_STATUS_DEGRADED"


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({"LLMSR_ADMIN_TOKEN": "another-token-for-it"}, 1, "CREDENTIAL_INVALID"),
        ({"LLMSR_ADMIN_TARGET": "127.0.0.1:1"}, 3, "cannot be reached"),
    ],
)
def test_who_may_not_or_cannot(steered: System, settings: dict[str, str], status: int, words: str) -> None:
    """A wrong token is refused, an admin service that is away is named; nothing is written to standard output."""
    ran = run(steered, "system", "status", **settings)

    assert (ran.status, ran.stdout) == (status, "")
    assert words in ran.stderr


def test_mode_and_flush(steered: System) -> None:
    """Each replica is named with its new state; the mode is put back."""
    read_only = run(steered, "system", "mode", "read-only", "--service", "registry")
    serving = document(steered, "system", "mode", "serving")
    flushed = document(steered, "system", "flush")

    assert read_only.status == 0
    assert "READ_ONLY" in read_only.stdout
    assert [each["process"]["state"] for each in serving["replicas"]] == ["SERVICE_STATE_SERVING"]
    assert [each["problem"] for each in flushed["replicas"]] == [""]
    assert run(steered, "system", "mode", "asleep").status == 2
    assert run(steered, "system", "flush", "--service", "gateway").status == 2


def test_config(steered: System) -> None:
    """The options of a service by replica, with sources, without secrets."""
    told = run(steered, "system", "config", "admin", "--changed")

    assert told.status == 0
    rows = [line.split() for line in told.stdout.splitlines()[1:]]
    options = {row[1]: row[2] for row in rows}
    assert options["admin.token"] == "********"
    assert options["peers.backup"] == steered.backup.target
    assert "server.startup_timeout_seconds" not in options


@pytest.mark.parametrize(("command", "verb"), [("restart", "restart"), ("shutdown", "stop")])
def test_what_stops_processes_needs_apply(steered: System, command: str, verb: str) -> None:
    """Without --apply it is said what would be stopped, in order, and nothing is."""
    before = document(steered, "system", "status")
    told = run(steered, "system", command)
    planned = document(steered, "system", command, "--service", "backup")

    assert told.status == 0
    lines = told.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"Would {verb} {each.name} at {each.target}" for each in steered.services
    ]
    assert planned["applied"] is False
    assert [each["address"] for each in planned["replicas"]] == [steered.backup.target]
    assert "--apply" in told.stderr
    after = document(steered, "system", "status")
    assert [each["replicas"][0]["process"]["instance_id"] for each in after["services"]] == [
        each["replicas"][0]["process"]["instance_id"] for each in before["services"]
    ]


def test_a_restart_that_nobody_follows_up_fails(steered: System) -> None:
    """With --apply a replica that no supervisor starts again ends the command with status 1 and its name."""
    ran = run(steered, "system", "restart", "--service", "backup", "--apply", "--replica-seconds", "3")
    steered.backup.wait()
    steered.backup.start()

    assert ran.status == 1
    assert f"restart backup at {steered.backup.target}: failed" in ran.stderr
    assert "PEER_FAILED" in ran.stderr
    assert run(steered, "system", "restart", "--replica-seconds", "0").status == 2


def test_smoke(steered: System) -> None:
    """Every check passes and nothing is left; a registry that is read-only does not pass, and reads are tried."""
    told = run(steered, "smoke")
    found = document(steered, "smoke")
    subjects = document(steered, "schema", "list", "--include-deleted")["subjects"]
    document(steered, "system", "mode", "read-only")
    refused = document(steered, "smoke", status=1)
    document(steered, "system", "mode", "serving")

    assert told.status == 0, told.stdout
    assert told.stdout.rstrip().endswith("Passed.")
    assert found["passed"]
    assert len(found["checks"]) == 12
    assert not [each for each in subjects if each["name"].startswith("_smoke/")]
    checks = {each["name"]: each for each in refused["checks"]}
    assert checks["register"]["message"].startswith("READ_ONLY")
    assert checks["validate schema"]["passed"]
    assert "purge" not in checks
