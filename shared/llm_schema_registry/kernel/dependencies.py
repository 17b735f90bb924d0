"""What a process needs from outside, watched: polled, judged with hysteresis, transitions logged once."""

from __future__ import annotations

import asyncio
import datetime
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.control.v1 import process_pb2 as pb
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.settings import HealthSettings


class Status(enum.IntEnum):
    """How well a process or a dependency works; numbers of control/v1/process.proto."""

    UNKNOWN = pb.HEALTH_STATUS_UNSPECIFIED
    HEALTHY = pb.HEALTH_STATUS_HEALTHY
    DEGRADED = pb.HEALTH_STATUS_DEGRADED
    UNHEALTHY = pb.HEALTH_STATUS_UNHEALTHY


@dataclass(frozen=True, slots=True)
class DependencyCheck:
    """How to find out whether something works.

    check returns None when it does, else what is wrong, in words for an operator, without secrets. It may raise: of an
    errors.Error the message is shown, of any other exception only the class.
    critical: without it the process is not ready. Without any other dependency it is only degraded.
    """

    name: str
    critical: bool
    check: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the newest check of a dependency found.

    status: HEALTHY; DEGRADED while failures are fewer than the threshold; UNHEALTHY from there on.
    """

    name: str
    critical: bool
    status: Status = Status.UNKNOWN
    latency_seconds: float = 0.0
    message: str = ""
    checked: datetime.datetime | None = None
    failures: int = 0


def judge(finding: Finding, problem: str | None, threshold: int) -> Finding:
    """The finding after one more check: one success is enough, failures count once there are `threshold` in a row.

    The first check of all decides at once.
    """
    if problem is None:
        return replace(finding, status=Status.HEALTHY, message="", failures=0)
    failures = finding.failures + 1
    down = failures >= threshold or finding.status in {Status.UNKNOWN, Status.UNHEALTHY}
    status = Status.UNHEALTHY if down else Status.DEGRADED
    return replace(finding, status=status, message=problem, failures=failures)


def overall(findings: Sequence[Finding]) -> Status:
    """UNHEALTHY when a critical dependency is; DEGRADED when anything is not HEALTHY; else HEALTHY."""
    if any(found.critical and found.status in {Status.UNHEALTHY, Status.UNKNOWN} for found in findings):
        return Status.UNHEALTHY
    if any(found.status is not Status.HEALTHY for found in findings):
        return Status.DEGRADED
    return Status.HEALTHY


class Dependencies:
    """Polls the dependencies of a process and remembers what it found."""

    def __init__(self, settings: HealthSettings, clock: Clock, logger: Any) -> None:
        self._settings = settings
        self._clock = clock
        self._logger = logger
        self._checks: tuple[DependencyCheck, ...] = ()
        self._observers: list[Callable[[], None]] = []
        self.findings: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """Health of the process, as far as its dependencies decide it."""
        return overall(self.findings)

    def watch(self, checks: Sequence[DependencyCheck]) -> None:
        """Sets what is checked. Nothing is known of it until the next poll."""
        self._checks = tuple(checks)
        self.findings = tuple(Finding(check.name, check.critical) for check in checks)

    def on_change(self, observer: Callable[[], None]) -> None:
        """Calls the observer after every poll that changed a status."""
        self._observers.append(observer)

    async def poll(self) -> None:
        """Checks everything once, at the same time, each within the timeout. Logs and tells what changed."""
        before = self.findings
        self.findings = tuple(
            await asyncio.gather(
                *(self._check(check, found) for check, found in zip(self._checks, before, strict=True))
            )
        )
        changed = False
        for old, new in zip(before, self.findings, strict=True):
            if old.status is not new.status:
                changed = True
                self._log(old, new)
        if changed:
            for observer in self._observers:
                observer()

    async def run(self) -> None:
        """Polls for ever; ends when its task is cancelled."""
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            await self.poll()

    async def _check(self, check: DependencyCheck, found: Finding) -> Finding:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.check_timeout_seconds):
                problem = await check.check()
        except TimeoutError:
            problem = f"no answer within {self._settings.check_timeout_seconds:g} s"
        except errors.Error as error:
            problem = error.message
        except Exception as error:  # noqa: BLE001 - the edge: a check that breaks is a check that failed
            problem = f"the check failed with {type(error).__name__}"
        judged = judge(found, problem, self._settings.failure_threshold)
        latency = self._clock.monotonic() - started
        return replace(judged, latency_seconds=latency, checked=self._clock.now())

    def _log(self, old: Finding, new: Finding) -> None:
        log = self._logger.info if new.status is Status.HEALTHY else self._logger.warning
        log(
            "dependency changed",
            dependency=new.name,
            critical=new.critical,
            before=old.status.name,
            status=new.status.name,
            message=new.message,
        )
