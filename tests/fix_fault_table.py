"""The table of faults: what was injected, and what came of it, printed at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PROPERTY = "fault"
"""Of a test's report: a row. Reports also come from other processes that run tests."""
ROWS = pytest.StashKey[list[tuple[str, str, str]]]()

FaultTable = Callable[[str, str, str], None]
MARKER = "regression"
REGRESSIONS = {
    "B1": "retention by count: hourly backups push out days and months, and the one just made",
    "B2": "verified by its length: any garbage is a good backup",
    "B3": "a dump that was cut off passes for a whole one, because its compression does",
    "B4": "a restore goes on behind an error and ends well",
    "B5": "the live database is dropped before the restored one is proven",
    "B6": "a plain dump in a file on this disk, stored in one piece",
    "B7": "one page of a listing: beyond it backups are not seen",
    "B8": "what backups there are is in a log",
    "B9": "other tenants' cache is flushed, rights are loosened, the password is shown",
    "B10": "a dry run checks nothing",
    "B11": "what fails behind a restore is a warning",
    "B12": "the history goes with what it tells of",
    "B13": "two replicas make two backups",
}
"""Faults of an earlier system: each is a case of T32, and has a test that carries the mark with its id."""


@pytest.fixture
def fault_table(request: pytest.FixtureRequest) -> FaultTable:
    """Adds a row: `fault_table("T1", "kill -9 before the commit", "nothing listed, the next run succeeded")`."""

    def add(case: str, injected: str, outcome: str) -> None:
        request.node.user_properties.append((PROPERTY, (case, injected, outcome)))

    return add


@pytest.fixture(autouse=True)
def _regression(request: pytest.FixtureRequest) -> None:
    """Adds a row for each fault of an earlier system that the test is about."""
    for mark in request.node.iter_markers(MARKER):
        for name in mark.args:
            row = ("T32", f"{name}: {REGRESSIONS[name]}", f"{request.node.originalname} passed")
            request.node.user_properties.append((PROPERTY, row))


class _Rows:
    """Collects the rows of one run."""

    def __init__(self, config: pytest.Config) -> None:
        self._rows = config.stash.setdefault(ROWS, [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes a test's rows, once, after it passed."""
        if report.when == "teardown":
            found: list[Any] = [row for name, row in report.user_properties if name == PROPERTY]
            self._rows += [(case, injected, outcome) for case, injected, outcome in found]


def pytest_configure(config: pytest.Config) -> None:
    """Begins an empty table."""
    config.pluginmanager.register(_Rows(config), "fault-rows")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the rows by case."""
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.line("case | injected | outcome")
    for row in sorted(set(rows), key=_order):
        terminalreporter.line(" | ".join(row))


def _order(row: tuple[str, str, str]) -> tuple[str, int, str]:
    letters = row[0].rstrip("0123456789")
    return letters, int(row[0][len(letters) :] or 0), row[1]
