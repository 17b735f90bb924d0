"""What telemetry costs a call, in microseconds of CPU: `begin` and `end` around nothing. Target: below 10.

With observability.log_calls=all a call costs its log line on top, the work of the writing thread included: shown,
without a target.
Rounds of the two cases are interleaved; the median of the rounds counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.logs import Logs
from llm_schema_registry.kernel.telemetry import Telemetry

ROUNDS = 9
CALLS = 20_000
LOGGED_CALLS = 8_000
"""Fewer than the log's queue takes, so that no line is dropped."""
TARGET_MICROSECONDS = 10.0
METADATA = (
    ("user-agent", "grpc-python-asyncio/1.85.1 grpc-c/55.0.0 (linux; chttp2)"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
)


class Context:
    """Stands for the servicer context of a call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The call's metadata."""
        return self._metadata

    def peer(self) -> str:
        """The call's peer."""
        return "ipv4:127.0.0.1:40000"


def microseconds(telemetry: Telemetry, context: Any) -> float:
    """CPU microseconds of telemetry for one call."""
    counts = telemetry.calls.method("echo.v1.EchoService/Echo")
    started = time.process_time()
    for _ in range(CALLS):
        telemetry.end(counts, telemetry.begin(counts, context), context)
    return (time.process_time() - started) / CALLS * 1e6


def logged_microseconds() -> float:
    """The same with a log line for every call, written out."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        logs = Logs("info", as_json=True, service="echo", clock=SystemClock(), stream=nowhere)
        telemetry = Telemetry(logs.logger, metrics=True, sampling_rate=0.0)
        telemetry.set_call_log(every=True, slow_seconds=1.0)
        context: Any = Context(METADATA)
        counts = telemetry.calls.method("echo.v1.EchoService/Echo")
        started = time.process_time()
        for _ in range(LOGGED_CALLS):
            telemetry.end(counts, telemetry.begin(counts, context), context)
        logs.flush()
        spent = time.process_time() - started
        logs.close()
        assert logs.dropped == 0
    return spent / LOGGED_CALLS * 1e6


def main() -> int:
    """Prints both cases; 1 when the target is missed."""
    telemetry = Telemetry(None, metrics=True, sampling_rate=0.0)
    sys.stdout.write(f"telemetry with a line for every call: {logged_microseconds():.2f} µs CPU per call (no target)\n")
    cases = {"without a trace": Context(METADATA[:1]), "with an unsampled trace": Context(METADATA)}
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, context in cases.items():
            rounds[name].append(microseconds(telemetry, context))
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    for name, median in medians.items():
        sys.stdout.write(f"telemetry {name}: {median:.2f} µs CPU per call (target < {TARGET_MICROSECONDS:g})\n")
    return int(max(medians.values()) >= TARGET_MICROSECONDS)


if __name__ == "__main__":
    sys.exit(main())
