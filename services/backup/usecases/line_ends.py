"""Where the lines of the archive end, found without listing all of it.

Keys have a fixed width, so a listing can begin anywhere: lines are found by leaps from one epoch to the next, and the
end of one by steps that double, and halving what is left then: twenty pages for a million segments. A folder reads all
of its names for each page; what was seen once, or a heartbeat told, is where the next search begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from llm_schema_registry.objects.store import ObjectStore
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey

PAGE = 1000
"""Segments that are looked at of one listing: a page of S3's."""
NEWEST_MAX = 8
"""Segments of a line that are told of, from its end."""


class LineEnds:
    """Finds the newest segments. It remembers a position an epoch, as where to begin to look: what counts is what is
    there. Methods raise errors.ObjectStoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._seen: dict[int, int] = {}

    async def epochs(self) -> list[int]:
        """The epochs that have segments, in order. A page is listed for each."""
        found: list[int] = []
        after = ""
        while (first := await self._first(after)) is not None:
            found.append(first.epoch)
            after = layout.behind_epoch(first.epoch)
        return found

    async def newest(self, epoch: int, start: int = 0) -> SegmentKey | None:
        """The newest segment of a line; None for none. start: a position at which one was once seen to begin."""
        seen = max(self._seen.get(epoch, 0), start)
        page = await self._page(epoch, seen)
        if not page and seen:
            page = await self._page(epoch, 0)
        if not page:
            return None
        newest = page[-1] if len(page) < PAGE else await self._beyond(epoch, page)
        self._seen[epoch] = newest.first
        return newest

    async def backwards(self, epoch: int, start: int = 0) -> AsyncGenerator[SegmentKey, None]:
        """The newest segments of a line, newest first, NEWEST_MAX at most. Those before the first are looked up when
        they are asked for. start: as for `newest`."""
        newest = await self.newest(epoch, start)
        if newest is None:
            return
        yield newest
        for key in await self._before(newest):
            yield key

    async def _beyond(self, epoch: int, page: list[SegmentKey]) -> SegmentKey:
        """The newest segment of a line that goes on behind a whole page."""
        newest, step = page[-1], max(1, page[-1].first - page[0].first)
        high: int | None = None
        while high is None or high - newest.first > 1:
            middle = min(newest.first + step, layout.POSITION_MAX) if high is None else (newest.first + high) // 2
            page = await self._page(epoch, middle)
            if not page:
                high = middle
                continue
            newest, step = page[-1], 2 * step
            if len(page) < PAGE:
                break
        return newest

    async def _before(self, newest: SegmentKey) -> list[SegmentKey]:
        """The segments that begin before one, newest first, NEWEST_MAX - 1 at most."""
        width = NEWEST_MAX
        while True:
            start = max(0, newest.first - width)
            keys = deque[SegmentKey](maxlen=NEWEST_MAX - 1)
            async with aclosing(self._from(newest.epoch, start)) as listed:
                async for key in listed:
                    if key.first >= newest.first:
                        break
                    keys.append(key)
            if len(keys) == NEWEST_MAX - 1 or not start:
                return [*reversed(keys)]
            width *= NEWEST_MAX

    async def _first(self, after: str) -> SegmentKey | None:
        async with aclosing(self._listed(layout.ARCHIVE, after)) as listed:
            return await anext(listed, None)

    async def _page(self, epoch: int, start: int) -> list[SegmentKey]:
        """The first segments of a line that begin at a position or later, PAGE at most."""
        page: list[SegmentKey] = []
        async with aclosing(self._from(epoch, start)) as listed:
            async for key in listed:
                page.append(key)
                if len(page) == PAGE:
                    break
        return page

    def _from(self, epoch: int, start: int) -> AsyncGenerator[SegmentKey, None]:
        return self._listed(layout.epoch(epoch), layout.segments_from(epoch, start))

    async def _listed(self, prefix: str, after: str) -> AsyncGenerator[SegmentKey, None]:
        async for each in self._store.list(prefix, after=after):
            key = layout.segment_of(each.key)
            if key is not None:
                yield key
