"""Leases in the object store: one process of many holds an office, also when there is no database to ask.

A lease is an object {owner, generation, expires}. Whoever takes an office over makes the generation larger, with a
conditional write, so exactly one of many succeeds. What is committed under a lease asks `require` first: a process that
was paused, and wakes up after another took over, learns it there and commits nothing. Expiry is judged by the store's
clock alone. Pattern: Litestream's leases in S3 (docs of 2026).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectChanged, ObjectExists, ObjectNotFound, ObjectStore
from services.backup.domain import layout
from services.backup.ports import Clock

LEASE_SECONDS = 30.0
RENEW_SECONDS = 8.0
SELF_FENCE_SECONDS = 20.0
"""Without a renewal for so long the holder stops by itself, well before anybody else may take the office."""
TAKE_ATTEMPTS_MAX = 5
ASK_SECONDS = 0.5
"""Between two tries of one who waits for an office."""
PATIENCE_SECONDS = 60.0
"""How long an operation waits for one that goes before it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease document: who holds the office, in which generation, until when by the store's clock."""

    owner: str
    generation: int
    expires: datetime

    def encode(self) -> bytes:
        document = {"expires": self.expires.isoformat(), "generation": self.generation, "owner": self.owner}
        return json.dumps(document, sort_keys=True).encode()


class Lease:
    """An office that this process holds, as far as it knows. Made by `Leases.held`."""

    def __init__(self, store: ObjectStore, clock: Clock, key: str, held: Held, etag: str) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._held = held
        self._etag = etag
        self._renewed = clock.monotonic()
        self._lost = False
        self._turn = asyncio.Lock()

    @property
    def generation(self) -> int:
        return self._held.generation

    async def require(self) -> None:
        """Returns when the office is still this process's, by the store's own word. Raises errors.LeaseLost."""
        if self._lost:
            raise _lost()
        # A renewal is a conditional write on the very object: it succeeds only while nobody took over.
        await self.renew()

    async def renew(self) -> None:
        """Holds the office for another LEASE_SECONDS. Raises errors.LeaseLost once another process has it."""
        async with self._turn:
            now = await self._store.now()
            if now >= self._held.expires:
                # Nobody may have taken it yet, but whoever does would find us at work.
                self._lost = True
                raise _lost()
            began = self._clock.monotonic()
            renewed = Held(self._held.owner, self._held.generation, now + timedelta(seconds=LEASE_SECONDS))
            try:
                stored = await self._store.put(self._key, renewed.encode(), if_match=self._etag)
            except (ObjectChanged, ObjectNotFound):
                self._lost = True
                raise _lost() from None
            self._held, self._etag, self._renewed = renewed, stored.etag, began

    async def keep(self) -> None:
        """Renews until it is lost. Returns then."""
        while not self._lost:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self.renew()
            except (errors.ObjectStoreUnavailable, TimeoutError):
                self._lost = self._clock.monotonic() - self._renewed > SELF_FENCE_SECONDS
            except errors.Error:
                self._lost = True

    async def release(self) -> None:
        """Gives the office back, so that another process need not wait for the expiry."""
        if self._lost:
            return
        async with self._turn:
            now = await self._store.now()
            freed = Held("", self._held.generation, now - timedelta(seconds=1))
            await self._store.put(self._key, freed.encode(), if_match=self._etag)


class Leases:
    """The offices of one repository."""

    def __init__(self, store: ObjectStore, clock: Clock, owner: str) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner

    @asynccontextmanager
    async def held(self, office: str, *, patience_seconds: float = 0) -> AsyncIterator[Lease]:
        """The office, for the block. Raises errors.OperationRunning, naming the holder, while another has it.

        patience_seconds: how long to wait for it before that. Losing it cancels the block, which ends with
        errors.LeaseLost then.
        """
        lease = await self._wait_for(office, patience_seconds)
        block = asyncio.current_task()
        assert block is not None, "a lease is held by a task"
        ended = False

        async def watch() -> None:
            await lease.keep()
            if not ended:
                block.cancel()

        watching = asyncio.create_task(watch(), name=f"lease of {office}")
        try:
            yield lease
        except asyncio.CancelledError:
            if watching.done() and block.uncancel() == 0:
                raise _lost() from None
            raise
        finally:
            ended = True
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await lease.release()
            except (errors.Error, ObjectChanged, ObjectNotFound, TimeoutError):
                pass  # It expires by itself.

    async def holder(self, office: str) -> Held | None:
        """Who holds an office now; None when nobody does."""
        try:
            content, _ = await self._store.get(layout.lease(office))
        except ObjectNotFound:
            return None
        held = _decode(content)
        return held if held.expires > await self._store.now() else None

    async def _wait_for(self, office: str, patience_seconds: float) -> Lease:
        ends = self._clock.monotonic() + patience_seconds
        while True:
            try:
                return await self._take(office)
            except errors.OperationRunning:
                if self._clock.monotonic() >= ends:
                    raise
            await asyncio.sleep(ASK_SECONDS)

    async def _take(self, office: str) -> Lease:
        key = layout.lease(office)
        for _ in range(TAKE_ATTEMPTS_MAX):
            now = await self._store.now()
            expires = now + timedelta(seconds=LEASE_SECONDS)
            try:
                content, stored = await self._store.get(key)
            except ObjectNotFound:
                held = Held(self._owner, 1, expires)
                try:
                    stored = await self._store.put(key, held.encode(), if_absent=True)
                except ObjectExists:
                    continue
                return Lease(self._store, self._clock, key, held, stored.etag)
            known = _decode(content)
            if known.expires > now:
                raise errors.OperationRunning(
                    f"Process {known.owner} holds the office `{office}` until {known.expires:%H:%M:%S} UTC: wait for"
                    " the operation that runs there, or for that moment if the process is gone.",
                    metadata={"office": office, "owner": known.owner, "until": known.expires.isoformat()},
                    retry_seconds=(known.expires - now).total_seconds(),
                )
            held = Held(self._owner, known.generation + 1, expires)
            try:
                stored = await self._store.put(key, held.encode(), if_match=stored.etag)
            except ObjectChanged:
                continue
            return Lease(self._store, self._clock, key, held, stored.etag)
        raise errors.OperationRunning(
            f"Other processes took the office `{office}` during {TAKE_ATTEMPTS_MAX} attempts: repeat.",
            metadata={"office": office},
            retry_seconds=1,
        )


def _decode(content: bytes) -> Held:
    """The document. Raises BackupDamaged when it cannot be read: a generation must never fall."""
    try:
        document: Mapping[str, Any] = json.loads(content)
        return Held(
            str(document["owner"]), int(document["generation"]), datetime.fromisoformat(str(document["expires"]))
        )
    except (ValueError, KeyError, TypeError):
        raise errors.BackupDamaged(
            "A lease in the object store cannot be read: delete the object under `leases/` once no process works."
        ) from None


def _lost() -> errors.LeaseLost:
    return errors.LeaseLost("Another process took over, or may have: nothing was committed. Repeat.", retry_seconds=1)
