"""The protos: every method is documented and carries its policy; reasons and error classes are the same set."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from llm_schema_registry import errors
from llm_schema_registry.common.v1 import method_policy_pb2 as policies
from llm_schema_registry.common.v1 import service_state_pb2 as states
from protos import generate

REASON_PREFIX = "ERROR_REASON_"
SERVICE_FIELD = FileDescriptorProto.SERVICE_FIELD_NUMBER
METHOD_FIELD = 2
ENUM_FIELD = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
VALUE_FIELD = 2
"""Numbers of `ServiceDescriptorProto.method` and `EnumDescriptorProto.value` in the paths of source locations."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC with its comment."""

    name: str
    comment: str
    descriptor: MethodDescriptorProto

    @property
    def policy(self) -> policies.MethodPolicy:
        return self.descriptor.options.Extensions[policies.policy]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    """All our protos with their comments."""
    output = tmp_path_factory.mktemp("contract") / "set.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{generate.PROTOS}"),
            *(f"-I{files('grpc_tools') / '_proto'}", "--include_source_info", f"--descriptor_set_out={output}"),
            *map(str, generate.sources()),
        ],
        check=True,
    )
    return FileDescriptorSet.FromString(output.read_bytes())


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Leading comments by the path of what they stand above, white space folded."""
    return {
        tuple(location.path): " ".join(location.leading_comments.split()) for location in file.source_code_info.location
    }


def methods(contract: FileDescriptorSet) -> Iterator[Method]:
    """Every RPC of the contract."""
    for file in contract.file:
        said = comments(file)
        for i, service in enumerate(file.service):
            for j, descriptor in enumerate(service.method):
                name = f"{file.package}.{service.name}/{descriptor.name}"
                yield Method(name, said.get((SERVICE_FIELD, i, METHOD_FIELD, j), ""), descriptor)


def reasons(contract: FileDescriptorSet) -> dict[str, str]:
    """Reasons without their prefix, each with the code that its comment begins with."""
    file = next(file for file in contract.file if file.name.endswith("common/v1/error_reason.proto"))
    said = comments(file)
    return {
        value.name.removeprefix(REASON_PREFIX): said[(ENUM_FIELD, 0, VALUE_FIELD, i)].partition(":")[0]
        for i, value in enumerate(file.enum_type[0].value)
        if value.number != 0
    }


def test_methods_are_documented(contract: FileDescriptorSet) -> None:
    """The comment of every RPC begins with its name and has something to say."""
    found = [
        method.name
        for method in methods(contract)
        if not method.comment.startswith(f"{method.descriptor.name} ") or len(method.comment.split()) < 5
    ]

    assert found == []


def test_documented_reasons_exist(contract: FileDescriptorSet) -> None:
    """A reason that the comment of an RPC names is one of error_reason.proto."""
    known = reasons(contract)
    words = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")
    state_names = {name.removeprefix("SERVICE_STATE_") for name, _ in states.ServiceState.items()}
    found = [
        (method.name, word)
        for method in methods(contract)
        for failures in re.findall(r"[Ff]ails? with ([^.]*)\.", method.comment)
        for word in words.findall(failures)
        if word not in known and word not in state_names
    ]

    assert found == []


def test_methods_carry_a_whole_policy(contract: FileDescriptorSet) -> None:
    """Every RPC says its role, the states it is allowed in, and a deadline unless only its caller ends it."""
    found = []
    for method in methods(contract):
        policy = method.policy
        allowed = set(policy.allowed_states)
        if policy.role == policies.ROLE_UNSPECIFIED:
            found.append((method.name, "role"))
        if not allowed or states.SERVICE_STATE_UNSPECIFIED in allowed:
            found.append((method.name, "allowed_states"))
        if not method.descriptor.server_streaming and policy.default_deadline.ToTimedelta().total_seconds() <= 0:
            found.append((method.name, "default_deadline"))

    assert found == []


def test_what_is_repeated_is_idempotent(contract: FileDescriptorSet) -> None:
    """Our channel repeats no call whose repeat is not safe."""
    found = [method.name for method in methods(contract) if method.policy.retryable and not method.policy.idempotent]

    assert found == []


def test_every_reason_has_its_class(contract: FileDescriptorSet) -> None:
    """error_reason.proto and errors.py name the same reasons with the same codes."""
    classes = {cls.reason: cls.code.name for cls in errors.family()}

    assert classes == reasons(contract)


def test_no_reason_has_two_classes() -> None:
    """Each reason belongs to one class, and every class that travels is directly below the family's root.

    A program may have refinements of its own, which it never sends.
    """
    found = list(errors.family())

    assert len({cls.reason for cls in found}) == len(found)
    below = [cls for one in found for cls in one.__subclasses__()]
    assert [cls for cls in below if cls.__module__ == errors.__name__] == []


def test_buf_lint() -> None:
    """buf lint STANDARD + COMMENTS finds nothing."""
    answer = subprocess.run(
        [str(Path(sys.executable).parent / "buf"), "lint"],
        cwd=generate.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.stdout + answer.stderr == ""
