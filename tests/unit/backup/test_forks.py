"""What two histories share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain.forks import DEPTH_MAX, LineUnknown, ancestry, known_lines, shared_position
from services.backup.domain.model import Epoch, Place

LINES = {1: Epoch(1, None, 0), 2: Epoch(2, 1, 10), 3: Epoch(3, 2, 15), 4: Epoch(4, 1, 7)}


@st.composite
def histories(draw: st.DrawFn) -> dict[int, list[int]]:
    """Of each epoch, the epochs of its positions: each line was restored from a place of an earlier one."""
    made = {1: [1] * draw(st.integers(0, 12))}
    for epoch in range(2, draw(st.integers(2, 7))):
        parent = draw(st.sampled_from(sorted(made)))
        fork = draw(st.integers(0, len(made[parent])))
        made[epoch] = made[parent][:fork] + [epoch] * draw(st.integers(1, 6))
    return made


@given(histories(), st.data())
@settings(max_examples=200)
def test_shared_is_the_common_beginning(made: dict[int, list[int]], data: st.DataObject) -> None:
    """What two places share is how far the histories that lead to them are one, whichever is named first."""
    lines = {1: Epoch(1, None, 0)}
    for epoch, positions in made.items():
        if epoch > 1:
            fork = positions.index(epoch)
            parents = [other for other in made if other < epoch and made[other][:fork] == positions[:fork]]
            lines[epoch] = Epoch(epoch, min(parents, key=lambda each: (each != _last(positions, fork), each)), fork)
    one, other = (data.draw(st.sampled_from(sorted(made))) for _ in range(2))
    here = Place(one, data.draw(st.integers(0, len(made[one]))))
    there = Place(other, data.draw(st.integers(0, len(made[other]))))

    shared = shared_position(lines, here, there)

    mine, others = made[one][: here.position], made[other][: there.position]
    assert shared == shared_position(lines, there, here)
    assert mine[:shared] == others[:shared]
    assert shared == min(len(mine), len(others)) or mine[shared] != others[shared]


def _last(positions: list[int], fork: int) -> int:
    return positions[fork - 1] if fork else 1


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (Place(1, 12), Place(2, 11), 10),
        (Place(2, 11), Place(1, 8), 8),
        (Place(3, 20), Place(1, 30), 10),
        (Place(3, 20), Place(4, 9), 7),
        (Place(3, 20), Place(3, 16), 16),
        (Place(1, 0), Place(4, 9), 0),
    ],
)
def test_shared_position(one: Place, other: Place, shared: int) -> None:
    """Restores that fork from one another share what came before the earlier fork."""
    assert shared_position(LINES, one, other) == shared


def test_unknown_line() -> None:
    """A line of which nothing is known is named."""
    with pytest.raises(LineUnknown, match="epoch 9"):
        shared_position(LINES, Place(9, 1), Place(1, 1))


def test_lines_that_lead_nowhere() -> None:
    """Lines that go round in circles end with an error, not never."""
    with pytest.raises(LineUnknown):
        ancestry({2: Epoch(2, 3, 1), 3: Epoch(3, 2, 1)}, 2)
    assert DEPTH_MAX >= 1000


def test_histories_that_contradict() -> None:
    """Two sources that tell differently of one line are refused; the same told twice is one."""
    with pytest.raises(ValueError, match="epoch 2"):
        known_lines([Epoch(2, 1, 10)], [Epoch(2, 1, 11)])
    assert known_lines([Epoch(2, 1, 10)], [Epoch(2, 1, 10)]) == {2: Epoch(2, 1, 10)}
