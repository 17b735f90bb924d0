"""The small HTTP server: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest

from llm_schema_registry.kernel import http
from llm_schema_registry.kernel.http import HttpServer, Page
from tests.fix_echo_process import http_get


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def exception(self, event: str, **_: Any) -> None:
        """Remembers the event."""
        self.events.append(event)


def fail() -> Page:
    """A page that breaks."""
    raise RuntimeError("a defect")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Port of a server with a page that works and one that does not."""
    pages = {"/page": lambda: Page(HTTPStatus.OK, "text/plain", b"hello"), "/broken": fail}
    server = HttpServer(pages, Log())
    yield await server.start("127.0.0.1", 0)
    await server.close()


@pytest.mark.parametrize("path", ["/page", "/page?x=1"])
async def test_get_answers_with_the_page(port: int, path: str) -> None:
    """GET gives the body, its length and its type; the query does not matter."""
    status, headers, body = await http_get(port, path)

    assert (status, body) == (200, b"hello")
    assert (headers["content-length"], headers["content-type"]) == ("5", "text/plain")


async def test_head_has_no_body(port: int) -> None:
    """HEAD gives the same head without the body."""
    status, headers, body = await http_get(port, "", b"HEAD /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert (status, headers["content-length"], body) == (200, "5", b"")


async def test_connections_are_kept(port: int) -> None:
    """Several requests pass through one connection, also when sent at once."""
    request = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request * 2 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 3
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 500),
        (b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /page HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /page HTTP/1.1\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET  /page HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x/page HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /page HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_other_requests(port: int, request_bytes: bytes, status: int) -> None:
    """What is no proper request gets its status, and the connection ends."""
    assert (await http_get(port, "", request_bytes))[0] == status


async def test_slow_heads_are_cut(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose head does not arrive in time ends its connection."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.02)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /page HT")

    with contextlib.suppress(ConnectionError):  # A reset is as good as a clean end.
        assert not await reader.read(1)
    writer.close()


async def test_connections_are_limited(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a connection is told so and closed."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 1)
    _, held = await asyncio.open_connection("127.0.0.1", port)
    held.write(b"GET /page HTTP/1.1\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    assert b"503 Service Unavailable" in await reader.read()
    held.close()
    writer.close()
