"""The page of a report stands alone, says what the report says, and lets no text of others act."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.admin.v1 import capacity_pb2 as pb
from llm_schema_registry.cli.capacity_page import page
from llm_schema_registry.cli.capacity_plot import HEIGHT, WIDTH, plot
from llm_schema_registry.cli.prices import Cost

NOW = 1_780_000_000
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def resource(values: list[float], **facts: object) -> pb.ResourceForecast:
    """A resource with a figure an hour."""
    samples = [pb.CapacitySample(value=value) for value in values]
    for number, each in enumerate(samples):
        each.time.seconds = NOW - 3600 * (len(values) - number)
    return pb.ResourceForecast(samples=samples, current=values[-1] if values else 0.0, **facts)  # type: ignore[arg-type]


def report(*resources: pb.ResourceForecast) -> pb.CapacityReport:
    """A report of them."""
    made = pb.CapacityReport(resources=resources)
    made.time.seconds = NOW
    made.window_start.seconds = NOW - 86_400
    return made


def test_page_stands_alone() -> None:
    """Nothing is loaded, nothing runs, and both colour schemes are there."""
    text = page(report(resource([1.0, 2.0], name="a", unit="1/s")), 90, [], "")

    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import|http", text)
    assert "prefers-color-scheme: dark" in text


def test_page_says_what_the_report_says() -> None:
    """Figures, forecast, limit, advice, problems and costs are on it."""
    grows = resource(
        [1.0] * 50, name="database_bytes", unit="By", has_forecast=True, growth_per_day=1024.0, forecast=4 << 20,
        forecast_low=2 << 20, forecast_high=8 << 20, limit=6 << 20,
    )  # fmt: skip
    grows.limit_time.seconds = NOW + 86_400
    made = report(grows)
    made.advice.add(resource="database_bytes", text="do something")
    made.problems.append("nobody answers")

    text = page(made, 90, [Cost("database", "1 GB", 1.5, 2.5)], "EUR")

    for told in ("+1.0 KiB a day", "4.0 MiB", "2.0 MiB to 8.0 MiB", "limit 6.0 MiB", "do something", "nobody answers"):
        assert told in text
    assert "1.50 EUR" in text
    assert text.count("<svg") == 1


def test_texts_of_others_do_not_act() -> None:
    """A name or an advice with markup is shown as it is."""
    made = report(resource([1.0], name="<script>alert(1)</script>", unit='"><b>'))
    made.advice.add(resource="<i>", text="<img src=x onerror=alert(1)>")

    text = page(made, 90, [], "")

    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@given(
    st.lists(st.floats(0, 1e15), min_size=1, max_size=30),
    st.tuples(st.floats(0, 1e15), st.floats(0, 1e15), st.floats(0, 1e15)),
    st.sampled_from(["By", "1/s", "1", "{core}"]),
    st.booleans(),
)
def test_everything_is_within_the_picture(
    values: list[float], ahead: tuple[float, float, float], unit: str, has_forecast: bool
) -> None:
    """Whatever the figures, the picture is well-formed, and every point is a number within it."""
    if unit == "1":
        values, ahead = [min(1.0, each) for each in values], (0.0, 0.5, 1.0)
    low, value, high = sorted(ahead)
    one = resource(
        values, name="a", unit=unit, has_forecast=has_forecast, forecast=value, forecast_low=low, forecast_high=high
    )

    root = ElementTree.fromstring(plot(one, NOW, 90))

    for element in root.iter():
        for point in element.get("points", "").split():
            x, y = map(float, point.split(","))
            assert -1 <= x <= WIDTH + 1
            assert -1 <= y <= HEIGHT + 1
            assert math.isfinite(x)


@pytest.mark.parametrize("values", [[], [0.0], [0.0] * 3])
def test_nothing_is_no_error(values: list[float]) -> None:
    """No figures give no picture, and figures of nothing an even line."""
    assert bool(plot(resource(values, name="a", unit="1/s"), NOW, 90)) == bool(values)
