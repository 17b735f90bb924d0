"""All four kinds of RPC over a real channel: what the interceptors do around a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.kernel.identity import Caller, ClientCertificate, Role
from llm_schema_registry.kernel.lifecycle import State
from llm_schema_registry.kernel.settings import FeatureSettings, PerformanceSettings
from tests.fix_echo import EchoCode, EchoServer, local_settings, open_channel, serve_echo

Send = Callable[[Any, Any], Awaitable[list[str]]]


async def unary(stub: Any, request: Any) -> list[str]:
    """The texts of a unary call."""
    return [(await stub.Echo(request)).text]


async def client_stream(stub: Any, request: Any) -> list[str]:
    """The texts of a call that streams requests."""
    return [(await stub.Collect(iter([request]))).text]


async def server_stream(stub: Any, request: Any) -> list[str]:
    """The texts of a call that streams answers."""
    call = stub.Repeat(request)
    try:
        return [answer.text async for answer in call][1:]
    finally:
        call.cancel()  # grpc.aio does not at every point at which its reader can be cancelled.


async def both_streams(stub: Any, request: Any) -> list[str]:
    """The texts of a call that streams both ways."""
    return [answer.text async for answer in stub.Chat(iter([request]))]


every_kind = pytest.mark.parametrize("send", [unary, client_stream, server_stream, both_streams])
streams = pytest.mark.parametrize("send", [client_stream, server_stream, both_streams])


async def failure(call: Awaitable[Any]) -> errors.Error:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


@every_kind
async def test_answers_arrive(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """What the handler answers is what the caller receives."""
    assert await send(echo_stub, echo.request("hello")) == ["hello"]


@every_kind
async def test_encoded_answers_pass_through(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """A handler may answer with the bytes of its message."""
    assert await send(echo_stub, echo.request("hello", "encoded")) == ["hello"]


@every_kind
async def test_errors_keep_their_class(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """An error of the family arrives as its class with message, metadata, violations and retry time."""
    error = await failure(send(echo_stub, echo.request("hello", "not-found")))

    assert type(error) is errors.SubjectNotFound
    assert (error.message, error.metadata) == ("No such subject.", {"subject": "orders"})
    assert error.violations == (errors.Violation("text", "must name a subject"),)
    assert error.retry_seconds == 1.5


@every_kind
@pytest.mark.parametrize("action", ["defect", "timeout"])
async def test_unexpected_exceptions_stay_inside(echo: EchoServer, echo_stub: Any, send: Send, action: str) -> None:
    """A caller sees an id and nothing of the exception; the log has the exception under that id, with the trace."""
    error = await failure(send(echo_stub, echo.request("hello", action)))

    assert type(error) is errors.Internal
    assert "secret" not in str(error)
    [line] = [line for line in echo.lines() if line.get("error_id") == error.metadata["error_id"]]
    assert "a secret of the driver" in line["exception"]
    assert len(line["trace_id"]) == 32


class Viewers:
    """Takes everybody for a viewer."""

    def authenticate(self, context: Any, metadata: Mapping[str, str | bytes]) -> Caller:  # noqa: ARG002 - the protocol
        """The one viewer."""
        return Caller("viewer", Role.VIEWER)


async def write(stub: Any, request: Any) -> list[str]:
    """The texts of a unary call for editors."""
    return [(await stub.Write(request)).text]


@every_kind
async def test_strangers_are_refused(echo_code: EchoCode, send: Send) -> None:
    """Without a valid credential a call fails with CREDENTIAL_INVALID, and no handler sees it."""
    async with (
        serve_echo(echo_code, authenticator=ClientCertificate()) as server,
        open_channel(server.ports.grpc) as channel,
    ):
        error = await failure(send(server.stub(channel), server.request("hello", "hang")))

    assert type(error) is errors.CredentialInvalid
    assert not server.handlers.hanging.is_set()


@pytest.mark.parametrize("send", [write, client_stream, server_stream, both_streams])
async def test_role_of_the_policy_is_required(echo_code: EchoCode, send: Send) -> None:
    """A caller below the method's role fails with ROLE_REQUIRED, and no handler sees the call."""
    async with serve_echo(echo_code, authenticator=Viewers()) as server, open_channel(server.ports.grpc) as channel:
        stub = server.stub(channel)
        error = await failure(send(stub, server.request("hello", "hang")))

        assert (await stub.Echo(server.request("hello"))).caller == "viewer"
    assert type(error) is errors.RoleRequired
    assert error.metadata == {"role": "VIEWER", "required_role": "EDITOR"}
    assert not server.handlers.hanging.is_set()


