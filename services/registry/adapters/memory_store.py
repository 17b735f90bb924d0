"""The store in memory: for tests, and the model that the real one is compared with. One event loop, nothing kept.

Commits check everything before they change anything and never await, so each is one step for everyone else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from uuid import uuid4

from services.registry.adapters.refusals import (
    references_not_live,
    schema_ids_exhausted,
    still_referenced,
    writes_fenced,
)
from services.registry.codec import events as codec
from services.registry.domain.events import (
    Change,
    EpochStarted,
    Event,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
)
from services.registry.domain.limits import SCHEMA_ID_MAX
from services.registry.domain.model import Schema, Subject, Version, VersionHead
from services.registry.domain.settings import NOTHING_SET
from services.registry.domain.state import Inapplicable, RegistryState, StoredVersion
from services.registry.ports import Basis, Head, Proposal, Stale, VersionFilter

Key = tuple[str, int]


class MemoryBell:
    """Rings at every commit of one memory store."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Ends the wait that is under way, or the next one at once."""
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> None:
        """Returns when it rings, at once when it rang since the last wait ended, or at the timeout. One waiter."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        self._rung.clear()


class MemoryStore:
    """Store in memory. `fence`, `forget` and `skip_ids` do what restores and a retention do to the real one."""

    def __init__(self, *, bell: MemoryBell | None = None) -> None:
        self._state = RegistryState()
        self._changes: list[Change] = []
        self._requests: dict[tuple[str, str, str], Change] = {}
        self._floor = 0
        self._fenced = False
        self._next_schema_id = 1
        self._cluster_id = str(uuid4())
        self._bell = bell

    def fence(self, *, fenced: bool = True) -> None:
        """Stops writes, or lets them happen again."""
        self._fenced = fenced

    def forget(self, floor: int) -> None:
        """Drops the changes up to a position."""
        self._floor = floor

    def skip_ids(self, last: int) -> None:
        """Takes every schema id up to one."""
        self._next_schema_id = last + 1

    async def head(self) -> Head:
        """See Store."""
        state = self._state
        return Head(state.epoch, state.position, self._floor, self._fenced, state.purge_position, self._cluster_id)

    async def reserve_schema_id(self) -> int:
        """See Store."""
        schema_id = self._next_schema_id
        if schema_id > SCHEMA_ID_MAX:
            raise schema_ids_exhausted()
        self._next_schema_id += 1
        return schema_id

    async def basis(self, subject: str, identity: bytes | None = None) -> Basis:
        """See Store."""
        state = self._state
        record = state.subjects.get(subject)
        schema_id = None if identity is None else state.ids.get(identity)
        return Basis(
            epoch=state.epoch,
            global_revision=state.global_revision,
            general=state.general,
            revision=record.revision if record else 0,
            next_number=record.next_number if record else 1,
            own=record.own if record else NOTHING_SET,
            live=tuple(_head(version) for version in record.live()) if record else (),
            schema_id=schema_id,
            schema_purged=schema_id is not None and state.schemas[schema_id].schema is None,
        )

    async def commit(self, proposal: Proposal) -> Change:
        """See Store."""
        self._check_subject(proposal)
        self._check_event(proposal.event)
        self._check_head(proposal)
        event = proposal.event
        change = Change(
            epoch=event.epoch if isinstance(event, EpochStarted) else proposal.epoch,
            position=self._state.position + 1,
            time=proposal.time,
            actor=proposal.actor,
            event=event,
            request=proposal.request,
        )
        try:
            self.replay(change, proposal.words)
        except Inapplicable as reason:
            raise Stale(str(reason)) from None
        if self._bell is not None:
            self._bell.ring()
        return change

    def replay(self, change: Change, words: tuple[str, ...] = ()) -> None:
        """Applies the next change of a history, without the checks of a commit. Raises Inapplicable."""
        self._state.apply(change, words)
        self._changes.append(change)
        if change.request is not None:
            self._requests[change.actor, change.request.method, change.request.id] = change

    def _check_subject(self, proposal: Proposal) -> None:
        subject = proposal.event.subject
        record = self._state.subjects.get(subject)
        if subject and proposal.revision != (record.revision if record else 0):
            raise Stale(f"subject {subject!r} has moved")

    def _check_event(self, event: Event) -> None:
        match event:
            case VersionRegistered():
                missing = [
                    reference
                    for reference in event.references
                    if not _is_live(self._state.version(reference.subject, reference.version))
                ]
                if missing:
                    raise references_not_live(missing)
            case VersionsDeleted():
                if not all(_is_live(self._state.version(event.subject, number)) for number in event.versions):
                    raise Stale(f"versions of {event.subject!r} are not live")
                self._check_not_referenced(event.subject, event.versions, include_deleted=False)
            case VersionsPurged():
                self._check_purge(event)
            case _:
                pass

    def _check_purge(self, event: VersionsPurged) -> None:
        purged = [self._state.version(event.subject, number) for number in event.versions]
        if any(stored is None or stored.version.live for stored in purged):
            raise Stale(f"versions of {event.subject!r} are not deleted")
        self._check_not_referenced(event.subject, event.versions, include_deleted=True)
        if list(event.schema_ids) != self._orphans(event.subject, event.versions):
            raise Stale("contents are held by others than the event says")

    def _check_not_referenced(self, subject: str, numbers: Sequence[int], *, include_deleted: bool) -> None:
        keys = {(subject, number) for number in numbers}
        holders = sorted(key for key in self._dependents(keys, include_deleted=include_deleted) if key not in keys)
        if holders:
            raise still_referenced(subject, numbers, holders)

    def _check_head(self, proposal: Proposal) -> None:
        request = proposal.request
        if self._fenced:
            raise writes_fenced()
        if request is not None and (proposal.actor, request.method, request.id) in self._requests:
            raise Stale("the request id is recorded already")
        if proposal.epoch != self._state.epoch:
            raise Stale("the epoch has moved")
        if proposal.global_revision not in (None, self._state.global_revision):
            raise Stale("the global settings have moved")

    async def recorded(self, actor: str, method: str, request_id: str) -> Change | None:
        """See Store."""
        return self._requests.get((actor, method, request_id))

    async def forget_requests(self, before: datetime, limit: int) -> int:
        """See Store."""
        old = [key for key, change in self._requests.items() if change.time < before][:limit]
        for key in old:
            del self._requests[key]
        return len(old)

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See Store."""
        found = ((schema_id, self._state.schemas.get(schema_id)) for schema_id in set(ids))
        return {schema_id: stored.schema for schema_id, stored in found if stored and stored.schema}

    async def schema_by_identity(self, identity: bytes) -> Schema | None:
        """See Store."""
        schema_id = self._state.ids.get(identity)
        return None if schema_id is None else self._state.schemas[schema_id].schema

    async def schemas_by_semantic(self, semantic: bytes, limit: int) -> Sequence[Schema]:
        """See Store."""
        stored = (record.schema for _, record in sorted(self._state.schemas.items()))
        return list(islice((schema for schema in stored if schema and schema.semantic == semantic), limit))

    async def targets(self, schema_id: int) -> Mapping[str, int]:
        """See Store."""
        stored = self._state.schemas.get(schema_id)
        return dict(stored.targets) if stored else {}

    async def orphans(self, subject: str, numbers: Collection[int]) -> Sequence[int]:
        """See Store."""
        return self._orphans(subject, numbers)

    async def version(self, subject: str, number: int) -> Version | None:
        """See Store."""
        stored = self._state.version(subject, number)
        return stored.version if stored else None

    async def latest(self, subject: str) -> Version | None:
        """See Store."""
        record = self._state.subjects.get(subject)
        return record.latest() if record else None

    async def versions(self, which: VersionFilter, *, after: Key | None, limit: int) -> Sequence[Version]:
        """See Store."""
        found = (
            stored.version
            for stored in self._state.versions()
            if self._matches(stored, which) and (after is None or _key(stored) > after)
        )
        return list(islice(found, limit))

    async def versions_by_key(self, keys: Collection[Key]) -> Sequence[Version]:
        """See Store."""
        found = (self._state.version(*key) for key in sorted(set(keys)))
        return [stored.version for stored in found if stored]

    async def subject(self, name: str) -> Subject | None:
        """See Store."""
        record = self._state.subjects.get(name)
        return record.noun(self._state.general) if record and record.exists else None

    async def subjects(self, *, prefix: str, include_deleted: bool, after: str | None, limit: int) -> Sequence[Subject]:
        """See Store."""
        found = (
            record.noun(self._state.general)
            for name, record in sorted(self._state.subjects.items())
            if name.startswith(prefix) and (after is None or name > after) and record.versions
        )
        return list(islice((subject for subject in found if include_deleted or subject.version_count), limit))

    async def dependencies(self, keys: Collection[Key]) -> Collection[Key]:
        """See Store."""
        stored = (self._state.version(*key) for key in set(keys))
        return {(target.subject, target.version) for each in stored if each for target in each.references}

    async def dependents(self, keys: Collection[Key], *, include_deleted: bool, limit: int) -> Collection[Key]:
        """See Store."""
        return list(islice(self._dependents(set(keys), include_deleted=include_deleted), limit))

    async def changes(self, *, after: int, limit: int, text_bytes_max: int) -> Sequence[Change]:
        """See Store."""
        found: list[Change] = []
        stored_bytes = 0
        for change in self._changes[max(after, self._floor) :][:limit]:
            if stored_bytes > text_bytes_max:
                break
            found.append(change)
            stored_bytes += len(codec.payload(change.event))
        return found

    def _orphans(self, subject: str, numbers: Collection[int]) -> list[int]:
        gone = {(subject, number) for number in numbers}
        held_by_gone = {stored.version.schema_id for stored in self._state.versions() if _key(stored) in gone}
        held = {stored.version.schema_id for stored in self._state.versions() if _key(stored) not in gone}
        return sorted(held_by_gone - held)

    def _versions(self, *, include_deleted: bool) -> Iterator[Version]:
        return (stored.version for stored in self._state.versions() if include_deleted or stored.version.live)

    def _dependents(self, keys: set[Key], *, include_deleted: bool) -> Iterator[Key]:
        for stored in self._state.versions():
            if not include_deleted and not stored.version.live:
                continue
            if any((target.subject, target.version) in keys for target in stored.references):
                yield _key(stored)

    def _matches(self, stored: StoredVersion, which: VersionFilter) -> bool:
        version = stored.version
        schema = self._state.schemas[version.schema_id].schema
        return (
            which.subject in (None, version.subject)
            and which.state in (None, version.state)
            and (which.schema_ids is None or version.schema_id in which.schema_ids)
            and (which.include_deleted or version.live)
            and which.owner in (None, version.owner)
            and (which.format is None or (schema is not None and schema.format is which.format))
            and set(which.tags) <= set(version.tags)
            and all(any(word.startswith(start) for word in stored.words) for start in which.words)
        )


def _key(stored: StoredVersion) -> Key:
    return stored.version.subject, stored.version.number


def _is_live(stored: StoredVersion | None) -> bool:
    return stored is not None and stored.version.live


def _head(version: Version) -> VersionHead:
    return VersionHead(version.number, version.schema_id, version.state, version.activate_time is not None)
