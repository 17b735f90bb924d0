"""The feed over the store in memory: what watchers are told when history moves in unusual ways."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from services.registry.adapters.memory_store import MemoryBell, MemoryStore
from services.registry.domain.events import EpochStarted, SettingsChanged
from services.registry.domain.model import Settings
from services.registry.ports import Head, Proposal
from services.registry.usecases import feed as feed_module
from services.registry.usecases.feed import Feed, Place
from services.registry.usecases.writer import Decision, Intent, Writer

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Noon:
    """A clock that stands."""

    def now(self) -> datetime.datetime:
        return NOON


class History:
    """A store with a bell, a feed that follows it, and changes to make."""

    def __init__(self) -> None:
        self.bell = MemoryBell()
        self.store = MemoryStore(bell=self.bell)
        self.told: list[Exception] = []
        self.feed = Feed(self.store, self.bell, self.told.append)
        self.writer = Writer(self.store, Noon(), random.Random(1))
        self._number = 0

    async def change(self, subject: str = "orders", count: int = 1) -> None:
        """Makes changes."""
        for _ in range(count):
            self._number += 1
            level = "FULL" if self._number % 2 else "NONE"

            async def decide(*_: object, level: str = level) -> Decision:
                return Decision(SettingsChanged(subject, Settings(level)))

            await self.writer.run(Intent(subject, "someone"), decide)

    async def start_epoch(self) -> None:
        """Begins epoch 2, as a restore does."""
        head = await self.store.head()
        event = EpochStarted(2, head.epoch, head.position)
        await self.store.commit(Proposal(event, head.epoch, 0, None, "restore", NOON))


@pytest_asyncio.fixture
async def history() -> AsyncIterator[History]:
    """A history whose feed is running."""
    made = History()
    following = asyncio.create_task(made.feed.run())
    yield made
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_a_slow_reader_misses_nothing(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the feed no longer keeps is read from the store, in order."""
    monkeypatch.setattr(feed_module, "KEPT_CHANGES_MAX", 5)
    start = await history.feed.now()
    await history.change(count=30)

    seen: list[int] = []
    async with asyncio.timeout(10):
        async for found in history.feed.watch(start, prefix="", limit=4):
            seen += [change.position for change in found.changes]
            if len(seen) == 20:
                await history.change(count=10)
            if len(seen) == 40:
                break

    assert seen == list(range(1, 41))


async def test_a_filter_moves_the_token_too(history: History) -> None:
    """A token counts what the filter left out, so that it does not grow old; settings of all subjects are told."""
    start = await history.feed.now()
    await history.change("other", 5)
    await history.change("", 1)
    await history.change("mine", 1)

    found, more = await history.feed.page(start.token, prefix="mine", limit=100)

    assert not more
    assert [change.event.subject for change in found.changes] == ["", "mine"]
    assert found.place == Place(1, 7)


async def test_a_watcher_hears_of_a_new_epoch(history: History) -> None:
    """Changes of another line of history are never mixed in: the watch ends and says resync."""
    await history.change()
    place = await history.feed.now()
    watch = history.feed.watch(place, prefix="", limit=10)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)

    await history.start_epoch()

    async with asyncio.timeout(10):
        with pytest.raises(errors.EpochChanged):
            await waiting


@pytest.mark.parametrize("seen_by_feed", [True, False])
async def test_a_watcher_that_is_busy_hears_of_a_new_epoch(*, seen_by_feed: bool) -> None:
    """Also one that was not waiting when it began, whether or not the feed has seen it yet."""
    history = History()
    await history.change(count=2)
    watch = history.feed.watch(Place(1, 0), prefix="", limit=2)
    first = await anext(watch)

    await history.start_epoch()
    await history.change()
    if seen_by_feed:
        await history.feed.refresh()

    assert first.place == Place(1, 2)
    with pytest.raises(errors.EpochChanged):
        await anext(watch)


async def test_the_history_before_an_epoch_is_read_on(history: History) -> None:
    """A reader that begins in the new epoch reads all of its line, page by page, the parent's part included."""
    await history.change(count=3)
    await history.start_epoch()
    await history.change(count=2)

    seen: list[tuple[int, int]] = []
    token, more = "", True
    while more:
        found, more = await history.feed.page(token, prefix="", limit=2)
        seen += [(change.epoch, change.position) for change in found.changes]
        token = found.place.token
    watched: list[int] = []
    async with asyncio.timeout(10):
        async for found in history.feed.watch(Place(2, 0), prefix="", limit=2):
            watched += [change.position for change in found.changes]
            if len(watched) == 6:
                break

    assert seen == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert watched == [1, 2, 3, 4, 5, 6]


