"""`llmsr backup` against a real backup service: what is written where, and the exit status."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.fix_cli import BackedUp, Start, run_terminal


@contextmanager
def held_tables(place: BackedUp) -> Iterator[None]:
    """While it lasts no backup gets past its snapshot: somebody alters a table and does not commit."""
    with psycopg.connect(place.database_url) as connection:
        connection.execute("LOCK TABLE registry.versions IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_create_shows_progress_and_the_backup(backed_up: BackedUp) -> None:
    """Steps go to standard error, the backup's facts to standard output."""
    ran = backed_up.run("backup", "create", "--kind", "safety", "--pin")

    facts = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert ran.status == 0
    assert "dump: done" in ran.stderr
    assert (facts["kind"], facts["pinned"]) == ("SAFETY", "yes")
    assert facts["verified"].startswith("V2, ")


def test_create_as_json_is_the_events(backed_up: BackedUp) -> None:
    """JSON lines: the steps and the progress as they come, `ended` with the Backup the last."""
    ran = backed_up.run("backup", "create", "--pin", "--output", "json")

    *events, last = ran.lines
    assert (ran.status, ran.stderr) == (0, "")
    assert {next(iter(set(event) - {"time"})) for event in events} <= {"step", "progress"}
    assert [event["step"]["state"] for event in events if "step" in event][-1] == "STEP_STATE_DONE"
    assert last["ended"]["response"]["@type"].endswith(".Backup")
    assert last["ended"]["response"]["kind"] == "BACKUP_KIND_MANUAL"


def test_a_repeat_with_the_same_request_id_is_the_same_backup(backed_up: BackedUp) -> None:
    """Who repeats after a lost answer gets the first operation."""
    first = backed_up.new_backup("--request-id", "a-repeat-of-create")

    assert backed_up.new_backup("--request-id", "a-repeat-of-create") == first


def test_no_wait_returns_at_once(backed_up: BackedUp) -> None:
    """One document with the operation; `watch` shows the rest, and the Backup at its end."""
    begun = backed_up.json("backup", "create", "--kind", "safety", "--no-wait")

    watched = backed_up.run("backup", "watch", begun["operation"]["name"], "--output", "json")

    assert watched.lines[-1]["ended"]["name"] == begun["operation"]["name"]
    assert watched.lines[-1]["ended"]["response"]["@type"].endswith(".Backup")


def test_a_terminal_shows_the_steps(backed_up: BackedUp) -> None:
    """On a terminal each step has its line, and the backup follows, no line wider than 80 columns."""
    ran = run_terminal("backup", "create", "--kind", "safety", **backed_up.settings)

    assert ran.status == 0
    assert max(map(len, ran.screen)) <= 80
    assert any(line.split()[:2] == ["done", "dump"] for line in ran.screen)
    assert any(line.split()[:1] == ["backup"] for line in ran.screen)


def test_list_holds_every_backup(backed_up: BackedUp) -> None:
    """People see a row a backup, programs ListBackupsResponse; `--limit` cuts and its token goes on."""
    everything = backed_up.json("backup", "list")
    cut = backed_up.json("backup", "list", "--limit", "1")
    rest = backed_up.json("backup", "list", "--page-token", cut["next_page_token"])
    rows = backed_up.run("backup", "list").stdout.splitlines()

    ids = [one["id"] for one in everything["backups"]]
    assert {backed_up.proven, backed_up.spare} <= set(ids)
    assert [one["id"] for one in cut["backups"] + rest["backups"]] == ids
    assert (everything["problems"], everything["next_page_token"]) == ([], "")
    assert [row.split()[0] for row in rows] == ["ID", *ids]


def test_ids_stay_whole_on_a_terminal(backed_up: BackedUp) -> None:
    """In 80 columns everything but the ids folds: they can be copied."""
    ran = run_terminal("backup", "list", **backed_up.settings)

    assert ran.status == 0
    assert max(map(len, ran.screen)) <= 80
    assert {backed_up.proven, backed_up.spare} <= {line.split()[0] for line in ran.screen}


def test_list_is_filtered(backed_up: BackedUp) -> None:
    """`--verified` leaves out what is verified less far, `--kind` every other kind."""
    proven = backed_up.json("backup", "list", "--verified", "v3")["backups"]
    daily = backed_up.json("backup", "list", "--kind", "daily")["backups"]

    assert backed_up.proven in [one["id"] for one in proven]
    assert backed_up.spare not in [one["id"] for one in proven]
    assert daily == []


