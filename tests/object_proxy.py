"""An HTTP proxy in front of a server that speaks S3, which does to requests and answers what a test plans."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

PIECE_BYTES = 64 * 1024
FOR_EVERY = "every operation"


@dataclass(slots=True)
class Message:
    """A request or an answer. first: its first line. headers: names as they came."""

    first: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def encoded(self, body: bytes | None = None) -> bytes:
        """As it travels; with another body, the announced length stays."""
        lines = [self.first, *(name + b": " + value for name, value in self.headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body if body is None else body)


@dataclass(frozen=True, slots=True)
class Status:
    """The store answers with an error, and does nothing."""

    status: int
    code: str


@dataclass(frozen=True, slots=True)
class ErrorIn200:
    """The store answers 200 with an error in the body; done: after it did what was asked."""

    code: str = "InternalError"
    done: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection breaks before the request reaches the store."""


@dataclass(frozen=True, slots=True)
class LoseReply:
    """The store does what was asked; the connection breaks before its answer arrives."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The request waits for `go` before the store gets it."""

    go: asyncio.Event


@dataclass(frozen=True, slots=True)
class Delay:
    """The request waits for so long before the store gets it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BlackHole:
    """The request is never answered."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """The connection breaks after so many bytes of the answer's body."""

    count: int


@dataclass(frozen=True, slots=True)
class FlipReply:
    """One bit of the answer's body is turned."""

    offset: int


@dataclass(frozen=True, slots=True)
class FlipRequest:
    """One bit of the request's body is turned."""

    offset: int


@dataclass(frozen=True, slots=True)
class WholeObject:
    """The answer is 200 with the whole object, whatever range was asked for."""


@dataclass(frozen=True, slots=True)
class EditReply:
    """The answer is changed by a function."""

    edit: Callable[[Message], None]


Fault = (
    Status
    | ErrorIn200
    | Reset
    | LoseReply
    | Hold
    | Delay
    | BlackHole
    | Truncate
    | FlipReply
    | FlipRequest
    | WholeObject
    | EditReply
)


