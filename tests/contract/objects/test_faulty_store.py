"""A store that fails by plan keeps the promises of the port while the plan is empty, and fails as planned else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_schema_registry.errors import ObjectStoreUnavailable
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import ObjectStore
from tests.contract.objects.store_races import RaceSuite
from tests.contract.objects.store_suite import ListSuite, OtherSuite, PutSuite, ReadSuite, UploadSuite
from tests.fix_objects import ObjectPlace
from tests.object_faults import CutShort, FaultyStore, Flip, Plan, Raise, RaiseAfter, Wait


@pytest.fixture
def object_place(tmp_path: Path) -> ObjectPlace:
    @asynccontextmanager
    async def opened() -> AsyncIterator[ObjectStore]:
        yield FaultyStore(DirectoryStore(tmp_path / "objects"), Plan())

    return ObjectPlace("faulty", opened)


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
def faulty(tmp_path: Path, plan: Plan) -> FaultyStore:
    return FaultyStore(DirectoryStore(tmp_path / "objects"), plan)


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


class TestRaces(RaceSuite):
    """store_races.py"""


async def test_raise(faulty: FaultyStore, plan: Plan) -> None:
    """A planned error meets the call that it was planned for, once, and nothing was done."""
    plan.add("put", None, Raise(ObjectStoreUnavailable("planned")))

    await faulty.put("a", b"")
    with pytest.raises(ObjectStoreUnavailable, match="planned"):
        await faulty.put("b", b"")
    await faulty.put("c", b"")

    assert [listed.key async for listed in faulty.list("")] == ["a", "c"]
    assert plan.spent
    assert plan.calls["put"] == 3


async def test_raise_after(faulty: FaultyStore, plan: Plan) -> None:
    """An answer that is lost: the object is there."""
    plan.add("put", RaiseAfter(ObjectStoreUnavailable("planned")))

    with pytest.raises(ObjectStoreUnavailable, match="planned"):
        await faulty.put("a", b"1")

    assert (await faulty.get("a"))[0] == b"1"


async def test_wait(faulty: FaultyStore, plan: Plan) -> None:
    """A call waits where it was told to, until it may go on."""
    reached, go = asyncio.Event(), asyncio.Event()
    plan.add("put", Wait(reached, go))

    putting = asyncio.create_task(faulty.put("a", b"1"))
    await reached.wait()
    assert await faulty.head("a") is None
    go.set()
    await putting

    assert await faulty.head("a") is not None


async def test_damage(faulty: FaultyStore, plan: Plan) -> None:
    """Reads can be cut short, and bytes turned, on the way in and out."""
    await faulty.put("a", b"12345")
    plan.add("get", CutShort(2), Flip(0))
    plan.add("read", CutShort(3), Flip(4))
    plan.add("put", Flip(1))

    assert [(await faulty.get("a"))[0] for _ in range(3)] == [b"12", b"02345", b"12345"]
    assert [b"".join([piece async for piece in faulty.read("a")]) for _ in range(2)] == [b"123", b"12344"]
    await faulty.put("b", b"12345")
    assert (await faulty.get("b"))[0] == b"13345"
