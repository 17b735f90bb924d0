"""What the lines of a log say together. Memory does not grow with their number: every table has a named limit, and what
did not fit is counted.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from llm_schema_registry.cli import logs_patterns
from llm_schema_registry.cli.logs_lines import QUICK_CALL, Unreadable, fields_of
from llm_schema_registry.cli.logs_sketch import Sketch
from llm_schema_registry.cli.logs_timeline import Timeline
from llm_schema_registry.cli.logs_times import seconds_of

PATTERNS_MAX = 1_000
"""Patterns that are told apart; lines of further ones are counted together."""
VARIANTS_MAX = 20
"""Texts of one place in the code that are told apart. More are texts that masking does not make alike, and count as
one: otherwise they alone would fill the table."""
TOP_MAX = 1_000
"""Kinds of errors that are told apart."""
METHODS_MAX = 200
SERVICES_MAX = 50
TRANSITIONS_MAX = 200
"""Changes of state that are kept, the newest ones."""
NAME_CHARACTERS_MAX = 160
"""What is kept of a name: of a service, a method, a code, a reason, an id."""
TEXT_CHARACTERS_MAX = 400
"""What is kept of an example."""
MEMORY_PATTERNS_MAX = 4_096
MEMORY_CHARACTERS_MAX = 2_000
"""Texts whose pattern is remembered, and how long they may be: masking costs more than a look into a table."""

MILLISECONDS_MAX = 1e15
"""A duration above is none."""
NUMBERS = frozenset({int, float})

SEVERITIES: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
CALL = "call"
"""The event of a line about a call that ended."""
OK = "OK"
OTHERS = "(others)"
"""Stands for the names beyond a limit."""
LIFE = frozenset(
    {"starting", "ready", "state changed", "shutdown begins", "stopped", "start failed", "forced exit"}
    | {"dependency changed", "control", "log lines dropped"}
)
"""Events of a process's life."""
LIFE_FIELDS = ("before", "state", "status", "dependency", "verb", "cause", "signal", "failed_steps", "lines", "version")
STEP = "shutdown step"
DONE = "done"

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines count, and from which level on a line is an error. Empty or None: all."""

    since: float | None = None
    until: float | None = None
    services: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ()
    level: str = "warning"
    top: int = 10


@dataclass(slots=True)
class Pattern:
    """Lines that are alike. example, trace_id, request_id: of the newest one."""

    id: str
    text: str
    level: str
    count: int = 0
    first: float = math.inf
    last: float = 0.0
    services: set[str] = field(default_factory=set)
    example: str = ""
    trace_id: str = ""
    request_id: str = ""


@dataclass(slots=True)
class MethodCalls:
    """Calls of one method."""

    calls: int = 0
    failed: int = 0
    stream: bool = False
    durations: Sketch = field(default_factory=Sketch)


@dataclass(frozen=True, slots=True)
class SlowCall:
    """A call that took long."""

    milliseconds: float
    seconds: float
    service: str
    method: str
    code: str
    trace_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A step in the life of a process."""

    seconds: float
    service: str
    event: str
    detail: str


