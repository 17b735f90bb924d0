"""What a history amounts to: the one place that says what an event does.

The memory store is this with the store's checks in front; a replay applies a history change by change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.registry.domain.events import (
    Change,
    EpochStarted,
    SettingsChanged,
    SubjectRolledBack,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionTransitioned,
    VersionUpdated,
)
from services.registry.domain.model import Reference, Schema, Settings, State, Subject, Version
from services.registry.domain.settings import NOTHING_SET, is_empty


class Inapplicable(Exception):
    """The event cannot follow this history: the message says why. Nothing changed."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version with the references it was registered with and the words a search finds it by."""

    version: Version
    references: tuple[Reference, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A content. schema: None when it is purged; its id and identity stay taken. targets: content ids by name."""

    id: int
    identity: bytes
    schema: Schema | None
    targets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredSubject:
    """A name that was ever used. It exists for callers while it has a version or settings of its own."""

    name: str
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    revision: int = 0
    next_number: int = 1
    own: Settings = NOTHING_SET
    versions: Mapping[int, StoredVersion] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether callers see it."""
        return bool(self.versions) or not is_empty(self.own)

    def live(self) -> Iterator[Version]:
        """Its live versions, by number."""
        return (stored.version for _, stored in sorted(self.versions.items()) if stored.version.live)

    def latest(self) -> Version | None:
        """Its live ACTIVE version with the highest number."""
        return max(
            (version for version in self.live() if version.state is State.ACTIVE), key=lambda v: v.number, default=None
        )

    def noun(self, general: Settings) -> Subject:
        """The subject as callers see it."""
        latest = self.latest()
        return Subject(
            name=self.name,
            latest_version=latest.number if latest else 0,
            version_count=sum(1 for _ in self.live()),
            create_time=self.create_time,
            update_time=self.update_time,
            delete_time=self.delete_time,
            own=self.own,
            general=general,
        )


class RegistryState:
    """Everything the registry holds after a history. Records are immutable; `apply` puts others in their place."""

    def __init__(self) -> None:
        self.epoch = 1
        self.position = 0
        self.purge_position = 0
        self.general = Settings()
        self.global_revision = 0
        self.subjects: dict[str, StoredSubject] = {}
        self.schemas: dict[int, StoredSchema] = {}
        self.ids: dict[bytes, int] = {}

    def version(self, subject: str, number: int) -> StoredVersion | None:
        """A version, live or deleted."""
        record = self.subjects.get(subject)
        return record.versions.get(number) if record else None

    def versions(self) -> Iterator[StoredVersion]:
        """Every version, live or deleted, by subject and number."""
        for _, record in sorted(self.subjects.items()):
            for _, stored in sorted(record.versions.items()):
                yield stored

    def apply(self, change: Change, words: tuple[str, ...] = ()) -> None:
        """Applies the next change. words: of a version that is registered or updated (domain/search.py).

        Raises Inapplicable for a position or an epoch that is not next, a subject's number that is not next, a
        version that does not exist, a content whose id or identity is another's, and a reference without a target.
        """
        event = change.event
        epoch = event.epoch if isinstance(event, EpochStarted) else self.epoch
        if (change.epoch, change.position) != (epoch, self.position + 1):
            raise Inapplicable(f"change {change.epoch}/{change.position} after {self.epoch}/{self.position}")
        match event:
            case EpochStarted():
                self._start_epoch(event)
            case SettingsChanged(subject=""):
                self.general = event.settings
                self.global_revision += 1
            case VersionRegistered():
                self._register(event, change.time, words)
            case VersionsPurged():
                self._purge(event, change.time)
                self.purge_position = change.position
            case SettingsChanged():
                before = self._record(event.subject, change.time)
                self._put(before, replace(before, own=event.settings), change.time)
            case _:
                before = self._record(event.subject, change.time)
                self._put(before, replace(before, versions=_changed(before, event, change.time, words)), change.time)
        self.position = change.position

    def _start_epoch(self, event: EpochStarted) -> None:
        if event.parent != self.epoch or event.fork_position != self.position or event.epoch <= self.epoch:
            raise Inapplicable(f"epoch {event.epoch} cannot begin at {self.epoch}/{self.position}")
        self.epoch = event.epoch

    def _record(self, subject: str, time: datetime) -> StoredSubject:
        return self.subjects.get(subject) or StoredSubject(subject, time, time)

    def _put(self, before: StoredSubject, after: StoredSubject, time: datetime) -> None:
        """Replaces a subject's record. A subject that did not exist begins anew, but for its numbers."""
        delete_time = before.delete_time
        if not before.exists or _has_live(after):
            delete_time = None
        elif _has_live(before):
            delete_time = time
        self.subjects[after.name] = replace(
            after,
            revision=before.revision + 1,
            create_time=before.create_time if before.exists else time,
            update_time=time,
            delete_time=delete_time,
        )

    def _register(self, event: VersionRegistered, time: datetime, words: tuple[str, ...]) -> None:
        version = event.version
        before = self._record(version.subject, time)
        if version.number != before.next_number:
            raise Inapplicable(f"version {version.number} of {version.subject!r} where {before.next_number} is next")
        stored = StoredVersion(version, event.references, words)
        after = replace(before, next_number=version.number + 1, versions={**before.versions, version.number: stored})
        content = self._content(event)
        self.schemas[content.id] = content
        self.ids[content.identity] = content.id
        self._put(before, after, time)

    def _content(self, event: VersionRegistered) -> StoredSchema:
        """The content's record: the one there is, unless it is new or purged."""
        schema = event.schema
        if self.ids.get(schema.identity, schema.id) != schema.id or event.version.schema_id != schema.id:
            raise Inapplicable(f"content {schema.id} has another id")
        known = self.schemas.get(schema.id)
        if known is not None and known.identity != schema.identity:
            raise Inapplicable(f"id {schema.id} belongs to another content")
        if known is not None and known.schema is not None:
            return known
        targets: dict[str, int] = {}
        for reference in event.references:
            target = self.version(reference.subject, reference.version)
            if target is None:
                raise Inapplicable(f"version {reference.version} of {reference.subject!r} does not exist")
            targets[reference.name] = target.version.schema_id
        return StoredSchema(schema.id, schema.identity, schema, targets)

    def _purge(self, event: VersionsPurged, time: datetime) -> None:
        before = self._record(event.subject, time)
        for number in event.versions:
            _existing(before, number)
        unknown = [schema_id for schema_id in event.schema_ids if schema_id not in self.schemas]
        if unknown:
            raise Inapplicable(f"contents {unknown} do not exist")
        gone = set(event.versions)
        versions = {number: stored for number, stored in before.versions.items() if number not in gone}
        own = Settings() if event.settings_removed else before.own
        for schema_id in event.schema_ids:
            self.schemas[schema_id] = replace(self.schemas[schema_id], schema=None, targets={})
        self._put(before, replace(before, versions=versions, own=own), time)


def _has_live(record: StoredSubject) -> bool:
    return next(record.live(), None) is not None


def _existing(record: StoredSubject, number: int) -> StoredVersion:
    stored = record.versions.get(number)
    if stored is None:
        raise Inapplicable(f"version {number} of {record.name!r} does not exist")
    return stored


def _changed(
    record: StoredSubject,
    event: VersionUpdated | VersionTransitioned | SubjectRolledBack | VersionsDeleted,
    time: datetime,
    words: tuple[str, ...],
) -> Mapping[int, StoredVersion]:
    """The subject's versions after an event that adds and removes none."""
    match event:
        case VersionUpdated(version) | VersionTransitioned(version):
            stored = _existing(record, version.number)
            before = stored.version
            if (before.schema_id, before.delete_time) != (version.schema_id, version.delete_time):
                raise Inapplicable(f"an update of version {version.number} that deletes, revives or rebinds it")
            kept = stored.words if isinstance(event, VersionTransitioned) else words
            changed: Iterable[StoredVersion] = [replace(stored, version=version, words=kept)]
        case VersionsDeleted():
            changed = [
                _with(_existing(record, number), delete_time=time, update_time=time) for number in event.versions
            ]
        case SubjectRolledBack():
            changed = _rolled_back(record, event, time)
    return {**record.versions, **{stored.version.number: stored for stored in changed}}


def _rolled_back(record: StoredSubject, event: SubjectRolledBack, time: datetime) -> Iterator[StoredVersion]:
    target = _existing(record, event.version)
    activate_time = target.version.activate_time or time
    yield _with(target, state=State.ACTIVE, update_time=time, activate_time=activate_time)
    for number in event.deprecated:
        yield _with(_existing(record, number), state=State.DEPRECATED, update_time=time)


def _with(stored: StoredVersion, **fields: Any) -> StoredVersion:
    return replace(stored, version=replace(stored.version, **fields))
