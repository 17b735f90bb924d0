"""Every example in a help text runs as pasted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llm_schema_registry.cli.command import EXAMPLES
from llm_schema_registry.cli.main import app
from tests.fix_cli import environment, run_here
from tests.fix_service import Service


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, as the words that name it."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from command_paths(below, (*path, name))


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


@pytest.mark.parametrize("path", [(), *LEAVES], ids=lambda path: " ".join(path) or "llmsr")
def test_examples_run_as_pasted(path: tuple[str, ...], registry: Service, tmp_path: Path) -> None:
    """The lines run in a shell, in order, without error, also when other examples used their names before."""
    program = tmp_path / "llmsr"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llm_schema_registry.cli "$@"\n')
    program.chmod(0o755)
    shell = environment(LLMSR_TARGET=registry.target)
    script = examples(path).replace("/tmp/", f"{tmp_path}/")

    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input=script,
        env={**shell, "PATH": f"{tmp_path}:{shell['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert script.strip()
    assert done.returncode == 0, done.stderr
