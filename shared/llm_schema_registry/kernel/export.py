"""Metrics leave the process as a page in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as PrometheusFamily
from prometheus_client.registry import Collector

from llm_schema_registry.kernel.metrics import HistogramPoint, Metric, MetricSource

PAGE_TYPE = CONTENT_TYPE_LATEST
_UNITS = {"s": "seconds", "By": "bytes"}


class MetricsPage:
    """The metrics page: everything that `source` collects, and facts about the process itself."""

    def __init__(self, source: MetricSource) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Adapter(source))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> bytes:
        """The page, as PAGE_TYPE."""
        return generate_latest(self._registry)


class _Adapter(Collector):
    """Our metrics as prometheus_client's families."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source

    def collect(self) -> Iterator[PrometheusFamily]:
        for metric in self._source():
            yield _family(metric)


def _family(metric: Metric) -> PrometheusFamily:
    name = metric.name.replace(".", "_")
    unit = _UNITS.get(metric.unit, "")
    name = f"{name}_{unit}" if unit and not name.endswith(unit) else name
    labels = sorted({key for point in metric.points for key in point.attributes})
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    family: Any = kinds[metric.kind](name, metric.description, labels=[key.replace(".", "_") for key in labels])
    for point in metric.points:
        values = [point.attributes.get(key, "") for key in labels]
        if isinstance(point, HistogramPoint):
            family.add_metric(values, buckets=list(_cumulative(point)), sum_value=point.total)
        else:
            family.add_metric(values, point.value)
    found: PrometheusFamily = family
    return found


def _cumulative(point: HistogramPoint) -> Iterator[tuple[str, int]]:
    seen = 0
    for bound, count in zip((*point.bounds, float("inf")), point.counts, strict=True):
        seen += count
        yield ("+Inf" if bound == float("inf") else f"{bound:g}", seen)
