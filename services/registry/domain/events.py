"""What can happen to the registry. Each event holds the full new value: replaying them in order rebuilds everything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.registry.domain.model import Reference, Schema, Settings, State, Version


@dataclass(frozen=True, slots=True)
class VersionRegistered:
    """A version and its content. references: as this version was registered with them.

    accepted_undecided: its author accepted a verdict of UNDECIDED.
    """

    version: Version
    schema: Schema
    references: tuple[Reference, ...]
    accepted_undecided: bool = False

    @property
    def subject(self) -> str:
        return self.version.subject


@dataclass(frozen=True, slots=True)
class VersionUpdated:
    """The version after a change of its description, owner, tags or metadata."""

    version: Version

    @property
    def subject(self) -> str:
        return self.version.subject


@dataclass(frozen=True, slots=True)
class VersionTransitioned:
    """The version after a step in its life, and the state before. accepted_undecided: as for VersionRegistered."""

    version: Version
    origin: State
    accepted_undecided: bool = False

    @property
    def subject(self) -> str:
        return self.version.subject


@dataclass(frozen=True, slots=True)
class SubjectRolledBack:
    """`version` is ACTIVE now; `deprecated` (ascending) were ACTIVE and are DEPRECATED. Their time is the change's.

    target: the version after the rollback.
    """

    subject: str
    version: int
    deprecated: tuple[int, ...]
    target: Version | None = None


@dataclass(frozen=True, slots=True)
class VersionsDeleted:
    """Numbers (ascending) of versions that are deleted now. Their time is the change's.

    version: after its deletion, when one alone was deleted by its number.
    """

    subject: str
    versions: tuple[int, ...]
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class VersionsPurged:
    """Numbers of versions and ids of contents that are gone for good, both ascending."""

    subject: str
    versions: tuple[int, ...]
    schema_ids: tuple[int, ...]
    settings_removed: bool = False


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """All settings of a subject's own, or with an empty subject the global ones, after the change."""

    subject: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class EpochStarted:
    """A restore began a new epoch."""

    epoch: int
    parent: int
    fork_position: int

    @property
    def subject(self) -> str:
        return ""


Event = (
    VersionRegistered
    | VersionUpdated
    | VersionTransitioned
    | SubjectRolledBack
    | VersionsDeleted
    | VersionsPurged
    | SettingsChanged
    | EpochStarted
)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Makes a repeated mutation of one actor safe. digest: SHA-256 over the request without the id."""

    method: str
    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """An event with its place in the history: positions have no gaps and follow the order of commit.

    time: by the clock of the replica that decided, so not always in the order of positions.
    """

    epoch: int
    position: int
    time: datetime
    actor: str
    event: Event
    request: RequestKey | None = None