class Largest(Generic[V]):
    """The values with the largest keys, at most so many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, V]] = []
        self.seen = 0

    def worth(self, key: float) -> bool:
        """Whether a value with this key would stay."""
        return len(self._heap) < self._limit or key > self._heap[0][0]

    def add(self, key: float, value: V) -> None:
        """Takes a value; the one with the smallest key goes when there are too many, of equal ones the newest."""
        self.seen += 1
        entry = (key, -self.seen, value)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def ordered(self) -> list[V]:
        """The values, largest key first."""
        return [value for _, _, value in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class Summary:
    """Takes lines, and knows afterwards what is in the attributes."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.read = self.blank = self.outside = self.filtered = self.odd_fields = 0
        self.unreadable: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.services: Counter[str] = Counter()
        self.first, self.last = math.inf, 0.0
        self.first_call, self.last_call = math.inf, 0.0
        self.calls = self.failed = self.errors = self.selected_calls = 0
        self.top: Counter[tuple[str, str, str, str]] = Counter()
        self.methods: dict[str, MethodCalls] = {}
        self.patterns = Patterns()
        self.timeline = Timeline()
        self.slowest: Largest[SlowCall] = Largest(wanted.top)
        self.transitions: Largest[Transition] = Largest(TRANSITIONS_MAX)
        self._least = SEVERITIES[wanted.level]
        self._since = -math.inf if wanted.since is None else wanted.since
        self._until = math.inf if wanted.until is None else wanted.until
        self._narrow = bool(wanted.services or wanted.methods)
        self._all_slow = self._narrow or self._least <= SEVERITIES["info"]
        self._second = ""
        self._second_milliseconds = 0

    def take(self, lines: Iterable[str]) -> None:
        """Counts lines. Never raises for what is in them."""
        for line in lines:
            if self._quick(line):
                continue
            found = fields_of(line)
            if isinstance(found, dict):
                self._line(found)
            elif line.strip():
                self.unreadable[str(found)] += 1
            else:
                self.blank += 1

    def take_last(self, line: str) -> None:
        """Counts what stands behind the last line end of a file."""
        if line.startswith("{") and not isinstance(fields_of(line), dict):
            self.unreadable[Unreadable.CUT_OFF] += 1
        elif line:
            self.take([line])

    def _quick(self, line: str) -> bool:
        """Counts a call that went well as `_line` would, without decoding it. False: it is for `_line`."""
        found = None if self._all_slow else QUICK_CALL.fullmatch(line)
        if found is None:
            return False
        second, thousandths, service, trace_id, request_id, name, took, logged = found.groups()
        if second != self._second:
            whole = seconds_of(second)
            if whole is None:
                return False
            self._second, self._second_milliseconds = second, int(whole) * 1_000
        seconds = (self._second_milliseconds + int(thousandths)) / 1_000
        method = self.methods.get(name)
        if method is None or service not in self.services or not self._since <= seconds <= self._until:
            return False
        self.read += 1
        self.levels["info"] += 1
        self.services[service] += 1
        self.calls += 1
        self.selected_calls += logged != "all"
        self.first_call, self.last_call = min(self.first_call, seconds), max(self.last_call, seconds)
        method.calls += 1
        milliseconds = float(took)
        method.durations.add(milliseconds)
        if self.slowest.worth(milliseconds):
            self.slowest.add(milliseconds, SlowCall(milliseconds, seconds, service, name, OK, trace_id, request_id))
        self.timeline.add(seconds, 1, 0, 0)
        return True

    def _line(self, fields: dict[str, Any]) -> None:
        stamp, level, event = fields.get("timestamp"), fields.get("level"), fields.get("event")
        seconds = seconds_of(stamp) if type(stamp) is str else None
        severity = SEVERITIES.get(level) if type(level) is str else None
        if seconds is None or severity is None or type(event) is not str:
            self.unreadable[Unreadable.OTHER_SHAPE] += 1
            return
        self.read += 1
        if not self._since <= seconds <= self._until:
            self.outside += 1
            return
        if self._narrow and not self._asked_for(fields):
            self.filtered += 1
            return
        self.first, self.last = min(self.first, seconds), max(self.last, seconds)
        self.levels[str(level)] += 1
        service: Any = fields.get("service")
        if type(service) is not str or service not in self.services:
            service = limited(self.services, self._name(fields, "service"), SERVICES_MAX)
        self.services[service] += 1
        error = severity >= self._least
        call = failed = False
        if event == CALL:
            call, failed = True, self._call(fields, seconds, service)
        if error:
            self.errors += 1
            self.patterns.add(fields, seconds, service)
        if error and not failed:
            self._count_error(logs_patterns.masked(event), fields, "")
        if call or error:
            self.timeline.add(seconds, call, failed, error)
        if event in LIFE or (event == STEP and fields.get("outcome") != DONE):
            self.transitions.add(seconds, Transition(seconds, service, event, _life_detail(fields)))

    def _call(self, fields: dict[str, Any], seconds: float, service: str) -> bool:
        """Counts a call; whether it failed."""
        name: Any = fields.get("method")
        method = self.methods.get(name) if type(name) is str else None
        if method is None:
            name = limited(self.methods, self._name(fields, "method"), METHODS_MAX)
            method = self.methods.setdefault(name, MethodCalls())
        self.calls += 1
        method.calls += 1
        self.first_call, self.last_call = min(self.first_call, seconds), max(self.last_call, seconds)
        if fields.get("logged") != "all":
            self.selected_calls += 1
        ok = fields.get("code") == OK
        code = OK if ok else self._name(fields, "code")
        milliseconds: Any = fields.get("duration_ms")
        if type(milliseconds) not in NUMBERS or not 0 <= milliseconds <= MILLISECONDS_MAX:
            self.odd_fields += 1
        else:
            method.durations.add(milliseconds)
            if fields.get("stream") is True:
                method.stream = True
            elif self.slowest.worth(milliseconds):
                ids = self._name(fields, "trace_id"), self._name(fields, "request_id")
                self.slowest.add(milliseconds, SlowCall(float(milliseconds), seconds, service, name, code, *ids))
        if ok:
            return False
        self.failed += 1
        method.failed += 1
        self._count_error(CALL, fields, code)
        return True

    def _count_error(self, event: str, fields: dict[str, Any], code: str) -> None:
        key = (event[:NAME_CHARACTERS_MAX], code, self._name(fields, "reason"), self._name(fields, "method"))
        if key not in self.top and len(self.top) >= TOP_MAX:
            key = (OTHERS, "", "", "")
        self.top[key] += 1

    def _asked_for(self, fields: dict[str, Any]) -> bool:
        if self.wanted.services and self._name(fields, "service") not in self.wanted.services:
            return False
        if not self.wanted.methods:
            return True
        method = self._name(fields, "method")
        return any(method == one or method.endswith((f"/{one}", f".{one}")) for one in self.wanted.methods)

    def _name(self, fields: dict[str, Any], key: str) -> str:
        """A field that holds a short text; empty when it is absent, and counted when it is anything else."""
        value = fields.get(key, "")
        if type(value) is not str:
            self.odd_fields += 1
            return ""
        return value if len(value) <= NAME_CHARACTERS_MAX and value.isascii() else kept(value, NAME_CHARACTERS_MAX)


