"""The recovery that plays in a terminal."""

from __future__ import annotations

import re
import sys

import pytest

from tests.fix_launcher import Launch

DEMO_SECONDS_MAX = 360


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demonstration_proves_what_it_says(launch: Launch) -> None:
    """It tells the damage, every step of the recovery and the proof, and ends with exit code 0."""
    launched = launch([sys.executable, "-m", "deploy.local.demo"])

    code = launched.process.wait(DEMO_SECONDS_MAX)
    _, said = launched.wait_exit()

    assert code == 0, said
    assert "DAMAGE: 200 versions deleted" in said
    for step in ("preflight", "fence", "verify", "safety", "restore", "integrity", "switch", "resume", "smoke"):
        assert re.search(rf"^ *[\d.]+ s +{step}\b", said, re.MULTILINE), step
    assert "of these 0 are missing" in said
