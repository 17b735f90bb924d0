"""Local mode with the real services: what the banner says to paste works as pasted."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_launcher import ROOT, Launch, Launched, children, wait_gone

BACKUP_ID = "[0-9A-HJKMNP-TV-Z]{26}"


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
    """A pasted line registers a schema, another reads it back, others show health and state; two more make a backup and
    list it."""
    registered = json.loads(banner.paste("buf", "/RegisterSchema"))
    read = json.loads(banner.paste("buf", "/GetSchema"))

    assert registered["created"] is True
    assert registered["version"]["number"] == 1
    assert json.loads(read["schema"]["text"])["type"] == "object"
    assert json.loads(banner.paste("buf", "Health/Check")) == {"status": "SERVING"}
    assert json.loads(banner.paste("buf", "GetState"))["process"]["state"] == "SERVICE_STATE_SERVING"
    assert json.loads(banner.paste("curl -s", "/health/ready"))
    made = re.search(rf"\b{BACKUP_ID}\b", banner.paste("llmsr", "backup create"))
    assert made is not None
    assert made[0] in banner.paste("llmsr", "backup list")
    assert made[0] in banner.paste("llmsr", "system status")
    assert banner.paste("llmsr", "smoke").rstrip().endswith("Passed.")


def test_pasted_grpcurl_lines(banner: Banner) -> None:
    """The lines for grpcurl do the same."""
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed")

    assert json.loads(banner.paste("grpcurl", "/RegisterSchema"))["created"] is True
    assert json.loads(banner.paste("grpcurl", "Health/Check")) == {"status": "SERVING"}


def keys(home: Path) -> dict[str, tuple[int, bytes]]:
    """Modes and contents of the keys in a data folder."""
    return {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) for path in (home / "keys").iterdir()}


def test_everything_survives_a_restart(launch: Launch, local_home: Path) -> None:
    """What was registered before Ctrl-C is there after the next start, with the keys that the first one made. The
    services stop before the servers, who writes before who archives."""
    launched = start(launch, local_home)
    Banner(launched).paste("buf", "/RegisterSchema")
    first = keys(local_home)
    launched.signal(signal.SIGINT)
    code, said = launched.wait_exit()

    again = Banner(start(launch, local_home))

    assert code == 0, said
    stops = [line.partition(" stopped after ")[0] for line in said.splitlines() if " stopped after " in line]
    assert stops == ["registry", "backup", "admin", "Valkey", "PostgreSQL"]
    assert json.loads(again.paste("buf", "/GetSchema"))["schema"]["id"] == 1
    assert keys(local_home) == first
    private = {name for name, (mode, _) in first.items() if mode == 0o600}
    assert private == {"signing.pem", "recipient.key", "offline.pem"}


def test_kill_leaves_no_service(launch: Launch, local_home: Path) -> None:
    """After kill -9 of the launcher the services end too, by themselves and in order."""
    launched = start(launch, local_home)
    launched.wait_started()
    started = children(launched.process.pid)

    launched.signal(signal.SIGKILL)
    launched.wait_exit()

    assert len(started) == len(("PostgreSQL", "Valkey", "registry", "backup", "admin"))
    assert wait_gone(started) == []
    for service in ("registry", "backup", "admin"):
        assert "shutdown begins cause=SIGTERM" in (local_home / f"{service}.log").read_text()


@pytest.mark.slow
def test_the_system_restarts_and_stops_by_command(launch: Launch, local_home: Path) -> None:
    """The line for a restart replaces every service and all of them serve; the one for a shutdown ends them, and with
    them the launcher, with exit code 0. The next start needs nothing by hand."""
    launched = start(launch, local_home)
    banner = Banner(launched)
    banner.paste("buf", "/RegisterSchema")
    before = banner.paste("llmsr", "system status")
    restarted = banner.paste("llmsr", "system restart")
    after = banner.paste("llmsr", "system status")
    stopped = banner.paste("llmsr", "system shutdown")
    code, said = launched.wait_exit()

    instances = [set(re.findall(r"(?:registry|backup|admin)-[0-9a-f]{8}", told)) for told in (before, restarted, after)]
    assert [len(each) for each in instances] == [3, 3, 3]
    assert instances[1] == instances[2]
    assert not instances[0] & instances[2]
    assert [line.split()[0] for line in stopped.splitlines()[1:]] == ["registry", "backup", "admin"]
    assert code == 0, said
    assert said.count(" asks to be started again") == 3
    assert "every service was stopped" in said
    assert json.loads(Banner(start(launch, local_home)).paste("buf", "/GetSchema"))["schema"]["id"] == 1
