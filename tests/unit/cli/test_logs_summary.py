"""What lines say together: counts, limits, and that no line breaks it."""

from __future__ import annotations

import contextvars
import io
import itertools
import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry.cli import logs_summary, logs_timeline
from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.logs_document import document
from llm_schema_registry.cli.logs_summary import OTHERS, Largest, Summary, Wanted
from llm_schema_registry.cli.logs_timeline import BUCKETS_MAX, SHOWN_MAX, Timeline
from llm_schema_registry.cli.logs_times import duration, given_moment, iso, seconds_of
from llm_schema_registry.kernel.calls import Call, set_current_call
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.logs import Logs
from llm_schema_registry.kernel.telemetry import Telemetry

NOON = "2026-11-30T12:00:00.000+00:00"
METHOD = "llm_schema_registry.registry.v1.SchemaService/GetSchema"


def line(**fields: Any) -> str:
    """A log line; None leaves a field out."""
    common = {"timestamp": NOON, "level": "info", "event": "ready", "service": "registry"}
    return json.dumps({key: value for key, value in {**common, **fields}.items() if value is not None})


def call(milliseconds: object = 1.5, code: str = "OK", **fields: Any) -> str:
    """A line about a call."""
    return line(**{"event": "call", "method": METHOD, "code": code, "duration_ms": milliseconds, **fields})


def taken(*lines: str, **wanted: Any) -> dict[str, Any]:
    """The document about lines; it must be JSON in UTF-8."""
    summary = Summary(Wanted(**wanted))
    summary.take(lines)
    found: dict[str, Any] = json.loads(json.dumps(document(summary, []), ensure_ascii=False, allow_nan=False).encode())
    return found


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("9" * 200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    *("timestamp", "level", "event", "service", "method", "code", "reason", "message", "duration_ms", "trace_id"),
    *("request_id", "exception", "stream", "logged", "outcome", "state", "before", "failed_steps", "logger"),
)
EVENTS = st.sampled_from(["call", "shutdown step", "state changed", "page failed"])


@given(st.dictionaries(st.sampled_from(FIELDS), anything), EVENTS, st.sampled_from(["info", "error"]))
@settings(max_examples=300)
def test_no_field_of_any_type_breaks_it(odd: dict[str, Any], event: str, level: str) -> None:
    """With anything in any field a line is read or counted as unreadable, and the document can be written."""
    fields = {"timestamp": NOON, "level": level, "event": event, "service": "registry", **odd}

    found = taken(json.dumps(fields))

    assert found["lines"]["read"] + sum(found["lines"]["unreadable"].values()) == 1


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_no_text_breaks_it(text: str) -> None:
    """Anything is a line."""
    found = taken(text, "{" + text, '{"event": "' + text)["lines"]

    assert found["read"] + found["blank"] + sum(found["unreadable"].values()) == 3


def test_surrogates_and_controls_are_written() -> None:
    """A lone surrogate, which JSON may hold and UTF-8 may not, ends nothing."""
    found = taken(line(level="error", message="\ud800 \x1b[31m", trace_id="\udfff", service="\ud800"))

    assert found["patterns"][0]["example"] == "? \x1b[31m"
    assert found["services"] == {"?": 1}


@pytest.mark.parametrize("odd", [-1, math.nan, math.inf, "1.5", True, None, [], 10**400, 1e300])
def test_a_duration_that_is_none_is_counted(odd: object) -> None:
    """The call counts, its duration does not."""
    found = taken(call(odd))

    assert (found["calls"]["count"], found["methods"][0]["max_ms"], found["lines"]["odd_fields"]) == (1, 0, 1)


