"""Operations: work begun by a call, recorded in the object store, watched and cancelled by later ones.

The record is written at the start, at every step, at the end, and every few seconds in between, so every replica can
show it, and one whose process died is seen by its silence. A record that cannot be written does not fail a running
operation: what the operation makes counts, not its record.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectExists, ObjectNotFound, ObjectStore
from services.backup.domain import ids, layout
from services.backup.domain.operation import (
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
from services.backup.ports import Clock, Dice

RECORD_SECONDS = 5.0
"""Time between two writes of the record while nothing but progress happens."""
SILENT_SECONDS = 60.0
"""A record that says running and was not written for so long belongs to a process that is gone."""
POLL_SECONDS = 1.0
KEEP_DAYS = 30
RECORDS_MAX = 1000
READ_AT_ONCE = 8
RUNNING_MAX = 8
"""Operations at once in one process."""

Work = Callable[["Running"], Awaitable[Subject]]
Report = Callable[..., None]


class Running:
    """What work tells while it runs."""

    def __init__(self, operation: Operation, clock: Clock) -> None:
        self.operation = operation
        self.changed = asyncio.Event()
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

    def end(self, *, subject: Subject | None = None, error: Failed | None = None) -> None:
        """Records the end."""
        self._put(
            replace(self.operation, end_time=self._clock.now(), subject=subject or self.operation.subject, error=error)
        )

    def _put(self, operation: Operation) -> None:
        self.operation = operation
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(slots=True)
class _Task:
    running: Running
    task: asyncio.Task[None]
    recorded: Operation | None = None


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
        self._closing = False

    async def begin(
        self, kind: OperationKind, work: Work, *, actor: str, request_id: str = "", subject: Subject | None = None
    ) -> Operation:
        """Begins the work in the background and returns its operation.

        With the request id of an earlier one of the same kind it returns that one, of any replica, running or ended.
        Raises errors.Overloaded above RUNNING_MAX, errors.NotServing while the process ends, errors.RequestIdReused
        when the earlier one worked on something else.
        """
        if self._closing:
            raise errors.NotServing("this process ends: repeat with another one", retry_seconds=1)
        if len(self._tasks) >= RUNNING_MAX:
            raise errors.Overloaded(f"{RUNNING_MAX} operations run here already: repeat later", retry_seconds=10)
        subject = subject or Subject(kind.value)
        operation = Operation(
            name=self._name(kind, request_id),
            kind=kind,
            actor=actor,
            request_id=request_id,
            instance_id=self._instance_id,
            start_time=self._clock.now(),
            subject=subject,
        )
        try:
            await self._store.put(layout.operation(operation.name), _encode(operation), if_absent=True)
        except ObjectExists:
            known = await self.get(operation.name)
            # A result's id may be longer than what was asked about: a record of a backup's verification.
            if subject.id not in known.subject.id:
                raise errors.RequestIdReused(
                    f"the request id {request_id!r} was used for {known.subject.kind} {known.subject.id}: take another",
                    metadata={"operation": known.name},
                ) from None
            return known
        running = Running(operation, self._clock)
        task = asyncio.create_task(self._run(running, work), name=operation.name)
        self._tasks[operation.name] = _Task(running, task)
        return operation

    async def wait(self, name: str) -> Operation:
        """The operation of this process, once it has ended."""
        task = self._tasks.get(name)
        if task is None:
            return await self.get(name)
        await asyncio.wait({task.task})
        return task.running.operation

    async def get(self, name: str) -> Operation:
        """An operation as it stands. Raises errors.OperationNotFound."""
        local = self._tasks.get(name)
        if local is not None:
            return local.running.operation
        return await self._read(name)

    async def list(self) -> Sequence[Operation]:
        """Every operation on record, newest first; at most RECORDS_MAX."""
        names = [name async for name in self._names()]
        limit = asyncio.Semaphore(READ_AT_ONCE)

        async def read(name: str) -> Operation | None:
            async with limit:
                try:
                    return await self.get(name)
                except errors.OperationNotFound:
                    return None

        found = await asyncio.gather(*(read(name) for name in names))
        return sorted((each for each in found if each), key=lambda each: (each.start_time, each.name), reverse=True)

    async def cancel(self, name: str) -> Operation:
        """Asks an operation of this process to end. Raises errors.OperationNotFound, errors.OperationRunning."""
        local = self._tasks.get(name)
        if local is None:
            operation = await self.get(name)
            if not operation.done:
                raise errors.OperationRunning(
                    f"{name} runs in process {operation.instance_id}: ask that one, or stop it",
                    metadata={"operation": name, "instance_id": operation.instance_id},
                )
            return operation
        if not local.running.point_of_no_return:
            local.task.cancel()
        return local.running.operation

    async def watch(self, name: str, interval_seconds: float) -> AsyncGenerator[Operation, None]:
        """The operation now and after each change, no more often than the interval, to its end, which comes last."""
        while True:
            local = self._tasks.get(name)
            changed = local.running.changed if local else None
            operation = await self.get(name)
            yield operation
            if operation.done:
                return
            if changed is None:
                await asyncio.sleep(max(POLL_SECONDS, interval_seconds))
            else:
                await changed.wait()
                await asyncio.sleep(interval_seconds)

    async def forget_old(self) -> int:
        """Removes records of operations that ended long ago, and returns how many."""
        before = await self._store.now() - timedelta(days=KEEP_DAYS)
        old = [each.key async for each in self._store.list(layout.OPERATIONS) if each.modify_time < before]
        for key in old:
            await self._store.delete(key)
        return len(old)

    async def close(self, finish_seconds: float) -> None:
        """Lets running operations end for a while, then cancels them. What they had begun is undone."""
        self._closing = True
        tasks = [each.task for each in self._tasks.values()]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=finish_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def running(self) -> Sequence[Operation]:
        """Operations of this process."""
        return [each.running.operation for each in self._tasks.values()]

    # One operation

    async def _run(self, running: Running, work: Work) -> None:
        name = running.operation.name
        self._report("operation begins", operation=name)
        recorder = asyncio.create_task(self._record_along(running), name=f"record of {name}")
        try:
            running.end(subject=await work(running))
        except errors.Error as error:
            running.end(error=Failed(int(error.code), error.reason, error.message, error.metadata))
        except asyncio.CancelledError:
            cause = "the process ends" if self._closing else "it was cancelled"
            cancelled = errors.OperationCancelled(f"{name} did not end: {cause}. What it had begun was undone.")
            running.end(error=Failed(int(cancelled.code), cancelled.reason, cancelled.message))
        except Exception as defect:  # noqa: BLE001 - the edge of an operation: nobody above would hear of it
            internal = errors.Internal(f"{name} failed by a defect; the log has it under the operation's name")
            running.end(error=Failed(int(internal.code), internal.reason, internal.message))
            self._report("operation failed by a defect", operation=name, exc_info=defect)
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            await self._record(running.operation)
            self._tasks.pop(name, None)
            failed = running.operation.error
            facts = {"reason": failed.reason, "message": failed.message} if failed else {}
            self._report("operation ended", operation=name, failed=failed is not None, **facts)

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

    async def _record(self, operation: Operation) -> None:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._store.put(layout.operation(operation.name), _encode(operation))
        except (errors.Error, TimeoutError) as failed:
            self._report("operation not recorded", operation=operation.name, message=str(failed))

    async def _read(self, name: str) -> Operation:
        try:
            content, stored = await self._store.get(layout.operation(name))
        except (ObjectNotFound, ValueError):
            raise _unknown(name) from None
        try:
            operation = from_document(json.loads(content))
        except (ValueError, KeyError, TypeError):
            raise errors.BackupDamaged(f"the record of operation {name} cannot be read") from None
        if operation.done or await self._store.now() - stored.modify_time < timedelta(seconds=SILENT_SECONDS):
            return operation
        gone = errors.OperationCancelled(
            f"The process {operation.instance_id} that ran it is gone; what it had begun is cleaned up or continued by"
            " another one."
        )
        return replace(
            operation,
            end_time=stored.modify_time,
            error=Failed(int(gone.code), gone.reason, gone.message, {"instance_id": operation.instance_id}),
        )

    async def _names(self) -> AsyncIterator[str]:
        count = 0
        async for each in self._store.list(layout.OPERATIONS):
            name = layout.operation_of(each.key)
            if name is not None and count < RECORDS_MAX:
                count += 1
                yield name

    def _name(self, kind: OperationKind, request_id: str) -> str:
        if not request_id:
            return f"{kind.value}-{ids.new_id(self._clock.now(), self._dice(10)).lower()}"
        return f"{kind.value}-r{hashlib.sha256(request_id.encode()).hexdigest()[:24]}"


def _encode(operation: Operation) -> bytes:
    return json.dumps(to_document(operation), sort_keys=True, indent=1).encode()


def _unknown(name: str) -> errors.OperationNotFound:
    return errors.OperationNotFound(f"no operation has the name {name[:100]!r}; it may be older than {KEEP_DAYS} days")
