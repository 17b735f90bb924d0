"""ControlService: what every process answers to whoever may steer it. Identity is checked before it gets here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.control.v1 import control_service_pb2 as pb
from llm_schema_registry.control.v1 import control_service_pb2_grpc, process_pb2
from llm_schema_registry.kernel.about import About, process_message
from llm_schema_registry.kernel.calls import current_caller, remaining_seconds
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.health import Health
from llm_schema_registry.kernel.lifecycle import MODES, Lifecycle, State
from llm_schema_registry.kernel.messages import timestamp
from llm_schema_registry.kernel.metrics import HistogramPoint, Metric, MetricSource

SERVICE = "llm_schema_registry.control.v1.ControlService"
WAIT_SECONDS = 30.0
WAIT_SECONDS_MAX = 60.0
ANSWER_SECONDS = 0.25
"""Part of the call's time that a drain leaves for its own answer."""
CAUSE_CHARACTERS_MAX = 200
POINTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload changed, as sorted names of options."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EffectiveOption:
    """One option as it is in force: the value redacted, and where it came from."""

    option: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Cache:
    """Something that a process keeps of the database. flush: forgets it and returns how many entries that were."""

    name: str
    flush: Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Controlled:
    """The process that is steered. reload raises InvalidField and leaves everything as it was when it cannot."""

    about: About
    clock: Clock
    lifecycle: Lifecycle
    health: Health
    reload: Callable[[], Awaitable[Reloaded]]
    options: Callable[[], Sequence[EffectiveOption]]
    caches: Callable[[], Sequence[Cache]]
    metrics: MetricSource
    logger: Any


class ControlServicer(control_service_pb2_grpc.ControlServiceServicer):
    """Steers one process."""

    def __init__(self, process: Controlled) -> None:
        self._process = process

    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateResponse:  # noqa: ARG002
        """The process as it sees itself."""
        return pb.GetStateResponse(process=self._message())

    async def GetConfig(self, request: pb.GetConfigRequest, context: Any) -> pb.GetConfigResponse:  # noqa: ARG002
        """The options in force."""
        rows = [
            pb.EffectiveOption(option=row.option, value=row.value, source=row.source) for row in self._process.options()
        ]
        return pb.GetConfigResponse(options=rows)

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:  # noqa: ARG002
        """Leaves the rotation and waits until no call is in flight."""
        wait = WAIT_SECONDS
        if request.HasField("wait"):
            wait = request.wait.ToNanoseconds() / 1e9
            if not 0 <= wait <= WAIT_SECONDS_MAX:
                raise errors.InvalidField.of("wait", f"must be from 0 to {WAIT_SECONDS_MAX:g} seconds")
        life = self._process.lifecycle
        if life.stopping:
            raise errors.IllegalState(
                "The process is stopping; it drains by itself.", metadata={"state": life.state.name}
            )
        life.drain()
        self._log("drain", wait_seconds=wait)
        await life.wait_idle(max(0.0, remaining_seconds(wait + ANSWER_SECONDS) - ANSWER_SECONDS))
        return pb.DrainResponse(process=self._message())

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.ResumeResponse:  # noqa: ARG002
        """Returns to the rotation in the mode before, or changes the mode."""
        wanted = int(request.mode)
        if wanted and wanted not in {int(mode) for mode in MODES}:
            allowed = (
                "must be SERVICE_STATE_SERVING, SERVICE_STATE_READ_ONLY or SERVICE_STATE_MAINTENANCE,"
                " or left out for the mode before"
            )
            raise errors.InvalidField.of("mode", allowed)
        mode = self._process.lifecycle.resume(State(wanted) if wanted else None)
        self._log("resume", mode=mode.name)
        return pb.ResumeResponse(process=self._message())

    async def Reload(self, request: pb.ReloadRequest, context: Any) -> pb.ReloadResponse:  # noqa: ARG002
        """Reads the settings again."""
        reloaded = await self._process.reload()
        self._log("reload", changed=reloaded.changed, needs_restart=reloaded.needs_restart)
        return pb.ReloadResponse(changed_options=reloaded.changed, restart_options=reloaded.needs_restart)

    async def FlushCaches(self, request: pb.FlushCachesRequest, context: Any) -> pb.FlushCachesResponse:  # noqa: ARG002
        """Forgets what is kept of the database."""
        flushed = [await _flushed(cache) for cache in self._process.caches()]
        self._log("flush caches", caches=[cache.name for cache in flushed])
        return pb.FlushCachesResponse(caches=flushed)

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:  # noqa: ARG002
        """The metrics as they are now."""
        points = islice(_points(self._process.metrics()), POINTS_MAX)
        return pb.GetMetricsResponse(time=timestamp(self._process.clock.now()), points=points)

    async def Stop(self, request: pb.StopRequest, context: Any) -> pb.StopResponse:  # noqa: ARG002
        """Starts the shutdown."""
        if len(request.cause) > CAUSE_CHARACTERS_MAX:
            raise errors.InvalidField.of("cause", f"must have at most {CAUSE_CHARACTERS_MAX} characters")
        self._log("stop", cause=request.cause, restart=request.restart)
        cause = f"Stop RPC: {request.cause}" if request.cause else "Stop RPC"
        self._process.lifecycle.request_stop(cause, restart=request.restart)
        return pb.StopResponse(process=self._message())

    def _message(self) -> process_pb2.Process:
        process = self._process
        return process_message(process.about, process.clock, process.health.report())

    def _log(self, verb: str, **fields: object) -> None:
        self._process.logger.info("control", verb=verb, caller=current_caller().name, **fields)


async def _flushed(cache: Cache) -> pb.FlushedCache:
    """A cache after it was flushed, or with what kept it from that."""
    try:
        return pb.FlushedCache(name=cache.name, entries=await cache.flush())
    except errors.Error as failed:
        return pb.FlushedCache(name=cache.name, problem=failed.message)


def _points(metrics: Iterable[Metric]) -> Iterator[pb.MetricPoint]:
    for metric in metrics:
        for point in metric.points:
            yield pb.MetricPoint(
                name=metric.name,
                kind=metric.kind,
                unit=metric.unit,
                attributes=dict(point.attributes),
                value=point.total if isinstance(point, HistogramPoint) else point.value,
                count=sum(point.counts) if isinstance(point, HistogramPoint) else 0,
            )
