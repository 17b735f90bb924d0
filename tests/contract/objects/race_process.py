"""One of several processes that race for the same keys; prints which of them it won.

Arguments: a folder, or the options of a bucket as JSON; this process's number; how many rounds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.s3 import S3Options, open_s3
from llm_schema_registry.objects.store import ObjectChanged, ObjectExists, ObjectStore


async def race(store: ObjectStore, number: int, rounds: int) -> None:
    """Writes each round's key first, if nobody did; then increments a counter as often, whatever others do."""
    won = []
    for key in (f"round-{count}" for count in range(rounds)):
        try:
            await store.put(key, b"%d" % number, if_absent=True)
        except ObjectExists:
            continue
        won.append(key)
    incremented = 0
    while incremented < rounds:
        content, stored = await store.get("counter")
        value = int(content.split()[0]) + 1
        try:
            await store.put("counter", b"%d %d" % (value, number), if_match=stored.etag)
        except ObjectChanged:
            continue
        incremented += 1
    print(json.dumps(won))  # noqa: T201  For the test that started this process.


async def main(place: str, number: str, rounds: str) -> None:
    """Opens the store and races once every process has begun."""
    async with AsyncExitStack() as stack:
        store: ObjectStore
        if place.startswith("{"):
            store = await stack.enter_async_context(open_s3(S3Options(**json.loads(place))))
        else:
            store = DirectoryStore(Path(place))
        await race(store, int(number), int(rounds))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
