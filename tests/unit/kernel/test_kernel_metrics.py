"""Metrics: buckets, names, and the Prometheus page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from llm_schema_registry.errors import Code
from llm_schema_registry.kernel.export import MetricsPage
from llm_schema_registry.kernel.metrics import BYTES_BOUNDS, SECONDS_BOUNDS, Histogram, Metric, Point
from llm_schema_registry.kernel.metrics_calls import CallMetrics


@given(st.lists(st.floats(0, 200, allow_nan=False)))
def test_histogram_counts_every_value(values: list[float]) -> None:
    """Each value falls into the first bucket whose bound is not below it."""
    histogram = Histogram(SECONDS_BOUNDS)
    for value in values:
        histogram.record(value)
    point = histogram.point({})

    assert sum(point.counts) == len(values)
    for number, bound in enumerate(SECONDS_BOUNDS):
        assert sum(point.counts[: number + 1]) == sum(value <= bound for value in values)


def test_page_reads_back() -> None:
    """A Prometheus parser finds calls, buckets and other metrics on the page, in seconds and bytes."""
    calls = CallMetrics()
    counts = calls.method("echo.v1.EchoService/Echo")
    for code in (0, Code.NOT_FOUND):
        counts.begin()
        counts.end(code, 0.0035, 10, 5000)

    def pool() -> list[Metric]:
        return [Metric("database.pool.connections", "gauge", "", "Connections.", [Point(3, {"state": "idle"})])]

    page = MetricsPage(lambda: [*calls.collect(), *pool()]).render().decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}

    duration = families["grpc_server_call_duration_seconds"]
    buckets = {
        sample.labels["le"]: sample.value
        for sample in duration.samples
        if sample.name.endswith("_bucket") and sample.labels["grpc_status"] == "OK"
    }
    assert (buckets["0.003"], buckets["0.004"], buckets["+Inf"]) == (0, 1, 1)
    assert len(buckets) == len(SECONDS_BOUNDS) + 1
    sent = families["grpc_server_call_sent_total_compressed_message_size_bytes"]
    assert len({sample.labels.get("le") for sample in sent.samples} - {None}) == len(BYTES_BOUNDS) + 1
    assert [sample.value for sample in families["grpc_server_call_started"].samples] == [2]
    assert [sample.labels for sample in families["database_pool_connections"].samples] == [{"state": "idle"}]


def test_page_without_calls_is_valid() -> None:
    """Before the first call the page is there, without points."""
    page = MetricsPage(CallMetrics().collect).render().decode()

    assert list(text_string_to_metric_families(page))
