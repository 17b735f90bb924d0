"""The changes of the registry as a stream: resumable, without gap and without duplicate.

One reader per process follows the store and keeps the newest changes; watchers read from what it keeps, and from the
store when they are behind. A watcher pulls, so nothing is ever buffered for it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_schema_registry.errors import (
    Code,
    DatabaseUnavailable,
    EpochChanged,
    Error,
    InvalidField,
    Overloaded,
    PositionExpired,
    PositionUnknown,
)
from services.registry.domain.events import Change, VersionRegistered
from services.registry.domain.limits import ANSWER_BYTES_MAX, CHANGE_PAGE_SIZE_MAX
from services.registry.ports import Bell, Head, Store

KEPT_CHANGES_MAX = 1024
KEPT_BYTES_MAX = 16 << 20
POLL_SECONDS = 1.0
GATHER_SECONDS = 0.05
"""Least time between two looks at the store: under load the changes of that time are read at once."""
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 10.0
WATCHERS_MAX = 1000
"""Watches open at once in one process. Each holds a stream and no buffer."""

_TOKEN = re.compile(r"1\.(\d{1,10})\.(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the history: after `position` in the line that `epoch` ends, which includes changes of its parents."""

    epoch: int
    position: int

    @property
    def token(self) -> str:
        """The place as an opaque token."""
        return base64.urlsafe_b64encode(f"1.{self.epoch}.{self.position}".encode()).decode().rstrip("=")

    @classmethod
    def of(cls, token: str) -> Place:
        """The place that a token holds. Raises InvalidField naming `resume_token`."""
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        except (ValueError, binascii.Error):
            text = ""
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise InvalidField.of("resume_token", "must be the resume_token of an earlier answer")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Slice:
    """Changes in order, and the place after them, which counts also what a filter left out."""

    changes: Sequence[Change]
    place: Place


Observer = Callable[[Head, Sequence[Change]], None]
"""Told of purges, in order and each once, among other changes or not; of a new epoch, or of a history that does not
continue the one before, with no changes. Must not raise.

While nobody watches, changes that purge nothing are not even read.
"""

Tell = Callable[[Exception], None]
"""Told of an error that nobody expected, with its traceback. Must not raise."""


