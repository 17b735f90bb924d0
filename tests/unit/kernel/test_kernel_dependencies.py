"""Dependencies: hysteresis, overall health, and what an operator is told."""

from __future__ import annotations

from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.dependencies import Dependencies, DependencyCheck, Finding, Status, judge, overall
from llm_schema_registry.kernel.settings import HealthSettings

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY, Status.UNKNOWN


@pytest.mark.parametrize(
    ("results", "statuses"),
    [
        ([True], [HEALTHY]),
        ([False], [UNHEALTHY]),
        ([True, False, False, False], [HEALTHY, DEGRADED, DEGRADED, UNHEALTHY]),
        ([True, False, True, False, False], [HEALTHY, DEGRADED, HEALTHY, DEGRADED, DEGRADED]),
        ([False, False, True], [UNHEALTHY, UNHEALTHY, HEALTHY]),
    ],
)
def test_hysteresis(results: list[bool], statuses: list[Status]) -> None:
    """The first check decides at once; later, three failures in a row count, and one success ends them."""
    finding, seen = Finding("postgresql", critical=True), []
    for works in results:
        finding = judge(finding, None if works else "down", threshold=3)
        seen.append(finding.status)

    assert seen == statuses


@pytest.mark.parametrize(
    ("critical", "other", "expected"),
    [
        (HEALTHY, HEALTHY, HEALTHY),
        (HEALTHY, DEGRADED, DEGRADED),
        (HEALTHY, UNHEALTHY, DEGRADED),
        (DEGRADED, HEALTHY, DEGRADED),
        (UNHEALTHY, HEALTHY, UNHEALTHY),
        (UNKNOWN, HEALTHY, UNHEALTHY),
    ],
)
def test_overall_health(critical: Status, other: Status, expected: Status) -> None:
    """Only a critical dependency makes the process UNHEALTHY."""
    findings = [Finding("postgresql", critical=True, status=critical), Finding("redis", critical=False, status=other)]

    assert overall(findings) is expected


def test_no_dependencies_is_healthy() -> None:
    """A process that needs nothing is healthy."""
    assert overall([]) is HEALTHY


class Log:
    """Remembers the transitions."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def info(self, _: str, **fields: Any) -> None:
        """Remembers."""
        self.statuses.append(fields["status"])

    warning = info


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (errors.DatabaseUnavailable("The database refused."), "The database refused."),
        (RuntimeError("password=hunter2"), "the check failed with RuntimeError"),
    ],
)
async def test_exceptions_are_findings(raised: Exception, message: str) -> None:
    """A check that raises has failed; of a foreign exception only the class is shown."""

    async def check() -> str | None:
        raise raised

    dependencies = Dependencies(HealthSettings(), SystemClock(), Log())
    dependencies.watch([DependencyCheck("postgresql", critical=True, check=check)])
    await dependencies.poll()

    assert dependencies.findings[0].message == message


async def test_transitions_are_logged_once() -> None:
    """Only a change of status is logged and told."""
    results = iter([None, None, "down", "down", "down", "down", None])
    log, told = Log(), []

    async def check() -> str | None:
        return next(results)

    dependencies = Dependencies(HealthSettings(failure_threshold=2), SystemClock(), log)
    dependencies.on_change(lambda: told.append(dependencies.status.name))
    dependencies.watch([DependencyCheck("postgresql", critical=True, check=check)])
    for _ in range(7):
        await dependencies.poll()

    assert log.statuses == told == ["HEALTHY", "DEGRADED", "UNHEALTHY", "HEALTHY"]
