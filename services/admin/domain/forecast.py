"""How fast something grows, and where that leads: a line that outliers do not bend, with what is uncertain about it.

The slope is the median of the slopes of all pairs (Theil 1950; P. K. Sen, "Estimates of the Regression Coefficient
Based on Kendall's Tau", Journal of the American Statistical Association 63, 1968, 1379-1389): up to 29 % of the figures
may be arbitrarily wrong. Its confidence interval is Sen's, by the variance of Kendall's S with its correction for ties.
It takes figures for independent; so figures of one day are put together first when there are many days.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.admin.domain.capacity import SECONDS_PER_DAY, Figure, by_stretch, thinned

POINTS_MIN = 10
POINTS_MAX = 400
"""Of which all pairs are compared: 79,800."""
SPAN_MIN = timedelta(hours=20)
"""A day, but for a little: less says nothing about days to come."""
MANY_DAYS = timedelta(days=14)
NORMAL_95 = 1.959964
"""Quantile 0.975 of the normal distribution."""
MAD_TO_DEVIATION = 1.4826
"""What makes a standard deviation of the median absolute deviation of normal figures."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through figures. start: where `level` is its value. Slopes are by day. spread: 95 % of the figures are
    within so much of it, above and below."""

    start: datetime
    level: float
    slope: float
    slope_low: float
    slope_high: float
    spread: float

    def at(self, time: datetime) -> float:
        """The line's value."""
        return self.level + self.slope * _days(time - self.start)

    def band(self, time: datetime, since: datetime) -> tuple[float, float]:
        """Where the value will be with 95 %, from a moment to which the line is known."""
        known, ahead = self.at(since), _days(time - since)
        return known + self.slope_low * ahead - self.spread, known + self.slope_high * ahead + self.spread


@dataclass(frozen=True, slots=True)
class Forecast:
    """A resource at the end of the horizon. limit_time: when the line reaches the limit; None when not within it."""

    line: Line
    value: float
    low: float
    high: float
    limit_time: datetime | None


def fitted(figures: Sequence[Figure]) -> Line | None:
    """The line through figures, oldest first; None when they are too few or too near to each other in time."""
    if len(figures) < POINTS_MIN or figures[-1].time - figures[0].time < SPAN_MIN:
        return None
    many = figures[-1].time - figures[0].time >= MANY_DAYS
    points = thinned(by_stretch(figures, timedelta(days=1) if many else timedelta(hours=1)), POINTS_MAX)
    if len(points) < POINTS_MIN:
        points = thinned(figures, POINTS_MAX)
    start = points[0].time
    days = [_days(each.time - start) for each in points]
    values = [each.value for each in points]
    slopes = _slopes(days, values)
    slope = statistics.median(slopes)
    level = statistics.median(value - slope * day for day, value in zip(days, values, strict=True))
    rests = [abs(value - level - slope * day) for day, value in zip(days, values, strict=True)]
    low, high = _interval(slopes, values)
    return Line(start, level, slope, low, high, NORMAL_95 * MAD_TO_DEVIATION * statistics.median(rests))


def forecast(line: Line, now: datetime, horizon: timedelta, *, limit: float = 0, most: float | None = None) -> Forecast:
    """Where a line leads. limit: what there is of the resource; 0 when not known. most: the largest possible value."""
    end = now + horizon
    low, high = line.band(end, now)
    value, low, high = (_within(each, most) for each in (line.at(end), low, high))
    return Forecast(line, value, low, high, _limit_time(line, now, end, limit))


def _slopes(days: Sequence[float], values: Sequence[float]) -> list[float]:
    """Of all pairs, sorted."""
    return sorted(
        (values[later] - values[earlier]) / (days[later] - days[earlier])
        for later in range(len(days))
        for earlier in range(later)
        if days[later] > days[earlier]
    )


def _interval(slopes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the slope. Source: Sen 1968, section 6; ties as in Kendall 1970."""
    count = len(values)
    variance = count * (count - 1) * (2 * count + 5) / 18
    variance -= sum(ties * (ties - 1) * (2 * ties + 5) / 18 for ties in Counter(values).values())
    reach = NORMAL_95 * math.sqrt(max(0.0, variance))
    low = math.floor((len(slopes) - reach) / 2)
    high = math.ceil((len(slopes) + reach) / 2)
    return slopes[max(0, low - 1)], slopes[min(len(slopes) - 1, high)]


def _limit_time(line: Line, now: datetime, end: datetime, limit: float) -> datetime | None:
    if limit <= 0:
        return None
    if line.at(now) >= limit:
        return now
    if line.at(end) < limit:
        return None
    return line.start + timedelta(days=(limit - line.level) / line.slope)


def _within(value: float, most: float | None) -> float:
    return max(0.0, value) if most is None else min(max(0.0, value), most)


def _days(length: timedelta) -> float:
    return length.total_seconds() / SECONDS_PER_DAY
