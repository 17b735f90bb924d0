"""Swaps a prepared restore in, and back: the only moment at which the live database is touched.

Fence, read, replay or compare, move the ids, begin an epoch, swap the names, say so. The journal is written before each
point from which things can only go on; wherever a process ends, another one repeats the same steps, each of which finds
what is done already.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from llm_schema_registry import errors
from services.backup.domain import ids
from services.backup.domain.model import Epoch, Head, Place
from services.backup.domain.operation import Subject
from services.backup.domain.restore import (
    KEEPING,
    SWAPPING,
    LossWindow,
    Restore,
    RestoreState,
    read_confirmation,
)
from services.backup.domain.targets import Latest
from services.backup.ports import Places, PlaceWriter
from services.backup.usecases.journal import Journal
from services.backup.usecases.leases import PATIENCE_SECONDS
from services.backup.usecases.operations import Running
from services.backup.usecases.prepare import Prepare, Survey, follows, measure
from services.backup.usecases.repository import RESTORING, Repository
from services.backup.usecases.scratch import Scratch

CATCH_UP_MAX = 10
"""Rounds of replaying what came meanwhile, before the fence: the last one is then a short one."""
CATCH_UP_CHANGES = 50
SCHEMA_ID_MAX = 2**31 - 1


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
        """Activates the restore. Raises as ActivateRestore says; what served before serves on then."""
        async with self._repository.leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
            restore, confirmed = await self.require_activatable(restore_id, confirmation)
            scratch = await self._places.head(restore.scratch)
            restore = await self.journal.write(
                restore,
                state=RestoreState.ACTIVATING,
                aside=self._places.aside(ids.token(restore.id)),
                confirmed=confirmed,
                new_epoch=await self._next_epoch(scratch),
                problem="",
            )
            await self._activate(restore, running)
        return Subject("restore", restore_id)

    async def _activate(self, restore: Restore, running: Running) -> None:
        """Goes on with an activation from wherever it stands."""
        names = await self._places.existing()
        if restore.scratch in names and restore.aside not in names:
            try:
                restore = await self._ready(restore, running)
            except BaseException as failure:
                await asyncio.shield(self._step_back(restore, failure))
                raise
        running.point_of_no_return = True
        await asyncio.shield(self._finish(restore, running))

    async def _ready(self, restore: Restore, running: Running) -> Restore:
        """Everything before the swap, all of which can be undone."""
        places, clock = self._places, self._repository.clock
        if (await places.head(restore.scratch)).epoch == restore.new_epoch:
            return restore  # Done by a process that ended: the live one is fenced since.
        survey = await self.prepare.survey()
        if isinstance(restore.target, Latest) and survey.live is not None:
            async with running.step("catch up"):
                await self._catch_up(restore)
        used = await self._used_schema_ids()
        # Started before the fence: a program takes longer to start than all that follows.
        async with places.writer(restore.scratch) as writer:
            began = clock.monotonic()
            if survey.live is not None:
                async with running.step("fence") as say:
                    live = await places.set_fenced(places.live, fenced=True)
                    survey = replace(survey, live=live)
                    say(f"writes are refused since {live.place}; reads go on")
            async with running.step("tail") as say:
                say(await self._end_of_history(restore, survey, writer))
            async with running.step("epoch") as say:
                scratch = await places.head(restore.scratch)
                next_id = self._next_schema_id(used, scratch, survey.live)
                line = await self._begin_epoch(writer, scratch, restore, next_id)
                say(f"epoch {line.id} begins at {line.fork_position}; schema ids go on from {next_id}")
        return await self.journal.write(
            restore,
            place=Place(line.parent or line.id, line.fork_position),
            next_schema_id=next_id,
            write_outage_seconds=clock.monotonic() - began,
        )

    async def _catch_up(self, restore: Restore) -> None:
        """Replays what was written meanwhile, until little is left for the time of the fence."""
        head = await self._places.head(restore.scratch)
        for _ in range(CATCH_UP_MAX):
            place = await self.prepare.follow_live(restore.scratch, head.place)
            if place.position - head.position < CATCH_UP_CHANGES:
                return
            head = replace(head, position=place.position, epoch=place.epoch)

    async def _end_of_history(self, restore: Restore, survey: Survey, writer: PlaceWriter) -> str:
        """Replays the tail, or compares the loss with what was confirmed, and says which. Raises LossWindowChanged."""
        live = survey.live
        if live is None:
            return "the live database cannot be read: what it had beyond the archive is lost"
        place = (await self._places.head(restore.scratch)).place
        if isinstance(restore.target, Latest) and follows(live, place):
            place = await writer.replay(self.prepare.live_changes(place.position, live.position))
        window = measure(survey, place)
        _require_covered(window, restore.confirmed)
        return window.told

    async def _step_back(self, restore: Restore, failure: BaseException) -> None:
        """Lets the live database go on as before. A scratch place whose epoch has begun cannot follow it any more."""
        problem = str(failure) if isinstance(failure, errors.Error) else "the activation did not end"
        if self._places.live in await self._places.existing():
            await self._places.set_fenced(self._places.live, fenced=False)
        head = await self._places.head(restore.scratch)
        state = RestoreState.FAILED if head.epoch == restore.new_epoch else RestoreState.PREPARED
        await self.journal.write(restore, state=state, problem=problem)
        if state is RestoreState.FAILED:
            await self._scratch.drop(restore.scratch)

    async def _finish(self, restore: Restore, running: Running) -> None:
        """Swaps the names. From its beginning on there is no way but forward."""
        clock = self._repository.clock
        began = clock.monotonic()
        reverting = restore.state is RestoreState.REVERTING
        incoming, aside = (restore.aside, restore.scratch) if reverting else (restore.scratch, restore.aside)
        async with running.step("swap") as say:
            await self._places.swap(incoming=incoming, aside=aside)
            say(f"{incoming} serves as {self._places.live}; the one before is kept as {aside}")
        now = clock.now()
        await self.journal.write(
            restore,
            state=RestoreState.REVERTED if reverting else RestoreState.ACTIVE,
            activate_time=restore.activate_time or now,
            keep_until=now + self._rules.keep,
            write_outage_seconds=(restore.write_outage_seconds or 0.0) + clock.monotonic() - began,
        )

    # Revert

    async def require_revertible(self, restore_id: str, confirmation: str) -> tuple[Restore, Place | None]:
        """The restore, and up to where changes may be lost, when it can be reverted now.

        Raises errors.RestoreNotFound, InvalidField, IllegalState, LossWindowChanged.
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
        """What was written since the activation, which a revert leaves behind."""
        return _since(restore, await self._places.head(self._places.live))

    async def revert(self, restore_id: str, confirmation: str, running: Running) -> Subject:
        """Swaps the replaced database back, in a new epoch. Raises as RevertRestore says."""
        async with self._repository.leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
            restore, confirmed = await self.require_revertible(restore_id, confirmation)
            live = await self._places.head(self._places.live)
            restore = await self.journal.write(
                restore,
                state=RestoreState.REVERTING,
                confirmed=confirmed,
                new_epoch=await self._next_epoch(live),
                write_outage_seconds=None,
            )
            await self._revert(restore, running)
        return Subject("restore", restore_id)

    async def _revert(self, restore: Restore, running: Running) -> None:
        """Goes on with a revert from wherever it stands."""
        names = await self._places.existing()
        if restore.aside in names and restore.scratch not in names:
            try:
                restore = await self._ready_to_revert(restore, running)
            except BaseException as failure:
                await asyncio.shield(self._stay(restore, failure))
                raise
        running.point_of_no_return = True
        await asyncio.shield(self._finish(restore, running))

    async def _ready_to_revert(self, restore: Restore, running: Running) -> Restore:
        places, clock = self._places, self._repository.clock
        used = await self._used_schema_ids()
        async with places.writer(restore.aside) as writer:
            began = clock.monotonic()
            async with running.step("fence") as say:
                live = await places.set_fenced(places.live, fenced=True)
                _require_covered(_since(restore, live), restore.confirmed)
                say(f"writes are refused since {live.place}; reads go on")
            async with running.step("epoch") as say:
                aside = await places.head(restore.aside)
                next_id = self._next_schema_id(used, aside, live)
                line = await self._begin_epoch(writer, aside, restore, next_id)
                say(f"epoch {line.id} begins at {line.fork_position}; schema ids go on from {next_id}")
        return await self.journal.write(restore, next_schema_id=next_id, write_outage_seconds=clock.monotonic() - began)

    async def _stay(self, restore: Restore, failure: BaseException) -> None:
        """Lets the restored database serve on."""
        problem = str(failure) if isinstance(failure, errors.Error) else "the revert did not end"
        await self._places.set_fenced(self._places.live, fenced=False)
        await self.journal.write(restore, state=RestoreState.ACTIVE, problem=problem)

    # Release

    async def release(self, restore_id: str) -> Restore:
        """Drops what a restore keeps beside the live database. Raises as ReleaseRestore says."""
        async with self._repository.leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
            restore = await self.journal.get(restore_id)
            if restore.state in SWAPPING or restore.state is RestoreState.PREPARING:
                raise _wrong_state(restore, "released", *_RELEASABLE)
            for name in (restore.scratch, restore.aside):
                if name:
                    await self._places.drop(name)
            if restore.state is RestoreState.RELEASED:
                return restore
            return await self.journal.write(restore, state=RestoreState.RELEASED)

    # By itself

    async def unfinished(self) -> list[Restore]:
        """Swaps that a process began and none has ended."""
        return [restore for restore in await self.journal.list() if restore.state in SWAPPING]

    async def go_on(self, restore_id: str, running: Running) -> Subject:
        """Ends a swap that another process began. Raises as `activate` and `revert` do."""
        async with self._repository.leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
            restore = await self.journal.get(restore_id)
            if restore.state is RestoreState.ACTIVATING:
                await self._activate(restore, running)
            elif restore.state is RestoreState.REVERTING:
                await self._revert(restore, running)
        return Subject("restore", restore_id)

    async def release_old(self) -> list[str]:
        """Releases what was kept for its whole time, and returns the ids."""
        now = self._repository.clock.now()
        kept = [each for each in await self.journal.list() if each.state in KEEPING]
        over = [each.id for each in kept if each.keep_until is not None and each.keep_until < now]
        for restore_id in over:
            await self.release(restore_id)
        return over

    # Numbers

    async def _next_epoch(self, head: Head) -> int:
        """A number for a line that nobody ever heard of."""
        survey = await self.prepare.survey()
        archived, _ = await self.prepare.archive.known()
        journaled = [restore.new_epoch or 0 for restore in await self.journal.list()]
        return 1 + max(archived, head.epoch, *journaled, *(line.id for line in survey.epochs), 0)

    async def _used_schema_ids(self) -> int:
        """The highest schema id that the store knows to have been given, or passed over by an earlier swap."""
        _, archived = await self.prepare.archive.known()
        return max(archived, *(restore.next_schema_id or 0 for restore in await self.journal.list()), 0)

    def _next_schema_id(self, used: int, *heads: Head | None) -> int:
        """A schema id above every one that may ever have been given."""
        known = max(used, *(head.schema_id_high for head in heads if head is not None), 0)
        return min(known + 1 + self._rules.id_margin, SCHEMA_ID_MAX)

    async def _begin_epoch(self, writer: PlaceWriter, head: Head, restore: Restore, next_schema_id: int) -> Epoch:
        """Begins the restore's epoch behind a place's head, unless that has happened, and returns its line."""
        assert restore.new_epoch is not None, "the journal of a swap names its epoch"
        if head.epoch == restore.new_epoch:
            return head.epochs[-1]
        line = Epoch(restore.new_epoch, head.epoch, head.position)
        await writer.begin_epoch(line, next_schema_id=next_schema_id, actor=restore.actor)
        return line


def _since(restore: Restore, live: Head) -> LossWindow:
    """What was written since a restore's activation. Its first change only began the epoch."""
    begun = (restore.place.position if restore.place else 0) + 1
    return LossWindow(readable=True, live=live.place, changes=max(0, live.position - begun))


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
