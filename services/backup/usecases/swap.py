"""Swaps a prepared restore in, and back: the only moment at which the live database is touched.

Fence, read, replay or compare, move the ids, begin an epoch, swap the names, say so. The journal is written before each
point from which things can only go on; wherever a process ends, another one repeats the same steps, each of which finds
what is done already.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import Lease, LeaseTimes
from llm_schema_registry.operations.operation import Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain import restore as states
from services.backup.domain.forks import ancestry, known_lines, shared_position
from services.backup.domain.model import Epoch, Head, Place
from services.backup.domain.restore import KEEPING, LossWindow, Restore, RestoreState, read_confirmation
from services.backup.domain.targets import Latest
from services.backup.ports import Places, PlaceWriter
from services.backup.usecases.journal import Journal
from services.backup.usecases.precedence import needed
from services.backup.usecases.prepare import Prepare, Survey, follows, measure
from services.backup.usecases.repository import RESTORING, SWAPPING, Repository
from services.backup.usecases.scratch import Scratch

UNFINISHED = states.SWAPPING
SWAP_TIMES = LeaseTimes(lease=5.0, renew=1.0, fence=3.5)
"""Short, because nothing is served, or no write taken, until another process may go on. A process that is paused for
longer leaves its swap to whoever finds it."""
SWAP_PATIENCE_SECONDS = 15.0
RELEASE_PATIENCE_SECONDS = 40.0
"""As long as the lease of a process that is gone, so within the call's own deadline."""
CATCH_UP_MAX = 10
"""Rounds of replaying what came meanwhile, before the fence: the last one is then a short one."""
CATCH_UP_CHANGES = 50
CATCH_UP_LESS = 0.7
"""Of the round before: while a round has fewer changes than that, another one is worth its time."""
SCHEMA_ID_MAX = 2**31 - 1
UNREAD_MAX = 3
"""Objects that cannot be read, of those that are told."""


@dataclass(frozen=True, slots=True)
class SwapRules:
    """keep: how long what was replaced is kept. id_margin: schema ids passed over, beside all that may be in use."""

    keep: timedelta = timedelta(hours=24)
    id_margin: int = 1000


