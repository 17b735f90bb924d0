"""What a stranger does first: clone, `make run`, paste, Ctrl-C; in a path with a space."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_launcher import Launch
from tests.unit.house.source_tree import ROOT, kept_files

SETUP_SECONDS = 600
OFFLINE = ("NameResolutionError", "Connection refused", "Max retries exceeded", "No matching distribution found")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SETUP_SECONDS + 120)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what a commit of everything would hold, set up by `make setup`."""
    tree = tmp_path_factory.mktemp("a fresh clone")
    for path in kept_files():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path)
    answer = subprocess.run(
        ["make", "setup"],
        cwd=tree,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=SETUP_SECONDS,
    )
    if answer.returncode != 0 and any(sign in answer.stdout + answer.stderr for sign in OFFLINE):
        pytest.skip("the packages cannot be downloaded here")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    yield tree
    shutil.rmtree(tree)


def environment() -> dict[str, str]:
    """This environment as a stranger's shell has it: nothing of the make or the Python that runs this test."""
    hidden = ("MAKE", "PYTHON", "VIRTUAL_ENV", "PYTEST", "LLMSR_HOME", "SCHEMA_REGISTRY")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


def test_make_run(launch: Launch, clone: Path) -> None:
    """`make run` on a fresh clone starts a registry, a pasted line registers a schema, Ctrl-C stops it in order."""
    launched = launch(["make", "run"], cwd=clone, env=environment(), start_new_session=True)
    banner = launched.wait_started()
    line = next(line for line in banner.splitlines() if "buf curl" in line and "/RegisterSchema" in line)
    pasted = subprocess.run(
        ["/bin/bash", "-c", line], cwd=clone, capture_output=True, text=True, check=False, timeout=60
    )

    # A terminal sends Ctrl-C to make and to what it runs.
    os.killpg(launched.process.pid, signal.SIGINT)
    _, said = launched.wait_exit()

    assert json.loads(pasted.stdout)["created"] is True, pasted.stderr
    assert line.startswith(".venv/bin/buf")
    stops = [stop.partition(" stopped after ")[0] for stop in said.splitlines() if " stopped after " in stop]
    assert stops == ["registry", "backup", "admin", "Valkey", "PostgreSQL"]
    assert said.rstrip().endswith("stopped")
    assert (clone / ".local" / "postgresql.log").is_file()


def test_tests_run(clone: Path) -> None:
    """Bare pytest works on a fresh clone: the generated code is made first."""
    answer = subprocess.run(
        [".venv/bin/pytest", "-q", "tests/unit/house/test_contract.py"],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
