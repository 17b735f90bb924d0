"""Work of the backup service, begun for a step of a recovery and waited for.

Every request carries an id made of recovery, step and attempt, so that whoever goes on with the step finds what a
process that ended had begun, instead of beginning it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import Lease
from services.admin.domain.recovery import Recovery, StepName
from services.admin.domain.restoring import Activate, Ended, RestoreFacts, RestoreState, Revert, Work
from services.admin.ports import Restores
from services.admin.usecases.recovery_journal import RecoveryJournal

T = TypeVar("T")

POLL_SECONDS = 0.25
AWAY_SECONDS_MAX = 60.0
"""How long the backup service, or what it needs, may be away within a step: longer than a restart takes."""
TRIES_MAX = 6
"""Of work whose process is gone, that found the database or the store away, or that waited for a minute for other work
that went on, in one attempt of a step."""
TRY_SECONDS = 2.0


class Course:
    """A step under way: the recovery as the journal has it, and its request ids."""

    def __init__(self, journal: RecoveryJournal, recovery: Recovery, name: StepName, lease: Lease) -> None:
        self._journal = journal
        self._lease = lease
        self.recovery = recovery
        self.name = name

    async def note(self, **changes: Any) -> None:
        """Writes into the journal what is known now. Raises errors.LeaseLost."""
        changed = replace(self.recovery, **changes)
        if changed != self.recovery:
            self.recovery = await self._journal.write(changed)

    async def require(self) -> None:
        """Returns while this process is in charge. Raises errors.LeaseLost."""
        await self._lease.require()

    def request_id(self, what: str, number: int = 0) -> str:
        """The id of a request of this attempt."""
        attempt = self.recovery.step(self.name).attempts
        return f"recovery.{self.recovery.id}.{self.name}.{attempt}.{what}.{number}"


class RestoreWork:
    """Begins work of the backup service and waits for it."""

    def __init__(self, restores: Restores) -> None:
        self.restores = restores

    async def done(self, course: Course, what: str, work: Work) -> Ended:
        """How the work ended, well. Raises what it failed with; what may pass is tried TRIES_MAX times."""
        for number in range(TRIES_MAX):
            await course.require()
            request_id = course.request_id(what, number)
            name = await self.patient(lambda request_id=request_id: self.restores.begin(work, request_id))  # type: ignore[misc]
            ended = await self.ended(name)
            if ended.error is None:
                return ended
            if not _passing(ended.error):
                break
            await asyncio.sleep(TRY_SECONDS)
        assert ended.error is not None, "it ended badly, or would have been returned"
        raise ended.error

    async def swapped(self, course: Course, work: Activate | Revert, wanted: RestoreState) -> RestoreFacts:
        """The restore, once its swap is done, whoever of the backup service's processes does it. Raises what it failed
        with: then the names are as they were. What may pass is tried TRIES_MAX times."""
        for number in range(TRIES_MAX - 1):
            try:
                return await self._swapped(course, work, wanted, number)
            except errors.Error as failed:
                if not _passing(failed):
                    raise
            await asyncio.sleep(TRY_SECONDS)
        return await self._swapped(course, work, wanted, TRIES_MAX - 1)

    async def _swapped(
        self, course: Course, work: Activate | Revert, wanted: RestoreState, number: int
    ) -> RestoreFacts:
        before = await self.patient(lambda: self.restores.restore(work.restore_id))
        if before.state is wanted:
            return before
        await course.require()
        if isinstance(work, Activate):
            request_id = course.request_id("activate", number)
        else:
            # An undoing has no attempts: one that failed is begun anew, one that goes on is seen by its state.
            request_id = course.request_id(f"revert-{course.recovery.number}", number)
        swapping = {RestoreState.ACTIVATING, RestoreState.REVERTING}
        begun = before.state in swapping
        name = "" if begun else await self.patient(lambda: self.restores.begin(work, request_id))
        while True:
            ended = await self.patient(lambda: self.restores.ended(name)) if name else None
            found = await self.patient(lambda: self.restores.restore(work.restore_id))
            if found.state is wanted:
                return found
            begun = begun or found.state in swapping
            if found.state not in swapping:
                if ended is not None and ended.error is not None:
                    raise ended.error
                if begun or found.problem not in {"", before.problem}:
                    # Another process ended what one that is gone had begun.
                    raise errors.RestoreFailed(f"The swap went back: {found.problem or 'its process ended'}.")
            await asyncio.sleep(POLL_SECONDS)

    async def ended(self, name: str) -> Ended:
        """How an operation ended, once it has."""
        while True:
            found = await self.patient(lambda: self.restores.ended(name))
            if found is not None:
                return found
            await asyncio.sleep(POLL_SECONDS)

    async def patient(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the backup service, which may be restarting, or without its database for a moment: a swap
        ends its sessions. Raises what it says after AWAY_SECONDS_MAX."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + AWAY_SECONDS_MAX
        while True:
            try:
                return await ask()
            except (errors.PeerUnreachable, errors.DatabaseUnavailable, errors.ObjectStoreUnavailable):
                if loop.time() >= ends:
                    raise
            await asyncio.sleep(POLL_SECONDS)


def _passing(error: errors.Error) -> bool:
    """Whether the work ended because its process did (records of such operations name it), something was away, as the
    sessions are that a swap ended, or another was at work for a minute, as a backup to a slow store is."""
    gone = isinstance(error, errors.OperationCancelled) and "instance_id" in error.metadata
    return gone or error.code is errors.Code.UNAVAILABLE or isinstance(error, errors.OperationRunning)
