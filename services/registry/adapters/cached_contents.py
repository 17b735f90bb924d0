"""Contents kept in the process: immutable, so only a purge or another history ever makes one wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cachetools import LRUCache

from services.registry.domain.events import Change, VersionsPurged
from services.registry.domain.model import Schema
from services.registry.ports import Contents, Head

CACHE_BYTES_MAX = 128 << 20
"""About 85,000 contents of 1 KiB: a Zipf(1.0) mix over 100,000 of them finds more than 95 % here."""
ENTRY_BYTES = 512
"""What an entry weighs beside its text."""


class CachedContents:
    """Contents behind an LRU cache, bounded in bytes."""

    def __init__(self, inner: Contents, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._inner = inner
        self._kept: LRUCache[int, Schema] = LRUCache(bytes_max, _weight)
        self._forgotten = 0
        self._head: Head | None = None
        self.hits = 0
        self.misses = 0

    @property
    def entries(self) -> int:
        """How many contents are kept."""
        return len(self._kept)

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Contents by id. See Contents."""
        found: dict[int, Schema] = {}
        missing: list[int] = []
        for schema_id in ids:
            kept = self._kept.get(schema_id)
            if kept is None:
                missing.append(schema_id)
            else:
                found[schema_id] = kept
        self.hits += len(found)
        if missing:
            self.misses += len(missing)
            found.update(await self._fetch(missing))
        return found

    def observe_commit(self, change: Change) -> None:
        """Forgets what this process itself purged, before the purge is answered."""
        self._forget([change])

    def observe(self, head: Head, changes: Sequence[Change]) -> None:
        """Forgets what any process purged; in a new epoch, or behind another history, everything."""
        if self._head is None or not head.continues(self._head):
            self._forgotten += 1
            self._kept.clear()
        self._head = head
        self._forget(changes)

    async def flush(self) -> int:
        """Forgets everything, and returns how much that was."""
        entries = len(self._kept)
        self._forgotten += 1
        self._kept.clear()
        return entries

    def _forget(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change.event, VersionsPurged):
                self._forgotten += 1
                for schema_id in change.event.schema_ids:
                    self._kept.pop(schema_id, None)

    async def _fetch(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Reads what is missing; keeps it only when nothing was forgotten meanwhile, for it may be what was purged."""
        forgotten = self._forgotten
        fetched = await self._inner.schemas(ids)
        if forgotten == self._forgotten:
            for schema_id, schema in fetched.items():
                if _weight(schema) <= self._kept.maxsize:
                    self._kept[schema_id] = schema
        return fetched


def _weight(schema: Schema) -> int:
    return ENTRY_BYTES + len(schema.text)
