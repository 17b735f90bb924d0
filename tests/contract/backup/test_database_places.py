"""Places that are databases keep the promises of the port, also for a role with few rights."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio

from deploy.local.postgres import Postgres as Server
from llm_schema_registry import errors
from llm_schema_registry.kernel.migrate import migrate
from services.backup.adapters.database_swap import FAILPOINTS
from services.backup.adapters.place_names import PlaceNames
from services.backup.adapters.postgres_places import DatabasePlaces
from tests import registry_tools
from tests.contract.backup.places_suite import OTHER, TOKEN, PlacesSuite, Site
from tests.fix_registry import MIGRATIONS, postgres_options


def named(url: str, database: str) -> str:
    """The URL of another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def site_of(url: str, folders: list[Path]) -> Site:
    """Database places beside a live one."""
    return Site(
        url=url,
        folders=folders,
        make=lambda failpoints: DatabasePlaces(postgres_options(url), failpoints, folders=folders),
        where=lambda name: (named(url, name), "registry"),
        process=("databases",),
        tells_room=True,
        failpoints=FAILPOINTS,
    )


async def drop_all(site: Site) -> None:
    """Removes what a test left."""
    for name in await site.places.existing():
        if name != site.places.live:
            await site.places.drop(name)


@pytest_asyncio.fixture
async def site(
    lived_template: str, make_database: Callable[..., str], program_folders: list[Path]
) -> AsyncIterator[Site]:
    """A live registry in a database of its own."""
    site = site_of(make_database(template=lived_template), program_folders)
    yield site
    await drop_all(site)


class TestDatabasePlaces(PlacesSuite):
    """places_suite.py"""


@pytest.fixture
def role(postgres: Server) -> Iterator[str]:
    """A role that may create databases, and nothing else."""
    name = "few_rights"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'secret-of-few'".encode())
    yield name
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}".encode())


@pytest_asyncio.fixture
async def owned(
    postgres: Server, role: str, make_database: Callable[..., str], program_folders: list[Path]
) -> AsyncIterator[Site]:
    """A live registry that the role owns, with rights and settings of its own."""
    url = make_database()
    database = urlsplit(url).path[1:]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} OWNER TO {role}".encode())
        connection.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC".encode())
        connection.execute(f'ALTER DATABASE {database} SET search_path TO registry, "a b"'.encode())
        connection.execute(f"ALTER DATABASE {database} SET work_mem TO '7MB'".encode())
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    own = urlunsplit(parts._replace(netloc=f"{role}:secret-of-few@{host}"))
    await migrate(postgres_options(own), MIGRATIONS, schema="registry", code_version="0.1.0")
    site = site_of(own, program_folders)
    yield site
    await drop_all(site)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


async def test_few_rights_are_enough(owned: Site, rng: random.Random) -> None:
    """CREATEDB and ownership are enough for a whole restore, and the new database is as open as the old one was."""
    places = owned.places
    await owned.live_on(rng)
    incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
    facts, _ = await owned.dumped()

    assert await places.preflight(facts) == []
    await owned.restored(incoming)
    await places.swap(incoming=incoming, aside=aside)

    assert (await places.facts(places.live)).access_sha256 == facts.access_sha256
    described = """
        SELECT ARRAY[pg_get_userbyid(datdba)::text,
            (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) AS a)::text, datcollate, s.setconfig::text]
        FROM pg_database AS d LEFT JOIN pg_db_role_setting AS s ON s.setdatabase = d.oid WHERE datname = '{}'
    """
    found = [await registry_tools.value(owned.url, described.format(name)) for name in (places.live, aside)]
    assert found[0] == found[1]
    assert "7MB" in found[0][3]


async def test_missing_rights_are_named(postgres: Server, owned: Site, role: str) -> None:
    """A role without CREATEDB, and sessions it may not end, are found before anything is touched."""
    facts, _ = await owned.dumped()
    with psycopg.connect(named(postgres.url, owned.places.live)) as stranger:
        stranger.execute("SELECT 1")
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {role} NOCREATEDB".encode())

        problems = "\n".join(await owned.places.preflight(facts))

        assert "CREATEDB" in problems
        assert "pg_signal_backend" in problems
    with pytest.raises(errors.DatabaseUnfit, match="right"):
        await owned.places.create(owned.places.scratch(TOKEN), facts)


async def test_session_that_cannot_be_ended(postgres: Server, owned: Site, rng: random.Random) -> None:
    """A session that the role may not end stops the swap, which says so; the live registry can be reached."""
    places = owned.places
    await owned.live_on(rng, deeds=5)
    await owned.restored(places.scratch(TOKEN))
    with psycopg.connect(named(postgres.url, places.live)) as stranger:
        stranger.execute("SELECT 1")

        with pytest.raises(errors.DatabaseUnfit, match="swapping the databases is not allowed"):
            await places.swap(incoming=places.scratch(TOKEN), aside=places.aside(TOKEN))

    assert await registry_tools.value(owned.url, "SELECT position FROM registry.head") > 0


async def test_live_database_is_gone(site: Site, postgres: Server) -> None:
    """Without a live database a place is made as the backup was and takes the live name; a repeat changes nothing."""
    places = site.places
    facts, dump = await site.dumped()
    postgres.drop_database(places.live)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in dump:
            yield piece

    assert await places.preflight(facts) == []
    await places.create(places.scratch(TOKEN), facts)
    await places.restore(places.scratch(TOKEN), pieces())
    for _ in range(2):
        await places.swap(incoming=places.scratch(TOKEN), aside=places.aside(TOKEN))

    assert (await places.head(places.live)).place == facts.head.place
    assert set(await places.existing()) == {places.live}


async def test_aside_lets_nobody_in(site: Site) -> None:
    """What was put aside lets no client in, while its head can be read."""
    places = site.places
    await site.restored(places.scratch(TOKEN))
    await places.swap(incoming=places.scratch(TOKEN), aside=places.aside(TOKEN))

    assert (await places.head(places.aside(TOKEN))).position > 0
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        await registry_tools.value(named(site.url, places.aside(TOKEN)), "SELECT 1")


def test_long_names_never_meet() -> None:
    """Names that PostgreSQL would cut keep their token, and those of two long names that begin alike differ."""
    first, second = (PlaceNames("registry_" * 6 + ending) for ending in ("one", "two"))

    for names in (first, second):
        for name in (names.scratch(TOKEN), names.aside(OTHER)):
            assert len(name.encode()) <= 63
            assert names.is_made(name)
    assert not second.is_made(first.scratch(TOKEN))
    assert first.scratch(TOKEN).endswith(TOKEN)
