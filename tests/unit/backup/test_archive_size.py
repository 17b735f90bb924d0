"""How large the archive is: counted once, and then only what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.store import Listed
from services.backup.domain import layout
from services.backup.usecases import archive_size as module
from services.backup.usecases.archive_size import RECOUNT_SECONDS, ArchiveSize
from tests.backup_parts import HandClock


class CountingStore(DirectoryStore):
    """Counts what it lists. stop_at: so many are listed before the caller is cancelled."""

    listed = 0
    stop_at: int | None = None

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore."""
        async for each in super().list(prefix, after=after):
            if self.listed == self.stop_at:
                raise asyncio.CancelledError
            self.listed += 1
            yield each


@pytest.fixture
def clock() -> HandClock:
    """The clock of the test."""
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path) -> CountingStore:
    """An archive of two lines: seven segments of three bytes each, and what lies beside them."""
    store = CountingStore(tmp_path / "store")
    for number in range(5):
        await store.put(layout.segment(1, 10 * number + 1, 10 * number + 10), b"one")
    for number in range(2):
        await store.put(layout.segment(2, 10 * number + 41, 10 * number + 50), b"two")
    await store.put(layout.HEARTBEAT, b"{}")
    return store


async def test_what_was_counted_is_not_listed_again(store: CountingStore, clock: HandClock) -> None:
    """The second question costs what came since, on every line, whichever it came to."""
    size = ArchiveSize(store, clock)
    assert await size.read() == (7, 21)
    store.listed = 0
    await store.put(layout.segment(1, 51, 60), b"late")
    await store.put(layout.segment(3, 55, 55), b"new line")

    assert await size.read() == (9, 33)
    assert store.listed == 3


async def test_a_question_that_is_cut_off_has_counted(store: CountingStore, clock: HandClock) -> None:
    """An archive too large for one question's time is counted by several, each segment once."""
    size = ArchiveSize(store, clock)
    store.stop_at = 4
    with pytest.raises(asyncio.CancelledError):
        await size.read()
    store.stop_at = None

    assert set(await asyncio.gather(size.read(), size.read())) == {(7, 21)}
    assert store.listed <= 4 + 4 + 2


async def test_what_was_deleted_is_found_a_little_at_a_time(
    store: CountingStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is counted anew after an hour, so many segments a question."""
    monkeypatch.setattr(module, "RECOUNT_AT_ONCE", 2)
    size = ArchiveSize(store, clock)
    await size.read()
    await store.delete(layout.segment(1, 1, 10))
    await store.delete(layout.segment(1, 11, 20))
    assert await size.read() == (7, 21)

    clock.move(seconds=RECOUNT_SECONDS)
    answers = [(await size.read())[0] for _ in range(4)]

    assert answers == [7, 7, 5, 5]


async def test_an_empty_archive_has_nothing(tmp_path: Path, clock: HandClock) -> None:
    """Also before anything was ever stored."""
    assert await ArchiveSize(DirectoryStore(tmp_path / "new"), clock).read() == (0, 0)
