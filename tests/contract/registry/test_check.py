"""`python -m services.registry check`: whatever is wrong with a database is named, and nothing is written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
import pytest_asyncio

from deploy.local.postgres import Postgres as Server
from llm_schema_registry.kernel.postgres import Postgres
from services.registry.adapters.workers import WorkerPool
from services.registry.tools.check import check
from tests import registry_tools as tools
from tests.fix_registry import postgres_options
from tests.registry_life import START, Life

DEEDS = 250
WITHOUT_KEYS = "SET session_replication_role = replica"
"""Foreign keys keep most of this out of a database; a restore of a damaged dump without them would not."""

LIVE = "(SELECT min(id) FROM registry.schemas WHERE text IS NOT NULL AND format = 1)"
REFERRING = "(SELECT min(schema_id) FROM registry.schema_references)"
TARGET = "(SELECT min(target_schema_id) FROM registry.schema_references)"
BUSY = "(SELECT min(name) FROM registry.subjects WHERE live_count > 1)"
MIDDLE = "(SELECT position / 2 FROM registry.head)"

DAMAGES = [
    (f"UPDATE registry.schemas SET identity = '\\x01ff' WHERE id = {LIVE}", "as its identity fingerprint is not"),
    (f"UPDATE registry.schemas SET semantic = '\\x01ff' WHERE id = {LIVE}", "as its semantic fingerprint is not"),
    (f"UPDATE registry.schemas SET text = '{{}}' WHERE id = {LIVE}", "as its identity and semantic fingerprint"),
    (f"UPDATE registry.schemas SET text = 'nonsense' WHERE id = {LIVE}", "cannot be read again"),
    (f"UPDATE registry.schemas SET format = 77 WHERE id = {LIVE}", "has format 77"),
    (f"UPDATE registry.schemas SET text = NULL WHERE id = {LIVE}", "has no text, but version"),
    ("UPDATE registry.schemas SET text = '{}' WHERE text IS NULL", "has a text, but no version holds it"),
    (f"DELETE FROM registry.schemas WHERE id = {TARGET}", "is not there or purged"),
    (f"DELETE FROM registry.schemas WHERE id = {LIVE}", "belongs to a subject or a content that is not there"),
    (
        f"UPDATE registry.schema_references SET target_schema_id = {REFERRING}",
        "not the content that its own content is resolved with",
    ),
    ("UPDATE registry.schema_references SET ordinal = 7", "it is out of order"),
    ("DELETE FROM registry.version_references", "has 0 references, its content 1"),
    ("UPDATE registry.version_references SET target_number = 777", "not the content that its own content"),
    (
        f"UPDATE registry.subjects SET live_count = live_count - 1 WHERE name = {BUSY}",
        "versions, 1 of them live|counts",
    ),
    (f"UPDATE registry.subjects SET next_number = next_number + 1 WHERE name = {BUSY}", "its history says"),
    (f"UPDATE registry.subjects SET revision = revision + 1 WHERE name = {BUSY}", "its history says"),
    (f"DELETE FROM registry.subjects WHERE name = {BUSY}", "belongs to a subject or a content that is not there"),
    (f"DELETE FROM registry.changes WHERE position = {MIDDLE}", "follows position"),
    ("DELETE FROM registry.changes WHERE position = (SELECT position FROM registry.head)", "the history ends at"),
    (f"UPDATE registry.changes SET payload = '\\xff' WHERE position = {MIDDLE}", "its payload is not a message"),
    (f"UPDATE registry.changes SET payload_version = 99 WHERE position = {MIDDLE}", "payload version 99"),
    (f"UPDATE registry.changes SET kind = 'epoch_started' WHERE position = {MIDDLE}", "the row says epoch_started"),
    (f"UPDATE registry.changes SET subject = 'another' WHERE position = {MIDDLE}", "of subject 'another', its payload"),
    (f"UPDATE registry.changes SET epoch = 3 WHERE position = {MIDDLE}", "is of epoch 3, by the forks of epoch 1"),
    ("UPDATE registry.request_ids SET request_id = 'x' || request_id", "whose change was made under another"),
    ("UPDATE registry.request_ids SET position = 1", "whose change was made under another"),
    ("UPDATE registry.head SET position = position + 5", "the head stands at position"),
    ("UPDATE registry.head SET epoch = 4", "the head stands at epoch 4"),
    ("UPDATE registry.head SET purge_position = 0", "the newest purge"),
    ("UPDATE registry.head SET global_revision = global_revision + 1", "global settings have revision"),
    ('UPDATE registry.head SET global_settings = \'{"level": "FULL_TRANSITIVE"}\'', "not those that the history ends"),
    ("DELETE FROM registry.head", "the head's row is missing"),
    ("INSERT INTO registry.epochs VALUES (5, 4, 1, now())", "epoch 5 comes from 4"),
    ("INSERT INTO registry.epochs VALUES (2, 1, 3, now())", "is of epoch 1, by the forks of epoch 2"),
    ("SELECT setval('registry.schema_ids', 1)", "may give 2 again"),
]


@pytest_asyncio.fixture(scope="session")
async def busy_template(postgres: Server, registry_template: str) -> str:
    """Name of a database with a registry in which everything happened. Nobody is connected to it."""
    name = "registry_in_order"
    url = postgres.create_database(name, template=registry_template)
    async with Postgres(postgres_options(url)) as database, WorkerPool(seconds_max=30) as workers:
        await Life(database, workers, random.Random(3)).live(DEEDS)
    return name


@pytest.fixture
def url(busy_template: str, make_database: Callable[..., str]) -> str:
    """URL of a database that is in order."""
    return make_database(template=busy_template)


async def test_in_order(url: str) -> None:
    """A registry that lived for a while is in order; all its contents and changes were read, nothing was written."""
    before = await tools.tables(url)

    said = await tools.run(url, "check")

    contents = await tools.value(url, "SELECT count(*) FROM registry.schemas WHERE text IS NOT NULL")
    changes = await tools.value(url, "SELECT count(*) FROM registry.changes")
    assert said.lines == [{"schemas": contents, "changes": changes, "problems": []}]
    assert await tools.value(url, "SELECT count(DISTINCT format) FROM registry.schemas WHERE text IS NOT NULL") == 3
    assert await tools.tables(url) == before


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[words for _, words in DAMAGES])
async def test_damage_is_named(url: str, damage: str, words: str) -> None:
    """Each kind of damage is named."""
    await tools.execute(url, f"{WITHOUT_KEYS}; {damage}")

    problems = (await check(postgres_options(url), "registry")).problems

    assert any(word in problem for problem in problems for word in words.split("|")), problems


async def test_everything_is_wrong(url: str) -> None:
    """Of very many problems a hundred are named."""
    await tools.execute(
        url,
        "UPDATE registry.changes SET payload = '\\xff'",
        "UPDATE registry.schemas SET semantic = '\\x0102'",
    )

    said = await tools.run(url, "check")

    assert (said.status, len(said.result["problems"])) == (0, 100)


async def test_problems_are_in_order(url: str) -> None:
    """Contents are named in the order of their ids, those with references among the others, after the history."""
    await tools.execute(
        url,
        "UPDATE registry.schemas SET semantic = '\\x0102' WHERE text IS NOT NULL",
        "UPDATE registry.head SET position = position + 5",
    )
    wrong = "SELECT array_agg(id) FROM (SELECT id FROM registry.schemas WHERE text IS NOT NULL ORDER BY id LIMIT 99) s"

    problems = (await check(postgres_options(url), "registry")).problems

    assert problems[0].startswith("the head stands at position")
    assert [int(each.split()[1].rstrip(":")) for each in problems[1:]] == await tools.value(url, wrong)


async def test_in_order_while_it_lives(url: str) -> None:
    """A registry that is written to meanwhile is in order: all is read as of one moment."""
    async with (
        Postgres(postgres_options(url)) as database,
        WorkerPool(seconds_max=30) as workers,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(Life(database, workers, random.Random(4), START + timedelta(days=30)).live(60))
        checks = [await check(postgres_options(url), "registry") for _ in range(2)]

    assert [checked.problems for checked in checks] == [(), ()]


@pytest.mark.parametrize("table", ["changes", "schema_references"])
async def test_table_is_missing(url: str, table: str) -> None:
    """A table that is missing ends the check with words, whichever of its two readers meets that first."""
    await tools.execute(url, f"DROP TABLE registry.{table} CASCADE")

    said = await tools.run(url, "check")

    assert (said.status, said.result["reason"]) == (1, "DATABASE_UNFIT")


async def test_no_registry(database_url: str) -> None:
    """A database without a registry cannot be checked, and that is said."""
    said = await tools.run(database_url, "check")

    assert (said.status, said.result["reason"]) == (1, "DATABASE_UNFIT")


async def test_wrong_arguments(database_url: str) -> None:
    """Names of schemas that would need quotes are refused before anything is read."""
    said = await tools.run(database_url, "check", "--schema", 'x"; DROP SCHEMA registry')

    assert (said.status, said.lines) == (2, [])
