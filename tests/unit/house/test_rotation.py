"""Long cases take turns, and every one of them has its turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import fix_rotation
from tests.unit.house.source_tree import ROOT

MODULE = """
import pytest

@pytest.mark.rotating(4)
@pytest.mark.parametrize("case", range(10))
def test_long(case): ...

def test_short(): ...
"""


def names(items: Iterable[Any]) -> set[str]:
    """Names of cases."""
    return {item.name for item in items}


def run(folder: Path, *arguments: str, **environment: str) -> set[str]:
    """Names of the cases that a run does."""
    (folder / "test_probe.py").write_text(MODULE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    rotating(share): takes turns\n")
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.fix_rotation", "--collect-only", "-q", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {line.partition("::")[2] for line in answer.stdout.splitlines() if "::" in line}


def test_a_run_does_a_share_that_its_seed_chooses(tmp_path: Path) -> None:
    """A quarter, rounded up, of the marked cases, the same for the same seed, and everything that is not marked."""
    first = run(tmp_path, "--hypothesis-seed=1")

    assert len(first) == 3 + 1
    assert "test_short" in first
    assert run(tmp_path, "--hypothesis-seed=1") == first


def test_every_case_has_its_turn() -> None:
    """Some seeds together do all cases."""
    mark = pytest.mark.rotating(4).mark
    items: list[Any] = [
        SimpleNamespace(
            path="test_probe.py", name=f"case{number}", nodeid=str(number), get_closest_marker=lambda _: mark
        )
        for number in range(10)
    ]
    done = {
        item.name for seed in range(16) for item in items if item.name not in names(fix_rotation.left_out(items, seed))
    }

    assert len(done) == 10


def test_whoever_asks_for_cases_gets_them(tmp_path: Path) -> None:
    """All of them when told so, and one that is named."""
    assert len(run(tmp_path, ROTATION="all")) == 10 + 1
    assert run(tmp_path, "test_probe.py::test_long[7]") == {"test_long[7]"}
