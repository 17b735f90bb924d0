"""What every object store guarantees: the specification of llm_schema_registry.objects.store, with store_races.py."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest

from llm_schema_registry.objects.store import (
    PART_BYTES_MIN,
    SMALL_BYTES_MAX,
    InvalidRange,
    Lock,
    ObjectChanged,
    ObjectExists,
    ObjectLockUnsupported,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    Placement,
)
from tests.fix_fault_table import FaultTable

PIECE_BYTES = 1024 * 1024
LARGE = random.Random(4).randbytes(PART_BYTES_MIN + 12_345)
"""Two parts on S3."""
RANGES = [
    *[(0, None), (0, 1), (1, 1), (PIECE_BYTES - 1, 2), (PIECE_BYTES, None), (5_000_000, 1_000_000), (7, 0)],
    *[(len(LARGE) - 1, None), (len(LARGE) - 1, 1), (len(LARGE) - 1, 100), (0, 10 * len(LARGE))],
    *[(len(LARGE), None), (len(LARGE), 5), (len(LARGE), 0)],
]
"""start and length"""
BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "\u00e4", "a b", "a\n", "a\\b", "x" * 1025, "x" * 201]
CLOCK_SECONDS = 5
"""Clocks of this machine and of a server on it, read one after the other, differ by less."""


async def content(store: ObjectStore, key: str, *, start: int = 0, length: int | None = None) -> bytes:
    """What `read` yields, joined."""
    return b"".join([piece async for piece in store.read(key, start=start, length=length)])


async def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    """Keys in the order of the listing."""
    return [listed.key async for listed in store.list(prefix, after=after)]


class PutSuite:
    """Small objects."""

    async def test_put_get(self, object_store: ObjectStore) -> None:
        """What was put is got, byte for byte, with its size."""
        await object_store.put("a/b.json", bytes(range(256)))

        got, stored = await object_store.get("a/b.json")

        assert got == bytes(range(256))
        assert (stored.key, stored.size_bytes) == ("a/b.json", 256)

    @pytest.mark.parametrize("text", [b"", b"x"])
    async def test_smallest(self, object_store: ObjectStore, text: bytes) -> None:
        """An object may be empty."""
        await object_store.put("small", text)

        assert (await object_store.get("small"))[0] == text
        assert await content(object_store, "small") == text

    async def test_put_over(self, object_store: ObjectStore) -> None:
        """A put without a condition replaces, and changes the etag."""
        first = await object_store.put("key", b"one")

        second = await object_store.put("key", b"two")

        assert first.etag != second.etag
        assert (await object_store.get("key"))[0] == b"two"

    async def test_put_tells_what_head_tells(self, object_store: ObjectStore) -> None:
        """Key, size and etag that put returns are those of head, get and the listing."""
        put = await object_store.put("key", b"content")

        head = await object_store.head("key")
        _, got = await object_store.get("key")
        (listed,) = [listed async for listed in object_store.list("")]

        assert head is not None
        assert {(one.key, one.size_bytes, one.etag) for one in (put, head, got, listed)} == {("key", 7, put.etag)}
        assert head.modify_time == got.modify_time

    async def test_sha256(self, object_store: ObjectStore) -> None:
        """A SHA-256 that a store tells of a small object is that of its content."""
        put = await object_store.put("key", b"content")

        head = await object_store.head("key")

        assert head is not None
        assert {put.sha256, head.sha256} <= {None, hashlib.sha256(b"content").digest()}

    async def test_modify_time(self, object_store: ObjectStore) -> None:
        """Times are aware, in UTC, and those of the store's clock."""
        before = await object_store.now()
        await object_store.put("key", b"content")

        head = await object_store.head("key")
        (listed,) = [listed async for listed in object_store.list("")]

        assert head is not None
        for moment in (head.modify_time, listed.modify_time):
            assert moment.tzinfo is UTC
            assert timedelta(seconds=-1) <= moment - before < timedelta(seconds=CLOCK_SECONDS)

    async def test_if_absent(self, object_store: ObjectStore) -> None:
        """With if_absent the first write stands, and another one is ObjectExists and changes nothing."""
        await object_store.put("key", b"first", if_absent=True)

        with pytest.raises(ObjectExists):
            await object_store.put("key", b"second", if_absent=True)

        assert (await object_store.get("key"))[0] == b"first"

    async def test_if_absent_again(self, object_store: ObjectStore) -> None:
        """The very same bytes count as written, as after an answer that was lost."""
        first = await object_store.put("key", b"same", if_absent=True)

        again = await object_store.put("key", b"same", if_absent=True)

        assert again.etag == first.etag

    async def test_if_absent_same_size(self, object_store: ObjectStore) -> None:
        """Bytes of the same number are not the same bytes."""
        await object_store.put("key", b"same", if_absent=True)

        with pytest.raises(ObjectExists):
            await object_store.put("key", b"Same", if_absent=True)

    async def test_if_match(self, object_store: ObjectStore) -> None:
        """With if_match a write succeeds over the object that has the etag, from each of put, head, get and list."""
        stored = await object_store.put("key", b"0")

        second = await object_store.put("key", b"1", if_match=stored.etag)
        head = await object_store.head("key")
        assert head is not None
        await object_store.put("key", b"2", if_match=head.etag)
        _, got = await object_store.get("key")
        await object_store.put("key", b"3", if_match=got.etag)
        (listed,) = [listed async for listed in object_store.list("")]
        await object_store.put("key", b"4", if_match=listed.etag)

        assert (await object_store.get("key"))[0] == b"4"
        with pytest.raises(ObjectChanged):
            await object_store.put("key", b"5", if_match=second.etag)
        assert (await object_store.get("key"))[0] == b"4"

    async def test_if_match_absent(self, object_store: ObjectStore) -> None:
        """With if_match and no object a write is ObjectChanged, and there is still none."""
        stored = await object_store.put("key", b"0")
        await object_store.delete("key")

        with pytest.raises(ObjectChanged):
            await object_store.put("key", b"1", if_match=stored.etag)

        assert await object_store.head("key") is None

    async def test_if_match_again(self, object_store: ObjectStore) -> None:
        """A conditional write that is repeated finds its own bytes and succeeds."""
        stored = await object_store.put("key", b"0")
        await object_store.put("key", b"1", if_match=stored.etag)

        again = await object_store.put("key", b"1", if_match=stored.etag)

        assert (await object_store.get("key"))[1].etag == again.etag

    async def test_conditions_exclude(self, object_store: ObjectStore) -> None:
        """if_absent and if_match together are a mistake of the caller."""
        with pytest.raises(ValueError, match="exclude"):
            await object_store.put("key", b"", if_absent=True, if_match="etag")

    async def test_too_large(self, object_store: ObjectStore) -> None:
        """put refuses what get would not return."""
        with pytest.raises(ObjectTooLarge):
            await object_store.put("key", bytes(SMALL_BYTES_MAX + 1))

        assert await object_store.head("key") is None

    async def test_keys(self, object_store: ObjectStore) -> None:
        """Keys that lead elsewhere, or that some store cannot hold, are refused by every method."""

        async def upload(key: str) -> None:
            async with object_store.upload(key) as upload:
                await upload.complete()

        methods = [object_store.get, object_store.head, object_store.delete, partial(content, object_store), upload]
        for key in BAD_KEYS:
            for method in methods:
                with pytest.raises(ValueError, match="key"):
                    await method(key)  # type: ignore[operator]
            with pytest.raises(ValueError, match="key"):
                await object_store.put(key, b"")
        assert await keys(object_store) == []


