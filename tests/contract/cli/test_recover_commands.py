"""`llmsr recover` against a real admin service: only `--apply` changes anything, and every loss is confirmed."""

from __future__ import annotations

import pytest

from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.recover_commands import target
from tests.fix_cli import BackedUp, Recovered


def test_a_plan_changes_nothing(backed_up: BackedUp) -> None:
    """Without --apply every step is told with what it would do."""
    ran = backed_up.run("recover", "start")

    assert ran.status == 0, ran.stderr
    assert "PLANNED" in ran.stdout
    assert all(name in ran.stdout for name in ("preflight", "fence", "switch", "smoke"))
    assert "Nothing was changed" in ran.stderr


def test_a_loss_that_is_not_confirmed(backed_up: BackedUp, recovered: Recovered) -> None:
    """Status 1, and the lines that go on and back; the recovery stands still and shows them too."""
    shown = backed_up.run("recover", "show", recovered.id)

    assert recovered.started.status == 1
    assert f"llmsr recover resume {recovered.id} --confirm " in recovered.started.stderr
    assert "Reason: LOSS_WINDOW_CHANGED" in recovered.started.stderr
    assert "UNCONFIRMED" in shown.stdout
    assert f"Next: llmsr recover resume {recovered.id} --confirm " in shown.stdout


def test_dry_runs_of_resume_and_abort(backed_up: BackedUp, recovered: Recovered) -> None:
    """They say which steps would be done, or undone."""
    onward = backed_up.json("recover", "resume", recovered.id)
    back = backed_up.run("recover", "abort", recovered.id)

    assert onward["applied"] is False
    assert "Would drop what was restored" in back.stdout


def test_another_one_is_refused(backed_up: BackedUp, recovered: Recovered) -> None:
    """While one is open no other begins; the error names it."""
    ran = backed_up.run("recover", "start", "--apply", "--output", "json")

    assert (ran.status, ran.error["reason"]) == (1, "OPERATION_RUNNING")
    assert ran.error["metadata"]["recovery_id"] == recovered.id


def test_the_admin_service_needs_its_token(backed_up: BackedUp) -> None:
    """Another token is refused."""
    ran = backed_up.run("recover", "list", "--output", "json", LLMSR_ADMIN_TOKEN="another-token")

    assert ran.status == 1
    assert ran.error["code"] in {"UNAUTHENTICATED", "PERMISSION_DENIED"}


def test_targets() -> None:
    """The four kinds of target are told apart, and what is none is a fault of usage."""
    assert target("latest").latest
    assert target("01KAX7H2E9P4Z8D3F6G5J1K0MB").backup_id
    assert target("2026-11-23T18:30:00Z").HasField("time")
    assert (target("1/340").place.epoch, target("1/340").place.position) == (1, 340)
    for text in ("yesterday", "0/1", "", "1/"):
        with pytest.raises(UsageFault):
            target(text)
