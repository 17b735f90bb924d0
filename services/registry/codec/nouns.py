"""The nouns: `version(value)` encodes, `read_version(message)` decodes.

A level is a name here, as in the domain: the enum's, without its prefix.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, subject_pb2, version_pb2
from services.registry.domain.evolution.policy import Policy
from services.registry.domain.model import Format, Reference, Schema, Settings, State, Subject, Version
from services.registry.domain.settings import in_force

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SETTING_FIELDS = {
    "level": "compatibility_level",
    "policy": "compatibility_policy",
    "declared_properties_only": "declared_properties_only",
    "reader_fills_defaults": "reader_fills_defaults",
    "assert_formats": "assert_formats",
}
"""Fields of Config by the names of the domain's settings."""
_LEVEL_PREFIX = "COMPATIBILITY_LEVEL_"
_LEVELS = {
    name.removeprefix(_LEVEL_PREFIX): value for name, value in compatibility_pb2.CompatibilityLevel.items() if value
}
_LEVEL_NAMES = {int(value): name for name, value in _LEVELS.items()}
_FORMATS = {int(value): value for value in Format}
_POLICIES = {int(value): value for value in Policy}
_STATES = {int(value): value for value in State}


def timestamp(value: datetime) -> Timestamp:
    """An aware datetime as a message, to the microsecond."""
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def read_timestamp(message: Timestamp) -> datetime:
    """The datetime in UTC; nanoseconds below the microsecond are cut."""
    return message.ToDatetime(tzinfo=UTC)


def format_value(value: Format) -> schema_pb2.SchemaFormat.ValueType:
    """The enum's value: the domain uses the contract's numbers."""
    return schema_pb2.SchemaFormat.ValueType(int(value))


def read_format(value: int) -> Format | None:
    """The format; None when it is not given, or given by a newer contract."""
    return _FORMATS.get(value)


def state_value(value: State) -> version_pb2.VersionState.ValueType:
    """The enum's value: the domain uses the contract's numbers."""
    return version_pb2.VersionState.ValueType(int(value))


def read_state(value: int) -> State | None:
    """The state; None when it is not given, or given by a newer contract."""
    return _STATES.get(value)


def level_value(name: str) -> compatibility_pb2.CompatibilityLevel.ValueType:
    """The enum's value of a level's name, such as BACKWARD_TRANSITIVE. Raises KeyError for another name."""
    return _LEVELS[name]


def read_level(value: int) -> str | None:
    """The level's name; None when it is not given, or given by a newer contract."""
    return _LEVEL_NAMES.get(value)


def policy_value(value: Policy | None) -> compatibility_pb2.CompatibilityPolicy.ValueType:
    """The enum's value: the domain uses the contract's numbers; unspecified for None."""
    return compatibility_pb2.CompatibilityPolicy.ValueType(int(value or 0))


def read_policy(value: int) -> Policy | None:
    """The policy; None when it is not given, or given by a newer contract."""
    return _POLICIES.get(value)


def reference(value: Reference) -> schema_pb2.Reference:
    """A reference."""
    return schema_pb2.Reference(name=value.name, subject=value.subject, version=value.version)


def read_reference(message: schema_pb2.Reference) -> Reference:
    """A reference."""
    return Reference(message.name, message.subject, message.version)


def schema(value: Schema, *, text: bool = True) -> schema_pb2.Schema:
    """A content; text=False leaves its text out."""
    return schema_pb2.Schema(
        id=value.id,
        format=format_value(value.format),
        text=value.text if text else "",
        references=[reference(each) for each in value.references],
        identity_fingerprint=value.identity,
        semantic_fingerprint=value.semantic,
        create_time=timestamp(value.create_time),
        dialect=value.dialect,
    )


def read_schema(message: schema_pb2.Schema) -> Schema:
    """A content. Raises Internal when its format is unknown."""
    return Schema(
        id=message.id,
        format=known(read_format(message.format), "schema format", message.format),
        text=message.text,
        references=tuple(read_reference(each) for each in message.references),
        identity=message.identity_fingerprint,
        semantic=message.semantic_fingerprint,
        create_time=read_timestamp(message.create_time),
        dialect=message.dialect,
    )


