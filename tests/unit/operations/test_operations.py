"""Operations: begun by a call, recorded in the store, watched, repeated, cancelled, and outliving their process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations import keys
from llm_schema_registry.operations import operations as module
from llm_schema_registry.operations.forgetting import KEEP_DAYS
from llm_schema_registry.operations.operation import Operation, OperationKind, StepState, Subject
from llm_schema_registry.operations.operations import Operations, Request, Running
from services.backup.adapters.recipients import system_dice
from tests.backup_parts import HandClock
from tests.object_faults import FaultyStore, Plan, Raise, RaiseAfter, Wait

DOWN = errors.ObjectStoreUnavailable("the store of the test is down")
MADE = Subject("backup", "01J00000000000000000000000")


class Replicas:
    """Two processes at one store."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.plan = HandClock(), Plan()
        self.store = FaultyStore(DirectoryStore(folder, self.clock.now), self.plan)
        self.reported: list[str] = []
        self.one, self.other = self.make("one"), self.make("other")
        self.go = asyncio.Event()

    def make(self, name: str) -> Operations:
        """A process."""
        return Operations(self.store, self.clock, system_dice, name, lambda event, **_: self.reported.append(event))

    async def work(self, running: Running) -> Subject:
        """Work of two steps that waits for `go` in the second."""
        async with running.step("first") as say:
            say("said")
        async with running.step("second"):
            running.tell(bytes_done=5, bytes_total=10)
            await self.go.wait()
        return MADE

    async def begin(self, **options: object) -> Operation:
        """An operation of the first process."""
        return await self.one.begin(OperationKind.BACKUP, self.work, actor="me", **options)  # type: ignore[arg-type]

    async def recorded(self, name: str, *, done: bool) -> Operation:
        """The operation as the other process reads it, once it says so."""
        while True:
            found = await self.other.get(name)
            if found.done is done and (found.steps or done):
                return found
            await asyncio.sleep(0)

    async def in_step(self) -> None:
        """Waits until the first process's operation is in its first step."""
        running = next(iter(self.one._tasks.values())).running
        while not running.operation.steps:
            await running.changed.wait()


@pytest_asyncio.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    """Two processes at an empty store; both end after the test."""
    replicas = Replicas(tmp_path / "store")
    yield replicas
    await replicas.one.close(0)
    await replicas.other.close(0)


async def test_every_replica_knows_an_operation(replicas: Replicas) -> None:
    """Another process shows it while it runs, with its steps, and how it ended."""
    begun = await replicas.begin()
    seen = await replicas.recorded(begun.name, done=False)
    replicas.go.set()
    ended = await replicas.recorded(begun.name, done=True)

    assert (seen.steps[0].state, seen.steps[0].message) == (StepState.DONE, "said")
    assert (ended.subject, ended.error) == (MADE, None)
    assert [step.state for step in ended.steps] == [StepState.DONE] * 2


async def test_a_repeat_with_the_same_request_id_is_the_same_operation(replicas: Replicas) -> None:
    """On any replica, running or ended."""
    request = Request("again", b"body")
    first = await replicas.begin(request=request)

    here = await replicas.begin(request=request)
    there = await replicas.other.begin(OperationKind.BACKUP, replicas.work, actor="me", request=request)
    replicas.go.set()
    await replicas.one.wait(first.name)
    later = await replicas.begin(request=request)

    assert {first.name, here.name, there.name, later.name} == {first.name}
    assert later.done


async def test_a_request_id_with_another_request_is_refused(replicas: Replicas) -> None:
    """The same id for something else is an error, not somebody else's result."""
    await replicas.begin(request=Request("once", b"daily"))

    with pytest.raises(errors.RequestIdReused):
        await replicas.begin(request=Request("once", b"hourly"))


