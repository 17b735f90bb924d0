"""A registry that lived for a while, for whatever restores it."""

from __future__ import annotations

import random

import pytest_asyncio

from deploy.local.postgres import Postgres as Server
from llm_schema_registry.kernel.postgres import Postgres
from services.registry.adapters.workers import WorkerPool
from tests.fix_registry import postgres_options
from tests.registry_life import Life

DEEDS = 60


@pytest_asyncio.fixture(scope="session")
async def lived_template(postgres: Server, registry_template: str) -> str:
    """Name of a database with a registry that lived for a while. Nobody is connected to it."""
    name = "registry_that_lived"
    url = postgres.create_database(name, template=registry_template)
    async with Postgres(postgres_options(url)) as database, WorkerPool(seconds_max=30) as workers:
        await Life(database, workers, random.Random(7)).live(DEEDS)
    return name
