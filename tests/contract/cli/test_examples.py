"""Every example in a help text runs as pasted."""

from __future__ import annotations

import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llm_schema_registry.cli.backup import EXAMPLE_BACKUP, EXAMPLE_OPERATION
from llm_schema_registry.cli.command import EXAMPLES
from llm_schema_registry.cli.main import app
from llm_schema_registry.cli.operation import EXAMPLE_ADMIN_OPERATION
from llm_schema_registry.cli.recover import EXAMPLE_RECOVERY
from llm_schema_registry.cli.restore import EXAMPLE_RESTORE
from tests.fix_cli import BackedUp, Ran, Recovered, Restored, environment, run_here
from tests.fix_service import CONTROL_TOKEN


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, as the words that name it."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from command_paths(below, (*path, name))


STEERING = (("system",), ("smoke",))
MAINTAINED = frozenset({("db",), ("capacity",)})
SHELL_SYNTAX = frozenset("|<>$&;`")
PATHS = list(command_paths(typer.main.get_command(app)))
LEAVES = [path for path in PATHS if not any(other[: len(path)] == path and other != path for other in PATHS)]


def examples(path: tuple[str, ...]) -> str:
    """The examples of a command's help, as a person copies them."""
    help_text = run_here(*path, "--help").stdout
    return help_text.partition(f"  {EXAMPLES}\n")[2]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_an_example(path: tuple[str, ...]) -> None:
    """The help of each command holds an example of that very command, and nothing after its examples."""
    lines = examples(path).splitlines()

    assert any(f"llmsr {' '.join(path)}" in line for line in lines)
    assert all(line.startswith("    ") for line in lines)


def real_ids(path: tuple[str, ...], request: pytest.FixtureRequest) -> dict[str, str]:
    """What the ids in examples stand for here. The examples of a command need it in a state that fits."""
    backed_up: BackedUp = request.getfixturevalue("backed_up")
    found = {
        EXAMPLE_BACKUP: backed_up.spare if path == ("backup", "delete") else backed_up.proven,
        EXAMPLE_OPERATION: backed_up.operation,
    }
    if path[:2] != ("recover", "start") and path[0:1] in {("recover",), ("operation",)}:
        recovered: Recovered = request.getfixturevalue("recovered")
        found |= {EXAMPLE_RECOVERY: recovered.id, EXAMPLE_ADMIN_OPERATION: recovered.operation}
    if path[:1] == ("restore",):
        restored: Restored = request.getfixturevalue("restored")
        found[EXAMPLE_RESTORE] = restored.active if path[1] == "revert" else restored.prepared
    return found


def known_run(script: str, request: pytest.FixtureRequest) -> Ran | None:
    """How a script ended that a fixture has run as it is: preparing a restore takes some seconds."""
    if not script.startswith("llmsr restore"):
        return None
    restored: Restored = request.getfixturevalue("restored")
    return restored.told if script.strip() == restored.command else None


def run_script(script: str, folder: Path, settings: dict[str, str]) -> Ran:
    """Runs lines in a shell; those that need none in this process, which shows the same and takes no time to start."""
    if not SHELL_SYNTAX & set(script):
        runs = [run_here(*shlex.split(line)[1:], **settings) for line in script.splitlines()]
        return next((ran for ran in runs if ran.status != 0), runs[-1])
    program = folder / "llmsr"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llm_schema_registry.cli "$@"\n')
    program.chmod(0o755)
    shell = environment(**settings)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input=script,
        env={**shell, "PATH": f"{folder}:{shell['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("path", [(), *LEAVES], ids=lambda path: " ".join(path) or "llmsr")
def test_examples_run_as_pasted(
    path: tuple[str, ...], backed_up: BackedUp, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The lines run in order, without error, also when other examples used their names before. Ids of backups, restores
    and operations are replaced by ones that exist; everything else is as the help has it.
    """
    script = textwrap.dedent(examples(path)).replace("/tmp/", f"{tmp_path}/")
    token = tmp_path / "control_token"
    token.write_text(CONTROL_TOKEN)
    script = script.replace(".local/secrets/control_token", str(token))
    for told, real in real_ids(path, request).items():
        script = script.replace(told, real)

    # What the admin service does needs a system that has one.
    site = "steered" if path[:1] in STEERING else "maintained" if path[:1] in MAINTAINED else ""
    settings = request.getfixturevalue(site).settings if site else backed_up.settings
    ran = known_run(script, request) or run_script(script, tmp_path, settings)

    if path == ("backup", "run"):
        _forget_slot(backed_up)
    assert script.strip()
    assert ran.status == 0, ran.stderr + ran.stdout


def _forget_slot(backed_up: BackedUp) -> None:
    """Deletes what the example made, which would be much of what there is for `prune`."""
    for made in backed_up.json("backup", "list", "--kind", "hourly")["backups"]:
        assert backed_up.run("backup", "delete", made["id"], "--apply").status == 0
