"""Local mode with the real services: what the banner says to paste works as pasted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_launcher import ROOT, Launch, Launched, children, wait_gone


class Banner:
    """The lines of a banner."""

    def __init__(self, launched: Launched) -> None:
        self._lines = launched.wait_started().splitlines()

    def line(self, *parts: str) -> str:
        """The one line to paste that holds all the parts."""
        (found,) = (line for line in self._lines if all(part in line for part in parts))
        return found

    def paste(self, *parts: str) -> str:
        """What the line with these parts prints when it is pasted into a shell."""
        answer = subprocess.run(
            ["/bin/bash", "-c", self.line(*parts)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout


def start(launch: Launch, home: Path) -> Launched:
    launched: Launched = launch([sys.executable, "-m", "deploy.local", "--home", str(home)])
    return launched


@pytest.fixture
def banner(launch: Launch, local_home: Path) -> Banner:
    """The banner of a running registry with nothing in it."""
    return Banner(start(launch, local_home))


def test_pasted_lines(banner: Banner) -> None:
    """A pasted line registers a schema, another reads it back, others show health, state and tables."""
    registered = json.loads(banner.paste("buf", "/RegisterSchema"))
    read = json.loads(banner.paste("buf", "/GetSchema"))

    assert registered["created"] is True
    assert registered["version"]["number"] == 1
    assert json.loads(read["schema"]["text"])["type"] == "object"
    assert json.loads(banner.paste("buf", "Health/Check")) == {"status": "SERVING"}
    assert json.loads(banner.paste("buf", "GetState"))["process"]["state"] == "SERVICE_STATE_SERVING"
    assert json.loads(banner.paste("curl -s", "/health/ready"))


def test_pasted_grpcurl_lines(banner: Banner) -> None:
    """The lines for grpcurl do the same."""
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed")

    assert json.loads(banner.paste("grpcurl", "/RegisterSchema"))["created"] is True
    assert json.loads(banner.paste("grpcurl", "Health/Check")) == {"status": "SERVING"}


def test_schemas_survive_a_restart(launch: Launch, local_home: Path) -> None:
    """What was registered before Ctrl-C is there after the next start."""
    launched = start(launch, local_home)
    Banner(launched).paste("buf", "/RegisterSchema")
    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    again = Banner(start(launch, local_home))

    assert code == 0, said
    assert json.loads(again.paste("buf", "/GetSchema"))["schema"]["id"] == 1


def test_kill_leaves_no_service(launch: Launch, local_home: Path) -> None:
    """After kill -9 of the launcher the service ends too, by itself and in order."""
    launched = start(launch, local_home)
    launched.wait_started()
    started = children(launched.process.pid)

    launched.signal(signal.SIGKILL)
    launched.wait_exit()

    assert len(started) == 3
    assert wait_gone(started) == []
    assert "shutdown begins cause=SIGTERM" in (local_home / "registry.log").read_text()
