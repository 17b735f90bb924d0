"""The store in PostgreSQL does what the one in memory does."""

from __future__ import annotations

import random

from services.registry.adapters.memory_store import MemoryStore
from services.registry.adapters.postgres_store import PostgresStore
from tests.registry_author import Author
from tests.registry_history import outcome, picture, step

STEPS = 250
LOOKS = 25


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