class UploadSuite:
    """Streamed objects."""

    @pytest.mark.parametrize("piece", [777_777, len(LARGE)])
    async def test_upload(self, object_store: ObjectStore, piece: int) -> None:
        """The object is the bytes that were written, however they were cut; its parts are of its content in order."""
        async with object_store.upload("large") as upload:
            for start in range(0, len(LARGE), piece):
                await upload.write(LARGE[start : start + piece])
            stored, parts = await upload.complete()

        assert await content(object_store, "large") == LARGE
        assert stored == await object_store.head("large") or stored.sha256 is not None
        assert [part.number for part in parts] == list(range(1, len(parts) + 1))
        position = 0
        for part in parts:
            assert hashlib.sha256(LARGE[position : position + part.size_bytes]).digest() == part.sha256
            position += part.size_bytes
        assert position == len(LARGE) == stored.size_bytes

    async def test_single_bytes(self, object_store: ObjectStore, fault_table: FaultTable) -> None:
        """Writes may bring one byte, or none."""
        async with object_store.upload("key") as upload:
            for byte in b"a few bytes":
                await upload.write(bytes([byte]))
                await upload.write(b"")
            _, parts = await upload.complete()

        assert (await object_store.get("key"))[0] == b"a few bytes"
        assert [(part.number, part.size_bytes) for part in parts] == [(1, 11)]
        fault_table("T30", f"writes of one byte and of none, {type(object_store).__name__}", "the same bytes")

    async def test_empty(self, object_store: ObjectStore) -> None:
        """An upload of nothing is an empty object of one empty part."""
        async with object_store.upload("key") as upload:
            stored, parts = await upload.complete()

        assert stored.size_bytes == 0
        assert [(part.size_bytes, part.sha256) for part in parts] == [(0, hashlib.sha256(b"").digest())]

    @pytest.mark.parametrize("size", [PART_BYTES_MIN - 1, PART_BYTES_MIN, PART_BYTES_MIN + 1])
    async def test_part_boundary(self, object_store: ObjectStore, size: int) -> None:
        """Sizes around one part lose and gain nothing."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE[:size])
            _, parts = await upload.complete()

        assert await content(object_store, "key") == LARGE[:size]
        assert sum(part.size_bytes for part in parts) == size

    @pytest.mark.parametrize("size", [10, len(LARGE)])
    async def test_invisible_before(self, object_store: ObjectStore, size: int) -> None:
        """Nothing of an upload can be seen before it is complete."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE[:size])

            assert await object_store.head("key") is None
            assert await keys(object_store) == []

            await upload.complete()
        assert await keys(object_store) == ["key"]

    @pytest.mark.parametrize("size", [10, len(LARGE)])
    async def test_left_without_complete(self, object_store: ObjectStore, size: int) -> None:
        """An upload that is not completed leaves no object and no parts."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE[:size])

        assert await keys(object_store) == []
        assert await object_store.sweep("", await object_store.now() + timedelta(days=1)) == 0

    async def test_exception(self, object_store: ObjectStore) -> None:
        """An exception inside aborts the upload, passes, and keeps what was there before."""
        await object_store.put("key", b"before")

        async def failing() -> None:
            async with object_store.upload("key", if_absent=False) as upload:
                await upload.write(LARGE)
                raise KeyError

        with pytest.raises(KeyError):
            await failing()

        assert (await object_store.get("key"))[0] == b"before"
        assert await object_store.sweep("", await object_store.now() + timedelta(days=1)) == 0

    @pytest.mark.parametrize("size", [10, len(LARGE)])
    async def test_if_absent(self, object_store: ObjectStore, size: int) -> None:
        """An upload that was to be its key's first object is ObjectExists when it is not, and changes nothing."""
        await object_store.put("key", b"before")

        async with object_store.upload("key") as upload:
            await upload.write(LARGE[:size])
            with pytest.raises(ObjectExists):
                await upload.complete()

        assert (await object_store.get("key"))[0] == b"before"
        assert await object_store.sweep("", await object_store.now() + timedelta(days=1)) == 0

    @pytest.mark.parametrize("size", [10, len(LARGE)])
    async def test_replace(self, object_store: ObjectStore, size: int) -> None:
        """Without if_absent an upload replaces."""
        before = await object_store.put("key", b"before")

        async with object_store.upload("key", if_absent=False) as upload:
            await upload.write(LARGE[:size])
            stored, _ = await upload.complete()

        assert stored.etag != before.etag
        assert await content(object_store, "key") == LARGE[:size]

    async def test_placement(self, object_store: ObjectStore) -> None:
        """A placement is kept as far as the store says it can, and left out else."""
        capabilities = await object_store.probe()
        placement = Placement("STANDARD_IA", Lock("GOVERNANCE", datetime.now(UTC) + timedelta(days=1)))

        await object_store.put("small", b"x", placement=placement)
        async with object_store.upload("large", placement=placement) as upload:
            await upload.write(LARGE)
            await upload.complete()

        for key in ("small", "large"):
            head = await object_store.head(key)
            assert head is not None
            assert (head.storage_class == "STANDARD_IA") == capabilities.storage_classes
            assert (head.lock is not None) == capabilities.object_lock


