"""What a restore would lose, and what to type next."""

from __future__ import annotations

import pytest

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.cli import restore_views
from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.restore import Prepare
from llm_schema_registry.cli.restore_prepare import target

PREPARED, ACTIVE = restore_pb2.RESTORE_STATE_PREPARED, restore_pb2.RESTORE_STATE_ACTIVE
LATEST = restore_pb2.RestoreTarget(latest=True)
AT_BACKUP = restore_pb2.RestoreTarget(backup_id="B")


def restore(
    to: restore_pb2.RestoreTarget, changes: int, *, state: restore_pb2.RestoreState.ValueType, readable: bool = True
) -> restore_pb2.Restore:
    """A restore whose next step would lose so many changes."""
    window = restore_pb2.LossWindow(
        live_readable=readable,
        live_place=restore_pb2.HistoryPlace(epoch=1, position=40),
        changes=changes,
        confirmation=f"{changes}@1/40",
    )
    return restore_pb2.Restore(id="R", state=state, target=to, loss_window=window)


@pytest.mark.parametrize(
    ("found", "confirmation"),
    [
        (restore(LATEST, 0, state=PREPARED), ""),
        (restore(LATEST, 3, state=PREPARED), ""),
        (restore(LATEST, 3, state=PREPARED, readable=False), "3@1/40"),
        (restore(AT_BACKUP, 0, state=PREPARED), ""),
        (restore(AT_BACKUP, 3, state=PREPARED), "3@1/40"),
        (restore(LATEST, 3, state=ACTIVE), "3@1/40"),
        (restore(LATEST, 0, state=ACTIVE), ""),
    ],
)
def test_a_loss_needs_its_confirmation(found: restore_pb2.Restore, confirmation: str) -> None:
    """Only what is lost is confirmed: `latest` replays what it can read, a revert leaves behind what came since."""
    assert restore_views.confirmation_needed(found) == confirmation


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (restore(LATEST, 3, state=PREPARED), "Activating it replays 3 changes first, and loses nothing"),
        (restore(AT_BACKUP, 1, state=PREPARED), "Activating it now would lose 1 change: the live registry"),
        (restore(AT_BACKUP, 1234, state=PREPARED), "would lose 1,234 changes: the live registry stands at 1/40."),
        (restore(AT_BACKUP, 3, state=PREPARED, readable=False), "The live database cannot be read: "),
        (restore(AT_BACKUP, 3, state=ACTIVE), "Reverting it now would lose 3 changes"),
        (restore(AT_BACKUP, 0, state=ACTIVE), "Reverting it now would lose nothing"),
    ],
)
def test_a_loss_is_told_in_words(found: restore_pb2.Restore, told: str) -> None:
    """What would be lost, and by which step."""
    assert told in restore_views.loss(found)


def test_targets_are_those_of_the_contract() -> None:
    """Each option is its target; a moment keeps its zone."""
    assert target(Prepare(latest=True)) == LATEST
    assert target(Prepare(backup="B")) == AT_BACKUP
    assert target(Prepare(place="2/340")).place == restore_pb2.HistoryPlace(epoch=2, position=340)
    assert target(Prepare(time="2026-11-23T20:30:00+02:00")).time.ToJsonString() == "2026-11-23T18:30:00Z"


@pytest.mark.parametrize("text", ["", "1", "1/", "/1", "0/1", "-1/1", "2147483648/1", "1/9223372036854775808", "1/٣"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    """Everything else is a fault of usage, also no target at all."""
    with pytest.raises(UsageFault):
        target(Prepare(place=text))
