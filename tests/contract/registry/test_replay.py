"""`python -m services.registry replay`: a history that is applied leaves the very rows that its commits left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from llm_schema_registry.kernel.postgres import Postgres
from llm_schema_registry.registry.v1 import change_pb2
from llm_schema_registry.registry.v1.stored_change_pb2 import StoredChange
from services.registry.adapters.workers import WorkerPool
from services.registry.codec import events
from services.registry.domain.events import VersionRegistered
from tests import registry_tools as tools
from tests.fix_registry import postgres_options
from tests.registry_author import schema, version
from tests.registry_life import START, Life

MakeDatabase = Callable[..., str]
DEEDS = 100


async def lived(url: str, rng: random.Random, deeds: int = DEEDS) -> None:
    """Lives a random life in a registry's database."""
    async with Postgres(postgres_options(url)) as database, WorkerPool(seconds_max=30) as workers:
        life = Life(database, workers, rng)
        await life.live(deeds)
        assert 0 < life.refused < deeds * 3 / 4, "a life of refusals alone shows nothing"


async def lived_on(url: str, rng: random.Random, deeds: int = DEEDS // 2) -> None:
    """Lives on, a month later."""
    async with Postgres(postgres_options(url)) as database, WorkerPool(seconds_max=30) as workers:
        await Life(database, workers, rng, START + timedelta(days=30)).live(deeds)


@pytest.fixture
def databases(registry_template: str, make_database: MakeDatabase) -> Callable[[], str]:
    """Makes databases with the registry's tables, all with the same cluster id."""
    return lambda: make_database(template=registry_template)


def setting(position: int, level: int, *, epoch: int = 1, request_id: str = "") -> StoredChange:
    """A change of the global settings."""
    event = change_pb2.ChangeEvent()
    event.config_updated.config.compatibility_level = level  # type: ignore[assignment]
    change = StoredChange(epoch=epoch, position=position, actor="ann", kind="config_updated", payload_version=1)
    change.time.FromDatetime(START + timedelta(days=position))
    change.payload = event.SerializeToString()
    if request_id:
        change.request.method, change.request.request_id, change.request.digest = "UpdateConfig", request_id, b"d"
    return change


@pytest.mark.parametrize("_", range(3))
async def test_every_row_is_the_same(databases: Callable[[], str], rng: random.Random, _: int) -> None:
    """After a replay of a random life all tables hold the same rows, across a new epoch too."""
    first, second = databases(), databases()
    await lived(first, rng)
    position = await tools.value(first, "SELECT position FROM registry.head")
    arguments = ("--epoch", "3", "--parent", "1", "--fork", str(position), "--next-schema-id", "500", "--actor", "ann")
    begun = await tools.run(first, "begin-epoch", *arguments)
    await lived_on(first, rng)

    said = await tools.replay(second, await tools.changes(first))

    assert begun.result == {"epoch": 3, "position": position + 1}
    head = await tools.value(first, "SELECT position FROM registry.head")
    assert said.lines[-1] == {"epoch": 3, "position": head, "applied": head, "unread": 0}
    assert await tools.tables(second) == await tools.tables(first)
    assert await tools.value(
        second, "SELECT last_value >= (SELECT max(id) FROM registry.schemas) FROM registry.schema_ids"
    )
    assert (await tools.run(second, "check")).result["problems"] == []


_HELD = """
INSERT INTO registry.changes (position, epoch, time, actor, subject, kind, payload_version, payload)
VALUES (%s, 1, now(), '', '', '', 1, '')
"""
_WAITS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def killed_at(url: str, given: bytes, position: int) -> int:
    """The head after a replay was killed while it was about to write the change at a position."""
    async with await psycopg.AsyncConnection.connect(url) as blocking:
        # Whoever writes this position waits for the end of this transaction.
        await blocking.execute(_HELD, [position])
        process = await tools.start(url, "replay")
        feeding = asyncio.create_task(process.communicate(given))
        try:
            async with asyncio.timeout(60):
                while not await tools.value(url, _WAITS):
                    assert not feeding.done(), "the replay ended before the position"
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.gather(feeding, return_exceptions=True)
        await blocking.rollback()
    head: int = await tools.value(url, "SELECT position FROM registry.head")
    return head


@pytest.mark.slow
async def test_killed_and_repeated(databases: Callable[[], str], rng: random.Random) -> None:
    """A replay that is killed within a transaction leaves whole changes; a repeat of all of it gives the same rows."""
    first, second = databases(), databases()
    await lived(first, rng, 400)
    history = await tools.changes(first)
    given = tools.delimited(history)
    assert len(history) > 200, "more than one batch"

    heads = [await killed_at(second, given, position) for position in (1, 150, len(history))]
    said = await tools.replay(second, history)

    assert heads == [0, 0, 200], "a whole batch or nothing"
    assert said.result["applied"] == len(history) - 200
    assert await tools.tables(second) == await tools.tables(first)


async def test_request_id_that_was_used_again(databases: Callable[[], str]) -> None:
    """A request id that had been forgotten and used again leads to the newer change, within a batch and across two."""
    url = databases()
    history = [setting(position, 1 + position % 2, request_id="again") for position in range(1, 5)]

    await tools.replay(url, history[:1])
    said = await tools.replay(url, history)

    assert said.result == {"epoch": 1, "position": 4, "applied": 3, "unread": 0}
    assert await tools.value(url, "SELECT array_agg(position) FROM registry.request_ids") == [4]


async def test_content_that_this_code_refuses(databases: Callable[[], str]) -> None:
    """A text that is no schema to this code is restored as it was, found by its version's own words, and counted."""
    url = databases()
    event = VersionRegistered(version("subject", 1, 5), schema(5, "no schema"), ())
    change = StoredChange(epoch=1, position=1, actor="ann", subject="subject", kind="version_registered")
    change.time.FromDatetime(START)
    change.payload_version, change.payload = 1, events.payload(event)

    said = await tools.replay(url, [change])

    assert said.result == {"epoch": 1, "position": 1, "applied": 1, "unread": 1}
    assert await tools.value(url, "SELECT text FROM registry.schemas WHERE id = 5") == "no schema"
    assert await tools.value(url, "SELECT words::text FROM registry.versions") == "'subject'"
    assert await tools.value(url, "SELECT nextval('registry.schema_ids')") == 6


async def test_fenced_place(databases: Callable[[], str]) -> None:
    """A dump may be of a fenced database: a replay goes on, and the fence stands again after it."""
    url = databases()
    await tools.execute(url, "UPDATE registry.head SET fenced = true")

    said = await tools.replay(url, [setting(1, 1)])

    assert said.result["position"] == 1
    assert await tools.value(url, "SELECT fenced FROM registry.head")


async def test_another_schema(databases: Callable[[], str], rng: random.Random) -> None:
    """With --schema both tools work on that schema's tables, and on no other's."""
    first, second, empty = databases(), databases(), databases()
    await lived(first, rng, 60)
    await tools.execute(second, "ALTER SCHEMA registry RENAME TO registry_restore_abc")

    said = await tools.replay(second, await tools.changes(first), "--schema", "registry_restore_abc")
    checked = await tools.run(second, "check", "--schema", "registry_restore_abc")

    assert said.status == 0
    assert checked.result["problems"] == []
    assert await tools.tables(second, "registry_restore_abc") == await tools.tables(first)
    assert (await tools.run(empty, "check", "--schema", "registry_restore_abc")).status == 1


@pytest.mark.parametrize(
    ("wrong", "position", "words"),
    [
        (setting(4, 1), 4, "position 4 does not follow position 2"),
        (setting(3, 1, epoch=2), 3, "epoch 2 does not follow 1/2"),
        (setting(2, 2), 2, "another change at position 2"),
    ],
)
async def test_change_that_cannot_follow(
    databases: Callable[[], str], wrong: StoredChange, position: int, words: str
) -> None:
    """A gap, another line and another history stop the replay, name the position, and undo nothing that was right."""
    url = databases()

    said = await tools.replay(url, [setting(1, 1), setting(2, 1), wrong])

    assert said.status == 1
    assert said.result["position"] == position
    assert words in said.result["error"]
    assert await tools.value(url, "SELECT position FROM registry.head") == 2


async def test_change_of_what_is_not_there(databases: Callable[[], str], rng: random.Random) -> None:
    """A change of a version that the place does not have stops the replay at its position; those before it stay."""
    first, second = databases(), databases()
    await lived(first, rng, 80)
    history = await tools.changes(first)
    cut = next(change.position for change in history if change.kind == "versions_deleted")
    forged = StoredChange.FromString(history[cut - 1].SerializeToString())
    event = change_pb2.ChangeEvent.FromString(forged.payload)
    event.versions_deleted.versions[:] = [77]
    forged.payload = event.SerializeToString()

    said = await tools.replay(second, [*history[: cut - 1], forged, *history[cut:]])

    assert (said.status, said.result["position"], said.result["reason"]) == (1, cut, "CANNOT_FOLLOW")
    assert await tools.value(second, "SELECT position FROM registry.head") == cut - 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda given: given[:-3], "the input ends within a change, after position 1"),
        (lambda given: given + b"\xff" * 9, "a length of more than 5 bytes after position 2"),
        (lambda given: given + b"\x03\xff\xff\xff", "is not a change"),
        (lambda given: given + b"\xff\xff\xff\xff\x0f", "a change of 4294967295 bytes"),
    ],
)
async def test_damaged_input(databases: Callable[[], str], damage: Callable[[bytes], bytes], words: str) -> None:
    """Input that is cut off or is no change stops the replay after what came before, and says where."""
    url = databases()
    given = damage(tools.delimited([setting(1, 1), setting(2, 2)]))

    said = await tools.run(url, "replay", given=given)

    assert said.status == 1
    assert words in said.result["error"]
    assert await tools.value(url, "SELECT position FROM registry.head") == (1 if "within" in words else 2)


