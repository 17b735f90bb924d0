"""Bytes as lines, and what is counted when they are none."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.cli.logs_lines import LINE_BYTES_MAX, Lines, Unreadable, fields_of


def cut(*blocks: bytes) -> tuple[list[str], dict[str, int]]:
    """The lines of blocks, the last one included, and what was unreadable."""
    unreadable: Counter[str] = Counter()
    lines = Lines(unreadable)
    found = [line for block in blocks for line in lines.cut(block)]
    last = lines.end()
    return [*found, last] if last else found, {str(kind): count for kind, count in unreadable.items() if count}


@given(st.lists(st.sampled_from([b"a", b"{}", b"\n", b"\r", b"\0", "é".encode(), b"\xff", b" "])), st.integers(1, 5))
def test_where_blocks_end_does_not_matter(parts: list[bytes], size: int) -> None:
    """However the bytes come in, the lines are the same, and every one is there or counted."""
    data = b"".join(parts)
    blocks = [data[start : start + size] for start in range(0, len(data), size)]

    lines, unreadable = cut(*blocks)

    assert (lines, unreadable) == cut(data)
    readable = [line.decode() for line in data.split(b"\n") if b"\xff" not in line]
    assert [line for line in lines if line] == [line for line in readable if line]
    assert sum(unreadable.values()) == sum(b"\xff" in line for line in data.split(b"\n"))


@pytest.mark.parametrize("block_bytes", [1 << 16, 1 << 20, 1 << 22])
def test_a_line_without_end_is_counted_and_forgotten(block_bytes: int) -> None:
    """Of a line above the limit nothing is kept, wherever it stands; its neighbours are read."""
    data = b"before\n" + b"x" * (5 * LINE_BYTES_MAX) + b"\nafter\n" + b"y" * (LINE_BYTES_MAX + 1)

    lines, unreadable = cut(*(data[start : start + block_bytes] for start in range(0, len(data), block_bytes)))

    assert (lines, unreadable) == (["before", "after"], {"too_long": 2})


def test_memory_does_not_follow_a_line_without_end() -> None:
    """What is kept of an endless line is less than the limit and a block."""
    lines = Lines(Counter())
    for _ in range(100):
        lines.cut(b"x" * (1 << 20))
        assert len(lines._rest) <= LINE_BYTES_MAX


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2026-11-30T12:00:00.000+00:00 info     ready", Unreadable.TEXT),
        ("[]", Unreadable.TEXT),
        ("null", Unreadable.TEXT),
        ("\ufeff{}", Unreadable.TEXT),
        ("\0\0{}", Unreadable.TEXT),
        ('{"event": "call"', Unreadable.BROKEN),
        ('{"event": "ca\0ll"}', Unreadable.BROKEN),
        ('{"event": 1}{"event": 2}', Unreadable.BROKEN),
        ('{"event": ' + "9" * 5_000 + "}", Unreadable.BROKEN),
        ('{"a": ' + "[" * 100_000, Unreadable.BROKEN),
        ('{"a": ' + '{"a": ' * 100_000, Unreadable.BROKEN),
    ],
    ids=str,
)
def test_what_is_no_object_is_told_apart(line: str, kind: Unreadable) -> None:
    """Text, damage, and what would break a decoder have their kinds."""
    assert fields_of(line) is kind


@pytest.mark.parametrize("line", ['{"a": 1, "a": 2}', '{"a": 2}\r', '{"a": 2}  '])
def test_objects_are_read(line: str) -> None:
    """Of a key that comes twice the last value counts; white space behind does not matter."""
    assert fields_of(line) == {"a": 2}
