"""The Makefile: its targets, and what it says without one."""

from __future__ import annotations

import os
import subprocess

from tests.unit.house.source_tree import ROOT

TARGETS = [
    "help",
    "setup",
    "run",
    "test",
    "test-slow",
    "check",
    "bench",
    "proto",
    "fmt",
    "lint",
    "types",
    "clean",
    "constraints",
]


def test_help_is_the_default() -> None:
    """`make` alone lists every target with a line about it."""
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = {line.split()[1]: line.split()[2:] for line in answer.stdout.splitlines()}

    assert [target for target in TARGETS if not lines.get(target)] == []


def test_pipeline_script_is_executable() -> None:
    """.ci/run can be started as it is."""
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_too_old_python_is_refused() -> None:
    """Setup with an interpreter that will not do says what is needed."""
    answer = subprocess.run(
        ["make", "--always-make", "setup", "PYTHON=false"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert answer.returncode != 0
    assert "Python 3.11 or later is needed" in answer.stderr
