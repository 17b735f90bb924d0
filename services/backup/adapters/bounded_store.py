"""An object store that gives up a little before the call does that waits for it.

So a caller learns that the store is away, and when to repeat, and not only that its time is over. Work that no call
waits for has the store's own, longer patience: operations, chores, the archive.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import datetime
from typing import TypeVar, cast

from llm_schema_registry import errors
from llm_schema_registry.kernel.calls import remaining_seconds
from llm_schema_registry.objects.store import Capabilities, Listed, Lock, ObjectStore, Placement, Stored, Upload

KEPT_SECONDS_MAX = 0.5
KEPT_SHARE = 0.2
"""Of the time that is left to a call, this much is kept for giving leases back and for the answer."""
RETRY_SECONDS = 5.0
"""After which a caller is told to repeat."""

_Result = TypeVar("_Result")


class BoundedStore:
    """An ObjectStore on another one. Every method raises errors.ObjectStoreUnavailable when the call's time ends.

    What it cut off may have taken effect, as after any answer that is lost. Uploads are not bound: no call waits for
    one. A call that is over already is not bound either: what it undoes must be able to end.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

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
        return await _bounded(
            self._store.put(key, content, if_absent=if_absent, if_match=if_match, placement=placement)
        )

    def upload(
        self, key: str, *, placement: Placement | None = None, if_absent: bool = True
    ) -> AbstractAsyncContextManager[Upload]:
        """See ObjectStore."""
        return self._store.upload(key, placement=placement, if_absent=if_absent)

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """See ObjectStore."""
        return await _bounded(self._store.get(key))

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ObjectStore."""
        return _each_bounded(self._store.read(key, start=start, length=length))

    async def head(self, key: str) -> Stored | None:
        """See ObjectStore."""
        return await _bounded(self._store.head(key))

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore."""
        return _each_bounded(self._store.list(prefix, after=after))

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        await _bounded(self._store.delete(key))

    async def extend_lock(self, key: str, lock: Lock) -> None:
        """See ObjectStore."""
        await _bounded(self._store.extend_lock(key, lock))

    async def sweep(self, prefix: str, before: datetime) -> int:
        """See ObjectStore."""
        return await _bounded(self._store.sweep(prefix, before))

    async def now(self) -> datetime:
        """See ObjectStore."""
        return await _bounded(self._store.now())

    async def probe(self) -> Capabilities:
        """See ObjectStore."""
        return await _bounded(self._store.probe())

    async def check(self) -> None:
        """See ObjectStore."""
        await _bounded(self._store.check())


async def _bounded(work: Awaitable[_Result]) -> _Result:
    """The result of a request, if it comes in time."""
    left = remaining_seconds(math.inf)
    if left in {0.0, math.inf}:
        return await work
    limit = asyncio.timeout(left - min(KEPT_SECONDS_MAX, KEPT_SHARE * left))
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise errors.ObjectStoreUnavailable(
            "The object store did not answer within the call's deadline: repeat, or allow more time.",
            retry_seconds=RETRY_SECONDS,
        ) from None


async def _each_bounded(items: AsyncIterator[_Result]) -> AsyncGenerator[_Result, None]:
    """The items, each of them if it comes in time."""
    async with aclosing(cast("AsyncGenerator[_Result, None]", items)) as opened:
        while True:
            try:
                item = await _bounded(anext(opened))
            except StopAsyncIteration:
                return
            yield item
