"""The echo service as a process of its own: started, watched through its log lines, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from llm_schema_registry.control.v1 import control_service_pb2_grpc
from llm_schema_registry.kernel.settings_sources import variable
from tests.fix_echo import CONTROL_TOKEN, ROOT, EchoCode
from tests.fix_tls import Authority

WAIT_SECONDS = 60
LOOPBACK = "127.0.0.1"
ADMIN = "spiffe://example.org/admin"
"""Name of the client certificate that steers a process of `mtls`."""
LOCAL = {
    "server.local_mode": "true",
    "server.grpc_port": "0",
    "server.http_port": "0",
    "server.drain_seconds": "0",
    "control.token": CONTROL_TOKEN,
}
"""Options of a process of the tests; those of a test are added."""


def mtls(authority: Authority) -> dict[str, str]:
    """Options of a process outside local mode that a client certificate steers."""
    leaf = authority.issue("server")
    return {
        "server.local_mode": "false",
        "server.listen_address": LOOPBACK,
        "server.health_port": "0",
        "server.tls_enabled": "true",
        "server.tls_cert_path": str(leaf.cert),
        "server.tls_key_path": str(leaf.key),
        "security.mtls_enabled": "true",
        "security.ca_cert_path": str(authority.cert),
        "control.client_names": ADMIN,
    }


class EchoProcess:
    """A running process. Its log lines are read as they come, so that a test can wait for one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []

    @property
    def events(self) -> list[str]:
        """Names of the events logged so far."""
        return [line["event"] for line in self.lines]

    async def line(self, event: str) -> dict[str, Any]:
        """The next log line with the event, read from here on. Fails when the process ends before."""
        while True:
            line = await self._next()
            assert line is not None, f"the process ended without {event!r}: {''.join(self.text)}"
            if line.get("event") == event:
                return line

    async def end(self) -> int:
        """Reads the rest of the log and returns the exit status."""
        while await self._next() is not None:
            pass
        return await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)

    async def _next(self) -> dict[str, Any] | None:
        assert self.process.stderr is not None
        raw = await asyncio.wait_for(self.process.stderr.readline(), WAIT_SECONDS)
        if not raw:
            return None
        self.text.append(raw.decode())
        try:
            line: dict[str, Any] = json.loads(raw)
        except ValueError:
            return {}
        self.lines.append(line)
        return line


Spawn = Callable[..., Awaitable[EchoProcess]]


@pytest.fixture
async def spawn(echo_code: EchoCode, tmp_path: Path) -> AsyncIterator[Spawn]:
    """Starts the process with options (`{"server.grpc_port": "0"}`), other variables, and arguments."""
    running: list[EchoProcess] = []

    async def start(
        options: dict[str, str] | None = None, *arguments: str, variables: dict[str, str] | None = None
    ) -> EchoProcess:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMA_REGISTRY")}
        given = {variable(option): value for option, value in {**LOCAL, **(options or {})}.items()}
        path = os.pathsep.join([str(echo_code.folder), str(ROOT), str(ROOT / "shared")])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.kernel.echo_process",
            *arguments,
            cwd=tmp_path,
            env={**kept, **given, "PYTHONPATH": path, **(variables or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(EchoProcess(process))
        return running[-1]

    yield start
    for echo in running:
        if echo.process.returncode is None:
            echo.process.kill()
        await echo.process.communicate()


def control_stub(channel: grpc.aio.Channel) -> Any:
    """ControlService on a channel."""
    return control_service_pb2_grpc.ControlServiceStub(channel)


BEARER = (("authorization", f"Bearer {CONTROL_TOKEN}"),)
"""Metadata with the control token."""


async def http_get(port: int, path: str, request: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET; or of whatever bytes are sent instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request or f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        raw = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), headers, body


async def refuses(address: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except ConnectionError:
        return True
    writer.close()
    return False
