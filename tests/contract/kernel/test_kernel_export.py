"""Spans and metrics at a collector that speaks OTLP."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.fix_echo import EchoCode, open_channel
from tests.fix_echo_process import EchoProcess, Spawn

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-00"),)


class Collector:
    """Receives what processes export."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.exports = 0
        self.metrics: dict[str, Any] = {}
        self.resource: dict[str, str] = {}

    async def export_spans(self, request: Any, _: Any) -> Any:
        """Keeps the spans."""
        for resource in request.resource_spans:
            self.resource = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    async def export_metrics(self, request: Any, _: Any) -> Any:
        """Keeps the newest metrics."""
        self.exports += 1
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics = {metric.name: metric for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """A collector and its endpoint."""
    found = Collector()
    traces, metrics = trace_service_pb2_grpc.TraceServiceServicer(), metrics_service_pb2_grpc.MetricsServiceServicer()
    traces.Export = found.export_spans  # type: ignore[method-assign]
    metrics.Export = found.export_metrics  # type: ignore[method-assign]
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(traces, server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(metrics, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield found, f"http://127.0.0.1:{port}"
    await server.stop(0)


async def call_and_stop(echo: EchoProcess, code: EchoCode, *calls: tuple[tuple[str, str], ...]) -> None:
    """Calls the process once for each metadata, and ends it in order, which flushes."""
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        for metadata in calls:
            await code.rpc.EchoServiceStub(channel).Echo(code.pb.EchoRequest(text="x"), metadata=metadata)
    echo.process.send_signal(signal.SIGTERM)
    assert await echo.end() == 0


@pytest.mark.option("observability.otlp_endpoint")
async def test_traces_and_metrics_reach_the_collector(
    spawn: Spawn, echo_code: EchoCode, collector: tuple[Collector, str]
) -> None:
    """A sampled call becomes a span of its caller's trace; all calls are in the metrics; the end flushes both."""
    found, endpoint = collector
    echo = await spawn({"observability.otlp_endpoint": endpoint, "observability.trace_sampling_rate": "1"})
    await call_and_stop(echo, echo_code, SAMPLED, UNSAMPLED)

    [span] = [span for span in found.spans if span.name == "echo.v1.EchoService/Echo"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert found.resource["service.name"] == "echo"
    [line] = [line for line in echo.lines if line["event"] == "call"]
    assert line["trace_id"] == TRACE

    [duration] = [
        point
        for point in found.metrics["grpc.server.call.duration"].histogram.data_points
        if point.attributes[0].value.string_value == "echo.v1.EchoService/Echo"
    ]
    assert duration.count == sum(duration.bucket_counts) == 2
    assert found.metrics["grpc.server.call.started"].sum.is_monotonic


@pytest.mark.option("observability.tracing_enabled", "observability.trace_sampling_rate")
@pytest.mark.parametrize(("enabled", "rate", "spans"), [("true", "1", 1), ("true", "0", 0), ("false", "1", 0)])
async def test_sampling_decides_spans(
    spawn: Spawn, echo_code: EchoCode, collector: tuple[Collector, str], enabled: str, rate: str, spans: int
) -> None:
    """Calls whose caller has not decided are traced at the rate, and none at all with tracing off."""
    found, endpoint = collector
    echo = await spawn(
        {
            "observability.otlp_endpoint": endpoint,
            "observability.tracing_enabled": enabled,
            "observability.trace_sampling_rate": rate,
        }
    )
    await call_and_stop(echo, echo_code, ())

    assert len(found.spans) == spans


@pytest.mark.option("observability.metrics_export_seconds")
async def test_metrics_are_exported_from_time_to_time(
    spawn: Spawn, echo_code: EchoCode, collector: tuple[Collector, str]
) -> None:
    """Metrics arrive while the process runs, every observability.metrics_export_seconds."""
    found, endpoint = collector
    echo = await spawn({"observability.otlp_endpoint": endpoint, "observability.metrics_export_seconds": "0.05"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub = echo_code.rpc.EchoServiceStub(channel)
        while found.exports < 3:
            await stub.Echo(echo_code.pb.EchoRequest())

    assert found.exports >= 3


async def test_absent_collector_does_not_hold_up_the_end(spawn: Spawn, echo_code: EchoCode) -> None:
    """An endpoint that nobody listens on costs a few seconds at the end, and no failed step."""
    echo = await spawn({"observability.otlp_endpoint": "http://127.0.0.1:1", "observability.trace_sampling_rate": "1"})

    await call_and_stop(echo, echo_code, SAMPLED)

    assert echo.lines[-1]["failed_steps"] == []