@dataclass(slots=True)
class FaultProxy:
    """The proxy: `async with proxy:` runs it at `proxy.endpoint`.

    requests: how often each operation was asked for, by its S3 name. held: requests that a Hold keeps now.
    key_ids: by which access keys they were signed.
    bytes_per_second: of each request's body that are taken; None for all.
    """

    upstream: str
    bytes_per_second: int | None = None
    requests: Counter[str] = field(default_factory=Counter)
    key_ids: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    held: int = 0
    endpoint: str = ""
    _plan: defaultdict[str, deque[Fault | None]] = field(default_factory=lambda: defaultdict(deque))
    _always: dict[str, Callable[[], Fault | None]] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def plan(self, operation: str, *faults: Fault | None) -> None:
        """Faults that meet the next requests of an operation, one each, in order; None spares one."""
        self._plan[operation].extend(faults)

    def always(self, operation: str, fault: Callable[[], Fault | None] | None) -> None:
        """What meets the requests of an operation, or FOR_EVERY one, that no plan is left for; None ends it."""
        if fault is None:
            self._always.pop(operation, None)
        else:
            self._always[operation] = fault

    async def until(self, fact: Callable[[Self], bool]) -> None:
        """Returns when a fact about `requests` or `held` is true."""
        while not fact(self):
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def spent(self) -> bool:
        """Whether every planned fault was met."""
        return not any(self._plan.values())

    def _fault(self, operation: str) -> Fault | None:
        if self._plan[operation]:
            return self._plan[operation].popleft()
        always = self._always.get(operation) or self._always.get(FOR_EVERY)
        return always() if always is not None else None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serves one request; whether the connection stays."""
        request = await _head(reader)
        if (request.header(b"expect") or b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await self._body(reader, int(request.header(b"content-length") or 0))
        operation = operation_of(request)
        self.requests[operation] += 1
        signature = (request.header(b"authorization") or b"").decode("ascii")
        self.key_ids[operation].append(signature.partition("Credential=")[2].partition("/")[0])
        self._tell()
        fault = self._fault(operation)
        match fault:
            case Reset():
                return False
            case BlackHole():
                await reader.read(1)
                return False
            case Hold(go):
                self.held += 1
                self._tell()
                await go.wait()
                self.held -= 1
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Status(status, code):
                writer.write(_error(status, code, operation))
                return True
            case ErrorIn200(code, done=False):
                writer.write(_error(200, code, operation))
                return True
            case FlipRequest(offset):
                request.body = _flipped(request.body, offset)
            case WholeObject():
                request.headers = [pair for pair in request.headers if pair[0].lower() != b"range"]
        answer = await self._forward(request, operation)
        return await self._answer(writer, answer, fault, operation)

    async def _answer(self, writer: asyncio.StreamWriter, answer: Message, fault: Fault | None, operation: str) -> bool:
        body = answer.body
        match fault:
            case LoseReply():
                return False
            case ErrorIn200(code):
                writer.write(_error(200, code, operation))
                return True
            case Truncate(count):
                writer.write(answer.encoded(body[:count]))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return False
            case FlipReply(offset):
                body = _flipped(body, offset)
            case EditReply(edit):
                edit(answer)
                body = answer.body
        writer.write(answer.encoded(body))
        await writer.drain()
        return True

    async def _body(self, reader: asyncio.StreamReader, size: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            piece = await reader.read(min(PIECE_BYTES, size - len(pieces)))
            if not piece:
                raise asyncio.IncompleteReadError(bytes(pieces), size)
            pieces += piece
            if self.bytes_per_second is not None:
                await asyncio.sleep(len(piece) / self.bytes_per_second)
        return bytes(pieces)

    async def _forward(self, request: Message, operation: str) -> Message:
        url = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            kept = [pair for pair in request.headers if pair[0].lower() not in {b"expect", b"connection"}]
            writer.write(Message(request.first, [*kept, (b"Connection", b"close")], request.body).encoded())
            await writer.drain()
            answer = await _head(reader)
            if not operation.startswith("Head"):
                answer.body = await _answer_body(reader, answer)
            return answer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def operation_of(request: Message) -> str:
    """The S3 name of what a request asks for."""
    method, target, _ = request.first.decode("ascii").split(" ")
    url = urlsplit(target)
    asked = parse_qs(url.query, keep_blank_values=True)
    inside = url.path.strip("/").count("/") > 0
    names = {
        ("PUT", "partNumber"): "UploadPart",
        ("PUT", "retention"): "PutObjectRetention",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
        ("GET", "uploadId"): "ListParts",
        ("GET", "uploads"): "ListMultipartUploads",
        ("GET", "list-type"): "ListObjectsV2",
        ("GET", "object-lock"): "GetObjectLockConfiguration",
    }
    for (verb, parameter), name in names.items():
        if verb == method and parameter in asked:
            return name
    return f"{method.capitalize()}{'Object' if inside else 'Bucket'}"


async def _head(reader: asyncio.StreamReader) -> Message:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    pairs = [line.split(b":", 1) for line in lines[1:] if line]
    return Message(lines[0], [(name, value.strip()) for name, value in pairs])


async def _answer_body(reader: asyncio.StreamReader, answer: Message) -> bytes:
    """The body; one that came in chunks is announced by its length from here on."""
    if (length := answer.header(b"content-length")) is not None:
        return await reader.readexactly(int(length))
    if (answer.header(b"transfer-encoding") or b"").lower() != b"chunked":
        return b""
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    answer.headers = [pair for pair in answer.headers if pair[0].lower() != b"transfer-encoding"]
    answer.headers.append((b"Content-Length", str(len(body)).encode()))
    return bytes(body)


def _error(status: int, code: str, operation: str) -> bytes:
    text = f"<Error><Code>{code}</Code><Message>planned by a test</Message><RequestId>0</RequestId></Error>"
    body = b"" if operation.startswith("Head") else text.encode()
    headers = [(b"Content-Type", b"application/xml"), (b"Content-Length", str(len(body)).encode())]
    return Message(f"HTTP/1.1 {status} Planned".encode(), headers, body).encoded()


def _flipped(body: bytes, offset: int) -> bytes:
    turned = bytearray(body)
    turned[offset] ^= 1
    return bytes(turned)