class ReadSuite:
    """Reading."""

    async def test_ranges(self, object_store: ObjectStore) -> None:
        """A range is the bytes that it names; behind the end there are none."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE)
            await upload.complete()

        for start, length in RANGES:
            end = None if length is None else start + length
            assert await content(object_store, "key", start=start, length=length) == LARGE[start:end]

    async def test_pieces(self, object_store: ObjectStore) -> None:
        """No piece is larger than 1 MiB, none is empty."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE)
            await upload.complete()

        sizes = [len(piece) async for piece in object_store.read("key")]

        assert min(sizes) > 0
        assert max(sizes) <= PIECE_BYTES

    @pytest.mark.parametrize("length", [None, 0, 1])
    async def test_beyond(self, object_store: ObjectStore, length: int | None) -> None:
        """A range that begins behind the end is InvalidRange."""
        await object_store.put("key", b"12345")

        with pytest.raises(InvalidRange):
            await content(object_store, "key", start=6, length=length)

    async def test_missing(self, object_store: ObjectStore) -> None:
        """What is not there is ObjectNotFound to get and read, and None to head."""
        await object_store.put("a/b", b"")

        for key in ("none", "a/c", "a/b/c"):
            with pytest.raises(ObjectNotFound):
                await object_store.get(key)
            with pytest.raises(ObjectNotFound):
                await content(object_store, key)
            with pytest.raises(ObjectNotFound):
                await content(object_store, key, start=1, length=0)
            assert await object_store.head(key) is None

    async def test_beginning_of_a_key(self, object_store: ObjectStore) -> None:
        """The beginning of a key is no object."""
        await object_store.put("a/b", b"")

        with pytest.raises(ObjectNotFound):
            await object_store.get("a")

        assert await object_store.head("a") is None

    async def test_left_early(self, object_store: ObjectStore) -> None:
        """A reader that stops early leaves the store usable."""
        async with object_store.upload("key") as upload:
            await upload.write(LARGE)
            await upload.complete()

        for _ in range(3):
            reading = object_store.read("key")
            first = await anext(reading)
            await reading.aclose()  # type: ignore[attr-defined]
            assert LARGE.startswith(first)

        assert await content(object_store, "key") == LARGE


