"""What every object store guarantees when many write at once; a part of the suite."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

from llm_schema_registry.objects.store import ObjectChanged, ObjectExists, ObjectStore, Stored
from tests.fix_objects import ObjectPlace

WRITERS = 12
ROUNDS = 4


async def won(attempt: asyncio.Task[Stored]) -> bool:
    """Whether a conditional write succeeded."""
    try:
        await attempt
    except (ObjectExists, ObjectChanged):
        return False
    return True


class RaceSuite:
    """Many writers of one key."""

    async def test_if_absent(self, object_store: ObjectStore) -> None:
        """Of many tasks that write a key's first object, one wins, and its bytes are there."""
        for key in (f"round-{number}" for number in range(ROUNDS)):
            texts = [f"writer {number}".encode() for number in range(WRITERS)]

            async with asyncio.TaskGroup() as group:
                attempts = [group.create_task(absorbed(object_store, key, text)) for text in texts]

            winners = [text for text, attempt in zip(texts, attempts, strict=True) if attempt.result()]
            assert winners == [(await object_store.get(key))[0]]

    async def test_if_match(self, object_store: ObjectStore) -> None:
        """Of many tasks that replace the same version, one wins; a counter counts every increment once."""
        await object_store.put("counter", b"0")

        async def increment() -> None:
            while True:
                content, stored = await object_store.get("counter")
                mine = b"%d %d" % (int(content.split()[0]) + 1, random.getrandbits(64))
                try:
                    await object_store.put("counter", mine, if_match=stored.etag)
                except ObjectChanged:
                    continue
                return

        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(increment())

        assert (await object_store.get("counter"))[0].split()[0] == b"%d" % WRITERS

    async def test_several_stores(self, object_place: ObjectPlace) -> None:
        """The same holds between stores on one place, as of several processes, where writes are conditional."""
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(object_place.open()) for _ in range(3)]
            if not (await stores[0].probe()).conditional_writes:
                return  # Then nothing is promised between processes, which `probe` tells.
            for key in (f"round-{number}" for number in range(ROUNDS)):
                async with asyncio.TaskGroup() as group:
                    attempts = [
                        group.create_task(absorbed(store, key, b"%d" % number))
                        for number, store in enumerate(stores * 4)
                    ]
                assert sum(attempt.result() for attempt in attempts) == 1

    async def test_readers_see_whole_objects(self, object_store: ObjectStore) -> None:
        """While an object is replaced again and again, a reader gets one content or the other."""
        texts = [bytes([number]) * 100_000 for number in range(4)]
        await object_store.put("key", texts[0])

        async def write() -> None:
            for number in range(20):
                await object_store.put("key", texts[number % 4])

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done():
                assert (await object_store.get("key"))[0] in texts


async def absorbed(store: ObjectStore, key: str, text: bytes) -> bool:
    """Whether the write was the key's first."""
    try:
        await store.put(key, text, if_absent=True)
    except ObjectExists:
        return False
    return True
