"""What telemetry costs a call, in microseconds of CPU: `begin` and `end` around nothing. Target: below 10.

Rounds of the two cases are interleaved; the median of the rounds counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from llm_schema_registry.kernel.telemetry import Telemetry

ROUNDS = 9
CALLS = 20_000
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


def microseconds(telemetry: Telemetry, context: Any) -> float:
    """CPU microseconds of telemetry for one call."""
    counts = telemetry.calls.method("echo.v1.EchoService/Echo")
    started = time.process_time()
    for _ in range(CALLS):
        telemetry.end(counts, telemetry.begin(counts, context), context)
    return (time.process_time() - started) / CALLS * 1e6


def main() -> int:
    """Prints both cases; 1 when the target is missed."""
    telemetry = Telemetry(None, metrics=True, sampling_rate=0.0)
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
