"""What every implementation of Places promises, on a real server. A test module gives the fixture `site`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.postgres import Postgres
from services.backup.adapters import postgres_session
from services.backup.adapters.postgres_source import PostgresSource
from services.backup.domain.model import DatabaseFacts, Epoch, Head, StoredChange
from services.backup.ports import Failpoints, Places
from services.registry.adapters.workers import WorkerPool
from tests import registry_tools
from tests.fix_calls import Registry
from tests.fix_faults import eventually
from tests.fix_registry import postgres_options
from tests.fix_service import ROOT, MakeService
from tests.registry_life import START, Life

TOKEN, OTHER = "abcdefghij01", "abcdefghij02"
CLIENTS = 50
DEEDS = 60
KILLED = -signal.SIGKILL


async def begun(site: Site, name: str, epoch: Epoch, *, next_schema_id: int) -> Head:
    """The head of a place after an epoch was begun in it."""
    async with site.places.writer(name) as writer:
        await writer.begin_epoch(epoch, next_schema_id=next_schema_id, actor="ann")
    return await site.places.head(name)


class Nothing:
    """No failpoint does anything."""

    async def reached(self, name: str) -> None:
        """See Failpoints."""


class Stop(Exception):
    """What a failpoint of a test raises."""


@dataclass(frozen=True)
class Raise:
    """Fails at one failpoint."""

    at: str

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        if name == self.at:
            raise Stop


@dataclass(frozen=True)
class Silent:
    """Says nothing more to the server at one failpoint, until that has ended the session."""

    at: str
    url: str

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        if name == self.at:
            await eventually(self._ended)

    async def _ended(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.url, dbname="postgres") as connection:
            found = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND usename IS NOT NULL"
            )
            return await found.fetchone() == (0,)


@dataclass(frozen=True)
class Site:
    """A live registry and the places beside it.

    make: places with failpoints. where: URL and schema of a place. process: arguments of swap_process.py.
    tells_room: the server tells this role where its data is.
    """

    url: str
    folders: Sequence[Path]
    make: Callable[[Failpoints], Places]
    where: Callable[[str], tuple[str, str]]
    process: tuple[str, ...]
    tells_room: bool
    failpoints: tuple[str, ...]

    @property
    def places(self) -> Places:
        return self.make(Nothing())

    async def tables(self, name: str) -> dict[str, list[tuple[object, ...]]]:
        """All rows of a place that lets clients in."""
        url, schema = self.where(name)
        return await registry_tools.tables(url, schema)

    async def dumped(self) -> tuple[DatabaseFacts, list[bytes]]:
        """A backup of the live registry: what it holds, and its dump."""
        source = PostgresSource(postgres_options(self.url), self.folders, SystemClock())
        async with source, source.snapshot() as snapshot:
            return await snapshot.facts(), [piece async for piece in snapshot.dump()]

    async def restored(self, name: str) -> DatabaseFacts:
        """Prepares a place from a dump of the live registry."""
        facts, dump = await self.dumped()
        await self.places.create(name, facts)
        await self.places.restore(name, given(dump))
        return facts

    async def live_on(self, rng: random.Random, *, later: int = 1, deeds: int = DEEDS // 2) -> None:
        """Lets the live registry live on."""
        async with Postgres(postgres_options(self.url)) as database, WorkerPool(seconds_max=30) as workers:
            await Life(database, workers, rng, START.replace(year=START.year + later)).live(deeds)


async def given(dump: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A dump as it comes from a store."""
    for piece in dump:
        yield piece


async def one_by_one(changes: Sequence[StoredChange]) -> AsyncIterator[StoredChange]:
    """Changes as they come from an archive."""
    for change in changes:
        yield change


@asynccontextmanager
async def registry_clients(target: str, count: int) -> AsyncIterator[list[Registry]]:
    """So many clients of a registry."""
    clients = [RegistryClient(target) for _ in range(count)]
    try:
        yield [Registry(client) for client in clients]
    finally:
        await asyncio.gather(*(client.close() for client in clients))


