"""Avro over a real channel: registered, resolved, compared and validated like JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import (
    compatibility_pb2,
    compatibility_service_pb2,
    schema_pb2,
    schema_service_pb2,
    validation_service_pb2,
)
from tests.fix_calls import Registry

Name = Callable[..., str]
AVRO = schema_pb2.SCHEMA_FORMAT_AVRO


def record(*fields: dict[str, object], name: str = "Order") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


ID: dict[str, object] = {"name": "id", "type": "long"}


async def register(
    calls: Registry, subject: str, text: str, references: list[schema_pb2.Reference] | None = None
) -> schema_service_pb2.RegisterSchemaResponse:
    request = schema_service_pb2.RegisterSchemaRequest(
        subject=subject, format=AVRO, text=text, references=references or []
    )
    return await calls.call(calls.schemas.RegisterSchema, request)


async def test_an_optional_field_may_be_added_and_a_required_one_may_not(calls: Registry, name: Name) -> None:
    """BACKWARD by Avro's rules; the refusal names the rule, the place and the remedy."""
    subject = name()
    await register(calls, subject, record(ID))

    second = await register(calls, subject, record(ID, {"name": "note", "type": "string", "default": ""}))
    with pytest.raises(errors.IncompatibleSchema) as caught:
        await register(calls, subject, record(ID, {"name": "total", "type": "double"}))

    assert second.version.number == 2
    assert caught.value.metadata["verdict"] == "INCOMPATIBLE"
    assert any("READER_FIELD_MISSING_DEFAULT_VALUE" in violation.description for violation in caught.value.violations)


async def test_levels_look_in_their_direction(calls: Registry, name: Name) -> None:
    """int to long can be read backward and not forward."""
    subject = name()
    await register(calls, subject, record({"name": "id", "type": "int"}))

    async def verdict(level: compatibility_pb2.CompatibilityLevel.ValueType) -> compatibility_pb2.Verdict.ValueType:
        request = compatibility_service_pb2.CheckCompatibilityRequest(
            subject=subject, format=AVRO, text=record(ID), level=level
        )
        return (await calls.call(calls.compatibility.CheckCompatibility, request)).report.verdict

    assert await verdict(compatibility_pb2.COMPATIBILITY_LEVEL_BACKWARD) == compatibility_pb2.VERDICT_COMPATIBLE
    assert await verdict(compatibility_pb2.COMPATIBILITY_LEVEL_FORWARD) == compatibility_pb2.VERDICT_INCOMPATIBLE
    assert await verdict(compatibility_pb2.COMPATIBILITY_LEVEL_FULL) == compatibility_pb2.VERDICT_INCOMPATIBLE


async def test_a_change_of_the_format_is_incompatible(calls: Registry, name: Name) -> None:
    """At every level but NONE."""
    subject = name()
    await calls.register(subject, {"type": "object"})

    with pytest.raises(errors.IncompatibleSchema, match="AVRO"):
        await register(calls, subject, record(ID))


async def test_named_types_come_from_references(calls: Registry, name: Name) -> None:
    """A reference's name is the full name of the type that its version defines."""
    address, order = name("address"), name("order")
    await register(calls, address, record({"name": "street", "type": "string"}, name="Address"))
    reference = schema_pb2.Reference(name="Address", subject=address, version=1)

    made = await register(calls, order, record({"name": "to", "type": "Address"}), [reference])

    request = validation_service_pb2.ValidateDataRequest(schema_id=made.schema.id, data=b'{"to": {"street": 7}}')
    answer = await calls.call(calls.validation.ValidateData, request)
    assert [error.instance_path for error in answer.errors] == ["/to/street"]
    with pytest.raises(errors.InvalidSchema, match="Address"):
        await register(calls, name(), record({"name": "to", "type": "Address"}))


async def test_documentation_and_spelling_do_not_change_the_meaning(calls: Registry, name: Name) -> None:
    """Two texts, two ids, one meaning: found by it, and one id with normalize."""
    documented = record({**ID, "doc": "of the order"}, name=name("O").replace("-", "_"))
    plain = json.dumps({**json.loads(documented), "fields": [ID]})
    first = await register(calls, name(), documented)

    second = await register(calls, name(), plain)
    request = schema_service_pb2.RegisterSchemaRequest(subject=name(), format=AVRO, text=plain + " ", normalize=True)
    normalized = await calls.call(calls.schemas.RegisterSchema, request)

    assert second.schema.id != first.schema.id
    assert second.schema.semantic_fingerprint == first.schema.semantic_fingerprint
    assert normalized.schema.id == first.schema.id


async def test_an_invalid_schema_names_every_place(calls: Registry, name: Name) -> None:
    """A bad default and a bad name are two violations."""
    bad = record({"name": "id", "type": "int", "default": "x"}, {"name": "no-dash", "type": "string"})

    with pytest.raises(errors.InvalidSchema) as caught:
        await register(calls, name(), bad)

    assert {violation.field for violation in caught.value.violations} == {"text/fields/0/default", "text/fields/1/name"}
