"""The registry's store, in PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.local.postgres import Postgres as Server
from llm_schema_registry.kernel.migrate import migrate
from llm_schema_registry.kernel.postgres import Postgres, PostgresOptions
from services.registry.adapters.memory_store import MemoryStore
from services.registry.adapters.postgres_store import PostgresStore

MIGRATIONS = Path(__file__).resolve().parent.parent / "services" / "registry" / "migrations"
TEMPLATE = "registry_template"


def postgres_options(url: str, *, pool_min: int = 1, pool_max: int = 10) -> PostgresOptions:
    """How tests reach a database of the test servers, which have no TLS."""
    return PostgresOptions(url, pool_min=pool_min, pool_max=pool_max, ssl_enabled=False)


@pytest_asyncio.fixture(scope="session")
async def registry_template(postgres: Server) -> str:
    """Name of a database with the registry's tables, to make others from. Nobody is connected to it."""
    url = postgres.create_database(TEMPLATE)
    await migrate(postgres_options(url), MIGRATIONS, schema="registry", code_version="0.1.0")
    return TEMPLATE


@pytest.fixture
def migrated_database_url(registry_template: str, make_database: Callable[..., str]) -> str:
    """URL of a fresh database with the registry's tables."""
    return make_database(template=registry_template)


@pytest_asyncio.fixture
async def registry_database(migrated_database_url: str) -> AsyncIterator[Postgres]:
    """A pool to a fresh database with the registry's tables."""
    async with Postgres(postgres_options(migrated_database_url)) as database:
        yield database


@pytest.fixture
def postgres_store(registry_database: Postgres) -> PostgresStore:
    """An empty registry in PostgreSQL."""
    return PostgresStore(registry_database)


@pytest.fixture
def memory_store() -> MemoryStore:
    """An empty registry in memory."""
    return MemoryStore()
