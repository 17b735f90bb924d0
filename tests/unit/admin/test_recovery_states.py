"""The states of a recovery: whatever is asked of it, it goes forward in order, or back in order."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llm_schema_registry import errors
from services.admin.domain import recovery as states
from services.admin.domain.recovery import (
    NAMES,
    Loss,
    Place,
    Recovery,
    RecoveryState,
    Safety,
    Spec,
    StepName,
    StepState,
    Target,
    TargetKind,
    Traffic,
)
from services.admin.domain.recovery_documents import from_document, to_document
from services.admin.domain.system import State

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MOVES = ("begin", "pass", "skip", "fail", "unconfirmed", "resume", "abort", "undo", "stick", "rewind")
TIMES = some.integers(0, 10**10).map(lambda ms: NOON + timedelta(milliseconds=ms))
PLACES = some.builds(Place, some.integers(1, 9), some.integers(0, 10**12))
TARGETS = some.builds(Target, some.sampled_from(TargetKind), some.text(), TIMES | some.none(), PLACES | some.none())
SPECS = some.builds(
    Spec, TARGETS, some.sampled_from(Traffic), some.sampled_from(Safety), some.just("3@1/7"), some.text(max_size=200)
)
LOSSES = some.builds(Loss, some.booleans(), PLACES, some.integers(0, 10**9), some.text(), TIMES, TIMES | some.none())


def new(spec: Spec | None = None) -> Recovery:
    """A recovery that runs."""
    return Recovery("id", RecoveryState.RUNNING, spec or Spec(Target(TargetKind.LATEST)), "ann", NOON)


def moved(recovery: Recovery, move: str, at: int) -> Recovery:
    """The recovery after a move. Raises for one that is not possible now."""
    now = NOON + timedelta(seconds=at)
    step = recovery.following or StepName.SMOKE
    match move:
        case "begin":
            return states.began(recovery, step, now)
        case "pass" | "skip":
            return states.passed(recovery, step, now, "said", skipped=move == "skip")
        case "fail" | "unconfirmed":
            return states.failed(recovery, step, now, "problem", unconfirmed=move == "unconfirmed")
        case "resume":
            return states.resumed(recovery, "")
        case "abort":
            return states.aborting(recovery, now)
        case "undo":
            return states.undone(recovery, recovery.to_undo[0] if recovery.to_undo else step, now, "undone")
        case "rewind":
            return states.rewound(recovery)
    return states.not_undone(recovery, "problem")


def walked(moves: list[str], spec: Spec | None = None) -> list[Recovery]:
    """Every state that a recovery passes; moves that are not possible change nothing."""
    found = [new(spec)]
    for at, move in enumerate(moves):
        try:
            found.append(moved(found[-1], move, at))
        except (ValueError, errors.IllegalState):
            continue
    return found


@given(some.lists(some.sampled_from(MOVES), max_size=80))
def test_order(moves: list[str]) -> None:
    """Steps pass in order: none is begun before the ones before it passed, at most one runs, and what has ended stays
    as it is. Once something was undone nothing passes any more."""
    found = walked(moves)

    for before, after in itertools.pairwise(found):
        assert before.open
        stands = [each.state for each in after.steps]
        begun = [state not in {StepState.PENDING, StepState.UNDONE} for state in stands]
        assert begun == sorted(begun, reverse=True)
        assert stands.count(StepState.RUNNING) <= 1
        if StepState.UNDONE in [each.state for each in before.steps]:
            assert after.state in {RecoveryState.ABORTING, RecoveryState.ABORTED}
        assert all(a.attempts >= b.attempts for a, b in zip(after.steps, before.steps, strict=True))


@given(some.lists(some.sampled_from(MOVES), max_size=60), SPECS, LOSSES)
def test_document(moves: list[str], spec: Spec, loss: Loss) -> None:
    """Every state is stored as JSON and read as it was."""
    recovery = replace(
        walked(moves, spec)[-1], loss=loss, modes={"a:1": State.SERVING}, fence_time=NOON, write_pause_seconds=1.5
    )

    assert from_document(json.loads(json.dumps(to_document(recovery)))) == recovery


@given(LOSSES, PLACES)
def test_confirmation(loss: Loss, place: Place) -> None:
    """A loss is accepted up to the place that was confirmed, on its line, and no further; the newest state that can be
    read loses nothing."""
    accepted = loss.accepted(f"{loss.changes}@{place}", latest=False)

    assert accepted == (not loss.changes or (place.epoch == loss.live.epoch and loss.live.position <= place.position))
    assert loss.accepted("", latest=True) == (not loss.changes or loss.readable)


def test_all_the_way() -> None:
    """Ten steps that pass make it done, with the time that took."""
    recovery = walked(["begin", "pass"] * 10)[-1]

    assert recovery.state is RecoveryState.DONE
    assert recovery.recovery_seconds == 19.0
    with pytest.raises(errors.IllegalState, match="DONE"):
        states.aborting(recovery, NOON)


def test_back_again() -> None:
    """What was begun is undone, the last one first; then it is aborted. It cannot be resumed on the way back."""
    stopped = walked(["begin", "pass"] * 4 + ["begin", "fail"])[-1]
    back = states.aborting(stopped, NOON)
    undone = states.undone(back, StepName.SAFETY, NOON, "")

    with pytest.raises(errors.IllegalState, match="AbortRecovery"):
        states.resumed(undone, "")
    assert list(undone.to_undo) == list(reversed(NAMES[:4]))
    assert walked(["begin", "pass"] * 4 + ["begin", "fail", "abort"] + ["undo"] * 5)[-1].state is RecoveryState.ABORTED


def test_a_preflight_that_fails_ends_it() -> None:
    """Nothing was touched: there is nothing to resume or abort."""
    assert walked(["begin", "fail"])[-1].state is RecoveryState.ABORTED


def test_a_step_left_open_keeps_its_attempt() -> None:
    """A step that its process left open is gone on with under the same attempt; one that failed has a new one."""
    left = walked(["begin", "pass", "begin"])[-1]

    assert states.began(left, StepName.FENCE, NOON) == left
    assert walked(["begin", "pass", "begin", "fail", "resume", "begin"])[-1].step(StepName.FENCE).attempts == 2
