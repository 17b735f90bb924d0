"""Patterns of log lines: what is masked, what is one place in the code, and that nothing breaks it."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.cli.logs_patterns import TEXT_CHARACTERS_MAX, described, fingerprint, masked, place


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", ""),
        ("repeat later", "repeat later"),
        ("failed after 0.5 sec, 1,234 times", "failed after <n> sec, <n> times"),
        ("subject 'orders' has no version 7", "subject <text> has no version <n>"),
        ('no "orders", no `ORDERS`', "no <text>, no <text>"),
        (r"subject 'o\'brien' is gone", "subject <text> is gone"),
        ("it can't be, isn't it", "it can't be, isn't it"),
        ("id 0af7651916cd43dd8448eb211c80319c", "id <id>"),
        ("6f1ed002-ab5c-4a5e-8c7d-7f6b1f3a2c11 is taken", "<id> is taken"),
        ("backup 01HZXK3V9Q8T2M4N6P7R is locked", "backup <id> is locked"),
        ("object at 0x7fd2ff0c67d0", "object at <id>"),
        ("the facade of a decade", "the facade of a decade"),
        ("at 2026-11-30T12:00:00.123+00:00 or 2026-11-30", "at <time> or <time>"),
        ("since 12:30:59.5 o'clock", "since <time> o'clock"),
        ("connect to 127.0.0.1:5432", "connect to <address>"),
        ("peer ipv4:10.0.0.17:40112", "peer ipv<n>:<address>"),
        ("peer [2001:db8::1]:443 and ::1", "peer <address> and <address>"),
        ("peer fe80:0:0:0:1:2:3:4", "peer <address>"),
        ("cannot reach https://minio.example:9000/bucket?x=1, repeat", "cannot reach <url>, repeat"),
        ("no such file: /var/lib/registry/key.pem", "no such file: <path>"),
        ("registry.v1.SchemaService/GetSchema is slow", "registry.v<n>.SchemaService/GetSchema is slow"),
        ("first line\n\tsecond  line", "first line second line"),
    ],
)
def test_what_changes_is_masked(text: str, pattern: str) -> None:
    """Numbers, ids, quoted values, addresses, paths and times are replaced by what they are; words stay."""
    assert masked(text) == pattern


@given(st.text() | st.text(alphabet="0123456789abcdef-:./'\"\\`[]Tx Zé", max_size=80))
def test_masking_never_fails_and_leaves_no_digit(text: str) -> None:
    """Whatever a text holds, its pattern is on one line, of bounded length, and without decimal digits."""
    pattern = masked(text)

    assert not any(char in "0123456789" for char in pattern)
    assert len(pattern.splitlines()) <= 1
    assert len(pattern) <= TEXT_CHARACTERS_MAX * 4


@given(st.binary(max_size=300))
def test_any_bytes_have_a_fingerprint(data: bytes) -> None:
    """Bytes in any encoding, lone surrogates too, have a pattern, a place and a fingerprint."""
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1"), data.decode("utf-16-le", "ignore")):
        place(text)
        parts, told = described({"event": text, "message": text, "exception": text, "reason": text})

        assert len(fingerprint(parts, told)) == 8


@given(st.integers(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.uuids())
def test_lines_of_one_statement_are_alike(first: int, second: int, seconds: float, identifier: object) -> None:
    """The same sentence with other values is the same pattern."""

    def said(number: int, text: object) -> str:
        return masked(f"'{text}' took {abs(number)} of {abs(seconds):.3f} s for {text}")

    assert said(first, identifier) == said(second, "6f1ed002-ab5c-4a5e-8c7d-7f6b1f3a2c11")


def raised(text: str) -> str:
    """A traceback as the log has it, from here."""
    try:
        int(text)
    except ValueError as error:
        return "".join(traceback.format_exception(error)).rstrip()
    raise AssertionError


def chained(text: str) -> str:
    """The same, raised again as another error."""
    try:
        raise_again(text)
    except LookupError as error:
        return "".join(traceback.format_exception(error)).rstrip()
    raise AssertionError


def raise_again(text: str) -> None:
    """Raises a LookupError for what is no number."""
    try:
        int(text)
    except ValueError as error:
        raise LookupError("Traceback of\nseveral lines: 17") from error


def test_a_place_is_class_file_and_function() -> None:
    """What was raised where; not the text, not the line."""
    assert place(raised("one")) == place(raised("another")) == "ValueError in test_logs_patterns.py, raised"
    assert place(chained("x")) == "LookupError in test_logs_patterns.py, raise_again"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/app/services/registry/usecases/register.py", "services/registry/usecases/register.py"),
        ("/venv/lib/python3.11/site-packages/llm_schema_registry/kernel/logs.py", "llm_schema_registry/kernel/logs.py"),
        ("/venv/lib/python3.11/site-packages/psycopg/cursor.py", "psycopg/cursor.py"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "asyncio/tasks.py"),
        ("/home/somebody/thing.py", "thing.py"),
    ],
)
def test_paths_are_those_of_every_machine(path: str, shown: str) -> None:
    """Where the code was installed makes no other place."""
    text = f'Traceback (most recent call last):\n  File "{path}", line 7, in work\n    go()\nx.y.Broken: no'

    assert place(text) == f"x.y.Broken in {shown}, work"


def test_the_innermost_frame_of_ours_counts() -> None:
    """An error deep in a library is told by where we called it."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "/app/services/registry/app.py", line 1, in build\n    a()\n'
        '  File "/app/services/registry/store.py", line 2, in read\n    b()\n'
        '  File "/venv/site-packages/psycopg/cursor.py", line 3, in execute\n    c()\n'
        "psycopg.Error: gone"
    )

    assert place(text) == "psycopg.Error in services/registry/store.py, read"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("RuntimeError: no frames", "RuntimeError"), ("", ""), ("   17 things\nmore", "<n> things")],
)
def test_a_text_that_is_no_traceback(text: str, shown: str) -> None:
    """Without frames the class, or the first words, are the place."""
    assert place(text) == shown


def test_reason_and_event_tell_patterns_apart() -> None:
    """The same message under another event or reason is another pattern."""
    fields = {"event": "call", "message": "repeat later", "reason": "DATABASE_UNAVAILABLE", "code": "UNAVAILABLE"}
    others = [{**fields, "event": "page failed"}, {**fields, "reason": "OTHER"}, {**fields, "message": "repeat"}]

    found = {fingerprint(*described(one)) for one in [fields, *others, {**fields, "trace_id": "x"}]}

    assert len(found) == 4
