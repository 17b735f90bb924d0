"""The store in PostgreSQL does what the one in memory does."""

from __future__ import annotations

import asyncio
import random

from llm_schema_registry.kernel.postgres import Postgres
from services.registry.adapters.memory_store import MemoryStore
from services.registry.adapters.postgres_store import PostgresStore
from tests.registry_author import Author
from tests.registry_history import outcome, picture, step

STEPS = 250
LOOKS = 25
WRITERS = 12
STEPS_OF_A_WRITER = 40


async def test_random_history(memory_store: MemoryStore, postgres_store: PostgresStore, rng: random.Random) -> None:
    """Every step of a random history has the same outcome in both, and leaves the same registry behind."""
    in_memory, in_postgres = Author(memory_store), Author(postgres_store)
    refused = 0

    for number in range(STEPS):
        seed = rng.random()
        expected = await outcome(step(random.Random(seed))(in_memory))
        assert await outcome(step(random.Random(seed))(in_postgres)) == expected, f"step {number}, seed {seed}"
        refused += isinstance(expected, type)
        if number % LOOKS == 0:
            assert await picture(postgres_store) == await picture(memory_store), f"after step {number}, seed {seed}"

    assert await picture(postgres_store) == await picture(memory_store)
    assert 0 < refused < STEPS * 3 / 4, "a history of refusals alone shows nothing"


async def test_history_of_many_writers(
    postgres_store: PostgresStore, registry_database: Postgres, rng: random.Random
) -> None:
    """What many writers leave behind is what their changes amount to one after the other, and none met a deadlock."""

    async def write(source: random.Random) -> None:
        author = Author(postgres_store)
        for _ in range(STEPS_OF_A_WRITER):
            await outcome(step(source)(author))

    await asyncio.gather(*(write(random.Random(rng.random())) for _ in range(WRITERS)))

    replayed = MemoryStore()
    for change in await postgres_store.changes(after=0, limit=10_000, text_bytes_max=1 << 40):
        replayed.replay(change)
    expected, found = await picture(replayed), await picture(postgres_store)
    # Words are not part of a change: a replay makes them from the text.
    assert {**found, "updated": None} == {**expected, "updated": None}
    async with registry_database.connection() as connection:
        cursor = await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await cursor.fetchone() == (0,)
