"""Every .proto of the installed packages, and every file that their modules were made of, as schemas."""

from __future__ import annotations

import base64
import importlib
import importlib.resources
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import google.rpc
import grpc_health.v1
import grpc_reflection.v1alpha
import grpc_tools
import opentelemetry.proto
import pytest
from google.protobuf.descriptor import FileDescriptor

from services.registry.adapters.protoc import compile_files
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict, worst
from services.registry.domain.formats.protobuf import Protobuf, descriptors

FORMAT = Protobuf(compile_files)
WELL_KNOWN = "google/protobuf/"
WITHOUT_DEFINITIONS = "google/cloud/common_resources.proto"
SITE = Path(next(iter(google.rpc.__path__))).parent.parent
TOOLS = Path(grpc_tools.__file__).parent / "_proto"
MODULES_UNDER = (grpc_health.v1, grpc_reflection.v1alpha, opentelemetry.proto)


def texts() -> dict[str, str]:
    """.proto files by import path: googleapis-common-protos, and the well-known types."""
    found = {str(path.relative_to(SITE)): path.read_text() for path in sorted((SITE / "google").rglob("*.proto"))}
    return found | {str(path.relative_to(TOOLS)): path.read_text() for path in sorted(TOOLS.rglob("*.proto"))}


def modules() -> Iterator[str]:
    """Generated modules of packages that ship no .proto."""
    for package in MODULES_UNDER:
        folder = Path(next(iter(package.__path__)))
        for path in sorted(folder.rglob("*_pb2.py")):
            yield ".".join([package.__name__, *path.relative_to(folder).with_suffix("").parts])


TEXTS = texts()


def imports_of(text: str) -> list[str]:
    """Files that a text imports."""
    lines = (line.split("//")[0].strip() for line in text.splitlines())
    return [line.split('"')[1] for line in lines if line.startswith("import ") and '"' in line]


@cache
def sources_of(name: str) -> dict[str, str]:
    """What a file needs as references, through all its imports."""
    found: dict[str, str] = {}
    waiting = imports_of(TEXTS[name])
    while waiting:
        one = waiting.pop()
        if not one.startswith(WELL_KNOWN) and one not in found:
            found[one] = TEXTS[one]
            waiting += imports_of(TEXTS[one])
    return found


def in_other_form(descriptor_set: bytes) -> str:
    file = descriptors.FileDescriptorSet.FromString(descriptor_set).file[-1]
    return base64.b64encode(file.SerializeToString()).decode()


def test_there_are_files_to_read() -> None:
    """The packages ship what these tests are about."""
    assert len(TEXTS) > 60
    assert len(list(modules())) >= 8


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_is_one_schema_in_both_forms(name: str) -> None:
    """Read with its imports as references, and read back from its descriptor: one identity, one meaning."""
    text = FORMAT.parse(TEXTS[name], sources_of(name))

    back = FORMAT.parse(in_other_form(text.descriptor_set), sources_of(name))

    assert back.identity_body == text.identity_body
    assert back.semantic_body == text.semantic_body
    assert text.annotations or name == WITHOUT_DEFINITIONS


@pytest.mark.parametrize("name", [name for name in TEXTS if not name.startswith("google/api/expr")][::4])
def test_real_files_are_compatible_with_what_they_become(name: str) -> None:
    """With a message more, so that nothing is skipped, each is read by its old and new self under every policy."""
    old = FORMAT.parse(TEXTS[name], sources_of(name))
    new = FORMAT.parse(TEXTS[name] + "\nmessage AddedForThisTest { }\n", sources_of(name))

    for policy in Policy:
        found = list(FORMAT.diff(new, old, Rules(policy)))
        assert worst(found) is Verdict.COMPATIBLE


@pytest.mark.parametrize("name", list(modules()))
def test_every_module_is_a_schema(name: str) -> None:
    """The descriptor of a generated module, with those that it imports as references, all in base64."""
    module: ModuleType = importlib.import_module(name)
    file: FileDescriptor = module.DESCRIPTOR
    sources: dict[str, str] = {}
    waiting = list(file.dependencies)
    while waiting:
        one = waiting.pop()
        if not one.name.startswith(WELL_KNOWN):
            sources[one.name] = base64.b64encode(one.serialized_pb).decode()
            waiting += one.dependencies

    parsed = FORMAT.parse(base64.b64encode(file.serialized_pb).decode(), sources)

    assert FORMAT.parse(in_other_form(parsed.descriptor_set), sources).identity_body == parsed.identity_body
