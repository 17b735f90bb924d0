"""Changes that touch a whole subject: rollback, deletion, purge, settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from llm_schema_registry.errors import EtagMismatch, LimitExceeded, NotDeleted, SubjectNotFound
from services.registry.domain.events import (
    RequestKey,
    SettingsChanged,
    SubjectRolledBack,
    VersionsDeleted,
    VersionsPurged,
)
from services.registry.domain.lifecycle import rolled_back
from services.registry.domain.limits import VERSIONS_PER_SUBJECT_MAX
from services.registry.domain.model import Settings, State, Version, quoted_digest
from services.registry.domain.settings import is_empty, over, without
from services.registry.ports import Basis, Store, VersionFilter
from services.registry.usecases.compatibility import version_not_found
from services.registry.usecases.writer import Decision, Intent, Writer

PURGE_VERSIONS_MAX = VERSIONS_PER_SUBJECT_MAX


@dataclass(frozen=True, slots=True)
class InForce:
    """Where settings come from, and an etag that changes whenever any of it does. own: None for the global ones."""

    own: Settings | None
    general: Settings
    etag: str


class ChangeSubject:
    """Each method is one atomic step, and writes nothing when nothing changes."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    async def roll_back(
        self, subject: str, number: int, *, actor: str, request: RequestKey | None
    ) -> tuple[Version, tuple[int, ...]]:
        """The version in force after a rollback to it, and the numbers that were deprecated, ascending.

        Raises VersionNotFound, IllegalTransition and what Writer.run raises.
        """

        unchanged: Version | None = None

        async def decide(basis: Basis, now: datetime) -> Decision | None:
            nonlocal unchanged
            head = next((head for head in basis.live if head.number == number), None)
            version = await self._store.version(subject, number)
            if head is None or version is None:
                raise version_not_found(subject, number)
            deprecated = rolled_back(basis.live, head)
            if head.state is State.ACTIVE and not deprecated:
                unchanged = version
                return None
            target = replace(version, state=State.ACTIVE, update_time=now, activate_time=version.activate_time or now)
            return Decision(SubjectRolledBack(subject, number, deprecated, target))

        change = await self._writer.run(Intent(subject, actor, request), decide)
        event = change.event if change else None
        if isinstance(event, SubjectRolledBack) and event.target is not None:
            return event.target, event.deprecated
        assert unchanged is not None, "a rollback writes nothing only when nothing changes"
        return unchanged, ()

    async def delete(self, subject: str, *, actor: str, request: RequestKey | None) -> tuple[int, ...]:
        """Numbers of the versions that were live and are deleted now, ascending.

        Raises SubjectNotFound, VersionReferenced and what Writer.run raises.
        """

        async def decide(basis: Basis, _: datetime) -> Decision | None:
            if basis.live:
                return Decision(VersionsDeleted(subject, tuple(head.number for head in basis.live)))
            if not await self._versions(subject):
                raise subject_not_found(subject)
            return None

        change = await self._writer.run(Intent(subject, actor, request), decide)
        event = change.event if change else None
        return event.versions if isinstance(event, VersionsDeleted) else ()

    async def purge_version(
        self, subject: str, number: int, *, actor: str, request: RequestKey | None
    ) -> VersionsPurged | None:
        """What was purged; None when the version was purged before.

        Raises VersionNotFound, NotDeleted, VersionReferenced and what Writer.run raises.
        """

        async def decide(basis: Basis, _: datetime) -> Decision | None:
            version = await self._store.version(subject, number)
            if version is None:
                if number >= basis.next_number:
                    raise version_not_found(subject, number)
                return None
            if version.live:
                raise NotDeleted(
                    f"version {number} of subject {subject!r} is live: delete it first",
                    metadata={"subject": subject, "version": number},
                )
            return Decision(VersionsPurged(subject, (number,), tuple(await self._store.orphans(subject, [number]))))

        change = await self._writer.run(Intent(subject, actor, request), decide)
        return _purged(change.event if change else None)

    async def purge(self, subject: str, *, actor: str, request: RequestKey | None) -> VersionsPurged | None:
        """What was purged with all of a deleted subject's versions; None when it was purged before.

        Raises SubjectNotFound, NotDeleted, VersionReferenced and what Writer.run raises.
        """

        async def decide(basis: Basis, _: datetime) -> Decision | None:
            if basis.live:
                raise NotDeleted(
                    f"subject {subject!r} has {len(basis.live)} live versions: delete it first",
                    metadata={"subject": subject, "versions": len(basis.live)},
                )
            versions = await self._versions(subject)
            if not versions and is_empty(basis.own):
                if basis.revision == 0:
                    raise subject_not_found(subject)
                return None
            numbers = tuple(version.number for version in versions)
            orphans = tuple(await self._store.orphans(subject, numbers))
            return Decision(VersionsPurged(subject, numbers, orphans, settings_removed=True))

        change = await self._writer.run(Intent(subject, actor, request), decide)
        return _purged(change.event if change else None)

    async def settings(self, subject: str) -> InForce:
        """The settings in force for a subject, or with an empty name the global ones."""
        return _in_force(await self._store.basis(subject), subject)

    async def change_settings(
        self, subject: str, changes: Settings, etag: str, *, actor: str, request: RequestKey | None
    ) -> InForce:
        """The settings after those in `changes` are set. Raises EtagMismatch and what Writer.run raises."""

        def changed(before: Settings) -> Settings:
            return over(changes, before)

        return await self._set(subject, changed, etag, actor=actor, request=request)

    async def reset_settings(
        self, subject: str, names: frozenset[str], *, actor: str, request: RequestKey | None
    ) -> InForce:
        """The settings in force after some are unset. Raises what Writer.run raises."""

        def changed(before: Settings) -> Settings:
            return without(before, names)

        return await self._set(subject, changed, "", actor=actor, request=request)

    async def _set(
        self,
        subject: str,
        changed: Callable[[Settings], Settings],
        etag: str,
        *,
        actor: str,
        request: RequestKey | None,
    ) -> InForce:
        async def decide(basis: Basis, _: datetime) -> Decision | None:
            present = _in_force(basis, subject)
            if etag and etag != present.etag:
                raise EtagMismatch(
                    "the settings changed since they were read: read them again",
                    metadata={"subject": subject, "etag": present.etag},
                )
            before = basis.own if subject else basis.general
            after = changed(before)
            return None if after == before else Decision(SettingsChanged(subject, after), uses_global=not subject)

        await self._writer.run(Intent(subject, actor, request), decide)
        return await self.settings(subject)

    async def _versions(self, subject: str) -> Sequence[Version]:
        """All versions of a subject, live or deleted. Raises LimitExceeded for more than PURGE_VERSIONS_MAX."""
        everything = VersionFilter(subject=subject, include_deleted=True)
        found = await self._store.versions(everything, after=None, limit=PURGE_VERSIONS_MAX + 1)
        if len(found) > PURGE_VERSIONS_MAX:
            raise LimitExceeded(
                f"subject {subject!r} has more than {PURGE_VERSIONS_MAX} versions: purge some by number first",
                metadata={"limit": "purge_versions", "maximum": PURGE_VERSIONS_MAX},
            )
        return found


def subject_not_found(subject: str) -> SubjectNotFound:
    """The error for a subject that is not there, or is deleted."""
    return SubjectNotFound(f"there is no subject {subject!r}", metadata={"subject": subject})


def _purged(event: object) -> VersionsPurged | None:
    return event if isinstance(event, VersionsPurged) else None


def _in_force(basis: Basis, subject: str) -> InForce:
    """The settings that a basis gives a subject, or with an empty name everyone."""
    if not subject:
        return InForce(None, basis.general, quoted_digest((basis.epoch, basis.global_revision)))
    etag = quoted_digest((basis.epoch, basis.global_revision, subject, basis.revision))
    return InForce(basis.own, basis.general, etag)
