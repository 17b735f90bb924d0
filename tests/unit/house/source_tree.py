"""The tree's own files, for the tests that hold it up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE_FOLDERS = ("shared", "services", "deploy", "protos", "tests")
LEFT_BY_TOOLS = frozenset(
    {".venv", ".local", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist"}
    | {"llm_schema_registry.egg-info", ".protos.digest"}
)
GENERATED_SUFFIXES = ("_pb2.py", "_pb2_grpc.py")


def is_generated(path: Path) -> bool:
    """Whether a Python file is made from the protos."""
    return path.name.endswith(GENERATED_SUFFIXES)


def python_files(*folders: str) -> Iterator[Path]:
    """Our Python files in the folders (default: all), as paths relative to the root, without generated ones."""
    for folder in folders or SOURCE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not is_generated(path) and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT)


def kept_files() -> list[Path]:
    """What a commit of everything would hold: tracked files and new ones that are not ignored, as relative paths.

    In a tree that is no git checkout: everything but what tools leave behind.
    """
    if not (ROOT / ".git").exists():
        return [path for path in _all_files() if not LEFT_BY_TOOLS & set(path.parts) and not is_generated(path)]
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = {Path(name.decode()) for name in answer.stdout.split(b"\0") if name}
    return sorted(path for path in names if (ROOT / path).is_file())


def _all_files() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
