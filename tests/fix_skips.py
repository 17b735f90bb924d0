"""Fails a run that skips a test which tests/skips.toml does not allow to be skipped."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("skips.toml")
SKIPPED = pytest.StashKey[dict[str, str]]()


def allowed_patterns(text: str) -> list[str]:
    """Patterns of the list. Raises ValueError on an entry without a pattern or a reason."""
    entries = tomllib.loads(text).get("skip", [])
    for entry in entries:
        if set(entry) != {"tests", "reason"} or not all(entry.values()):
            raise ValueError(f"an entry of {ALLOWED.name} needs `tests` and `reason`, nothing else: {entry}")
    return [entry["tests"] for entry in entries]


class SkipCounter:
    """Collects what was skipped during one run."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = patterns
        self.count = 0
        self.refused: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts a test that was skipped; an expected failure is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._add(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Counts a module that was skipped as a whole."""
        if report.skipped:
            self._add(report.nodeid, report.longrepr)

    def _add(self, nodeid: str, why: object) -> None:
        self.count += 1
        if not any(fnmatch.fnmatchcase(nodeid, pattern) for pattern in self._patterns):
            self.refused[nodeid] = str(why[2]) if isinstance(why, tuple) else str(why)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fails the run when a skip is not allowed."""
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Names the skips that are not allowed."""
        if not self.refused:
            return
        terminalreporter.section(f"skips that {ALLOWED.name} does not allow", red=True, bold=True)
        for nodeid, why in self.refused.items():
            terminalreporter.line(f"{nodeid}: {why}")


def pytest_configure(config: pytest.Config) -> None:
    """Starts counting."""
    config.pluginmanager.register(SkipCounter(allowed_patterns(ALLOWED.read_text())), "skip-counter")
