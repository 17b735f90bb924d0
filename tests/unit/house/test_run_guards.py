"""A test run fails when it skips what it may not, or leaves a process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fix_skips import allowed_patterns
from tests.unit.house.source_tree import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard against orphans needs Linux")


def run(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """Runs a module's tests with both guards, in a process of its own."""
    (folder / "test_probe.py").write_text(textwrap.dedent(module))
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.fix_skips", "-p", "tests.fix_orphans", "test_probe.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_plain_run_passes(tmp_path: Path) -> None:
    """A run with nothing to say against it passes."""
    answer = run(tmp_path, "def test_one(): ...")

    assert answer.returncode == 0, answer.stdout


def test_unlisted_skip_fails_the_run(tmp_path: Path) -> None:
    """A skip that the list does not name fails the run, which names the test."""
    answer = run(
        tmp_path,
        """
        import pytest

        def test_one():
            pytest.skip("feeling lazy")
        """,
    )

    assert answer.returncode == 1
    assert "test_probe.py::test_one: Skipped: feeling lazy" in answer.stdout


def test_skipped_module_fails_the_run(tmp_path: Path) -> None:
    """A module that skips itself as a whole counts too."""
    answer = run(tmp_path, "import pytest\npytest.importorskip('no_such_module_anywhere')")

    assert answer.returncode != 0
    assert "skips.toml does not allow" in answer.stdout


def test_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """A test that is expected to fail, and does, is not counted."""
    answer = run(
        tmp_path,
        """
        import pytest

        @pytest.mark.xfail
        def test_one():
            assert False
        """,
    )

    assert answer.returncode == 0, answer.stdout


def test_process_left_behind_fails_the_run(tmp_path: Path) -> None:
    """A process that still runs at the end, also one whose parent is gone, is named and killed."""
    answer = run(
        tmp_path,
        """
        import subprocess

        def test_one():
            leave = "sleep 300 >/dev/null 2>&1 & until tr '\\\\0' ' ' </proc/$!/cmdline | grep -q ^sleep; do :; done"
            subprocess.run(["/bin/sh", "-c", leave], check=True)
        """,
    )

    assert answer.returncode == 1
    assert "child processes left behind" in answer.stdout
    assert "sleep 300" in answer.stdout


def test_list_entries_need_a_reason() -> None:
    """An entry of the list without a reason is an error."""
    with pytest.raises(ValueError, match="needs `tests` and `reason`"):
        allowed_patterns('[[skip]]\ntests = "x"\nreason = ""\n')
