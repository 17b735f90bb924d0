"""The ten steps of a recovery: what each checks, does and undoes.

Every step may be done again from its beginning: whatever a process that ended had done of it is found done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.recovery import Loss, Recovery, Safety, StepName
from services.admin.domain.restoring import (
    Activate,
    BackUp,
    Estimates,
    Live,
    Outlook,
    Prepare,
    RestoreFacts,
    RestoreState,
    Revert,
    VerifyBackup,
)
from services.admin.domain.system import BACKUP, REGISTRY, Replica, State
from services.admin.ports import Peers, SmokeTest
from services.admin.usecases.recovery_work import POLL_SECONDS, Course, RestoreWork
from services.admin.usecases.steer import Steer

V2, V3 = 2, 3
TAKING_CALLS = frozenset({State.SERVING, State.READ_ONLY})
"""Modes that a fence takes away, and that are given back."""
LATELY = timedelta(hours=24)
"""A backup that was read in full since is not read again."""
SERVING_SECONDS_MAX = 240.0
"""Until every replica that answers must serve."""
MISSING_SECONDS = 5.0
"""How long a replica that does not answer is waited for, once all others serve."""
EPOCH_METRIC = "registry.change.epoch"


@dataclass(frozen=True, slots=True)
class Told:
    """What a step did, or would do, for a person. skipped: there was nothing to do. ok: False for a check that did not
    pass."""

    message: str
    skipped: bool = False
    ok: bool = True


class RecoverySteps:
    """What the steps do."""

    def __init__(self, peers: Peers, work: RestoreWork, smoke: SmokeTest, clock: Clock) -> None:
        self._peers = peers
        self._steer = Steer(peers)
        self._work = work
        self._smoke = smoke
        self._clock = clock

    async def act(self, course: Course) -> Told:
        """Does the step. Raises what kept it from being done."""
        actions: Mapping[StepName, Callable[[Course], Awaitable[Told]]] = {
            StepName.PREFLIGHT: self._preflight,
            StepName.FENCE: self._fence,
            StepName.FETCH: self._fetch,
            StepName.VERIFY: self._verify,
            StepName.SAFETY: self._safety,
            StepName.RESTORE: self._restore,
            StepName.INTEGRITY: self._integrity,
            StepName.SWITCH: self._switch,
            StepName.RESUME: self._resume,
            StepName.SMOKE: self._try,
        }
        return await actions[course.name](course)

    async def undo(self, course: Course, confirmation: str) -> Told:
        """Undoes the step as far as it was done. Raises what kept it from being undone."""
        match course.name:
            case StepName.FENCE:
                return await self._unfence(course)
            case StepName.RESTORE:
                return await self._drop(course)
            case StepName.SWITCH:
                return await self._back(course, confirmation)
        return Told("nothing to undo")

    async def checks(self, recovery: Recovery) -> tuple[Recovery, Mapping[StepName, Told]]:
        """What each step would do, as far as that can be said without changing anything. Raises as `act` does."""
        looked, outlook = await self._look(recovery)
        loss = _at_swap(outlook.loss, recovery)
        accepted = loss.accepted(recovery.spec.confirmation, latest=recovery.spec.target.latest)
        confirm = "" if accepted else f"; confirm with {loss.confirmation}"
        fence = recovery.fence
        found = {
            StepName.PREFLIGHT: Told(looked),
            StepName.FENCE: _unfenced() if fence is None else Told(f"replicas of the registry become {fence.name}"),
            StepName.FETCH: Told(f"backup {outlook.backup_id}"),
            StepName.VERIFY: await self._lately(outlook.backup_id) or Told("every byte is read"),
            StepName.SAFETY: _no_safety(recovery, outlook) or Told("a backup of the present state, pinned"),
            StepName.RESTORE: Told(f"to {outlook.place}, with {outlook.segments} segments of the archive"),
            StepName.INTEGRITY: Told(f"{loss.told}{confirm}", ok=accepted),
            StepName.SWITCH: Told("writes are refused for a moment; the replaced database is kept"),
            StepName.RESUME: Told("replicas of the registry become SERVING"),
            StepName.SMOKE: Told("the registry is tried"),
        }
        return replace(recovery, backup_id=outlook.backup_id, loss=loss), found

    async def restorable(self, recovery: Recovery) -> bool:
        """Whether what a recovery restored is still there to be swapped in, or serves already."""
        try:
            found = await self._work.patient(lambda: self._work.restores.restore(recovery.restore_id))
        except errors.RestoreNotFound:
            return False
        return found.state not in {RestoreState.FAILED, RestoreState.RELEASED, RestoreState.REVERTED}

    async def estimates(self) -> Estimates:
        """How long steps took in the newest backup, verification and drill. Raises errors.PeerUnreachable."""
        return await self._work.restores.estimates()

    # 1 and 2

    async def _look(self, recovery: Recovery) -> tuple[str, Outlook]:
        """Every process, in words, and the way to the target."""
        registry, backup = await asyncio.gather(self._steer.look(REGISTRY), self._steer.look(BACKUP))
        if not any(each.process for each in backup):
            raise errors.PeerUnreachable(
                f"no replica of the backup service answers: {_problems(backup) or 'none is known'}",
                metadata={"service": BACKUP},
                retry_seconds=5,
            )
        outlook = await self._work.restores.outlook(recovery.spec.target)
        told = [
            f"{sum(1 for each in registry if each.process)} of {len(registry)} replicas of the registry answer",
            *([_problems(registry)] if _problems(registry) else []),
            f"backup {outlook.backup_id} leads to {outlook.place}",
            f"live database: {outlook.live.name.lower()}"
            + (f" ({outlook.live_problem})" if outlook.live_problem else ""),
            _at_swap(outlook.loss, recovery).told,
        ]
        return "; ".join(told), outlook

    async def _preflight(self, course: Course) -> Told:
        told, outlook = await self._look(course.recovery)
        archived = None if outlook.loss.readable else await self._work.restores.archived_time()
        await course.note(loss=_at_swap(outlook.loss, course.recovery), archived_time=archived)
        return Told(told)

    async def _fence(self, course: Course) -> Told:
        mode = course.recovery.fence
        if mode is None:
            return _unfenced()
        found = await self._steer.look(REGISTRY)
        modes = {each.address.target: each.process.state for each in found if each.process}
        # What they were in first is what they go back to: a step that is done again finds its own fence.
        await course.note(
            modes=modes | dict(course.recovery.modes), fence_time=course.recovery.fence_time or self._clock.now()
        )
        weaker = {State.SERVING} if mode is State.READ_ONLY else {State.SERVING, State.READ_ONLY}
        wanted = {each.address.target for each in found if each.process and each.process.state in weaker}
        after = await self._each_in(dict.fromkeys(wanted, mode))
        told = f"{len(wanted)} replicas of the registry are {mode.name}"
        problems = "; ".join(filter(None, (_problems(found), _problems(after))))
        return Told(f"{told}; not reached, fenced at the swap: {problems}" if problems else told)

    async def _unfence(self, course: Course) -> Told:
        """Every replica back into the mode that it had; those that took calls then."""
        recovery = course.recovery
        wanted = {target: mode for target, mode in recovery.modes.items() if mode in TAKING_CALLS}
        found = await self._each_in(wanted)
        back = {each.address.target for each in found if not each.problem}
        left = {target: mode for target, mode in wanted.items() if target not in back}
        await course.note(left=left)
        told = [
            f"{len(back)} replicas are as they were",
            f"not reached: {problems}" if (problems := _problems(found)) else "",
            _told_left(recovery, left),
        ]
        return Told("; ".join(filter(None, told)))

    async def _each_in(self, modes: Mapping[str, State]) -> Sequence[Replica]:
        """Puts replicas of the registry into modes, by address."""
        addresses = [each for each in await self._peers.replicas(REGISTRY) if each.target in modes]

        async def put(replica: Replica) -> Replica:
            try:
                return replace(
                    replica, process=await self._peers.set_mode(replica.address, modes[replica.address.target])
                )
            except errors.Error as failed:
                return replace(replica, problem=failed.message)

        return await asyncio.gather(*(put(Replica(each)) for each in addresses))

    # 3 to 5

    async def _fetch(self, course: Course) -> Told:
        target = course.recovery.spec.target
        chosen = course.recovery.backup_id
        if not chosen or course.recovery.step(course.name).attempts > 1:
            chosen = (await self._work.patient(lambda: self._work.restores.outlook(target))).backup_id
            await course.note(backup_id=chosen)
        await self._verified(course, V2)
        return Told(f"backup {chosen}: the keys open it")

    async def _verify(self, course: Course) -> Told:
        if told := await self._lately(course.recovery.backup_id):
            return told
        await self._verified(course, V3)
        return Told(f"every byte of backup {course.recovery.backup_id} is as it was written")

    async def _verified(self, course: Course, level: int) -> None:
        """Raises errors.BackupDamaged unless the backup passes the level."""
        backup_id = course.recovery.backup_id
        ended = await self._work.done(course, f"v{level}", VerifyBackup(backup_id, level))
        if ended.problems:
            raise errors.BackupDamaged(
                f"backup {backup_id} is not what was written: {'; '.join(ended.problems[:5])}. Name another one as the"
                " target, or a time before it.",
                metadata={"backup_id": backup_id},
            )

    async def _lately(self, backup_id: str) -> Told | None:
        """Why a backup need not be read again; None when it must."""
        found = await self._work.patient(lambda: self._work.restores.backup(backup_id))
        if found.level < V3 or found.verified_time is None or self._clock.now() - found.verified_time > LATELY:
            return None
        return Told(f"verified to V{found.level} at {found.verified_time:%Y-%m-%d %H:%M} UTC", skipped=True)

    async def _safety(self, course: Course) -> Told:
        recovery = course.recovery
        restores = self._work.restores
        outlook = await self._work.patient(lambda: restores.outlook(recovery.spec.target, recovery.backup_id))
        if told := _no_safety(recovery, outlook):
            return told
        ended = await self._work.done(course, "backup", BackUp())
        await course.note(safety_backup_id=ended.made)
        return Told(f"backup {ended.made} holds the present state")

    # 6 to 8

    async def _restore(self, course: Course) -> Told:
        spec = course.recovery.spec
        if course.recovery.step(course.name).attempts > 1:
            await self._choose_again(course)
        ended = await self._work.done(course, "prepare", Prepare(spec.target, course.recovery.backup_id))
        await course.note(restore_id=ended.made)
        return Told(f"restore {ended.made} is prepared")

    async def _choose_again(self, course: Course) -> None:
        """Another backup, read in full, where the one that was chosen did not lead to a registry."""
        target = course.recovery.spec.target
        chosen = (await self._work.patient(lambda: self._work.restores.outlook(target))).backup_id
        if chosen == course.recovery.backup_id:
            return
        await course.note(backup_id=chosen)
        if not await self._lately(chosen):
            await self._verified(course, V3)

    async def _drop(self, course: Course) -> Told:
        restores, recovery = self._work.restores, course.recovery
        restore_id = recovery.restore_id
        if not restore_id:
            # What a process that ended had begun is found by asking for it again.
            request_id = course.request_id("prepare")
            with suppress(errors.TargetUnreachable, errors.DatabaseUnavailable, errors.DatabaseUnfit):
                work = Prepare(recovery.spec.target, recovery.backup_id)
                name = await self._work.patient(lambda: restores.begin(work, request_id))
                await self._work.patient(lambda: restores.cancel(name))
                restore_id = (await self._work.ended(name)).made
        if not restore_id:
            return Told("nothing was restored")
        found = await self._work.patient(lambda: restores.restore(restore_id))
        if found.state is RestoreState.REVERTED:
            return Told(f"what was restored is kept beside the live database: ReleaseRestore {restore_id} drops it")
        await self._work.patient(lambda: restores.release(restore_id))
        return Told(f"restore {restore_id} is released")

    async def _integrity(self, course: Course) -> Told:
        found = await self._facts(course)
        if found.state is not RestoreState.PREPARED and found.state is not RestoreState.ACTIVE:
            raise errors.RestoreFailed(f"restore {found.id} is {found.state.name}: {found.problem}")
        await self._require_accepted(course, found)
        assert course.recovery.loss is not None, "noted just now, or at the preflight"
        return Told(f"{found.held}, as in the backup's snapshot; it ends at {found.place}; {course.recovery.loss.told}")

    async def _switch(self, course: Course) -> Told:
        recovery, before = course.recovery, await self._facts(course)
        if before.state is RestoreState.PREPARED:
            await self._require_accepted(course, before)
        work = Activate(recovery.restore_id, recovery.spec.confirmation)
        active = await self._work.swapped(course, work, RestoreState.ACTIVE)
        await course.note(
            epoch=active.epoch,
            place_time=active.place_time,
            write_outage_seconds=active.write_outage_seconds,
            recovery_point_seconds=_recovery_point(course.recovery, active.place_time),
        )
        problems = _problems(await self._steer.flush_caches([REGISTRY]))
        told = f"epoch {active.epoch} serves; writes were refused for {active.write_outage_seconds or 0.0:.2f} s"
        return Told(f"{told}; caches kept: {problems}" if problems else f"{told}; caches are empty")

    async def _back(self, course: Course, confirmation: str) -> Told:
        """Swaps back what was replaced. A swap that its process left open has ended first, one way or the other."""
        restore_id = course.recovery.restore_id
        found = await self._facts(course)
        while found.state is RestoreState.ACTIVATING:
            await asyncio.sleep(POLL_SECONDS)
            found = await self._facts(course)
        if found.state not in {RestoreState.ACTIVE, RestoreState.REVERTING, RestoreState.REVERTED}:
            return Told("nothing was swapped")
        reverted = await self._work.swapped(course, Revert(restore_id, confirmation), RestoreState.REVERTED)
        problems = _problems(await self._steer.flush_caches([REGISTRY]))
        told = f"what was replaced serves again, in epoch {reverted.epoch}"
        return Told(f"{told}; caches kept: {problems}" if problems else told)

    async def _facts(self, course: Course) -> RestoreFacts:
        restore_id = course.recovery.restore_id
        return await self._work.patient(lambda: self._work.restores.restore(restore_id))

    async def _require_accepted(self, course: Course, found: RestoreFacts) -> None:
        """Notes what would be lost. Raises errors.LossWindowChanged when that was not confirmed."""
        spec = course.recovery.spec
        if found.loss is None:
            return
        loss = _at_swap(found.loss, course.recovery)
        await course.note(loss=loss)
        if not loss.accepted(spec.confirmation, latest=spec.target.latest):
            raise errors.LossWindowChanged(
                f"Not confirmed: {loss.told}. Resume with the confirmation {loss.confirmation}, or abort.",
                metadata={
                    "confirmation": loss.confirmation,
                    "changes": loss.changes,
                    "live_place": str(loss.live),
                },
            )

    # 9 and 10

    async def _resume(self, course: Course) -> Told:
        recovery = course.recovery
        found = await self._served(recovery.epoch)
        missing = [each for each in found if not each.process]
        pause = recovery.write_outage_seconds
        if recovery.fence_time is not None:
            pause = (self._clock.now() - recovery.fence_time).total_seconds()
        left = _left_fenced(recovery, [each for each in found if each.process])
        await course.note(write_pause_seconds=pause, left=left)
        told = f"the registry serves epoch {recovery.epoch}"
        if missing:
            told = f"{told}; not reached, the database lets them not write: {_problems(missing)}"
        return Told("; ".join(filter(None, (told, _told_left(recovery, left)))))

    async def _served(self, epoch: int) -> Sequence[Replica]:
        """All replicas, once every one that answers serves an epoch. Raises errors.PeerFailed when one does not come to
        serve, errors.PeerUnreachable when none answers."""
        loop = asyncio.get_running_loop()
        ends, alone_since = loop.time() + SERVING_SECONDS_MAX, 0.0
        while True:
            found = await self._steer.set_mode([REGISTRY], State.SERVING)
            behind = [each for each in found if each.process and not await self._serves(each, epoch)]
            missing = [each for each in found if not each.process]
            if not behind and not missing:
                return found
            if not behind and len(missing) < len(found):
                alone_since = alone_since or loop.time()
                if loop.time() >= alone_since + MISSING_SECONDS:
                    return found
            if loop.time() >= ends:
                names = ", ".join(each.address.target for each in behind)
                if names:
                    raise errors.PeerFailed(f"these replicas of the registry do not serve epoch {epoch}: {names}")
                raise errors.PeerUnreachable(f"no replica of the registry answers: {_problems(missing)}")
            await asyncio.sleep(POLL_SECONDS)

    async def _serves(self, replica: Replica, epoch: int) -> bool:
        assert replica.process is not None, "it answered"
        if not replica.process.serves or replica.process.state is not State.SERVING:
            return False
        try:
            points = await self._peers.metrics(replica.address)
        except errors.Error:
            return False
        return any(each.name == EPOCH_METRIC and each.value == epoch for each in points)

    async def _try(self, course: Course) -> Told:
        found = await self._smoke.run()
        bad = [each for each in found if not each.passed]
        if bad:
            told = "; ".join(f"{each.name}: {each.message}" for each in bad[:5])
            raise errors.PeerFailed(f"the registry did not pass: {told}", metadata={"recovery_id": course.recovery.id})
        return Told(f"{len(found)} checks passed")


def _recovery_point(recovery: Recovery, place_time: datetime | None) -> float:
    """Seconds before the recovery's begin of which writes may be lost. Of a live database that could not be read nobody
    knows the last ones: those since the newest change that came back, or since the archive last had everything."""
    loss = recovery.loss
    if loss is None or (loss.readable and not loss.changes):
        return 0.0
    known = [each for each in (place_time, None if loss.changes else recovery.archived_time) if each is not None]
    return max(0.0, (recovery.start_time - max(known)).total_seconds()) if known else 0.0


def _left_fenced(recovery: Recovery, answered: Sequence[Replica]) -> Mapping[str, State]:
    """The replicas that the fence has changed and nobody has changed back, with the mode that they are to be in."""
    back = {each.address.target for each in answered}
    had = recovery.modes.items() if recovery.fence else ()
    fenced = [at for at, before in had if before in TAKING_CALLS and before is not recovery.fence and at not in back]
    return dict.fromkeys(fenced, State.SERVING)


def _told_left(recovery: Recovery, left: Mapping[str, State]) -> str:
    """Which replicas are still to be put back, in words; empty for none."""
    if not left or recovery.fence is None:
        return ""
    return f"{recovery.fence.name} until they return, and put back then: {', '.join(left)}"


def _unfenced() -> Told:
    return Told("writes go on until the swap, as asked", skipped=True)


def _no_safety(recovery: Recovery, outlook: Outlook) -> Told | None:
    """Why the present state is not backed up; None when it is."""
    if recovery.spec.safety is Safety.NONE:
        return Told("none was asked for; the replaced database is kept", skipped=True)
    if outlook.live is Live.ABSENT:
        return Told("there is no database to back up", skipped=True)
    if outlook.live is Live.EMPTY:
        return Told("the database is a new, empty one", skipped=True)
    return None


def _at_swap(loss: Loss, recovery: Recovery) -> Loss:
    """What the swap would lose: it replays the rest of a live history that can be read, for the target `latest`."""
    return replace(loss, changes=0) if recovery.spec.target.latest and loss.readable else loss


def _problems(replicas: Sequence[Replica]) -> str:
    return "; ".join(each.problem for each in replicas if each.problem)
