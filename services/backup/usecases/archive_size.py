"""How large the archive is, without listing all of it each time it is asked.

What was counted once is not listed again: keys have a fixed width, so what is new lies behind the newest known one.
What retention deleted since is still counted, until all is counted anew, some of it at each question.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations.ports import Clock
from services.backup.domain import layout

RECOUNT_SECONDS = 3600.0
"""Time between two counts of everything."""
RECOUNT_AT_ONCE = 10_000
"""Segments that are counted anew at one question: ten pages of a listing."""


@dataclass(slots=True)
class _Count:
    """What was counted so far. newest: of each epoch, the key of its newest segment among that."""

    segments: int = 0
    stored_bytes: int = 0
    newest: dict[int, str] = field(default_factory=dict)


class ArchiveSize:
    """Counts the segments of one store. Remembers a key an epoch, however many segments there are."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turn = asyncio.Lock()
        self._counted: _Count | None = None
        self._counting = _Count()
        self._recount_next = 0.0

    async def read(self) -> tuple[int, int]:
        """How many segments there are, and their bytes as stored; exact when nothing was deleted lately.

        The first question counts everything. One that is cut off has counted as far as it came: a repeat goes on.
        """
        async with self._turn:
            if self._counted is None:
                await self._count(self._counting, None)
                self._take_over()
            else:
                await self._count_new(self._counted)
                over = self._clock.monotonic() >= self._recount_next
                if over and await self._count(self._counting, RECOUNT_AT_ONCE):
                    self._take_over()
            assert self._counted is not None
            return self._counted.segments, self._counted.stored_bytes

    def _take_over(self) -> None:
        self._counted, self._counting = self._counting, _Count()
        self._recount_next = self._clock.monotonic() + RECOUNT_SECONDS

    async def _count_new(self, count: _Count) -> None:
        """Counts what came since: behind the newest segment of all, and of each line before that one's."""
        for epoch in sorted(count.newest)[:-1]:
            await self._count_below(layout.epoch(epoch), count.newest[epoch], count, None)
        await self._count(count, None)

    async def _count(self, count: _Count, limit: int | None) -> bool:
        """Counts on, so many at most; whether that was all."""
        # Epochs sort as their keys do.
        newest = count.newest[max(count.newest)] if count.newest else ""
        return await self._count_below(layout.ARCHIVE, newest, count, limit)

    async def _count_below(self, prefix: str, after: str, count: _Count, limit: int | None) -> bool:
        seen = 0
        async for each in self._store.list(prefix, after=after):
            segment = layout.segment_of(each.key)
            if segment is None:
                continue
            if seen == limit:
                return False
            seen += 1
            count.segments += 1
            count.stored_bytes += each.size_bytes
            count.newest[segment.epoch] = each.key
        return True
