"""The README's five minutes run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_service import ROOT, MakeService

README = ROOT / "README.md"
CALL = re.compile(r"^\$CALL ", re.MULTILINE)


def tour() -> str:
    """The commands of the section."""
    section = README.read_text(encoding="utf-8").partition("## Five minutes")[2]
    return section.split("```")[1]


@pytest.mark.timeout(120)
def test_every_command_of_the_tour_works(make_service: MakeService, database_url: str, tmp_path: Path) -> None:
    """Each prints the answer that a reader expects."""
    service = make_service(database_url)
    service.start()
    bash = tour().replace("127.0.0.1:9090", service.target).replace(".venv/bin/buf", "buf")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    setup, *calls = CALL.split(bash)
    assert len(calls) == 6

    answers = []
    for call in calls[:-1]:
        done = subprocess.run(
            ["bash", "-euc", f"{setup}\n$CALL {call}"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    watch = subprocess.Popen(
        ["bash", "-euc", f"{setup}\nexec $CALL {calls[-1]}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        told = ""
        while "versionRegistered" not in told:
            line = watch.stdout.readline()
            assert line, "the watch ended"
            told += line
    finally:
        watch.terminate()
        watch.wait()
        assert watch.stdout is not None
        watch.stdout.close()

    registered, by_subject, by_id, report, validation = answers
    assert registered["created"]
    assert by_subject["version"] == registered["version"]
    assert by_id["schema"] == registered["schema"]
    assert report["report"]["verdict"] == "VERDICT_INCOMPATIBLE"
    assert set(json.loads(report["report"]["findings"][0]["witness"]["text"])) == {"id"}
    assert validation["errors"][0]["keyword"] == "required"
