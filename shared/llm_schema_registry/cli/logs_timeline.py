"""Counts by time, in buckets that grow so that there are never many."""

from __future__ import annotations

from collections.abc import Iterator

BUCKETS_MAX = 600
"""How many buckets are kept while reading."""
SHOWN_MAX = 60
"""How many buckets a timeline has from end to end, empty ones included."""
WIDTHS = (1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800)
"""Seconds. Each divides the next, so that buckets can be joined; then ten times the one before, for ever."""
COUNTS = 3
"""Calls, failed calls, errors."""


class Timeline:
    """Counts at moments. `width_seconds` is what one bucket covers."""

    def __init__(self) -> None:
        self.width_seconds = WIDTHS[0]
        self._buckets: dict[int, list[int]] = {}

    def add(self, seconds: float, calls: int, failed: int, errors: int) -> None:
        """Counts at a moment, in seconds since 1970."""
        bucket = self._buckets.get(int(seconds) // self.width_seconds)
        if bucket is None:
            bucket = self._buckets[int(seconds) // self.width_seconds] = [0] * COUNTS
            if len(self._buckets) > BUCKETS_MAX:
                self._widen()
                self.add(seconds, calls, failed, errors)
                return
        bucket[0] += calls
        bucket[1] += failed
        bucket[2] += errors

    def shown(self) -> list[tuple[int, list[int]]]:
        """Start of each bucket with its counts, from the first to the last, widened until they are SHOWN_MAX."""
        while self._buckets and max(self._buckets) - min(self._buckets) >= SHOWN_MAX:
            self._widen()
        return list(self._gapless())

    def _gapless(self) -> Iterator[tuple[int, list[int]]]:
        if self._buckets:
            for index in range(min(self._buckets), max(self._buckets) + 1):
                yield index * self.width_seconds, self._buckets.get(index, [0] * COUNTS)

    def _widen(self) -> None:
        wider = next((width for width in WIDTHS if width > self.width_seconds), self.width_seconds * 10)
        factor = wider // self.width_seconds
        joined: dict[int, list[int]] = {}
        for index, counts in self._buckets.items():
            into = joined.setdefault(index // factor, [0] * COUNTS)
            for place, count in enumerate(counts):
                into[place] += count
        self._buckets, self.width_seconds = joined, wider
