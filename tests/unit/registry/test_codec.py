"""Domain values survive the wire and the store; payloads that were ever written are read for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from google.protobuf import text_format
from hypothesis import given

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import change_pb2, compatibility_pb2, schema_pb2, version_pb2
from services.registry.codec import events as codec
from services.registry.codec import nouns
from services.registry.domain.events import Change, Event
from services.registry.domain.evolution.levels import LEVELS
from services.registry.domain.evolution.policy import Policy
from services.registry.domain.model import Format, Schema, Settings, State, Subject, Version
from tests import registry_events as examples

GOLDEN = Path(__file__).resolve().parents[2] / "corpora" / "changes"
TIME = datetime(2026, 11, 23, 12, 30, 45, 123456, tzinfo=UTC)


def test_every_kind_has_a_golden_file() -> None:
    """Each kind of event, in the domain and in the contract, has an example and its golden file."""
    kinds = {field.name for field in change_pb2.ChangeEvent.DESCRIPTOR.oneofs_by_name["kind"].fields}

    assert {codec.kind(event) for event in examples.EXAMPLES.values()} == kinds
    assert {type(event) for event in examples.EXAMPLES.values()} == set(get_args(Event))
    assert {path.stem for path in (GOLDEN / "v1").glob("*.binpb")} == set(examples.EXAMPLES)


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_golden_payload(name: str) -> None:
    """A payload of version 1 decodes to the value that it was written from."""
    stored = (GOLDEN / "v1" / f"{name}.binpb").read_bytes()

    assert codec.read_payload(1, stored) == examples.EXAMPLES[name]


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_golden_text(name: str) -> None:
    """The readable form beside a payload says the same."""
    stored = (GOLDEN / "v1" / f"{name}.binpb").read_bytes()
    text = (GOLDEN / "v1" / f"{name}.txtpb").read_text()

    assert text_format.Parse(text, change_pb2.ChangeEvent()) == change_pb2.ChangeEvent.FromString(stored)


@given(examples.changes)
def test_change_round_trip(change: Change) -> None:
    """A change comes back from the wire equal."""
    assert codec.read_change(change_pb2.Change.FromString(codec.change(change).SerializeToString())) == change


@given(examples.events)
def test_payload_round_trip(event: Event) -> None:
    """An event comes back from its payload equal, and the payload is always the same bytes."""
    stored = codec.payload(event)

    assert codec.read_payload(codec.PAYLOAD_VERSION, stored) == event
    assert codec.payload(codec.read_payload(codec.PAYLOAD_VERSION, stored)) == stored


@given(examples.schemas)
def test_schema_round_trip(schema: Schema) -> None:
    """A content comes back equal; without text only the text is missing."""
    assert nouns.read_schema(nouns.schema(schema)) == schema
    bare = nouns.schema(schema, text=False)
    bare.text = schema.text
    assert bare == nouns.schema(schema)


@given(examples.versions)
def test_version_round_trip(version: Version) -> None:
    """A version comes back equal, and its message carries its etag."""
    message = nouns.version(version)

    assert nouns.read_version(message) == version
    assert message.etag == version.etag


@pytest.mark.parametrize("delete_time", [None, TIME])
def test_a_subject_tells_the_settings_in_force(delete_time: datetime | None) -> None:
    """Its own before the global ones before the defaults; what is not its own is inherited."""
    own, general = Settings("NONE", assert_formats=True), Settings("FULL", Policy.LENIENT, assert_formats=False)

    message = nouns.subject(Subject("user", 3, 2, TIME, TIME, delete_time, own, general))

    assert (message.name, message.latest_version, message.version_count) == ("user", 3, 2)
    assert message.HasField("delete_time") == (delete_time is not None)
    config = message.config
    assert config.compatibility_level == compatibility_pb2.COMPATIBILITY_LEVEL_NONE
    assert config.compatibility_policy == compatibility_pb2.COMPATIBILITY_POLICY_LENIENT
    assert (config.declared_properties_only, config.reader_fills_defaults, config.assert_formats) == (True, False, True)
    assert config.inherited_fields == ["compatibility_policy", "declared_properties_only", "reader_fills_defaults"]


@pytest.mark.parametrize("settings", [Settings(), Settings("FULL"), Settings("NONE", Policy.EXACT, False, True, False)])
def test_settings_round_trip(settings: Settings) -> None:
    """Settings come back as they were set, and what was not set is not."""
    assert nouns.read_settings(nouns.settings(settings)) == settings


def test_global_settings_inherit_nothing() -> None:
    """They show what is in force where a subject says nothing."""
    config = nouns.global_config(Settings(reader_fills_defaults=True), etag='"e"')

    assert config.compatibility_level == compatibility_pb2.COMPATIBILITY_LEVEL_BACKWARD
    assert config.compatibility_policy == compatibility_pb2.COMPATIBILITY_POLICY_UNSPECIFIED
    assert (config.declared_properties_only, config.reader_fills_defaults, config.assert_formats) == (True, True, False)
    assert (list(config.inherited_fields), config.etag) == ([], '"e"')


def test_enums_are_complete() -> None:
    """Every value of the contract's enums but the unspecified one is known to the domain, and the other way round."""
    formats = [value for value in schema_pb2.SchemaFormat.values() if value]
    states = [value for value in version_pb2.VersionState.values() if value]
    levels = [value for value in compatibility_pb2.CompatibilityLevel.values() if value]

    assert [nouns.read_format(value) for value in formats] == list(Format)
    assert [nouns.read_state(value) for value in states] == list(State)
    assert {nouns.read_level(value) for value in levels} == set(LEVELS)
    assert [nouns.format_value(form) for form in Format] == formats
    assert [nouns.state_value(state) for state in State] == states
    assert {nouns.level_value(level) for level in LEVELS} == set(levels)
    assert [nouns.policy_value(policy) for policy in (None, *Policy)] == compatibility_pb2.CompatibilityPolicy.values()


