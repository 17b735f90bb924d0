"""What every store guarantees about commits: the specification of ports.Store, with store_suite_reads.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from llm_schema_registry import errors
from services.registry.domain.events import (
    EpochStarted,
    RequestKey,
    SettingsChanged,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionTransitioned,
    VersionUpdated,
)
from services.registry.domain.limits import SCHEMA_ID_MAX
from services.registry.domain.model import Reference, Settings, State
from services.registry.domain.settings import NOTHING_SET
from services.registry.ports import Stale, Store
from tests.registry_author import START, Author, fingerprint, proposal, schema, version

Fence = Callable[[bool], Awaitable[None]]
ExhaustIds = Callable[[], Awaitable[None]]

CLIENTS = 50
EVERYTHING = 1 << 40
REQUEST = RequestKey("RegisterSchema", "request-1", b"digest")


async def positions(store: Store) -> list[int]:
    """Positions of every change."""
    return [change.position for change in await store.changes(after=0, limit=10_000, text_bytes_max=EVERYTHING)]


async def image(store: Store, *subjects: str) -> object:
    """All that a refused commit must leave as it was."""
    bases = [await store.basis(name) for name in ("", *subjects)]
    nouns = [await store.subject(name) for name in subjects]
    return await store.head(), bases, nouns, await positions(store)


class CommitSuite:
    """One writer: what a commit changes, and what it refuses."""

    async def test_first_version(self, store: Store) -> None:
        """A registration appends one change at position 1 and moves the subject's basis."""
        author = Author(store)

        event = await author.register("user", '{"type":"object"}')

        (change,) = await store.changes(after=0, limit=10, text_bytes_max=EVERYTHING)
        assert (change.epoch, change.position, change.event) == (1, 1, event)
        assert (change.actor, change.time) == ("author", author.time)
        basis = await store.basis("user", event.schema.identity)
        assert (basis.next_number, basis.schema_id, basis.schema_purged) == (2, event.schema.id, False)
        assert [head.number for head in basis.live] == [1]
        assert basis.revision > 0

    async def test_commit_returns_the_change(self, store: Store) -> None:
        """What commit returns is what the history holds."""
        change = await Author(store).set_level("user", "FULL")

        assert await store.changes(after=0, limit=1, text_bytes_max=0) == [change]

    async def test_revision_grows(self, store: Store) -> None:
        """Every kind of commit under a subject makes its revision larger."""
        author = Author(store)
        revisions = [(await store.basis("user")).revision]

        async def done() -> None:
            revisions.append((await store.basis("user")).revision)

        await author.register("user", "1")
        await done()
        await author.register("user", "2")
        await done()
        await author.update("user", 1, "changed")
        await done()
        await author.roll_back("user", 1, 2)
        await done()
        await author.transition("user", 1, State.DEPRECATED)
        await done()
        await author.set_level("user", "NONE")
        await done()
        await author.delete("user", 1)
        await done()
        await author.purge("user", 1)
        await done()

        assert revisions == sorted(set(revisions))
        assert revisions[0] == 0
        assert await positions(store) == list(range(1, len(revisions)))

    async def test_stale_revision(self, store: Store) -> None:
        """A proposal that was decided on an older revision, or on none, changes nothing."""
        author = Author(store)
        event = await author.register("user", "1")
        basis = await store.basis("user")
        await author.update("user", 1, "changed")
        before = await image(store, "user")
        again = VersionRegistered(version("user", 2, event.schema.id), event.schema, ())

        for revision in (0, basis.revision, basis.revision + 7):
            with pytest.raises(Stale):
                await store.commit(replace(proposal(again, basis), revision=revision))

        assert await image(store, "user") == before

    async def test_stale_new_name(self, store: Store) -> None:
        """A revision is refused for a name that was never used."""
        basis = await store.basis("user")

        with pytest.raises(Stale):
            await store.commit(replace(proposal(SettingsChanged("user", Settings("NONE")), basis), revision=3))

        assert await store.subject("user") is None

    async def test_number_must_be_next(self, store: Store) -> None:
        """A version that is not the next one is refused, also as the first of a name."""
        author = Author(store)
        await author.register("user", "1")
        schema_id = await store.reserve_schema_id()
        before = await image(store, "user", "other")

        for name, number in (("user", 1), ("user", 3), ("other", 2)):
            event = VersionRegistered(version(name, number, schema_id), schema(schema_id, "2"), ())
            with pytest.raises(Stale):
                await author.propose(event)

        assert await image(store, "user", "other") == before

    async def test_other_epoch(self, store: Store) -> None:
        """A proposal of another epoch is stale."""
        basis = await store.basis("user")

        for epoch in (basis.epoch - 1, basis.epoch + 1):
            with pytest.raises(Stale):
                await store.commit(replace(proposal(SettingsChanged("user", Settings("NONE")), basis), epoch=epoch))

        assert await positions(store) == []
        assert await store.basis("user") == basis

    async def test_global_revision(self, store: Store) -> None:
        """A decision that used the global settings is stale when they moved; one that did not is fine."""
        author = Author(store)
        old = await store.basis("user")
        await author.set_level("", "FULL")
        event = SettingsChanged("user", Settings("NONE"))

        with pytest.raises(Stale):
            await store.commit(replace(proposal(event, old), global_revision=old.global_revision))
        await store.commit(proposal(event, old))
        new = await store.basis("user")
        await store.commit(replace(proposal(event, new), global_revision=new.global_revision))

        assert new.global_revision > old.global_revision
        assert await positions(store) == [1, 2, 3]

    async def test_global_settings(self, store: Store) -> None:
        """The global level is in every basis; a change of it needs the revision that was given, if one was."""
        old = await store.basis("")
        event = SettingsChanged("", Settings("FULL_TRANSITIVE"))

        await store.commit(replace(proposal(event, old), global_revision=old.global_revision))
        with pytest.raises(Stale):
            await store.commit(replace(proposal(event, old), global_revision=old.global_revision))

        assert old.general == NOTHING_SET
        assert (await store.basis("anything")).general == Settings("FULL_TRANSITIVE")

    async def test_request_id(self, store: Store) -> None:
        """A request id is recorded with its change; the same one again, with whatever digest, is stale."""
        author = Author(store)
        assert await store.recorded("author", REQUEST.method, REQUEST.id) is None

        change = await author.commit("user", lambda _: SettingsChanged("user", Settings("NONE")), REQUEST)

        recorded = await store.recorded("author", REQUEST.method, REQUEST.id)
        assert recorded == change
        assert change.request == REQUEST
        assert await store.recorded("someone else", REQUEST.method, REQUEST.id) is None
        assert await store.recorded("author", "DeleteVersion", REQUEST.id) is None
        before = await image(store, "user", "other")
        for digest in (REQUEST.digest, b"another"):
            basis = await store.basis("other")
            event = SettingsChanged("other", Settings("NONE"))
            with pytest.raises(Stale):
                await store.commit(proposal(event, basis, request=replace(REQUEST, digest=digest)))
        assert await image(store, "user", "other") == before

    async def test_old_request_ids_are_forgotten(self, store: Store) -> None:
        """The oldest first, no more than asked for, and only those before the moment."""
        author = Author(store)
        keys = [RequestKey("UpdateConfig", str(number), b"digest") for number in range(4)]
        changes = [
            await author.commit("user", lambda _: SettingsChanged("user", Settings("NONE")), key) for key in keys
        ]
        last = changes[3].time

        forgotten = [await store.forget_requests(last, 2), await store.forget_requests(last, 2)]

        assert forgotten == [2, 1]
        left = [await store.recorded("author", key.method, key.id) is not None for key in keys]
        assert left == [False, False, False, True]

    async def test_request_id_of_a_refused_commit(self, store: Store) -> None:
        """A commit that was refused does not take its request id."""
        basis = await store.basis("user")
        event = SettingsChanged("user", Settings("NONE"))
        with pytest.raises(Stale):
            await store.commit(replace(proposal(event, basis, request=REQUEST), epoch=9))

        await store.commit(proposal(event, basis, request=REQUEST))

        assert await store.recorded("author", REQUEST.method, REQUEST.id) is not None

    async def test_fence(self, store: Store, fence: Fence) -> None:
        """Fenced, nothing is written and everything can be read; afterwards writes go on."""
        author = Author(store)
        await author.register("user", "1")
        await fence(True)
        before = await image(store, "user")

        with pytest.raises(errors.WritesFenced) as refused:
            await author.propose(SettingsChanged("user", Settings("NONE")))
        with pytest.raises(errors.WritesFenced):
            await author.propose(SettingsChanged("", Settings("NONE")))

        assert refused.value.retry_seconds
        assert (await store.head()).fenced
        assert await image(store, "user") == before
        await fence(False)
        await author.propose(SettingsChanged("user", Settings("NONE")))
        assert await positions(store) == [1, 2]

    async def test_new_epoch(self, store: Store) -> None:
        """An epoch begins after the last position of its parent; positions continue in it."""
        author = Author(store)
        await author.register("user", "1")
        old = await store.basis("user")

        for event in (EpochStarted(2, 1, 5), EpochStarted(1, 1, 1)):
            with pytest.raises(Stale):
                await author.propose(event)
        change = await author.propose(EpochStarted(2, 1, 1))

        assert (change.epoch, change.position) == (2, 2)
        with pytest.raises(Stale):
            await store.commit(proposal(SettingsChanged("user", Settings("NONE")), old))
        later = await author.set_level("user", "NONE")
        assert (later.epoch, later.position) == (2, 3)

    async def test_same_content_one_id(self, store: Store) -> None:
        """A content keeps its id, text, references and time under every subject."""
        author = Author(store)

        first = await author.register("a", "text")
        second = await author.register("b", "text")

        assert second.schema.id == first.schema.id
        assert await store.schemas([first.schema.id]) == {first.schema.id: first.schema}

    async def test_content_with_another_id(self, store: Store) -> None:
        """A content that has an id is refused under another one, and an id under another content."""
        author = Author(store)
        known = (await author.register("a", "text")).schema
        free = await store.reserve_schema_id()
        before = await image(store, "a", "b")

        for wrong in (schema(free, "text"), schema(known.id, "another text")):
            with pytest.raises(Stale):
                await author.propose(VersionRegistered(version("b", 1, wrong.id), wrong, ()))

        assert await image(store, "a", "b") == before
        assert await store.schema_by_identity(fingerprint("another text")) is None

    async def test_ids(self, store: Store) -> None:
        """Reserved ids are positive and never given twice, also to callers at the same moment."""
        ids = await asyncio.gather(*(store.reserve_schema_id() for _ in range(CLIENTS)))

        assert len(set(ids)) == CLIENTS
        assert all(1 <= schema_id <= SCHEMA_ID_MAX for schema_id in ids)

    async def test_ids_end(self, store: Store, exhaust_ids: ExhaustIds) -> None:
        """After the last id there is none, and none twice."""
        await exhaust_ids()

        with pytest.raises(errors.LimitExceeded):
            await store.reserve_schema_id()

    async def test_reference_must_be_live(self, store: Store) -> None:
        """A registration that references what does not exist, or is deleted, is refused by name."""
        author = Author(store)
        await author.register("base", "1")
        await author.register("base", "2")
        await author.delete("base", 2)
        before = await image(store, "base", "user")

        for target in (Reference("x", "nobody", 1), Reference("x", "base", 2), Reference("x", "base", 9)):
            good = Reference("g", "base", 1)
            with pytest.raises(errors.ReferenceNotFound) as refused:
                await author.register("user", "uses", references=(good, target))
            assert refused.value.metadata["subject"] == target.subject
            assert refused.value.metadata["version"] == str(target.version)

        assert await image(store, "base", "user") == before

    async def test_two_names_for_one_version(self, store: Store) -> None:
        """Two references may lead to the same version."""
        author = Author(store)
        target = await author.register("base", "1")
        references = (Reference("x", "base", 1), Reference("y", "base", 1))

        event = await author.register("user", "uses", references=references)

        assert await store.targets(event.schema.id) == {"x": target.schema.id, "y": target.schema.id}

    async def test_delete_needs_no_live_dependents(self, store: Store) -> None:
        """A version that a live version references cannot be deleted; afterwards it can."""
        author = Author(store)
        await author.register("base", "1")
        await author.register("user", "uses", references=(Reference("x", "base", 1),))
        before = await image(store, "base", "user")

        with pytest.raises(errors.VersionReferenced) as refused:
            await author.delete("base", 1)

        assert refused.value.metadata["dependent_subject"] == "user"
        assert refused.value.metadata["dependent_version"] == "1"
        assert await image(store, "base", "user") == before
        await author.delete("user", 1)
        await author.delete("base", 1)
        assert (await store.basis("base")).live == ()

    async def test_delete_needs_live_versions(self, store: Store) -> None:
        """What is deleted, or never was, cannot be deleted: the proposal is stale, and no part of it happens."""
        author = Author(store)
        await author.register("user", "1")
        await author.register("user", "2")
        await author.delete("user", 1)
        before = await image(store, "user")

        for numbers in ((1,), (1, 2), (2, 3)):
            with pytest.raises(Stale):
                await author.propose(VersionsDeleted("user", numbers))

        assert await image(store, "user") == before

    async def test_delete_keeps_the_version(self, store: Store) -> None:
        """A deleted version is there with the time of its change, and not live."""
        author = Author(store)
        await author.register("user", "1")

        change = await author.delete("user", 1)

        found = await store.version("user", 1)
        assert found is not None
        assert (found.delete_time, found.update_time, found.live) == (change.time, change.time, False)

    async def test_register_after_delete(self, store: Store) -> None:
        """The same content after a deletion: a new number and the same id."""
        author = Author(store)
        first = await author.register("user", "1")
        await author.delete("user", 1)

        second = await author.register("user", "1")

        assert (second.version.number, second.schema.id) == (2, first.schema.id)

    async def test_purge_needs_deleted_versions(self, store: Store) -> None:
        """What is live, or never was, cannot be purged: the proposal is stale, and no part of it happens."""
        author = Author(store)
        first = await author.register("user", "1")
        await author.register("user", "2")
        await author.delete("user", 1)
        before = await image(store, "user")

        for numbers in ((2,), (1, 2), (1, 3)):
            with pytest.raises(Stale):
                await author.propose(VersionsPurged("user", numbers, (first.schema.id,)))

        assert await image(store, "user") == before

    async def test_purge_needs_no_dependents(self, store: Store) -> None:
        """A version that any version references, live or deleted, cannot be purged."""
        author = Author(store)
        base = await author.register("base", "1")
        await author.register("user", "uses", references=(Reference("x", "base", 1),))
        await author.delete("user", 1)
        await author.delete("base", 1)
        before = await image(store, "base", "user")

        with pytest.raises(errors.VersionReferenced) as refused:
            await author.propose(VersionsPurged("base", (1,), (base.schema.id,)))

        assert refused.value.metadata["dependent_subject"] == "user"
        assert await image(store, "base", "user") == before
        await author.purge("user", 1)
        await author.purge("base", 1)
        assert await store.version("base", 1) is None

    async def test_purge_needs_exact_contents(self, store: Store) -> None:
        """The contents of a purge are those that no other version holds: not more, not fewer."""
        author = Author(store)
        alone = (await author.register("user", "alone")).schema.id
        shared = (await author.register("user", "shared")).schema.id
        await author.register("other", "shared")
        await author.delete("other", 1)
        await author.delete("user", 1, 2)
        before = await image(store, "user")

        for contents in ((), (shared,), (alone, shared), (alone, 999)):
            with pytest.raises(Stale):
                await author.propose(VersionsPurged("user", (1, 2), contents))

        assert await image(store, "user") == before
        await author.propose(VersionsPurged("user", (1, 2), (alone,)))
        assert set(await store.schemas([alone, shared])) == {shared}

    @pytest.mark.regression("B12")
    async def test_purge_leaves_a_tombstone(self, store: Store) -> None:
        """A purged version and its text are gone; its number, its id and its identity stay taken, and so does the
        history, of which nothing is deleted with them."""
        author = Author(store)
        event = await author.register("user", "1")
        await author.delete("user", 1)

        change = await author.purge("user", 1)

        assert await store.version("user", 1) is None
        assert await store.subject("user") is None
        assert await store.schemas([event.schema.id]) == {}
        assert await store.schema_by_identity(event.schema.identity) is None
        assert await store.schemas_by_semantic(event.schema.semantic, 10) == []
        basis = await store.basis("user", event.schema.identity)
        assert (basis.schema_id, basis.schema_purged, basis.next_number) == (event.schema.id, True, 2)
        assert (await store.head()).purge_position == change.position
        assert await positions(store) == [1, 2, 3]

    async def test_purged_content_comes_back(self, store: Store) -> None:
        """A purged content that is registered again has its old id, and text and references as of now."""
        author = Author(store)
        target = await author.register("base", "base")
        old = await author.register("user", "1", references=(Reference("x", "base", 1),))
        await author.delete("user", 1)
        await author.purge("user", 1)
        assert await store.targets(old.schema.id) == {}

        new = await author.register("user", "1", references=(Reference("y", "base", 1),))

        assert (new.schema.id, new.version.number) == (old.schema.id, 2)
        assert await store.schemas([new.schema.id]) == {new.schema.id: new.schema}
        assert await store.targets(new.schema.id) == {"y": target.schema.id}

    async def test_purge_removes_settings(self, store: Store) -> None:
        """A purge with `settings_removed` removes the subject's level too; one without leaves it."""
        author = Author(store)
        for name, removed in (("keeps", False), ("loses", True)):
            schema_id = (await author.register(name, name)).schema.id
            await author.set_level(name, "FULL")
            await author.delete(name, 1)
            await author.propose(VersionsPurged(name, (1,), (schema_id,), removed))

        kept = await store.subject("keeps")
        assert kept is not None
        assert kept.own == Settings("FULL")
        assert (await store.basis("loses")).own == NOTHING_SET
        assert await store.subject("loses") is None

    async def test_roll_back(self, store: Store) -> None:
        """A rollback makes a version ACTIVE and newer ones DEPRECATED, at the change's time, in one step."""
        author = Author(store)
        for text in ("1", "2", "3"):
            await author.register("user", text)
        await author.transition("user", 1, State.DEPRECATED)

        change = await author.roll_back("user", 1, 2, 3)

        found = [await store.version("user", number) for number in (1, 2, 3)]
        states = [(each.state, each.update_time, each.activate_time) for each in found if each]
        assert [state for state, _, _ in states] == [State.ACTIVE, State.DEPRECATED, State.DEPRECATED]
        assert {time for _, time, _ in states} == {change.time}
        assert all(activated and activated < change.time for _, _, activated in states)
        latest = await store.latest("user")
        assert latest is not None
        assert latest.number == 1

    async def test_update_never_revives(self, store: Store) -> None:
        """An update that was made from a version as it was before its deletion is refused, and so is a rebinding."""
        author = Author(store)
        live = (await author.register("user", "1")).version
        other = await author.register("user", "2")
        await author.delete("user", 1)
        deleted = await store.version("user", 1)
        assert deleted is not None
        before = await image(store, "user")

        for wrong in (live, replace(deleted, schema_id=other.schema.id), replace(other.version, delete_time=START)):
            for event in (VersionUpdated(wrong), VersionTransitioned(wrong, State.ACTIVE)):
                with pytest.raises(Stale):
                    await author.propose(event)

        assert await image(store, "user") == before

    async def test_event_about_nothing(self, store: Store) -> None:
        """An event about a version that does not exist changes nothing."""
        author = Author(store)
        event = await author.register("user", "1")
        before = await image(store, "user")

        with pytest.raises(Stale):
            await author.roll_back("user", 1, 2)
        basis = await store.basis("user")
        gone = replace(event.version, number=2)
        for about in (VersionUpdated(gone), VersionTransitioned(gone, State.DRAFT)):
            with pytest.raises(Stale):
                await store.commit(proposal(about, basis))

        assert await image(store, "user") == before
