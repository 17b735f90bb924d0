"""Changes one version: its words, its state, its deletion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from llm_schema_registry.errors import EtagMismatch
from services.registry.domain.events import Event, RequestKey, VersionsDeleted, VersionTransitioned, VersionUpdated
from services.registry.domain.evolution.levels import history
from services.registry.domain.lifecycle import require_step
from services.registry.domain.model import State, Version
from services.registry.domain.search import version_words
from services.registry.domain.settings import inherits
from services.registry.ports import Basis, Store
from services.registry.usecases.compatibility import (
    compare,
    require_compatible,
    terms_in_force,
    version_not_found,
)
from services.registry.usecases.library import Library
from services.registry.usecases.writer import Decision, Intent, Writer


@dataclass(frozen=True, slots=True)
class Target:
    """The version to change. etag: when given, it must be the version's present one."""

    subject: str
    number: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """New values; None leaves a field as it is. tags: sorted, each once."""

    description: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state to reach. accept_undecided: a draft may become active though nobody knows whether readers cope."""

    state: State
    accept_undecided: bool = False


class ChangeVersion:
    """Updates, transitions and deletes versions, each atomic, each writing nothing when nothing changes."""

    def __init__(self, store: Store, library: Library, writer: Writer) -> None:
        self._store = store
        self._library = library
        self._writer = writer

    async def update(self, target: Target, update: Update, *, actor: str, request: RequestKey | None) -> Version:
        """The version after the update. Raises VersionNotFound, EtagMismatch and what Writer.run raises."""
        unchanged: Version | None = None

        async def decide(_: Basis, now: datetime) -> Decision | None:
            nonlocal unchanged
            version = await self._live(target)
            changed = _updated(version, update)
            if changed == version:
                unchanged = version
                return None
            changed = replace(changed, update_time=now)
            return Decision(VersionUpdated(changed), await self._words(changed))

        change = await self._writer.run(Intent(target.subject, actor, request), decide)
        return _after(change.event if change else None, unchanged)

    async def transition(self, target: Target, step: Step, *, actor: str, request: RequestKey | None) -> Version:
        """The version after the step. A draft that becomes active is checked like a new version.

        Raises VersionNotFound, IllegalTransition, IncompatibleSchema, EtagMismatch and what Writer.run raises.
        """
        unchanged: Version | None = None

        async def decide(basis: Basis, now: datetime) -> Decision | None:
            nonlocal unchanged
            version = await self._live(target)
            if version.state is step.state:
                unchanged = version
                return None
            require_step(version.state, step.state)
            activates = step.state is State.ACTIVE
            accepted = activates and await self._require_compatible(version, step, basis)
            activate_time = now if activates else version.activate_time
            changed = replace(version, state=step.state, update_time=now, activate_time=activate_time)
            event = VersionTransitioned(changed, version.state, accepted_undecided=accepted)
            return Decision(event, uses_global=activates and inherits(basis.own))

        change = await self._writer.run(Intent(target.subject, actor, request), decide)
        return _after(change.event if change else None, unchanged)

    async def delete(self, target: Target, *, actor: str, request: RequestKey | None) -> Version:
        """The version after its deletion. One that is deleted already is returned as it is.

        Raises VersionNotFound, VersionReferenced, EtagMismatch and what Writer.run raises.
        """
        unchanged: Version | None = None

        async def decide(_: Basis, now: datetime) -> Decision | None:
            nonlocal unchanged
            version = await self._existing(target)
            if not version.live:
                unchanged = version
                return None
            _require_etag(version, target)
            deleted = replace(version, delete_time=now, update_time=now)
            return Decision(VersionsDeleted(target.subject, (target.number,), deleted))

        change = await self._writer.run(Intent(target.subject, actor, request), decide)
        return _after(change.event if change else None, unchanged)

    async def _existing(self, target: Target) -> Version:
        version = await self._store.version(target.subject, target.number)
        if version is None:
            raise version_not_found(target.subject, target.number)
        return version

    async def _live(self, target: Target) -> Version:
        version = await self._existing(target)
        if not version.live:
            raise version_not_found(target.subject, target.number)
        _require_etag(version, target)
        return version

    async def _require_compatible(self, version: Version, step: Step, basis: Basis) -> bool:
        """Whether a verdict of UNDECIDED was accepted. Raises IncompatibleSchema."""
        parsed = await self._library.parsed(await self._library.schema(version.schema_id))
        terms = terms_in_force(basis, parsed)
        report = await compare(terms, history(terms.level, basis.live), parsed, library=self._library)
        return require_compatible(report, version.subject, accept_undecided=step.accept_undecided)

    async def _words(self, version: Version) -> tuple[str, ...]:
        parsed = await self._library.parsed(await self._library.schema(version.schema_id))
        return version_words(version, parsed.annotations)


def _updated(version: Version, update: Update) -> Version:
    return replace(
        version,
        description=version.description if update.description is None else update.description,
        owner=version.owner if update.owner is None else update.owner,
        tags=version.tags if update.tags is None else update.tags,
        metadata=version.metadata if update.metadata is None else update.metadata,
    )


def _require_etag(version: Version, target: Target) -> None:
    if target.etag and target.etag != version.etag:
        raise EtagMismatch(
            f"version {version.number} of subject {version.subject!r} changed since it was read: read it again",
            metadata={"subject": version.subject, "version": version.number, "etag": version.etag},
        )


def _after(event: Event | None, unchanged: Version | None) -> Version:
    """The version as the event left it, or as it was when nothing was written."""
    after = event.version if isinstance(event, VersionUpdated | VersionTransitioned | VersionsDeleted) else unchanged
    assert after is not None, "nothing is written only when nothing changes, and every event here holds the version"
    return after