class Feed:
    """Follows the store. `run` must be running for watchers to see new changes without delay.

    tell: told of an unexpected error once, until the store was read again.
    """

    def __init__(self, store: Store, bell: Bell, tell: Tell, observers: Sequence[Observer] = ()) -> None:
        self._store = store
        self._bell = bell
        self._tell = tell
        self._observers = observers
        self._kept: deque[Change] = deque()
        self._kept_bytes = 0
        self._head: Head | None = None
        self._moved = asyncio.Condition()
        self._failure: Error | None = None
        self._told = False
        self._refreshed: float | None = None
        self._put_back = 0
        self.watchers = 0

    @property
    def position(self) -> int:
        """The newest position that was seen here; 0 before the first look."""
        return self._head.position if self._head else 0

    @property
    def epoch(self) -> int:
        """The epoch of that position; 0 before the first look."""
        return self._head.epoch if self._head else 0

    async def run(self) -> None:
        """Follows the store until cancelled. One that fails, whatever the error, is asked again after POLL_SECONDS."""
        while True:
            try:
                more = await self.refresh()
            except Exception as error:  # noqa: BLE001 - a process that stopped to follow would never serve again
                more, self._failure = False, self._expected(error)
                await asyncio.sleep(POLL_SECONDS)
            else:
                self._failure, self._told = None, False
                self._refreshed = asyncio.get_running_loop().time()
            if not more:
                await asyncio.sleep(GATHER_SECONDS)
                await self._bell.wait(POLL_SECONDS)

    def _expected(self, error: Exception) -> Error:
        """The error as watchers may be told of it."""
        if isinstance(error, Error):
            return error
        if not self._told:
            self._told = True
            self._tell(error)
        return DatabaseUnavailable("reading them failed unexpectedly, see the log", retry_seconds=POLL_SECONDS)

    async def check(self) -> str | None:
        """What is wrong when the store has not been read for STALE_SECONDS: caches and watchers hear of nothing."""
        now = asyncio.get_running_loop().time()
        if self._refreshed is not None and now - self._refreshed < STALE_SECONDS:
            return None
        if self._refreshed is None and self._failure is None:
            return None
        why = self._failure.message if self._failure else "its task has ended"
        return f"changes are not followed: {why}"

    async def refresh(self) -> bool:
        """Reads what is new and wakes the watchers. Returns whether there is more to read at once."""
        head = await self._store.head()
        known = self._head
        if known is None or not head.continues(known):
            if known is not None and not head.restores(known):
                self._put_back += 1  # Before anybody sees what follows.
            self._kept.clear()
            self._kept_bytes = 0
            await self._publish(head, [])
            return False
        if head.position == known.position:
            return False
        if self.watchers == 0 and head.purge_position == known.purge_position:
            self._kept.clear()
            self._kept_bytes = 0
            await self._publish(head, [])
            return False
        changes = await self._store.changes(
            after=known.position, limit=CHANGE_PAGE_SIZE_MAX, text_bytes_max=ANSWER_BYTES_MAX
        )
        if not changes:
            return False
        if changes[-1].epoch > head.epoch:
            return True  # An epoch began in between: the next look begins with it.
        if changes[-1].position >= head.position:
            await self._publish(replace(head, position=changes[-1].position), changes)
            return False
        # The newest purge may be still to come: it counts as unknown until it is read.
        await self._publish(replace(head, position=changes[-1].position, purge_position=known.purge_position), changes)
        return True

    async def now(self) -> Place:
        """The place after the newest change of the store."""
        head = await self._store.head()
        return Place(head.epoch, head.position)

    async def start(self, token: str) -> Place:
        """The place a reader begins at: where its token says, or before the oldest change that is kept.

        Raises InvalidField, EpochChanged, PositionExpired, PositionUnknown.
        """
        return _begin(token, await self._store.head())

    async def page(self, token: str, *, prefix: str, limit: int) -> tuple[Slice, bool]:
        """The next changes after a token as the store has them now, and whether there are more.

        Raises as `start` does. See `slice` for the filter.
        """
        head = await self._store.head()
        found = await self._read(_begin(token, head), prefix, limit)
        return found, found.place.position < head.position

    async def slice(self, place: Place, *, prefix: str, limit: int) -> Slice:
        """The next changes after a place that this process has seen: at most `limit`, those of subjects that begin with
        `prefix`, and those of no subject.

        A slice may hold no change though more follow, when the filter left all of them out.
        """
        head = self._head
        if head is not None and head.epoch != place.epoch:
            # A place of a later epoch was given out by another replica, unless the database was put back by hand since.
            _require_reachable(place, head if head.epoch > place.epoch else await self._store.head())
        changes = self._after(place, limit)
        if changes is None:
            return await self._read(place, prefix, limit)
        return _filtered(changes, place, prefix)

    async def watch(self, place: Place, *, prefix: str, limit: int) -> AsyncGenerator[Slice, None]:
        """Slices from a place on, for ever; an empty one every HEARTBEAT_SECONDS while nothing happens.

        Raises EpochChanged when a new epoch begins, PositionExpired when the reader fell behind what is kept,
        Overloaded when WATCHERS_MAX watches are open.
        """
        if self.watchers >= WATCHERS_MAX:
            raise Overloaded(
                f"{self.watchers} watches are open on this process: watch on another replica, or share a watch",
                metadata={"maximum": WATCHERS_MAX},
                retry_seconds=HEARTBEAT_SECONDS,
            )
        self.watchers += 1
        try:
            async with aclosing(self._follow(place, prefix, limit)) as slices:
                async for found in slices:
                    yield found
        finally:
            self.watchers -= 1

    async def _follow(self, place: Place, prefix: str, limit: int) -> AsyncGenerator[Slice, None]:
        loop = asyncio.get_running_loop()
        told, put_back = loop.time(), self._put_back
        while True:
            found = await self.slice(place, prefix=prefix, limit=limit)
            if found.place == place:
                await self._wait_beyond(place, told + HEARTBEAT_SECONDS - loop.time())
                self._require_alive(place)
            if self._put_back != put_back:
                raise _put_back_at(place)
            place = found.place
            if found.changes or loop.time() - told >= HEARTBEAT_SECONDS:
                told = loop.time()
                yield found

    def _require_alive(self, place: Place) -> None:
        """Raises when the place belongs to an earlier epoch, or when the history cannot be read on by this process."""
        if self._head is not None and self._head.epoch > place.epoch:
            _require_reachable(place, self._head)
        if self._failure is not None and self._failure.code is not Code.UNAVAILABLE:
            raise self._failure

    async def _read(self, place: Place, prefix: str, limit: int) -> Slice:
        """The next changes after a place from the store. Raises when they are no longer kept, or of another line."""
        changes = await self._store.changes(after=place.position, limit=limit, text_bytes_max=ANSWER_BYTES_MAX)
        if changes and (changes[0].position != place.position + 1 or changes[-1].epoch > place.epoch):
            _require_reachable(place, await self._store.head())
            raise _expired(place)
        return _filtered(changes, place, prefix)

    async def _wait_beyond(self, place: Place, seconds: float) -> None:
        """Waits for a change after the place, for a new epoch, or a little longer than `seconds`.

        The place may be of an epoch that this process has not seen yet: another replica gave its token out.
        """

        def moved() -> bool:
            head = self._head
            return head is not None and (head.epoch, head.position) > (place.epoch, place.position)

        try:
            async with asyncio.timeout(max(0, seconds) + 0.001), self._moved:
                await self._moved.wait_for(moved)
        except TimeoutError:
            return

    async def _publish(self, head: Head, changes: Sequence[Change]) -> None:
        self._head = head
        for change in changes:
            self._kept.append(change)
            self._kept_bytes += _bytes(change)
        while len(self._kept) > KEPT_CHANGES_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= _bytes(self._kept.popleft())
        for observe in self._observers:
            observe(head, changes)
        async with self._moved:
            self._moved.notify_all()

    def _after(self, place: Place, limit: int) -> Sequence[Change] | None:
        """Kept changes after a place; None when it lies before all that is kept, or nothing is known yet."""
        head = self._head
        if head is None or head.epoch != place.epoch:
            return None
        if place.position >= head.position:
            return ()
        if not self._kept or self._kept[0].position > place.position + 1:
            return None
        first = place.position + 1 - self._kept[0].position
        found: list[Change] = []
        size = 0
        for index in range(first, min(first + limit, len(self._kept))):
            size += _bytes(self._kept[index])
            if found and size > ANSWER_BYTES_MAX:
                break
            found.append(self._kept[index])
        return found


