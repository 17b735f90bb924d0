"""What every store guarantees when many write at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from llm_schema_registry import errors
from services.registry.domain.events import RequestKey, SettingsChanged
from services.registry.domain.model import Reference, Settings
from services.registry.ports import Stale, Store, VersionFilter
from tests.contract.registry.store_suite import CLIENTS, EVERYTHING, positions
from tests.registry_author import Author, fingerprint, proposal

ROUNDS = 20
"""Races of two are repeated, so that either side is first in some of them."""


async def outcome(work: Awaitable[object]) -> object:
    """What the work returns, or the refusal it raises."""
    try:
        return await work
    except errors.Error as refusal:
        return refusal


class RaceSuite:
    """Many writers at once."""

    async def test_different_contents_one_subject(self, store: Store) -> None:
        """50 clients, 50 contents, one subject: numbers 1 to 50, one each, positions without gaps."""
        events = await asyncio.gather(*(Author(store).register("user", f"text {i}") for i in range(CLIENTS)))

        assert sorted(event.version.number for event in events) == list(range(1, CLIENTS + 1))
        assert len({event.schema.id for event in events}) == CLIENTS
        assert await positions(store) == list(range(1, CLIENTS + 1))
        assert len((await store.basis("user")).live) == CLIENTS

    async def test_same_content_many_subjects(self, store: Store) -> None:
        """50 clients, one content, 50 subjects: one id."""
        events = await asyncio.gather(*(Author(store).register(f"user-{i}", "text") for i in range(CLIENTS)))

        assert len({event.schema.id for event in events}) == 1
        which = VersionFilter(schema_ids=(events[0].schema.id,))
        holders = await store.versions(which, after=None, limit=1000)
        assert len(holders) == CLIENTS
        assert await positions(store) == list(range(1, CLIENTS + 1))

    async def test_same_content_one_subject(self, store: Store) -> None:
        """50 clients, one content, one subject: one version and one change."""
        events = await asyncio.gather(*(Author(store).register("user", "text") for _ in range(CLIENTS)))

        assert {event.version.number for event in events} == {1}
        assert len({event.schema.id for event in events}) == 1
        assert await positions(store) == [1]

    async def test_same_request(self, store: Store) -> None:
        """50 clients repeat one request at once, under different subjects: one of them is written."""
        request = RequestKey("UpdateConfig", "one", b"digest")

        async def attempt(number: int) -> bool:
            name = f"user-{number}"
            basis = await store.basis(name)
            try:
                await store.commit(proposal(SettingsChanged(name, Settings("NONE")), basis, request=request))
            except Stale:
                return False
            return True

        written = await asyncio.gather(*(attempt(number) for number in range(CLIENTS)))

        assert written.count(True) == 1
        assert await positions(store) == [1]
        recorded = await store.recorded("author", request.method, request.id)
        assert recorded is not None
        assert recorded.event.subject == f"user-{written.index(True)}"

    async def test_purge_against_registration(self, store: Store) -> None:
        """While a content is purged and registered elsewhere, every live version keeps its text."""
        for number in range(ROUNDS):
            text, loser, winner = f"text {number}", f"loser {number}", f"winner {number}"
            event = await Author(store).register(loser, text)
            await Author(store).delete(loser, 1)

            await asyncio.gather(Author(store).purge(loser, 1), Author(store).register(winner, text))

            assert await store.version(loser, 1) is None
            held = await store.version(winner, 1)
            assert held is not None
            assert held.schema_id == event.schema.id
            assert set(await store.schemas([held.schema_id])) == {held.schema_id}
            basis = await store.basis(winner, fingerprint(text))
            assert (basis.schema_id, basis.schema_purged) == (held.schema_id, False)

    async def test_delete_against_reference(self, store: Store) -> None:
        """When a version is deleted while another registers a reference to it, one of the two is refused."""
        for number in range(ROUNDS):
            base, user = f"base {number}", f"user {number}"
            await Author(store).register(base, f"base text {number}")
            reference = Reference("x", base, 1)

            deleted, registered = await asyncio.gather(
                outcome(Author(store).delete(base, 1)),
                outcome(Author(store).register(user, f"text {number}", references=(reference,))),
            )

            target = await store.version(base, 1)
            assert target is not None
            if isinstance(registered, errors.Error):
                assert isinstance(registered, errors.ReferenceNotFound)
                assert not target.live
            else:
                assert isinstance(deleted, errors.VersionReferenced)
                assert target.live

    async def test_readers_see_no_gap(self, store: Store) -> None:
        """A reader that follows the history while many write sees each position once, in order."""
        seen: list[int] = []

        async def follow() -> None:
            while len(seen) < CLIENTS:
                after = seen[-1] if seen else 0
                page = await store.changes(after=after, limit=7, text_bytes_max=EVERYTHING)
                seen.extend(change.position for change in page)
                await asyncio.sleep(0)

        await asyncio.gather(follow(), *(Author(store).register(f"user-{i}", f"{i}") for i in range(CLIENTS)))

        assert seen == list(range(1, CLIENTS + 1))

    async def test_level_against_registration(self, store: Store) -> None:
        """A basis is one snapshot: its level and its versions belong to the same revision."""
        await Author(store).register("user", "0")

        async def look() -> None:
            for _ in range(ROUNDS):
                basis = await store.basis("user")
                # Level and version number are set in turn, so each follows from the revision.
                assert basis.next_number == 2 + (basis.revision - 1) // 2
                assert (basis.own == Settings("NONE")) == (basis.revision > 1 and basis.revision % 4 in (2, 3))
                assert len(basis.live) == basis.next_number - 1

        async def write() -> None:
            author = Author(store)
            for number in range(1, ROUNDS):
                await author.set_level("user", "NONE" if number % 2 else None)
                await author.register("user", str(number))

        await asyncio.gather(write(), look(), look())
