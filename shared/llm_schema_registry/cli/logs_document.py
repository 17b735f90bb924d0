"""What a log says, for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_schema_registry.cli.logs_sketch import RELATIVE_ERROR
from llm_schema_registry.cli.logs_summary import MethodCalls, SlowCall, Summary, Transition
from llm_schema_registry.cli.logs_times import iso

if TYPE_CHECKING:
    from llm_schema_registry.cli.logs_read import FileRead

QUANTILES = (("p50_ms", 0.5), ("p90_ms", 0.9), ("p95_ms", 0.95), ("p99_ms", 0.99))
DIGITS = 3
"""Behind the point of milliseconds, as in the log."""


def document(summary: Summary, files: Sequence[FileRead]) -> dict[str, Any]:
    """The whole summary. Times are RFC 3339 in UTC, null where there is none; durations are milliseconds.

    `more` tells what the tables leave out: rows below `--top`, and lines or calls whose name came after a table was
    full. Keys may come, these stay.
    """
    top, wanted = summary.wanted.top, summary.wanted
    patterns, ranked = summary.patterns.ordered(), ordered_methods(summary)
    return {
        "files": [{"name": file.name, "size_bytes": file.size_bytes, "problem": file.problem} for file in files],
        "lines": {
            "read": summary.read,
            "outside_time": summary.outside,
            "other_service_or_method": summary.filtered,
            "blank": summary.blank,
            "unreadable": dict(summary.unreadable),
            "odd_fields": summary.odd_fields,
        },
        "window": {"first": _time(summary.first), "last": _time(summary.last)},
        "levels": dict(summary.levels),
        "services": dict(summary.services),
        "level": str(wanted.level),
        "errors": summary.errors,
        "calls": {"count": summary.calls, "failed": summary.failed, "all_logged": not summary.selected_calls},
        "patterns": [
            {
                "id": one.id,
                "pattern": one.text,
                "level": one.level,
                "count": one.count,
                "first": iso(one.first),
                "last": iso(one.last),
                "services": sorted(one.services),
                "example": one.example,
                "trace_id": one.trace_id,
                "request_id": one.request_id,
            }
            for one in patterns[:top]
        ],
        "top_errors": [
            {"event": event, "code": code, "reason": reason, "method": method, "count": count}
            for (event, code, reason, method), count in summary.top.most_common(top)
        ],
        "relative_error": RELATIVE_ERROR,
        "methods": [{"method": name, **_latencies(calls, summary)} for name, calls in ranked[:top]],
        "slowest": [_slow(call) for call in summary.slowest.ordered()],
        "timeline": _timeline(summary),
        "transitions": [
            {"time": iso(one.seconds), "service": one.service, "event": one.event, "detail": one.detail}
            for one in newest_transitions(summary)
        ],
        "more": more(summary),
    }


def ordered_methods(summary: Summary) -> list[tuple[str, MethodCalls]]:
    """The methods by the number of their calls, most first."""
    return sorted(summary.methods.items(), key=lambda item: (-item[1].calls, item[0]))


def rate(calls: int, summary: Summary) -> float | None:
    """Calls per second from the first call in the log to the last. None when they are at one moment."""
    seconds = summary.last_call - summary.first_call
    return calls / seconds if seconds > 0 else None


def newest_transitions(summary: Summary) -> list[Transition]:
    """The newest steps in the processes' lives, as they came."""
    return sorted(summary.transitions.ordered()[: summary.wanted.top], key=lambda one: one.seconds)


def more(summary: Summary) -> dict[str, int]:
    """What the tables leave out."""
    top = summary.wanted.top
    known = len(summary.patterns.ordered())
    return {
        "patterns": max(0, known - top),
        "lines_without_pattern": summary.patterns.beyond,
        "top_errors": max(0, len(summary.top) - top),
        "methods": max(0, len(summary.methods) - top),
        "transitions": max(0, summary.transitions.seen - top),
    }


def _latencies(calls: MethodCalls, summary: Summary) -> dict[str, Any]:
    found = rate(calls.calls, summary)
    return {
        "calls": calls.calls,
        "per_second": None if found is None else round(found, DIGITS),
        "failed": calls.failed,
        "failed_share": round(calls.failed / calls.calls, 4),
        "stream": calls.stream,
        **{name: round(calls.durations.quantile(part), DIGITS) for name, part in QUANTILES},
        "max_ms": round(calls.durations.maximum, DIGITS),
    }


def _slow(call: SlowCall) -> dict[str, Any]:
    return {
        "duration_ms": call.milliseconds,
        "time": iso(call.seconds),
        "service": call.service,
        "method": call.method,
        "code": call.code,
        "trace_id": call.trace_id,
        "request_id": call.request_id,
    }


def _timeline(summary: Summary) -> dict[str, Any]:
    shown = summary.timeline.shown()
    return {
        "bucket_seconds": summary.timeline.width_seconds,
        "buckets": [
            {"time": iso(start), "calls": calls, "failed": failed, "errors": errors}
            for start, (calls, failed, errors) in shown
        ],
    }


def _time(seconds: float) -> str | None:
    return iso(seconds) if seconds and seconds != math.inf else None
