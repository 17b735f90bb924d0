"""`llmsr restore` against a real backup service: only `--apply` touches what is live, and every loss is confirmed."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.fix_backup import fill
from tests.fix_cli import BackedUp, Restored, run_here

STEMS = itertools.count(1)


def write(place: BackedUp, count: int) -> None:
    """Registers new schemas."""
    fill(place.registry, f"written-{next(STEMS)}", count)


def test_prepare_tells_the_loss_and_the_next_line(restored: Restored) -> None:
    """A restore is prepared without --apply; people read what activating it would lose, and the line to type next."""
    ran = restored.told

    facts = dict(line.split(maxsplit=1) for line in ran.stdout.partition("\n\n")[0].splitlines())
    assert (facts["restore"], facts["state"], facts["target"]) == (restored.active, "PREPARED", "latest")
    assert "would lose nothing: the live registry stands at " in ran.stdout
    assert ran.stdout.endswith(f"\nNext: llmsr restore activate {restored.active}\n")
    assert "verify: done" in ran.stderr


def test_a_latest_restore_needs_no_confirmation(restored: Restored) -> None:
    """What was written since its preparation is replayed: nothing is lost."""
    assert restored.planned.stdout.startswith("Activating it replays 2 changes")
    assert restored.planned.stdout.endswith(f"\nNext: llmsr restore activate {restored.active} --apply\n")
    assert restored.after == restored.before


def test_a_target_that_cannot_be_reached_is_refused(backed_up: BackedUp) -> None:
    """Never something near instead: status 1 with the reason."""
    place = backed_up.run("restore", "prepare", "--place", "1/999999", "--output", "json")
    time = backed_up.run("restore", "prepare", "--time", "2001-01-01T00:00:00Z", "--output", "json")

    assert (place.status, place.error["reason"]) == (1, "TARGET_UNREACHABLE")
    assert (time.status, time.error["reason"]) == (1, "TARGET_UNREACHABLE")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--latest", "--backup", "x"],
        ["--time", "yesterday"],
        ["--time", "2026-11-23T18:30:00"],
        ["--place", "1"],
        ["--place", "0/1"],
        ["--place", "1/9223372036854775808"],
        ["--latest", "--verified", "V5"],
    ],
)
def test_a_target_must_be_clear(arguments: list[str]) -> None:
    """Status 2, before anything is called."""
    ran = run_here("restore", "prepare", *arguments, "--output", "json", LLMSR_BACKUP_TARGET="127.0.0.1:1")

    assert (ran.status, ran.error["reason"]) == (2, "USAGE")


def test_options_of_a_swap_need_apply(backed_up: BackedUp) -> None:
    """What means nothing in a dry run is a fault of usage."""
    ran = backed_up.run("restore", "activate", "x", "--no-wait", "--output", "json")

    assert (ran.status, ran.error["reason"]) == (2, "USAGE")


def test_a_restore_is_listed_and_shown(backed_up: BackedUp, restored: Restored) -> None:
    """A row a restore; `show` tells the window anew and the next line."""
    listed = [one["id"] for one in backed_up.json("restore", "list")["restores"]]
    rows = backed_up.run("restore", "list").stdout.splitlines()
    shown = backed_up.run("restore", "show", restored.prepared)

    assert {restored.prepared, restored.active} <= set(listed)
    assert [row.split()[0] for row in rows] == ["ID", *listed]
    assert "the live registry stands at" in shown.stdout
    assert shown.stdout.endswith(f"Next: llmsr restore activate {restored.prepared}\n")
    assert backed_up.json("restore", "show", restored.prepared)["restore"]["loss_window"]["live_readable"] is True


def test_a_restore_that_is_none_is_refused(backed_up: BackedUp) -> None:
    """Status 1 with the reason."""
    ran = backed_up.run("restore", "show", "01AAAAAAAAAAAAAAAAAAAAAAAA", "--output", "json")

    assert (ran.status, ran.error["reason"]) == (1, "RESTORE_NOT_FOUND")


@pytest.mark.parametrize("verb", ["activate", "revert"])
def test_a_step_out_of_order_is_refused(backed_up: BackedUp, restored: Restored, verb: str) -> None:
    """The dry run says what is out of order with the reason that `--apply` has."""
    restore_id = restored.active if verb == "activate" else restored.prepared

    dry = backed_up.run("restore", verb, restore_id, "--output", "json")
    wet = backed_up.run("restore", verb, restore_id, "--apply", "--output", "json")

    assert (dry.status, dry.error["reason"]) == (1, "ILLEGAL_STATE")
    assert (wet.status, json.loads(wet.stderr)["error"]["reason"]) == (1, "ILLEGAL_STATE")


def test_activation_asks_for_what_is_lost_and_a_revert_brings_it_back(backed_up: BackedUp) -> None:
    """From the dry run over the refusal and the confirmation to the swap, back again, and the release."""
    write(backed_up, 1)
    backup_id = backed_up.new_backup()
    kept = backed_up.subjects()
    write(backed_up, 2)
    everything = backed_up.subjects()
    prepared = backed_up.run("restore", "prepare", "--backup", backup_id, "--verified", "V2", "--output", "json")
    ended, last = prepared.lines[-2:]
    restore_id, confirmation = last["restore"]["id"], last["restore"]["loss_window"]["confirmation"]

    planned = backed_up.run("restore", "activate", restore_id)
    refused = backed_up.run("restore", "activate", restore_id, "--apply")
    untouched = backed_up.subjects()
    active = backed_up.run("restore", "activate", restore_id, "--confirm", confirmation, "--apply")
    after = backed_up.subjects()
    going_back = backed_up.run("restore", "revert", restore_id)
    reverted = backed_up.made("restore", "revert", restore_id, "--apply")
    back = backed_up.subjects()
    dropping = backed_up.run("restore", "release", restore_id)
    released = backed_up.json("restore", "release", restore_id, "--apply")

    line = f"llmsr restore activate {restore_id} --confirm {confirmation} --apply"
    assert ended["ended"]["response"]["id"] == restore_id
    assert last["restore"]["loss_window"]["changes"] == "2"
    assert planned.stdout.startswith("Activating it now would lose 2 changes, made from ")
    assert planned.stdout.endswith(f"\nNext: {line}\n")
    assert f"Would let {reverted['scratch_name']} serve" in planned.stdout
    assert (refused.status, refused.stdout) == (1, "")
    assert f"To lose that: {line}\n" in refused.stderr
    assert refused.stderr.endswith("Reason: LOSS_WINDOW_CHANGED\n")
    assert untouched == everything
    assert active.status == 0, active.stderr
    assert f"Next: llmsr restore revert {restore_id}" in active.stdout
    assert after == kept
    assert going_back.stdout.startswith("Reverting it now would lose nothing: ")
    assert reverted["state"] == "RESTORE_STATE_REVERTED"
    assert back == everything
    assert dropping.stdout == f"Would drop {reverted['scratch_name']}\n"
    assert (released["applied"], released["restore"]["state"]) == (True, "RESTORE_STATE_RELEASED")
