"""A store that gives up before the call does that waits for it: it keeps the port's promises, and its own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from llm_schema_registry.errors import ObjectStoreUnavailable
from llm_schema_registry.kernel.calls import Call, set_current_call
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Operations, Running
from services.backup.adapters.bounded_store import KEPT_SECONDS_MAX, KEPT_SHARE, BoundedStore
from services.backup.adapters.recipients import system_dice
from tests.contract.objects.store_suite import ListSuite, OtherSuite, PutSuite, ReadSuite, UploadSuite
from tests.object_faults import FaultyStore, Method, Plan, Wait


@pytest.fixture
def plan() -> Plan:
    """What happens to the store behind it."""
    return Plan()


@pytest.fixture
def object_store(tmp_path: Path, plan: Plan) -> BoundedStore:
    """The store, on an empty folder."""
    return BoundedStore(FaultyStore(DirectoryStore(tmp_path / "objects"), plan))


class TestPut(PutSuite):
    """store_suite.py"""


class TestUpload(UploadSuite):
    """store_suite.py"""


class TestRead(ReadSuite):
    """store_suite.py"""


class TestList(ListSuite):
    """store_suite.py"""


class TestOther(OtherSuite):
    """store_suite.py"""


def begin_call(seconds: float) -> Call:
    """Puts the test into a call with so much time."""
    call = Call("/test", {}, time.monotonic())
    call.deadline = time.monotonic() + seconds
    set_current_call(call)
    return call


async def test_it_gives_up_shortly_before_the_call_does(object_store: BoundedStore, plan: Plan) -> None:
    """Whatever does not answer, the caller is told so in time, and when to repeat."""
    await object_store.put("a", b"1")
    methods: list[Method] = ["put", "get", "head", "list", "delete", "now", "check", "read"]
    for method in methods:
        plan.add(method, Wait(asyncio.Event(), asyncio.Event()))
    ends = begin_call(KEPT_SECONDS_MAX / KEPT_SHARE).deadline

    async def asked(method: Method) -> None:
        match method:
            case "put":
                await object_store.put("a", b"2")
            case "list":
                [each async for each in object_store.list("")]
            case "read":
                [each async for each in object_store.read("a")]
            case "now" | "check":
                await getattr(object_store, method)()
            case _:
                await getattr(object_store, method)("a")

    async def left(method: Method) -> float:
        with pytest.raises(ObjectStoreUnavailable, match="deadline") as given_up:
            await asked(method)
        assert ends is not None
        assert given_up.value.retry_seconds
        return ends - time.monotonic()

    for seconds in await asyncio.gather(*map(left, methods)):
        assert 0 < seconds <= KEPT_SECONDS_MAX


async def test_what_a_call_undoes_after_its_end_is_not_bound(object_store: BoundedStore, plan: Plan) -> None:
    """A lease is given back also by a call whose time is over."""
    reached, go = asyncio.Event(), asyncio.Event()
    plan.add("put", Wait(reached, go))
    begin_call(-1)

    putting = asyncio.create_task(object_store.put("a", b"1"))
    await reached.wait()
    go.set()

    assert (await putting).size_bytes == 1


async def test_work_behind_a_call_is_not_bound_by_it(object_store: BoundedStore, plan: Plan) -> None:
    """An operation asks the store with the store's own patience, however short the call was that began it."""
    operations = Operations(object_store, SystemClock(), system_dice, "here", lambda *_, **__: None)
    start, reached, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    plan.add("get", Wait(reached, go))
    call = begin_call(60)

    async def work(running: Running) -> Subject:
        await start.wait()
        await object_store.put("made", b"1")
        await object_store.get("made")
        return Subject("backup", "made")

    begun = await operations.begin(OperationKind.BACKUP, work, actor="test")
    call.deadline = time.monotonic() + 0.3
    start.set()
    await reached.wait()
    await asyncio.sleep(call.deadline - time.monotonic() + 0.05)
    assert operations.running
    go.set()
    ended = await operations.wait(begun.name)
    await operations.close(1)

    assert (ended.error, ended.subject.id) == (None, "made")