class PlacesSuite:
    """The specification."""

    async def test_restored_place_holds_the_same(self, site: Site) -> None:
        """A dump that was loaded gives the same rows, structure, owners, grants, and the registry finds it in order."""
        name = site.places.scratch(TOKEN)

        facts = await site.restored(name)

        found = await site.places.facts(name)
        assert found.tables == facts.tables
        assert await site.places.rows(name) == {table.name: table.rows for table in facts.tables}
        assert (found.structure_sha256, found.access_sha256) == (facts.structure_sha256, facts.access_sha256)
        assert (found.encoding, found.collation, found.migrations) == (
            facts.encoding,
            facts.collation,
            facts.migrations,
        )
        checked = await site.places.check(name)
        assert checked.problems == ()
        assert checked.changes == facts.head.position
        assert 0 < checked.schemas <= facts.rows("schemas")

    async def test_replay_to_the_live_head(self, site: Site, rng: random.Random) -> None:
        """Changes made after the dump, replayed, leave the very rows of the live one; a repeat passes them over."""
        name = site.places.scratch(TOKEN)
        facts = await site.restored(name)
        await site.live_on(rng)

        # From further back than needed: what is there already is passed over.
        tail = await site.places.changes(site.places.live, facts.head.position - 5, limit=10_000, bytes_max=1 << 30)
        place = await site.places.replay(name, one_by_one(tail))
        again = await site.places.replay(name, one_by_one(tail))

        head = await site.places.head(site.places.live)
        assert place == again == head.place
        assert place.position > facts.head.position
        assert await site.tables(name) == await site.tables(site.places.live)
        assert (await site.places.head(name)).schema_id_high <= head.schema_id_high

    async def test_change_that_cannot_follow(self, site: Site) -> None:
        """A change of another line is refused by its position, and what was applied before stays."""
        name = site.places.scratch(TOKEN)
        facts = await site.restored(name)
        last = (await site.places.changes(name, facts.head.position - 1, limit=1, bytes_max=1 << 20))[0]
        stranger = replace(last, epoch=9, position=last.position + 1)

        with pytest.raises(errors.RestoreFailed) as refusal:
            await site.places.replay(name, one_by_one([last, stranger]))

        assert refusal.value.metadata["position"] == str(stranger.position)
        assert (await site.places.head(name)).position == facts.head.position

    @pytest.mark.regression("B4")
    async def test_damaged_dump(self, site: Site) -> None:
        """A dump that is cut off fails, and the place can be dropped and made again."""
        name = site.places.scratch(TOKEN)
        facts, dump = await site.dumped()
        whole = b"".join(dump)
        await site.places.create(name, facts)

        with pytest.raises(errors.RestoreFailed):
            await site.places.restore(name, given([whole[: len(whole) * 2 // 3]]))

        await site.places.drop(name)
        await site.places.create(name, facts)
        await site.places.restore(name, given(dump))

    async def test_dump_that_fails(self, site: Site) -> None:
        """What the dump's source raises comes through, and nothing runs on."""
        name = site.places.scratch(TOKEN)
        facts, dump = await site.dumped()

        async def failing() -> AsyncIterator[bytes]:
            yield dump[0][:1000]
            raise errors.BackupDamaged("a chunk is not what was written")

        await site.places.create(name, facts)

        with pytest.raises(errors.BackupDamaged):
            await site.places.restore(name, failing())

        await site.places.drop(name)

    async def test_fence(self, site: Site, rng: random.Random) -> None:
        """A fenced place takes no writes, says so, and takes them again afterwards; repeats change nothing."""
        live = site.places.live
        before = await site.places.head(live)

        fenced = await site.places.set_fenced(live, fenced=True)
        assert await site.places.set_fenced(live, fenced=True) == fenced == replace(before, fenced=True)
        with pytest.raises(errors.WritesFenced):
            await site.live_on(rng, deeds=5)
        assert (await site.places.head(live)).position == fenced.position
        opened = await site.places.set_fenced(live, fenced=False)
        assert (opened.place, opened.fenced) == (before.place, False)

    async def test_begin_epoch(self, site: Site) -> None:
        """A new epoch begins with a change at the fork, opens the fence, moves the ids on, and begins once."""
        name = site.places.scratch(TOKEN)
        facts = await site.restored(name)
        fork = (await site.places.set_fenced(name, fenced=True)).position
        epoch = Epoch(facts.head.epoch + 4, facts.head.epoch, fork)

        head = await begun(site, name, epoch, next_schema_id=5000)
        again = await begun(site, name, epoch, next_schema_id=5000)

        assert (head.epoch, head.position, head.fenced) == (epoch.id, fork + 1, False)
        assert head == again
        assert head.epochs[-1] == epoch
        (change,) = await site.places.changes(name, fork, limit=10, bytes_max=1 << 20)
        assert (change.kind, change.actor, change.epoch) == ("epoch_started", "ann", epoch.id)
        assert (await site.places.check(name)).problems == ()

    async def test_epoch_that_does_not_fork_here(self, site: Site) -> None:
        """An epoch that forks elsewhere is refused, and nothing changes."""
        name = site.places.scratch(TOKEN)
        facts = await site.restored(name)
        elsewhere = Epoch(facts.head.epoch + 1, facts.head.epoch, facts.head.position + 7)

        with pytest.raises(errors.RestoreFailed):
            await begun(site, name, elsewhere, next_schema_id=1)

        assert (await site.places.head(name)).place == facts.head.place

    async def test_swap_and_back(self, site: Site, rng: random.Random) -> None:
        """A swap puts the incoming place under the live name and keeps the old one; another swap takes it back."""
        places = site.places
        incoming, aside, scratch = places.scratch(TOKEN), places.aside(TOKEN), places.scratch(OTHER)
        restored = await site.restored(incoming)
        await site.live_on(rng)
        replaced = await places.head(places.live)

        await places.swap(incoming=incoming, aside=aside)

        assert set(await places.existing()) == {places.live, aside}
        assert (await places.head(places.live)).place == restored.head.place
        assert await places.head(aside) == replaced
        await places.swap(incoming=incoming, aside=aside)
        assert (await places.head(places.live)).place == restored.head.place

        await places.swap(incoming=aside, aside=scratch)

        assert set(await places.existing()) == {places.live, scratch}
        assert await places.head(places.live) == replaced
        await places.drop(scratch)
        assert set(await places.existing()) == {places.live}

    async def test_swap_of_nothing(self, site: Site) -> None:
        """A place that is not there is not swapped in, and the live one serves on."""
        places = site.places

        with pytest.raises(errors.DatabaseUnfit):
            await places.swap(incoming=places.scratch(TOKEN), aside=places.aside(TOKEN))

        assert (await places.head(places.live)).position > 0

    async def test_aside_that_is_taken(self, site: Site) -> None:
        """A place that was put aside is never overwritten by another swap."""
        places = site.places
        incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
        facts = await site.restored(incoming)
        await places.create(aside, facts)

        with pytest.raises(errors.DatabaseUnfit):
            await places.swap(incoming=incoming, aside=aside)

        assert set(await places.existing()) == {places.live, incoming, aside}

    @pytest.mark.regression("B5")
    async def test_failed_swap_serves_on(self, site: Site) -> None:
        """A swap that fails at any point leaves a live registry that can be reached."""
        for failpoint in site.failpoints:
            places = site.make(Raise(failpoint))
            incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
            await site.restored(incoming)

            with pytest.raises(Stop):
                await places.swap(incoming=incoming, aside=aside)

            url, schema = site.where(places.live)
            assert await registry_tools.value(url, f"SELECT position FROM {schema}.head"), failpoint
            await site.places.swap(incoming=incoming, aside=aside)
            await places.drop(aside)

    async def test_swap_of_a_process_that_is_cut_off(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """The server gives up a swap whose process says nothing in the middle of it: others can end it then."""
        for failpoint in ("swap.first_renamed", "swap.second_renamed"):
            places = site.make(Silent(failpoint, site.url))
            incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
            await site.restored(incoming)

            with monkeypatch.context() as hasty:
                hasty.setattr(postgres_session, "CUT_OFF_SECONDS", 0.3)
                with pytest.raises(errors.DatabaseUnavailable):
                    await places.swap(incoming=incoming, aside=aside)

            await site.places.swap(incoming=incoming, aside=aside)
            assert set(await places.existing()) == {places.live, aside}
            await places.drop(aside)

    async def test_killed_swap_is_continued(self, site: Site) -> None:
        """A process that is killed at any point of a swap leaves what another one continues to the end."""
        places = site.places
        for failpoint in site.failpoints:
            incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
            await site.restored(incoming)

            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "tests.contract.backup.swap_process",
                    *site.process,
                    incoming,
                    aside,
                    failpoint,
                ),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)]), "URL": site.url},
            )
            assert await process.wait() == KILLED, failpoint
            await places.swap(incoming=incoming, aside=aside)

            assert set(await places.existing()) == {places.live, aside}, failpoint
            url, schema = site.where(places.live)
            assert await registry_tools.value(url, f"SELECT position FROM {schema}.head"), failpoint
            await places.drop(aside)

    async def test_swap_under_clients(self, site: Site, make_service: MakeService) -> None:
        """A registry that serves many clients answers from the swapped-in place by itself, and writes to it."""
        places = site.places
        incoming, aside = places.scratch(TOKEN), places.aside(TOKEN)
        service = make_service(site.url, database__pool_max=10)
        await service.start_async()
        head = (await site.restored(incoming)).head
        # Without an epoch of its own it would take commits that were planned on the one before.
        restored = await begun(site, incoming, Epoch(head.epoch + 1, head.epoch, head.position), next_schema_id=10**6)
        over, refused = asyncio.Event(), Counter[errors.Code]()

        async def work(registry: Registry, worker: int) -> int:
            done = 0
            while not over.is_set():
                done += 1
                try:
                    await registry.register(f"busy/{worker}/{done}", {"title": f"{worker} {done}"})
                except errors.Error as error:
                    refused[error.code] += 1
            return done

        async with registry_clients(service.target, CLIENTS) as clients:
            workers = [asyncio.create_task(work(client, number)) for number, client in enumerate(clients)]
            try:
                await eventually(lambda: _position_above(places, places.live, restored.position))

                await places.swap(incoming=incoming, aside=aside)

                await eventually(lambda: _position_above(places, places.live, restored.position))
            finally:
                over.set()
                await asyncio.gather(*workers)

        assert set(await places.existing()) == {places.live, aside}
        assert set(refused) <= {errors.Code.UNAVAILABLE}
        found = await places.check(places.live)
        assert found.problems == (), found.problems
        assert (await places.check(aside)).problems == ()
        assert await service.stop_async() == 0

    async def test_names(self, site: Site) -> None:
        """What restores made is recognised by its name; nothing else is dropped, and the live one never."""
        places = site.places
        facts, _ = await site.dumped()
        await places.create(places.scratch(TOKEN), facts)

        existing = await places.existing()

        assert set(existing) == {places.live, places.scratch(TOKEN)}
        assert existing[places.live] > 0
        for name in (places.live, "postgres", f"{places.live}_restore_", f"{places.live}_other_{TOKEN}", "x"):
            with pytest.raises(ValueError, match="not a place"):
                await places.drop(name)
        with pytest.raises(ValueError, match="token"):
            places.scratch("No-Token")
        await places.drop(places.aside(TOKEN))
        with pytest.raises(errors.DatabaseUnfit):
            await places.create(places.scratch(TOKEN), facts)
        with pytest.raises(errors.DatabaseUnfit):
            await places.head(places.aside(TOKEN))

    async def test_preflight(self, site: Site) -> None:
        """Nothing stands in a restore's way here; each thing that would is named."""
        facts, _ = await site.dumped()
        strange = replace(
            facts,
            server_version="99.1",
            server_version_num=990001,
            encoding="LATIN1",
            extensions=(*facts.extensions, ("no_such_extension", "1.0")),
            database_bytes=1 << 60,
            roles=(*facts.roles, "No such role"),
        )

        assert await site.places.preflight(facts) == []
        problems = "\n".join(await site.places.preflight(strange))

        for word in ("99.1", "LATIN1", "no_such_extension", "the role No such role, which"):
            assert word in problems
        assert (str(int((1 << 60) * 1.3)) in problems) == site.tells_room


async def _position_above(places: Places, name: str, position: int) -> bool:
    return (await places.head(name)).position > position
