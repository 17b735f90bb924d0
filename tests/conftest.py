"""What every test needs before it is imported: generated code, fixtures by theme, hypothesis profiles, one seed."""

from __future__ import annotations

import fcntl
import os
import random
import signal
from pathlib import Path

import hypothesis
import pytest

from protos import generate

SEED_OPTION = "--hypothesis-seed"
FIXED_SEED = 0
HERE = Path(__file__).resolve().parent


def _generate() -> None:
    """Generates the protos' modules when stale; one test run at a time, in whatever process."""
    folder = os.open(generate.PROTOS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        generate.ensure()
    finally:
        os.close(folder)


_generate()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Of a run in the background: programs that tests start would inherit that they cannot be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [f"tests.{path.stem}" for path in sorted(HERE.glob("fix_*.py"))]
# All of them before the first is imported: they may import each other.
pytest.register_assert_rewrite(*pytest_plugins)

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("slow", deadline=None, database=None, print_blob=True)


def _seed(config: pytest.Config) -> int:
    given = config.getoption(SEED_OPTION)
    return FIXED_SEED if given is None else int(given)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Fixed examples without a seed (`make test`), the seed's own with one (`make test-slow`)."""
    seeded = config.getoption(SEED_OPTION) is not None
    hypothesis.settings.load_profile("slow" if seeded else "ci")


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, so that a failed run can be repeated."""
    return f"seed: {_seed(config)} (repeat with {SEED_OPTION}={_seed(config)})"


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of the run: the option's, or a fixed one."""
    return _seed(request.config)


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A random source of the test's own, the same in every run with the same seed."""
    return random.Random(f"{seed}/{request.node.nodeid}")