@every_kind
async def test_too_large_requests_are_refused(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """11 MiB against the default of 10 MiB fail with the limit in the metadata."""
    error = await failure(send(echo_stub, echo.request("x" * 11 * 1024 * 1024)))

    assert type(error) is errors.MessageTooLarge
    assert error.metadata["limit_bytes"] == "10485760"


@pytest.mark.option("performance.max_request_body_bytes")
@every_kind
async def test_request_limit_is_an_option(echo_code: EchoCode, send: Send) -> None:
    """performance.max_request_body_bytes moves the limit."""
    settings = local_settings(performance=PerformanceSettings(max_request_body_bytes=2048))
    async with serve_echo(echo_code, settings) as server, open_channel(server.ports.grpc) as channel:
        stub = server.stub(channel)

        assert await send(stub, server.request("x" * 2000)) == ["x" * 2000]
        assert type(await failure(send(stub, server.request("x" * 2048)))) is errors.MessageTooLarge


async def test_far_too_large_requests_decode_to_the_same_error(echo: EchoServer, echo_stub: Any) -> None:
    """Beyond the engine's own limit the same class comes out, without metadata."""
    assert type(await failure(unary(echo_stub, echo.request("x" * 20 * 1024 * 1024)))) is errors.MessageTooLarge


def raw_calls(channel: grpc.aio.Channel) -> dict[str, Callable[[bytes], Awaitable[Any]]]:
    """The four methods on bytes."""

    async def drained(call: Any) -> list[bytes]:
        return [answer async for answer in call]

    path = "/echo.v1.EchoService/"
    bare: Any = channel
    return {
        "Echo": bare.unary_unary(path + "Echo"),
        "Collect": lambda raw: bare.stream_unary(path + "Collect")(iter([raw])),
        "Repeat": lambda raw: drained(bare.unary_stream(path + "Repeat")(raw)),
        "Chat": lambda raw: drained(bare.stream_stream(path + "Chat")(iter([raw]))),
    }


@pytest.mark.parametrize("method", ["Echo", "Collect", "Repeat", "Chat"])
@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"\x0a\x02\xff\xfe", "text"),
        (b"\x1a\x04\x0a\x02\xff\xfe", "inner.name"),
        (b"\x0a\x7f", "request"),
        (b"\xff" * 20, "request"),
    ],
)
async def test_malformed_requests_name_the_field(echo: EchoServer, method: str, raw: bytes, field: str) -> None:
    """Bytes that are no message, or text that is not UTF-8, are the caller's fault, and the field is named."""
    async with open_channel(echo.ports.grpc) as channel:
        error = await failure(raw_calls(channel)[method](raw))

    assert type(error) is errors.InvalidField
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize("path", ["/echo.v1.EchoService/Nothing", "/no.Service/Method"])
async def test_unknown_methods_are_refused(echo: EchoServer, path: str) -> None:
    """A method that the server lacks fails with METHOD_UNKNOWN and counts as `other`."""
    async with open_channel(echo.ports.grpc) as channel:
        error = await failure(channel.unary_unary(path)(b""))  # type: ignore[arg-type]

    assert type(error) is errors.MethodUnknown
    assert echo.telemetry.calls.method("other").started == 1


