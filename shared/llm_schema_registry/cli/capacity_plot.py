"""One resource over time as an inline SVG: its figures, the forecast with its band, and the limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli.capacity_views import amount

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 12, 26
TICKS = 4
LIMIT_SHOWN = 4.0
"""A limit that is further away than so many times the largest value would flatten everything else."""
DAY_SECONDS = 86_400
DOTS_MAX = 40
"""Few figures are drawn as dots too, or a single one would not be seen."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """From moments, in seconds, and values to the picture."""

    start: float
    end: float
    top: float

    def at(self, point: Point) -> str:
        """Its place, as SVG writes it."""
        return f"{self.x(point[0]):.1f},{self.y(point[1]):.1f}"

    def x(self, seconds: float) -> float:
        """From the left."""
        return LEFT + (seconds - self.start) / (self.end - self.start) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From above."""
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def plot(one: capacity_pb2.ResourceForecast, now: float, horizon_days: int) -> str:
    """The picture. now: the moment of the report, in seconds."""
    figures: list[Point] = [(each.time.seconds, max(0.0, each.value)) for each in one.samples]
    if not figures:
        return ""
    end = now + horizon_days * DAY_SECONDS if one.has_forecast else max(now, figures[0][0] + 1)
    highest = max(value for _, value in figures)
    if one.has_forecast:
        highest = max(highest, one.forecast_high)
    limit = one.limit if 0 < one.limit <= LIMIT_SHOWN * highest else 0.0
    step = _step(max(highest, limit) or 1.0, one.unit)
    top = 1.0 if one.unit == "1" else step * math.ceil((max(highest, limit) or 1.0) / step)
    scale = Scale(figures[0][0], end, top)
    parts = [
        *_values(scale, step, one.unit),
        *_moments(scale),
        *(_ahead(one, scale, now, end, horizon_days) if one.has_forecast else ()),
        *_figures(scale, figures),
        *_limit(scale, limit, one),
    ]
    label = escape(f"{one.name} over time", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _values(scale: Scale, step: float, unit: str) -> Iterator[str]:
    for number in range(round(scale.top / step) + 1):
        y = scale.y(number * step)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        told = escape(amount(number * step, unit))
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{told}</text>'


def _moments(scale: Scale) -> Iterator[str]:
    days = scale.end - scale.start > 2 * DAY_SECONDS
    for number in range(TICKS + 1):
        seconds = scale.start + (scale.end - scale.start) * number / TICKS
        told = datetime.fromtimestamp(seconds, UTC).strftime("%d %b" if days else "%H:%M")
        anchor = "start" if number == 0 else "end" if number == TICKS else "middle"
        yield f'<text x="{scale.x(seconds):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{told}</text>'


def _ahead(
    one: capacity_pb2.ResourceForecast, scale: Scale, now: float, end: float, horizon_days: int
) -> Iterator[str]:
    # Where the line stands now; a forecast that was cut at zero tells only that it falls.
    begins = one.forecast - one.growth_per_day * horizon_days if one.forecast > 0 else one.current
    start = (now, min(max(0.0, begins), scale.top))
    corners = " ".join(scale.at(each) for each in (start, (end, one.forecast_high), (end, one.forecast_low)))
    yield f'<polygon class="band" points="{corners}"/>'
    yield f'<line class="now" x1="{scale.x(now):.1f}" y1="{TOP}" x2="{scale.x(now):.1f}" y2="{HEIGHT - BOTTOM}"/>'
    yield f'<polyline class="ahead" points="{scale.at(start)} {scale.at((end, one.forecast))}"/>'


def _figures(scale: Scale, figures: Sequence[Point]) -> Iterator[str]:
    yield f'<polyline class="figure" points="{" ".join(scale.at(each) for each in figures)}"/>'
    if len(figures) <= DOTS_MAX:
        for seconds, value in figures:
            yield f'<circle class="dot" cx="{scale.x(seconds):.1f}" cy="{scale.y(value):.1f}" r="2.2"/>'


def _limit(scale: Scale, limit: float, one: capacity_pb2.ResourceForecast) -> Iterator[str]:
    if limit:
        y = scale.y(limit)
        yield f'<line class="limit" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        told = escape(f"limit {amount(limit, one.unit)}")
        yield f'<text class="limit" x="{LEFT + 6}" y="{y + 13:.1f}">{told}</text>'


def _step(highest: float, unit: str) -> float:
    """A round distance between lines, so that about TICKS of them reach the highest value; bytes in binary units, and a
    share of one always up to one."""
    if unit == "1":
        return 1 / TICKS
    rough = highest / TICKS
    base = 1024.0 ** max(0, math.floor(math.log(rough, 1024))) if unit == "By" else 1.0
    power = base * 10.0 ** math.floor(math.log10(rough / base))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
