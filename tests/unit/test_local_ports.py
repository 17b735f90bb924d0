"""Ports of local servers: from the range that was given, and none twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from deploy.local import ports


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, free_port: object) -> range:
    """A range of five ports that this process was not given yet, below those of the tests."""
    del free_port
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setenv(ports.RANGE, "9801-9805")
    return range(9801, 9806)


def test_none_is_given_twice(few: range) -> None:
    """Those of the range on which nothing listens, then an error that names it."""
    with socket.socket() as server:
        server.bind((ports.HOST, few[2]))
        server.listen()
        given = [*_until_refused()]

    assert 0 < len(given) == len(set(given)) <= 4
    assert set(given) <= {*few} - {few[2]}


def _until_refused() -> Iterator[int]:
    for _ in range(10):
        try:
            yield ports.free_port()
        except OSError as refused:
            assert str(refused) == "no free port on 127.0.0.1 from 9801 to 9805"  # noqa: PT017 - ends the loop as well
            return
    raise AssertionError("ten ports out of five")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_parts_do_not_overlap(count: int) -> None:
    """Each has its own, and all are outside the range of outgoing connections."""
    parts = [[int(port) for port in ports.part(number, count).split("-")] for number in range(count)]

    assert parts[0][0] == ports.PORT_MIN
    assert all(before[1] + 1 == after[0] for before, after in pairwise(parts))
    assert all(first < last < 32_768 for first, last in parts)


@pytest.mark.parametrize("text", ["20000", "-", "20000-19999", "0-10", "1-65536", "a-b"])
def test_a_range_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The variable is named, with an example."""
    monkeypatch.setenv(ports.RANGE, text)

    with pytest.raises(OSError, match=r"LLMSR_LOCAL_PORTS is '.*', not a range of ports such as 20000-20999"):
        ports.free_port()
