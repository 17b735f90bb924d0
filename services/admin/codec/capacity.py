"""Reports on capacity, as messages of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from llm_schema_registry.admin.v1 import capacity_pb2 as pb
from llm_schema_registry.kernel.messages import timestamp
from services.admin.domain.advice import Advice, Outlook


def report(
    time: datetime,
    source: str,
    window_start: datetime,
    resources: Sequence[Outlook],
    rest: tuple[Sequence[Advice], Sequence[str]],
) -> pb.CapacityReport:
    """A report. rest: its advice and its problems."""
    advice, problems = rest
    return pb.CapacityReport(
        time=timestamp(time),
        source=source,
        window_start=timestamp(window_start),
        resources=[_resource(each) for each in resources],
        advice=[
            pb.CapacityAdvice(resource=each.resource, text=each.text, deadline=timestamp(each.deadline))
            for each in advice
        ],
        problems=problems,
    )


def _resource(value: Outlook) -> pb.ResourceForecast:
    ahead = value.forecast
    message = pb.ResourceForecast(
        name=value.name,
        unit=value.unit,
        current=value.current,
        forecast=value.current if ahead is None else ahead.value,
        forecast_low=value.current if ahead is None else ahead.low,
        forecast_high=value.current if ahead is None else ahead.high,
        limit=value.limit,
        limit_time=timestamp(ahead.limit_time) if ahead else None,
        samples=[pb.CapacitySample(time=timestamp(each.time), value=each.value) for each in value.figures],
        source=value.source,
        has_forecast=ahead is not None,
    )
    if ahead is not None:
        message.growth_per_day = ahead.line.slope
        message.growth_per_day_low, message.growth_per_day_high = ahead.line.slope_low, ahead.line.slope_high
    return message