async def test_a_watcher_that_fell_behind_what_is_kept_is_told(history: History) -> None:
    """POSITION_EXPIRED during a watch, not a gap."""
    place = await history.feed.now()
    await history.change(count=5)
    history.store.forget(3)
    fresh = Feed(history.store, history.bell, history.told.append)

    with pytest.raises(errors.PositionExpired):
        await fresh.slice(place, prefix="", limit=10)


async def test_nothing_happens_for_a_while(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty slice with a token is the heartbeat."""
    monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.01)
    place = await history.feed.now()

    async with asyncio.timeout(10):
        async for found in history.feed.watch(place, prefix="", limit=10):
            assert found.changes == ()
            assert found.place == place
            break


async def test_a_filtered_watch_has_heartbeats_too(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others write, its token moves on although it is told of no change."""
    monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(feed_module, "GATHER_SECONDS", 0)
    place = await history.feed.now()

    async def write() -> None:
        while True:
            await history.change("other")
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(10), aclosing(history.feed.watch(place, prefix="mine", limit=10)) as slices:
        found = await anext(slices)
    writing.cancel()

    assert not found.changes
    assert found.place.position > place.position


async def test_a_history_that_cannot_be_read_ends_watches_and_fails_the_check(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of a newer kind: nobody is left waiting for news that never come."""
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.05)
    await history.change()
    await history.feed.refresh()
    place = await history.feed.now()
    assert await history.feed.check() is None
    monkeypatch.setattr(feed_module, "STALE_SECONDS", 0.05)

    async def unreadable(**_: object) -> object:
        raise errors.Internal("payload version 2")

    monkeypatch.setattr(history.store, "changes", unreadable)
    await history.change()

    async with asyncio.timeout(10):
        with pytest.raises(errors.Internal, match="payload version 2"):
            async for _ in history.feed.watch(place, prefix="", limit=10):
                pass
        while await history.feed.check() is None:  # noqa: ASYNC110 - time has no event
            await asyncio.sleep(0.01)
    assert "payload version 2" in str(await history.feed.check())


async def test_watches_are_limited(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused; when one ends, another may begin."""
    monkeypatch.setattr(feed_module, "WATCHERS_MAX", 1)
    place = await history.feed.now()
    await history.change(count=2)
    await history.feed.refresh()

    async with aclosing(history.feed.watch(place, prefix="", limit=1)) as first:
        await anext(first)
        with pytest.raises(errors.Overloaded):
            await anext(history.feed.watch(place, prefix="", limit=1))
    async with aclosing(history.feed.watch(place, prefix="", limit=1)) as second:
        assert (await anext(second)).place.position == 1


async def test_without_watchers_only_purges_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else needs the changes; a purge is never missed, also behind many other changes."""
    monkeypatch.setattr(feed_module, "CHANGE_PAGE_SIZE_MAX", 2)
    history = History()
    heard: list[int] = []
    feed = Feed(
        history.store,
        history.bell,
        history.told.append,
        [lambda _, changes: heard.extend(each.position for each in changes)],
    )
    await feed.refresh()
    await history.change(count=5)
    await feed.refresh()
    assert (heard, feed.position) == ([], 5)

    await history.change(count=4)
    head = await history.store.head()
    monkeypatch.setattr(history.store, "head", lambda: _settled(replace(head, purge_position=9)))
    while await feed.refresh():
        pass

    assert heard == [6, 7, 8, 9]


async def _settled(head: Head) -> Head:
    return head


async def test_observers_hear_every_change_once() -> None:
    """In order, and of a new epoch without changes."""
    history = History()
    heard: list[tuple[int, list[int]]] = []
    feed = Feed(
        history.store,
        history.bell,
        history.told.append,
        [lambda head, changes: heard.append((head.epoch, [change.position for change in changes]))],
    )
    feed.watchers = 1

    await feed.refresh()
    await history.change(count=3)
    await feed.refresh()
    await feed.refresh()
    await history.start_epoch()
    await feed.refresh()

    assert heard == [(1, []), (1, [1, 2, 3]), (2, [])]


@pytest.mark.parametrize("by_hand", ["another database", "an older state"])
async def test_a_history_that_goes_back_begins_anew(monkeypatch: pytest.MonkeyPatch, by_hand: str) -> None:
    """Observers hear of it, nothing that was kept is shown, and what follows is."""
    history = History()
    heard: list[tuple[int, int]] = []
    feed = Feed(
        history.store,
        history.bell,
        history.told.append,
        [lambda head, changes: heard.append((head.position, len(changes)))],
    )
    feed.watchers = 1
    await feed.refresh()
    await history.change(count=3)
    await feed.refresh()

    watch = asyncio.create_task(anext(feed.watch(Place(1, 3), prefix="", limit=10)))
    await asyncio.sleep(0)

    older = History()
    head_of = older.store.head
    await older.change()
    if by_hand == "an older state":
        head = replace(await history.store.head(), position=1)
        monkeypatch.setattr(older.store, "head", lambda: _settled(head))
    monkeypatch.setattr(feed, "_store", older.store)
    await feed.refresh()
    assert heard == [(0, 0), (3, 3), (1, 0)]
    assert feed.position == 1
    assert (await feed.slice(Place(1, 0), prefix="", limit=10)).changes[0].position == 1
    monkeypatch.setattr(older.store, "head", head_of)
    await older.change(count=5)
    await feed.refresh()
    with pytest.raises(errors.PositionUnknown, match="put back"):
        await watch


async def test_the_feed_outlives_a_store_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again until the store answers, whatever that fails with; what nobody expects is told once."""
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.01)
    history = History()
    unexpected = ValueError("no word of ours")
    answers = iter([errors.DatabaseUnavailable("gone"), errors.DatabaseUnavailable("gone"), unexpected, unexpected])
    real = history.store.head

    async def head() -> object:
        failure = next(answers, None)
        if failure is not None:
            raise failure
        return await real()

    monkeypatch.setattr(history.store, "head", head)
    following = asyncio.create_task(history.feed.run())
    await history.change(count=2)

    async with asyncio.timeout(10):
        while history.feed.position != 2:  # noqa: ASYNC110 - the feed has no other event
            await asyncio.sleep(0.01)
    following.cancel()
    assert history.told == [unexpected]


async def test_a_defect_fails_the_check_and_ends_no_watch(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watchers wait for the store, balancers are told, and both go on when it is read again."""
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "STALE_SECONDS", 0.05)
    monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.05)
    await history.change()
    await history.feed.refresh()
    place, real = await history.feed.now(), history.store.head

    async def head() -> Head:
        raise ValueError("no word of ours")

    async with asyncio.timeout(10), aclosing(history.feed.watch(place, prefix="", limit=10)) as slices:
        monkeypatch.setattr(history.store, "head", head)
        await history.change()
        while await history.feed.check() is None:
            assert (await anext(slices)).changes == ()
        assert "unexpectedly" in str(await history.feed.check())
        monkeypatch.setattr(history.store, "head", real)
        while not (found := await anext(slices)).changes:
            pass
        while await history.feed.check() is not None:  # noqa: ASYNC110 - time has no event
            await asyncio.sleep(0.01)

    assert [change.position for change in found.changes] == [2]
    assert len(history.told) == 1


async def test_a_place_of_an_epoch_that_is_not_seen_yet() -> None:
    """Another replica gave it out. The watch waits for its changes, and is not told to read everything again."""
    history = History()
    await history.change(count=3)
    await history.feed.refresh()
    await history.start_epoch()
    place = await history.feed.now()

    async with asyncio.timeout(10), aclosing(history.feed.watch(place, prefix="", limit=10)) as slices:
        waiting = asyncio.ensure_future(anext(slices))
        await asyncio.sleep(0.05)
        assert (history.feed.epoch, waiting.done()) == (1, False)
        await history.change()
        await history.feed.refresh()
        found = await waiting

    assert [(change.epoch, change.position) for change in found.changes] == [(2, place.position + 1)]


async def test_a_place_that_the_database_was_put_back_behind(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """By other means than ours, to an earlier epoch: the watch ends, and is told nothing of the other line."""
    monkeypatch.setattr(feed_module, "HEARTBEAT_SECONDS", 0.01)
    await history.change(count=3)
    await history.feed.refresh()
    watch = history.feed.watch(Place(2, 2), prefix="", limit=10)

    async with asyncio.timeout(10):
        with pytest.raises(errors.EpochChanged):
            await anext(watch)


@pytest.mark.parametrize("token", ["", "x", "MQ", "MS4x", "MS4xLjE=x", "Mi4xLjE"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    """Only what was given out is read."""
    with pytest.raises(errors.InvalidField):
        Place.of(token)


def test_a_token_holds_its_place() -> None:
    """There and back."""
    assert Place.of(Place(7, 2**40).token) == Place(7, 2**40)