def version(value: Version, *, etag: bool = True) -> version_pb2.Version:
    """A version; etag=False leaves out the etag, which follows from the rest."""
    message = version_pb2.Version(
        subject=value.subject,
        number=value.number,
        schema_id=value.schema_id,
        state=state_value(value.state),
        description=value.description,
        owner=value.owner,
        tags=value.tags,
        metadata=value.metadata,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
    )
    if value.activate_time is not None:
        message.activate_time.CopyFrom(timestamp(value.activate_time))
    if value.delete_time is not None:
        message.delete_time.CopyFrom(timestamp(value.delete_time))
    if etag:
        message.etag = value.etag
    return message


def read_version(message: version_pb2.Version) -> Version:
    """A version; its etag is not read. Raises Internal when its state is unknown."""
    return Version(
        subject=message.subject,
        number=message.number,
        schema_id=message.schema_id,
        state=known(read_state(message.state), "version state", message.state),
        description=message.description,
        owner=message.owner,
        tags=tuple(message.tags),
        metadata=dict(message.metadata),
        create_time=read_timestamp(message.create_time),
        update_time=read_timestamp(message.update_time),
        activate_time=read_timestamp(message.activate_time) if message.HasField("activate_time") else None,
        delete_time=read_timestamp(message.delete_time) if message.HasField("delete_time") else None,
    )


def settings(value: Settings) -> subject_pb2.Config:
    """Settings as they are set: what is not set is not in the message."""
    return subject_pb2.Config(
        compatibility_level=level_value(value.level)
        if value.level
        else compatibility_pb2.COMPATIBILITY_LEVEL_UNSPECIFIED,
        compatibility_policy=policy_value(value.policy),
        declared_properties_only=value.declared_properties_only,
        reader_fills_defaults=value.reader_fills_defaults,
        assert_formats=value.assert_formats,
    )


def read_settings(message: subject_pb2.Config) -> Settings:
    """Settings as they are set. Raises Internal when a value is unknown."""
    level, policy = message.compatibility_level, message.compatibility_policy
    return Settings(
        level=known(read_level(level), "compatibility level", level) if level else None,
        policy=known(read_policy(policy), "compatibility policy", policy) if policy else None,
        declared_properties_only=_switch(message, "declared_properties_only"),
        reader_fills_defaults=_switch(message, "reader_fills_defaults"),
        assert_formats=_switch(message, "assert_formats"),
    )


def _switch(
    message: subject_pb2.Config, name: Literal["declared_properties_only", "reader_fills_defaults", "assert_formats"]
) -> bool | None:
    return getattr(message, name) if message.HasField(name) else None


def config(own: Settings, general: Settings, *, etag: str = "") -> subject_pb2.Config:
    """The settings in force for a subject, and which of them it inherits."""
    message = settings(in_force(own, general))
    message.inherited_fields.extend(name for field, name in SETTING_FIELDS.items() if getattr(own, field) is None)
    message.etag = etag
    return message


def global_config(general: Settings, *, etag: str = "") -> subject_pb2.Config:
    """The global settings in force."""
    message = settings(in_force(Settings(), general))
    message.etag = etag
    return message


def subject(value: Subject) -> subject_pb2.Subject:
    """A subject."""
    message = subject_pb2.Subject(
        name=value.name,
        latest_version=value.latest_version,
        version_count=value.version_count,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        config=config(value.own, value.general),
    )
    if value.delete_time is not None:
        message.delete_time.CopyFrom(timestamp(value.delete_time))
    return message


def known(value: _T | None, what: str, number: int) -> _T:
    """The value of a stored message. Raises Internal for one that only newer code knows."""
    if value is None:
        raise errors.Internal(f"The {what} {number} is unknown to this version of the registry: update it first.")
    return value
