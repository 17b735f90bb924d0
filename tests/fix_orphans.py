"""Fails a run that leaves child processes behind (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

PR_SET_CHILD_SUBREAPER = 36
OURS_BY_DESIGN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python ends these with the process that they serve."""

LEFT_BEHIND = pytest.StashKey[list[str]]()
OUTPUT = "left_behind"


def pytest_configure() -> None:
    """Makes orphans of our children ours, so that the end of the run sees them. Source: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After all fixtures are torn down: names and kills what still runs, and fails the run."""
    left = [] if sys.platform != "linux" else _living_children()
    told = session.config.stash.setdefault(LEFT_BEHIND, [])
    told += [f"{pid}: {command}" for pid, command in left]
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        # One of several processes that run the tests: the one above them tells.
        output[OUTPUT] = told
    elif told and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a process that ran tests left behind."""
    told = node.config.stash.setdefault(LEFT_BEHIND, [])
    told += getattr(node, "workeroutput", {}).get(OUTPUT, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names the processes that were left behind."""
    left = config.stash.get(LEFT_BEHIND, [])
    if left:
        terminalreporter.section("child processes left behind", red=True, bold=True)
        for line in left:
            terminalreporter.line(line)


def _living_children() -> list[tuple[int, str]]:
    """Children of this process that run, as (process id, command line)."""
    pids: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        pids.update(int(word) for word in path.read_text().split())
    found = []
    for pid in sorted(pids):
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            state = rest.split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (OSError, IndexError):
            continue
        if state != "Z" and not any(name in command for name in OURS_BY_DESIGN):
            # While a program is being started it has a name, and no command line yet.
            found.append((pid, command or f"[{name}]"))
    return found
