"""The ends of the archive's lines: found as they are, and without listing what lies before them."""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import Listed
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey
from services.backup.usecases import line_ends as module
from services.backup.usecases.line_ends import NEWEST_MAX, PAGE, LineEnds

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class ManySegments(DirectoryStore):
    """An archive that exists by the names of its segments alone. It counts what it lists, and how often it is asked."""

    def __init__(self, folder: Path, *segments: tuple[int, int, int]) -> None:
        super().__init__(folder)
        self.names = sorted([*(layout.segment(*each) for each in segments), layout.HEARTBEAT])
        self.listed = self.asked = 0

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore."""
        self.asked += 1
        for name in self.names[bisect.bisect_right(self.names, max(prefix, after)) :]:
            if not name.startswith(prefix):
                return
            self.listed += 1
            yield Listed(name, 1, "", NOON)


async def backwards(ends: LineEnds, epoch: int) -> list[SegmentKey]:
    """The newest segments of a line."""
    async with aclosing(ends.backwards(epoch)) as keys:
        return [key async for key in keys]


def line(epoch: int, start: int, widths: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Segments of one line: each after a gap, so wide."""
    found, position = [], start
    for gap, width in widths:
        found.append((epoch, position + gap, position + gap + width - 1))
        position += gap + width
    return found


LINES = st.lists(st.tuples(st.sampled_from([0, 0, 0, 7, 90_000]), st.sampled_from([1, 1, 2, 300])), max_size=40)


@given(
    lines=st.dictionaries(st.integers(1, layout.EPOCH_MAX), LINES, max_size=3),
    start=st.integers(1, layout.POSITION_MAX // 2),
    seen=st.lists(st.integers(0, layout.POSITION_MAX), max_size=3),
)
async def test_ends_are_found_wherever_they_are(
    lines: dict[int, list[tuple[int, int]]], start: int, seen: list[int]
) -> None:
    """Of lines with gaps, of any length beside a page's, and wherever the search begins."""
    segments = {epoch: line(epoch, start, widths) for epoch, widths in lines.items()}
    ends = LineEnds(ManySegments(Path(), *(each for one in segments.values() for each in one)))

    with patch.object(module, "PAGE", 4):
        assert await ends.epochs() == sorted(epoch for epoch, one in segments.items() if one)
        for epoch, one in segments.items():
            newest = [SegmentKey(*each) for each in reversed(one)]
            for hint in [0, *seen, *(key.first for key in newest[:2])]:
                assert await ends.newest(epoch, hint) == next(iter(newest), None)
            assert await backwards(ends, epoch) == newest[:NEWEST_MAX]


async def test_a_long_archive_is_not_listed(tmp_path: Path) -> None:
    """The ends of two lines with 50,000 segments each: some thirty pages at first, one for each line then."""
    store = ManySegments(
        tmp_path,
        *(each for epoch in (1, 2) for each in line(epoch, 1, [(0, 1 + number % 3) for number in range(50_000)])),
    )
    ends = LineEnds(store)

    assert await ends.epochs() == [1, 2]
    first = [await ends.newest(epoch) for epoch in (1, 2)]
    assert [key and key.last for key in first] == [100_000 - 1] * 2
    assert store.asked <= 3 + 2 * 15
    assert store.listed <= 2 + 2 * 10 * PAGE

    store.asked = store.listed = 0
    assert [await ends.newest(epoch) for epoch in (1, 2)] == first
    assert (store.asked, store.listed) == (2, 2)
    assert len(await backwards(ends, 2)) == NEWEST_MAX
    assert store.listed <= 2 + NEWEST_MAX + NEWEST_MAX**2, "it looks back eight times as far each time"


async def test_what_was_seen_may_be_gone(tmp_path: Path) -> None:
    """A newest segment that was deleted, as a damaged one may be, is not told of again."""
    store = ManySegments(tmp_path, (1, 1, 5), (1, 6, 9))
    ends = LineEnds(store)
    assert await ends.newest(1) == SegmentKey(1, 6, 9)

    store.names.remove(layout.segment(1, 6, 9))

    assert await ends.newest(1) == SegmentKey(1, 1, 5)
    assert await ends.newest(2) is None
