"""Protobuf over a real channel: registered, resolved, compared and validated like the other formats."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import (
    compatibility_pb2,
    compatibility_service_pb2,
    schema_pb2,
    validation_service_pb2,
)
from tests.fix_calls import Registry

Name = Callable[..., str]
PROTOBUF = schema_pb2.SCHEMA_FORMAT_PROTOBUF
EXACT = compatibility_pb2.COMPATIBILITY_POLICY_EXACT


def message(*fields: str, name: str = "Order", before: str = "") -> str:
    """A proto3 file with one message."""
    lines = "\n".join(f"  {field};" for field in fields)
    return f'syntax = "proto3";\npackage shop;\n{before}\nmessage {name} {{\n{lines}\n}}\n'


async def check(calls: Registry, schema_id: int, data: bytes, **fields: object) -> list[tuple[str, str]]:
    """(path, message) of everything that is wrong with a payload."""
    request = validation_service_pb2.ValidateDataRequest(schema_id=schema_id, data=data, **fields)  # type: ignore[arg-type]
    answer = await calls.call(calls.validation.ValidateData, request)
    assert answer.valid == (not answer.errors)
    return [(error.instance_path, error.message) for error in answer.errors]


async def test_text_and_descriptor_are_one_schema(calls: Registry, name: Name) -> None:
    """White space and comments do not count, and a serialized FileDescriptorProto is the same content."""
    text = message("int64 id = 1", name="Message" + name().replace("-", ""))
    file = descriptor_pb2.FileDescriptorProto(name="any.proto", package="shop", syntax="proto3")
    file.message_type.add(name=text.partition("message ")[2].partition(" ")[0]).field.add(
        name="id", number=1, label="LABEL_OPTIONAL", type="TYPE_INT64", json_name="id"
    )

    first = await calls.register(name(), text, format=PROTOBUF)
    spaced = await calls.register(name(), text.replace("  int64", "\n  // Its number.\n  int64  "), format=PROTOBUF)
    binary = await calls.register(name(), base64.b64encode(file.SerializeToString()).decode(), format=PROTOBUF)

    assert first.schema.id == spaced.schema.id == binary.schema.id
    assert spaced.schema.text == text


async def test_imports_come_from_references(calls: Registry, name: Name) -> None:
    """A reference's name is the path that the text imports; the well-known types need none."""
    address, order = name("address"), name("order")
    await calls.register(address, message("string street = 1", name="Address"), format=PROTOBUF)
    imports = 'import "shop/address.proto";\nimport "google/protobuf/timestamp.proto";'
    text = message("Address to = 1", "google.protobuf.Timestamp at = 2", before=imports)
    reference = schema_pb2.Reference(name="shop/address.proto", subject=address, version=1)

    made = await calls.register(order, text, format=PROTOBUF, references=[reference])

    good = b'{"to": {"street": "High"}, "at": "2026-01-01T00:00:00Z"}'
    assert await check(calls, made.schema.id, good) == []
    assert [path for path, _ in await check(calls, made.schema.id, b'{"to": {"street": 7}}')] == ["/to/street"]
    with pytest.raises(errors.InvalidSchema, match=r"shop/address\.proto"):
        await calls.register(name(), text, format=PROTOBUF)


async def test_data_in_every_encoding(calls: Registry, name: Name) -> None:
    """ProtoJSON, binary, and the framed form with message indexes; the message is chosen by its name."""
    text = message("int32 id = 1") + "message Line { string text = 1; }\n"
    made = await calls.register(name(), text, format=PROTOBUF)
    frame = b"\0" + made.schema.id.to_bytes(4, "big")
    binary = validation_service_pb2.DATA_ENCODING_BINARY
    framed = validation_service_pb2.DATA_ENCODING_FRAMED

    assert await check(calls, made.schema.id, b'{"id": 1}') == []
    assert await check(calls, made.schema.id, b"\x08\x01", encoding=binary) == []
    assert await check(calls, made.schema.id, b"\x0a\x01x", encoding=binary, message_type="shop.Line") == []
    assert await check(calls, made.schema.id, frame + b"\0\x08\x01", encoding=framed) == []
    assert await check(calls, made.schema.id, frame + b"\x02\x02\x0a\x01x", encoding=framed) == []
    assert await check(calls, made.schema.id, b"\x08", encoding=binary) != []
    assert await check(calls, made.schema.id, b"\x10\x01", encoding=binary) == []
    strict = validation_service_pb2.VALIDATION_MODE_STRICT
    assert await check(calls, made.schema.id, b"\x10\x01", encoding=binary, mode=strict) != []
    with pytest.raises(errors.InvalidField) as caught:
        await check(calls, made.schema.id, b"{}", message_type="shop.Lime")
    assert [violation.field for violation in caught.value.violations] == ["message_type"]


async def test_rules_by_policy(calls: Registry, name: Name) -> None:
    """STRICT lets a field be renamed; EXACT shows what ProtoJSON loses by it."""
    subject = name()
    await calls.register(subject, message("string id = 1"), format=PROTOBUF)
    renamed = message("string key = 1")

    async def report(**fields: object) -> compatibility_pb2.CompatibilityReport:
        request = compatibility_service_pb2.CheckCompatibilityRequest(
            subject=subject,
            format=PROTOBUF,
            text=renamed,
            **fields,  # type: ignore[arg-type]
        )
        return (await calls.call(calls.compatibility.CheckCompatibility, request)).report

    assert (await report()).verdict == compatibility_pb2.VERDICT_COMPATIBLE
    exact = await report(policy=EXACT)
    assert exact.verdict == compatibility_pb2.VERDICT_INCOMPATIBLE
    assert exact.findings[0].witness.text
    with pytest.raises(errors.IncompatibleSchema) as caught:
        await calls.register(subject, message("fixed64 id = 1"), format=PROTOBUF)
    assert any("FIELD_SCALAR_KIND_CHANGED" in violation.description for violation in caught.value.violations)


async def test_an_invalid_text_says_where(calls: Registry, name: Name) -> None:
    """Line and column, as the compiler gives them; nothing is written."""
    subject = name()

    with pytest.raises(errors.InvalidSchema, match="line 5, column"):
        await calls.register(subject, message("strin id = 1"), format=PROTOBUF)
    with pytest.raises(errors.SubjectNotFound):
        await calls.version(subject, 1)
