"""What every store guarantees about reads."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

from services.registry.domain.model import Format, Reference, Settings, State
from services.registry.domain.settings import NOTHING_SET
from services.registry.ports import Store, VersionFilter
from tests.contract.registry.store_suite import EVERYTHING
from tests.registry_author import Author, fingerprint

Forget = Callable[[int], Awaitable[None]]

NAMES = ("a", "a\U0001f600", "aZ", "ab", "aé", "a\uffff", "b", "b\U0010ffff", "b\U0010ffffx", "c", "\ud7ff", "\ue000")
"""Names whose order by code points differs from that of most collations, and of UTF-16."""


def keys(versions: object) -> list[tuple[str, int]]:
    """Subject and number of versions."""
    assert isinstance(versions, list)
    return [(version.subject, version.number) for version in versions]


async def listed(store: Store, **which: object) -> list[tuple[str, int]]:
    """Subject and number of the versions that a filter lists."""
    found = await store.versions(replace(VersionFilter(), **which), after=None, limit=100)  # type: ignore[arg-type]
    return keys(list(found))


class ReadSuite:
    """What is read is what was committed."""

    async def test_empty(self, store: Store) -> None:
        """An empty store answers everything with nothing."""
        head = await store.head()
        assert (head.epoch, head.position, head.floor, head.fenced, head.purge_position) == (1, 0, 0, False, 0)
        assert uuid.UUID(head.cluster_id).version == 4
        assert (await store.head()).cluster_id == head.cluster_id
        basis = await store.basis("user", fingerprint("x"))
        assert (basis.epoch, basis.revision, basis.next_number, basis.live) == (1, 0, 1, ())
        assert (basis.own, basis.general, basis.schema_id) == (NOTHING_SET, NOTHING_SET, None)
        assert await store.schemas([1, 2]) == {}
        assert await store.schemas([]) == {}
        assert await store.targets(1) == {}
        assert await store.version("user", 1) is None
        assert await store.latest("user") is None
        assert await store.subject("user") is None
        assert list(await store.versions_by_key([])) == []
        assert list(await store.orphans("user", [1])) == []
        assert set(await store.dependencies([("user", 1)])) == set()
        assert list(await store.changes(after=0, limit=10, text_bytes_max=10)) == []

    async def test_everything_of_a_version(self, store: Store) -> None:
        """Every field of a version and of its content comes back as it was committed."""
        author = Author(store)
        await author.register("base", "base")
        references = (Reference("z", "base", 1), Reference("a", "base", 1))
        event = await author.register(
            "üser/\u2028 x", "tex\tt'\\%s", references=references, owner="me", tags=("a", "b")
        )
        await author.update(event.version.subject, 1, "d\n")

        found = await store.version(event.version.subject, 1)

        assert found is not None
        assert found == replace(event.version, description="d\n", update_time=found.update_time)
        assert found.etag != event.version.etag
        assert await store.schemas([event.schema.id, 999]) == {event.schema.id: event.schema}
        assert await store.schema_by_identity(event.schema.identity) == event.schema

    async def test_metadata(self, store: Store) -> None:
        """Metadata holds any text under any key."""
        author = Author(store)
        event = await author.register("user", "1")
        metadata = {"k": "v", "": "\u0001\"'\\", "ü": "\U0001f600"}
        await author.change(replace(event.version, metadata=metadata))

        found = await store.version("user", 1)

        assert found is not None
        assert found.metadata == metadata

    async def test_basis_heads(self, store: Store) -> None:
        """A basis holds the live versions by number, with state and whether they ever were active."""
        author = Author(store)
        first = await author.register("user", "1")
        await author.register("user", "2", state=State.DRAFT)
        await author.register("user", "3")
        await author.register("user", "4")
        await author.transition("user", 1, State.DEPRECATED)
        await author.delete("user", 3)

        live = (await store.basis("user")).live

        assert [(head.number, head.state, head.activated) for head in live] == [
            (1, State.DEPRECATED, True),
            (2, State.DRAFT, False),
            (4, State.ACTIVE, True),
        ]
        assert live[0].schema_id == first.schema.id

    async def test_latest(self, store: Store) -> None:
        """`latest` is the highest live ACTIVE version, and the subject says the same."""
        author = Author(store)
        for text in ("1", "2", "3"):
            await author.register("user", text)
        await author.register("user", "4", state=State.DRAFT)

        async def latest() -> tuple[int | None, int]:
            version, subject = await store.latest("user"), await store.subject("user")
            assert subject is not None
            return (version.number if version else None), subject.latest_version

        assert await latest() == (3, 3)
        await author.delete("user", 3)
        assert await latest() == (2, 2)
        await author.transition("user", 2, State.DEPRECATED)
        assert await latest() == (1, 1)
        await author.delete("user", 1)
        assert await latest() == (None, 0)

    async def test_semantic(self, store: Store) -> None:
        """Contents of one meaning are listed by id, as many as asked for."""
        author = Author(store)
        ids = [(await author.register("user", text)).schema.id for text in ("TEXT", "text", "Text", "other")]
        semantic = fingerprint("text")

        assert [found.id for found in await store.schemas_by_semantic(semantic, 10)] == sorted(ids[:3])
        assert [found.id for found in await store.schemas_by_semantic(semantic, 2)] == sorted(ids[:3])[:2]

    async def test_holders_and_orphans(self, store: Store) -> None:
        """Holders are listed by subject and number; orphans are the contents that nobody else holds."""
        author = Author(store)
        shared = (await author.register("b", "shared")).schema.id
        await author.register("a", "shared")
        alone = (await author.register("b", "alone")).schema.id
        await author.delete("a", 1)
        both = (shared, alone)

        assert await listed(store, schema_ids=both, include_deleted=True) == [("a", 1), ("b", 1), ("b", 2)]
        assert await listed(store, schema_ids=both) == [("b", 1), ("b", 2)]
        assert await listed(store, schema_ids=both, subject="a", include_deleted=True) == [("a", 1)]
        assert await listed(store, schema_ids=(alone,)) == [("b", 2)]
        assert await listed(store, schema_ids=()) == []
        assert list(await store.orphans("b", [1, 2])) == [alone]
        assert list(await store.orphans("b", [1])) == []

    async def test_versions_by_key(self, store: Store) -> None:
        """Versions by key come in order, each once, deleted ones too, unknown ones not."""
        author = Author(store)
        await author.register("b", "1")
        await author.register("a", "1")
        await author.register("a", "2")
        await author.delete("a", 1)

        found = await store.versions_by_key([("b", 1), ("a", 2), ("a", 1), ("a", 1), ("a", 9), ("c", 1)])

        assert keys(list(found)) == [("a", 1), ("a", 2), ("b", 1)]

    async def test_filters(self, store: Store) -> None:
        """Every filter of a list of versions counts, alone and together."""
        author = Author(store)
        await author.register("a", "1", words=("order", "created"), owner="me", tags=("x", "y"))
        await author.register("a", "2", words=("order", "o'rd\\er:*"), owner="me", state=State.DRAFT)
        await author.register("b", "3", words=("payment",), tags=("y",))
        await author.register("b", "4", words=("payment", "created"))
        await author.delete("b", 2)

        assert await listed(store) == [("a", 1), ("a", 2), ("b", 1)]
        assert await listed(store, include_deleted=True) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        assert await listed(store, subject="a") == [("a", 1), ("a", 2)]
        assert await listed(store, state=State.DRAFT) == [("a", 2)]
        assert await listed(store, words=("ord",)) == [("a", 1), ("a", 2)]
        assert await listed(store, words=("ord", "cre")) == [("a", 1)]
        assert await listed(store, words=("rder",)) == []
        assert await listed(store, words=("o'rd\\er:*",)) == [("a", 2)]
        assert await listed(store, words=("cre",), include_deleted=True) == [("a", 1), ("b", 2)]
        assert await listed(store, tags=("y",)) == [("a", 1), ("b", 1)]
        assert await listed(store, tags=("x", "y")) == [("a", 1)]
        assert await listed(store, owner="me") == [("a", 1), ("a", 2)]
        assert await listed(store, owner="") == [("b", 1)]
        assert await listed(store, format=Format.JSON) == [("a", 1), ("a", 2), ("b", 1)]
        assert await listed(store, format=Format.AVRO) == []
        assert await listed(store, owner="me", words=("order",), state=State.ACTIVE, tags=("x",)) == [("a", 1)]

    async def test_words_follow_updates(self, store: Store) -> None:
        """An update replaces the words that a version is found by; a transition leaves them."""
        author = Author(store)
        await author.register("a", "1", words=("old",))

        await author.update("a", 1, "changed", words=("new",))
        await author.transition("a", 1, State.DEPRECATED)

        assert await listed(store, words=("old",)) == []
        assert await listed(store, words=("new",)) == [("a", 1)]

    async def test_pages_of_versions(self, store: Store) -> None:
        """Pages of versions follow each other in the order of subject and number."""
        author = Author(store)
        for name in ("b", "a"):
            for text in range(12):
                await author.register(name, str(text))
        expected = [(name, number) for name in ("a", "b") for number in range(1, 13)]

        found: list[tuple[str, int]] = []
        while page := await store.versions(VersionFilter(), after=found[-1] if found else None, limit=5):
            found += keys(list(page))

        assert found == expected

    async def test_names_by_code_points(self, store: Store) -> None:
        """Names are ordered, and prefixes match, by code points."""
        author = Author(store)
        for name in NAMES:
            await author.register(name, name)

        async def page(prefix: str, after: str | None = None, limit: int = 100) -> list[str]:
            found = await store.subjects(prefix=prefix, include_deleted=False, after=after, limit=limit)
            return [subject.name for subject in found]

        assert await page("") == sorted(NAMES)
        for prefix in (*NAMES, "nothing", "a\U0001f5ff", "\U0010ffff"):
            assert await page(prefix) == sorted(name for name in NAMES if name.startswith(prefix))
        assert await page("a", after="aZ", limit=2) == sorted(name for name in NAMES if name.startswith("a"))[2:4]

    async def test_subject(self, store: Store) -> None:
        """A subject counts its live versions and tells its times."""
        author = Author(store)
        created = (await author.register("user", "1")).version.create_time
        updated = (await author.register("user", "2")).version.create_time

        found = await store.subject("user")

        assert found is not None
        assert (found.name, found.latest_version, found.version_count) == ("user", 2, 2)
        assert (found.create_time, found.update_time, found.delete_time) == (created, updated, None)
        assert (found.own, found.general) == (NOTHING_SET, NOTHING_SET)

    async def test_subject_deleted(self, store: Store) -> None:
        """A subject is deleted with its last live version, and lives again with the next."""
        author = Author(store)
        created = (await author.register("user", "1")).version.create_time
        await author.register("user", "2")
        await author.delete("user", 1)
        partly = await store.subject("user")

        change = await author.delete("user", 2)
        deleted = await store.subject("user")
        listed_live = await store.subjects(prefix="", include_deleted=False, after=None, limit=10)
        listed_all = await store.subjects(prefix="", include_deleted=True, after=None, limit=10)
        await author.register("user", "3")
        again = await store.subject("user")

        assert partly is not None
        assert (partly.version_count, partly.delete_time) == (1, None)
        assert deleted is not None
        assert (deleted.version_count, deleted.delete_time, deleted.create_time) == (0, change.time, created)
        assert list(listed_live) == []
        assert list(listed_all) == [deleted]
        assert again is not None
        assert (again.version_count, again.delete_time, again.create_time) == (1, None, created)

    async def test_subject_begins_anew(self, store: Store) -> None:
        """A name that was purged begins anew, but for its numbers."""
        author = Author(store)
        await author.register("user", "1")
        await author.delete("user", 1)
        await author.purge("user", 1)
        assert await store.subject("user") is None
        assert list(await store.subjects(prefix="", include_deleted=True, after=None, limit=10)) == []

        event = await author.register("user", "1")

        found = await store.subject("user")
        assert event.version.number == 2
        assert found is not None
        assert (found.create_time, found.delete_time) == (event.version.create_time, None)

    async def test_settings(self, store: Store) -> None:
        """A level of its own makes a subject, hides the global one, and ends with its removal."""
        author = Author(store)
        change = await author.set_level("user", "FULL")
        own = await store.subject("user")
        listed_all = await store.subjects(prefix="", include_deleted=True, after=None, limit=10)
        await author.set_level("user", None)
        gone = await store.subject("user")
        await author.register("user", "1")
        await author.set_level("", "NONE")
        inherited = await store.subject("user")

        assert own is not None
        assert (own.own, own.general, own.version_count) == (Settings("FULL"), NOTHING_SET, 0)
        assert (own.create_time, own.delete_time) == (change.time, None)
        assert list(listed_all) == []
        assert gone is None
        assert inherited is not None
        assert (inherited.own, inherited.general) == (NOTHING_SET, Settings("NONE"))

    async def test_references(self, store: Store) -> None:
        """Targets, dependencies and dependents follow the references."""
        author = Author(store)
        base = (await author.register("base", "base")).schema.id
        middle = await author.register("middle", "m", references=(Reference("b", "base", 1),))
        both = (Reference("b", "base", 1), Reference("m", "middle", 1))
        top = await author.register("top", "t", references=both)

        assert await store.targets(top.schema.id) == {"b": base, "m": middle.schema.id}
        assert set(await store.dependencies([("top", 1)])) == {("base", 1), ("middle", 1)}
        assert set(await store.dependencies([("top", 1), ("middle", 1), ("base", 1)])) == {("base", 1), ("middle", 1)}
        await author.delete("top", 1)

        async def dependents(*, include_deleted: bool, limit: int = 10) -> list[tuple[str, int]]:
            found = await store.dependents([("base", 1), ("middle", 1)], include_deleted=include_deleted, limit=limit)
            assert len(found) == len(set(found))
            return sorted(found)

        assert await dependents(include_deleted=True) == [("middle", 1), ("top", 1)]
        assert await dependents(include_deleted=False) == [("middle", 1)]
        assert len(await dependents(include_deleted=True, limit=1)) == 1

    async def test_targets_stay_right(self, store: Store) -> None:
        """A content's targets stay right when the version that first named them is purged."""
        author = Author(store)
        base = (await author.register("one", "base")).schema.id
        await author.register("two", "base")
        event = await author.register("user", "uses", references=(Reference("x", "one", 1),))
        await author.register("other", "uses", references=(Reference("x", "two", 1),))

        await author.delete("user", 1)
        await author.purge("user", 1)
        await author.delete("one", 1)
        await author.purge("one", 1)

        assert await store.targets(event.schema.id) == {"x": base}
        assert (await store.schemas([event.schema.id]))[event.schema.id].references == (Reference("x", "one", 1),)
        assert set(await store.dependencies([("other", 1)])) == {("two", 1)}

    async def test_pages_of_changes(self, store: Store) -> None:
        """Changes come in order, at most `limit`, and stop once their bytes pass the maximum, but never before one."""
        author = Author(store)
        for number in range(6):
            await author.register("user", str(number) * 1000)

        async def page(after: int, limit: int, text_bytes_max: int) -> list[int]:
            found = await store.changes(after=after, limit=limit, text_bytes_max=text_bytes_max)
            return [change.position for change in found]

        assert await page(0, 100, EVERYTHING) == [1, 2, 3, 4, 5, 6]
        assert await page(2, 3, EVERYTHING) == [3, 4, 5]
        assert await page(6, 3, EVERYTHING) == []
        assert await page(0, 100, 0) == [1]
        assert await page(0, 100, 1000) == [1]
        assert await page(0, 100, 2500) == [1, 2, 3]

    async def test_floor(self, store: Store, forget: Forget) -> None:
        """The head tells from where changes are kept, and the newest purge, also when it is no longer kept."""
        author = Author(store)
        await author.register("user", "1")
        await author.delete("user", 1)
        await author.purge("user", 1)
        await author.set_level("user", "NONE")

        await forget(2)
        kept = await store.head()
        await forget(3)
        gone = await store.head()

        assert (kept.floor, kept.position, kept.purge_position) == (2, 4, 3)
        assert (gone.floor, gone.position, gone.purge_position) == (3, 4, 3)
        assert [change.position for change in await store.changes(after=3, limit=9, text_bytes_max=0)] == [4]
