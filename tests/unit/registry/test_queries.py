"""Pages of references over a store in which versions vanish between the reads of one page."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from services.registry.domain.model import State, Version
from services.registry.usecases.queries import Ask, Queries, Walk

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
WALK = Walk("address", 0, dependents=True, transitive=False)


def version(subject: str, number: int) -> Version:
    """A live version."""
    return Version(subject, number, 1, State.ACTIVE, "", "", (), {}, NOON, NOON)


class Vanishing:
    """Subjects a to e need version 1 of the subject `address`. gone: deleted once their keys were read."""

    def __init__(self, gone: Collection[str] = ()) -> None:
        self.gone = gone
        self.newest = 1

    async def latest(self, subject: str) -> Version:
        return version(subject, self.newest)

    async def version(self, subject: str, number: int) -> Version:
        return version(subject, number)

    async def dependents(self, keys: Collection[tuple[str, int]], **_: object) -> Collection[tuple[str, int]]:
        return {(name, 1) for name in "abcde"} if ("address", 1) in keys else set()

    async def versions_by_key(self, keys: Collection[tuple[str, int]]) -> Sequence[Version]:
        return [replace(version(*key), delete_time=NOON if key[0] in self.gone else None) for key in sorted(keys)]

    async def schema(self, _: int) -> None:
        return None


async def pages(store: Vanishing, size: int) -> list[list[str]]:
    """The subjects on each page. A newer version of `address` is registered behind the first page."""
    library: Any = store
    found, token = [], ""
    while True:
        page = await Queries(library, library).references(WALK, Ask(size, token))
        found.append([each.subject for each in page.items])
        store.newest, token = 2, page.next_token
        if not token:
            return found


async def test_references_come_in_pages() -> None:
    """Each once, the last page without a token, all of one version although a newer one was registered meanwhile."""
    assert await pages(Vanishing(), 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert await pages(Vanishing(), 5) == [["a", "b", "c", "d", "e"]]


async def test_what_vanishes_takes_nothing_else_away() -> None:
    """A page may be short, and empty even; those that follow are there."""
    assert await pages(Vanishing("b"), 2) == [["a"], ["c", "d"], ["e"]]
    assert await pages(Vanishing("cd"), 2) == [["a", "b"], [], ["e"]]
    assert await pages(Vanishing("e"), 2) == [["a", "b"], ["c", "d"], []]
