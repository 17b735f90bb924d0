"""The history of use, kept in the object store: one small object a day, so that it outlives the database."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    ObjectChanged,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
)
from services.admin.domain.capacity import FINE_DAYS, KEEP_DAYS, ROWS_MAX, Sample, coarse, from_document, to_document

FOLDER = "capacity/"
READ_AT_ONCE = 16
_KEY = re.compile(rf"{FOLDER}(\d{{4}}-\d{{2}}-\d{{2}})\.json", re.ASCII)


class History:
    """Samples by day. Replicas may add at the same time: what one added within the interval, the others do not."""

    def __init__(self, store: ObjectStore, interval_seconds: float) -> None:
        self._store = store
        self._interval = timedelta(seconds=interval_seconds)

    async def is_due(self, now: datetime) -> bool:
        """Whether nobody took a sample within the interval. A little less counts as one: clocks differ."""
        rows, _ = await self._read(_key(now.date()))
        return not rows or now - rows[-1].time >= 0.9 * self._interval

    async def add(self, sample: Sample) -> bool:
        """Adds a sample, unless another process added one meanwhile; whether it did. Raises as the store does."""
        key = _key(sample.time.date())
        rows, etag = await self._read(key)
        if (rows and sample.time - rows[-1].time < 0.9 * self._interval) or len(rows) >= ROWS_MAX:
            return False
        content = _encode([*rows, sample])
        try:
            if etag is None:
                await self._store.put(key, content, if_absent=True)
            else:
                await self._store.put(key, content, if_match=etag)
        except (ObjectExists, ObjectChanged, ObjectNotFound):
            return False
        return True

    async def since(self, start: datetime) -> tuple[Sequence[Sample], Sequence[str]]:
        """The samples from a moment on, oldest first; and what could not be read, in words."""
        days = [day for day in await self._days() if day >= start.date()][-KEEP_DAYS - 1 :]
        limit = asyncio.Semaphore(READ_AT_ONCE)

        async def read(day: date) -> Sequence[Sample] | str:
            async with limit:
                try:
                    return (await self._read(_key(day)))[0]
                except errors.BackupDamaged as damaged:
                    return damaged.message

        found = await asyncio.gather(*(read(day) for day in days))
        samples = [each for rows in found if not isinstance(rows, str) for each in rows if each.time >= start]
        return samples, [each for each in found if isinstance(each, str)]

    async def tidy(self, now: datetime) -> None:
        """Keeps one sample an hour of the days before FINE_DAYS, and none of those before KEEP_DAYS."""
        today = now.date()
        for day in await self._days():
            if day < today - timedelta(days=KEEP_DAYS):
                await self._store.delete(_key(day))
            elif today - timedelta(days=2 * FINE_DAYS) <= day < today - timedelta(days=FINE_DAYS):
                await self._coarsen(_key(day))

    async def _coarsen(self, key: str) -> None:
        try:
            rows, etag = await self._read(key)
            fewer = coarse(rows)
            if etag is not None and len(fewer) < len(rows):
                await self._store.put(key, _encode(fewer), if_match=etag)
        except (errors.BackupDamaged, ObjectChanged, ObjectNotFound):
            return

    async def _days(self) -> Sequence[date]:
        keys = [_KEY.fullmatch(each.key) async for each in self._store.list(FOLDER)]
        return sorted(date.fromisoformat(found[1]) for found in keys if found)

    async def _read(self, key: str) -> tuple[list[Sample], str | None]:
        """The samples and the object's etag; None when there is none. Raises errors.BackupDamaged."""
        try:
            content, stored = await self._store.get(key)
            return from_document(json.loads(content)), stored.etag
        except ObjectNotFound:
            return [], None
        except (ObjectDamaged, ObjectTooLarge, ValueError, KeyError, TypeError):
            raise errors.BackupDamaged(
                f"{key}, a day of the history of use, cannot be read: delete it", metadata={"key": key}
            ) from None


def _key(day: date) -> str:
    return f"{FOLDER}{day.isoformat()}.json"


def _encode(samples: Sequence[Sample]) -> bytes:
    return json.dumps(to_document(samples), separators=(",", ":")).encode()