class ListSuite:
    """Listing and removing."""

    async def test_order(self, object_store: ObjectStore) -> None:
        """Keys come in code-point order of the whole key, which is not the order of folders."""
        names = ["B", "a-/x", "a-b", "a.b", "a/b", "a/b-c", "a/b.c", "a/c/d/e", "a0", "aB", "b/_", "b/a", "c"]
        for name in reversed(names):
            await object_store.put(name, b"")

        assert await keys(object_store) == names == sorted(names)

    async def test_prefix(self, object_store: ObjectStore) -> None:
        """A prefix is of the key, wherever a slash is."""
        for name in ("ab/c", "ab/cd", "ab/d", "abc", "b"):
            await object_store.put(name, b"")

        assert await keys(object_store, "ab") == ["ab/c", "ab/cd", "ab/d", "abc"]
        assert await keys(object_store, "ab/") == ["ab/c", "ab/cd", "ab/d"]
        assert await keys(object_store, "ab/c") == ["ab/c", "ab/cd"]
        assert await keys(object_store, "ab/c/") == []
        assert await keys(object_store, "none") == []

    async def test_after(self, object_store: ObjectStore) -> None:
        """A listing begins after a key, which need not exist."""
        names = ["a-b", "a/b", "a/d", "b"]
        for name in names:
            await object_store.put(name, b"")

        assert await keys(object_store, after="a/b") == ["a/d", "b"]
        assert await keys(object_store, after="a/c") == ["a/d", "b"]
        assert await keys(object_store, "a", after="a-b") == ["a/b", "a/d"]
        assert await keys(object_store, after="zz") == []

    @pytest.mark.regression("B7")
    async def test_pages(self, object_store: ObjectStore) -> None:
        """A listing is complete, also when it takes several pages."""
        names = [f"folder-{number % 3}/{number:03}" for number in range(40)]
        for name in names:
            await object_store.put(name, name.encode())

        listed = [listed async for listed in object_store.list("")]

        assert [one.key for one in listed] == sorted(names)
        assert {one.size_bytes for one in listed} == {len(names[0])}
        assert all(before.key < after.key for before, after in pairwise(listed))

    async def test_delete(self, object_store: ObjectStore) -> None:
        """An object that was removed is gone; removing it again, or what never was, is fine."""
        await object_store.put("a/b", b"")
        await object_store.put("a/c", b"")

        for _ in range(2):
            await object_store.delete("a/b")

        assert await keys(object_store) == ["a/c"]
        assert await object_store.head("a/b") is None

    async def test_write_after_delete(self, object_store: ObjectStore) -> None:
        """A key can be written again after it was removed, also as its first."""
        await object_store.put("a/b", b"1", if_absent=True)
        await object_store.delete("a/b")

        await object_store.put("a/b", b"2", if_absent=True)

        assert (await object_store.get("a/b"))[0] == b"2"

    async def test_empty(self, object_store: ObjectStore) -> None:
        """A new store is empty, answers, and can be swept."""
        await object_store.check()

        assert await keys(object_store) == []
        assert await object_store.sweep("", datetime.now(UTC)) == 0


