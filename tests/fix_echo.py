"""A small service of the kernel's tests: its generated code, its handlers, and a server around it."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from llm_schema_registry import errors
from llm_schema_registry.kernel.calls import current_call, current_caller, remaining_seconds
from llm_schema_registry.kernel.certificates import Certificates
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.dependencies import Dependencies
from llm_schema_registry.kernel.health import Health, HealthServicer
from llm_schema_registry.kernel.identity import Authenticator, ClientCertificate, ControlCredential, OpenLocal
from llm_schema_registry.kernel.interceptors import Interceptors, Rules
from llm_schema_registry.kernel.lifecycle import Lifecycle, State
from llm_schema_registry.kernel.logs import Logs
from llm_schema_registry.kernel.server import GrpcPorts, GrpcServer, Servicer
from llm_schema_registry.kernel.settings import ServerSettings, ServiceSettings
from llm_schema_registry.kernel.telemetry import Telemetry

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "tests" / "contract" / "kernel" / "echo.proto"
SERVICE = "echo.v1.EchoService"
CONTROL_TOKEN = "a-token-for-the-tests"


def generate_echo(folder: Path) -> None:
    """Writes echo_pb2 and echo_pb2_grpc into the folder."""
    from grpc_tools import protoc  # noqa: PLC0415 - only here

    arguments = [
        "protoc",
        f"-I{PROTO.parent}",
        f"-I{ROOT / 'protos'}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        PROTO.name,
    ]
    assert protoc.main(arguments) == 0


@dataclass(frozen=True, slots=True)
class EchoCode:
    """The generated modules, and the folder that a child process adds to its path to find them."""

    folder: Path
    pb: Any
    rpc: Any


@pytest.fixture(scope="session")
def echo_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoCode]:
    """Generated code of echo.proto."""
    folder = tmp_path_factory.mktemp("echo")
    generate_echo(folder)
    sys.path.insert(0, str(folder))
    try:
        yield EchoCode(folder, importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc"))
    finally:
        sys.path.remove(str(folder))


@dataclass
class EchoHandlers:
    """The service: answers with the request's text, or does what `action` says. `hanging` is set once a call hangs."""

    pb: Any
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unary."""
        return await self._answer(request, context)

    async def Write(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unary, for editors."""
        return await self._answer(request, context)

    async def Collect(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """All texts in one answer."""
        texts = []
        async for request in requests:
            answer = await self._answer(request, context)
            texts.append(request.text if isinstance(answer, bytes) else answer.text)
        return self.pb.EchoResponse(text=" ".join(texts))

    async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The text, once before and once after the action."""
        yield self.pb.EchoResponse(text=request.text)
        yield await self._answer(request, context)

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """An answer to each text."""
        async for request in requests:
            yield await self._answer(request, context)

    async def _answer(self, request: Any, context: Any) -> Any:
        match request.action:
            case "hang":
                await self._hang()
            case "defect":
                raise RuntimeError("a secret of the driver")
            case "timeout":
                raise TimeoutError("a secret of the driver")
            case "abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "aborted by hand")
            case "not-found":
                violation = errors.Violation("text", "must name a subject")
                raise errors.SubjectNotFound(
                    "No such subject.", metadata={"subject": "orders"}, violations=[violation], retry_seconds=1.5
                )
        text = "x" * 200_000 if request.action == "large" else request.text
        call = current_call()
        assert call is not None
        answer = self.pb.EchoResponse(
            text=text,
            caller=current_caller().name,
            request_id=call.request_id,
            trace_id=call.trace_id,
            remaining_seconds=remaining_seconds(1000),
        )
        return answer.SerializeToString() if request.action == "encoded" else answer

    async def _hang(self) -> None:
        self.hanging.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@dataclass
class EchoServer:
    """A running server of EchoService in this process, and the parts it is made of."""

    code: EchoCode
    handlers: EchoHandlers
    lifecycle: Lifecycle
    dependencies: Dependencies
    telemetry: Telemetry
    server: GrpcServer
    ports: GrpcPorts
    logs: Logs
    output: io.StringIO

    def stub(self, channel: grpc.aio.Channel) -> Any:
        """The service's stub on a channel."""
        return self.code.rpc.EchoServiceStub(channel)

    def request(self, text: str = "", action: str = "") -> Any:
        """A request message."""
        return self.code.pb.EchoRequest(text=text, action=action)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        self.logs.flush()
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def local_settings(**sections: Any) -> ServiceSettings:
    """Settings of local mode with free ports; sections replace the defaults."""
    server = ServerSettings(
        local_mode=True, listen_address="127.0.0.1", grpc_port=0, http_port=0, health_port=0, drain_seconds=0
    )
    return ServiceSettings(**{"server": server, **sections})


@asynccontextmanager
async def serve_echo(
    code: EchoCode,
    settings: ServiceSettings | None = None,
    mode: State | None = State.SERVING,
    authenticator: Authenticator | None = None,
) -> AsyncIterator[EchoServer]:
    """Runs EchoService behind the kernel's server; mode None leaves the process STARTING.

    authenticator: instead of the one that the settings ask for.
    """
    settings = settings or local_settings()
    clock, output, lifecycle = SystemClock(), io.StringIO(), Lifecycle()
    logs = Logs(settings.observability.log_level, as_json=True, service="echo", clock=clock, stream=output)
    dependencies = Dependencies(settings.health, clock, logs.logger)
    telemetry = Telemetry(
        logs.logger,
        metrics=settings.observability.metrics_enabled,
        sampling_rate=settings.observability.trace_sampling_rate,
    )
    telemetry.set_call_log(
        every=settings.observability.log_calls == "all", slow_seconds=settings.observability.slow_call_seconds
    )
    rules = Rules(
        lifecycle=lifecycle,
        authenticator=authenticator or (OpenLocal() if settings.server.local_mode else ClientCertificate()),
        control=ControlCredential(CONTROL_TOKEN, settings.control.client_names),
        request_seconds_max=settings.server.request_timeout_seconds,
        request_bytes_max=settings.performance.max_request_body_bytes,
    )
    handlers = EchoHandlers(code.pb)
    server = GrpcServer(settings, Certificates.of(settings, logs.logger), Interceptors(rules, telemetry))
    health = HealthServicer(Health(lifecycle, dependencies), [SERVICE])
    server.add([echo_servicer(code, handlers)], health)
    if settings.security.mtls_enabled:
        server.add_health_port(health)
    ports = await server.start()
    if mode is not None:
        lifecycle.enter_mode(mode)
    try:
        yield EchoServer(code, handlers, lifecycle, dependencies, telemetry, server, ports, logs, output)
    finally:
        await server.stop(0)
        logs.close()


def echo_servicer(code: EchoCode, handlers: EchoHandlers) -> Servicer:
    """The service as a process adds it."""
    add: Callable[[grpc.aio.Server], None] = lambda server: code.rpc.add_EchoServiceServicer_to_server(handlers, server)  # noqa: E731
    return Servicer(SERVICE, add)


@asynccontextmanager
async def open_channel(port: int, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A plaintext channel of its own connection to a port of this machine."""
    arguments = [("grpc.use_local_subchannel_pool", 1), *options.items()]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=arguments) as channel:
        yield channel


def health_stub(channel: grpc.aio.Channel) -> Any:
    """grpc.health.v1 on a channel."""
    stub: Any = health_pb2_grpc.HealthStub
    return stub(channel)


def reflect(channel: grpc.aio.Channel, requests: Any = None) -> Any:
    """An open reflection call on a channel."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub
    return stub(channel).ServerReflectionInfo(requests)


@pytest.fixture
async def echo(echo_code: EchoCode) -> AsyncIterator[EchoServer]:
    """EchoService in local mode."""
    async with serve_echo(echo_code) as server:
        yield server


@pytest.fixture
async def echo_stub(echo: EchoServer) -> AsyncIterator[Any]:
    """A stub of `echo` over a real channel."""
    async with open_channel(echo.ports.grpc) as channel:
        yield echo.stub(channel)
