"""The gRPC server: the one place that knows the engine (grpc.aio on C-core) and its options.

Option names: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html (2026-11-23).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from llm_schema_registry.kernel.certificates import Certificates
from llm_schema_registry.kernel.health import HealthServicer
from llm_schema_registry.kernel.interceptors import Interceptors, Registrar, Router
from llm_schema_registry.kernel.policy import methods
from llm_schema_registry.kernel.settings import ServiceSettings

HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
REFLECTION_STABLE = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
"""The name that newer tools ask for first. grpcio-reflection 1.85 has v1alpha only; the messages are the same."""
ANSWER_SECONDS_MAX = 1.0
"""How long the last answers may take to leave when streams that nobody reads keep the engine from stopping."""
COMPRESSION_LEVEL_LOW = 1
"""gzip where the caller accepts it, else deflate, else nothing: a caller that is sent another one fails the call.
Source: grpc/impl/compression_types.h, grpc_compression_level."""
OVERSIZE_BYTES = 4 * 1_048_576
"""By how much the engine's own limit lies above ours, so that a message somewhat too large gets our clear error."""


@dataclass(frozen=True, slots=True)
class Servicer:
    """One gRPC service: its full name, and the generated function that adds its implementation.

        Servicer("llm_schema_registry.registry.v1.SchemaService",
                 lambda server: add_SchemaServiceServicer_to_server(schemas, server))

    Every method needs its `policy` option. Unary methods are coroutines `(request, context)`; streaming answers are
    async generators. A handler raises errors.Error, and may answer with the encoded bytes of its response message.
    """

    name: str
    add: Callable[[grpc.aio.Server], None]


@dataclass(frozen=True, slots=True)
class GrpcPorts:
    """Bound ports. health is None when there is no plaintext health port."""

    grpc: int
    health: int | None


class PortUnavailable(Exception):
    """A port cannot be listened on; the message names it."""


class GrpcServer:
    """Every servicer behind the interceptors, on one port; and health alone on a second one under mTLS."""

    def __init__(
        self, settings: ServiceSettings, certificates: Certificates | None, interceptors: Interceptors
    ) -> None:
        self._settings = settings.server
        self._options = _options(settings)
        self._certificates = certificates
        self._interceptors = interceptors
        self._main = grpc.aio.server(options=self._options)
        self._probes: grpc.aio.Server | None = None

    def add(self, servicers: Sequence[Servicer], health: HealthServicer) -> None:
        """Adds the services, health and reflection. Raises PolicyMissing for a method without its policy."""
        everything = [*servicers, _health(health)]
        if self._settings.reflection_enabled:
            everything.append(_reflection(servicer.name for servicer in everything))
        self._main.add_generic_rpc_handlers((self._router(everything),))

    def add_health_port(self, health: HealthServicer) -> None:
        """Adds the plaintext port that serves only health."""
        self._probes = grpc.aio.server(options=self._options)
        self._probes.add_generic_rpc_handlers((self._router([_health(health)]),))

    async def start(self) -> GrpcPorts:
        """Listens, and returns the bound ports. Raises PortUnavailable."""
        settings = self._settings
        credentials = self._certificates.credentials() if self._certificates else None
        port = _listen(self._main, settings.listen_address, settings.grpc_port, credentials)
        health = None
        if self._probes is not None:
            health = _listen(self._probes, settings.listen_address, settings.health_port, None)
            await self._probes.start()
        await self._main.start()
        return GrpcPorts(port, health)

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, lets those in flight end, and cancels what is left after the grace."""
        self._interceptors.end_exempt_streams()
        stopping = asyncio.create_task(self._main.stop(grace_seconds))
        await asyncio.wait({stopping}, timeout=min(grace_seconds, ANSWER_SECONDS_MAX))
        if not stopping.done() and await self._interceptors.wait_abandoned(grace_seconds):
            # What is left has no handler any more, and a caller that does not read: the grace is not for it.
            await self._main.stop(ANSWER_SECONDS_MAX)
        await stopping
        if self._probes is not None:
            await self._probes.stop(0)

    def _router(self, servicers: Iterable[Servicer]) -> Router:
        """All methods of the services, wrapped."""
        wrapped = {}
        for servicer in servicers:
            registrar = Registrar()
            servicer.add(cast("grpc.aio.Server", registrar))
            policies = methods(servicer.name)
            for name, handler in registrar.handlers[servicer.name].items():
                wrapped[f"/{servicer.name}/{name}"] = self._interceptors.wrap(policies[name], handler)
        if REFLECTION in wrapped:
            wrapped[REFLECTION_STABLE] = wrapped[REFLECTION]
        return Router(self._interceptors, wrapped)


def _health(health: HealthServicer) -> Servicer:
    return Servicer(HEALTH_SERVICE, lambda server: health_pb2_grpc.add_HealthServicer_to_server(health, server))


def _reflection(names: Iterable[str]) -> Servicer:
    servicer = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME])
    return Servicer(
        reflection.SERVICE_NAME,
        lambda server: reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
    )


def _listen(server: grpc.aio.Server, address: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    target = f"{_host(address)}:{port}"
    try:
        bound = server.add_insecure_port(target) if credentials is None else server.add_secure_port(target, credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise PortUnavailable(
            f"Cannot listen on {target} for gRPC: the port is taken, or the address is not of this machine."
        )
    return bound


def _host(address: str) -> str:
    """The address as a target: IPv6 in brackets."""
    return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address


def _options(settings: ServiceSettings) -> list[tuple[str, Any]]:
    """The settings as the engine's options."""
    server, performance = settings.server, settings.performance
    options = [
        ("grpc.so_reuseport", int(server.reuse_port)),
        ("grpc.max_receive_message_length", performance.max_request_body_bytes + OVERSIZE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", performance.max_concurrent_streams),
        ("grpc.keepalive_time_ms", _milliseconds(performance.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _milliseconds(performance.keepalive_timeout_seconds)),
        # Alone, keepalive_timeout leaves a connection open on which the server's ping gets no answer (grpcio 1.85).
        ("grpc.http2.ping_timeout_ms", _milliseconds(performance.keepalive_timeout_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _milliseconds(performance.min_ping_interval_seconds),
        ),
    ]
    if performance.max_connection_age_seconds > 0:
        # The engine adds ±10 % of jitter by itself (gRFC A9).
        age = _milliseconds(performance.max_connection_age_seconds)
        grace = _milliseconds(performance.max_connection_age_grace_seconds)
        options += [("grpc.max_connection_age_ms", age), ("grpc.max_connection_age_grace_ms", grace)]
    if settings.features.compression_enabled:
        options.append(("grpc.default_compression_level", COMPRESSION_LEVEL_LOW))
    return options


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
