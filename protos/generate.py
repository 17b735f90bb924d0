"""Generates the Python modules of the protos into shared/, beside the code that imports them.

    python protos/generate.py            generate when stale
    python protos/generate.py --force    generate always

Stale means: the digest over the protos, this file and the versions of the tools differs from the one that the last run
left behind. protoc writes imports equal to the proto path, so the output can stand only where the import path is the
proto path: `shared/` (a source root), next to the hand-written modules of the same package.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import shutil
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUTPUT = ROOT / "shared"
PACKAGE = "llm_schema_registry"
STAMP = OUTPUT / PACKAGE / ".protos.digest"
TOOLS = ("grpcio-tools", "mypy-protobuf", "protobuf")


class GenerationFailed(Exception):
    """protoc refused the protos; what it said is on standard error."""


def sources() -> list[Path]:
    """Every proto file, sorted by path."""
    return sorted((PROTOS / PACKAGE).rglob("*.proto"))


def digest() -> str:
    """Hex digest over everything that the generated code depends on."""
    seen = hashlib.sha256()
    for path in (*sources(), Path(__file__)):
        seen.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for tool in TOOLS:
        seen.update(f"{tool}={importlib.metadata.version(tool)}\n".encode())
    return seen.hexdigest()


def is_stale() -> bool:
    """Whether the generated code is missing or older than what it is made from."""
    return not STAMP.is_file() or STAMP.read_text() != digest()


def ensure() -> bool:
    """Generates when stale and returns whether it did.

    Files of an earlier run that have no proto any more disappear. Raises GenerationFailed; the earlier output is
    untouched then, because protoc writes into a temporary folder first.
    """
    if not is_stale():
        return False
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        _run_protoc(Path(folder))
        for area in sorted((Path(folder) / PACKAGE).iterdir()):
            target = OUTPUT / PACKAGE / area.name / "v1"
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(area / "v1", target)
    STAMP.write_text(digest())
    return True


def _run_protoc(output: Path) -> None:
    """Runs protoc and the stub plugins over all protos at once, in this process."""
    from grpc_tools import protoc  # noqa: PLC0415 - a build tool: the module must import without it

    scripts = Path(sysconfig.get_path("scripts"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={_plugin(scripts, 'protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={_plugin(scripts, 'protoc-gen-mypy_grpc')}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *(str(path) for path in sources()),
    ]
    if protoc.main(arguments) != 0:
        raise GenerationFailed(f"protoc failed on {len(sources())} files under {PROTOS}")


def _plugin(scripts: Path, name: str) -> str:
    """Path of a protoc plugin: beside this interpreter, else (isolated builds) on PATH."""
    beside = scripts / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise GenerationFailed(f"{name} not found: install mypy-protobuf into this environment")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--force", action="store_true", help="generate even when nothing changed")
    if parser.parse_args().force:
        STAMP.unlink(missing_ok=True)
    print("generated" if ensure() else "up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