class Swap:
    """Activates, reverts and releases restores of one registry."""

    def __init__(
        self, repository: Repository, places: Places, journal: Journal, prepare: Prepare, rules: SwapRules
    ) -> None:
        self._repository = repository
        self._places = places
        self.journal = journal
        self.prepare = prepare
        self._rules = rules
        self._scratch = Scratch(places, repository)

    # Activation

    async def require_activatable(self, restore_id: str, confirmation: str) -> tuple[Restore, Place | None]:
        """The restore, and up to where changes may be lost, when it can be activated now.

        Raises errors.RestoreNotFound, InvalidField, IllegalState, LossWindowChanged.
        """
        confirmed = _confirmed(confirmation)
        restore = await self.journal.get(restore_id)
        if restore.state is not RestoreState.PREPARED:
            raise _wrong_state(restore, "activated", RestoreState.PREPARED)
        if not isinstance(restore.target, Latest):
            _require_covered(await self.prepare.window(restore), confirmed)
        return restore, confirmed

    async def activate(self, restore_id: str, confirmation: str, running: Running) -> Subject:
        """Activates the restore. Raises as ActivateRestore says; what served before serves on then, or once the
        database answers again."""
        async with self._alone() as lease:
            restore, confirmed = await self.require_activatable(restore_id, confirmation)
            scratch = await self._places.head(restore.scratch)
            begun = replace(
                restore,
                state=RestoreState.ACTIVATING,
                aside=self._places.aside(ids.token(restore.id)),
                confirmed=confirmed,
                new_epoch=await self._next_epoch(scratch),
                problem="",
            )
            await self._swap(begun, running, lease)
        return Subject("restore", restore_id)

    async def _ready(self, restore: Restore, running: Running) -> Restore:
        """Everything before the swap, all of which can be undone. What was done by a process that ended is found so."""
        places, clock = self._places, self._repository.clock
        scratch = await places.head(restore.scratch)
        if scratch.epoch == restore.new_epoch:
            return await self._ready_again(restore, scratch, running)
        survey = await self.prepare.survey(to_swap=True)
        survey.require_own()
        if survey.unreadable and restore.confirmed is None:
            raise _unread(survey, scratch.place)
        if isinstance(restore.target, Latest) and survey.live is not None:
            async with running.step("catch up"):
                await self._catch_up(restore)
        used = await self._used_schema_ids(running)
        # Started before the fence: a program takes longer to start than all that follows.
        async with places.writer(restore.scratch) as writer:
            began = clock.monotonic()
            survey = await self._fence(survey, running)
            async with running.step("tail") as say:
                say(await self._end_of_history(restore, survey, writer))
            async with running.step("epoch") as say:
                scratch = await places.head(restore.scratch)
                next_id = self._next_schema_id(used, scratch, survey.live)
                line = await self._begin_epoch(writer, scratch, restore, next_id)
                say(f"epoch {line.id} begins at {line.fork_position}; schema ids go on from {next_id}")
        fork = _fork(line)
        restore = await self.journal.write(
            restore, place=fork, fork=fork, next_schema_id=next_id, write_outage_seconds=clock.monotonic() - began
        )
        await self._require_still(survey.live)
        return restore

    async def _ready_again(self, restore: Restore, scratch: Head, running: Running) -> Restore:
        """The restore, whose epoch has begun already. Raises errors.LossWindowChanged when the live database was
        written to since: a process may have lifted the fence before it ended."""
        places, clock = self._places, self._repository.clock
        fork, began = _fork(scratch.epochs[-1]), clock.monotonic()
        if places.live in await places.existing():
            # First of all: a live database that was left closed is open then.
            with suppress(errors.DatabaseUnfit):
                await places.set_fenced(places.live, fenced=True)
        survey = await self._fence(await self.prepare.survey(to_swap=True), running)
        if survey.unreadable and restore.confirmed is None:
            raise _unread(survey, fork)
        _require_covered(measure(survey, fork), restore.confirmed)
        restore = await self.journal.write(
            restore,
            place=fork,
            fork=fork,
            next_schema_id=scratch.schema_id_high + 1,
            write_outage_seconds=(restore.write_outage_seconds or 0.0) + clock.monotonic() - began,
        )
        await self._require_still(survey.live)
        return restore

    async def _fence(self, survey: Survey, running: Running) -> Survey:
        """Stops writes to the database that is to be put aside, and says where it stands. Raises WrongCluster."""
        if survey.live is None and survey.stranger is None:
            return survey
        async with running.step("fence") as say:
            head = await self._places.set_fenced(self._places.live, fenced=True)
            await self._repository.failpoints.reached("restore.fenced")
            say(f"writes are refused since {head.place}; reads go on")
        if survey.stranger is None:
            return replace(survey, live=head)
        fenced = replace(survey, stranger=head)
        fenced.require_own()
        return fenced

    async def _require_still(self, fenced: Head | None) -> None:
        """Raises errors.LeaseLost when the live database was written to behind its fence: who lifted it believes to be
        in charge, and was paused until now."""
        if fenced is None:
            return
        now = await self._places.head(self._places.live)
        if not now.fenced or now.place != fenced.place:
            raise errors.LeaseLost("Another process let the live database be written to: nothing was swapped. Repeat.")

    async def _catch_up(self, restore: Restore) -> None:
        """Replays what was written meanwhile, until little is left for the time of the fence."""
        place, before = (await self._places.head(restore.scratch)).place, math.inf
        for _ in range(CATCH_UP_MAX):
            reached = await self.prepare.follow_live(restore.scratch, place)
            count = reached.position - place.position
            # As many again is what comes while a program starts: further rounds would only keep everybody waiting.
            if count < CATCH_UP_CHANGES or count > before * CATCH_UP_LESS:
                return
            place, before = reached, count

    async def _end_of_history(self, restore: Restore, survey: Survey, writer: PlaceWriter) -> str:
        """Replays the tail, and compares the loss with what was confirmed; says it. Raises errors.LossWindowChanged."""
        live = survey.live
        place = (await self._places.head(restore.scratch)).place
        if live is not None and isinstance(restore.target, Latest) and follows(live, place):
            async with aclosing(self.prepare.live_changes(place.position, live.position)) as changes:
                place = await writer.replay(changes)
        window = measure(survey, place)
        _require_covered(window, restore.confirmed)
        return window.told if live is not None else f"the live database cannot be read; of the archive, {window.told}"

    # Revert

    async def require_revertible(self, restore_id: str, confirmation: str) -> tuple[Restore, Place | None]:
        """The restore, and up to where changes may be lost, when it can be reverted now.

        Raises errors.RestoreNotFound, InvalidField, IllegalState, LossWindowChanged, DatabaseUnavailable.
        """
        confirmed = _confirmed(confirmation)
        restore = await self.journal.get(restore_id)
        if restore.state is not RestoreState.ACTIVE:
            raise _wrong_state(restore, "reverted", RestoreState.ACTIVE)
        if restore.aside not in await self._places.existing():
            raise errors.IllegalState(
                f"Restore {restore_id} cannot be reverted: nothing was replaced, or it is gone.",
                metadata={"restore_id": restore_id},
            )
        _require_covered(await self.revert_window(restore), confirmed)
        return restore, confirmed

    async def revert_window(self, restore: Restore) -> LossWindow:
        """What was written since the activation, which a revert leaves behind. Raises errors.DatabaseUnavailable,
        DatabaseUnfit."""
        return await self._since(restore, await self._places.head(self._places.live))

    async def _since(self, restore: Restore, live: Head) -> LossWindow:
        """What the live history has and the replaced one has not, apart from changes that only began an epoch."""
        aside = await self._places.head(restore.aside)
        try:
            lines = known_lines(live.epochs, aside.epochs)
            shared = shared_position(lines, aside.place, live.place)
            mine, others = ancestry(lines, live.epoch), {line.id for line in ancestry(lines, aside.epoch)}
        except ValueError as error:
            raise errors.IllegalState(
                f"Restore {restore.id} cannot be reverted: what it replaced is not of the history that serves now:"
                f" {error}.",
                metadata={"restore_id": restore.id},
            ) from None
        began = sum(1 for line in mine if line.id not in others and line.fork_position >= shared)
        return LossWindow(readable=True, live=live.place, changes=max(0, live.position - shared - began))

    async def revert(self, restore_id: str, confirmation: str, running: Running) -> Subject:
        """Swaps the replaced database back, in a new epoch. Raises as RevertRestore says."""
        async with self._alone() as lease:
            restore, confirmed = await self.require_revertible(restore_id, confirmation)
            live = await self._places.head(self._places.live)
            begun = replace(
                restore,
                state=RestoreState.REVERTING,
                confirmed=confirmed,
                new_epoch=await self._next_epoch(live),
                fork=None,
                write_outage_seconds=None,
                problem="",
            )
            await self._swap(begun, running, lease)
        return Subject("restore", restore_id)

    async def _ready_to_revert(self, restore: Restore, running: Running) -> Restore:
        """As `_ready`, of a revert."""
        places, clock = self._places, self._repository.clock
        # First of all: a live database that was left closed by a process that ended is open then.
        if (await places.head(restore.aside)).epoch == restore.new_epoch:
            await places.set_fenced(places.live, fenced=True)
        used = await self._used_schema_ids(running)
        async with places.writer(restore.aside) as writer:
            began = clock.monotonic()
            async with running.step("fence") as say:
                live = await places.set_fenced(places.live, fenced=True)
                await self._repository.failpoints.reached("restore.fenced")
                _require_covered(await self._since(restore, live), restore.confirmed)
                say(f"writes are refused since {live.place}; reads go on")
            async with running.step("epoch") as say:
                aside = await places.head(restore.aside)
                next_id = self._next_schema_id(used, aside, live)
                if aside.epoch == restore.new_epoch:
                    next_id = aside.schema_id_high + 1
                line = await self._begin_epoch(writer, aside, restore, next_id)
                say(f"epoch {line.id} begins at {line.fork_position}; schema ids go on from {next_id}")
        restore = await self.journal.write(
            restore, fork=_fork(line), next_schema_id=next_id, write_outage_seconds=clock.monotonic() - began
        )
        await self._require_still(live)
        return restore

    # Both

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Lease]:
        """The offices of restores and of swaps, for the block; the lease of the second, a short one."""
        async with needed(self._repository.leases), self._swapping() as lease:
            yield lease

    def _swapping(self) -> AbstractAsyncContextManager[Lease]:
        return self._repository.leases.held(SWAPPING, patience_seconds=SWAP_PATIENCE_SECONDS, times=SWAP_TIMES)

    async def _swap(self, restore: Restore, running: Running, lease: Lease) -> None:
        """Ends the swap that a restore's state tells of, from wherever it stands, or goes back.

        The journal is written first in any case: a process that had begun it, and was only paused, learns from that,
        with whatever it does next, that it is no longer its own.
        """
        try:
            restore = await self.journal.write(restore)
            if restore.scratch and await self._waits(restore):
                ready = self._ready_to_revert if restore.state is RestoreState.REVERTING else self._ready
                restore = await ready(restore, running)
            await lease.require()
            running.point_of_no_return = True
            # Cancelled it ends all the same: names that are half swapped serve nobody.
            await to_the_end(self._finish(restore, running))
        except BaseException as failure:
            running.point_of_no_return = True
            await to_the_end(self._back(restore.id, failure, lease))
            raise

    async def _waits(self, restore: Restore) -> bool:
        """Whether what is to be swapped in still has its own name."""
        return self._sides(restore)[0] in await self._places.existing()

    def _sides(self, restore: Restore) -> tuple[str, str]:
        """Names of what is swapped in, and of what the live one is called then."""
        reverting = restore.state is RestoreState.REVERTING
        return (restore.aside, restore.scratch) if reverting else (restore.scratch, restore.aside)

    async def _finish(self, restore: Restore, running: Running) -> None:
        """Swaps the names and says so."""
        clock = self._repository.clock
        began = clock.monotonic()
        incoming, aside = self._sides(restore)
        async with running.step("swap") as say:
            await self._places.swap(incoming=incoming, aside=aside)
            say(f"{incoming} serves as {self._places.live}; the one before is kept as {aside}")
        # Behind the swap nothing refuses writes any more; the journal's entry is not waited for.
        outage = (restore.write_outage_seconds or 0.0) + clock.monotonic() - began
        # By the store's clock, as when it is over: a machine's may be wrong, and what is gone does not come back.
        now = await self._repository.store.now()
        reverting = restore.state is RestoreState.REVERTING
        await self.journal.write(
            restore,
            state=RestoreState.REVERTED if reverting else RestoreState.ACTIVE,
            activate_time=restore.activate_time or now,
            keep_until=now + self._rules.keep,
            write_outage_seconds=outage,
        )

    async def _back(self, restore_id: str, failure: BaseException, lease: Lease) -> None:
        """Lets the live database serve on as before, if the swap was not done and this process is still in charge.

        What cannot be undone now, because nothing answers, stays as the journal has it: `unfinished` shows it, and
        whoever goes on with it finds everything again.
        """
        with suppress(errors.Error):
            restore = await self.journal.get(restore_id)
            if restore.state not in UNFINISHED or await self._swapped(restore):
                return
            problem = str(failure) if isinstance(failure, errors.Error) else "the swap did not end"
            await lease.require()
            live: Head | None = None
            if self._places.live in await self._places.existing():
                with suppress(errors.DatabaseUnfit):
                    live = await self._places.set_fenced(self._places.live, fenced=False)
            if restore.state is RestoreState.REVERTING:
                epoch = live.epoch if live else restore.new_epoch
                await self.journal.write(
                    restore, state=RestoreState.ACTIVE, new_epoch=epoch, fork=None, confirmed=None, problem=problem
                )
                return
            # One whose epoch has begun cannot follow the live history any more.
            spoilt = await self._epoch_of(restore.scratch) in {None, restore.new_epoch}
            state = RestoreState.FAILED if spoilt else RestoreState.PREPARED
            await self.journal.write(restore, state=state, aside="", fork=None, confirmed=None, problem=problem)
            if spoilt:
                await self._scratch.drop(restore.scratch)

    async def _swapped(self, restore: Restore) -> bool:
        """Whether the names are swapped. Raises errors.DatabaseUnavailable when that cannot be known."""
        return not await self._waits(restore) and await self._epoch_of(self._places.live) == restore.new_epoch

    async def _epoch_of(self, name: str) -> int | None:
        """The epoch that a place is in; None when there is no such place."""
        try:
            return (await self._places.head(name)).epoch
        except errors.DatabaseUnfit:
            return None

    # Release

    async def release(self, restore_id: str) -> Restore:
        """Drops what a restore keeps beside the live database. Raises as ReleaseRestore says."""
        async with self._repository.leases.held(RESTORING, patience_seconds=RELEASE_PATIENCE_SECONDS):
            restore = await self.journal.get(restore_id)
            return await self._release(restore, restore.problem)

    async def _release(self, restore: Restore, problem: str) -> Restore:
        """As `release`, in the office of restores. problem: why, where nobody asked for it."""
        if restore.state in UNFINISHED or restore.state is RestoreState.PREPARING:
            raise _wrong_state(restore, "released", *_RELEASABLE)
        for name in (restore.scratch, restore.aside):
            if name:
                await self._places.drop(name)
        if restore.state is RestoreState.RELEASED:
            return restore
        return await self.journal.write(restore, state=RestoreState.RELEASED, problem=problem)

    # By itself

    async def unfinished(self) -> list[Restore]:
        """Swaps that a process began and none has ended."""
        return [restore for restore in await self.journal.list() if restore.state in UNFINISHED]

    async def abandoned(self) -> list[Restore]:
        """Those of them whose process is gone, or has not said for seconds that it is not."""
        unfinished = await self.unfinished()
        if not unfinished or await self._repository.leases.holder(SWAPPING, times=SWAP_TIMES):
            return []
        # One that ended between the two looks left its office as well, and wrote so.
        return [restore for restore in await self.unfinished() if restore in unfinished]

    async def go_on(self, restore_id: str, running: Running) -> Subject:
        """Ends a swap that another process began. Raises as `activate` and `revert` do.

        Needs the office of swaps alone: the lease of the one that died on restores is a long one. No preparation that
        has begun since can be harmed: what it does not find as it was ends it.
        """
        async with self._swapping() as lease:
            restore = await self.journal.get(restore_id)
            if restore.state in UNFINISHED:
                await self._swap(restore, running, lease)
        return Subject("restore", restore_id)

    async def release_old(self) -> list[str]:
        """Releases what was kept for its whole time by the store's clock, and returns the ids. One that others work on
        meanwhile stays."""
        now = await self._repository.store.now()
        kept = [each for each in await self.journal.list() if each.state in KEEPING]
        over = [each for each in kept if each.keep_until is not None and each.keep_until < now]
        released = []
        for seen in over:
            async with self._repository.leases.held(RESTORING, patience_seconds=RELEASE_PATIENCE_SECONDS):
                if await self.journal.get(seen.id) == seen:
                    await self._release(seen, _expired(seen))
                    released.append(seen.id)
        return released

    # Numbers

    async def _next_epoch(self, head: Head) -> int:
        """A number for a line that nobody ever heard of."""
        survey = await self.prepare.survey()
        archived, history = await self.prepare.archive.known(), await self.journal.history()
        journaled = [restore.new_epoch or 0 for restore in history.told]
        known = max(archived.epoch, head.epoch, *journaled, *(line.id for line in survey.epochs), 0)
        return 1 + known + history.unread

    async def _used_schema_ids(self, running: Running) -> int:
        """The highest schema id that the store knows to have been given, or passed over by an earlier swap; what cannot
        be read of that is told, and more ids are passed over for it."""
        archived, history = await self.prepare.archive.known(), await self.journal.history()
        if archived.unread or history.lost:
            async with running.step("numbers") as say:
                unread = [
                    *(f"{name} cannot be read" for name in archived.unread),
                    *(each.problem for each in history.lost),
                ]
                say(f"further schema ids are passed over: {'; '.join(unread[:UNREAD_MAX])}")
        known = max(archived.schema_id, *(restore.next_schema_id or 0 for restore in history.told), 0)
        return known + history.unread * (1 + self._rules.id_margin)

    def _next_schema_id(self, used: int, *heads: Head | None) -> int:
        """A schema id above every one that may ever have been given."""
        known = max(used, *(head.schema_id_high for head in heads if head is not None), 0)
        if known >= SCHEMA_ID_MAX:
            raise errors.RestoreFailed(f"All schema ids up to {SCHEMA_ID_MAX} may have been given: none is left.")
        return min(known + 1 + self._rules.id_margin, SCHEMA_ID_MAX)

    async def _begin_epoch(self, writer: PlaceWriter, head: Head, restore: Restore, next_schema_id: int) -> Epoch:
        """Begins the restore's epoch behind a place's head, unless that has happened, and returns its line."""
        assert restore.new_epoch is not None, "the journal of a swap names its epoch"
        if head.epoch == restore.new_epoch:
            return head.epochs[-1]
        line = Epoch(restore.new_epoch, head.epoch, head.position)
        await writer.begin_epoch(line, next_schema_id=next_schema_id, actor=restore.actor)
        await self._repository.failpoints.reached("restore.epoch_begun")
        return line


