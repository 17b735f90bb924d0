"""The life of a serving process: everything is composed, started, and unwound in order.

Start: logs and telemetry → HTTP pages → the service's own parts (Redis, pool, migrations, warm-up) → gRPC → SERVING.
Stop: not ready → calls in flight → the service's background work → database → Redis → telemetry and logs → the rest.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from llm_schema_registry import errors
from llm_schema_registry.control.v1 import control_service_pb2_grpc
from llm_schema_registry.kernel.about import About, process_metrics
from llm_schema_registry.kernel.certificates import Certificates, CertificatesInvalid
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.control import SERVICE, Controlled, ControlServicer
from llm_schema_registry.kernel.dependencies import Dependencies
from llm_schema_registry.kernel.export import MetricsPage
from llm_schema_registry.kernel.health import Health, HealthServicer
from llm_schema_registry.kernel.http import HttpServer
from llm_schema_registry.kernel.identity import ClientCertificate, ControlCredential, OpenLocal
from llm_schema_registry.kernel.interceptors import Interceptors, Rules
from llm_schema_registry.kernel.lifecycle import Lifecycle, State
from llm_schema_registry.kernel.logs import Logs
from llm_schema_registry.kernel.policy import PolicyMissing
from llm_schema_registry.kernel.probes import health_pages, metrics_page
from llm_schema_registry.kernel.process import Definition, Parts, Runtime, StartFailed
from llm_schema_registry.kernel.reload import Reloader, ReloadHook
from llm_schema_registry.kernel.server import GrpcPorts, GrpcServer, PortUnavailable, Servicer
from llm_schema_registry.kernel.settings import ServiceSettings
from llm_schema_registry.kernel.settings_sources import Loaded
from llm_schema_registry.kernel.shutdown import Steps
from llm_schema_registry.kernel.telemetry import Telemetry

if TYPE_CHECKING:
    from llm_schema_registry.kernel.otlp import Exporters

READY_FILE = "SCHEMA_REGISTRY_READY_FILE"
"""Environment variable that names a file which holds the bound ports as JSON while the process is ready to serve."""
FLUSH_SECONDS = 3.0
"""Longest wait for the collector at the end. Telemetry that is lost does not make the shutdown a failed one."""
EXIT_FAILED = 1
EXIT_RESTART = os.EX_TEMPFAIL
"""Asks the supervisor for a successor. Source: sysexits.h, EX_TEMPFAIL: 75."""
EXIT_SIGNAL = 128
SIGNALS = (signal.SIGTERM, signal.SIGINT)

S = TypeVar("S", bound=ServiceSettings)


class Serving(Generic[S]):
    """One process that serves. Made and run once, within its event loop."""

    def __init__(self, definition: Definition[S], loaded: Loaded[S], environment: Mapping[str, str]) -> None:
        settings = loaded.settings
        observed = settings.observability
        self._definition = definition
        self._settings = settings
        self._clock = SystemClock()
        self._about = About.this_process(definition.name, self._clock)
        self._logs = Logs(
            observed.log_level,
            as_json=observed.log_format == "json",
            service=definition.name,
            clock=self._clock,
        )
        self._logger = self._logs.logger
        self._lifecycle = Lifecycle()
        self._lifecycle.on_change(self._tell_state)
        self._steps = Steps(self._clock, self._logger)
        self._dependencies = Dependencies(settings.health, self._clock, self._logger)
        self._health = Health(self._lifecycle, self._dependencies)
        self._telemetry = Telemetry(
            self._logger,
            metrics=observed.metrics_enabled,
            sampling_rate=observed.trace_sampling_rate,
        )
        self._telemetry.set_call_log(every=observed.log_calls == "all", slow_seconds=observed.slow_call_seconds)
        self._telemetry.add_sources([lambda: process_metrics(self._about, self._health.report(), self._logs.dropped)])
        self._exporters = self._made_exporters()
        self._telemetry.trace_with(self._exporters.tracer() if self._exporters else None)
        self._credential = ControlCredential(*_control(settings))
        self._reloader = Reloader(loaded, environment)
        self._http_port = 0
        self._ready_file = environment.get(READY_FILE)
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Serves until a stop is requested, and returns the exit status."""
        self._logs.install()
        self._take_signals()
        self._announce()
        failed = not await self._start_or_stop()
        if not failed:
            await self._lifecycle.wait_stop_requested()
        self._steps.begin(self._settings.server.shutdown_timeout_seconds)
        self._logger.info("shutdown begins", cause=self._lifecycle.stop_cause or "start failed")
        await self._steps.close()
        self._lifecycle.stopped()
        self._logger.info("stopped", failed_steps=self._steps.failed)
        self._logs.close()
        if failed or self._steps.failed:
            return EXIT_FAILED
        return EXIT_RESTART if self._lifecycle.restart_wanted else 0

    def _made_exporters(self) -> Exporters | None:
        """What sends spans and metrics to the OTLP endpoint; None without one."""
        observed = self._settings.observability
        if observed.otlp_endpoint is None:
            return None
        # Here, because it takes a tenth of a second and five MiB, which processes without an endpoint do not need.
        from llm_schema_registry.kernel.otlp import Exporters, Identity  # noqa: PLC0415

        identity = Identity(self._definition.name, self._about.version, self._about.instance_id)
        return Exporters(observed.otlp_endpoint, observed, identity, self._telemetry.collect)

    # Start

    async def _start_or_stop(self) -> bool:
        """Starts, unless a stop is requested meanwhile. False when the start failed; the reason is logged then."""
        start = asyncio.create_task(self._start(), name="start")
        stop = asyncio.create_task(self._lifecycle.wait_stop_requested(), name="stop")
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (start, stop):
            task.cancel()
        outcome, _ = await asyncio.gather(start, stop, return_exceptions=True)
        match outcome:
            case None | asyncio.CancelledError():
                return True
            case StartFailed():
                self._logger.error("start failed", message=str(outcome))
            case errors.Error():
                self._logger.error("start failed", message=outcome.message, reason=outcome.reason)
            case _:
                self._logger.error("start failed", message="unexpected exception", exc_info=outcome)
        return False

    async def _start(self) -> None:
        self._steps.add("final cleanup", self._clean_up)
        await self._start_http()
        self._steps.add("flush metrics, traces and logs", self._flush)
        if self._exporters is not None:
            self._background.append(asyncio.create_task(self._exporters.run(), name="metrics export"))
        parts = await self._build()
        self._dependencies.watch(parts.dependencies)
        await self._dependencies.poll()
        self._background.append(asyncio.create_task(self._dependencies.run(), name="health checks"))
        self._reloader.add([*self._hooks(), *parts.reload])
        self._telemetry.add_sources(parts.metrics)
        ports = await self._start_grpc(parts)
        if self._lifecycle.stopping:
            return  # The stop came during the last step: never announce what is about to end.
        read_only = self._settings.features.read_only_mode
        self._lifecycle.enter_mode(State.READ_ONLY if read_only else State.SERVING)
        gc.collect()
        gc.freeze()  # What lives now lives to the end: the collector need not look at it again.
        self._tell_ready(ports)

    async def _build(self) -> Parts[S]:
        runtime = Runtime(
            settings=self._settings,
            lifecycle=self._lifecycle,
            clock=self._clock,
            logger=self._logger,
            steps=self._steps,
            instance_id=self._about.instance_id,
        )
        built = self._definition.build(runtime)
        parts = await built.__aenter__()

        async def stop() -> None:
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            await built.__aexit__(None, None, None)

        self._steps.add("stop background work", stop)
        return parts

    async def _start_http(self) -> None:
        server, observed = self._settings.server, self._settings.observability
        pages = health_pages(self._about, self._clock, self._health)
        if observed.metrics_enabled:
            pages[observed.metrics_path] = metrics_page(MetricsPage(self._telemetry.collect))
        self._http = HttpServer(pages, self._logger)
        try:
            self._http_port = await self._http.start(server.listen_address, server.http_port)
        except OSError as error:
            reason = error.strerror or "the address cannot be used"
            raise StartFailed(
                f"Cannot listen on {server.listen_address}:{server.http_port} for HTTP: {reason}"
                " (server.listen_address, server.http_port)."
            ) from None

    async def _start_grpc(self, parts: Parts[S]) -> GrpcPorts:
        settings = self._settings
        rules = Rules(
            lifecycle=self._lifecycle,
            authenticator=parts.authenticator or (OpenLocal() if settings.server.local_mode else ClientCertificate()),
            control=self._credential,
            request_seconds_max=settings.server.request_timeout_seconds,
            request_bytes_max=settings.performance.max_request_body_bytes,
        )
        servicers = [*parts.servicers, self._control_servicer(parts)]
        health = HealthServicer(self._health, (servicer.name for servicer in servicers))
        try:
            certificates = Certificates.of(settings, self._logger)
            interceptors = Interceptors(rules, self._telemetry)
            self._grpc = GrpcServer(settings, certificates, interceptors)
            self._grpc.add(servicers, health)
            if settings.security.mtls_enabled:
                self._grpc.add_health_port(health)
            ports = await self._grpc.start()
        except (CertificatesInvalid, PolicyMissing, PortUnavailable) as error:
            raise StartFailed(str(error)) from None
        seconds = settings.server.drain_seconds + settings.server.grace_seconds + 1
        self._steps.add("drain calls in flight", self._drain, seconds)
        self._steps.add("become not ready", self._become_not_ready)
        return ports

    def _control_servicer(self, parts: Parts[S]) -> Servicer:
        control = ControlServicer(
            Controlled(
                about=self._about,
                clock=self._clock,
                lifecycle=self._lifecycle,
                health=self._health,
                reload=self._reloader.reload,
                options=self._reloader.options,
                caches=lambda: parts.caches,
                metrics=self._telemetry.collect,
                logger=self._logger,
            )
        )
        return Servicer(
            SERVICE,
            lambda server: control_service_pb2_grpc.add_ControlServiceServicer_to_server(control, server),
        )

    def _hooks(self) -> list[ReloadHook[S]]:
        """What the kernel itself takes over on Reload."""

        async def level(settings: S) -> None:
            self._logs.set_level(settings.observability.log_level)

        async def sampling(settings: S) -> None:
            self._telemetry.set_sampling_rate(settings.observability.trace_sampling_rate)

        async def calls(settings: S) -> None:
            observed = settings.observability
            self._telemetry.set_call_log(every=observed.log_calls == "all", slow_seconds=observed.slow_call_seconds)

        async def control(settings: S) -> None:
            self._credential.replace(*_control(settings))

        return [
            ReloadHook(frozenset({"observability.log_level"}), level),
            ReloadHook(frozenset({"observability.trace_sampling_rate"}), sampling),
            ReloadHook(frozenset({"observability.log_calls", "observability.slow_call_seconds"}), calls),
            ReloadHook(frozenset({"control.token", "control.client_names"}), control),
        ]

    # Stop

    async def _become_not_ready(self) -> None:
        self._remove_ready_file()
        if self._lifecycle.started:
            self._lifecycle.drain()

    async def _drain(self) -> None:
        """Serves on until balancers have noticed, then lets the calls in flight end."""
        await asyncio.sleep(self._settings.server.drain_seconds)
        await self._grpc.stop(self._settings.server.grace_seconds)

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(min(FLUSH_SECONDS, self._steps.remaining_seconds() / 2)):
                if self._exporters is not None:
                    await self._exporters.close()
        except TimeoutError:
            self._logger.warning("telemetry not flushed: the OTLP endpoint does not answer")
        await asyncio.to_thread(self._logs.flush)

    async def _clean_up(self) -> None:
        self._remove_ready_file()
        if self._http_port:
            await self._http.close()

    # Signals and announcements

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if not self._lifecycle.request_stop(number.name):
            self._force(number)

    def _force(self, number: signal.Signals) -> NoReturn:
        """Ends the process now: whoever sends a second signal does not want to wait."""
        self._logger.warning("forced exit", signal=number.name)
        self._remove_ready_file()
        self._logs.close()
        os._exit(EXIT_SIGNAL + number)

    def _announce(self) -> None:
        about = self._about
        self._logger.info(
            "starting", version=about.version, commit=about.commit, instance_id=about.instance_id, pid=os.getpid()
        )
        if self._settings.server.local_mode:
            self._logger.warning(
                "LOCAL MODE: nobody is authenticated; every program on this machine is an administrator of this"
                " service. Never use it where others can reach the machine."
            )

    def _tell_ready(self, ports: GrpcPorts) -> None:
        """One line, and the ready file, with everything that a caller needs to find the process."""
        facts: dict[str, Any] = {
            "address": self._settings.server.listen_address,
            "grpc_port": ports.grpc,
            "http_port": self._http_port,
            "health_port": ports.health,
        }
        if self._ready_file:
            path = Path(self._ready_file)
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            partial.write_text(json.dumps({"pid": os.getpid(), **facts}) + "\n")
            partial.replace(path)
        self._logger.info("ready", state=self._lifecycle.state.name, **facts)

    def _tell_state(self, before: State, state: State) -> None:
        self._logger.info("state changed", before=before.name, state=state.name)

    def _remove_ready_file(self) -> None:
        if self._ready_file:
            Path(self._ready_file).unlink(missing_ok=True)


def _control(settings: ServiceSettings) -> tuple[str | None, tuple[str, ...]]:
    token = settings.control.token
    return (token.get_secret_value() if token else None, settings.control.client_names)