@pytest.mark.parametrize("value", [0, 99])
def test_unknown_enum_values(value: int) -> None:
    """A value that is not given, or that only a newer contract has, is None."""
    assert nouns.read_format(value) is None
    assert nouns.read_state(value) is None
    assert nouns.read_level(value) is None


def test_newer_payload_version() -> None:
    """A payload of a newer version is refused and the way out is named."""
    with pytest.raises(errors.Internal, match="update it first"):
        codec.read_payload(codec.PAYLOAD_VERSION + 1, codec.payload(examples.EXAMPLES["epoch_started"]))


def test_unknown_kind() -> None:
    """An event of a kind that this code does not know, as of a newer version, is refused."""
    with pytest.raises(errors.Internal, match="update it first"):
        codec.read_payload(codec.PAYLOAD_VERSION, b"\x9a\x06\x00")


def test_unknown_state() -> None:
    """A value within an event that this code does not know is refused."""
    message = codec.event(examples.EXAMPLES["version_updated"])
    message.version_updated.version.state = version_pb2.VersionState.ValueType(99)

    with pytest.raises(errors.Internal, match="version state 99"):
        codec.read_event(message)


def test_damaged_payload() -> None:
    """Bytes that are no message are refused."""
    with pytest.raises(errors.Internal, match="damaged"):
        codec.read_payload(codec.PAYLOAD_VERSION, b"\xff")


def test_payload_without_etags() -> None:
    """A stored payload holds no etag; the wire form does."""
    event = examples.EXAMPLES["version_registered"]

    assert not change_pb2.ChangeEvent.FromString(codec.payload(event)).version_registered.version.etag
    assert codec.event(event).version_registered.version.etag


def test_change_without_text() -> None:
    """A change can be sent without the texts of schemas."""
    change = Change(1, 1, TIME, "me", examples.EXAMPLES["version_registered"])

    assert not codec.change(change, text=False).event.version_registered.schema.text
    assert codec.change(change).event.version_registered.schema.text
