"""Percentiles of the sketch against those of all values."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.cli.logs_sketch import RELATIVE_ERROR, VALUE_MIN, Sketch

PARTS = (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0)
ROUNDING = 1e-9


def checked(values: list[float]) -> Sketch:
    """The sketch of the values, once each of its percentiles is near the exact one."""
    sketch, ordered = Sketch(), sorted(values)
    for value in values:
        sketch.add(value)
    for part in PARTS:
        exact = ordered[math.floor(part * (len(values) - 1))]
        found = sketch.quantile(part)
        assert abs(found - exact) <= max(exact * (RELATIVE_ERROR + ROUNDING), VALUE_MIN if exact < VALUE_MIN else 0)
    return sketch


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=200))
def test_percentiles_are_within_the_relative_error(values: list[float]) -> None:
    """Of any values, the percentile is within one hundredth of the value of that rank."""
    assert checked(values).count == len(values)


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_percentiles_of_latencies(rng: random.Random, spread: float) -> None:
    """Durations as services have them: many short ones, few very long ones."""
    values = [rng.lognormvariate(1, spread) for _ in range(20_000)]

    assert checked(values).maximum == max(values)


def test_no_value_gives_zero() -> None:
    """A sketch of nothing has no percentile but zero."""
    assert Sketch().quantile(0.5) == 0


@given(st.lists(st.floats(min_value=0, max_value=1e300), min_size=1, max_size=50))
def test_buckets_are_few(values: list[float]) -> None:
    """Absurd values neither raise nor make buckets without end; the maximum is exact."""
    sketch = Sketch()
    for value in values:
        sketch.add(value)

    assert sketch.quantile(1) <= sketch.maximum == max(values)


def test_memory_is_bounded() -> None:
    """A million values over all magnitudes need no more than some 1,500 buckets."""
    sketch = Sketch()
    for exponent in range(-40_000, 120_000):
        sketch.add(1.002**exponent if exponent < 100_000 else 1e80)

    assert len(sketch._buckets) < 1_600
