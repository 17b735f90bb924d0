"""What a running process knows of itself: its name, its code, its age."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import resource
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any

from llm_schema_registry.control.v1 import process_pb2 as pb
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.dependencies import Finding
from llm_schema_registry.kernel.health import Report
from llm_schema_registry.kernel.metrics import Metric, Point

COMMIT = "SCHEMA_REGISTRY_COMMIT"
"""Environment variable that an image sets to the commit it was built from."""
DISTRIBUTION = "llm-schema-registry"


@dataclass(frozen=True, slots=True)
class About:
    """The identity of one process. started: aware, UTC; began: the same on the monotonic clock."""

    service: str
    version: str
    commit: str
    instance_id: str
    started: datetime.datetime
    began: float

    @classmethod
    def this_process(cls, service: str, clock: Clock) -> About:
        """The running process, as a new instance."""
        return cls(
            service=service,
            version=version(),
            commit=os.environ.get(COMMIT, ""),
            instance_id=f"{service}-{secrets.token_hex(4)}",
            started=clock.now(),
            began=clock.monotonic(),
        )

    def uptime_seconds(self, clock: Clock) -> float:
        """Seconds since the start."""
        return clock.monotonic() - self.began


def version() -> str:
    """Version of the installed code; `0+unknown` when it is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def process_message(about: About, clock: Clock, report: Report) -> pb.Process:
    """The process as ControlService describes it."""
    process = pb.Process(
        service=about.service,
        instance_id=about.instance_id,
        version=about.version,
        commit=about.commit,
        state=int(report.state),  # type: ignore[arg-type]  # the same numbers
        in_flight=report.in_flight,
        health=int(report.status),  # type: ignore[arg-type]  # the same numbers
        dependencies=[_dependency(finding) for finding in report.findings],
    )
    process.start_time.FromDatetime(about.started)
    process.uptime.FromNanoseconds(int(about.uptime_seconds(clock) * 1e9))
    return process


def process_document(about: About, clock: Clock, report: Report) -> dict[str, Any]:
    """The process as the HTTP health pages describe it."""
    return {
        "status": report.status.name,
        "ready": report.ready,
        "service": about.service,
        "instance_id": about.instance_id,
        "version": about.version,
        "commit": about.commit,
        "start_time": about.started.isoformat(),
        "uptime_seconds": round(about.uptime_seconds(clock), 3),
        "state": report.state.name,
        "in_flight": report.in_flight,
        "dependencies": {
            finding.name: {
                "status": finding.status.name,
                "critical": finding.critical,
                "latency_ms": round(finding.latency_seconds * 1000, 3),
                "message": finding.message,
                "check_time": finding.checked.isoformat() if finding.checked else None,
            }
            for finding in report.findings
        },
    }


def process_metrics(about: About, report: Report, lines_dropped: int) -> list[Metric]:
    """The process in numbers: what it is, whether it is ready, what it waits for."""
    info = {"service": about.service, "version": about.version, "commit": about.commit, "state": report.state.name}
    checks = [
        (
            Point(finding.status, {"dependency": finding.name}),
            Point(finding.latency_seconds, {"dependency": finding.name}),
        )
        for finding in report.findings
    ]
    return [
        Metric("schema_registry.process.info", "gauge", "", "Always 1; the labels tell.", [Point(1, info)]),
        Metric("process.cpu.time", "counter", "s", "Processor time of this process.", [Point(time.process_time())]),
        Metric("process.memory.usage", "gauge", "By", "Resident memory.", [Point(_resident_bytes())]),
        Metric("schema_registry.process.ready", "gauge", "", "1 while ready to serve.", [Point(int(report.ready))]),
        Metric(
            "schema_registry.process.in_flight",
            "gauge",
            "{call}",
            "Calls in work, health and control excluded.",
            [Point(report.in_flight)],
        ),
        Metric(
            "schema_registry.dependency.status",
            "gauge",
            "",
            "0 unknown, 1 healthy, 2 degraded, 3 unhealthy.",
            [status for status, _ in checks],
        ),
        Metric(
            "schema_registry.dependency.latency",
            "gauge",
            "s",
            "Duration of the newest check.",
            [latency for _, latency in checks],
        ),
        Metric(
            "schema_registry.log.dropped",
            "counter",
            "{line}",
            "Log lines that could not be written.",
            [Point(lines_dropped)],
        ),
    ]


def _dependency(finding: Finding) -> pb.Dependency:
    dependency = pb.Dependency(
        name=finding.name,
        status=int(finding.status),  # type: ignore[arg-type]  # the same numbers
        message=finding.message,
        critical=finding.critical,
    )
    dependency.latency.FromNanoseconds(int(finding.latency_seconds * 1e9))
    if finding.checked is not None:
        dependency.check_time.FromDatetime(finding.checked)
    return dependency


def _resident_bytes() -> int:
    """Memory of this process that is not swapped out; its peak where the system does not tell the present."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read every few seconds
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
