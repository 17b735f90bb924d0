"""The cache in the process: finds what it has, forgets what was purged, never keeps what was purged meanwhile."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Collection, Mapping

import pytest

from services.registry.adapters.cached_contents import ENTRY_BYTES, CachedContents
from services.registry.domain.events import Change, VersionsPurged
from services.registry.domain.model import Format, Schema
from services.registry.ports import Head

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def schema(schema_id: int, text: str = "{}") -> Schema:
    return Schema(schema_id, Format.JSON, text, (), bytes([1, schema_id]), bytes([1, schema_id]), NOON)


def purge(*schema_ids: int) -> Change:
    return Change(1, 9, NOON, "someone", VersionsPurged("orders", (1,), schema_ids))


class Source:
    """Contents that count how often they are asked, and can be made to wait."""

    def __init__(self, *ids: int) -> None:
        self.contents = {schema_id: schema(schema_id) for schema_id in ids}
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        self.asked.append(sorted(ids))
        found = {schema_id: self.contents[schema_id] for schema_id in ids if schema_id in self.contents}
        self.reached.set()
        await self.gate.wait()
        return found


async def test_what_is_kept_is_not_asked_for_again() -> None:
    """The second read asks only for what is missing."""
    source = Source(1, 2, 3)
    cache = CachedContents(source)

    await cache.schemas([1, 2])
    found = await cache.schemas([1, 2, 3])

    assert sorted(found) == [1, 2, 3]
    assert source.asked == [[1, 2], [3]]
    assert (cache.hits, cache.misses) == (2, 3)


async def test_what_does_not_exist_is_asked_for_every_time() -> None:
    """An id that is unknown now may be registered the next moment."""
    source = Source()
    cache = CachedContents(source)

    assert await cache.schemas([7]) == {}
    source.contents[7] = schema(7)

    assert sorted(await cache.schemas([7])) == [7]


async def test_a_purge_is_forgotten_before_it_is_answered() -> None:
    """By the process that purged, and by the others when they hear of it."""
    for own in (True, False):
        source = Source(1, 2)
        cache = CachedContents(source)
        cache.observe(Head(1, 1, 0, fenced=False), [])
        await cache.schemas([1, 2])
        del source.contents[1]

        if own:
            cache.observe_commit(purge(1))
        else:
            cache.observe(Head(1, 9, 0, fenced=False), [purge(1)])

        assert sorted(await cache.schemas([1, 2])) == [2]


async def test_a_read_that_began_before_a_purge_is_not_kept() -> None:
    """Its answer may hold what was purged while it was under way."""
    source = Source(1)
    cache = CachedContents(source)
    source.gate.clear()

    reading = asyncio.create_task(cache.schemas([1]))
    await source.reached.wait()
    del source.contents[1]
    cache.observe_commit(purge(1))
    source.gate.set()
    await reading

    assert await cache.schemas([1]) == {}


async def test_a_new_epoch_forgets_everything() -> None:
    """After a restore nothing that was read before counts."""
    source = Source(1)
    cache = CachedContents(source)
    cache.observe(Head(1, 1, 0, fenced=False), [])
    await cache.schemas([1])
    source.contents[1] = schema(1, '{"title": "restored"}')

    cache.observe(Head(2, 1, 0, fenced=False), [])

    assert (await cache.schemas([1]))[1].text == '{"title": "restored"}'


@pytest.mark.parametrize("other", [Head(1, 9, 0, False, 0, "another"), Head(1, 4, 0, False, 0, "one")])
async def test_another_history_forgets_everything(other: Head) -> None:
    """Another registry's database under the same name, or an older state of this one, put back by hand: what a schema
    id meant before counts for nothing."""
    source = Source(1)
    cache = CachedContents(source)
    cache.observe(Head(1, 5, 0, False, 0, "one"), [])
    await cache.schemas([1])
    cache.observe(Head(1, 7, 0, False, 0, "one"), [])
    assert (cache.entries, source.asked) == (1, [[1]])
    source.contents[1] = schema(1, '{"title": "other"}')

    cache.observe(other, [])

    assert (await cache.schemas([1]))[1].text == '{"title": "other"}'


async def test_the_cache_is_bounded_in_bytes() -> None:
    """The least recently used goes first; what alone is too large is not kept."""
    source = Source(1, 2, 3)
    source.contents[4] = schema(4, "x" * 10_000)
    cache = CachedContents(source, bytes_max=2 * (ENTRY_BYTES + 2))

    for schema_id in (1, 2, 1, 3, 4):
        await cache.schemas([schema_id])

    assert cache.entries == 2
    source.asked.clear()
    await cache.schemas([1, 3])
    assert source.asked == []
