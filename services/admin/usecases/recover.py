"""Recoveries: begun, gone on with, gone back on, and shown. One process at a time works on one, under the office of the
system; each step is written into the journal before and after it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import Lease
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import Operations, Request, Running
from llm_schema_registry.operations.ports import Clock, Dice
from services.admin.domain import recovery as states
from services.admin.domain.recovery import PLANS, Recovery, RecoveryState, Spec, Step, StepName, StepState
from services.admin.ports import Failpoints
from services.admin.usecases.office import PLAN, Office
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.recovery_steps import RecoverySteps
from services.admin.usecases.recovery_work import Course

RECOVERY = "recovery"
KIND = OperationKind.RECOVERY
_AS_THEY_ARE = (
    errors.LossWindowChanged,
    errors.TargetUnreachable,
    errors.PeerUnreachable,
    errors.LeaseLost,
    errors.OperationRunning,
)
"""What a step fails with is told as RECOVERY_STOPPED but for these, which say what to do by themselves."""


@dataclass(frozen=True, slots=True)
class Records:
    """Where recoveries are written down, and whose turn it is."""

    journal: RecoveryJournal
    office: Office
    dice: Dice


class Recover:
    """Recoveries of one system."""

    def __init__(
        self, records: Records, operations: Operations, steps: RecoverySteps, clock: Clock, failpoints: Failpoints
    ) -> None:
        self._journal, self._office, self._dice = records.journal, records.office, records.dice
        self._operations = operations
        self._steps = steps
        self._clock = clock
        self._failpoints = failpoints

    # What is asked for

    async def start(self, spec: Spec, *, dry_run: bool, actor: str, request: Request) -> Operation:
        """Begins a recovery, or only plans it. Raises as RecoveryService.StartRecovery says."""
        if not dry_run and await self._operations.find(KIND, request.id) is None:
            await self._require_alone()
        recovery_id = ids.new_id(self._clock.now(), self._dice(ids.RANDOM_BYTES))
        recovery = Recovery(recovery_id, RecoveryState.RUNNING, spec, actor, self._clock.now())
        return await self._operations.begin(
            KIND,
            partial(self._plan if dry_run else self._begin, recovery),
            actor=actor,
            request=request,
            subject=Subject(PLAN if dry_run else RECOVERY, recovery_id),
        )

    async def resume(self, recovery_id: str, confirmation: str, *, actor: str, request: Request) -> Operation:
        """Goes on with a recovery. Raises as RecoveryService.ResumeRecovery says."""
        if await self._operations.find(KIND, request.id) is None:
            recovery = await self._still(recovery_id)
            states.resumed(recovery, confirmation)
        return await self._operations.begin(
            KIND,
            partial(self._go_on, recovery_id, confirmation),
            actor=actor,
            request=request,
            subject=Subject(RECOVERY, recovery_id),
        )

    async def abort(self, recovery_id: str, confirmation: str, *, actor: str, request: Request) -> Operation:
        """Goes back. Raises as RecoveryService.AbortRecovery says."""
        if await self._operations.find(KIND, request.id) is None:
            recovery = await self._still(recovery_id)
            states.aborting(recovery, self._clock.now())
        return await self._operations.begin(
            KIND,
            partial(self._go_back, recovery_id, confirmation),
            actor=actor,
            request=request,
            subject=Subject(RECOVERY, recovery_id),
        )

    async def get(self, recovery_id: str) -> Recovery:
        """A recovery as it stands. Raises errors.RecoveryNotFound."""
        return await self._shown(await self._journal.get(recovery_id))

    async def list(self) -> Sequence[Recovery]:
        """The recoveries on record, newest first."""
        return [await self._shown(each) for each in await self._journal.list()]

    async def planned(self, recovery_id: str) -> Recovery:
        """What a dry run found. Raises errors.RecoveryNotFound."""
        return await self._journal.planned(recovery_id)

    async def forget_old_plans(self) -> None:
        """Removes what dry runs found long ago."""
        await self._journal.forget_old_plans()

    async def _shown(self, recovery: Recovery) -> Recovery:
        if recovery.state not in {RecoveryState.RUNNING, RecoveryState.ABORTING} or await self._office.busy():
            return recovery
        # It may have ended between the two looks.
        return states.left_alone(await self._journal.get(recovery.id))

    async def _require_alone(self) -> None:
        """Raises errors.OperationRunning while a recovery is open or an operation changes the system."""
        await self._office.require_free()
        await self._require_none_open()

    async def _still(self, recovery_id: str) -> Recovery:
        """A recovery that nobody works on. Raises errors.OperationRunning, errors.RecoveryNotFound."""
        recovery = await self._journal.get(recovery_id)
        if recovery.open:
            await self._office.require_free()
        return await self._journal.get(recovery_id)

    # The work

    async def _plan(self, recovery: Recovery, running: Running) -> Subject:
        async with running.step(StepName.PREFLIGHT.value) as say:
            checked, found = await self._steps.checks(recovery)
            say(found[StepName.PREFLIGHT].message)
        estimates = await self._estimates()
        steps = []
        for name in states.NAMES:
            told = found[name]
            state = StepState.SKIPPED if told.skipped else StepState.DONE if told.ok else StepState.FAILED
            estimate = 0.0 if told.skipped else estimates.get(name)
            steps.append(Step(name, state, message=told.message, estimate_seconds=estimate))
        problem = next((each.message for each in steps if each.state is StepState.FAILED), "")
        await self._journal.plan(
            replace(
                checked,
                state=RecoveryState.PLANNED,
                steps=tuple(steps),
                end_time=self._clock.now(),
                problem=problem,
            )
        )
        return Subject(PLAN, recovery.id)

    async def _begin(self, recovery: Recovery, running: Running) -> Subject:
        async with self._office.held(running.operation.name) as lease:
            await self._require_none_open()
            estimates = await self._estimates()
            steps = tuple(replace(each, estimate_seconds=estimates.get(each.name)) for each in recovery.steps)
            recovery = await self._journal.write(replace(recovery, steps=steps))
            await self._forward(recovery, running, lease)
        return Subject(RECOVERY, recovery.id)

    async def _require_none_open(self) -> None:
        opened = next((each for each in await self._journal.list() if each.open), None)
        if opened is not None:
            raise errors.OperationRunning(
                f"Recovery {opened.id} is open: resume or abort it first.", metadata={"recovery_id": opened.id}
            )

    async def _go_on(self, recovery_id: str, confirmation: str, running: Running) -> Subject:
        async with self._office.held(running.operation.name) as lease:
            recovery = states.resumed(await self._journal.get(recovery_id), confirmation)
            waits = recovery.following in {StepName.INTEGRITY, StepName.SWITCH}
            if waits and not await self._steps.restorable(recovery):
                recovery = states.rewound(recovery)
            recovery = await self._journal.write(recovery)
            await self._forward(recovery, running, lease)
        return Subject(RECOVERY, recovery_id)

    async def _forward(self, recovery: Recovery, running: Running, lease: Lease) -> None:
        """Does every step that has not passed. Raises what the first one that does not pass failed with."""
        while (name := recovery.following) is not None:
            recovery = await self._step(recovery, name, running, lease)

    async def _step(self, recovery: Recovery, name: StepName, running: Running, lease: Lease) -> Recovery:
        """Does a step, and returns the recovery after it."""
        await self._failpoints.reached(f"recovery.{name}.before")
        await lease.require()
        recovery = await self._journal.write(states.began(recovery, name, self._clock.now()))
        await self._failpoints.reached(f"recovery.{name}.begun")
        course = Course(self._journal, recovery, name, lease)
        try:
            async with running.step(name.value) as say:
                async with asyncio.timeout(PLANS[name].timeout_seconds):
                    told = await self._steps.act(course)
                await self._failpoints.reached(f"recovery.{name}.acted")
                recovery = await self._journal.write(
                    states.passed(course.recovery, name, self._clock.now(), told.message, skipped=told.skipped)
                )
                say(told.message)
        except errors.LeaseLost:
            raise  # The journal is another process's.
        except TimeoutError:
            late = errors.Deadline(f"it did not end within {PLANS[name].timeout_seconds:g} s")
            raise await self._stopped(course, late) from None
        except errors.Error as failed:
            raise await self._stopped(course, failed) from None
        except BaseException:
            cancelled = errors.OperationCancelled("it was cancelled, or its process was stopped")
            with suppress(errors.Error):
                await to_the_end(self._stopped(course, cancelled))
            raise
        await self._failpoints.reached(f"recovery.{name}.after")
        return recovery

    async def _stopped(self, course: Course, failure: errors.Error) -> errors.Error:
        """Writes that a step failed, and returns the error that tells it to the caller."""
        unconfirmed = isinstance(failure, errors.LossWindowChanged) and "confirmation" in failure.metadata
        stopped = await self._journal.write(
            states.failed(course.recovery, course.name, self._clock.now(), failure.message, unconfirmed=unconfirmed)
        )
        return _told(stopped, course.name, failure)

    async def _go_back(self, recovery_id: str, confirmation: str, running: Running) -> Subject:
        async with self._office.held(running.operation.name) as lease:
            recovery = states.aborting(await self._journal.get(recovery_id), self._clock.now())
            recovery = await self._journal.write(recovery)
            while recovery.to_undo:
                recovery = await self._undo(recovery, confirmation, running, lease)
        return Subject(RECOVERY, recovery_id)

    async def _undo(self, recovery: Recovery, confirmation: str, running: Running, lease: Lease) -> Recovery:
        name = recovery.to_undo[0]
        await self._failpoints.reached(f"recovery.{name}.undo")
        await lease.require()
        course = Course(self._journal, recovery, name, lease)
        try:
            async with running.step(f"undo {name}") as say:
                async with asyncio.timeout(PLANS[name].timeout_seconds):
                    told = await self._steps.undo(course, confirmation)
                say(told.message)
        except errors.LeaseLost:
            raise
        except TimeoutError:
            late = errors.Deadline(f"it was not undone within {PLANS[name].timeout_seconds:g} s")
            raise await self._not_undone(course, late) from None
        except errors.Error as failed:
            raise await self._not_undone(course, failed) from None
        return await self._journal.write(states.undone(course.recovery, name, self._clock.now(), told.message))

    async def _not_undone(self, course: Course, failure: errors.Error) -> errors.Error:
        stuck = await self._journal.write(states.not_undone(course.recovery, failure.message))
        return _told(stuck, course.name, failure)

    async def _estimates(self) -> Mapping[StepName, float]:
        """How long each step took: by the last recovery that was done, else by the newest backup and drill."""
        found: dict[StepName, float] = {}
        with suppress(errors.Error):
            found |= await self._steps.estimates()
        done = next((each for each in await self._journal.list() if each.state is RecoveryState.DONE), None)
        for step in done.steps if done else ():
            if step.state is StepState.DONE and step.start_time and step.end_time:
                found[step.name] = (step.end_time - step.start_time).total_seconds()
        return found


def _told(recovery: Recovery, name: StepName, failure: errors.Error) -> errors.Error:
    """What a step failed with, with the recovery and the step."""
    where = {"recovery_id": recovery.id, "step": name.value}
    if isinstance(failure, _AS_THEY_ARE):
        return type(failure)(
            failure.message, metadata={**failure.metadata, **where}, retry_seconds=failure.retry_seconds
        )
    onward = "ResumeRecovery goes on with it, AbortRecovery goes back" if recovery.open else "nothing had been changed"
    return errors.RecoveryStopped(
        f"Step {name} of recovery {recovery.id} failed: {failure.message} ({failure.reason}). {onward}.",
        metadata={**failure.metadata, **where, "cause": failure.reason},
    )