class OtherSuite:
    """Sweeps, clock, probe, locks."""

    async def test_sweep(self, object_store: ObjectStore) -> None:
        """A sweep aborts the uploads below a prefix that began before a moment; they cannot be completed then."""
        later = await object_store.now() + timedelta(days=1)
        async with object_store.upload("a/b") as one, object_store.upload("c/d") as other:
            await one.write(LARGE)
            await other.write(LARGE)

            assert await object_store.sweep("", later - timedelta(days=2)) == 0
            assert await object_store.sweep("b", later) == 0
            assert await object_store.sweep("a", later) == 1
            assert await object_store.sweep("a", later) == 0

            with pytest.raises(Exception, match="repeat it"):
                await one.complete()
            await other.complete()
        assert await keys(object_store) == ["c/d"]

    async def test_now(self, object_store: ObjectStore) -> None:
        """The store's clock is to the second, in UTC."""
        now = await object_store.now()

        assert now.tzinfo is UTC
        assert now.microsecond == 0
        assert abs(now - datetime.now(UTC)) < timedelta(seconds=CLOCK_SECONDS)

    async def test_probe(self, object_store: ObjectStore) -> None:
        """A probe leaves nothing behind and says the same again."""
        first = await object_store.probe()

        assert await object_store.probe() == first
        assert await keys(object_store) == []

    async def test_extend_lock_unsupported(self, object_store: ObjectStore) -> None:
        """A store that says it has no locks refuses to lock."""
        await object_store.put("key", b"")

        assert not (await object_store.probe()).object_lock
        with pytest.raises(ObjectLockUnsupported):
            await object_store.extend_lock("key", Lock("GOVERNANCE", datetime.now(UTC) + timedelta(days=1)))
