"""Writes to a store as the use cases do: decides on a basis and decides again when someone was faster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.registry.domain.events import (
    Change,
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
from services.registry.domain.model import Format, Reference, Schema, Settings, State, Version
from services.registry.ports import Basis, Proposal, Stale, Store

START = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPTS_MAX = 500


def fingerprint(text: str) -> bytes:
    """A digest in the form of a schema's fingerprints."""
    return b"\x01" + hashlib.sha256(text.encode()).digest()


def schema(schema_id: int, text: str, references: tuple[Reference, ...] = (), time: datetime = START) -> Schema:
    """A content whose identity is that of its text."""
    return Schema(schema_id, Format.JSON, text, references, fingerprint(text), fingerprint(text.lower()), time)


def version(subject: str, number: int, schema_id: int, time: datetime = START, state: State = State.ACTIVE) -> Version:
    """A version without words."""
    activate_time = None if state is State.DRAFT else time
    return Version(subject, number, schema_id, state, "", "", (), {}, time, time, activate_time)


def proposal(event: Event, basis: Basis, time: datetime = START, request: RequestKey | None = None) -> Proposal:
    """An event that was decided on a basis."""
    return Proposal(event, basis.epoch, basis.revision, None, "author", time, (), request)


class Author:
    """One writer of a store. Every commit is a second later than the one before."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time = START

    async def register(
        self,
        subject: str,
        text: str,
        *,
        references: tuple[Reference, ...] = (),
        state: State = State.ACTIVE,
        words: tuple[str, ...] = (),
        owner: str = "",
        tags: tuple[str, ...] = (),
    ) -> VersionRegistered:
        """The event that registered the text, or the one that would have when a live version holds it already."""

        for _ in range(ATTEMPTS_MAX):
            basis, time = await self.store.basis(subject, fingerprint(text)), self._tick()
            held = next((head for head in basis.live if head.schema_id == basis.schema_id), None)
            if held is not None:
                found = await self.store.version(subject, held.number)
                if found is None:
                    continue
                return VersionRegistered(found, schema(found.schema_id, text, references), references)
            schema_id = basis.schema_id or await self.store.reserve_schema_id()
            made = replace(version(subject, basis.next_number, schema_id, time, state), owner=owner, tags=tags)
            event = VersionRegistered(made, schema(schema_id, text, references, time), references)
            try:
                await self.store.commit(replace(proposal(event, basis, time), words=words))
            except Stale:
                continue
            return event
        raise AssertionError("somebody else was always faster")

    async def commit(self, subject: str, decide: Callable[[Basis], Event], request: RequestKey | None = None) -> Change:
        """The change of an event that is decided on the subject's basis, again and again while it is stale."""
        for _ in range(ATTEMPTS_MAX):
            basis = await self.store.basis(subject)
            try:
                return await self.store.commit(proposal(decide(basis), basis, self._tick(), request))
            except Stale:
                continue
        raise AssertionError("somebody else was always faster")

    async def propose(self, event: Event) -> Change:
        """The change of an event that is proposed once, on the present basis."""
        basis = await self.store.basis(event.subject)
        return await self.store.commit(proposal(event, basis, self._tick()))

    async def delete(self, subject: str, *numbers: int) -> Change:
        """Deletes versions."""
        return await self.commit(subject, lambda _: VersionsDeleted(subject, numbers))

    async def purge(self, subject: str, *numbers: int) -> Change:
        """Purges versions with the contents that no other version holds."""
        for _ in range(ATTEMPTS_MAX):
            orphans = tuple(await self.store.orphans(subject, numbers))
            try:
                return await self.propose(VersionsPurged(subject, numbers, orphans))
            except Stale:
                continue
        raise AssertionError("somebody else was always faster")

    async def change(self, changed: Version, words: tuple[str, ...] = ()) -> Change:
        """Puts other words, tags or metadata into a version."""
        time = self._tick()
        event = VersionUpdated(replace(changed, update_time=time))
        basis = await self.store.basis(changed.subject)
        return await self.store.commit(replace(proposal(event, basis, time), words=words))

    async def update(self, subject: str, number: int, description: str, words: tuple[str, ...] = ()) -> Change:
        """Changes a version's description and words."""
        found = await self.store.version(subject, number)
        if found is None:
            raise Stale("the version is gone")
        return await self.change(replace(found, description=description), words)

    async def transition(self, subject: str, number: int, state: State) -> Change:
        """Takes a version to another state."""
        basis, found = await self.store.basis(subject), await self.store.version(subject, number)
        if found is None:
            raise Stale("the version is gone")
        time = self._tick()
        activate_time = found.activate_time or (time if state is State.ACTIVE else None)
        changed = replace(found, state=state, update_time=time, activate_time=activate_time)
        event = VersionTransitioned(changed, found.state)
        return await self.store.commit(proposal(event, basis, time))

    async def roll_back(self, subject: str, number: int, *deprecated: int) -> Change:
        """Makes an older version the one in force."""
        return await self.propose(SubjectRolledBack(subject, number, deprecated))

    async def set_level(self, subject: str, level: str | None) -> Change:
        """Sets or removes a level; an empty subject is the global one."""
        return await self.propose(SettingsChanged(subject, Settings(level)))

    def _tick(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time
