"""Real .proto files: all of googleapis-common-protos go through the registry, with their imports as references."""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from services.registry.adapters.protoc import compile_files
from services.registry.domain.formats.protobuf.compiling import Files
from tests.fix_calls import Registry

PROTOBUF = schema_pb2.SCHEMA_FORMAT_PROTOBUF
LEAST_FILES = 40
IMPORT = re.compile(r'^import (?:public |weak )?"([^"]+)";', re.MULTILINE)


def root() -> Path:
    """Where googleapis-common-protos has put its files."""
    spec = importlib.util.find_spec("google.rpc")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))).parent.parent


def real_files() -> dict[str, str]:
    """Texts by import path, those that are imported before those that import them."""
    found = {
        str(path.relative_to(root())): path.read_text(encoding="utf-8")
        for pattern in ("google/*/*.proto", "google/*/*/*.proto")
        for path in root().glob(pattern)
    }
    known = {name: text for name, text in found.items() if not name.startswith("google/protobuf/")}
    ordered: dict[str, str] = {}

    def add(name: str) -> None:
        if name in known and name not in ordered:
            for imported in IMPORT.findall(known[name]):
                add(imported)
            ordered[name] = known[name]

    for name in sorted(known):
        add(name)
    return ordered


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """All of them."""
    found = real_files()
    assert len(found) >= LEAST_FILES
    return found


@pytest.mark.timeout(180)
async def test_real_files_go_in_and_come_out_the_same(calls: Registry, files: dict[str, str]) -> None:
    """Registered with what they import, read back letter for letter, found again as descriptors."""
    for path, text in files.items():
        references = [
            schema_pb2.Reference(name=imported, subject=f"proto/{imported}", version=1)
            for imported in IMPORT.findall(text)
            if imported in files
        ]
        made = await calls.register(f"proto/{path}", text, format=PROTOBUF, references=references)
        read = await calls.schema(made.schema.id)
        assert read.text == text
        assert list(read.references) == references

        compiled = compile_files(Files("root.proto", {"root.proto": text} | reached(files, text), {}))
        descriptor = descriptor_pb2.FileDescriptorSet.FromString(compiled.descriptor_set).file[-1]
        asked = schema_service_pb2.LookupSchemaRequest(
            format=PROTOBUF,
            text=base64.b64encode(descriptor.SerializeToString()).decode(),
            references=references,
        )
        assert (await calls.call(calls.schemas.LookupSchema, asked)).schema.id == made.schema.id
        again = await calls.register(
            f"proto/{path}", f"// Another comment.\n{text}", format=PROTOBUF, references=references
        )
        assert again.version == made.version


def reached(files: dict[str, str], text: str) -> dict[str, str]:
    """What a text imports, directly or through others."""
    found: dict[str, str] = {}
    waiting = IMPORT.findall(text)
    while waiting:
        name = waiting.pop()
        if name in files and name not in found:
            found[name] = files[name]
            waiting.extend(IMPORT.findall(files[name]))
    return found
