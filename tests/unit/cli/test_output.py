"""What the program writes, without a service: escapes, tables, errors, JSON."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry import errors
from llm_schema_registry.cli import exit_codes, output
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.output import Output, OutputFormat, printable


def written(encoding: str = "utf-8") -> io.TextIOWrapper:
    """A stream that keeps what is written."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def text_of(stream: io.TextIOWrapper) -> str:
    """What was written to the stream."""
    stream.flush()
    stream.seek(0)
    return stream.read()


@given(st.text(max_size=50))
@settings(max_examples=200)
def test_no_control_character_gets_through(text: str) -> None:
    """Whatever a text holds, only printable characters are written, and printable texts stay as they are."""
    shown = printable(text)

    assert shown.isprintable()
    assert not text.isprintable() or shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb", r"a\nb"),
        ("\u202e", r"\u202e"),
        ("\U000e0001", r"\U000e0001"),
        ("é 秋", "é 秋"),
    ],
)
def test_escapes_name_the_character(text: str, shown: str) -> None:
    """Control and format characters are written by their numbers, letters of any script as they are."""
    assert printable(text) == shown


def test_rows_are_lines_in_columns() -> None:
    """A piped table has one line a row, aligned, dashes for what is empty, nothing behind the last cell."""
    with redirect_stdout(written()) as stream:
        Output(OutputFormat.TABLE).table(("name", "count"), [("a", 1), ("long name", ""), ("c\nd", 22)])

    assert text_of(stream) == "NAME       COUNT\na          1\nlong name  -\nc\\nd       22\n"


def test_rows_beyond_those_measured_are_whole() -> None:
    """A row that comes late and is wider than those that were measured is written whole."""
    rows = [("a", "b")] * (output.ROWS_MEASURED_MAX + 5) + [("wide" * 10, "b")]

    with redirect_stdout(written()) as stream:
        Output(OutputFormat.TABLE).table(("name", "value"), rows)

    lines = text_of(stream).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[-1] == "wide" * 10 + "  b"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(40, 120))
@settings(max_examples=40)
def test_a_drawn_table_loses_no_character(lengths: list[int], columns: int) -> None:
    """Whatever the widths of the columns and of the terminal, every cell is there, folded, in lines that fit."""
    letters = [[chr(0x100 + 60 * index + place) for place in range(length)] for index, length in enumerate(lengths)]
    terminal = written()
    terminal.isatty = lambda: True  # type: ignore[method-assign]

    with mock.patch.dict(os.environ, {"COLUMNS": str(columns), "TERM": "xterm"}), redirect_stdout(terminal):
        head = [f"c{index}" for index in range(len(lengths))]
        Output(OutputFormat.TABLE).table(head, [["".join(cell) for cell in letters]])

    shown = re.sub(r"\x1b\[[0-9;]*m", "", text_of(terminal))
    assert max(map(len, shown.splitlines())) <= columns
    for cell in letters:
        assert [char for char in shown if char in cell] == cell


def test_a_table_without_rows_has_its_head() -> None:
    """An empty table is its head."""
    with redirect_stdout(written()) as stream:
        Output(OutputFormat.TABLE).table(("name", "value"), [])

    assert text_of(stream) == "NAME  VALUE\n"


def test_a_locale_that_cannot_say_it_gets_escapes() -> None:
    """People's output is in the stream's encoding; what it lacks is an escape, never an error."""
    with redirect_stdout(written("ascii")) as stream:
        Output(OutputFormat.TABLE).record([("name", "é")])

    assert text_of(stream) == "name  \\xe9\n"


def test_raw_text_is_left_alone() -> None:
    """Away from a terminal a text is written byte for byte."""
    with redirect_stdout(written()) as stream:
        Output(OutputFormat.TABLE).raw("a\x1b\r\né")
        buffer = sys.stdout.buffer

    assert isinstance(buffer, io.BytesIO)
    assert buffer.getvalue() == "a\x1b\r\né".encode()
    assert stream.encoding == "utf-8"


def test_an_error_lists_the_fields_at_fault() -> None:
    """People read a paragraph, each field that it does not speak of already, and the reason."""
    violations = [errors.Violation("subject", "must not be empty"), errors.Violation("format", "is needed")]
    error = errors.InvalidField("The request cannot be read: is needed.", violations=violations)

    with redirect_stderr(written()) as stream:
        Output(OutputFormat.TABLE).error(error)

    assert text_of(stream) == (
        "Error: The request cannot be read: is needed.\n  subject: must not be empty\nReason: INVALID_FIELD\n"
    )


def test_an_error_as_json_has_everything() -> None:
    """Programs get reason, code, message, metadata and violations, by these names."""
    error = errors.MessageTooLarge(
        "Too large.", metadata={"limit": 5}, violations=[errors.Violation("text", "too long")]
    )

    with redirect_stderr(written()) as stream:
        Output(OutputFormat.JSON).error(error)

    assert json.loads(text_of(stream)) == {
        "error": {
            "reason": "MESSAGE_TOO_LARGE",
            "code": "RESOURCE_EXHAUSTED",
            "message": "Too large.",
            "metadata": {"limit": "5"},
            "violations": [{"field": "text", "description": "too long"}],
        }
    }


@pytest.mark.parametrize("error", list(errors.family()), ids=lambda error: error.reason)
def test_exit_status_follows_the_code(error: type[errors.Error]) -> None:
    """UNAVAILABLE and DEADLINE_EXCEEDED may succeed later: 3. Everything else is a refusal: 1."""
    later = error.code in {errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED}

    assert exit_codes.of(error("")) is (ExitCode.UNREACHABLE if later else ExitCode.REFUSED)


def test_exit_status_is_what_scripts_know() -> None:
    """The numbers never change."""
    assert {code.name: code.value for code in ExitCode} == {
        "FINE": 0,
        "REFUSED": 1,
        "USAGE": 2,
        "UNREACHABLE": 3,
        "INTERRUPTED": 130,
        "PIPE_CLOSED": 141,
    }
