"""Streams whose caller does not read: they hold neither a handler for long, nor the stop of the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.kernel import interceptors
from llm_schema_registry.kernel.settings import FeatureSettings
from tests.fix_echo import EchoCode, EchoServer, local_settings, open_channel, serve_echo
from tests.fix_faults import eventually

ANSWERS = 200
"""Of 200 kB each: far more than flow control lets into a connection that nobody reads."""
GRACE_SECONDS = 30
PAUSE_SECONDS = 0.01
LONG_SECONDS = 0.95 * ANSWERS * PAUSE_SECONDS
"""What all pauses of a slow reader take, and many times what one answer waits for."""


@pytest.fixture
async def server(echo_code: EchoCode) -> AsyncIterator[EchoServer]:
    """EchoService whose answers are as large on the wire as in memory."""
    async with serve_echo(echo_code, local_settings(features=FeatureSettings(compression_enabled=False))) as server:
        yield server


async def unread(server: EchoServer, channel: grpc.aio.Channel) -> Any:
    """An open stream of large answers of which the caller has read one."""

    async def requests() -> AsyncIterator[Any]:
        for _ in range(ANSWERS):
            yield server.request(action="large")

    call = server.stub(channel).Chat(requests())
    await call.read()
    return call


async def test_a_stream_that_nobody_reads_ends(server: EchoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit the handler is gone; a caller that reads on gets what was sent, then why it ended."""
    monkeypatch.setattr(interceptors, "WRITE_SECONDS_MAX", 0.5)
    async with open_channel(server.ports.grpc) as channel:
        call = await unread(server, channel)

        await eventually(lambda: idle(server))
        taken, error = await rest(call)

    assert type(error) is errors.WatcherTooSlow
    assert "resume from what was read last" in error.message
    assert "token" not in error.message
    assert 0 < taken < ANSWERS - 1
    assert server.lifecycle.abandoned == 1


async def test_a_slow_reader_is_not_ended(server: EchoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for one message: a caller that takes longer for all of them gets all of them."""
    monkeypatch.setattr(interceptors, "WRITE_SECONDS_MAX", LONG_SECONDS)
    async with open_channel(server.ports.grpc) as channel:
        began = time.monotonic()
        call = await unread(server, channel)
        taken = 1
        while await call.read() is not grpc.aio.EOF:
            taken += 1
            await asyncio.sleep(PAUSE_SECONDS)

    assert taken == ANSWERS
    assert time.monotonic() - began > LONG_SECONDS


async def test_a_stream_that_nobody_reads_does_not_hold_up_the_stop(server: EchoServer) -> None:
    """A drain ends it without waiting for its caller, and the stop does not use up its grace for it."""
    async with open_channel(server.ports.grpc) as channel:
        call = await unread(server, channel)
        await stuck(server)
        began = time.monotonic()

        server.lifecycle.drain()
        await server.server.stop(GRACE_SECONDS)
        took = time.monotonic() - began
        _, error = await rest(call)

    assert took < GRACE_SECONDS / 2
    assert server.lifecycle.in_flight == 0
    assert error.code in {errors.Code.UNAVAILABLE, errors.Code.CANCELLED}


async def rest(call: Any) -> tuple[int, errors.Error]:
    """How many more messages a stream has, and the error it ends with."""
    taken = 0
    try:
        while await call.read() is not grpc.aio.EOF:
            taken += 1
    except grpc.aio.AioRpcError as failed:
        return taken, from_rpc_error(failed)
    raise AssertionError("the stream ended without an error")


async def stuck(server: EchoServer) -> None:
    """Waits until the one open stream has been sending the same message for a while."""
    (stream,) = server.lifecycle._streams
    looks = 0

    async def still_sending() -> bool:
        nonlocal looks
        looks = 0 if stream._waiting else looks + 1
        return looks == 10

    await eventually(still_sending)


async def idle(server: EchoServer) -> bool:
    """Whether no call is in work."""
    return server.lifecycle.in_flight == 0