@pytest.mark.parametrize("stamp", ["", "yesterday", 17, None, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_none_is_unreadable(stamp: object) -> None:
    """Without a time a line belongs nowhere."""
    assert taken(line(timestamp=stamp))["lines"]["unreadable"] == {"other_shape": 1}


def test_calls_are_told_by_method() -> None:
    """Count, share of failures and latencies by method, rate over the whole time; the slowest with their ids."""
    lines = [
        call(
            float(number),
            "OK" if number % 4 else "NOT_FOUND",
            timestamp=f"2026-11-30T12:00:{number // 10:02d}.000+00:00",
            trace_id=f"t{number}",
            request_id=f"r{number}",
        )
        for number in range(101)
    ]

    found = taken(*lines, top=2)

    [method] = found["methods"]
    assert (method["calls"], method["failed"], method["per_second"]) == (101, 26, 10.1)
    assert method["p50_ms"] == pytest.approx(50, rel=0.01)
    assert method["p99_ms"] == pytest.approx(99, rel=0.01)
    assert [slow["trace_id"] for slow in found["slowest"]] == ["t100", "t99"]
    assert found["top_errors"][0] == {
        "event": "call", "code": "NOT_FOUND", "reason": "", "method": METHOD, "count": 26,
    }  # fmt: skip
    assert [bucket["calls"] for bucket in found["timeline"]["buckets"]] == [10] * 10 + [1]


def test_streams_are_not_slow() -> None:
    """A stream is long by nature: it has its latencies and is no slow call."""
    found = taken(call(3_600_000.0, stream=True), call(2.0))

    assert [slow["duration_ms"] for slow in found["slowest"]] == [2.0]
    assert found["methods"][0]["stream"] is True


def test_whether_all_calls_are_there_is_told() -> None:
    """One line written under log_calls=notable is enough."""
    assert taken(call(logged="all"))["calls"]["all_logged"] is True
    assert taken(call(logged="all"), call(logged="notable"))["calls"]["all_logged"] is False
    assert taken(call())["calls"]["all_logged"] is False


def test_patterns_have_times_services_and_the_newest_example() -> None:
    """Lines that differ in numbers are one pattern; its level is the highest."""
    first = line(level="warning", event="x", message="took 1 s", trace_id="a", timestamp="2026-11-30T11:00:00Z")
    last = line(level="error", event="x", message="took 2 s", trace_id="b", service="backup")
    middle = line(level="warning", event="x", message="took 3 s", trace_id="c", timestamp="2026-11-30T11:30:00Z")

    found = taken(first, last, middle)

    [pattern] = found["patterns"]
    assert (pattern["count"], pattern["level"], pattern["services"]) == (3, "error", ["backup", "registry"])
    assert (pattern["first"], pattern["last"]) == ("2026-11-30T11:00:00.000Z", "2026-11-30T12:00:00.000Z")
    assert (pattern["example"], pattern["trace_id"], pattern["pattern"]) == ("took 2 s", "b", "x: took <n> s")


def test_an_id_is_the_same_in_every_run() -> None:
    """People refer to it."""
    assert taken(line(level="error", message="took 1 s"))["patterns"][0]["id"] == "f928c39b"


def test_texts_that_masking_does_not_join_are_one_pattern() -> None:
    """A name without quotes would make a pattern each time: after some they count together."""
    words = ["".join(chr(97 + int(digit)) for digit in str(number)) for number in range(1000, 1100)]
    lines = [line(level="error", event="x", message=f"about {word} in here") for word in words]

    found = taken(*lines, top=200)

    assert len(found["patterns"]) == logs_summary.VARIANTS_MAX + 1
    assert found["patterns"][0]["count"] == 100 - logs_summary.VARIANTS_MAX


def test_every_table_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without end fill no memory: beyond its limit a table counts them together, and says how many."""
    for name in ("PATTERNS_MAX", "TOP_MAX", "METHODS_MAX", "SERVICES_MAX", "TRANSITIONS_MAX"):
        monkeypatch.setattr(logs_summary, name, 5)
    letters = "abcdefghijklmnop"

    calls = taken(*(call(code=a, method=a, service=a, trace_id="x" * 999) for a in letters), top=200)
    errors = taken(*(line(level="error", event=f"{a} failed") for a in letters), top=200)
    life = Summary(Wanted())
    life.take(line(state=a, event="state changed") for a in letters)

    assert {row["method"]: row["calls"] for row in calls["methods"]}[OTHERS] == 11
    assert calls["services"][OTHERS] == 11
    assert (calls["top_errors"][0]["event"], calls["top_errors"][0]["count"]) == (OTHERS, 11)
    assert len(calls["slowest"][0]["trace_id"]) == logs_summary.NAME_CHARACTERS_MAX
    assert (len(errors["patterns"]), errors["more"]["lines_without_pattern"]) == (5, 11)
    assert len(life.transitions.ordered()) == 5


def test_tables_are_cut_at_top() -> None:
    """What `--top` leaves out is told."""
    found = taken(*(line(level="error", event=f"{a} failed") for a in "abc"), *(call(method=a) for a in "abc"), top=1)

    assert {key: len(found[key]) for key in ("patterns", "methods", "top_errors")} == dict.fromkeys(
        ("patterns", "methods", "top_errors"), 1
    )
    assert (found["more"]["patterns"], found["more"]["methods"], found["more"]["top_errors"]) == (2, 2, 2)


def test_lines_are_chosen() -> None:
    """By time, service and method; what was left out is counted."""
    lines = [
        line(timestamp="2026-11-30T11:00:00Z"),
        call(),
        call(service="backup"),
        call(method="x.SchemaService/GetSchemas"),
    ]
    noon = seconds_of(NOON)

    assert taken(*lines, since=noon)["lines"]["outside_time"] == 1
    assert taken(*lines, until=seconds_of("2026-11-30T11:30:00Z"))["lines"]["outside_time"] == 3
    assert taken(*lines, services=frozenset({"backup"}))["lines"]["other_service_or_method"] == 3
    for name in ("GetSchema", "SchemaService/GetSchema", METHOD):
        assert taken(*lines, methods=(name,))["calls"]["count"] == 2


def test_life_is_told_in_order() -> None:
    """Changes of state as they came; a step of the shutdown only when it went wrong."""
    found = taken(
        line(event="state changed", before="STARTING", state="SERVING"),
        line(event="shutdown begins", cause="SIGTERM"),
        line(event="shutdown step", step="close redis", outcome="done"),
        line(event="shutdown step", step="close database", outcome="timeout", level="error"),
    )

    assert [(step["event"], step["detail"]) for step in found["transitions"]] == [
        ("state changed", "before=STARTING state=SERVING"),
        ("shutdown begins", "cause=SIGTERM"),
        ("shutdown step", "step=close database outcome=timeout"),
    ]


class Context:
    """Stands for the servicer context of a call."""

    def peer(self) -> str:
        """A caller's address."""
        return "ipv4:127.0.0.1:4000"


def written(count: int, *, every: bool) -> list[str]:
    """Lines about calls, written by the kernel itself, in a context of its own: no test after it is in a call."""
    return contextvars.copy_context().run(partial(_written, count, every=every))


def _written(count: int, *, every: bool) -> list[str]:
    stream = io.StringIO()
    logs = Logs("info", as_json=True, service="registry", clock=SystemClock(), stream=stream)
    telemetry = Telemetry(logs.logger, metrics=True, sampling_rate=0)
    telemetry.set_call_log(every=every, slow_seconds=0.5)
    for number in range(count):
        call = Call(METHOD if number % 3 else "other", {}, 0.0)  # It began when the clock did: it is slow.
        set_current_call(call)
        telemetry.end(telemetry.calls.method(call.method), call, Context(), code=number % 5 == 4)
    logs.close()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("every", [True, False])
def test_the_quick_way_says_what_the_long_way_says(monkeypatch: pytest.MonkeyPatch, *, every: bool) -> None:
    """Lines of calls that went well are counted without being decoded, with the same result; they are those that the
    kernel writes.
    """
    lines = written(60, every=every)
    quick = Summary(Wanted())
    counted = 0
    for text in lines:
        if quick._quick(text):
            counted += 1
        else:
            quick.take([text])
    long = Summary(Wanted())
    monkeypatch.setattr(long, "_quick", lambda _: False)
    long.take(lines)

    assert document(quick, []) == document(long, [])
    assert counted == 46  # Of 60 the twelve that failed and the first one of either method are decoded.


def test_the_quick_way_takes_no_other_line() -> None:
    """A line that says more, or something else, is decoded."""
    [text] = written(1, every=True)
    summary = Summary(Wanted())
    summary.take([text])

    assert summary._quick(text)
    for other in (
        text.replace('"OK"', '"NOT_FOUND"'),
        text.replace("}", ', "method": "x"}'),
        text.replace("2026-", "2026-99"),
        text.replace("T", "T99:", 1),
        text.replace("info", "warning"),
        text + " ",
        f" {text}",
        text.replace('"other"', '"unknown"'),
    ):
        assert not summary._quick(other), other


def test_a_timeline_widens() -> None:
    """Buckets grow until they are few, and no count is lost."""
    timeline = Timeline()
    for second in range(0, 400_000, 7):
        timeline.add(1_796_000_000 + second, 1, second % 2, 0)

    assert len(timeline._buckets) <= BUCKETS_MAX
    shown = timeline.shown()
    assert len(shown) <= SHOWN_MAX
    assert sum(counts[0] for _, counts in shown) == len(range(0, 400_000, 7))
    assert timeline.width_seconds == 10_800


@given(st.lists(st.floats(min_value=0, max_value=2.5e11), min_size=1, max_size=30))
def test_a_timeline_spans_anything(moments: list[float]) -> None:
    """From 1970 to the end of the calendar there are never more than SHOWN_MAX buckets."""
    timeline = Timeline()
    for moment in moments:
        timeline.add(moment, 1, 0, 0)

    shown = timeline.shown()

    assert len(shown) <= SHOWN_MAX
    assert sum(counts[0] for _, counts in shown) == len(moments)


def test_widths_divide_each_other() -> None:
    """Buckets can be joined without being split."""
    widths = logs_timeline.WIDTHS

    assert all(wide % narrow == 0 for narrow, wide in itertools.pairwise(widths))


@given(st.lists(st.integers(0, 20)), st.integers(1, 5))
def test_the_largest_stay(keys: list[int], limit: int) -> None:
    """The largest keys, of equal ones those that came first."""
    largest: Largest[int] = Largest(limit)
    for place, key in enumerate(keys):
        if largest.worth(key):
            largest.add(key, place)

    ordered = sorted(range(len(keys)), key=lambda place: (-keys[place], place))
    assert largest.ordered() == ordered[:limit]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30m", "2026-11-30T11:30:00.000Z"),
        ("2h", "2026-11-30T10:00:00.000Z"),
        ("7d", "2026-11-23T12:00:00.000Z"),
        ("2026-11-30", "2026-11-30T00:00:00.000Z"),
        ("2026-11-30T10:00", "2026-11-30T10:00:00.000Z"),
        ("2026-11-30T10:00:00+02:00", "2026-11-30T08:00:00.000Z"),
    ],
)
def test_times_that_people_type(text: str, moment: str) -> None:
    """A length of time is that long ago; an ISO time is UTC unless it says otherwise."""
    noon = seconds_of(NOON)
    assert noon is not None

    assert iso(given_moment(text, "--since", noon)) == moment


@pytest.mark.parametrize("text", ["yesterday", "2", "h", "-2h", "2026-13-01", "1.5h", "99999999h"])
def test_other_times_are_usage(text: str) -> None:
    """The message says what can be written."""
    with pytest.raises(UsageFault, match=r"--since: .* is no time"):
        given_moment(text, "--since", 0)


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0us"), (0.04567, "46us"), (0.9999, "1.00ms"), (1, "1.00ms"), (9.996, "10.0ms"), (99.96, "100ms"),
        (999.6, "1.00s"), (1500, "1.50s"), (119_000, "119s"), (600_000, "10m"), (7_200_000, "2h"), (1e12, "277,778h"),
    ],
)  # fmt: skip
def test_durations_for_people(milliseconds: float, shown: str) -> None:
    """Three digits and a unit."""
    assert duration(milliseconds) == shown
