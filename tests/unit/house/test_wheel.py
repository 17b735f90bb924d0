"""The wheel: built from what a commit holds, installed into an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from protos import generate
from tests.unit.house.source_tree import ROOT, kept_files

ALLOWED_TOP = ("llm_schema_registry",)
SERVER_ONLY = ("psycopg", "redis", "aioboto3", "pydantic", "structlog", "opentelemetry")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, without what git ignores."""
    tree = tmp_path_factory.mktemp("wheel tree")
    for path in kept_files():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path)
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist"]
    answer = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return next((tree / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of an environment with the wheel and its base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("empty environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for name in needed(wheel):
        for path in distribution(name).files or ():
            if ".." not in path.parts and "__pycache__" not in path.parts:
                (packages / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(str(path.locate())), packages / path)
    yield folder / "bin" / "python"
    shutil.rmtree(folder)


def needed(wheel: Path) -> set[str]:
    """Names of what the base wheel needs, with what that needs."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        waiting = BytesParser().parsebytes(archive.read(metadata)).get_all("Requires-Dist", [])
    found: set[str] = set()
    while waiting:
        wanted = Requirement(waiting.pop())
        if wanted.name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found.add(wanted.name)
            waiting.extend(distribution(wanted.name).requires or ())
    return found


def run(interpreter: Path, program: str) -> str:
    answer = subprocess.run(
        [str(interpreter), "-W", "error", "-c", textwrap.dedent(program)],
        cwd=interpreter.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_holds_our_package_only(names: list[str]) -> None:
    """The wheel holds the one package and its metadata: no services, no tests, nothing named `shared`."""
    tops = {name.partition("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(ALLOWED_TOP)


def test_names_no_source_root(wheel: Path) -> None:
    """No module of the wheel imports `shared`, `services`, `deploy` or `tests`."""
    with zipfile.ZipFile(wheel) as archive:
        lines = [
            line
            for name in archive.namelist()
            if name.endswith(".py")
            for line in archive.read(name).decode().splitlines()
            if line.lstrip().startswith(("import ", "from "))
        ]

    assert [line for line in lines if line.split()[1].split(".")[0] in {"shared", "services", "deploy", "tests"}] == []


def test_holds_every_generated_module(names: list[str]) -> None:
    """Each proto has its module, its gRPC module and the stubs of both."""
    stems = [path.relative_to(generate.PROTOS).with_suffix("").as_posix() for path in generate.sources()]
    suffixes = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")

    assert sorted({f"{stem}{suffix}" for stem in stems for suffix in suffixes} - set(names)) == []
    assert "llm_schema_registry/py.typed" in names


def test_imports_with_base_dependencies(environment: Path, names: list[str]) -> None:
    """The client and every generated module import in an empty environment, and pull in nothing of a server."""
    modules = [name[:-3].replace("/", ".") for name in names if name.endswith(("_pb2.py", "_pb2_grpc.py"))]

    loaded = run(
        environment,
        f"""
        import importlib, sys
        for name in {["llm_schema_registry.client", "llm_schema_registry.errors", *modules]!r}:
            importlib.import_module(name)
        print(*(name for name in sys.modules if name.partition(".")[0] in {SERVER_ONLY!r}))
        """,
    )

    assert loaded.split() == []


def test_environment_has_no_server_packages(environment: Path) -> None:
    """The environment of these tests proves what it should: a server's package is not there."""
    answer = run(environment, f"import importlib.util as u; print(*(n for n in {SERVER_ONLY!r} if u.find_spec(n)))")

    assert answer.split() == []
