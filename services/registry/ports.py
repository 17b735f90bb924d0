"""What the use cases need from outside, in the domain's words. Each method names its guarantees and its errors.

Every implementation passes tests/contract/registry/store_suite.py, which is the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from services.registry.domain.events import Change, Event, RequestKey
from services.registry.domain.model import Format, Schema, Settings, State, Subject, Version, VersionHead

T = TypeVar("T")


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present moment, with time zone UTC."""
        ...


class Workers(Protocol):
    """Processes that can be killed."""

    async def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What `work` returns, a function of a module, with arguments and a result that can be pickled.

        Raises what it raises; LimitExceeded when it takes too long, needs too much memory or crashes; Overloaded when
        too much work waits already.
        """
        ...


class Bell(Protocol):
    """Rings when the store has new changes. A hint: the position is the truth."""

    async def wait(self, timeout_seconds: float) -> None:
        """Returns at a ring, when rings may have been missed, or at the timeout, whichever is first. Never raises."""
        ...


class Stale(Exception):
    """What a proposal was planned on has changed. Nothing was written: read the basis again and decide again."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the history stands.

    position: of the newest change, 0 before the first. floor: changes after this position are still kept (0: all).
    purge_position: of the newest purge, 0 when there was none; also when its change is no longer kept. cluster_id: of
    the registry, the same for ever.
    """

    epoch: int
    position: int
    floor: int
    fenced: bool
    purge_position: int = 0
    cluster_id: str = ""

    def continues(self, earlier: Head) -> bool:
        """Whether it is of the history that an earlier look saw. It is not behind a restore, nor when a database was
        put in the place of another by hand: what was read before counts for nothing then."""
        same = (self.cluster_id, self.epoch) == (earlier.cluster_id, earlier.epoch)
        return same and self.position >= earlier.position

    def restores(self, earlier: Head) -> bool:
        """Whether a restore began a new epoch since an earlier look."""
        return self.cluster_id == earlier.cluster_id and self.epoch > earlier.epoch


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision about one subject stands on, read in one snapshot.

    revision: of the subject; 0 when the name was never used. Every commit under the subject makes it larger.
    global_revision: of the global settings. next_number: of the next version, 1 for a new name.
    own: the subject's own settings. general: the global ones. live: heads of its live versions, by number.
    schema_id: of the content that was asked for, None when it never had one. schema_purged: its text is gone.
    """

    epoch: int
    global_revision: int
    general: Settings
    revision: int
    next_number: int
    own: Settings
    live: tuple[VersionHead, ...]
    schema_id: int | None = None
    schema_purged: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decided event and what it was decided on.

    revision: the subject's, from the basis; 0 for a new name. Ignored for global settings (empty subject).
    global_revision: when the decision used the global settings, else None.
    words: for VersionRegistered and VersionUpdated, what a search finds the version by (domain/search.py).
    """

    event: Event
    epoch: int
    revision: int
    global_revision: int | None
    actor: str
    time: datetime
    words: tuple[str, ...] = ()
    request: RequestKey | None = None


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """Which versions to list. subject: exactly, None for all. words: beginnings, all must occur. tags: all as well.

    schema_ids: the version holds one of these contents; None for any.
    """

    subject: str | None = None
    state: State | None = None
    include_deleted: bool = False
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    owner: str | None = None
    format: Format | None = None
    schema_ids: tuple[int, ...] | None = None


class Contents(Protocol):
    """Contents by id, from wherever they are nearest."""

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Contents by id. Unknown and purged ones are absent; a purge of another process may be seen a moment late."""
        ...


