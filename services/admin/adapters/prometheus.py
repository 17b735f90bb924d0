"""What Prometheus has recorded of the registry, by its HTTP API.

Source: Prometheus 3 documentation, "HTTP API", range queries and the format of range vectors. Names are those of the
metrics page (kernel/export.py). The standard library's client in a thread does: a report is asked for seldom.
"""

from __future__ import annotations

import asyncio
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_schema_registry import errors
from services.admin.domain.capacity import (
    CACHE,
    CPU,
    FAILURES,
    MEMORY,
    PEAK,
    POOL,
    REPLICAS,
    REQUESTS,
    Figure,
)

ANSWER_BYTES_MAX = 16 << 20
POINTS_MAX = 400
"""Of one series; Prometheus refuses above 11,000."""
STEP_SECONDS_MIN = 300
"""Between two points."""
TILE_SECONDS = 300
"""What one rate is taken over, at least. It needs two scrapes."""
TILES_MAX = 48
"""Of one point: what a query costs does not grow with the time it looks back."""
_INFO = 'max by (instance, job) (schema_registry_process_info{service="registry"})'
_OF_REGISTRY = f"* on (instance, job) group_left () {_INFO}"
_CALLS = 'grpc_method=~"llm_schema_registry\\\\.registry\\\\.v1\\\\..*"'
_FAILED = 'grpc_status=~"UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNAVAILABLE|DATA_LOSS"'
_STARTED = f"sum(rate(grpc_server_call_started_total{{{_CALLS}}}[TILE]))"
_FAILURES = f"sum(rate(grpc_server_call_duration_seconds_count{{{_CALLS},{_FAILED}}}[TILE]))"
_HITS, _MISSES = (f'sum(rate(registry_cache_{name}_total{{tier="memory"}}[TILE]))' for name in ("hits", "misses"))


def _mean(rate: str) -> str:
    """The mean of a rate since the point before: of what was recorded of that time, were it only the end of it."""
    return f"avg_over_time(({rate})[STEP:TILE])"


QUERIES: Mapping[str, str] = {
    REQUESTS.name: _mean(_STARTED),
    PEAK.name: f"max_over_time(({_STARTED})[STEP:TILE])",
    # A status that never was has no series, which is no failure.
    FAILURES.name: _mean(f"{_FAILURES} or 0 * {_STARTED}"),
    CPU.name: _mean(f"sum(rate(process_cpu_time_seconds_total[TILE]) {_OF_REGISTRY})"),
    MEMORY.name: f"sum(process_memory_usage_bytes {_OF_REGISTRY})",
    CACHE.name: f"{_mean(_HITS)} / ({_mean(_HITS)} + {_mean(_MISSES)})",
    POOL.name: f'sum(db_client_connection_count{{state="used"}} {_OF_REGISTRY})',
    REPLICAS.name: f"count({_INFO})",
}
"""By resource. STEP: between two points. TILE: a part of it, so that nothing between two points is missed."""


class Prometheus:
    """See Recorded."""

    def __init__(self, url: str, timeout_seconds: float, tile_seconds: int = TILE_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._tile_seconds = tile_seconds

    async def figures(self, start: datetime, end: datetime) -> Mapping[str, Sequence[Figure]]:
        """See Recorded."""
        step = max(STEP_SECONDS_MIN, math.ceil((end - start).total_seconds() / POINTS_MAX))
        tile = max(self._tile_seconds, math.ceil(step / TILES_MAX))
        # The newest point is now: points are counted from the start, which may be none of them.
        start = end - (end - start) // timedelta(seconds=step) * timedelta(seconds=step)
        found = {}
        for name, query in QUERIES.items():
            asked = {
                "query": query.replace("STEP", f"{step}s").replace("TILE", f"{tile}s"),
                "start": f"{start.timestamp():.0f}",
                "end": f"{end.timestamp():.0f}",
                "step": str(step),
            }
            found[name] = _figures(await asyncio.to_thread(self._ask, asked))
        return found

    def _ask(self, asked: Mapping[str, str]) -> Any:
        """The data of an answer. Raises errors.PeerUnreachable, errors.PeerFailed."""
        body = urllib.parse.urlencode(asked).encode()
        request = urllib.request.Request(f"{self._url}/api/v1/query_range", body)  # noqa: S310 - the settings check it
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as answer:  # noqa: S310
                content = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as refused:
            with refused:
                content = refused.read(ANSWER_BYTES_MAX)
            raise _refused(content, f"HTTP status {refused.code}") from None
        except (OSError, ValueError) as failed:
            raise errors.PeerUnreachable(
                f"Prometheus at {self._url} does not answer: {getattr(failed, 'reason', failed)}", retry_seconds=5
            ) from None
        if len(content) > ANSWER_BYTES_MAX:
            raise errors.PeerFailed(f"Prometheus answered more than {ANSWER_BYTES_MAX >> 20} MiB")
        try:
            document = json.loads(content)
            if document["status"] == "success" and document["data"]["resultType"] == "matrix":
                return document["data"]["result"]
        except (ValueError, KeyError, TypeError):
            pass
        raise _refused(content, "an answer that is none of its API")


def _figures(result: Any) -> list[Figure]:
    """The one series of an answer; what is no number is left out."""
    found = []
    try:
        for series in result:
            for seconds, text in series["values"]:
                value = float(text)
                if math.isfinite(value):
                    found.append(Figure(datetime.fromtimestamp(float(seconds), UTC), value))
    except (ValueError, KeyError, TypeError):
        raise errors.PeerFailed("Prometheus answered with values that are none of its API") from None
    return sorted(found, key=lambda each: each.time)


def _refused(content: bytes, otherwise: str) -> errors.PeerFailed:
    try:
        document = json.loads(content)
        words = f"{document['errorType']}: {document['error']}"
    except (ValueError, KeyError, TypeError):
        words = otherwise
    return errors.PeerFailed(f"Prometheus refused: {words}")