async def test_a_repeat_after_a_lost_answer_begins_it(replicas: Replicas) -> None:
    """When the record was written but its answer was lost, the repeat begins what nobody runs."""
    replicas.plan.add("put", RaiseAfter(DOWN))
    with pytest.raises(errors.ObjectStoreUnavailable):
        await replicas.begin(request=Request("lost"))

    begun = await replicas.begin(request=Request("lost"))
    replicas.go.set()

    assert (await replicas.one.wait(begun.name)).subject == MADE


async def test_a_caller_that_goes_away_leaves_no_record_that_nobody_works_on(replicas: Replicas) -> None:
    """A call that is cancelled while the record is written has begun the operation."""
    reached, go = asyncio.Event(), asyncio.Event()
    replicas.plan.add("put", Wait(reached, go))
    call = asyncio.create_task(replicas.begin(request=Request("gone")))
    await reached.wait()
    call.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await call

    replicas.go.set()
    ended = await replicas.one.wait((await replicas.begin(request=Request("gone"))).name)
    assert ended.subject == MADE


async def test_cancel_ends_it_once(replicas: Replicas) -> None:
    """A repeated cancel does not disturb what is being undone."""
    undoing, undone = asyncio.Event(), asyncio.Event()

    async def work(running: Running) -> Subject:
        try:
            async with running.step("endless"):
                await asyncio.Event().wait()
        finally:
            undoing.set()
            await replicas.go.wait()
            undone.set()
        return MADE

    begun = await replicas.one.begin(OperationKind.BACKUP, work, actor="me")
    await replicas.in_step()
    await replicas.one.cancel(begun.name)
    await undoing.wait()
    await replicas.one.cancel(begun.name)
    replicas.go.set()
    ended = await replicas.one.wait(begun.name)

    assert undone.is_set()
    assert ended.error is not None
    assert ended.error.reason == "OPERATION_CANCELLED"
    assert ended.steps[0].state is StepState.FAILED


async def test_a_cancel_at_the_last_moment_leaves_nothing_running(replicas: Replicas) -> None:
    """An operation that is cancelled in the moment of its end is recorded, and its place is free again."""

    async def work(running: Running) -> Subject:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return MADE

    begun = await replicas.one.begin(OperationKind.BACKUP, work, actor="me")
    ended = await replicas.one.wait(begun.name)

    assert ended.subject == MADE
    assert not replicas.one.running
    await replicas.recorded(begun.name, done=True)


async def test_past_the_point_of_no_return_it_goes_on(replicas: Replicas) -> None:
    """A cancel changes nothing once the operation can only go on."""

    async def work(running: Running) -> Subject:
        running.point_of_no_return = True
        async with running.step("swap"):
            await replicas.go.wait()
        return MADE

    begun = await replicas.one.begin(OperationKind.ACTIVATE_RESTORE, work, actor="me")
    await replicas.in_step()
    await replicas.one.cancel(begun.name)
    replicas.go.set()

    assert (await replicas.one.wait(begun.name)).error is None


