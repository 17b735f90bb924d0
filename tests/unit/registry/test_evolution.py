"""Levels, the pairs they ask for, the history they look at, and reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.domain.evolution.levels import LEVELS, history, pairs
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Report, Terms, Verdict, gathered, worst
from services.registry.domain.limits import FINDINGS_MAX
from services.registry.domain.model import State, VersionHead

HEADS = st.lists(st.tuples(st.sampled_from(State), st.booleans()), max_size=8).map(
    lambda items: tuple(
        VersionHead(number, schema_id=number, state=state, activated=activated or state is State.ACTIVE)
        for number, (state, activated) in enumerate(items, start=1)
    )
)


def head(number: int, state: State = State.ACTIVE, *, activated: bool = True) -> VersionHead:
    return VersionHead(number, schema_id=number, state=state, activated=activated)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("NONE", []),
        ("BACKWARD", [("new", "v3", 3)]),
        ("FORWARD", [("v3", "new", 3)]),
        ("FULL", [("new", "v3", 3), ("v3", "new", 3)]),
        ("BACKWARD_TRANSITIVE", [("new", "v3", 3), ("new", "v2", 2), ("new", "v1", 1)]),
        ("FORWARD_TRANSITIVE", [("v3", "new", 3), ("v2", "new", 2), ("v1", "new", 1)]),
        (
            "FULL_TRANSITIVE",
            [
                ("new", "v3", 3),
                ("v3", "new", 3),
                ("new", "v2", 2),
                ("v2", "new", 2),
                ("new", "v1", 1),
                ("v1", "new", 1),
            ],
        ),
    ],
)
def test_each_level_asks_for_its_pairs(level: str, expected: list[tuple[str, str, int]]) -> None:
    """(reader, writer, number), newest version first."""
    rules = LEVELS[level]
    older = [(item.number, f"v{item.number}") for item in history(rules, (head(1), head(2), head(3)))]

    found = [(pair.reader, pair.writer, pair.number) for pair in pairs(rules, older, "new")]

    assert found == expected


def test_drafts_and_discarded_drafts_do_not_count() -> None:
    """Nobody ever wrote with a version that never was active."""
    live = (head(1), head(2, State.DRAFT, activated=False), head(3, State.ARCHIVED, activated=False))

    assert [item.number for item in history(LEVELS["BACKWARD_TRANSITIVE"], live)] == [1]


def test_archived_versions_that_once_were_active_count() -> None:
    """What they wrote may still lie somewhere."""
    live = (head(1, State.ARCHIVED), head(2))

    assert [item.number for item in history(LEVELS["BACKWARD_TRANSITIVE"], live)] == [2, 1]


def test_without_transitive_the_version_in_force_counts() -> None:
    """After a rollback that is the one rolled back to, not the newest."""
    assert history(LEVELS["BACKWARD"], (head(1), head(2, State.DEPRECATED))) == (head(1),)


def test_without_an_active_version_the_newest_that_was_active_counts() -> None:
    """A subject whose versions are all deprecated still has readers."""
    live = (head(1, State.DEPRECATED), head(2, State.DEPRECATED), head(3, State.DRAFT, activated=False))

    assert [item.number for item in history(LEVELS["BACKWARD"], live)] == [2]


@given(HEADS)
def test_a_transitive_history_contains_the_plain_one(live: tuple[VersionHead, ...]) -> None:
    """The transitive levels never look at less."""
    for name in ("BACKWARD", "FORWARD", "FULL"):
        assert set(history(LEVELS[name], live)) <= set(history(LEVELS[f"{name}_TRANSITIVE"], live))


@given(HEADS)
def test_full_asks_for_the_pairs_of_backward_and_of_forward(live: tuple[VersionHead, ...]) -> None:
    """FULL is BACKWARD and FORWARD."""

    def asked(name: str) -> set[object]:
        older = [(item.number, item.number) for item in history(LEVELS[name], live)]
        return {(pair.reader, pair.writer) for pair in pairs(LEVELS[name], older, -1)}

    assert asked("FULL") == asked("BACKWARD") | asked("FORWARD")
    assert asked("FULL_TRANSITIVE") == asked("BACKWARD_TRANSITIVE") | asked("FORWARD_TRANSITIVE")


def finding(verdict: Verdict) -> Finding:
    return Finding("RULE", verdict, "message", "remedy")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.COMPATIBLE),
        ([Verdict.UNDECIDED], Verdict.UNDECIDED),
        ([Verdict.UNDECIDED, Verdict.INCOMPATIBLE, Verdict.UNDECIDED], Verdict.INCOMPATIBLE),
    ],
)
def test_a_report_is_as_bad_as_its_worst_finding(verdicts: list[Verdict], expected: Verdict) -> None:
    """INCOMPATIBLE before UNDECIDED before COMPATIBLE."""
    assert worst(finding(verdict) for verdict in verdicts) is expected


def test_findings_know_their_pair_and_are_limited() -> None:
    """Each finding says which version it is against, harmless ones are left out; a report beyond the limit says so."""
    level = LEVELS["FULL_TRANSITIVE"]
    older = [(number, "old") for number in range(150, 0, -1)]

    found = [(pair, [finding(Verdict.COMPATIBLE), finding(Verdict.UNDECIDED)]) for pair in pairs(level, older, "new")]
    report = gathered(Terms(level, Rules(Policy.STRICT)), found)

    assert len(report.findings) == FINDINGS_MAX
    assert report.truncated
    assert [(item.number, item.candidate_reads) for item in report.findings[:3]] == [
        (150, True),
        (150, False),
        (149, True),
    ]
    assert report.checked == tuple(range(150, 0, -1))


def test_nothing_to_compare_with_is_compatible() -> None:
    """The first version of a subject has nobody to break."""
    terms = Terms(LEVELS["FULL"], Rules(Policy.EXACT))

    assert gathered(terms, ()) == Report(Verdict.COMPATIBLE, terms)
