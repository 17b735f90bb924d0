"""DiffSchemas and StreamCheckCompatibility."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, version_pb2
from llm_schema_registry.registry.v1 import compatibility_service_pb2 as pb
from tests.fix_calls import Registry

Name = Callable[..., str]
AVRO = schema_pb2.SCHEMA_FORMAT_AVRO
JSON = schema_pb2.SCHEMA_FORMAT_JSON
COMPATIBLE = compatibility_pb2.VERDICT_COMPATIBLE
INCOMPATIBLE = compatibility_pb2.VERDICT_INCOMPATIBLE


def record(*fields: object) -> str:
    """An Avro record."""
    return json.dumps({"type": "record", "name": "R", "fields": fields})


A = {"name": "a", "type": "int"}
B = {"name": "b", "type": "int"}
B_OPTIONAL = {"name": "b", "type": "int", "default": 0}


def text(schema: str, form: schema_pb2.SchemaFormat.ValueType = AVRO) -> pb.SchemaSource:
    """A schema that is not stored."""
    return pb.SchemaSource(text=pb.SchemaText(format=form, text=schema))


async def diff(calls: Registry, before: pb.SchemaSource, after: pb.SchemaSource) -> pb.DiffSchemasResponse:
    """What changed."""
    return await calls.call(calls.compatibility.DiffSchemas, pb.DiffSchemasRequest(before=before, after=after))


async def test_a_breaking_difference_is_a_major_step(calls: Registry) -> None:
    """A required field breaks readers of the later schema, not those of the earlier one."""
    found = await diff(calls, text(record(A)), text(record(A, B)))

    assert (found.backward, found.forward) == (INCOMPATIBLE, COMPATIBLE)
    assert found.suggested_step == pb.VERSION_STEP_MAJOR
    (difference,) = found.differences
    assert (difference.kind, difference.backward, difference.forward) == (
        pb.DIFFERENCE_KIND_ADDED,
        INCOMPATIBLE,
        COMPATIBLE,
    )
    assert difference.before_path == ""
    assert difference.after_path == "/fields/1"
    assert [finding.rule for finding in found.findings] == ["READER_FIELD_MISSING_DEFAULT_VALUE"]


async def test_a_compatible_difference_is_a_minor_step(calls: Registry) -> None:
    """An optional field."""
    found = await diff(calls, text(record(A)), text(record(A, B_OPTIONAL)))

    assert (found.backward, found.suggested_step) == (COMPATIBLE, pb.VERSION_STEP_MINOR)
    assert [difference.kind for difference in found.differences] == [pb.DIFFERENCE_KIND_ADDED]


async def test_words_are_a_patch_and_nothing_is_no_step(calls: Registry, name: Name) -> None:
    """Stored schemas are named by id or version, and compared with texts as well."""
    subject = name()
    made = await calls.register(subject, record(A), format=AVRO)
    stored = pb.SchemaSource(version=version_pb2.VersionKey(subject=subject))
    by_id = pb.SchemaSource(schema_id=made.schema.id)

    same = await diff(calls, stored, by_id)
    words = await diff(calls, by_id, text(record(A | {"doc": "how many"})))

    assert (same.suggested_step, list(same.differences)) == (pb.VERSION_STEP_NONE, [])
    assert (words.backward, words.forward, words.suggested_step) == (COMPATIBLE, COMPATIBLE, pb.VERSION_STEP_PATCH)


async def test_a_diff_of_json_schemas(calls: Registry) -> None:
    """The policy is JSON Schema's own, with a witness for what it refuses."""
    before = text(json.dumps({"type": "object", "properties": {"a": {"type": "string"}}}), JSON)
    after = text(json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}}), JSON)

    found = await diff(calls, before, after)

    assert (found.backward, found.policy) == (INCOMPATIBLE, compatibility_pb2.COMPATIBILITY_POLICY_EXACT)
    (backward, *_) = [finding for finding in found.findings if finding.candidate_reads]
    assert isinstance(json.loads(backward.witness.text)["a"], str)
    assert {difference.after_path for difference in found.differences} == {"/properties/a/type"}


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        (pb.SchemaSource(), text("1"), "before"),
        (text(record(A)), pb.SchemaSource(schema_id=-1), "after.schema_id"),
        (text(record(A)), text("{}", JSON), "after"),
        (text(""), text(record(A)), "before.text.text"),
    ],
)
async def test_bad_sources_are_named(
    calls: Registry, before: pb.SchemaSource, after: pb.SchemaSource, field: str
) -> None:
    """Missing, no id, of another format, empty."""
    with pytest.raises(errors.InvalidField) as caught:
        await diff(calls, before, after)

    assert field in {violation.field for violation in caught.value.violations}


async def test_a_stream_answers_each_question_in_order(calls: Registry, name: Name) -> None:
    """A question that fails is one answer with an error; the stream goes on."""
    subject = name()
    await calls.register(subject, record(A), format=AVRO)
    candidates = {
        "breaks": record(A, B),
        "fits": record(A, B_OPTIONAL),
        "is none": "{",
        "is the same": record(A),
        "x" * 65: record(A),
    }

    async def questions() -> AsyncIterator[pb.StreamCheckCompatibilityRequest]:
        for key, candidate in candidates.items():
            check = pb.CheckCompatibilityRequest(subject=subject, format=AVRO, text=candidate)
            yield pb.StreamCheckCompatibilityRequest(key=key, check=check)

    stream = calls.client.converse(calls.compatibility.StreamCheckCompatibility, questions())
    answers = [answer async for answer in stream]

    assert [answer.key for answer in answers] == [key[:64] for key in candidates]
    assert [answer.report.verdict or answer.error.reason for answer in answers] == [
        INCOMPATIBLE,
        COMPATIBLE,
        "INVALID_SCHEMA",
        COMPATIBLE,
        "INVALID_FIELD",
    ]
    assert answers[2].error.violations
