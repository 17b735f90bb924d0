"""Log lines: their form, their level, their secrets, their limits."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from llm_schema_registry.kernel import logs as logs_module
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.logs import Logs


class Output(io.StringIO):
    """A stream that a test can hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        """Writes once the stream is open."""
        opened = self.open
        self.reached.set()
        opened.wait()
        return super().write(text)


def started(output: Output, *, level: str = "info", as_json: bool = True) -> Logs:
    """Logs that write to the output."""
    return Logs(level, as_json=as_json, service="echo", clock=SystemClock(), stream=output)


@pytest.fixture
def output() -> Iterator[Output]:
    """An open stream."""
    stream = Output()
    yield stream
    stream.open.set()


def lines(output: Output) -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_lines_are_json(output: Output) -> None:
    """A line has time, level, service, event and its fields."""
    logs = started(output)
    logs.logger.info("ready", grpc_port=9090, odd=object())
    logs.close()

    [line] = lines(output)
    assert (line["level"], line["service"], line["event"], line["grpc_port"]) == ("info", "echo", "ready", 9090)
    assert line["timestamp"].endswith("+00:00")


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level_can_change(output: Output, level: str, expected: int) -> None:
    """Only lines of the level and above are written, also after a change while running."""
    logs = started(output, level="error")
    logs.set_level(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logs.logger, name)("event")
    logs.close()

    assert len(lines(output)) == expected


def test_exceptions_are_written(output: Output) -> None:
    """The traceback is a field of its own."""
    logs = started(output)
    try:
        raise ValueError("broken")
    except ValueError:
        logs.logger.exception("failed")
    logs.close()

    [line] = lines(output)
    assert line["level"] == "error"
    assert line["exception"].endswith("ValueError: broken")


def test_secrets_are_stars(output: Output) -> None:
    """Values under the names of secrets are never written, also in nested fields and lists."""
    logs = started(output)
    logs.logger.info(
        "x",
        authorization="Bearer hunter2",
        metadata={"Authorization": "hunter2", "a": {"token": "hunter2"}},
        calls=[{"token": "hunter2"}, ({"password": "hunter2"},)],
    )
    logs.close()

    assert "hunter2" not in output.getvalue()


def test_full_queue_drops_and_tells(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is stuck never blocks the caller; the number of lines lost is logged afterwards."""
    monkeypatch.setattr(logs_module, "QUEUE_LINES_MAX", 2)
    output.open.clear()
    logs = started(output)
    logs.logger.info("first")
    output.reached.wait()
    for _ in range(5):
        logs.logger.info("more")
    assert logs.dropped == 3
    output.open.set()
    logs.close()

    assert [line["lines"] for line in lines(output) if "lines" in line] == [3]


def test_lines_that_were_lost_are_told_at_the_end_too(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the end stands in the queue before the last line is written."""
    monkeypatch.setattr(logs_module, "QUEUE_LINES_MAX", 1)
    output.open.clear()
    logs = started(output)
    logs.logger.info("first")
    output.reached.wait()
    for _ in range(3):
        logs.logger.info("last")
    output.reached.clear()
    first, output.open = output.open, threading.Event()
    first.set()
    output.reached.wait()

    end = threading.Thread(target=logs.close)
    end.start()
    while logs._writer._lines.empty():
        time.sleep(0.001)
    output.open.set()
    end.join()

    assert [line["lines"] for line in lines(output) if "lines" in line] == [2]


def test_lines_after_the_end_are_written(output: Output) -> None:
    """What is logged after `close` is not lost."""
    logs = started(output)
    logs.close()
    logs.logger.info("late")

    assert [line["event"] for line in lines(output)] == ["late"]


def test_global_loggers_are_led_here(output: Output) -> None:
    """Lines of the standard library's and of structlog's global loggers come out in the same form."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    logs = started(output)
    try:
        logs.install()
        logging.getLogger("library").warning("from %s", "below")
        structlog.get_logger().info("from above", key=1)
    finally:
        root.handlers, root.level = before
        structlog.reset_defaults()
    logs.close()

    found = lines(output)
    assert [(line["event"], line["level"]) for line in found] == [("from below", "warning"), ("from above", "info")]
    assert found[0]["logger"] == "library"


def test_text_is_for_people(output: Output) -> None:
    """Text lines hold time, level, event and fields, quoted where needed."""
    logs = started(output, as_json=False)
    logs.logger.info("ready", port=1, words="a b")
    logs.close()

    assert output.getvalue().rstrip().endswith('info     ready port=1 words="a b"')


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\n2026-11-23 error    forged", r'"a\n2026-11-23 error    forged"'),
        ("a\rb", r'"a\rb"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("\x9b31mred", r'"\x9b31mred"'),
        ("a\u202eb\u2028c", r'"a\u202eb\u2028c"'),
        ("Größe", "Größe"),
        ('"', r'"\""'),
    ],
)
def test_text_escapes_control_characters(output: Output, value: str, shown: str) -> None:
    """A value cannot begin a line of its own, nor tell a terminal anything; neither can an event."""
    logs = started(output, as_json=False)
    logs.logger.info("call", message=value)
    logs.logger.info(value)
    logs.close()

    first, second = output.getvalue().removesuffix("\n").split("\n")
    assert first.endswith(f" call message={shown}")
    assert second.isprintable()


def test_text_exceptions_stay_below_their_line(output: Output) -> None:
    """A traceback is indented, so that no line of an exception's message looks like a log line."""
    logs = started(output, as_json=False)
    try:
        raise ValueError("broken\n2026-11-23 error    forged\x1b[31m")
    except ValueError:
        logs.logger.exception("failed")
    logs.close()

    head, *below = output.getvalue().removesuffix("\n").split("\n")
    assert head.endswith(" error    failed")
    assert all(line.startswith("  ") and line.isprintable() for line in below)
    assert below[-1] == r"  2026-11-23 error    forged\x1b[31m"
