"""Decide on a basis, commit under it, and decide again when someone was faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry.errors import Conflict, Overloaded, RequestIdReused
from services.registry.domain.events import Change, Event, RequestKey
from services.registry.ports import Basis, Clock, Proposal, Stale, Store

ATTEMPTS_MAX = 20
WRITERS_MAX = 1000
"""Calls in one process that write one subject, or wait for those that do."""
BACKOFF_SECONDS = 0.005
BACKOFF_SECONDS_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Decision:
    """An event to commit. uses_global: the decision stands on the global settings too."""

    event: Event
    words: tuple[str, ...] = ()
    uses_global: bool = False


Decide = Callable[[Basis, datetime], Awaitable[Decision | None]]
"""Decides on a basis, at a moment; None when there is nothing to write. Called again when the basis has moved."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Who wants to change which subject (empty: the global settings), and under which request id.

    identity: a content that the decision asks the basis for.
    """

    subject: str
    actor: str
    request: RequestKey | None = None
    identity: bytes | None = None


class Writer:
    """Commits decisions. Writers of one subject in one process wait for each other here instead of failing there.

    observers: told of every change that this process commits, before its caller is answered. Must not raise.
    """

    def __init__(
        self, store: Store, clock: Clock, jitter: random.Random, observers: Sequence[Callable[[Change], None]] = ()
    ) -> None:
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._observers = observers
        self._queues: dict[str, _Queue] = {}

    async def run(self, intent: Intent, decide: Decide) -> Change | None:
        """The change that was committed; None when the decision was to write nothing.

        With a request id that is recorded already it is the change that was committed then, and nothing is decided.
        Raises RequestIdReused when it was recorded for another request, Overloaded when WRITERS_MAX calls write the
        subject already, Conflict when other processes were faster ATTEMPTS_MAX times, and what `decide` and
        Store.commit raise.
        """
        async with self._alone(intent.subject):
            for attempt in range(ATTEMPTS_MAX):
                earlier = await self._earlier(intent)
                if earlier is not None:
                    return earlier
                basis = await self._store.basis(intent.subject, intent.identity)
                now = self._clock.now()
                decision = await decide(basis, now)
                if decision is None:
                    return None
                try:
                    change = await self._store.commit(_proposal(intent, basis, decision, now))
                except Stale:
                    pause = min(BACKOFF_SECONDS * 2**attempt, BACKOFF_SECONDS_MAX)
                    await asyncio.sleep(pause * self._jitter.random())
                    continue
                for observe in self._observers:
                    observe(change)
                return change
        raise Conflict(
            f"subject {intent.subject!r} was changed by others during {ATTEMPTS_MAX} attempts: repeat the call",
            metadata={"subject": intent.subject, "attempts": ATTEMPTS_MAX},
            retry_seconds=1,
        )

    async def _earlier(self, intent: Intent) -> Change | None:
        """The change that a repeated request committed the first time."""
        request = intent.request
        if request is None:
            return None
        recorded = await self._store.recorded(intent.actor, request.method, request.id)
        if recorded is None:
            return None
        if recorded.request != request:
            raise RequestIdReused(
                "request_id was used before with another request: make a new one for every new request",
                metadata={"request_id": request.id},
            )
        return recorded

    @asynccontextmanager
    async def _alone(self, subject: str) -> AsyncIterator[None]:
        """Holds the subject's queue; the queue exists only while someone is in it. Raises Overloaded."""
        queue = self._queues.setdefault(subject, _Queue())
        if queue.waiting >= WRITERS_MAX:
            raise Overloaded(
                f"{queue.waiting} calls wait already to write subject {subject!r}: repeat later",
                metadata={"subject": subject, "maximum": WRITERS_MAX},
                retry_seconds=1,
            )
        queue.waiting += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.waiting -= 1
            if queue.waiting == 0:
                del self._queues[subject]


class _Queue:
    """Those who write one subject: one at a time."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def _proposal(intent: Intent, basis: Basis, decision: Decision, now: datetime) -> Proposal:
    return Proposal(
        event=decision.event,
        epoch=basis.epoch,
        revision=basis.revision,
        global_revision=basis.global_revision if decision.uses_global else None,
        actor=intent.actor,
        time=now,
        words=decision.words,
        request=intent.request,
    )