async def test_another_process_hands_the_wish_over(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that runs it finds it, also when the store is away in between; a repeat changes nothing."""
    monkeypatch.setattr(module, "OBEY_SECONDS", 0.001)
    replicas.plan.add("head", *[Raise(DOWN)] * 100_000)
    begun = await replicas.begin()

    for _ in range(2):
        assert not (await replicas.other.cancel(begun.name)).done
    looks = replicas.plan.calls["head"]
    async with asyncio.timeout(60):
        while replicas.plan.calls["head"] < looks + 3:  # noqa: ASYNC110 - what is waited for is told by nobody
            await asyncio.sleep(0.001)
    replicas.plan.clear()
    ended = await replicas.one.wait(begun.name)

    assert ended.error is not None
    assert ended.error.reason == "OPERATION_CANCELLED"
    assert [each.name for each in await replicas.other.list()] == [begun.name], "a wish is no record"


async def test_a_wish_comes_too_late_for_what_can_only_go_on(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it runs."""
    monkeypatch.setattr(module, "OBEY_SECONDS", 0.001)

    async def work(running: Running) -> Subject:
        running.point_of_no_return = True
        return await replicas.work(running)

    begun = await replicas.one.begin(OperationKind.ACTIVATE_RESTORE, work, actor="me")
    await replicas.other.cancel(begun.name)
    await asyncio.sleep(0.05)
    replicas.go.set()

    assert (await replicas.one.wait(begun.name)).error is None


async def test_an_operation_whose_process_is_gone_has_ended(replicas: Replicas) -> None:
    """A record that says running and is silent is shown as cancelled, by name of the process, on every replica."""
    dead = replicas.make("dead")
    begun = await dead.begin(OperationKind.BACKUP, replicas.work, actor="me")
    await replicas.recorded(begun.name, done=False)
    for task in list(dead._tasks.values()):
        task.end.cancel()  # As a process that was killed: nothing is recorded any more.
        task.work.cancel()
        await asyncio.wait({task.end, task.work})

    replicas.clock.move(seconds=module.SILENT_SECONDS + 1)
    found = await replicas.other.get(begun.name)

    assert found.done
    assert found.error is not None
    assert found.error.metadata == {"instance_id": "dead"}


async def test_an_end_is_told_once_it_is_on_record(replicas: Replicas) -> None:
    """What somebody was told stays true when the process is killed in that moment; a store that does not answer delays
    it for a while only."""
    begun = await replicas.begin()
    await replicas.recorded(begun.name, done=False)
    reached, go = asyncio.Event(), asyncio.Event()
    replicas.plan.add("put", Wait(reached, go))
    replicas.go.set()
    await reached.wait()

    assert not (await replicas.one.get(begun.name)).done
    go.set()
    await replicas.one.wait(begun.name)
    assert (await replicas.other.get(begun.name)).done


async def test_a_store_that_does_not_answer_delays_an_end_for_a_while(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is told all the same."""
    monkeypatch.setattr(module, "END_SECONDS", 0.01)
    begun = await replicas.begin()
    await replicas.recorded(begun.name, done=False)
    replicas.plan.add("put", Wait(asyncio.Event(), asyncio.Event()))
    replicas.go.set()

    assert (await replicas.one.wait(begun.name)).error is None


async def test_an_end_that_cannot_be_recorded_is_known_here(replicas: Replicas) -> None:
    """The store's failure does not change how an operation ended for whoever asks the process that ran it."""
    begun = await replicas.begin()
    await replicas.recorded(begun.name, done=False)
    replicas.plan.add("put", *[Raise(DOWN)] * 100)
    replicas.go.set()
    await replicas.one.wait(begun.name)
    replicas.clock.move(seconds=module.SILENT_SECONDS + 1)

    found = await replicas.one.get(begun.name)
    watched = [each async for each in replicas.one.watch(begun.name, 0.0)]

    assert (found.subject, found.error) == (MADE, None)
    assert watched[-1] == found


async def test_a_defect_is_an_internal_error_that_says_nothing_of_itself(replicas: Replicas) -> None:
    """What no one foresaw is logged, and shown without its details."""

    async def work(running: Running) -> Subject:
        raise KeyError("secret")

    ended = await replicas.one.wait((await replicas.one.begin(OperationKind.BACKUP, work, actor="me")).name)

    assert ended.error is not None
    assert ended.error.reason == "INTERNAL"
    assert "secret" not in ended.error.message
    assert "operation failed by a defect" in replicas.reported


async def test_too_many_at_once_are_refused(replicas: Replicas) -> None:
    """A process runs a limited number of operations."""
    for _ in range(module.RUNNING_MAX):
        await replicas.begin()

    with pytest.raises(errors.Overloaded):
        await replicas.begin()


async def test_the_list_holds_the_newest_of_every_kind(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more records than are shown, the oldest are left out, whatever their names."""
    monkeypatch.setattr(module, "RECORDS_MAX", 2)
    replicas.go.set()
    begun = []
    for kind in (OperationKind.BACKUP, OperationKind.BACKUP, OperationKind.VERIFY):
        begun.append((await replicas.one.begin(kind, replicas.work, actor="me")).name)
        await replicas.recorded(begun[-1], done=True)
        replicas.clock.move(seconds=5)

    listed = await replicas.other.list()

    assert [each.name for each in listed] == [begun[2], begun[1]]


async def test_a_damaged_record_hides_no_other(replicas: Replicas) -> None:
    """The list leaves out what cannot be read, says so in the log, and asking for it names the object."""
    replicas.go.set()
    begun = await replicas.begin()
    await replicas.recorded(begun.name, done=True)
    await replicas.store.put(keys.operation("backup-damaged"), b'{"name": 1}')

    listed = await replicas.other.list()

    assert [each.name for each in listed] == [begun.name]
    assert "record of an operation cannot be read" in replicas.reported
    with pytest.raises(errors.BackupDamaged, match="operations/backup-damaged"):
        await replicas.other.get("backup-damaged")


@pytest.mark.parametrize("name", ["nobody", "../../etc", "", "x" * 70])
async def test_an_unknown_name_is_not_found(replicas: Replicas, name: str) -> None:
    """Whatever the name looks like."""
    with pytest.raises(errors.OperationNotFound):
        await replicas.one.get(name)


async def test_closing_cancels_what_does_not_end_and_refuses_new_ones(replicas: Replicas) -> None:
    """A process that ends gives operations their time, then cancels them, and takes no further ones."""
    begun = await replicas.begin()

    await replicas.one.close(0)

    ended = await replicas.one.get(begun.name)
    assert ended.error is not None
    assert "the process ends" in ended.error.message
    with pytest.raises(errors.NotServing):
        await replicas.begin()


async def test_old_records_are_forgotten(replicas: Replicas) -> None:
    """After KEEP_DAYS a record is removed; younger ones stay."""
    replicas.go.set()
    old = await replicas.begin()
    await replicas.recorded(old.name, done=True)
    replicas.clock.move(days=KEEP_DAYS, seconds=1)
    young = await replicas.begin()

    assert await replicas.other.forget_old() == 1
    assert (await replicas.other.get(young.name)).name == young.name
    with pytest.raises(errors.OperationNotFound):
        await replicas.other.get(old.name)


async def test_steps_and_the_end_are_told_at_once(replicas: Replicas) -> None:
    """Only progress waits for the interval of a watcher."""

    async def watch(name: str) -> list[Operation]:
        return [each async for each in replicas.one.watch(name, 3600.0)]

    async def work(running: Running) -> Subject:
        async with running.step("first"):
            running.tell(bytes_done=1)
            await replicas.go.wait()
        async with running.step("second"):
            await asyncio.sleep(0)
        return MADE

    begun = await replicas.one.begin(OperationKind.BACKUP, work, actor="me")
    watching = asyncio.create_task(watch(begun.name))
    await replicas.in_step()
    replicas.go.set()
    async with asyncio.timeout(10):
        told = await watching

    assert told[-1].done
    assert [step.name for step in told[-2].steps] == ["first", "second"]


async def test_progress_comes_no_more_often_than_the_interval(replicas: Replicas) -> None:
    """A watcher of work that reports all the time is told now and then, and of the last state."""

    async def work(running: Running) -> Subject:
        async with running.step("only"):
            for number in range(300):
                running.tell(bytes_done=number + 1)
                await asyncio.sleep(0.001)
        return MADE

    loop = asyncio.get_running_loop()
    begun, began = await replicas.one.begin(OperationKind.BACKUP, work, actor="me"), loop.time()
    told = [each async for each in replicas.one.watch(begun.name, 0.1)]

    assert told[-1].done
    steps_and_end = 4
    assert 3 <= len(told) <= (loop.time() - began) / 0.1 + steps_and_end
