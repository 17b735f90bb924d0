"""Settings of subjects and of everyone: which are in force, and what they change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import (
    compatibility_pb2,
    compatibility_service_pb2,
    schema_pb2,
    subject_pb2,
    validation_service_pb2,
    version_pb2,
)
from llm_schema_registry.registry.v1 import subject_service_pb2 as pb
from tests.fix_calls import Registry

Name = Callable[..., str]
EXACT = compatibility_pb2.COMPATIBILITY_POLICY_EXACT
STRICT = compatibility_pb2.COMPATIBILITY_POLICY_STRICT
LENIENT = compatibility_pb2.COMPATIBILITY_POLICY_LENIENT


async def change(calls: Registry, subject: str, mask: list[str] | None = None, **values: object) -> subject_pb2.Config:
    """Changes settings and returns those in force."""
    request = pb.UpdateConfigRequest(
        subject=subject,
        config=subject_pb2.Config(**values),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=mask) if mask else None,
    )
    return (await calls.call(calls.subjects.UpdateConfig, request)).config


async def test_what_is_not_named_stays(calls: Registry, name: Name) -> None:
    """Each update sets what it gives and leaves the rest; a reset unsets what its mask names."""
    subject = name()

    await change(calls, subject, compatibility_policy=LENIENT)
    await change(calls, subject, declared_properties_only=False, assert_formats=True)
    both = await change(calls, subject, ["reader_fills_defaults"], reader_fills_defaults=True, assert_formats=False)
    request = pb.ResetConfigRequest(subject=subject, reset_mask=FieldMask(paths=["compatibility_policy"]))
    after = (await calls.call(calls.subjects.ResetConfig, request)).config

    assert (both.compatibility_policy, both.declared_properties_only) == (LENIENT, False)
    assert (both.reader_fills_defaults, both.assert_formats) == (True, True)
    assert list(both.inherited_fields) == ["compatibility_level"]
    assert after.compatibility_policy == compatibility_pb2.COMPATIBILITY_POLICY_UNSPECIFIED
    assert list(after.inherited_fields) == ["compatibility_level", "compatibility_policy"]
    assert (after.declared_properties_only, after.assert_formats) == (False, True)


@pytest.mark.parametrize(
    ("mask", "values", "field"),
    [
        (["compatibility_policy"], {}, "config.compatibility_policy"),
        (["assert_formats"], {}, "config.assert_formats"),
        (None, {"compatibility_policy": 99}, "config.compatibility_policy"),
        (["colour"], {}, "update_mask"),
        (None, {}, "config"),
    ],
)
async def test_bad_settings_are_named(
    calls: Registry, name: Name, mask: list[str] | None, values: dict[str, object], field: str
) -> None:
    """A setting without a value, an unknown value, an unknown setting, nothing at all."""
    with pytest.raises(errors.InvalidField) as caught:
        await change(calls, name(), mask, **values)

    assert field in {violation.field for violation in caught.value.violations}


async def test_a_report_says_what_it_was_made_by(calls: Registry, name: Name) -> None:
    """The policy and the assumptions in force, or those that the question names."""
    subject = name()
    await calls.register(subject, {"type": "object"})
    await change(calls, subject, declared_properties_only=False)
    question = compatibility_service_pb2.CheckCompatibilityRequest(
        subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text='{"type": "object", "title": "same"}'
    )

    own = (await calls.call(calls.compatibility.CheckCompatibility, question)).report
    question.policy = STRICT
    question.assumptions.reader_fills_defaults = True
    asked = (await calls.call(calls.compatibility.CheckCompatibility, question)).report

    assert (own.policy, own.assumptions.declared_properties_only, own.assumptions.reader_fills_defaults) == (
        EXACT,
        False,
        False,
    )
    assert (asked.policy, asked.assumptions.declared_properties_only, asked.assumptions.reader_fills_defaults) == (
        STRICT,
        False,
        True,
    )
    assert own.verdict == asked.verdict == compatibility_pb2.VERDICT_COMPATIBLE


async def test_formats_count_where_the_settings_say_so(calls: Registry, name: Name) -> None:
    """For data checked against the subject's versions, unless the call says otherwise."""
    subject = name()
    made = await calls.register(subject, {"type": "string", "format": "email"})
    await change(calls, subject, assert_formats=True)
    key = version_pb2.VersionKey(subject=subject)

    async def valid(**fields: object) -> bool:
        request = validation_service_pb2.ValidateDataRequest(data=b'"nobody"', **fields)  # type: ignore[arg-type]
        return (await calls.call(calls.validation.ValidateData, request)).valid

    assert not await valid(version=key)
    assert await valid(version=key, assert_formats=False)
    assert await valid(schema_id=made.schema.id)


UNDECIDED = {"type": "string", "pattern": "^(a|b)*c$"}, {"type": "string", "pattern": "^[ab]*c$"}
"""A reader and a writer whose patterns mean the same: whether one covers the other, nobody here decides."""


async def test_an_undecided_change_can_be_accepted(calls: Registry, name: Name) -> None:
    """It is refused unless the caller accepts it; then the history says so."""
    subject, (reader, writer) = name(), UNDECIDED
    await calls.register(subject, writer)

    with pytest.raises(errors.IncompatibleSchema) as caught:
        await calls.register(subject, reader)
    dry = await calls.register(subject, reader, accept_undecided=True, validate_only=True)
    made = await calls.register(subject, reader, accept_undecided=True)

    assert caught.value.metadata["verdict"] == "UNDECIDED"
    assert dry.report.verdict == compatibility_pb2.VERDICT_UNDECIDED
    assert (dry.created, made.created, made.version.number) == (True, True, 2)
    events = [event.version_registered for event in await calls.events(subject)]
    assert [event.accepted_undecided for event in events] == [False, True]


async def test_a_draft_can_become_active_undecided(calls: Registry, name: Name) -> None:
    """Where its step accepts it, and the history says so."""
    subject, (reader, writer) = name(), UNDECIDED
    await calls.register(subject, writer)
    await calls.register(subject, reader, state=version_pb2.VERSION_STATE_DRAFT)
    request = pb.TransitionVersionRequest(subject=subject, number=2, state=version_pb2.VERSION_STATE_ACTIVE)

    with pytest.raises(errors.IncompatibleSchema):
        await calls.call(calls.subjects.TransitionVersion, request)
    request.accept_undecided = True
    await calls.call(calls.subjects.TransitionVersion, request)

    assert (await calls.events(subject))[-1].version_transitioned.accepted_undecided


async def test_an_incompatible_change_cannot_be_accepted(calls: Registry, name: Name) -> None:
    """Whoever is sure that it is right sets level NONE."""
    subject = name()
    await calls.register(subject, '{"type": "record", "name": "R", "fields": []}', format="SCHEMA_FORMAT_AVRO")
    changed = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}'

    with pytest.raises(errors.IncompatibleSchema) as caught:
        await calls.register(subject, changed, format="SCHEMA_FORMAT_AVRO", accept_undecided=True)

    assert (caught.value.metadata["verdict"], caught.value.metadata["policy"]) == ("INCOMPATIBLE", "STRICT")
