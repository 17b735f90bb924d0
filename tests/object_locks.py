"""An object store that can lock, over one that cannot: as a bucket with object lock, without what only a bucket has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from llm_schema_registry.objects.store import Lock, ObjectLocked, ObjectStore, Placement, Stored, Upload
from tests.object_faults import FaultyStore, Plan


class LockingStore(FaultyStore):
    """An ObjectStore whose locks hold. placements: how each object was to be kept, as it was written last."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner, Plan())
        self.placements: dict[str, Placement] = {}

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        placement: Placement | None = None,
    ) -> Stored:
        """See ObjectStore."""
        stored = await super().put(key, content, if_absent=if_absent, if_match=if_match)
        self.placements[key] = placement or Placement()
        return stored

    @asynccontextmanager
    async def upload(
        self, key: str, *, placement: Placement | None = None, if_absent: bool = True
    ) -> AsyncIterator[Upload]:
        """See ObjectStore."""
        async with super().upload(key, if_absent=if_absent) as upload:
            yield upload
        self.placements[key] = placement or Placement()

    async def head(self, key: str) -> Stored | None:
        """See ObjectStore."""
        stored = await super().head(key)
        return replace(stored, lock=self._lock(key)) if stored is not None else None

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        lock = self._lock(key)
        if lock is not None and lock.until > await self.now():
            raise ObjectLocked(f"{key} is locked")
        await super().delete(key)

    async def extend_lock(self, key: str, lock: Lock) -> None:
        """See ObjectStore."""
        self.placements[key] = replace(self.placements[key], lock=lock)

    def _lock(self, key: str) -> Lock | None:
        return self.placements.get(key, Placement()).lock
