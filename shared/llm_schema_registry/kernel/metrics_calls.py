"""Counters of the RPCs, by method: started, duration, sizes, in flight.

`started` carries grpc.method; the histograms carry grpc.method and grpc.status. Only methods that the server has get an
entry: every other call counts under `other`, so that a stranger cannot make the tables grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_schema_registry.errors import Code
from llm_schema_registry.kernel.metrics import (
    BYTES_BOUNDS,
    SECONDS_BOUNDS,
    Histogram,
    Metric,
    Point,
)

OTHER = "other"
"""Method name of calls to methods that the server does not have."""
STATUS_NAMES = ("OK", *(code.name for code in Code))
"""Names of the canonical codes, by number."""


class MethodCalls:
    """Counters of one method. `begin` and `end` are all that a call costs. stream: whether either side streams."""

    __slots__ = ("_by_status", "in_flight", "method", "started", "stream")

    def __init__(self, method: str) -> None:
        self.method = method
        self.stream = False
        self.started = 0
        self.in_flight = 0
        self._by_status: dict[int, tuple[Histogram, Histogram, Histogram]] = {}

    def begin(self) -> None:
        """Counts a call in."""
        self.started += 1
        self.in_flight += 1

    def end(self, status: int, seconds: float, received_bytes: int, sent_bytes: int) -> None:
        """Counts a call out: its status code, its duration, its messages' sizes."""
        self.in_flight -= 1
        histograms = self._by_status.get(status)
        if histograms is None:
            histograms = (Histogram(SECONDS_BOUNDS), Histogram(BYTES_BOUNDS), Histogram(BYTES_BOUNDS))
            self._by_status[status] = histograms
        histograms[0].record(seconds)
        histograms[1].record(received_bytes)
        histograms[2].record(sent_bytes)

    def statuses(self) -> Iterator[tuple[str, tuple[Histogram, Histogram, Histogram]]]:
        """Histograms of duration, received and sent sizes, by the name of their status."""
        for status, histograms in self._by_status.items():
            yield STATUS_NAMES[status], histograms


class CallMetrics:
    """Counters of all methods of a server."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodCalls] = {}

    def method(self, name: str) -> MethodCalls:
        """The counters of a method that the server has, by its full name without the leading slash; or of OTHER."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = MethodCalls(name)
        return found

    def collect(self) -> Iterator[Metric]:
        """The present values, named by gRFC A66 (`in_flight` is ours)."""
        methods = tuple(self._methods.values())
        yield Metric(
            "grpc.server.call.started", "counter", "{call}", "Calls started, whatever came of them.",
            [Point(calls.started, {"grpc.method": calls.method}) for calls in methods],
        )  # fmt: skip
        yield Metric(
            "grpc.server.call.in_flight", "gauge", "{call}", "Calls in work at this moment, open streams included.",
            [Point(calls.in_flight, {"grpc.method": calls.method}) for calls in methods],
        )  # fmt: skip
        yield _histogram(
            methods, 0, "grpc.server.call.duration", "s", "Time from the arrival of a call to the end of its answer."
        )
        yield _histogram(
            methods, 1, "grpc.server.call.rcvd_total_compressed_message_size", "By",
            "Bytes of the messages received in a call; counted after decompression.",
        )  # fmt: skip
        yield _histogram(
            methods, 2, "grpc.server.call.sent_total_compressed_message_size", "By",
            "Bytes of the messages sent in a call; counted before compression.",
        )  # fmt: skip


def _histogram(methods: Sequence[MethodCalls], index: int, name: str, unit: str, description: str) -> Metric:
    points = [
        histograms[index].point({"grpc.method": calls.method, "grpc.status": status})
        for calls in methods
        for status, histograms in calls.statuses()
    ]
    return Metric(name, "histogram", unit, description, points)
