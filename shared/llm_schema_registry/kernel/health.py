"""Whether a process lives, is ready, has started: one judgement for gRPC, HTTP and ControlService.

grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md, 2026-11-23) answers for the names `""`
and every service (ready to serve), `readiness` (the same), `liveness` (the event loop runs; never flips while the
process lives, also not while draining), `startup` (the start has ended once).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_schema_registry.kernel.dependencies import Dependencies, Finding, Status
from llm_schema_registry.kernel.lifecycle import Lifecycle, State

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
READY_STATES = frozenset({State.SERVING, State.READ_ONLY})
PROBES = frozenset({"", "liveness", "readiness", "startup"})


@dataclass(frozen=True, slots=True)
class Report:
    """The health of a process at one moment."""

    status: Status
    ready: bool
    started: bool
    state: State
    in_flight: int
    findings: tuple[Finding, ...]


class Health:
    """Judges the process from its lifecycle and its dependencies, and tells when the judgement may have changed."""

    def __init__(self, lifecycle: Lifecycle, dependencies: Dependencies) -> None:
        self._lifecycle = lifecycle
        self._dependencies = dependencies
        self._bell = asyncio.Event()
        lifecycle.on_change(lambda _before, _after: self._ring())
        dependencies.on_change(self._ring)

    def report(self) -> Report:
        """The present judgement. A process without its critical dependencies is not ready, but alive."""
        life = self._lifecycle
        status = self._dependencies.status
        serves = life.state in READY_STATES and not life.stopping
        return Report(
            status=status if life.started else Status.UNHEALTHY,
            ready=serves and status is not Status.UNHEALTHY,
            started=life.started,
            state=life.state,
            in_flight=life.in_flight,
            findings=self._dependencies.findings,
        )

    async def changed(self) -> None:
        """Waits until the judgement may have changed."""
        await self._bell.wait()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 of one process."""

    def __init__(self, health: Health, services: Iterable[str]) -> None:
        self._health = health
        self._names = PROBES | frozenset(services)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """The present status of a name. NOT_FOUND for a name that the process does not have."""
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: ARG002 - the generated interface
        """The present status of every name (health_pb2.HealthListResponse, which the stubs lack)."""
        messages: Any = health_pb2
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._names}
        return messages.HealthListResponse(statuses=statuses)

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,  # noqa: ARG002 - the generated interface
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of a name, now and at every change. An unknown name is SERVICE_UNKNOWN, and stays open."""
        sent: int | None = None
        while True:
            status = self._status(request.service)
            if status != sent:
                yield health_pb2.HealthCheckResponse(status=status)
                sent = status
                continue  # The status may have changed while it was sent.
            await self._health.changed()

    def _status(self, name: str) -> int:
        if name not in self._names:
            return SERVICE_UNKNOWN
        report = self._health.report()
        if name == "liveness":
            return SERVING
        holds = report.started if name == "startup" else report.ready
        return SERVING if holds else NOT_SERVING
