"""registry.v1.CompatibilityService and ValidationService over a real channel."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import compatibility_pb2, compatibility_service_pb2, schema_pb2, version_pb2
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from tests.fix_calls import Registry

Name = Callable[..., str]
JSON = schema_pb2.SCHEMA_FORMAT_JSON
LEVELS = {
    name.removeprefix("COMPATIBILITY_LEVEL_"): value
    for name, value in compatibility_pb2.CompatibilityLevel.items()
    if value
}


async def check(calls: Registry, subject: str, schema: object, **fields: Any) -> compatibility_pb2.CompatibilityReport:
    request = compatibility_service_pb2.CheckCompatibilityRequest(
        subject=subject, format=JSON, text=json.dumps(schema), **fields
    )
    return (await calls.call(calls.compatibility.CheckCompatibility, request)).report


@pytest.mark.parametrize(
    ("level", "checked"),
    [
        ("NONE", []),
        ("BACKWARD", [3]),
        ("FORWARD", [3]),
        ("FULL", [3]),
        ("BACKWARD_TRANSITIVE", [3, 2, 1]),
        ("FORWARD_TRANSITIVE", [3, 2, 1]),
        ("FULL_TRANSITIVE", [3, 2, 1]),
    ],
)
async def test_each_level_looks_at_its_history(calls: Registry, name: Name, level: str, checked: list[int]) -> None:
    """The report says which versions were compared, and shows what breaks by a witness."""
    subject = name()
    await calls.versions(subject, 3)

    report = await check(calls, subject, {"minimum": 9}, level=LEVELS[level])

    assert list(report.checked_versions) == checked
    assert report.level == LEVELS[level]
    expected = compatibility_pb2.VERDICT_INCOMPATIBLE if checked else compatibility_pb2.VERDICT_COMPATIBLE
    assert report.verdict == expected
    directions = 2 if level.startswith("FULL") else 1
    assert len(report.findings) == len(checked) * directions
    for finding in report.findings:
        rule = "MINIMUM_REJECTS" if finding.candidate_reads else "MAXIMUM_REJECTS"
        assert (finding.rule, finding.verdict) == (rule, compatibility_pb2.VERDICT_INCOMPATIBLE)
        witness = json.loads(finding.witness.text)
        assert witness <= finding.version if finding.candidate_reads else witness >= 9
        assert finding.message
        assert finding.remedy


async def test_the_level_in_force_is_the_default(calls: Registry, name: Name) -> None:
    """Without a level the subject's own counts."""
    subject = name()
    await calls.versions(subject, 2)
    await calls.level(subject, compatibility_pb2.COMPATIBILITY_LEVEL_FORWARD_TRANSITIVE)

    report = await check(calls, subject, {"type": "null"})

    assert (report.level, list(report.checked_versions)) == (LEVELS["FORWARD_TRANSITIVE"], [2, 1])
    assert not any(finding.candidate_reads for finding in report.findings)


async def test_one_version_can_be_asked_for(calls: Registry, name: Name) -> None:
    """`version` compares with that one alone."""
    subject = name()
    await calls.versions(subject, 3)

    report = await check(calls, subject, {"maximum": 1, "title": subject}, version=1, level=LEVELS["FULL"])

    assert list(report.checked_versions) == [1]
    assert report.verdict == compatibility_pb2.VERDICT_COMPATIBLE
    with pytest.raises(errors.VersionNotFound):
        await check(calls, subject, {}, version=9)


async def test_a_name_without_versions_is_compatible_with_everything(calls: Registry, name: Name) -> None:
    """There is nobody to break."""
    report = await check(calls, name(), {"type": "null"})

    assert (report.verdict, list(report.findings)) == (compatibility_pb2.VERDICT_COMPATIBLE, [])


async def test_what_is_no_schema_is_not_compared(calls: Registry, name: Name) -> None:
    """A candidate that is invalid is an error, with its places."""
    with pytest.raises(errors.InvalidSchema):
        await check(calls, name(), {"type": "strin"})