class Patterns:
    """Lines by what they have in common. `beyond` counts lines whose pattern was not kept."""

    def __init__(self) -> None:
        self.beyond = 0
        self._patterns: dict[tuple[tuple[str, ...], str], Pattern] = {}
        self._variants: Counter[tuple[str, ...]] = Counter()
        self._memory: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = {}

    def ordered(self) -> list[Pattern]:
        """The most frequent first, of equal ones the newest."""
        return sorted(self._patterns.values(), key=lambda one: (-one.count, -one.last, one.id))

    def add(self, fields: dict[str, Any], seconds: float, service: str) -> None:
        """Counts a line."""
        pattern = self._pattern(fields)
        if pattern is None:
            self.beyond += 1
            return
        level = fields["level"]
        if SEVERITIES[level] > SEVERITIES[pattern.level]:
            pattern.level = level
        pattern.count += 1
        pattern.services.add(service)
        pattern.first = min(pattern.first, seconds)
        if seconds >= pattern.last:
            pattern.last = seconds
            pattern.example = _example(fields)
            pattern.trace_id, pattern.request_id = (_kept_text(fields, key) for key in ("trace_id", "request_id"))

    def _pattern(self, fields: dict[str, Any]) -> Pattern | None:
        parts, text = self._described(fields)
        found = self._patterns.get((parts, text))
        if found is not None:
            return found
        if text and self._variants[parts] >= VARIANTS_MAX:
            text = f"(more than {VARIANTS_MAX} texts)"
            found = self._patterns.get((parts, text))
            if found is not None:
                return found
        if len(self._patterns) >= PATTERNS_MAX:
            return None
        self._variants[parts] += 1
        event, logger, *told = parts
        shown = ": ".join(filter(None, [logger, event, *told, text]))
        pattern = Pattern(logs_patterns.fingerprint(parts, text), kept(shown, TEXT_CHARACTERS_MAX), fields["level"])
        self._patterns[parts, text] = pattern
        return pattern

    def _described(self, fields: dict[str, Any]) -> tuple[tuple[str, ...], str]:
        key = tuple(
            value
            for name in ("event", "message", "exception", *logs_patterns.SAME_PLACE_FIELDS)
            if type(value := fields.get(name, "")) is str
        )
        if sum(map(len, key)) > MEMORY_CHARACTERS_MAX or len(key) != len(logs_patterns.SAME_PLACE_FIELDS) + 3:
            return logs_patterns.described(fields)
        found = self._memory.get(key)
        if found is None:
            if len(self._memory) >= MEMORY_PATTERNS_MAX:
                self._memory.clear()
            found = self._memory[key] = logs_patterns.described(fields)
        return found


def kept(text: str, characters_max: int) -> str:
    """The text, at most so long, and nothing in it that UTF-8 cannot hold."""
    if len(text) > characters_max:
        text = text[: characters_max - 1] + "…"
    return text.encode("utf-8", "replace").decode()


def limited(known: Mapping[str, object], name: str, names_max: int) -> str:
    """The name, or OTHERS when there are too many to know a new one."""
    return name if name in known or len(known) < names_max else OTHERS


def _kept_text(fields: Mapping[str, Any], key: str, characters_max: int = NAME_CHARACTERS_MAX) -> str:
    value = fields.get(key)
    return kept(value, characters_max) if type(value) is str else ""


def _example(fields: Mapping[str, Any]) -> str:
    """The line's own words: its message, or the last line of its traceback, or its event."""
    exception = fields.get("exception")
    if type(exception) is str and exception.strip():
        return kept(exception[-TEXT_CHARACTERS_MAX:].strip().rpartition("\n")[2], TEXT_CHARACTERS_MAX)
    told = _kept_text(fields, "message", TEXT_CHARACTERS_MAX) or _kept_text(fields, "event", TEXT_CHARACTERS_MAX)
    return " ".join(told.split())


def _life_detail(fields: Mapping[str, Any]) -> str:
    """What is worth knowing of a step in a process's life, as key=value."""
    told = ("step", "outcome", *LIFE_FIELDS, "message", "reason")
    pairs = [(name, fields[name]) for name in told if type(fields.get(name)) in {str, int} and fields[name] != ""]
    return kept(" ".join(f"{name}={value}" for name, value in pairs), TEXT_CHARACTERS_MAX)
