"""The store in memory keeps the promises of the port."""

from __future__ import annotations

import asyncio

import pytest

from services.registry.adapters.memory_store import MemoryBell, MemoryStore
from services.registry.domain.limits import SCHEMA_ID_MAX
from services.registry.ports import Store
from tests.contract.registry.store_races import RaceSuite
from tests.contract.registry.store_suite import CommitSuite, ExhaustIds, Fence
from tests.contract.registry.store_suite_reads import Forget, ReadSuite
from tests.registry_author import Author


@pytest.fixture
def store(memory_store: MemoryStore) -> Store:
    return memory_store


@pytest.fixture
def fence(memory_store: MemoryStore) -> Fence:
    async def fence(fenced: bool) -> None:
        memory_store.fence(fenced=fenced)

    return fence


@pytest.fixture
def forget(memory_store: MemoryStore) -> Forget:
    async def forget(floor: int) -> None:
        memory_store.forget(floor)

    return forget


@pytest.fixture
def exhaust_ids(memory_store: MemoryStore) -> ExhaustIds:
    async def exhaust() -> None:
        memory_store.skip_ids(SCHEMA_ID_MAX)

    return exhaust


class TestCommits(CommitSuite):
    """store_suite.py"""


class TestReads(ReadSuite):
    """store_suite_reads.py"""


class TestRaces(RaceSuite):
    """store_races.py"""


async def test_bell() -> None:
    """The bell of a memory store rings at a commit, also when nobody waited yet."""
    bell = MemoryBell()
    author = Author(MemoryStore(bell=bell))

    await author.register("user", "text")

    async with asyncio.timeout(30):
        await bell.wait(60)
    await bell.wait(0.01)
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    await author.register("user", "text 2")
    async with asyncio.timeout(30):
        await waiting