def _fork(line: Epoch) -> Place:
    """Where a line leaves the one before."""
    return Place(line.parent or line.id, line.fork_position)


def _expired(restore: Restore) -> str:
    """Why a restore is released by itself."""
    if restore.state is RestoreState.PREPARED:
        return f"it was not activated by {restore.keep_until:%Y-%m-%d %H:%M UTC}, until when it was kept"
    return restore.problem


def _unread(survey: Survey, place: Place) -> errors.LossWindowChanged:
    window = measure(survey, place)
    return errors.LossWindowChanged(
        f"The live database is there but cannot be read: {survey.unreadable} Put that right and repeat, or confirm with"
        f" {window.confirmation} that all it has beyond the archive may be lost.",
        metadata={"confirmation": window.confirmation, "changes": window.changes, "live_place": str(window.live)},
    )


_RELEASABLE = (
    RestoreState.PREPARED,
    RestoreState.ACTIVE,
    RestoreState.REVERTED,
    RestoreState.FAILED,
    RestoreState.RELEASED,
)


def _confirmed(confirmation: str) -> Place | None:
    try:
        return read_confirmation(confirmation)
    except ValueError as invalid:
        raise errors.InvalidField.of("confirmation", str(invalid)) from None


def _require_covered(window: LossWindow, confirmed: Place | None) -> None:
    if window.covered_by(confirmed):
        return
    raise errors.LossWindowChanged(
        f"Not confirmed: {window.told}. Confirm with {window.confirmation}; while others write, a later position allows"
        " for what they add.",
        metadata={"confirmation": window.confirmation, "changes": window.changes, "live_place": str(window.live)},
    )


def _wrong_state(restore: Restore, wanted: str, *states: RestoreState) -> errors.IllegalState:
    names = " or ".join(state.name for state in states)
    problem = f" ({restore.problem})" if restore.problem else ""
    return errors.IllegalState(
        f"Restore {restore.id} is {restore.state.name}{problem}: only one that is {names} can be {wanted}.",
        metadata={"restore_id": restore.id, "state": restore.state.name},
    )
