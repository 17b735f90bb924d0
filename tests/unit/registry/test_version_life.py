"""The life of a version: its steps, rollbacks, etags, and the words it is found by."""

from __future__ import annotations

import dataclasses
import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.errors import IllegalTransition
from services.registry.domain.lifecycle import STEPS, require_step, rolled_back
from services.registry.domain.limits import WORD_CHARACTERS_MAX, WORDS_MAX
from services.registry.domain.model import State, Version, VersionHead
from services.registry.domain.search import query_words, version_words, words

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
VERSION = Version("orders", 1, 7, State.ACTIVE, "", "", (), {}, NOON, NOON, NOON)


@pytest.mark.parametrize(("origin", "target"), sorted(itertools.product(State, State)))
def test_exactly_the_steps_of_the_table_are_allowed(origin: State, target: State) -> None:
    """DRAFT to ACTIVE to DEPRECATED to ARCHIVED, DRAFT to ARCHIVED, nothing else."""
    if (origin, target) in STEPS:
        require_step(origin, target)
        return

    with pytest.raises(IllegalTransition) as caught:
        require_step(origin, target)

    assert caught.value.metadata["from"] == origin.name


def test_the_way_back_is_named() -> None:
    """Who wants a deprecated version back is told how."""
    with pytest.raises(IllegalTransition, match="RollbackSubject"):
        require_step(State.DEPRECATED, State.ACTIVE)


def test_a_rollback_deprecates_the_newer_active_versions() -> None:
    """Drafts, deprecated ones and older ones stay as they are."""
    live = [
        VersionHead(number, number, state, activated=True)
        for number, state in enumerate(
            [State.ACTIVE, State.DEPRECATED, State.ACTIVE, State.DRAFT, State.ACTIVE], start=1
        )
    ]

    assert rolled_back(live, live[1]) == (3, 5)


@pytest.mark.parametrize("state", [State.DRAFT, State.ARCHIVED])
def test_what_is_not_in_use_cannot_be_rolled_back_to(state: State) -> None:
    """Only ACTIVE and DEPRECATED versions can."""
    target = VersionHead(1, 1, state, activated=False)

    with pytest.raises(IllegalTransition):
        rolled_back([target], target)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "x"},
        {"owner": "x"},
        {"tags": ("x",)},
        {"metadata": {"x": "y"}},
        {"state": State.DEPRECATED},
        {"update_time": NOON + datetime.timedelta(microseconds=1)},
        {"delete_time": NOON},
    ],
)
def test_every_change_changes_the_etag(change: dict[str, object]) -> None:
    """An etag stands for all that can change."""
    assert dataclasses.replace(VERSION, **change).etag != VERSION.etag  # type: ignore[arg-type]  # one field each


def test_words_are_found_in_names_of_every_style() -> None:
    """Case, separators and humps do not hide a word."""
    assert set(words(["order-events.UserCreated_v2 Straße"])) >= {
        "order", "events", "user", "created", "usercreated", "v2", "strasse",
    }  # fmt: skip


def test_a_version_is_found_by_all_that_people_write() -> None:
    """Subject, description, owner, tags, metadata, and the schema's own annotations."""
    version = dataclasses.replace(
        VERSION, description="Billing", owner="team-red", tags=("pii",), metadata={"cost": "low"}
    )

    found = version_words(version, ["Customer order"])

    assert set(found) >= {"orders", "billing", "team", "red", "pii", "cost", "low", "customer", "order"}


@given(st.lists(st.text(), max_size=20))
def test_words_are_sorted_unique_and_bounded(texts: list[str]) -> None:
    """Whatever is written, what is stored is small."""
    found = words(texts)

    assert list(found) == sorted(set(found))
    assert len(found) <= WORDS_MAX
    assert all(1 <= len(word) <= WORD_CHARACTERS_MAX for word in found)


@given(st.text(alphabet=st.characters(categories=["L", "Nd"]), min_size=1, max_size=30))
def test_a_word_is_found_by_asking_for_it(word: str) -> None:
    """What is stored and what is asked for are cut the same way."""
    assert set(query_words(word)) <= set(words([word]))
