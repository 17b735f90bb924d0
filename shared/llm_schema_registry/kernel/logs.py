"""Log lines as JSON or text, with the ids of the call they belong to, written by a thread of their own.

The event loop only puts a dictionary into a bounded queue; when the queue is full, lines are dropped and their number
is logged. The standard library's loggers are led into the same lines. Credentials never reach a line.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from llm_schema_registry.kernel.calls import current_call
from llm_schema_registry.kernel.clock import Clock

QUEUE_LINES_MAX = 10_000
CLOSE_SECONDS = 2.0
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
SECRET_KEYS = frozenset({"authorization", "cookie", "password", "secret", "token", "api_key", "private_key"})
"""Keys whose values are never written, wherever they stand in a line."""

STARS = "********"
"""What is written in their place."""

_PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types that hold nothing else: most of a line, and passed by without a call each."""
_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False)

Event = MutableMapping[str, Any]


class Logs:
    """The log of one process.

    `logger` is for injection; `install` also leads structlog's and the standard library's global loggers here, which
    only the process itself does.
    """

    def __init__(
        self,
        level: str,
        *,
        as_json: bool,
        service: str,
        clock: Clock,
        stream: TextIO | None = None,
    ) -> None:
        self._least = LEVELS[level]
        self._service = service
        self._clock = clock
        self._writer = _Writer(stream or sys.stderr, _json_line if as_json else _text_line)
        self.logger: Any = structlog.wrap_logger(
            None, processors=[self._process], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    @property
    def dropped(self) -> int:
        """Lines that the full queue has refused."""
        return self._writer.dropped

    def set_level(self, level: str) -> None:
        """Changes the least level that is written, from the next line on."""
        self._least = LEVELS[level]

    def install(self) -> None:
        """Leads the global loggers here. Their handlers until now are replaced."""
        structlog.configure(
            processors=[self._process],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=structlog.PrintLoggerFactory(),
        )
        root = logging.getLogger()
        root.handlers = [_Bridge(self)]
        root.setLevel(logging.INFO)

    def emit(self, level: str, event: str, **fields: Any) -> None:
        """Writes one line."""
        if LEVELS[level] >= self._least:
            self._put(level, {"event": event, **fields})

    def flush(self) -> None:
        """Waits until every line so far is written, for at most CLOSE_SECONDS. Blocks: not for the event loop."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is queued, for at most CLOSE_SECONDS; later lines are written at once. May be repeated."""
        self._writer.close()

    def _process(self, _: object, level: str, event: Event) -> str:
        level = "error" if level == "exception" else level
        if LEVELS.get(level, logging.INFO) >= self._least:
            self._put(level, event)
        raise structlog.DropEvent

    def _put(self, level: str, event: Event) -> None:
        line: dict[str, Any] = {
            "timestamp": self._clock.now().isoformat(timespec="milliseconds"),
            "level": level,
            "event": "",
            "service": self._service,
        }
        call = current_call()
        if call is not None:
            line.update(trace_id=call.trace_id, request_id=call.request_id, method=call.method)
        trouble = event.pop("exc_info", None)
        line.update(event)
        if trouble:
            line["exception"] = _traceback(trouble)
        self._writer.put(_redacted(line))


class _Writer:
    """The queue and the thread that empties it."""

    def __init__(self, stream: TextIO, render: Callable[[dict[str, Any]], str]) -> None:
        self._stream = stream
        self._render = render
        self._lines: queue.Queue[dict[str, Any] | threading.Event | None] = queue.Queue(QUEUE_LINES_MAX)
        self._told = 0
        self._closed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: dict[str, Any]) -> None:
        if self._closed:
            self._write(line)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def flush(self) -> None:
        written = threading.Event()
        try:
            self._lines.put(written, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        written.wait(CLOSE_SECONDS)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._lines.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return  # The stream is stuck: nothing more can be done for these lines.
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        last: dict[str, Any] = {}
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._write(line)
            last = line
            if self._lines.empty():
                self._tell_lost(last)
        self._tell_lost(last)

    def _tell_lost(self, last: dict[str, Any]) -> None:
        """Writes how many lines were dropped since that was told. last: the line before."""
        if self.dropped > self._told:
            lost, self._told = self.dropped - self._told, self.dropped
            self._write({**_heading(last), "level": "warning", "event": "log lines dropped", "lines": lost})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._stream.write(self._render(line) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += 1  # The reader of the stream has gone; the process goes on without it.


class _Bridge(logging.Handler):
    """Leads the standard library's log records into our lines."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record. Never raises."""
        level = record.levelname.lower()
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        self._logs.emit(level if level in LEVELS else "info", text, logger=record.name, exc_info=record.exc_info)


def _heading(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in ("timestamp", "level", "service") if key in line}


def _traceback(trouble: Any) -> str:
    if isinstance(trouble, BaseException):
        return "".join(traceback.format_exception(trouble)).rstrip()
    if isinstance(trouble, tuple):
        return "".join(traceback.format_exception(*trouble)).rstrip()
    return "".join(traceback.format_exception(*sys.exc_info())).rstrip()


def _redacted(value: Any) -> Any:
    """The value with secrets as stars, to the depth in which people nest log fields."""
    if isinstance(value, dict):
        return {
            key: STARS if str(key).lower() in SECRET_KEYS else inner if type(inner) in _PLAIN else _redacted(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(inner) for inner in value]
    return value


def _json_line(line: dict[str, Any]) -> str:
    return _ENCODER.encode(line)


def _text_line(line: dict[str, Any]) -> str:
    """`time level event key=value …`, the exception below and indented: only a log line begins at the margin."""
    rest = dict(line)
    head = [str(rest.pop("timestamp", "")), f"{rest.pop('level', ''):<8}", _visible(str(rest.pop("event", "")))]
    below = rest.pop("exception", None)
    rest.pop("service", None)
    fields = [f"{_visible(str(key))}={_text_value(value)}" for key, value in rest.items()]
    text = " ".join([*head, *fields])
    return "\n  ".join([text, *map(_visible, str(below).split("\n"))]) if below else text


def _text_value(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not set(text) & {" ", '"'}:
        return text
    return _visible(json.dumps(text, ensure_ascii=False))


def _visible(text: str) -> str:
    """The text with everything escaped that a terminal would obey or not show: line breaks, colours, directions."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
