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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    ObjectChanged,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    Stored,
)
from llm_schema_registry.operations import keys
from llm_schema_registry.operations.ports import Clock

TAKE_ATTEMPTS_MAX = 5
ASK_SECONDS = 0.5
"""Between two tries of one who waits for an office."""
PATIENCE_SECONDS = 60.0
"""How long an operation waits for one that goes before it."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts without a renewal, how often it is renewed, and when its holder gives up, in seconds.

    fence: without a renewal for so long the holder stops by itself, well before anybody else may take the office.
    """

    lease: float = 30.0
    renew: float = 8.0
    fence: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.renew < self.fence < self.lease:
            raise ValueError("a lease is renewed more often than its holder gives up, and that before it expires")


@dataclass(frozen=True, slots=True)
class Held:
    """A lease document: who holds the office, in which generation, until when by the store's clock.

    taken: tells the owner's takings apart. For the store a write of bytes that are there already is a repeat, so two
    that take a free office within a second would both have it.
    """

    owner: str
    generation: int
    expires: datetime
    taken: int = 0

    def encode(self) -> bytes:
        document = {
            "expires": self.expires.isoformat(),
            "generation": self.generation,
            "owner": self.owner,
            "taken": self.taken,
        }
        return json.dumps(document, sort_keys=True).encode()


