"""Operations: work begun by a call, recorded in the object store, watched and cancelled by later ones.

The record is written at the start, at every step, at the end, and every few seconds in between, so every replica can
show it, and one whose process died is seen by its silence. A record that cannot be written does not fail a running
operation: what the operation makes counts, not its record.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.store import (
    Listed,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    Stored,
)
from llm_schema_registry.operations import ids, keys
from llm_schema_registry.operations.forgetting import KEEP_DAYS, forget_old
from llm_schema_registry.operations.operation import (
    Failed,
    Operation,
    OperationKind,
    Progress,
    Step,
    StepState,
    Subject,
    from_document,
    to_document,
)
from llm_schema_registry.operations.ports import Clock, Dice

RECORD_SECONDS = 5.0
"""Time between two writes of the record while nothing but progress happens."""
SILENT_SECONDS = 60.0
"""A record that says running and was not written for so long belongs to a process that is gone."""
POLL_SECONDS = 1.0
OBEY_SECONDS = 2.0
"""Between two looks at whether another process was asked to cancel an operation that runs here."""
RECORDS_MAX = 1000
READ_AT_ONCE = 8
RUNNING_MAX = 8
"""Operations at once in one process."""
ENDED_MAX = 200
"""Ended operations that a process remembers, in case their end could not be recorded."""
RECORDING_SECONDS = 20.0
"""For one write of a record: shorter than the silence after which its process counts as gone."""
END_SECONDS = 5.0
"""How long an end waits to be recorded before it is told all the same."""
END_ATTEMPTS_MAX = 60
"""To record how an operation ended, RECORD_SECONDS apart."""
UNDO_SECONDS = 5.0
"""For undoing what was cancelled at the end of the process, beside the time that operations have to finish."""

Work = Callable[["Running"], Awaitable[Subject]]
Report = Callable[..., None]


class HandedOver(Exception):
    """Raised by work that another process goes on with: the operation stays on record as running. See `adopt`."""


class Running:
    """What work tells while it runs."""

    def __init__(self, operation: Operation, clock: Clock) -> None:
        self.operation = operation
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.made: Subject | None = None
        self.point_of_no_return = False
        self._clock = clock
        self._step_began = clock.monotonic()

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Callable[[str], None]]:
        """A step, for the block. Yields a function that says what it found or did."""
        began = self._clock.now()
        message = ""

        def say(text: str) -> None:
            nonlocal message
            message = text

        self._step_began = self._clock.monotonic()
        self._put(replace(self.operation.with_step(Step(name, StepState.RUNNING, began)), progress=Progress()))
        try:
            yield say
        except BaseException as failure:
            told = message or (str(failure) if isinstance(failure, errors.Error) else "did not end")
            self._put(self.operation.with_step(Step(name, StepState.FAILED, began, self._clock.now(), told)))
            raise
        self._put(self.operation.with_step(Step(name, StepState.DONE, began, self._clock.now(), message)))

    def tell(self, *, bytes_done: int = 0, bytes_total: int = 0, rows_done: int = 0, parts_done: int = 0) -> None:
        """Says how far the present step is."""
        elapsed = self._clock.monotonic() - self._step_began
        left = bytes_total - bytes_done
        remaining = elapsed * left / bytes_done if bytes_done and left > 0 else None
        self._put(replace(self.operation, progress=Progress(bytes_done, bytes_total, rows_done, parts_done, remaining)))

    def about(self, subject: Subject) -> None:
        """Says what the operation works on, once that is known."""
        self._put(replace(self.operation, subject=subject))

    def outcome(self, *, subject: Subject | None = None, error: Failed | None = None) -> Operation:
        """The operation as it ends now."""
        subject = subject or self.operation.subject
        return replace(self.operation, end_time=self._clock.now(), subject=subject, error=error)

    def end(self, operation: Operation) -> None:
        """Tells all who ask here how the operation ended, or that work on it is over in this process."""
        self._put(operation)
        self.ended.set()

    async def change(self, told: Operation, interval_seconds: float) -> None:
        """Returns when steps are others than those told, or work here is over; for mere progress after the interval."""
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_seconds):
                while self.operation.steps == told.steps and not self.ended.is_set():
                    await self.changed.wait()
                return
        while self.operation is told and not self.ended.is_set():
            await self.changed.wait()

    def _put(self, operation: Operation) -> None:
        self.operation = operation
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asked for. id: the caller's, empty for none. body: the request as bytes: a repeat has the same."""

    id: str = ""
    body: bytes = b""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest() if self.id else ""


@dataclass(slots=True)
class _Task:
    """An operation of this process. work: what it does; alone this is ever cancelled, and once. end: what follows."""

    running: Running
    work: asyncio.Task[None]
    end: asyncio.Task[None]


