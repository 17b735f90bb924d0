"""constraints.txt: hashed, without addresses, and in step with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.house.source_tree import ROOT

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: ;[^\\]*)?) \\$")


@pytest.fixture(scope="module")
def constraints() -> str:
    return Path(ROOT / "constraints.txt").read_text()


@pytest.fixture(scope="module")
def pins(constraints: str) -> dict[str, str]:
    """Versions by normalised name."""
    lines = (PINNED.match(line) for line in constraints.splitlines())
    return {canonicalize_name(found[1]): found[2] for found in lines if found}


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras and build included."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(), document["build-system"]["requires"]]
    return [Requirement(text) for group in groups for text in group]


def test_no_addresses(constraints: str) -> None:
    """No registry, index or other address is named."""
    lines = [line for line in constraints.splitlines() if "://" in line or line.startswith("--")]

    assert lines == []


def test_every_requirement_has_a_hash(constraints: str) -> None:
    """Every entry is pinned to one version and followed by at least one hash."""
    code = [line for line in constraints.splitlines() if not line.lstrip().startswith("#")]
    entries = [i for i, line in enumerate(code) if line and not line.startswith(" ")]

    assert [code[i] for i in entries if not PINNED.match(code[i])] == []
    assert [code[i] for i in entries if not code[i + 1].strip().startswith("--hash=sha256:")] == []


def test_project_is_satisfied(pins: dict[str, str]) -> None:
    """Every dependency of pyproject.toml is pinned to a version that it allows."""
    found = [
        str(wanted)
        for wanted in requirements()
        if not wanted.specifier.contains(pins.get(canonicalize_name(wanted.name), "0"), prereleases=True)
    ]

    assert found == []


def test_build_tools_are_pinned(pins: dict[str, str]) -> None:
    """An install without build isolation finds its tools."""
    assert {"setuptools", "wheel"} <= set(pins)