async def test_begin_epoch_twice(databases: Callable[[], str]) -> None:
    """Beginning an epoch allows writes and moves the ids on; again it changes nothing, and elsewhere it is refused."""
    url = databases()
    await tools.execute(url, "UPDATE registry.head SET fenced = true")
    rest = ("--parent", "1", "--fork", "0", "--actor", "ann")

    first = await tools.run(url, "begin-epoch", "--epoch", "2", "--next-schema-id", "900", *rest)
    again = await tools.run(url, "begin-epoch", "--epoch", "2", "--next-schema-id", "900", *rest)
    other = await tools.run(url, "begin-epoch", "--epoch", "3", "--next-schema-id", "1", *rest)

    assert first.result == again.result == {"epoch": 2, "position": 1}
    assert (other.status, other.result["reason"]) == (1, "CANNOT_FOLLOW")
    assert not await tools.value(url, "SELECT fenced FROM registry.head")
    assert await tools.value(url, "SELECT nextval('registry.schema_ids')") == 900
    assert await tools.value(url, "SELECT count(*) FROM registry.epochs") == 2


async def test_no_database() -> None:
    """A database that does not answer is named as such."""
    said = await tools.replay("postgresql://nobody@127.0.0.1:1/nothing", [])

    assert (said.status, said.result["reason"]) == (1, "DATABASE_UNAVAILABLE")
