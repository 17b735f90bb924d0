"""Growth and forecast: a line is found again, outliers do not bend it, and too little says nothing."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.admin.domain.capacity import Figure
from services.admin.domain.forecast import POINTS_MIN, fitted, forecast

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def line(level: float, slope: float, days: int) -> list[Figure]:
    """One figure a day."""
    return [Figure(START + number * DAY, level + slope * number) for number in range(days)]


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(-1e6, 1e6), st.integers(POINTS_MIN, 60))
def test_line_is_recovered(level: float, slope: float, days: int) -> None:
    """Figures on a line give that line, an interval that holds nothing else, and its end."""
    found = fitted(line(level, slope, days))

    assert found is not None
    near = 1e-6 * max(1.0, abs(level), abs(slope))
    assert found.slope == pytest.approx(slope, abs=near)
    assert found.slope_low <= found.slope <= found.slope_high
    assert found.slope_high - found.slope_low <= 2 * near
    assert found.at(START + 100 * DAY) == pytest.approx(level + 100 * slope, abs=100 * near)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_outliers_do_not_bend_the_line(data: st.DataObject) -> None:
    """A fifth of the figures may be anything: the slope stays near the others' line."""
    figures = line(1000.0, 50.0, 40)
    wrong = data.draw(st.sets(st.integers(0, 39), max_size=8))
    for number in wrong:
        figures[number] = Figure(figures[number].time, data.draw(st.floats(-1e12, 1e12)))

    found = fitted(figures)

    assert found is not None
    assert found.slope == pytest.approx(50.0, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_band_holds_what_comes(seed: int) -> None:
    """With noise the slope is within its interval, and the true value after 90 days within the band, or nearly."""
    dice = random.Random(seed)
    figures = [Figure(each.time, each.value + dice.gauss(0, 100)) for each in line(10_000.0, 20.0, 60)]
    now = figures[-1].time

    found = fitted(figures)

    assert found is not None
    assert found.slope_low <= found.slope <= found.slope_high
    ahead = forecast(found, now, 90 * DAY)
    assert ahead.low < ahead.value < ahead.high
    # An interval of 95 % misses one time in twenty: three of its widths never.
    width = found.slope_high - found.slope_low
    assert found.slope - 1.5 * width < 20.0 < found.slope + 1.5 * width


def test_interval_covers_as_often_as_it_says() -> None:
    """Of 200 noisy lines the interval holds the true slope in at least 90 %."""
    hits = 0
    for seed in range(200):
        dice = random.Random(seed)
        found = fitted([Figure(each.time, each.value + dice.gauss(0, 30)) for each in line(0.0, 5.0, 30)])
        assert found is not None
        hits += found.slope_low <= 5.0 <= found.slope_high

    assert hits >= 180


def test_daily_rhythm_is_no_growth() -> None:
    """Load by day and none by night, every five minutes for three weeks: no growth is seen."""
    figures = [
        Figure(START + number * timedelta(minutes=5), 100.0 if 96 < number % 288 < 240 else 1.0)
        for number in range(21 * 288)
    ]

    found = fitted(figures)

    assert found is not None
    assert found.slope == 0


@pytest.mark.parametrize("days", [0, 1, POINTS_MIN - 1])
def test_few_figures_say_nothing(days: int) -> None:
    """Below a number of figures there is no line."""
    assert fitted(line(1.0, 1.0, days)) is None


def test_short_history_says_nothing() -> None:
    """Many figures of some hours say nothing about days."""
    figures = [Figure(START + number * timedelta(minutes=5), float(number)) for number in range(100)]

    assert fitted(figures) is None


def test_limit_is_reached_when_the_line_does() -> None:
    """The moment is where the line meets the limit; at once when it is over it; never beyond the horizon."""
    found = fitted(line(0.0, 10.0, 20))
    assert found is not None
    now = START + 19 * DAY

    def reached(limit: float) -> datetime | None:
        return forecast(found, now, 90 * DAY, limit=limit).limit_time

    assert reached(500) == START + 50 * DAY
    assert reached(100) == now
    assert reached(100_000) is None
    assert reached(0) is None


def test_values_stay_possible() -> None:
    """Nothing falls below zero, and no share rises above one."""
    falling, rising = fitted(line(100.0, -5.0, 20)), fitted(line(0.5, 0.02, 20))
    assert falling is not None
    assert rising is not None
    now = START + 19 * DAY

    assert forecast(falling, now, 90 * DAY).value == 0
    assert forecast(rising, now, 90 * DAY, most=1.0).high == 1
