"""A restore as its journal tells it, and what has to be confirmed."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain.model import Epoch, Place
from services.backup.domain.restore import (
    PROBLEM_CHARACTERS_MAX,
    LossWindow,
    Restore,
    RestoreState,
    from_document,
    read_confirmation,
    to_document,
)
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest

NUMBERS = st.integers(0, 2**62)
TIMES = st.integers(0, 10**15).map(lambda us: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
PLACES = st.builds(Place, st.integers(1, 999_999_999), NUMBERS)
TARGETS = st.one_of(
    st.just(Latest()),
    st.builds(AtBackup, st.text(max_size=30)),
    st.builds(AtPlace, st.integers(1, 999), NUMBERS),
    st.builds(AtTime, TIMES, st.none() | st.integers(1, 999)),
)
MS = st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000)
RESTORES = st.builds(
    Restore,
    id=st.text(max_size=30),
    state=st.sampled_from(RestoreState),
    target=TARGETS,
    backup_id=st.text(max_size=30),
    scratch=st.text(max_size=30),
    actor=st.text(max_size=30),
    start_time=TIMES,
    number=NUMBERS,
    place=st.none() | PLACES,
    place_time=st.none() | TIMES,
    aside=st.text(max_size=30),
    prepare_time=st.none() | TIMES,
    activate_time=st.none() | TIMES,
    keep_until=st.none() | TIMES,
    new_epoch=st.none() | st.integers(1, 999),
    next_schema_id=st.none() | st.integers(1, 2**31 - 1),
    confirmed=st.none() | PLACES,
    fork=st.none() | PLACES,
    write_outage_seconds=MS,
    prepare_seconds=MS,
    problem=st.text(max_size=100),
)


@given(RESTORES)
@settings(max_examples=150)
def test_document_and_back(restore: Restore) -> None:
    """What the journal holds of a restore is all of it."""
    assert from_document(json.loads(json.dumps(to_document(restore)))) == restore


def test_document_without_a_fork() -> None:
    """An entry that was written before there was a fork in it is read."""
    restore = Restore("id", RestoreState.ACTIVE, Latest(), "b", "s", "ann", datetime(2026, 1, 1, tzinfo=UTC))
    document = to_document(restore)
    del document["fork"]

    assert from_document(document) == restore


@pytest.mark.parametrize("name", [each.name for each in fields(Restore) if each.name in {"id", "state", "target"}])
def test_document_that_lacks_something(name: str) -> None:
    """A document without what every entry has is none."""
    restore = Restore("id", RestoreState.ACTIVE, Latest(), "b", "s", "ann", datetime(2026, 1, 1, tzinfo=UTC))
    document = to_document(restore)
    del document[name]

    with pytest.raises(KeyError):
        from_document(document)


def test_long_problem_is_cut() -> None:
    """A problem of any length leaves a document of bounded size."""
    restore = Restore("id", RestoreState.FAILED, Latest(), "b", "s", "ann", datetime(2026, 1, 1, tzinfo=UTC))
    long = Restore(**{each.name: getattr(restore, each.name) for each in fields(Restore)} | {"problem": "x" * 10_000})

    assert len(to_document(long)["problem"]) == PROBLEM_CHARACTERS_MAX


@given(NUMBERS, PLACES)
def test_confirmation_and_back(changes: int, live: Place) -> None:
    """A window's confirmation confirms that window, and no later one of the same or of another epoch."""
    window = LossWindow(True, live, changes)

    confirmed = read_confirmation(window.confirmation)

    assert window.covered_by(confirmed)
    if changes:
        assert not LossWindow(True, Place(live.epoch, live.position + 1), changes).covered_by(confirmed)
        assert not LossWindow(True, Place(live.epoch + 1, live.position), changes).covered_by(confirmed)
        assert not window.covered_by(None)


@pytest.mark.parametrize("text", ["x", "1@1", "@1/2", "1@1/2 ", "1@1/-2", "\uff11@1/2", "1@1/" + "9" * 40, "1@1/2\n"])
def test_no_confirmation(text: str) -> None:
    """Any other text is refused with an example of one."""
    with pytest.raises(ValueError, match="12@1/340"):
        read_confirmation(text)
    assert read_confirmation("") is None


def test_window_in_words() -> None:
    """The window tells how much and from when."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    told = LossWindow(True, Place(1, 9), 2, noon, noon + timedelta(minutes=1)).told

    assert told.startswith("2 changes up to 1/9 would be lost, made from 2026-01-01 12:00:00")
    assert "nothing would be lost" in LossWindow(True, Place(1, 9), 0).told


def test_line_of_a_swap() -> None:
    """The line that a swap began is known once its fork is."""
    restore = Restore("id", RestoreState.ACTIVE, Latest(), "b", "s", "ann", datetime(2026, 1, 1, tzinfo=UTC))
    assert restore.line is None
    begun = Restore(
        **{each.name: getattr(restore, each.name) for each in fields(Restore)} | {"new_epoch": 3, "fork": Place(1, 8)}
    )

    assert begun.line == Epoch(3, 1, 8)
