"""Reports on capacity as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli.messages import moment
from llm_schema_registry.cli.prices import Cost
from llm_schema_registry.cli.progress import size

RESOURCE_COLUMNS = ("resource", "now", "growth a day", "forecast", "95 % band", "limit", "reached", "source")
ADVICE_COLUMNS = ("until", "resource", "advice")
COST_COLUMNS = ("item", "now", "then", "reckoned from")


def amount(value: float, unit: str) -> str:
    """A value with its unit, with as many digits as are worth reading."""
    if unit == "By":
        return ("-" if value < 0 else "") + size(abs(round(value)))
    if unit == "1":
        return f"{value:.1%}"
    digits = f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:,.3g}"
    return f"{digits}/s" if unit == "1/s" else digits


def resource_rows(resources: Iterable[capacity_pb2.ResourceForecast]) -> Iterator[Sequence[object]]:
    """Rows under RESOURCE_COLUMNS; nothing where there are too few figures for a forecast."""
    for one in resources:
        yield (
            one.name,
            amount(one.current, one.unit),
            growth(one),
            amount(one.forecast, one.unit) if one.has_forecast else "",
            band(one) if one.has_forecast else "",
            amount(one.limit, one.unit) if one.limit else "",
            moment(one.limit_time),
            one.source,
        )


def growth(one: capacity_pb2.ResourceForecast) -> str:
    """What comes to it a day, with its sign."""
    return f"{'+' if one.growth_per_day > 0 else ''}{amount(one.growth_per_day, one.unit)}" if one.has_forecast else ""


def band(one: capacity_pb2.ResourceForecast) -> str:
    """Where it will be with 95 %."""
    return f"{amount(one.forecast_low, one.unit)} to {amount(one.forecast_high, one.unit)}"


def advice_rows(advice: Iterable[capacity_pb2.CapacityAdvice]) -> Iterator[Sequence[object]]:
    """Rows under ADVICE_COLUMNS."""
    for one in advice:
        yield moment(one.deadline), one.resource, one.text


def cost_rows(costs: Sequence[Cost], currency: str) -> Iterator[Sequence[object]]:
    """Rows under COST_COLUMNS, their sum the last."""
    for one in costs:
        yield one.item, money(one.now, currency), money(one.then, currency), one.basis
    now, then = sum(one.now for one in costs), sum(one.then for one in costs)
    yield "a month", money(now, currency), money(then, currency), ""


def money(value: float, currency: str) -> str:
    """An amount of money."""
    return f"{value:,.2f} {currency}".strip()
