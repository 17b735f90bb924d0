"""What a process tells about its calls: counters, spans, log lines. The exporters are in `export`.

The cost of a call that nobody traces is a few microseconds (tests/bench/bench_telemetry.py): sampling is decided
before anything of OpenTelemetry is touched, and the SDK makes a span only for a sampled call.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from llm_schema_registry import errors
from llm_schema_registry.kernel.calls import Call, set_current_call
from llm_schema_registry.kernel.metrics import Metric, MetricSource
from llm_schema_registry.kernel.metrics_calls import STATUS_NAMES, CallMetrics, MethodCalls

SLOW_SECONDS = 1.0
"""A call that takes longer is notable, whatever its end. Streams are not: they are long by nature."""
_EVERY_CALL = -1.0
"""In place of the slow seconds when all calls are logged: whoever does not want that pays one comparison as before."""
_SERVER_FAULTS = frozenset(
    {
        errors.Code.UNKNOWN,
        errors.Code.DEADLINE_EXCEEDED,
        errors.Code.INTERNAL,
        errors.Code.UNAVAILABLE,
        errors.Code.DATA_LOSS,
    }
)


class Telemetry:
    """Records the calls of one process. `begin` and `end` surround each; both belong to the event loop.

    Nothing is traced until `trace_with`.
    """

    def __init__(self, logger: Any, *, metrics: bool, sampling_rate: float) -> None:
        self.calls = CallMetrics()
        self._logger = logger
        self._metrics = metrics
        self._tracer: trace.Tracer | None = None
        self._sampling_rate = sampling_rate
        self._slow_seconds = SLOW_SECONDS
        self._sources: list[MetricSource] = [self.calls.collect]

    def trace_with(self, tracer: trace.Tracer | None) -> None:
        """Starts tracing. The tracer's sampler is always on: what is sampled is decided here."""
        self._tracer = tracer

    def set_sampling_rate(self, rate: float) -> None:
        """Changes the part of calls that is traced when their caller has not decided."""
        self._sampling_rate = rate

    def set_call_log(self, *, every: bool, slow_seconds: float) -> None:
        """Changes which calls are logged: every one, or those that are notable: failed, traced, or slower than that."""
        self._slow_seconds = _EVERY_CALL if every else slow_seconds

    def add_sources(self, sources: Sequence[MetricSource]) -> None:
        """Adds metrics of others, for example of a pool or a cache."""
        self._sources.extend(sources)

    def collect(self) -> Iterator[Metric]:
        """The present values of all metrics."""
        for source in self._sources:
            yield from source()

    def begin(self, counts: MethodCalls, context: Any) -> Call:
        """Counts a call in, joins or starts its trace, and makes it the current call."""
        call = Call(counts.method, dict(context.invocation_metadata() or ()), time.monotonic())
        if self._metrics:
            counts.begin()
        set_current_call(call)
        parent = call.metadata.get("traceparent")
        decided = call.join_trace(parent) if parent is not None else None
        if self._tracer is not None:
            call.sampled = random.random() < self._sampling_rate if decided is None else decided  # noqa: S311 - a sample
            if call.sampled:
                call.span = _start_span(self._tracer, call)
        return call

    def end(
        self,
        counts: MethodCalls,
        call: Call,
        context: Any,
        *,
        code: int = 0,
        error: errors.Error | None = None,
    ) -> None:
        """Counts a call out. Logs it when it failed, was traced, or was slow, or when all are. code: 0 for success."""
        seconds = time.monotonic() - call.started
        if self._metrics:
            counts.end(code, seconds, call.received_bytes, call.sent_bytes)
        if call.span is not None:
            _end_span(call, code)
        if code or call.sampled or seconds > self._slow_seconds:
            self._log(counts, call, context, code, error, seconds)

    def defect(self, call: Call, exception: BaseException) -> errors.Internal:
        """The error a caller may see for an exception that is a defect; the log has the rest under the same id."""
        error_id = secrets.token_hex(8)
        self._logger.error("unexpected exception", error_id=error_id, exc_info=exception, trace_id=call.trace_id)
        return errors.Internal(
            f"The server failed unexpectedly. Its log has the details under the id {error_id}.",
            metadata={"error_id": error_id},
        )

    def _log(
        self,
        counts: MethodCalls,
        call: Call,
        context: Any,
        code: int,
        error: errors.Error | None,
        seconds: float,
    ) -> None:
        if not code and counts.method.startswith("grpc."):
            return  # A health watch is neither slow nor of interest.
        every = self._slow_seconds == _EVERY_CALL
        if counts.stream and not (code or call.sampled or every):
            return
        log = self._logger.warning if code in _SERVER_FAULTS else self._logger.info
        log(
            "call",
            code=STATUS_NAMES[code],
            reason=error.reason if error else "",
            message=error.message if error else "",
            duration_ms=round(seconds * 1000, 3),
            peer=context.peer(),
            caller=call.caller.name if call.caller else "",
            received_bytes=call.received_bytes,
            sent_bytes=call.sent_bytes,
            # Whoever counts lines must know whether they are all calls, and that a stream's duration is not a wait.
            logged="all" if every else "notable",
            **({"stream": True} if counts.stream else {}),
        )


def _start_span(tracer: trace.Tracer, call: Call) -> trace.Span:
    parent = None
    if call.parent_span_id:
        remote = SpanContext(
            int(call.trace_id, 16), int(call.parent_span_id, 16), is_remote=True, trace_flags=TraceFlags(1)
        )
        parent = trace.set_span_in_context(NonRecordingSpan(remote))
    service, _, method = call.method.rpartition("/")
    span = tracer.start_span(
        call.method,
        context=parent,
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
    )
    call.use_trace(f"{span.get_span_context().trace_id:032x}")
    return span


def _end_span(call: Call, code: int) -> None:
    span: trace.Span = call.span
    span.set_attribute("rpc.grpc.status_code", code)
    if call.caller is not None:
        span.set_attribute("enduser.id", call.caller.name)
    if code in _SERVER_FAULTS:
        span.set_status(trace.StatusCode.ERROR, STATUS_NAMES[code])
    span.end()
