"""Processes of the system as they see themselves, and what a request did at each."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

ADMIN, BACKUP, REGISTRY = "admin", "backup", "registry"
SERVICES = (REGISTRY, BACKUP, ADMIN)
"""By dependency: what comes first is stopped first, for it needs those behind it."""


class State(enum.IntEnum):
    """Where a process stands in its life; numbers of common/v1/service_state.proto."""

    UNKNOWN = 0
    STARTING = 1
    SERVING = 2
    READ_ONLY = 3
    MAINTENANCE = 4
    DRAINING = 5
    STOPPED = 6


MODES = (State.SERVING, State.READ_ONLY, State.MAINTENANCE)


class Health(enum.IntEnum):
    """How well a process or a dependency works; numbers of control/v1/process.proto."""

    UNKNOWN = 0
    HEALTHY = 1
    DEGRADED = 2
    UNHEALTHY = 3


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something outside a process that it needs. latency_seconds: of the newest check."""

    name: str
    health: Health
    critical: bool
    latency_seconds: float = 0.0
    message: str = ""
    check_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it sees itself."""

    service: str
    instance_id: str
    version: str
    commit: str
    start_time: datetime
    uptime_seconds: float
    state: State
    in_flight: int
    health: Health
    dependencies: Sequence[Dependency] = ()

    @property
    def serves(self) -> bool:
        """Whether it takes calls and can work on them."""
        return self.state in MODES and self.health is not Health.UNHEALTHY


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica is reached: `host:port`."""

    service: str
    target: str


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as it was found. process: None when it did not answer; problem: why."""

    address: Address
    process: Process | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """An option in force: its value redacted, and its source."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """The options in force at a replica. problem: why it did not answer."""

    address: Address
    options: Sequence[Option] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric of a process. value: of a histogram the total of what was recorded, count how often."""

    name: str
    kind: str
    unit: str
    attributes: dict[str, str]
    value: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class Protection:
    """What would be left if the database were lost now. Seconds and times are None when they cannot be said."""

    newest_backup_id: str = ""
    newest_backup_time: datetime | None = None
    newest_verified_backup_id: str = ""
    newest_verified_backup_time: datetime | None = None
    archive_lag_seconds: float | None = None
    recovery_point_seconds: float | None = None
    last_drill_time: datetime | None = None
    last_drill_passed: bool = False
    recovery_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """The whole system at one moment. replicas: by service, in the order of SERVICES. problems: the gravest first."""

    time: datetime
    health: Health
    replicas: dict[str, Sequence[Replica]]
    protection: Protection | None
    running_operations: Sequence[str]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class SmokeCheck:
    """One thing that was tried on the registry. message: what was found, always set when it did not pass."""

    name: str
    passed: bool
    seconds: float
    message: str = ""