async def test_a_schema_is_validated_without_registering_it(calls: Registry) -> None:
    """Valid, invalid and doubtful schemas are answers."""

    async def validate(text: str) -> pb.ValidateSchemaResponse:
        return await calls.call(calls.validation.ValidateSchema, pb.ValidateSchemaRequest(format=JSON, text=text))

    good = await validate('{"type": "object"}')
    bad = await validate('{"type": "strin", "properties": {"a": {"minLength": -1}}}')
    doubtful = await validate('{"tpye": "object"}')
    broken = await validate('{"type": ')

    assert (good.valid, list(good.errors), list(good.warnings)) == (True, [], [])
    assert not bad.valid
    assert {error.instance_path for error in bad.errors} == {"/type", "/properties/a/minLength"}
    assert doubtful.valid
    assert [warning.instance_path for warning in doubtful.warnings] == ["/tpye"]
    assert not broken.valid
    assert "line 1" in broken.errors[0].message


async def test_data_is_validated_by_id_and_by_version(calls: Registry, name: Name) -> None:
    """Every error has its place in the data and in the schema."""
    subject = name()
    schema = {"type": "object", "required": ["id"], "properties": {"tags": {"items": {"type": "string"}}}}
    made = await calls.register(subject, schema)
    data = b'{"tags": ["a", 1]}'

    by_id = await calls.call(calls.validation.ValidateData, pb.ValidateDataRequest(schema_id=made.schema.id, data=data))
    by_version = await calls.call(
        calls.validation.ValidateData,
        pb.ValidateDataRequest(version=version_pb2.VersionKey(subject=subject, number=1), data=data),
    )
    latest = await calls.call(
        calls.validation.ValidateData,
        pb.ValidateDataRequest(version=version_pb2.VersionKey(subject=subject), data=b'{"id": 1}'),
    )

    assert by_id == by_version
    assert (by_id.valid, by_id.schema_id) == (False, made.schema.id)
    found = {(error.instance_path, error.schema_path, error.keyword) for error in by_id.errors}
    assert found == {("", "/required", "required"), ("/tags/1", "/properties/tags/items/type", "type")}
    assert latest.valid


async def test_data_is_validated_through_references(calls: Registry, name: Name) -> None:
    """A schema with references is compiled with what they lead to, also after the referenced name moved on."""
    base, user = name("base"), name("user")
    await calls.register(base, {"type": "string"})
    reference = schema_pb2.Reference(name="base.json", subject=base, version=1)
    made = await calls.register(user, {"items": {"$ref": "base.json"}}, references=[reference])
    await calls.level(base)
    await calls.register(base, {"type": "integer"})

    answer = await calls.call(
        calls.validation.ValidateData, pb.ValidateDataRequest(schema_id=made.schema.id, data=b'["a", 1]')
    )

    assert [error.instance_path for error in answer.errors] == ["/1"]


async def test_formats_are_asserted_on_request(calls: Registry, name: Name) -> None:
    """`format` counts only with assert_formats."""
    made = await calls.register(name(), {"format": "email"})

    async def valid(*, assert_formats: bool) -> bool:
        request = pb.ValidateDataRequest(schema_id=made.schema.id, data=b'"nobody"', assert_formats=assert_formats)
        return (await calls.call(calls.validation.ValidateData, request)).valid

    assert await valid(assert_formats=False)
    assert not await valid(assert_formats=True)


@pytest.mark.parametrize(
    ("request_", "at_fault"),
    [
        (pb.ValidateDataRequest(data=b"1"), "key"),
        (pb.ValidateDataRequest(schema_id=-1, data=b"1"), "schema_id"),
        (pb.ValidateDataRequest(version=version_pb2.VersionKey(), data=b"1"), "version.subject"),
        (pb.ValidateDataRequest(schema_id=1, data=b"x" * ((1 << 20) + 1)), "data"),
    ],
)
async def test_bad_fields_are_named(calls: Registry, request_: pb.ValidateDataRequest, at_fault: str) -> None:
    """The violation names the field."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.validation.ValidateData, request_)

    assert at_fault in {violation.field for violation in caught.value.violations}


async def test_unreadable_data_is_a_bad_request(calls: Registry, name: Name) -> None:
    """Broken JSON is the caller's mistake, with its place."""
    made = await calls.register(name(), {})

    with pytest.raises(errors.InvalidField, match="line 1, column 2"):
        await calls.call(calls.validation.ValidateData, pb.ValidateDataRequest(schema_id=made.schema.id, data=b"{"))