class Operations:
    """The operations of one repository, as this process runs and sees them."""

    def __init__(self, store: ObjectStore, clock: Clock, dice: Dice, instance_id: str, report: Report) -> None:
        """report: called as `report(event, **facts)` with what an operator should find in the log."""
        self._store = store
        self._clock = clock
        self._dice = dice
        self._instance_id = instance_id
        self._report = report
        self._tasks: dict[str, _Task] = {}
        self._ended: dict[str, Operation] = {}
        self._known: dict[tuple[str, str], Operation] = {}
        self._closing = False

    async def begin(
        self,
        kind: OperationKind,
        work: Work,
        *,
        actor: str,
        request: Request = Request(),
        subject: Subject | None = None,
    ) -> Operation:
        """Begins the work in the background and returns its operation.

        With the request id of an earlier one of the same kind it returns that one, of any replica, running or ended.
        Raises errors.Overloaded above RUNNING_MAX, errors.NotServing while the process ends, errors.RequestIdReused
        when the earlier one was asked for something else. A caller that is cancelled meanwhile began it, or nothing.
        """
        if self._closing:
            raise errors.NotServing("this process ends: repeat with another one", retry_seconds=1)
        operation = Operation(
            name=self._name(kind, request.id),
            kind=kind,
            actor=actor,
            request_id=request.id,
            instance_id=self._instance_id,
            start_time=self._clock.now(),
            subject=subject or Subject(kind.value),
            request_digest=request.digest,
        )
        if len(self._tasks) >= RUNNING_MAX and operation.name not in self._tasks:
            raise errors.Overloaded(f"{RUNNING_MAX} operations run here already: repeat later", retry_seconds=10)
        return await to_the_end(self._begin(operation, work))

    async def _begin(self, operation: Operation, work: Work) -> Operation:
        """Records the operation and starts its work, or returns the one that has its name."""
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._store.put(keys.operation(operation.name), _encode(operation), if_absent=True)
        except TimeoutError:
            raise errors.ObjectStoreUnavailable(
                "The object store did not take the operation's record in time: repeat with the same request id.",
                retry_seconds=10,
            ) from None
        except ObjectExists:
            known = await self.get(operation.name)
            if known.request_digest != operation.request_digest:
                raise errors.RequestIdReused(
                    f"the request id {operation.request_id!r} was used for {known.subject.kind} {known.subject.id},"
                    " with another request: take another id",
                    metadata={"operation": known.name},
                ) from None
            if not self._never_begun(known):
                return known
            operation = known
        if operation.name not in self._tasks:
            self._start(operation, work)
        return operation

    def _never_begun(self, known: Operation) -> bool:
        """Whether this process wrote the record, and was told that it could not be written: nothing runs for it."""
        here = known.instance_id == self._instance_id
        return here and not known.done and known.name not in self._tasks and known.name not in self._ended

    def _start(self, operation: Operation, work: Work) -> None:
        running = Running(operation, self._clock)

        async def worked() -> None:
            running.made = await work(running)

        # In a context of its own: it goes on behind the call, whose deadline does not bind it.
        doing = asyncio.create_task(worked(), name=operation.name, context=Context())
        end = asyncio.create_task(self._run(running, doing), name=f"end of {operation.name}", context=Context())
        self._tasks[operation.name] = _Task(running, doing, end)

    async def find(self, kind: OperationKind, request_id: str) -> Operation | None:
        """The operation that was begun with a request id, by any replica; None when there is none.

        A call that checks what it is asked for looks here first: a repeat is answered however things stand by now.
        """
        if not request_id:
            return None
        with suppress(errors.OperationNotFound):
            return await self.get(self._name(kind, request_id))
        return None

    async def adopt(self, name: str, work: Work) -> Operation:
        """Goes on with an operation that another process handed over, also when that was long ago.

        One that has ended is returned as it is. Raises errors.OperationNotFound, errors.ObjectStoreUnavailable.
        """
        operation, _ = await self._recorded(name)
        if operation.done or name in self._tasks:
            return operation
        operation = replace(operation, instance_id=self._instance_id)
        await self._store.put(keys.operation(name), _encode(operation))
        self._start(operation, work)
        return operation

    async def wait(self, name: str) -> Operation:
        """The operation of this process, once it has ended."""
        task = self._tasks.get(name)
        if task is None:
            return await self.get(name)
        await task.running.ended.wait()
        return task.running.operation

    async def get(self, name: str) -> Operation:
        """An operation as it stands. Raises errors.OperationNotFound."""
        local = self._tasks.get(name)
        if local is not None:
            return local.running.operation
        # What the store says may be older, when the end could not be recorded.
        return self._ended.get(name) or await self._read(name)

    async def list(self) -> Sequence[Operation]:
        """The newest operations on record, newest first; at most RECORDS_MAX. Records that cannot be read are left
        out, and reported."""
        listed = [each async for each in self._store.list(keys.OPERATIONS) if keys.operation_of(each.key)]
        newest = heapq.nlargest(RECORDS_MAX, listed, key=lambda each: (each.modify_time, each.key))
        limit = asyncio.Semaphore(READ_AT_ONCE)

        async def read(each: Listed) -> Operation | None:
            async with limit:
                return await self._listed(each)

        found = [each for each in await asyncio.gather(*(read(each) for each in newest)) if each]
        there = {(each.key, each.etag) for each in newest}
        self._known = {key: value for key, value in self._known.items() if key in there}
        return sorted(found, key=lambda each: (each.start_time, each.name), reverse=True)

    async def _listed(self, listed: Listed) -> Operation | None:
        """The operation of a listed record; None when it is gone or cannot be read. Ended ones are read once."""
        known = self._known.get((listed.key, listed.etag))
        if known is not None:
            return known
        name = keys.operation_of(listed.key)
        assert name is not None, "only records of operations are listed"
        try:
            operation = await self.get(name)
        except errors.OperationNotFound:
            return None
        except errors.BackupDamaged as damaged:
            self._report("record of an operation cannot be read", key=listed.key, message=damaged.message)
            return None
        if operation.done:
            self._known[listed.key, listed.etag] = operation
        return operation

    async def cancel(self, name: str) -> Operation:
        """Asks an operation to end: at once when it runs here, else its process finds the wish within OBEY_SECONDS.

        A repeat changes nothing: what is being undone is not disturbed. Raises errors.OperationNotFound.
        """
        local = self._tasks.get(name)
        if local is not None:
            _cancel(local.running, local.work)
            return local.running.operation
        operation = await self.get(name)
        if not operation.done:
            with suppress(ObjectExists):
                await self._store.put(keys.cancellation(name), self._instance_id.encode(), if_absent=True)
        return operation

    async def watch(self, name: str, interval_seconds: float) -> AsyncGenerator[Operation, None]:
        """The operation now and after each change, to its end, which comes last.

        Steps and the end come at once when it runs here, progress no more often than the interval.
        """
        while True:
            operation = await self.get(name)
            yield operation
            if operation.done:
                return
            local = self._tasks.get(name)
            if local is None:
                await asyncio.sleep(max(POLL_SECONDS, interval_seconds))
            else:
                await local.running.change(operation, interval_seconds)

    async def forget_old(self) -> int:
        """Removes records of operations that ended long ago, and returns how many."""
        return await forget_old(self._store, keys.OPERATIONS)

    async def close(self, finish_seconds: float, undo_seconds: float = UNDO_SECONDS) -> None:
        """Lets running operations end for a while, then cancels them, and waits a while for what they undo.

        What is not undone by then is found and swept by another process.
        """
        self._closing = True
        tasks = list(self._tasks.values())
        if not tasks:
            return
        await asyncio.wait({each.end for each in tasks}, timeout=finish_seconds)
        for each in tasks:
            if not each.work.cancelling():
                each.work.cancel()
        await asyncio.wait({each.end for each in tasks}, timeout=undo_seconds)
        for each in tasks:
            each.end.cancel()
        await asyncio.gather(*(each.end for each in tasks), return_exceptions=True)

    @property
    def running(self) -> Sequence[Operation]:
        """Operations of this process."""
        return [each.running.operation for each in self._tasks.values()]

    # One operation

    async def _run(self, running: Running, work: asyncio.Task[None]) -> None:
        """Waits for the end of the work, records it and then tells it, so that what was told stays true whatever
        becomes of this process. Nothing that happens to the work ends this early."""
        name = running.operation.name
        self._report("operation begins", operation=name)
        recorder = asyncio.create_task(self._record_along(running), name=f"record of {name}")
        obeying = asyncio.create_task(self._obey(running, work), name=f"cancellation of {name}")
        awaited = recorded = False
        try:
            await asyncio.wait({work})
            awaited = True
        finally:
            recorder.cancel()
            obeying.cancel()
            await asyncio.gather(recorder, obeying, return_exceptions=True)
            outcome = self._outcome(running, work)
            try:
                recorded = awaited and await self._record(outcome, END_SECONDS)
            finally:
                self._end(running, outcome)
        if not outcome.done:
            self._report("operation handed over", operation=name)
            return
        failed = outcome.error
        facts = {"reason": failed.reason, "message": failed.message} if failed else {}
        self._report("operation ended", operation=name, failed=failed is not None, **facts)
        for _ in range(END_ATTEMPTS_MAX):
            if recorded:
                return
            await asyncio.sleep(RECORD_SECONDS)
            recorded = await self._record(outcome)

    def _outcome(self, running: Running, work: asyncio.Task[None]) -> Operation:
        """How the work ended: as an operation that is done, or that another process goes on with."""
        name = running.operation.name
        failure = work.exception() if work.done() and not work.cancelled() else None
        if running.made is not None:
            # Also when it was cancelled in its last moment: nothing was undone then.
            return running.outcome(subject=running.made)
        if isinstance(failure, HandedOver):
            return running.operation
        if isinstance(failure, errors.Error):
            return running.outcome(error=_failed(failure))
        if failure is not None:
            self._report("operation failed by a defect", operation=name, exc_info=failure)
            defect = errors.Internal(f"{name} failed by a defect; the log has it under that name")
            return running.outcome(error=_failed(defect))
        cause = "the process ends" if self._closing else "it was cancelled"
        undone = "What it had begun was undone." if work.done() else "What it had begun is swept by another process."
        return running.outcome(error=_failed(errors.OperationCancelled(f"{name} did not end: {cause}. {undone}")))

    def _end(self, running: Running, outcome: Operation) -> None:
        """Says how the work ended, to all who ask here."""
        del self._tasks[outcome.name]
        if outcome.done:
            self._ended[outcome.name] = outcome
        while len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        running.end(outcome)

    async def _obey(self, running: Running, work: asyncio.Task[None]) -> None:
        """Cancels the work when another process was asked to."""
        while True:
            await asyncio.sleep(OBEY_SECONDS)
            # A store that is away is asked again.
            with suppress(errors.Error):
                if await self._store.head(keys.cancellation(running.operation.name)) is not None:
                    _cancel(running, work)
                    return

    async def _record_along(self, running: Running) -> None:
        """Writes the record when a step changes, and every RECORD_SECONDS."""
        steps: Any = ()
        while True:
            if running.operation.steps != steps:
                steps = running.operation.steps
                await self._record(running.operation)
            with suppress(TimeoutError):
                async with asyncio.timeout(RECORD_SECONDS):
                    while running.operation.steps == steps:
                        await running.changed.wait()
                    continue
            await self._record(running.operation)

    async def _record(self, operation: Operation, seconds: float = RECORDING_SECONDS) -> bool:
        """Writes the record; whether it could be, within the time."""
        try:
            async with asyncio.timeout(seconds):
                await self._store.put(keys.operation(operation.name), _encode(operation))
        except (errors.Error, TimeoutError) as failed:
            message = str(failed) or f"the object store did not answer within {seconds:g} s"
            self._report("operation not recorded", operation=operation.name, message=message)
            return False
        return True

    async def _recorded(self, name: str) -> tuple[Operation, Stored]:
        """The operation as its record says, and the record."""
        try:
            content, stored = await self._store.get(keys.operation(name))
        except (ObjectNotFound, ValueError):
            raise _unknown(name) from None
        except (ObjectDamaged, ObjectTooLarge):
            raise _unreadable(name) from None
        try:
            return from_document(json.loads(content)), stored
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _unreadable(name) from None

    async def _read(self, name: str) -> Operation:
        operation, stored = await self._recorded(name)
        if operation.done or await self._store.now() - stored.modify_time < timedelta(seconds=SILENT_SECONDS):
            return operation
        gone = errors.OperationCancelled(
            f"The process {operation.instance_id} that ran it is gone; what it had begun is cleaned up or continued by"
            " another one."
        )
        return replace(
            operation,
            end_time=stored.modify_time,
            error=replace(_failed(gone), metadata={"instance_id": operation.instance_id}),
        )

    def _name(self, kind: OperationKind, request_id: str) -> str:
        if not request_id:
            return f"{kind.value}-{ids.new_id(self._clock.now(), self._dice(10)).lower()}"
        return f"{kind.value}-r{hashlib.sha256(request_id.encode()).hexdigest()[:24]}"


def _cancel(running: Running, work: asyncio.Task[None]) -> None:
    """Cancels work, once, unless it can only go on."""
    if not running.point_of_no_return and not work.cancelling():
        work.cancel()


def _encode(operation: Operation) -> bytes:
    return json.dumps(to_document(operation), sort_keys=True, indent=1).encode()


def _failed(error: errors.Error) -> Failed:
    return Failed(int(error.code), error.reason, error.message, error.metadata)


def _unreadable(name: str) -> errors.BackupDamaged:
    key = keys.operation(name)
    return errors.BackupDamaged(f"{key}, the record of an operation, cannot be read", metadata={"key": key})


def _unknown(name: str) -> errors.OperationNotFound:
    return errors.OperationNotFound(f"no operation has the name {name[:100]!r}; it may be older than {KEEP_DAYS} days")