async def test_own_aborts_pass_through(echo: EchoServer, echo_stub: Any) -> None:
    """A handler that aborts with a status of its own is not interfered with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(echo_stub, echo.request("", "abort"))

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "aborted by hand")


async def test_policy_deadline_bounds_the_work(echo: EchoServer, echo_stub: Any) -> None:
    """A caller without a deadline gets the policy's; the handler is cancelled when it is over."""
    error = await failure(echo_stub.Write(echo.request("", "hang")))

    assert type(error) is errors.Deadline
    assert echo.handlers.cancelled.is_set()


async def test_callers_deadline_keeps_time_for_the_answer(echo: EchoServer, echo_stub: Any) -> None:
    """The work gets the caller's deadline less 20 ms, and our error arrives before the caller gives up."""
    answer = await echo_stub.Echo(echo.request(), timeout=8)
    rounded_up = 0.010  # gRPC sends timeouts of more than a second in hundredths.
    assert 7 < answer.remaining_seconds < 8 + rounded_up - 0.020

    failures = [await failure(echo_stub.Echo(echo.request("", "hang"), timeout=0.3)) for _ in range(5)]
    assert {type(error) for error in failures} == {errors.Deadline}
    # On a machine that stalls for 20 ms the caller may give up first, but not every time.
    assert any("did not fit" in error.message for error in failures)


class WithDeadline:
    """A stub whose calls all have a deadline."""

    def __init__(self, stub: Any, seconds: float) -> None:
        self._stub = stub
        self._seconds = seconds

    def __getattr__(self, method: str) -> Callable[[Any], Any]:
        return partial(getattr(self._stub, method), timeout=self._seconds)