class Lease:
    """An office that this process holds, as far as it knows. Made by `Leases.held`."""

    def __init__(self, place: _Place, held: Held, etag: str) -> None:
        self._place = place
        self._held = held
        self._etag = etag
        self._renewed = place.clock.monotonic()
        self._lost = False
        self._turn = asyncio.Lock()

    @property
    def generation(self) -> int:
        return self._held.generation

    async def require(self) -> None:
        """Returns when the office is still this process's, by the store's own word. Raises errors.LeaseLost."""
        # A renewal is a conditional write on the very object: it succeeds only while nobody took over.
        await self.renew()

    async def renew(self) -> None:
        """Holds the office for as long again. Raises errors.LeaseLost once another process has it, or may have."""
        async with self._turn:
            if self._lost:
                raise _lost()
            now, began = await self._place.store.now(), self._place.clock.monotonic()
            if now >= self._held.expires:
                # Nobody may have taken it yet, but whoever does would find us at work.
                self._lost = True
                raise _lost()
            expires = now + timedelta(seconds=self._place.times.lease)
            renewed = replace(self._held, expires=expires)
            self._etag = await self._written(renewed)
            self._held, self._renewed = renewed, began

    async def keep(self) -> None:
        """Renews until it is lost, or could not be renewed for too long. Returns then."""
        times = self._place.times
        while not self._lost and (left := self._left()) > 0:
            await asyncio.sleep(min(times.renew, left))
            with suppress(errors.ObjectStoreUnavailable, TimeoutError):
                try:
                    async with asyncio.timeout(self._left()):
                        await self.renew()
                except errors.ObjectStoreUnavailable:
                    raise  # It may answer again before the time is over.
                except errors.Error:
                    self._lost = True
        self._lost = True

    async def release(self) -> None:
        """Gives the office back, so that another process need not wait for the expiry."""
        async with self._turn:
            if self._lost:
                return
            self._lost = True
            # Long ago: free also when the store's clock goes back.
            freed = Held("", self._held.generation, datetime.fromtimestamp(0, UTC))
            await self._place.store.put(self._place.key, freed.encode(), if_match=self._etag)

    def _left(self) -> float:
        """Seconds until the holder gives up."""
        return self._place.times.fence - (self._place.clock.monotonic() - self._renewed)

    async def _written(self, renewed: Held) -> str:
        """The etag of the written document. Raises errors.LeaseLost when the office is another's."""
        try:
            return (await self._place.store.put(self._place.key, renewed.encode(), if_match=self._etag)).etag
        except (ObjectChanged, ObjectNotFound):
            pass
        # A renewal that was cut off may have been written all the same: no other process writes our name.
        found = await self._place.read()
        if found is not None and replace(found[0], expires=renewed.expires) == renewed:
            with suppress(ObjectChanged, ObjectNotFound):
                return (await self._place.store.put(self._place.key, renewed.encode(), if_match=found[1].etag)).etag
        self._lost = True
        raise _lost()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a lease is kept, and what it goes by."""

    store: ObjectStore
    clock: Clock
    times: LeaseTimes
    key: str

    def holds(self, known: Held, now: datetime) -> bool:
        """Whether a lease keeps others away. now: by the store's clock.

        One that lasts longer than any does was written before that clock went back: nobody waits for that time again.
        """
        return now < known.expires <= now + timedelta(seconds=2 * self.times.lease)

    async def read(self) -> tuple[Held, Stored] | None:
        """The document; None when there is none. Raises errors.BackupDamaged."""
        try:
            content, stored = await self.store.get(self.key)
        except ObjectNotFound:
            return None
        except (ObjectDamaged, ObjectTooLarge):
            raise _unreadable(self.key) from None
        return _decode(self.key, content), stored


class _Guard:
    """Cancels the block that works under a lease once the lease is lost, and takes that back when the block has ended.

    A block that ended well before it noticed has ended well: what it committed asked the lease first.
    """

    def __init__(self, lease: Lease, office: str) -> None:
        self._lease = lease
        self._office = office
        self._ended = False
        self._fired = False

    async def __aenter__(self) -> None:
        block = asyncio.current_task()
        assert block is not None, "a lease is held by a task"
        self._block = block
        self._cancelling = block.cancelling()
        self._watching = asyncio.create_task(self._watch(), name=f"lease of {self._office}")

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if not self._fired:
            self._watching.cancel()
            # A renewal that is on its way must not come after the release.
            await asyncio.wait({self._watching})
            return
        cancelled = isinstance(raised, asyncio.CancelledError)
        if not cancelled:
            # The cancellation may not have arrived yet: here it does no harm.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._block.uncancel() > self._cancelling:
            if not cancelled:
                raise asyncio.CancelledError  # Somebody else's, which came at the same moment.
        elif cancelled:
            raise _lost() from None

    async def _watch(self) -> None:
        await self._lease.keep()
        if not self._ended:
            self._fired = True
            self._block.cancel()


class Leases:
    """The offices of one repository."""

    def __init__(self, store: ObjectStore, clock: Clock, owner: str, times: LeaseTimes | None = None) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._times = times or LeaseTimes()
        self._takings = count(1)

    @asynccontextmanager
    async def held(
        self, office: str, *, patience_seconds: float = 0, times: LeaseTimes | None = None
    ) -> AsyncIterator[Lease]:
        """The office, for the block. Raises errors.OperationRunning, naming the holder, while another has it.

        patience_seconds: how long to wait for it before that. Losing it cancels the block, which ends with
        errors.LeaseLost then. times: other than the usual ones; the same for all who want the office.
        """
        times = times or self._times
        lease = await self._wait_for(self._place(office, times), office, patience_seconds)
        try:
            async with _Guard(lease, office):
                yield lease
        finally:
            # What cannot be given back expires by itself.
            with suppress(errors.Error, ObjectChanged, ObjectNotFound, TimeoutError):
                async with asyncio.timeout(times.renew):
                    await lease.release()

    async def holder(self, office: str, *, times: LeaseTimes | None = None) -> Held | None:
        """Who holds an office now; None when nobody does. times: as for `held`."""
        place = self._place(office, times or self._times)
        found = await place.read()
        return found[0] if found is not None and place.holds(found[0], await self._store.now()) else None

    def _place(self, office: str, times: LeaseTimes) -> _Place:
        return _Place(self._store, self._clock, times, keys.lease(office))

    async def _wait_for(self, place: _Place, office: str, patience_seconds: float) -> Lease:
        ends = self._clock.monotonic() + patience_seconds
        while True:
            try:
                return await self._take(place, office)
            except errors.OperationRunning:
                if self._clock.monotonic() >= ends:
                    raise
            await asyncio.sleep(ASK_SECONDS)

    async def _take(self, place: _Place, office: str) -> Lease:
        taken = next(self._takings)
        for _ in range(TAKE_ATTEMPTS_MAX):
            now = await self._store.now()
            expires = now + timedelta(seconds=place.times.lease)
            found = await place.read()
            try:
                if found is None:
                    held = Held(self._owner, 1, expires, taken)
                    stored = await self._store.put(place.key, held.encode(), if_absent=True)
                else:
                    known, there = found
                    if place.holds(known, now):
                        raise _taken(office, known, now)
                    held = Held(self._owner, known.generation + 1, expires, taken)
                    stored = await self._store.put(place.key, held.encode(), if_match=there.etag)
            except (ObjectExists, ObjectChanged, ObjectNotFound):
                continue
            return Lease(place, held, stored.etag)
        raise errors.OperationRunning(
            f"Other processes took the office `{office}` during {TAKE_ATTEMPTS_MAX} attempts: repeat.",
            metadata={"office": office},
            retry_seconds=1,
        )


def _decode(key: str, content: bytes) -> Held:
    """The document. Raises BackupDamaged when it cannot be read: a generation must never fall."""
    try:
        document: Mapping[str, Any] = json.loads(content)
        held = Held(
            str(document["owner"]),
            int(document["generation"]),
            datetime.fromisoformat(str(document["expires"])),
            int(document.get("taken", 0)),
        )
    except (ValueError, KeyError, TypeError):
        raise _unreadable(key) from None
    if held.expires.tzinfo is None:
        raise _unreadable(key)
    return held


def _unreadable(key: str) -> errors.BackupDamaged:
    return errors.BackupDamaged(
        f"The lease {key} in the object store cannot be read: delete that object once no process of this service"
        " works.",
        metadata={"key": key},
    )


def _taken(office: str, known: Held, now: datetime) -> errors.OperationRunning:
    return errors.OperationRunning(
        f"Process {known.owner} holds the office `{office}` until {known.expires:%H:%M:%S} UTC: wait for the operation"
        " that runs there, or for that moment if the process is gone.",
        metadata={"office": office, "owner": known.owner, "until": known.expires.isoformat()},
        retry_seconds=(known.expires - now).total_seconds(),
    )


def _lost() -> errors.LeaseLost:
    return errors.LeaseLost("Another process took over, or may have: nothing was committed. Repeat.", retry_seconds=1)