class Store(Contents, Protocol):
    """The registry's memory.

    Every method raises DatabaseUnavailable, PoolExhausted or Deadline when the store cannot answer; a read has no
    effect then, a commit may have been written (repeating it is safe, see `commit`). Reads see every commit that
    returned before they began. Names compare by code points, also where they are ordered.
    """

    async def head(self) -> Head:
        """Where the history stands."""
        ...

    async def reserve_schema_id(self) -> int:
        """An id that was never returned before, 1 to 2^31-1. Gaps are allowed. Raises LimitExceeded at the end."""
        ...

    async def basis(self, subject: str, identity: bytes | None = None) -> Basis:
        """What a decision about `subject` stands on, in one snapshot. Never raises for an unknown name.

        identity: a content to look for, also among purged ones. An empty subject gives the global settings alone.
        """
        ...

    async def commit(self, proposal: Proposal) -> Change:
        """Applies the event and appends its change, or does nothing at all.

        The change gets the next position; commits are totally ordered by it. Atomic also against crashes.
        Raises Stale when the epoch, the subject's revision or the global revision moved, when the request id is
        recorded already, when a content (by identity) got another id, or is held or no longer held by others than the
        event says, and when the event is about versions that are not there. Raises WritesFenced while writes are
        fenced. When several are true, any of them is raised.

        Beyond the revision it checks, at commit:
        VersionRegistered: the number is the subject's next; every reference's version is live, else ReferenceNotFound;
        `schema.id` is new, or belongs to the same identity. A purged content gets its text back, also one that was
        purged after the decision; a content that is there stays as it was first registered, whatever `schema` says.
        VersionUpdated, VersionTransitioned: the version holds the same content and is as live or deleted as before.
        EpochStarted: its parent is the proposal's epoch, its fork the present position, and its number is larger. The
        change belongs to the new epoch.
        VersionsDeleted: the versions are live, and no live version references one of them, else VersionReferenced.
        VersionsPurged: the versions are deleted, and no version that still exists references one of them, else
        VersionReferenced; `schema_ids` are exactly the contents that no other version holds: their texts are removed,
        their ids and identities stay taken.
        """
        ...

    async def recorded(self, actor: str, method: str, request_id: str) -> Change | None:
        """The change that an actor committed under this id, if any. Its `request` holds the digest."""
        ...

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Contents by id. Unknown and purged ones are absent."""
        ...

    async def schema_by_identity(self, identity: bytes) -> Schema | None:
        """The content with this identity fingerprint, None when unknown or purged."""
        ...

    async def forget_requests(self, before: datetime, limit: int) -> int:
        """Forgets request ids recorded before a moment, at most `limit`, and returns how many."""
        ...

    async def schemas_by_semantic(self, semantic: bytes, limit: int) -> Sequence[Schema]:
        """Contents of this meaning that are not purged, by id, at most `limit`."""
        ...

    async def targets(self, schema_id: int) -> Mapping[str, int]:
        """Ids of the contents that a content's references lead to, by reference name. Stays right after purges."""
        ...

    async def orphans(self, subject: str, numbers: Collection[int]) -> Sequence[int]:
        """Ids of the contents that these versions hold and no other version does, live or deleted, ascending."""
        ...

    async def version(self, subject: str, number: int) -> Version | None:
        """A version, live or deleted; None when it never was or is purged."""
        ...

    async def latest(self, subject: str) -> Version | None:
        """The live ACTIVE version with the highest number."""
        ...

    async def versions(self, which: VersionFilter, *, after: tuple[str, int] | None, limit: int) -> Sequence[Version]:
        """Versions by subject and number, beginning after a (subject, number)."""
        ...

    async def versions_by_key(self, keys: Collection[tuple[str, int]]) -> Sequence[Version]:
        """The versions of these (subject, number), live or deleted, by subject and number. Unknown ones are absent."""
        ...

    async def subject(self, name: str) -> Subject | None:
        """A subject that has a version, live or deleted, or settings of its own; else None."""
        ...

    async def subjects(self, *, prefix: str, include_deleted: bool, after: str | None, limit: int) -> Sequence[Subject]:
        """Subjects with a live version (include_deleted: with any version) by name, beginning after a name."""
        ...

    async def dependencies(self, keys: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """(subject, number) of the versions that these versions reference directly, each once, in no order."""
        ...

    async def dependents(
        self, keys: Collection[tuple[str, int]], *, include_deleted: bool, limit: int
    ) -> Collection[tuple[str, int]]:
        """(subject, number) of versions that reference one of these directly, each once, at most `limit`."""
        ...

    async def changes(self, *, after: int, limit: int, text_bytes_max: int) -> Sequence[Change]:
        """Changes with positions after `after`, in order, without gaps.

        At most `limit`, and no more once their stored bytes pass `text_bytes_max` (always at least one, when there is
        one). The caller compares `after` with the head's floor.
        """
        ...
