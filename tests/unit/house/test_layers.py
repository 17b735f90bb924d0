"""The layers: who imports whom, and that the domain is pure."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.unit.house.import_rules import impurities, violations
from tests.unit.house.source_tree import ROOT, python_files


def test_imports_keep_to_the_layers() -> None:
    """Every import of our code goes where the table of layers allows."""
    found = [
        line
        for path in python_files()
        for line in violations(PurePosixPath(path.as_posix()), (ROOT / path).read_text())
    ]

    assert found == []


def test_domain_is_pure() -> None:
    """The domain awaits nothing, opens nothing and asks no clock."""
    found = [
        line
        for path in python_files("services")
        if "domain" in path.parts
        for line in impurities(PurePosixPath(path.as_posix()), (ROOT / path).read_text())
    ]

    assert found == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("services/registry/domain/model.py", "import psycopg"),
        ("services/registry/domain/model.py", "from llm_schema_registry.registry.v1 import schema_pb2"),
        ("services/registry/domain/model.py", "import asyncio"),
        ("services/registry/ports.py", "from services.registry.usecases import register"),
        ("services/registry/usecases/register.py", "from services.registry.adapters import postgres"),
        ("services/registry/usecases/register.py", "import grpc"),
        ("services/registry/handlers/schema.py", "from services.registry.adapters import postgres"),
        ("services/registry/handlers/schema.py", "import psycopg"),
        ("services/registry/adapters/postgres.py", "from services.registry.usecases import register"),
        ("services/registry/app.py", "from services.backup import app"),
        ("services/registry/app.py", "from shared.llm_schema_registry import errors"),
        ("shared/llm_schema_registry/errors.py", "import grpc"),
        ("shared/llm_schema_registry/kernel/server.py", "from services.registry import app"),
        ("shared/llm_schema_registry/client/channel.py", "from llm_schema_registry.kernel import clock"),
        ("shared/llm_schema_registry/client/channel.py", "import redis"),
        ("deploy/local/launcher.py", "from services.registry import app"),
        ("services/registry/usecases/register.py", "from ..adapters import postgres"),
    ],
)
def test_a_wrong_import_is_seen(path: str, line: str) -> None:
    """The check refuses what the layers forbid."""
    assert list(violations(PurePosixPath(path), f"def f():\n    {line}\n")) != []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("services/registry/domain/formats/jsonschema/language.py", "import jsonschema_rs"),
        ("services/registry/usecases/register.py", "import asyncio"),
        ("services/registry/adapters/postgres.py", "from services.registry.codec import nouns"),
        ("services/registry/handlers/schema.py", "from llm_schema_registry.registry.v1 import schema_service_pb2"),
        ("services/registry/app.py", "from services.registry.adapters import postgres"),
    ],
)
def test_a_right_import_is_not(path: str, line: str) -> None:
    """The check lets pass what the layers allow."""
    assert list(violations(PurePosixPath(path), line)) == []


@pytest.mark.parametrize("source", ["async def f(): ...", "open('x')", "datetime.now(UTC)", "date.today()"])
def test_an_impurity_is_seen(source: str) -> None:
    """The check refuses what is not pure."""
    assert list(impurities(PurePosixPath("services/registry/domain/model.py"), source)) != []