def test_show_tells_all(backed_up: BackedUp) -> None:
    """A backup with its verifications, tables and objects; as JSON GetBackupResponse."""
    shown = backed_up.json("backup", "show", backed_up.proven)["backup"]
    human = backed_up.run("backup", "show", backed_up.proven).stdout

    assert shown["verified_level"] == "VERIFICATION_LEVEL_V3"
    for part in (backed_up.proven, shown["objects"][0]["key"], "versions", "V3"):
        assert part in human


@pytest.mark.parametrize("command", [["show"], ["verify"], ["pin"], ["delete"]])
def test_a_backup_that_is_none_is_refused(backed_up: BackedUp, command: list[str]) -> None:
    """Status 1 with the service's reason, for an id that nobody has and for what is no id."""
    unknown = backed_up.run("backup", *command, "01AAAAAAAAAAAAAAAAAAAAAAAA", "--output", "json")
    invalid = backed_up.run("backup", *command, "newest", "--output", "json")

    assert (unknown.status, unknown.error["reason"]) == (1, "BACKUP_NOT_FOUND")
    assert (invalid.status, invalid.error["reason"]) == (1, "INVALID_FIELD")


def test_verify_tells_the_level_that_passed(backed_up: BackedUp) -> None:
    """A backup that is right passes, status 0."""
    ran = backed_up.run("backup", "verify", backed_up.proven, "--level", "v2")

    assert ran.status == 0
    assert ran.stdout.startswith(f"Backup {backed_up.proven}: V2 passed, in ")


def test_verify_lists_what_is_wrong(backed_up: BackedUp) -> None:
    """A backup with a flipped bit does not pass: status 1, each problem names its object, for people and programs."""
    damaged = backed_up.new_backup()
    [key] = [one["key"] for one in backed_up.json("backup", "show", damaged)["backup"]["objects"]][:1]
    [file] = [path for path in backed_up.store.rglob("*") if str(path).endswith(key)]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)

    human = backed_up.run("backup", "verify", damaged)
    machine = backed_up.run("backup", "verify", damaged, "--output", "json")
    backed_up.json("backup", "delete", damaged, "--apply")

    found = machine.lines[-1]["ended"]["response"]
    assert (human.status, machine.status, found["passed"]) == (1, 1, False)
    assert human.stdout.startswith(f"Backup {damaged}: V")
    assert " NOT passed, in " in human.stdout
    assert found["problems"]
    assert key in human.stdout


def test_pin_protects_until_unpin(backed_up: BackedUp) -> None:
    """A pinned backup is not deleted, also in a dry run; unpinned it is, and gone then."""
    backup_id = backed_up.new_backup()
    pinned = backed_up.run("backup", "pin", backup_id)
    refused = backed_up.run("backup", "delete", backup_id, "--output", "json")
    backed_up.run("backup", "unpin", backup_id)

    planned = backed_up.run("backup", "delete", backup_id)
    kept = backed_up.run("backup", "show", backup_id)
    done = backed_up.json("backup", "delete", backup_id, "--apply")
    gone = backed_up.run("backup", "show", backup_id)

    assert pinned.stdout == f"Pinned backup {backup_id}\n"
    assert (refused.status, refused.error["reason"]) == (1, "BACKUP_PROTECTED")
    assert planned.stdout.startswith(f"Would delete backup {backup_id}: ")
    assert "--apply" in planned.stderr
    assert (kept.status, gone.status) == (0, 1)
    assert (done["applied"], done["backup_id"]) == (True, backup_id)
    assert f"Would delete {done['keys'][0]}" in planned.stdout


def test_prune_shows_each_decision_with_its_cause(backed_up: BackedUp) -> None:
    """A dry run tells of every backup whether it goes and why, and changes nothing."""
    human = backed_up.run("backup", "prune", "--force")
    machine = backed_up.run("backup", "prune", "--force", "--output", "json")

    decisions = machine.document["decisions"]
    assert human.status == machine.status == 0
    assert machine.document["applied"] is False
    assert {backed_up.proven, backed_up.spare} <= {one["backup_id"] for one in decisions}
    for one in decisions:
        [row] = [line for line in human.stdout.splitlines() if line.startswith(one["backup_id"])]
        assert row.split()[1] == ("goes" if one["delete"] else "stays")
        assert row.endswith(one["cause"])


def test_archive_tells_lag_and_window(backed_up: BackedUp) -> None:
    """The place, the lag and the times a restore can go to; status 0 while nothing is wrong."""
    human = backed_up.run("backup", "archive")
    status = backed_up.json("backup", "archive")["status"]

    facts = dict(line.split(maxsplit=1) for line in human.stdout.splitlines())
    assert human.status == 0
    assert facts["archiving"] == "yes"
    assert facts["restorable"].startswith("from ")
    assert facts["place"].startswith(f"{status['epoch']}/")


