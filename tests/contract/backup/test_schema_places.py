"""Places that are schemas keep the promises of the port, for a role that may not create databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio

from deploy.local.postgres import Postgres as Server
from llm_schema_registry import errors
from services.backup.adapters.dump_script import Copy, EndOfRows, NotAScript, Rows, Statements, pieces
from services.backup.adapters.schema_places import FAILPOINTS, SchemaPlaces
from tests import registry_tools
from tests.contract.backup.places_suite import TOKEN, Nothing, PlacesSuite, Site
from tests.fix_registry import postgres_options

ROLE = "no_databases"


@pytest.fixture
def role(postgres: Server) -> Iterator[str]:
    """A role without any right of its own."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'secret-of-none'".encode())
    yield ROLE
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {ROLE}".encode())
        connection.execute(f"DROP ROLE {ROLE}".encode())


@pytest_asyncio.fixture
async def site(
    lived_template: str, role: str, make_database: Callable[..., str], postgres: Server, program_folders: list[Path]
) -> AsyncIterator[Site]:
    """A live registry in a schema that a role without CREATEDB owns, in a database that others use too."""
    url = make_database(template=lived_template)
    database = urlsplit(url).path[1:]
    with psycopg.connect(url, autocommit=True) as connection:
        _give(connection, role)
        connection.execute(f"GRANT CREATE ON DATABASE {database} TO {role}".encode())
        connection.execute(b"CREATE TABLE public.of_others (id integer PRIMARY KEY)")
        connection.execute(f"GRANT SELECT ON public.of_others TO {role}".encode())
    parts = urlsplit(url)
    own = urlunsplit(parts._replace(netloc=f"{role}:secret-of-none@{parts.netloc.rpartition('@')[2]}"))
    yield Site(
        url=own,
        folders=program_folders,
        make=lambda failpoints: SchemaPlaces(postgres_options(own), failpoints, folders=program_folders),
        where=lambda name: (own, name),
        process=("schemas",),
        tells_room=False,
        failpoints=FAILPOINTS,
    )
    postgres.drop_database(database)


def _give(connection: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """Makes the role the owner of the registry's schema and all that is in it."""
    connection.execute(f"ALTER SCHEMA registry OWNER TO {role}".encode())
    relations = connection.execute(
        b"SELECT relname::text FROM pg_class WHERE relnamespace = 'registry'::regnamespace AND relkind IN ('r', 'S')"
    ).fetchall()
    for (name,) in relations:
        connection.execute(f"ALTER TABLE registry.{name} OWNER TO {role}".encode())
    connection.execute(f"ALTER FUNCTION registry.refuse OWNER TO {role}".encode())


class TestSchemaPlaces(PlacesSuite):
    """places_suite.py"""


async def test_missing_rights_are_named(site: Site, postgres: Server, role: str) -> None:
    """A role that may not create schemas is told so before anything is touched, and when it tries."""
    facts, _ = await site.dumped()
    database = urlsplit(site.url).path[1:]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"REVOKE CREATE ON DATABASE {database} FROM {role}".encode())

    assert "GRANT CREATE ON DATABASE" in "\n".join(await site.places.preflight(facts))
    with pytest.raises(errors.DatabaseUnfit, match="creating the schema"):
        await site.places.create(site.places.scratch(TOKEN), facts)


async def test_swap_waits_for_writers(site: Site) -> None:
    """A swap waits for whoever writes: what is committed before it is in the place that is put aside, not lost."""
    places = site.places
    incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
    await site.restored(incoming)
    async with await psycopg.AsyncConnection.connect(site.url) as writer:
        await writer.execute("UPDATE registry.head SET position = position")
        impatient = SchemaPlaces(postgres_options(site.url), Nothing(), swaps_max=1)

        with pytest.raises(errors.DatabaseUnfit, match="others hold it"):
            await impatient.swap(incoming=incoming, aside=aside)

        assert set(await places.existing()) == {places.live, incoming}
    await places.swap(incoming=incoming, aside=aside)
    assert set(await places.existing()) == {places.live, aside}


async def test_others_keep_their_tables(site: Site, postgres: Server) -> None:
    """What else is in the database is neither loaded again nor touched."""
    places = site.places
    await site.restored(places.scratch(TOKEN))
    await places.swap(incoming=places.scratch(TOKEN), aside=places.aside(TOKEN))

    assert await registry_tools.value(site.url, "SELECT count(*) FROM pg_class WHERE relname = 'of_others'") == 1


async def read(script: bytes, size: int) -> list[object]:
    """The pieces of a script that comes so many bytes at a time; rows are joined."""

    async def coming() -> AsyncIterator[bytes]:
        for start in range(0, len(script), size):
            yield script[start : start + size]

    found: list[object] = []
    async for piece in pieces(coming()):
        if isinstance(piece, Rows) and found and isinstance(found[-1], Rows):
            found[-1] = Rows(found[-1].data + piece.data)
        else:
            found.append(piece)
    return found


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
async def test_script_in_any_pieces(size: int) -> None:
    """Rows are told from statements, and what looks like a command within a text or a body is none."""
    before = b"""\\restrict Abc1
-- it's a comment with "quotes" and $$
SET x = 'a''b\\';
CREATE FUNCTION f() AS $_$
COPY registry.a (b) FROM stdin;
\\! a command
$_$;
COMMENT ON TABLE "odd "" name" IS E'it\\'s
COPY registry.a (b) FROM stdin;
';
/* a /* nested */ comment
\\! a command */
"""
    rows = b"1\t'it\\\\.\\n\n\\\\.\n\\N\t$$\n"
    script = (
        before + b"COPY registry.a (b, c) FROM stdin;\n" + rows + b"\\.\n" + b"COPY registry.e (b) FROM stdin;\n\\.\n"
    )
    script += b"SELECT 1;\n\\unrestrict Abc1\n"

    found = await read(script, size)

    assert found == [
        Statements(before.partition(b"\n")[2]),
        Copy(b"COPY registry.a (b, c) FROM stdin"),
        Rows(rows),
        EndOfRows(),
        Copy(b"COPY registry.e (b) FROM stdin"),
        EndOfRows(),
        Statements(b"SELECT 1;\n"),
    ]


@pytest.mark.parametrize(
    "script",
    [b"\\! rm -r x\n", b"\\connect other\n", b"COPY a FROM stdin;\n1\n", b"SELECT 'a;\n", b"DO $$ BEGIN;\n"],
)
async def test_what_is_no_script(script: bytes) -> None:
    """Commands of psql, and scripts that end early, are refused."""
    with pytest.raises(NotAScript):
        await read(script, 64)
