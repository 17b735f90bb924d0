"""What the engine does on the wire for the options of performance, seen from a bare socket.

Frames: RFC 9113, sections 3.4, 4.1, 6.5, 6.7, 6.8.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_schema_registry.kernel.settings import PerformanceSettings
from tests.fix_echo import EchoCode, EchoServer, local_settings, open_channel, serve_echo

WAIT_SECONDS = 30
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MAX_CONCURRENT_STREAMS = 3
ENHANCE_YOUR_CALM = 11
PINGS = 50
"""More than enough: two bad pings are forgiven, and whatever the server sends meanwhile forgives earlier ones."""


class Http2Peer:
    """Just enough of an HTTP/2 client: it acknowledges settings, answers no ping, and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: int, payload: bytes = b"", flags: int = 0) -> None:
        """Sends a frame on stream zero."""
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4)
        self._writer.write(head + payload)

    async def frame(self, kind: int) -> bytes:
        """Payload of the next frame of a kind that is no acknowledgement."""
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == SETTINGS and head[4] != ACK:
                self.send(SETTINGS, flags=ACK)
            if head[3] == kind and head[4] != ACK:
                return payload

    async def ping_answered(self) -> bool:
        """Whether the next ping acknowledgement comes before a GOAWAY."""
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == GOAWAY:
                assert int.from_bytes(payload[4:8]) == ENHANCE_YOUR_CALM
                return False
            if head[3] == PING and head[4] == ACK:
                return True

    async def closed(self) -> None:
        """Waits until the server has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass


@asynccontextmanager
async def http2_peer(port: int) -> AsyncIterator[Http2Peer]:
    """A connection that has sent its preface."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            peer = Http2Peer(reader, writer)
            peer.send(SETTINGS)
            yield peer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def served(code: EchoCode, performance: PerformanceSettings) -> AsyncIterator[EchoServer]:
    """EchoService with options of performance."""
    async with serve_echo(code, local_settings(performance=performance)) as server:
        yield server


@pytest.mark.option("performance.max_concurrent_streams")
async def test_max_concurrent_streams_is_announced(echo_code: EchoCode) -> None:
    """The server's settings frame carries the limit of streams."""
    async with (
        served(echo_code, PerformanceSettings(max_concurrent_streams=17)) as server,
        http2_peer(server.ports.grpc) as peer,
    ):
        settings = dict(struct.iter_unpack(">HI", await peer.frame(SETTINGS)))

    assert settings[MAX_CONCURRENT_STREAMS] == 17


@pytest.mark.option("performance.keepalive_seconds", "performance.keepalive_timeout_seconds")
async def test_idle_connections_are_pinged_and_closed(echo_code: EchoCode) -> None:
    """A silent connection gets a ping, and is closed when the answer does not come."""
    performance = PerformanceSettings(keepalive_seconds=1, keepalive_timeout_seconds=0.2)
    async with served(echo_code, performance) as server, http2_peer(server.ports.grpc) as peer:
        await peer.frame(PING)
        await peer.closed()


@pytest.mark.option("performance.min_ping_interval_seconds")
@pytest.mark.parametrize(("interval", "tolerated"), [(3600, False), (0, True)])
async def test_too_many_pings_are_refused(echo_code: EchoCode, interval: float, *, tolerated: bool) -> None:
    """A client that pings more often than allowed is sent away."""
    async with (
        served(echo_code, PerformanceSettings(min_ping_interval_seconds=interval)) as server,
        http2_peer(server.ports.grpc) as peer,
    ):
        await peer.frame(SETTINGS)
        outcomes = []
        for number in range(PINGS):
            peer.send(PING, struct.pack(">Q", number))
            outcomes.append(await peer.ping_answered())
            if not outcomes[-1]:
                break

        assert all(outcomes) is tolerated


@pytest.mark.option("performance.max_connection_age_seconds", "performance.max_connection_age_grace_seconds")
async def test_old_connections_are_closed_gently(echo_code: EchoCode) -> None:
    """A connection that reached its age gets a GOAWAY; a stream on it is cut when the grace is over."""
    performance = PerformanceSettings(max_connection_age_seconds=0.5, max_connection_age_grace_seconds=1)
    async with served(echo_code, performance) as server:
        async with http2_peer(server.ports.grpc) as peer:
            await peer.frame(GOAWAY)
        async with open_channel(server.ports.grpc) as channel:
            call = server.stub(channel).Chat()
            await call.write(server.request("one"))
            assert (await call.read()).text == "one"
            assert (await asyncio.wait_for(call.code(), WAIT_SECONDS)).name in {"UNAVAILABLE", "CANCELLED"}
