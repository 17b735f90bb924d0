"""Contents in a real Valkey: under the keys of one registry, one history and one time after its newest purge."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from services.registry.adapters.redis_contents import RedisContents, RedisOptions, open_redis
from services.registry.domain.events import Change, VersionsPurged
from services.registry.domain.model import Format, Schema
from services.registry.ports import Head

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HEAD = Head(1, 100, 0, False, 100, "one")


class Source:
    """A database that has one content, whose text says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See Contents."""
        self.asked += 1
        text = f'{{"title": "{self.asked}"}}'
        return {each: Schema(each, Format.JSON, text, (), b"i" * 32, b"s" * 32, NOON, "") for each in ids}


@dataclass
class Cache:
    """A process's way to the contents, over the shared server."""

    contents: RedisContents
    source: Source

    async def text(self) -> str:
        """The content with the id 1."""
        return (await self.contents.schemas([1]))[1].text

    async def is_kept(self) -> bool:
        """Whether the content is found without the database."""
        asked = self.source.asked
        await self.text()
        return self.source.asked == asked


def purge(position: int) -> Change:
    """A purge of another content."""
    return Change(1, position, NOON, "ann", VersionsPurged("s", (1,), (9,)), None)


@pytest.fixture
async def cache(valkey_url: str) -> AsyncIterator[Cache]:
    """A cache that nobody told of the head yet."""
    options = RedisOptions(valkey_url, 0, 2, 5.0, False, "contents:", 60)
    async with open_redis(options) as client:
        source = Source()
        yield Cache(RedisContents(source, client, options, time.monotonic), source)


async def test_nothing_is_kept_before_the_head_is_known(cache: Cache) -> None:
    """Nobody knows whose contents those are."""
    assert not await cache.is_kept()
    assert not await cache.is_kept()
    cache.contents.observe(HEAD, [])
    assert not await cache.is_kept()
    assert await cache.is_kept()


@pytest.mark.parametrize(
    "other",
    [
        replace(HEAD, cluster_id="another"),
        replace(HEAD, epoch=2),
        replace(HEAD, position=120, purge_position=110),
        replace(HEAD, position=60, purge_position=20),
    ],
)
async def test_another_history_has_its_own_keys(cache: Cache, other: Head) -> None:
    """Another registry, an epoch, a purge, an older state that was put back: what was kept before is not found."""
    cache.contents.observe(HEAD, [])
    await cache.text()
    assert await cache.is_kept()

    cache.contents.observe(other, [])

    assert not await cache.is_kept()
    assert await cache.is_kept()


@pytest.mark.parametrize("known", [True, False])
async def test_an_own_purge_counts_before_the_head_tells_it(cache: Cache, known: bool) -> None:
    """Also one that is committed before the first look, and the late look changes nothing."""
    if known:
        cache.contents.observe(HEAD, [])
        await cache.text()
    cache.contents.observe_commit(purge(101))
    cache.contents.observe(HEAD, [])
    assert not await cache.is_kept()

    cache.contents.observe(replace(HEAD, position=101, purge_position=101), [])

    assert await cache.is_kept()


async def test_purges_count_behind_a_state_that_was_put_back(cache: Cache) -> None:
    """Their positions are smaller than those of purges that never were."""
    cache.contents.observe(HEAD, [])
    cache.contents.observe(replace(HEAD, position=50, purge_position=20), [])
    await cache.text()

    cache.contents.observe(replace(HEAD, position=60, purge_position=60), [])

    assert not await cache.is_kept()