@every_kind
async def test_deadline_of_every_kind_is_kept(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """Work of any kind is cancelled before the caller's deadline, and the server says so before the caller gives up."""
    hurried = WithDeadline(echo_stub, 0.3)
    failures = [await failure(send(hurried, echo.request("", "hang"))) for _ in range(5)]

    assert {type(error) for error in failures} == {errors.Deadline}
    # On a machine that stalls for 20 ms the caller may give up first, but not every time.
    assert any("did not fit" in error.message for error in failures)
    assert echo.handlers.cancelled.is_set()
    assert await echo.lifecycle.wait_idle(10)


@pytest.mark.option("server.request_timeout_seconds")
async def test_request_timeout_caps_the_callers_deadline(echo_code: EchoCode) -> None:
    """server.request_timeout_seconds bounds a call whatever its caller and its policy allow."""
    server_settings = local_settings().server.model_copy(update={"request_timeout_seconds": 0.1})
    async with (
        serve_echo(echo_code, local_settings(server=server_settings)) as server,
        open_channel(server.ports.grpc) as channel,
    ):
        error = await failure(server.stub(channel).Echo(server.request("", "hang"), timeout=60))

        assert type(error) is errors.Deadline


async def test_streams_without_deadline_are_unbounded(echo: EchoServer, echo_stub: Any) -> None:
    """A stream whose policy has no deadline ends with its caller only."""
    call = echo_stub.Chat()
    await call.write(echo.request("one"))
    answer = await call.read()
    call.cancel()

    assert answer.remaining_seconds == 1000


@every_kind
async def test_cancelled_calls_cancel_their_handler(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """A caller that goes away cancels the handler; the call is counted out."""
    task = asyncio.ensure_future(send(echo_stub, echo.request("", "hang")))
    await echo.handlers.hanging.wait()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(echo.handlers.cancelled.wait(), 10)

    assert await echo.lifecycle.wait_idle(10)


@every_kind
@pytest.mark.parametrize("mode", [None, State.MAINTENANCE])
async def test_states_that_refuse(echo_code: EchoCode, send: Send, mode: State | None) -> None:
    """While STARTING and in MAINTENANCE calls fail with NOT_SERVING and may be repeated."""
    async with serve_echo(echo_code, mode=mode) as server, open_channel(server.ports.grpc) as channel:
        error = await failure(send(server.stub(channel), server.request("hello")))

    assert type(error) is errors.NotServing
    assert error.retry_seconds is not None


async def test_read_only_refuses_writes(echo_code: EchoCode) -> None:
    """In READ_ONLY a write fails with READ_ONLY, a read is answered."""
    async with (
        serve_echo(echo_code, mode=State.READ_ONLY) as server,
        open_channel(server.ports.grpc) as channel,
    ):
        stub = server.stub(channel)

        assert await unary(stub, server.request("hello")) == ["hello"]
        assert type(await failure(stub.Write(server.request("hello")))) is errors.ReadOnly


@streams
async def test_drain_ends_open_streams(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """A drain ends a stream that waits for its handler, with a status that says: try again elsewhere."""
    task = asyncio.create_task(failure(send(echo_stub, echo.request("hello", "hang"))))
    await echo.handlers.hanging.wait()

    echo.lifecycle.drain()
    error = await task

    assert type(error) is errors.NotServing
    assert error.retry_seconds is not None
    assert await echo.lifecycle.wait_idle(10)
    assert echo.handlers.cancelled.is_set()


async def test_draining_process_answers_unary_calls(echo: EchoServer, echo_stub: Any) -> None:
    """While draining, unary calls are answered as before and new streams are refused."""
    echo.lifecycle.drain()

    assert await unary(echo_stub, echo.request("hello")) == ["hello"]
    assert type(await failure(server_stream(echo_stub, echo.request("hello")))) is errors.NotServing


async def test_drain_waits_for_unary_calls(echo: EchoServer, echo_stub: Any) -> None:
    """A unary call in flight ends in its own time while the process drains."""
    task = asyncio.create_task(unary(echo_stub, echo.request("hello", "hang")))
    await echo.handlers.hanging.wait()
    echo.lifecycle.drain()

    assert echo.lifecycle.in_flight == 1
    assert not await echo.lifecycle.wait_idle(0)
    echo.handlers.release.set()
    assert await task == ["hello"]
    assert await echo.lifecycle.wait_idle(10)


async def test_ids_are_taken_over(echo: EchoServer, echo_stub: Any) -> None:
    """Trace and request ids of the caller are those of the call and of its log lines."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"), ("x-request-id", "order-17"))
    answer = await echo_stub.Echo(echo.request(), metadata=metadata)
    assert (answer.trace_id, answer.request_id) == (trace, "order-17")

    await failure(echo_stub.Echo(echo.request("", "not-found"), metadata=metadata))
    [line] = [line for line in echo.lines() if line["event"] == "call"]
    assert (line["trace_id"], line["request_id"], line["reason"]) == (trace, "order-17", "SUBJECT_NOT_FOUND")
    assert line["method"] == "echo.v1.EchoService/Echo"


@pytest.mark.parametrize("header", ["", "garbage", f"00-{'0' * 32}-b7ad6b7169203331-01", "00-ff-ff-01"])
async def test_invalid_trace_headers_are_replaced(echo: EchoServer, echo_stub: Any, header: str) -> None:
    """A traceparent that the standard forbids counts as none: the call gets a trace id of its own."""
    answer = await echo_stub.Echo(echo.request(), metadata=(("traceparent", header),))

    assert len(answer.trace_id) == 32
    assert int(answer.trace_id, 16)


async def test_credentials_are_never_logged(echo: EchoServer, echo_stub: Any) -> None:
    """The authorization header reaches no log line, also not that of a failed call."""
    metadata = (("authorization", "Bearer this-is-secret"),)
    for action in ("not-found", "defect"):
        await failure(echo_stub.Echo(echo.request("", action), metadata=metadata))

    assert echo.lines()
    assert "this-is-secret" not in echo.output.getvalue()


@every_kind
async def test_calls_are_counted(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """Every kind of call is counted in and out, with its status and the sizes of its messages."""
    await send(echo_stub, echo.request("hello"))
    await failure(send(echo_stub, echo.request("hello", "not-found")))

    metrics = {metric.name: metric for metric in echo.telemetry.collect()}
    durations: Any = metrics["grpc.server.call.duration"].points
    received: Any = metrics["grpc.server.call.rcvd_total_compressed_message_size"].points
    assert {point.attributes["grpc.status"]: sum(point.counts) for point in durations} == {"OK": 1, "NOT_FOUND": 1}
    assert {point.total > 0 for point in received} == {True}
    in_flight: Any = metrics["grpc.server.call.in_flight"].points
    assert {point.value for point in in_flight} == {0}


@pytest.mark.option("features.compression_enabled")
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("send", [unary, server_stream])
async def test_large_answers_are_compressed(echo_code: EchoCode, send: Send, *, enabled: bool) -> None:
    """features.compression_enabled decides whether a large answer crosses the wire compressed."""
    settings = local_settings(features=FeatureSettings(compression_enabled=enabled))
    async with (
        serve_echo(echo_code, settings) as server,
        counting_proxy(server.ports.grpc) as (port, received),
        open_channel(port) as channel,
    ):
        texts = await send(server.stub(channel), server.request("", "large"))

        assert texts == ["x" * 200_000]
        assert (sum(received) < 20_000) is enabled


ALGORITHMS = "grpc.compression_enabled_algorithms_bitset"
IDENTITY, DEFLATE = 1, 2
"""Source: grpc/impl/compression_types.h, grpc_compression_algorithm, as bits."""


@pytest.mark.parametrize(("accepted", "compressed"), [(IDENTITY, False), (IDENTITY | DEFLATE, True)])
@every_kind
async def test_answers_are_compressed_as_the_caller_accepts(
    echo_code: EchoCode, send: Send, accepted: int, *, compressed: bool
) -> None:
    """A caller without gzip gets every answer all the same: in another compression, or in none."""
    async with (
        serve_echo(echo_code) as server,
        counting_proxy(server.ports.grpc) as (port, received),
        open_channel(port, **{ALGORITHMS: accepted}) as channel,
    ):
        small = await send(server.stub(channel), server.request("small"))
        large = await send(server.stub(channel), server.request("", "large"))

        assert set(small) == {"small"}
        assert large[-1] == "x" * 200_000
        assert (sum(received) < 20_000) is compressed


async def test_many_violations_fit_into_the_trailer(echo_code: EchoCode) -> None:
    """A hundred violations are cut to what a client accepts in its metadata, and the number left out is told."""
    violations = [errors.Violation(f"field_{number}", "must be short " * 10) for number in range(100)]

    async with serve_echo(echo_code) as server, open_channel(server.ports.grpc) as channel:

        async def refuse(request: Any, context: Any) -> Any:
            raise errors.InvalidField("Everything is wrong. " * 100, violations=violations)

        server.handlers._answer = refuse  # type: ignore[method-assign]
        error = await failure(unary(server.stub(channel), server.request("hello")))

    assert type(error) is errors.InvalidField
    assert len(error.violations) + int(error.metadata["violations_omitted"]) == 100


@pytest.mark.parametrize("message", ["Größe ✗ " * 2000, "x" * 20_000, "line\nbreak"])
async def test_any_message_fits_into_the_trailer(echo_code: EchoCode, message: str) -> None:
    """Long messages and messages beyond ASCII arrive as their class."""
    async with serve_echo(echo_code) as server, open_channel(server.ports.grpc) as channel:

        async def refuse(request: Any, context: Any) -> Any:
            raise errors.InvalidField(message, metadata={"value": message})

        server.handlers._answer = refuse  # type: ignore[method-assign]
        error = await failure(unary(server.stub(channel), server.request("hello")))

    assert type(error) is errors.InvalidField
    assert error.message[:500] == message[:500]


@asynccontextmanager
async def counting_proxy(port: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A TCP proxy to a port: its own port, and the sizes of what came back through it."""
    received: list[int] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sizes: list[int] | None) -> None:
        try:
            while data := await reader.read(65_536):
                if sizes is not None:
                    sizes.append(len(data))
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(pump(reader, upstream_writer, None)))
        tasks.add(asyncio.create_task(pump(upstream_reader, writer, received)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], received
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*tasks)
