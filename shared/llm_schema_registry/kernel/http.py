"""A small HTTP/1.1 server for probes and the metrics page: GET and HEAD of fixed paths, nothing else.

None of our dependencies brings an HTTP server, and these few pages do not justify one. Everything is bounded: the size
and the time of a request's head, the number of connections. A request body is never read: its connection is closed.
Source: RFC 9112, sections 2 to 6 and 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

HEAD_BYTES_MAX = 8192
HEAD_SECONDS = 5.0
IDLE_SECONDS = 30.0
CONNECTIONS_MAX = 64
WRITE_SECONDS = 10.0
REQUESTS_MAX = 1000
"""Requests on one connection, after which it is closed."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    keep_alive: bool


class _Refused(Exception):
    """The request cannot be answered; the connection ends with this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HttpServer:
    """Serves the pages, each made anew for every request by its function, which must not block."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]], logger: Any) -> None:
        self._pages = dict(pages)
        self._logger = logger
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, address: str, port: int) -> int:
        """Listens, and returns the bound port. Raises OSError when the address cannot be used."""
        self._server = await asyncio.start_server(self._connected, address, port, limit=HEAD_BYTES_MAX)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stops listening and ends every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                await _send(writer, _error(HTTPStatus.SERVICE_UNAVAILABLE), keep_alive=False)
            else:
                await self._converse(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The peer has gone or is too slow, or the server closes: there is nobody to tell.
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in range(REQUESTS_MAX):
            try:
                request = await _read(reader, IDLE_SECONDS if turn else HEAD_SECONDS)
                page = self._page(request)
            except _Refused as refused:
                await _send(writer, _error(refused.status), keep_alive=False)
                return
            keep_alive = request.keep_alive and turn + 1 < REQUESTS_MAX
            await _send(writer, page, keep_alive=keep_alive, head_only=request.method == "HEAD")
            if not keep_alive:
                return

    def _page(self, request: _Request) -> Page:
        if request.method not in {"GET", "HEAD"}:
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
        make = self._pages.get(request.path)
        if make is None:
            return _error(HTTPStatus.NOT_FOUND)
        try:
            return make()
        except Exception:
            self._logger.exception("page failed", path=request.path)
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _read(reader: asyncio.StreamReader, seconds: float) -> _Request:
    """The next request's head. Raises _Refused when it is no request we answer, EOF when there is none."""
    async with asyncio.timeout(seconds):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    try:
        first, *lines = head[:-4].decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
        headers = dict(_header(line) for line in lines)
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if not target.startswith("/") or (version == "HTTP/1.1" and "host" not in headers):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    asked = headers.get("connection", "").lower()
    keep_alive = asked != "close" if version == "HTTP/1.1" else asked == "keep-alive"
    return _Request(method, target.partition("?")[0], keep_alive and not has_body)


def _header(line: str) -> tuple[str, str]:
    """Name and value of a header line. Raises ValueError for anything else, also for folded lines."""
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError(line)
    return name.lower(), value.strip()


async def _send(writer: asyncio.StreamWriter, page: Page, *, keep_alive: bool, head_only: bool = False) -> None:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n"
    )
    if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
        head += "Allow: GET, HEAD\r\n"
    writer.write(head.encode() + b"\r\n" + (b"" if head_only else page.body))
    async with asyncio.timeout(WRITE_SECONDS):
        await writer.drain()
        if not keep_alive:
            writer.close()
            await writer.wait_closed()


def _error(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())
