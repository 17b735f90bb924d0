"""Those who write one subject, over the store in memory: how many may wait, and what a repeat finds."""

from __future__ import annotations

import asyncio
import datetime
import random

import pytest

from llm_schema_registry import errors
from services.registry.adapters.memory_store import MemoryStore
from services.registry.domain.events import RequestKey, SettingsChanged
from services.registry.domain.model import Settings
from services.registry.ports import Basis
from services.registry.usecases import writer as writer_module
from services.registry.usecases.change_subject import ChangeSubject
from services.registry.usecases.writer import Decision, Intent, Writer

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Noon:
    """A clock that stands."""

    def now(self) -> datetime.datetime:
        return NOON


async def test_writers_of_one_subject_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused at once; writers of other subjects are not, and when one ends another may begin."""
    monkeypatch.setattr(writer_module, "WRITERS_MAX", 2)
    writer, go = Writer(MemoryStore(), Noon(), random.Random(1)), asyncio.Event()

    async def slow(basis: Basis, _: object) -> Decision:
        await go.wait()
        return Decision(SettingsChanged("orders", Settings("NONE" if basis.own.level == "FULL" else "FULL")))

    async def quick(*_: object) -> None:
        return None

    waiting = [asyncio.create_task(writer.run(Intent("orders", "someone"), slow)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(errors.Overloaded) as refused:
        await writer.run(Intent("orders", "someone"), quick)
    assert refused.value.metadata == {"subject": "orders", "maximum": "2"}
    assert await writer.run(Intent("others", "someone"), quick) is None

    go.set()
    assert all(await asyncio.gather(*waiting))
    assert await writer.run(Intent("orders", "someone"), quick) is None


async def test_what_a_repeat_finds() -> None:
    """The change that its call made, whatever others did since; a call that changed nothing is like a new one."""
    store = MemoryStore()
    subjects = ChangeSubject(store, Writer(store, Noon(), random.Random(1)))

    async def levels(level: str, request: str) -> str | None:
        key = RequestKey("UpdateConfig", request, level.encode())
        found = await subjects.change_settings("orders", Settings(level), "", actor="someone", request=key)
        return found.own.level if found.own else None

    assert await levels("FULL", "changes") == "FULL"
    assert await levels("FULL", "changes nothing") == "FULL"
    assert await levels("NONE", "of another") == "NONE"

    assert await levels("FULL", "changes") == "NONE"
    assert await levels("FULL", "changes nothing") == "FULL"
