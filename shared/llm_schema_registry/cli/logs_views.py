"""What a log says, for people."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence

from llm_schema_registry.cli import logs_times
from llm_schema_registry.cli.logs_document import QUANTILES, more, newest_transitions, ordered_methods, rate
from llm_schema_registry.cli.logs_summary import Pattern, SlowCall, Summary, kept
from llm_schema_registry.cli.output import Output, counted, paragraph

BARS = "▁▂▃▄▅▆▇█"
NONE = "·"
"""A bucket without any."""
PACKAGE = "llm_schema_registry."
INDENT = "    "
EVENT_CHARACTERS_MAX = 40
"""What a table shows of an event. Those of libraries are whole sentences."""
LINE_CHARACTERS_MAX = 10_000
"""A pattern is on one line in a pipe."""
UNREADABLE = {
    "text": "no JSON",
    "broken": "broken JSON",
    "cut_off": "half written at the end",
    "too_long": "too long",
    "not_utf8": "not UTF-8",
    "other_shape": "JSON of another shape",
}


def show(output: Output, summary: Summary) -> None:
    """Writes every section that has something to say."""
    output.record(_overview(summary))
    _patterns(output, summary)
    _top_errors(output, summary)
    _latencies(output, summary)
    _timeline(output, summary)
    _slowest(output, summary)
    _transitions(output, summary)


def _overview(summary: Summary) -> Iterable[tuple[str, object]]:
    left_out = [
        (summary.outside, "outside the time"),
        (summary.filtered, "of others"),
        *((count, UNREADABLE[kind]) for kind, count in summary.unreadable.most_common()),
    ]
    told = ", ".join(f"{count:,} {words}" for count, words in left_out if count)
    yield "Lines", f"{summary.read:,} read" + (f"; not used: {told}" if told else "")
    if summary.odd_fields:
        yield "Fields", f"{summary.odd_fields:,} of an unexpected type, left out"
    if not summary.levels:
        return
    yield "Time", f"{logs_times.clock(summary.first)} to {logs_times.clock(summary.last)} UTC"
    yield "Services", ", ".join(f"{name or '-'} {count:,}" for name, count in summary.services.most_common())
    yield "Levels", ", ".join(f"{name} {count:,}" for name, count in summary.levels.most_common())
    if summary.calls:
        yield "Calls", f"{summary.calls:,}, {_share(summary.failed, summary.calls)} failed"


def _patterns(output: Output, summary: Summary) -> None:
    patterns, cut = summary.patterns.ordered(), more(summary)
    output.heading(f"Errors, from level {summary.wanted.level} on: {counted(summary.errors, 'line')}")
    width = output.console(sys.stdout).width if sys.stdout.isatty() else LINE_CHARACTERS_MAX
    for pattern in patterns[: summary.wanted.top]:
        output.text(_one_pattern(pattern, width))
    _cut(output, [(cut["patterns"], "pattern"), (cut["lines_without_pattern"], "line that fitted no table")])


def _one_pattern(pattern: Pattern, width: int) -> str:
    once = pattern.count == 1
    when = (
        logs_times.clock(pattern.last)
        if once
        else (f"{logs_times.clock(pattern.first)} to {logs_times.clock(pattern.last)}")
    )
    ids = [
        f"trace {pattern.trace_id}" if pattern.trace_id else "",
        pattern.request_id and f"request {pattern.request_id}",
    ]
    lines = [
        f"{pattern.id}  {', '.join(sorted(pattern.services))}  {when}",
        f"such as: {pattern.example}" if pattern.example not in pattern.text else "",
        "  ".join(filter(None, ids)),
    ]
    words = f"{pattern.count:,} x {pattern.level}  {pattern.text}"
    head = textwrap.fill(words, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
    return "\n".join([head, *(paragraph(line, width=width, indent=INDENT) for line in lines if line)])


def _top_errors(output: Output, summary: Summary) -> None:
    if not summary.top:
        return
    output.heading("Top errors")
    rows: list[Sequence[str]] = [
        (f"{count:,}", code, reason, _short(method), kept(event, EVENT_CHARACTERS_MAX))
        for (event, code, reason, method), count in summary.top.most_common(summary.wanted.top)
    ]
    output.table(*_aligned(("count", "code", "reason", "method", "event"), rows, range(1)))
    _cut(output, [(more(summary)["top_errors"], "kind")])


def _latencies(output: Output, summary: Summary) -> None:
    if not summary.calls:
        return
    output.heading("Latency by method")
    rows: list[Sequence[str]] = []
    for name, calls in ordered_methods(summary)[: summary.wanted.top]:
        per_second = rate(calls.calls, summary)
        times = [logs_times.duration(calls.durations.quantile(part)) for _, part in QUANTILES]
        rows.append(
            (
                _short(name) + (" (stream)" if calls.stream else ""),
                f"{calls.calls:,}",
                "" if per_second is None else f"{per_second:.3g}",
                _share(calls.failed, calls.calls),
                *times,
                logs_times.duration(calls.durations.maximum),
            )
        )
    columns = ("method", "calls", "per s", "failed", "p50", "p90", "p95", "p99", "max")
    output.table(*_aligned(columns, rows, range(1, len(columns))))
    if summary.selected_calls:
        output.text("Of calls that failed, were traced or were slow; observability.log_calls = all logs the others.")
    _cut(output, [(more(summary)["methods"], "method")])


def _timeline(output: Output, summary: Summary) -> None:
    buckets = summary.timeline.shown()
    if not buckets:
        return
    width = logs_times.width(summary.timeline.width_seconds)
    names = ("calls", "failed", "errors")
    if not _drawn():
        output.heading(f"Timeline, by {width}")
        rows = [(logs_times.clock(start), *map(str, counts)) for start, counts in buckets if any(counts)]
        output.table(*_aligned(("from", *names), rows, range(1, 4)))
        return
    output.heading(f"Timeline, a sign for {width}")
    for place, name in enumerate(names):
        counts = [counts[place] for _, counts in buckets]
        if any(counts):
            output.text(f"{name:<8}{_bars(counts)}  at most {max(counts):,}")
    first, last = logs_times.clock(buckets[0][0]), logs_times.clock(buckets[-1][0])
    gap = " " * (len(buckets) - len(first) - len(last))
    output.text(" " * 8 + (f"{first}{gap}{last}" if gap else f"{first} to {last}"))


def _bars(counts: Sequence[int]) -> str:
    """A sign for each count; the lowest stands for anything above none."""
    most = max(counts)
    return "".join(BARS[(count * len(BARS) - 1) // most] if count else NONE for count in counts)


def _drawn() -> bool:
    """Whether standard output is a terminal that has the signs."""
    try:
        (BARS + NONE).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return sys.stdout.isatty()


def _slowest(output: Output, summary: Summary) -> None:
    calls = summary.slowest.ordered()
    if not calls:
        return
    output.heading("Slowest calls, without streams")
    if sys.stdout.isatty():
        for call in calls:
            output.text(_one_call(call))
        return
    rows: list[Sequence[str]] = [
        (
            logs_times.duration(call.milliseconds),
            logs_times.clock(call.seconds),
            _short(call.method),
            call.code,
            call.trace_id,
            call.request_id,
        )
        for call in calls
    ]
    output.table(*_aligned(("took", "ended", "method", "code", "trace", "request"), rows, range(1)))


def _one_call(call: SlowCall) -> str:
    """On two lines: ids that fold cannot be copied."""
    took = logs_times.duration(call.milliseconds)
    head = f"{took:>6}  {_short(call.method)}  {call.code}  {logs_times.clock(call.seconds)}"
    return f"{head}\n{' ' * 8}trace {call.trace_id}  request {call.request_id}"


def _transitions(output: Output, summary: Summary) -> None:
    found = newest_transitions(summary)
    if not found:
        return
    output.heading("Life of the processes")
    rows = [(logs_times.clock(one.seconds), one.service, one.event, one.detail) for one in found]
    output.table(("time", "service", "event", "detail"), rows, whole=2)
    _cut(output, [(more(summary)["transitions"], "step")])


def _cut(output: Output, left_out: Iterable[tuple[int, str]]) -> None:
    told = ", ".join(f"{counted(count, noun)} more" for count, noun in left_out if count)
    if told:
        output.text(f"And {told}.")


def _aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows with the columns of numbers aligned on the right."""
    head, cells = list(columns), [list(row) for row in rows]
    for place in numbers:
        width = max(len(row[place]) for row in [head, *cells])
        for row in [head, *cells]:
            row[place] = row[place].rjust(width)
    return head, cells


def _short(method: str) -> str:
    """The method without what all of ours begin with: SchemaService/GetSchema."""
    if not method.startswith(PACKAGE):
        return method
    service, _, name = method.rpartition("/")
    return f"{service.rpartition('.')[2]}/{name}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part else "0%"
