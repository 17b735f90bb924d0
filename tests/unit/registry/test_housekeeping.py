"""Old request ids are forgotten, however many there are; young ones stay."""

from __future__ import annotations

import asyncio
import datetime
import random

import pytest

from llm_schema_registry import errors
from services.registry.adapters.memory_store import MemoryStore
from services.registry.domain.events import RequestKey, SettingsChanged
from services.registry.domain.model import Settings
from services.registry.ports import Proposal
from services.registry.usecases import housekeeping

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Later:
    """A clock that stands at a moment."""

    def __init__(self, now: datetime.datetime) -> None:
        self._now = now

    def now(self) -> datetime.datetime:
        return self._now


async def test_what_nobody_expects_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and the next time is tried like the first; an error of ours is not worth a word."""
    monkeypatch.setattr(housekeeping, "PAUSE_SECONDS", 0.001)
    store = MemoryStore()
    told: list[Exception] = []
    failures = [ValueError("no word of ours"), errors.DatabaseUnavailable("gone"), ValueError("again")]
    again = asyncio.Event()

    async def forget(*_: object) -> int:
        if failures:
            raise failures.pop(0)
        again.set()
        return 0

    monkeypatch.setattr(store, "forget_requests", forget)
    keeping = asyncio.create_task(housekeeping.keep_house(store, Later(NOON), random.Random(1), told.append))
    async with asyncio.timeout(10):
        await again.wait()
    keeping.cancel()

    assert [str(each) for each in told] == ["no word of ours", "again"]


async def test_request_ids_are_kept_for_days() -> None:
    """Of five, recorded a day apart, those older than a week are forgotten."""
    store = MemoryStore()
    for day in range(5):
        time = NOON + datetime.timedelta(days=day)
        basis = await store.basis("user")
        event = SettingsChanged("user", Settings("FULL" if day % 2 else "NONE"))
        request = RequestKey("UpdateConfig", str(day), b"digest")
        await store.commit(Proposal(event, 1, basis.revision, None, "someone", time, (), request))
    clock = Later(NOON + housekeeping.REQUEST_IDS_KEPT + datetime.timedelta(days=2, hours=1))

    forgotten = await housekeeping.forget_old_requests(store, clock)

    assert forgotten == 3
    assert [await store.recorded("someone", "UpdateConfig", str(day)) is not None for day in range(5)] == [
        False
    ] * 3 + [True] * 2