def test_stores_tell_what_they_can(backed_up: BackedUp) -> None:
    """The primary store with its newest backup; status 0 while nothing is wrong."""
    human = backed_up.run("backup", "stores")
    [store] = backed_up.json("backup", "stores")["stores"]

    assert human.status == 0
    assert (store["name"], store["problem"]) == ("primary", "")
    assert store["newest_backup_id"] in human.stdout


def test_schedules_that_are_off(backed_up: BackedUp) -> None:
    """Without schedules people are told that nothing is backed up by itself."""
    human = backed_up.run("backup", "schedules")

    assert backed_up.json("backup", "schedules") == {"schedules": []}
    assert (human.status, "by itself" in human.stderr) == (0, True)


def test_rebuild_catalog_counts_the_backups(backed_up: BackedUp) -> None:
    """The catalog is written anew, and holds what the list holds."""
    count = len(backed_up.json("backup", "list")["backups"])

    rebuilt = backed_up.run("backup", "rebuild-catalog")

    assert rebuilt.status == 0
    assert rebuilt.stdout == f"The catalog was written: {count} backups, 0 problems\n"


def test_rotate_keys_without_a_change(backed_up: BackedUp) -> None:
    """Where the recipients are the right ones nothing would be done, and nothing is."""
    planned = backed_up.run("backup", "rotate-keys")
    done = backed_up.json("backup", "rotate-keys", "--apply")

    assert planned.status == 0
    assert planned.stdout.startswith("Nothing to do.\n")
    assert (done["applied"], done["rewrapped"]) == (True, 0)
    assert done["unchanged"] >= 2


def test_operations_are_listed(backed_up: BackedUp) -> None:
    """Newest first, page by page up to the limit, for people and programs."""
    listed = backed_up.json("backup", "operations")["operations"]
    cut = backed_up.json("backup", "operations", "--limit", "1")
    rows = backed_up.run("backup", "operations").stdout.splitlines()

    assert [one["name"] for one in cut["operations"]] == [listed[0]["name"]]
    assert [row.split()[0] for row in rows] == ["NAME", *(one["name"] for one in listed)]
    assert any(one["kind"] == "OPERATION_KIND_VERIFY" and one["done"] for one in listed)


def test_an_operation_that_is_none_is_refused(backed_up: BackedUp) -> None:
    """Status 1 with the reason, for a watch and for a cancellation."""
    watched = backed_up.run("backup", "watch", "nothing", "--output", "json")
    cancelled = backed_up.run("backup", "cancel", "nothing", "--output", "json")

    assert (watched.status, watched.error["reason"]) == (1, "OPERATION_NOT_FOUND")
    assert (cancelled.status, cancelled.error["reason"]) == (1, "OPERATION_NOT_FOUND")


def test_cancelling_what_has_ended_changes_nothing(backed_up: BackedUp) -> None:
    """An operation that ended stays as it is, status 0."""
    [newest] = [one for one in backed_up.json("backup", "operations")["operations"] if one["done"]][:1]

    ran = backed_up.run("backup", "cancel", newest["name"])

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Operation {newest['name']} has ended already: ")


def test_ctrl_c_ends_the_waiting_not_the_operation(backed_up: BackedUp, start_llmsr: Start) -> None:
    """Ctrl-C is status 130 and says how to go on; the operation runs until it is cancelled, and then has failed."""
    with held_tables(backed_up):
        process = start_llmsr(["backup", "create"], **backed_up.settings)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        [name] = [line.split()[-1] for line in told.decode().splitlines() if "backup watch" in line]
        running = backed_up.json("backup", "operations", "--running")["operations"]
        cancelled = backed_up.run("backup", "cancel", name)
        watched = backed_up.run("backup", "watch", name, "--output", "json")

    assert process.returncode == 130
    assert f"Operation {name} goes on." in told.decode()
    assert f"llmsr backup cancel {name}" in told.decode()
    assert [one["name"] for one in running] == [name]
    assert cancelled.stdout == f"Operation {name} was asked to end.\n"
    assert watched.status == 1
    assert watched.lines[-1]["ended"]["error"]["reason"] == "OPERATION_CANCELLED"
    assert json.loads(watched.stderr)["error"]["reason"] == "OPERATION_CANCELLED"


def test_ctrl_c_for_programs(backed_up: BackedUp, start_llmsr: Start) -> None:
    """With JSON output the last word is one document on standard error that names the operation."""
    with held_tables(backed_up):
        process = start_llmsr(["backup", "create", "--output", "json"], **backed_up.settings)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        error = json.loads(told)["error"]
        backed_up.json("backup", "cancel", error["metadata"]["operation"])
        backed_up.run("backup", "watch", error["metadata"]["operation"])

    assert (process.returncode, error["reason"]) == (130, "INTERRUPTED")
