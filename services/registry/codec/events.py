"""Events and changes. What is stored of an event is its message: a payload that is written once is read for ever.

A stored payload holds no etags: they follow from the rest, and their rule may change.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import change_pb2
from services.registry.codec import nouns
from services.registry.domain.events import (
    Change,
    EpochStarted,
    Event,
    RequestKey,
    SettingsChanged,
    SubjectRolledBack,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionTransitioned,
    VersionUpdated,
)
from services.registry.domain.settings import is_empty

PAYLOAD_VERSION = 1
"""Of what `payload` writes. tests/corpora/changes/ holds golden files of every version that was ever written."""

_KINDS: Mapping[type[Event], str] = {
    VersionRegistered: "version_registered",
    VersionUpdated: "version_updated",
    VersionTransitioned: "version_transitioned",
    SubjectRolledBack: "subject_rolled_back",
    VersionsDeleted: "versions_deleted",
    VersionsPurged: "versions_purged",
    SettingsChanged: "config_updated",
    EpochStarted: "epoch_started",
}


def change(value: Change, *, text: bool = True) -> change_pb2.Change:
    """A change without its resume token; text=False leaves the texts of schemas out."""
    return change_pb2.Change(
        epoch=value.epoch,
        position=value.position,
        time=nouns.timestamp(value.time),
        actor=value.actor,
        event=event(value.event, text=text),
        request=_request(value.request) if value.request else None,
    )


def read_change(message: change_pb2.Change) -> Change:
    """A change. Raises Internal as `read_event` does."""
    return Change(
        epoch=message.epoch,
        position=message.position,
        time=nouns.read_timestamp(message.time),
        actor=message.actor,
        event=read_event(message.event),
        request=_read_request(message.request) if message.HasField("request") else None,
    )


def _request(value: RequestKey) -> change_pb2.RequestKey:
    return change_pb2.RequestKey(method=value.method, request_id=value.id, digest=value.digest)


def _read_request(message: change_pb2.RequestKey) -> RequestKey:
    return RequestKey(message.method, message.request_id, message.digest)


def payload(value: Event) -> bytes:
    """The event as it is stored, in version PAYLOAD_VERSION. Equal events give equal bytes."""
    return event(value, etags=False).SerializeToString(deterministic=True)


def read_payload(payload_version: int, stored: bytes) -> Event:
    """The event of a stored payload.

    Raises Internal when this code is older than the payload, or the payload is damaged: whoever reads the history must
    not go on then.
    """
    if payload_version != PAYLOAD_VERSION:
        raise errors.Internal(
            f"A stored change has payload version {payload_version}; this version of the registry reads "
            f"{PAYLOAD_VERSION}: update it first."
        )
    try:
        return read_event(change_pb2.ChangeEvent.FromString(stored))
    except DecodeError:
        raise errors.Internal("A stored change is damaged: its payload is not a message.") from None


def event(value: Event, *, text: bool = True, etags: bool = True) -> change_pb2.ChangeEvent:
    """What happened; text=False leaves the texts of schemas out, etags=False the etags."""
    match value:
        case VersionRegistered():
            return change_pb2.ChangeEvent(
                version_registered=change_pb2.VersionRegistered(
                    version=nouns.version(value.version, etag=etags),
                    schema=nouns.schema(value.schema, text=text),
                    references=[nouns.reference(each) for each in value.references],
                    accepted_undecided=value.accepted_undecided,
                )
            )
        case VersionUpdated():
            return change_pb2.ChangeEvent(
                version_updated=change_pb2.VersionUpdated(version=nouns.version(value.version, etag=etags))
            )
        case VersionTransitioned():
            message = change_pb2.VersionTransitioned(
                version=nouns.version(value.version, etag=etags), accepted_undecided=value.accepted_undecided
            )
            # `from` is a keyword of Python.
            setattr(message, "from", nouns.state_value(value.origin))
            return change_pb2.ChangeEvent(version_transitioned=message)
        case SettingsChanged():
            return change_pb2.ChangeEvent(config_updated=_config_updated(value))
        case _:
            return _event_of_numbers(value, etags=etags)


def kind(value: Event) -> str:
    """The event's name in the contract, such as version_registered."""
    return _KINDS[type(value)]


def _config_updated(value: SettingsChanged) -> change_pb2.ConfigUpdated:
    config = None if is_empty(value.settings) else nouns.settings(value.settings)
    return change_pb2.ConfigUpdated(subject=value.subject, config=config)


def _event_of_numbers(
    value: SubjectRolledBack | VersionsDeleted | VersionsPurged | EpochStarted, *, etags: bool
) -> change_pb2.ChangeEvent:
    match value:
        case SubjectRolledBack():
            return change_pb2.ChangeEvent(
                subject_rolled_back=change_pb2.SubjectRolledBack(
                    subject=value.subject,
                    version=value.version,
                    deprecated_versions=value.deprecated,
                    target=nouns.version(value.target, etag=etags) if value.target else None,
                )
            )
        case VersionsDeleted():
            return change_pb2.ChangeEvent(
                versions_deleted=change_pb2.VersionsDeleted(
                    subject=value.subject,
                    versions=value.versions,
                    version=nouns.version(value.version, etag=etags) if value.version else None,
                )
            )
        case VersionsPurged():
            return change_pb2.ChangeEvent(
                versions_purged=change_pb2.VersionsPurged(
                    subject=value.subject,
                    versions=value.versions,
                    schema_ids=value.schema_ids,
                    settings_removed=value.settings_removed,
                )
            )
        case EpochStarted():
            return change_pb2.ChangeEvent(
                epoch_started=change_pb2.EpochStarted(
                    epoch=value.epoch, parent=value.parent, fork_position=value.fork_position
                )
            )


def read_event(message: change_pb2.ChangeEvent) -> Event:
    """What happened. Raises Internal for a kind, or a value within it, that this code does not know."""
    match message.WhichOneof("kind"):
        case "version_registered":
            registered = message.version_registered
            return VersionRegistered(
                version=nouns.read_version(registered.version),
                schema=nouns.read_schema(registered.schema),
                references=tuple(nouns.read_reference(each) for each in registered.references),
                accepted_undecided=registered.accepted_undecided,
            )
        case "version_updated":
            return VersionUpdated(nouns.read_version(message.version_updated.version))
        case "version_transitioned":
            transitioned = message.version_transitioned
            origin = getattr(transitioned, "from")
            return VersionTransitioned(
                version=nouns.read_version(transitioned.version),
                origin=nouns.known(nouns.read_state(origin), "version state", origin),
                accepted_undecided=transitioned.accepted_undecided,
            )
        case "subject_rolled_back":
            rolled = message.subject_rolled_back
            return SubjectRolledBack(
                rolled.subject,
                rolled.version,
                tuple(rolled.deprecated_versions),
                nouns.read_version(rolled.target) if rolled.HasField("target") else None,
            )
        case "versions_deleted":
            deleted = message.versions_deleted
            version = nouns.read_version(deleted.version) if deleted.HasField("version") else None
            return VersionsDeleted(deleted.subject, tuple(deleted.versions), version)
        case "versions_purged":
            purged = message.versions_purged
            return VersionsPurged(
                purged.subject, tuple(purged.versions), tuple(purged.schema_ids), purged.settings_removed
            )
        case "config_updated":
            updated = message.config_updated
            return SettingsChanged(updated.subject, nouns.read_settings(updated.config))
        case "epoch_started":
            started = message.epoch_started
            return EpochStarted(started.epoch, started.parent, started.fork_position)
        case _:
            raise errors.Internal(
                "A change has a kind that is unknown to this version of the registry: update it first."
            )
