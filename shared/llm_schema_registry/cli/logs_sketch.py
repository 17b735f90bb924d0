"""Percentiles of any number of durations in bounded memory.

Source: Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees",
PVLDB 12 (2019), https://arxiv.org/abs/1908.10693: buckets whose bounds grow by a constant factor, so that every value
in a bucket is within a relative error of the bucket's middle.
"""

from __future__ import annotations

import math

RELATIVE_ERROR = 0.01
"""How far a percentile may be from the value of that rank, as a part of it."""
VALUE_MIN = 0.001
"""Smaller values count as zero. Log lines tell milliseconds with three digits behind the point."""
VALUE_MAX = 1e10
"""Larger values count as this, but for the maximum: about four months in milliseconds. With it a sketch has at most
some 1,500 buckets."""

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_BUCKET = 1 / math.log(_GROWTH)


class Sketch:
    """Counts values. `count` and `maximum` are exact."""

    __slots__ = ("_buckets", "_zeros", "count", "maximum")

    def __init__(self) -> None:
        self.count = 0
        self.maximum = 0.0
        self._zeros = 0
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Counts one value: finite, not below zero."""
        self.count += 1
        self.maximum = max(self.maximum, value)
        if value < VALUE_MIN:
            self._zeros += 1
            return
        index = math.ceil(math.log(min(VALUE_MAX, value)) * _PER_BUCKET)
        self._buckets[index] = self._buckets.get(index, 0) + 1

    def quantile(self, part: float) -> float:
        """The value of rank `part * (count - 1)`, within RELATIVE_ERROR of it. part: 0 to 1. Zero without values."""
        rank = part * (self.count - 1)
        seen = self._zeros
        if seen > rank or not self.count:
            return 0.0
        index = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen > rank:
                break
        return float(min(2 * _GROWTH**index / (_GROWTH + 1), self.maximum))
