"""`llmsr config` against running services."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fix_service import CONTROL_TOKEN, Service

Llmsr = Callable[..., Any]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the token of the test services."""
    path = tmp_path / "token"
    path.write_text(CONTROL_TOKEN + "\n")
    return path


def test_config_of_a_running_registry(llmsr: Llmsr, registry: Service, token_file: Path) -> None:
    """Every option is shown with value and source; secrets are stars."""
    ran = llmsr("--output", "json", "--target", registry.target, "config", "show", "--token-file", str(token_file))

    assert ran.status == 0, ran.stderr
    options = {row["option"]: row for row in json.loads(ran.stdout)["options"]}
    assert options["server.local_mode"]["value"] == "true"
    assert options["server.local_mode"]["source"].startswith("environment SCHEMA_REGISTRY__")
    assert options["database.url"]["value"] == "********"
    assert options["limits.data_bytes_max"]["source"] == "default"
    assert CONTROL_TOKEN not in ran.stdout


def test_only_what_is_changed(llmsr: Llmsr, registry: Service, token_file: Path) -> None:
    """--changed leaves out what is at its default."""
    ran = llmsr("--target", registry.target, "config", "show", "--changed", "--token-file", str(token_file))

    assert "server.local_mode" in ran.stdout
    assert "limits.data_bytes_max" not in ran.stdout


def test_config_needs_the_token(llmsr: Llmsr, registry: Service, tmp_path: Path) -> None:
    """Without the token it is refused; a file without one is a fault of usage."""
    (tmp_path / "empty").write_text("")

    refused = llmsr("--target", registry.target, "config", "show")
    empty = llmsr("--target", registry.target, "config", "show", "--token-file", str(tmp_path / "empty"))

    assert refused.status == 1
    assert "CREDENTIAL_INVALID" in refused.stderr
    assert empty.status == 2