def _begin(token: str, head: Head) -> Place:
    if not token:
        return Place(head.epoch, head.floor)
    place = Place.of(token)
    _require_reachable(place, head)
    return place


def _filtered(changes: Sequence[Change], place: Place, prefix: str) -> Slice:
    """What a filter leaves of changes that follow a place."""
    if not changes:
        return Slice((), place)
    wanted = [item for item in changes if item.event.subject.startswith(prefix) or not item.event.subject]
    return Slice(wanted, Place(place.epoch, changes[-1].position))


def _require_reachable(place: Place, head: Head) -> None:
    """Raises unless the changes after the place can still be told."""
    if place.epoch != head.epoch:
        raise EpochChanged(
            f"a restore began epoch {head.epoch}: read everything again, then watch from now",
            metadata={"epoch": head.epoch, "token_epoch": place.epoch},
        )
    if place.position > head.position:
        raise PositionUnknown(
            f"position {place.position} has not been reached: the newest is {head.position}",
            metadata={"position": place.position, "newest_position": head.position},
        )
    if place.position < head.floor:
        raise _expired(place)


def _put_back_at(place: Place) -> PositionUnknown:
    return PositionUnknown(
        "the database was put back to an earlier state, or another one took its name: read everything again, then watch"
        " from now",
        metadata={"position": place.position},
    )


def _expired(place: Place) -> PositionExpired:
    return PositionExpired(
        f"the changes after position {place.position} are no longer kept: read everything again, then watch from now",
        metadata={"position": place.position},
    )


def _bytes(change: Change) -> int:
    """About how large a change is."""
    text = len(change.event.schema.text) if isinstance(change.event, VersionRegistered) else 0
    return 512 + text
