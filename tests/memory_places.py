"""Places in memory that obey the port, a registry that serves from the live one, and a world in which all of it dies.

Every call of the port is a moment: a client may write in it, and a test may have it fail, or end the process there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from llm_schema_registry import errors
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.adapters.place_names import PlaceNames
from services.backup.domain.model import DatabaseFacts, Epoch, Head, Level, Place, StoredChange, TableFacts
from services.backup.domain.restore import Restore
from services.backup.domain.targets import AtBackup, Latest, Target
from services.backup.ports import PlaceWriter, RegistryCheck
from services.backup.usecases.journal import Journal
from services.backup.usecases.prepare import Aim, Prepare
from services.backup.usecases.swap import Swap, SwapRules
from tests.backup_parts import CLUSTER, HandClock, MemoryRegistry, Parts, make_parts

DUMP_BYTES = 2000
MARGIN = 10


class Killed(BaseException):
    """The process ended at this moment, as by SIGKILL: nothing that it would do afterwards happens."""


@dataclass
class Database:
    """A registry's tables. high: no larger schema id was ever reserved. mark: what it was swapped in from."""

    cluster_id: str = CLUSTER
    history: list[StoredChange] = field(default_factory=list)
    epochs: tuple[Epoch, ...] = (Epoch(1, None, 0),)
    high: int = 0
    fenced: bool = False
    closed: bool = False
    mark: str = ""

    @property
    def position(self) -> int:
        """Of the newest change."""
        return len(self.history)

    def head(self) -> Head:
        """Where it stands."""
        return Head(self.cluster_id, self.epochs[-1].id, self.position, 0, self.fenced, self.high, self.epochs)

    def copy(self) -> Database:
        """Another one with the same content."""
        return replace(self, history=list(self.history), closed=False, mark="")

    def facts(self, clock: HandClock) -> DatabaseFacts:
        """What it holds."""
        digest = hashlib.sha256(repr(self.history).encode()).digest()
        counts = {"changes": self.position, "schemas": self.position, "subjects": 1, "versions": self.position}
        return DatabaseFacts(
            head=self.head(),
            time=clock.now(),
            server_version="17.0",
            server_version_num=170000,
            encoding="UTF8",
            collation="C",
            character_type="C",
            extensions=(),
            migrations=("0001_init.sql",),
            tables=tuple(TableFacts(name, rows, digest) for name, rows in counts.items()),
            structure_sha256=bytes(32),
            access_sha256=bytes(32),
            database_bytes=1000,
        )


def stored(database: Database, clock: HandClock, kind: str, payload: bytes) -> StoredChange:
    """The next change of a database."""
    return StoredChange(
        position=database.position + 1,
        epoch=database.epochs[-1].id,
        time=clock.now(),
        actor="ann",
        subject="subject",
        kind=kind,
        method=None,
        request_id=None,
        digest=None,
        payload_version=1,
        payload=payload,
    )


@dataclass
class World:
    """One database server, its clients, and what they were told. acknowledged: text by schema id, for ever."""

    clock: HandClock
    databases: dict[str, Database] = field(default_factory=lambda: {"live": Database()})
    dumps: dict[bytes, Database] = field(default_factory=dict)
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    down: bool = False

    @property
    def live(self) -> Database:
        """What serves."""
        return self.databases["live"]

    def register(self, text: str | None = None) -> int | None:
        """Registers a content, as a client does; its id, or None when nobody takes it."""
        live = self.databases.get("live")
        if live is None or self.down or live.fenced or live.closed:
            return None
        live.high += 1
        content = (text or f"text {len(self.acknowledged)} of epoch {live.epochs[-1].id}").encode()
        live.history.append(stored(live, self.clock, "version_registered", b"%d:%b" % (live.high, content)))
        if self.acknowledged.setdefault(live.high, content) != content:
            self.twice.append(live.high)
        return live.high

    def contents(self, database: Database | None = None) -> dict[int, bytes]:
        """Text by schema id in a database, the live one unless told otherwise."""
        found = {}
        for change in (database or self.live).history:
            if change.kind == "version_registered":
                number, _, text = change.payload.partition(b":")
                found[int(number)] = text
        return found


@dataclass
class Moments:
    """Counts calls. act: called with the count and name of each; what it raises is what the call raises."""

    act: Callable[[int, str], None] = lambda _count, _name: None
    count: int = 0
    names: list[str] = field(default_factory=list)
    dead: bool = False

    async def at(self, name: str) -> None:
        """A moment. Also a place at which a task can be cancelled."""
        await asyncio.sleep(0)
        if self.dead:
            raise Killed
        self.count += 1
        self.names.append(name)
        try:
            self.act(self.count, name)
        except Killed:
            self.dead = True
            raise

    async def reached(self, name: str) -> None:
        """See Failpoints."""
        await self.at(name)


class MemoryPlaces:
    """See Places. One process's view of the world."""

    def __init__(self, world: World, moments: Moments) -> None:
        self._world = world
        self._moments = moments
        self._names = PlaceNames("live")

    @property
    def live(self) -> str:
        """See Places."""
        return "live"

    def scratch(self, token: str) -> str:
        """See Places."""
        return self._names.scratch(token)

    def aside(self, token: str) -> str:
        """See Places."""
        return self._names.aside(token)

    async def _at(self, name: str) -> None:
        await self._moments.at(name)
        if self._world.down:
            raise errors.DatabaseUnavailable("the server of the test is down")

    async def existing(self) -> Mapping[str, int]:
        """See Places."""
        await self._at("existing")
        return dict.fromkeys(self._world.databases, 1000)

    async def preflight(self, facts: DatabaseFacts) -> Sequence[str]:  # noqa: ARG002
        """See Places."""
        await self._at("preflight")
        return ()

    async def create(self, name: str, facts: DatabaseFacts) -> None:
        """See Places."""
        await self._at("create")
        self._names.require_made(name)
        if name in self._world.databases:
            raise errors.DatabaseUnfit(f"the database {name} is there already")
        self._world.databases[name] = Database(facts.head.cluster_id)
        await self._at("created")

    async def drop(self, name: str) -> None:
        """See Places."""
        await self._at("drop")
        self._names.require_made(name)
        self._world.databases.pop(name, None)
        await self._at("dropped")

    async def restore(self, name: str, dump: AsyncIterator[bytes]) -> None:
        """See Places."""
        await self._at("restore")
        content = b"".join([piece async for piece in dump])
        self._world.databases[name] = self._world.dumps[content].copy()
        await self._at("restored")

    async def facts(self, name: str) -> DatabaseFacts:
        """See Places."""
        await self._at("facts")
        return self._found(name).facts(self._world.clock)

    async def rows(self, name: str) -> Mapping[str, int]:
        """See Places."""
        await self._at("rows")
        return {each.name: each.rows for each in self._found(name).facts(self._world.clock).tables}

    async def check(self, name: str) -> RegistryCheck:
        """See Places."""
        await self._at("check")
        found = self._found(name)
        wrong = [str(each) for count, each in enumerate(found.history, 1) if each.position != count]
        return RegistryCheck(found.position, found.position, tuple(wrong))

    async def head(self, name: str) -> Head:
        """See Places."""
        await self._at(f"head of {self._kind(name)}")
        return self._found(name).head()

    async def changes(self, name: str, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:  # noqa: ARG002
        """See Places."""
        await self._at("changes")
        return self._found(name).history[after : after + limit]

    async def replay(self, name: str, changes: AsyncIterator[StoredChange]) -> Place:
        """See Places."""
        await self._at("replay")
        database = self._found(name)
        async for change in changes:
            if change.position <= database.position:
                if database.history[change.position - 1] != change:
                    raise errors.RestoreFailed(f"{change.place} is another change here")
                continue
            if change.kind == "epoch_started":
                parent, fork = (int(each) for each in change.payload.split(b"/"))
                database.epochs = (*database.epochs, Epoch(change.epoch, parent, fork))
            if (change.epoch, change.position) != (database.epochs[-1].id, database.position + 1):
                raise errors.RestoreFailed(f"{change.place} does not follow {database.head().place}")
            database.history.append(change)
            if change.kind == "version_registered":
                database.high = max(database.high, int(change.payload.partition(b":")[0]))
            await self._at("replayed one")
        return database.head().place

    async def set_fenced(self, name: str, *, fenced: bool) -> Head:
        """See Places."""
        await self._at("fence" if fenced else "unfence")
        if name == self.live and name in self._world.databases:
            self._world.databases[name].closed = False
        database = self._found(name)
        database.fenced = fenced
        await self._at("fenced" if fenced else "unfenced")
        return database.head()

    @asynccontextmanager
    async def writer(self, name: str) -> AsyncIterator[PlaceWriter]:
        """See Places."""
        await self._at("writer")
        yield MemoryWriter(self, name)

    async def begin(self, name: str, epoch: Epoch, next_schema_id: int) -> None:
        """See PlaceWriter.begin_epoch."""
        await self._at("begin epoch")
        database = self._found(name)
        if database.epochs[-1].id == epoch.id:
            return
        if (database.epochs[-1].id, database.position) != (epoch.parent, epoch.fork_position):
            raise errors.RestoreFailed("the place does not stand at the fork")
        database.epochs = (*database.epochs, epoch)
        database.high = max(database.high, next_schema_id - 1)
        database.fenced = False
        payload = b"%d/%d" % (epoch.parent or 0, epoch.fork_position)
        database.history.append(stored(database, self._world.clock, "epoch_started", payload))
        await self._at("begun")

    async def swap(self, *, incoming: str, aside: str) -> None:
        """See Places."""
        await self._at("swap")
        databases = self._world.databases
        if incoming not in databases:
            if "live" not in databases or databases["live"].mark != incoming:
                raise errors.DatabaseUnfit(f"there is no database {incoming} to swap in")
            databases["live"].closed = False
            return
        if "live" in databases:
            if aside in databases:
                raise errors.DatabaseUnfit(f"the database {aside} is there already")
            databases["live"].closed = True
        try:
            await self._at("closed")
        except Killed:
            raise
        except BaseException:
            self._reopen()
            raise
        # Both renames are one transaction.
        if "live" in databases:
            databases[aside] = databases.pop("live")
        databases["live"] = databases.pop(incoming)
        databases["live"].mark, databases["live"].closed = incoming, False
        await self._at("renamed")

    def _reopen(self) -> None:
        if "live" in self._world.databases:
            self._world.databases["live"].closed = False

    def _found(self, name: str) -> Database:
        if name not in self._world.databases:
            raise errors.DatabaseUnfit(f"there is no database {name}")
        found = self._world.databases[name]
        if name == self.live and found.closed:
            raise errors.DatabaseUnavailable(f"the database {name} is being swapped")
        return found

    def _kind(self, name: str) -> str:
        return "live" if name == self.live else "another"


class MemoryWriter:
    """See PlaceWriter."""

    def __init__(self, places: MemoryPlaces, name: str) -> None:
        self._places = places
        self._name = name

    async def replay(self, changes: AsyncIterator[StoredChange]) -> Place:
        """See PlaceWriter."""
        return await self._places.replay(self._name, changes)

    async def begin_epoch(self, epoch: Epoch, *, next_schema_id: int, actor: str) -> None:  # noqa: ARG002
        """See PlaceWriter."""
        await self._places.begin(self._name, epoch, next_schema_id)


class LiveSource:
    """See Source. Whatever has the live name at that moment."""

    dump_version = "17.0"

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock = world.clock

    def _live(self) -> Database:
        live = self._world.databases.get("live")
        if live is None or live.closed or self._world.down:
            raise errors.DatabaseUnavailable("the live database does not answer")
        return live

    async def head(self) -> Head:
        """See Source."""
        return self._live().head()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[LiveSnapshot]:
        """See Source."""
        yield LiveSnapshot(self._world, self._live().copy())

    async def changes(self, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:  # noqa: ARG002
        """See Source."""
        return self._live().history[after : after + limit]

    async def wait(self, timeout_seconds: float) -> None:
        """See Source."""

    async def check(self) -> None:
        """See Source."""
        self._live()


class LiveSnapshot:
    """See Snapshot."""

    dump_version = "17.0"
    dumped_rows = 0

    def __init__(self, world: World, database: Database) -> None:
        self._world = world
        self._database = database

    async def facts(self) -> DatabaseFacts:
        """See Snapshot."""
        return self._database.facts(self._world.clock)

    async def dump(self) -> AsyncGenerator[bytes, None]:
        """See Snapshot. The dump is a name that `MemoryPlaces.restore` knows."""
        dump = b"dump %d" % len(self._world.dumps)
        dump += b"." * (DUMP_BYTES - len(dump))
        self._world.dumps[dump] = self._database
        yield dump


@dataclass
class Process:
    """A backup process over a world: the making side, and the restoring side."""

    world: World
    moments: Moments
    parts: Parts
    journal: Journal
    prepare: Prepare
    swap: Swap

    def running(self) -> Running:
        """What an operation would tell through."""
        clock = self.world.clock
        operation = Operation("x-1", OperationKind.ACTIVATE_RESTORE, "ann", "", "here", clock.now(), Subject("restore"))
        return Running(operation, clock)

    async def backup(self) -> str:
        """Id of a backup, verified to V3."""
        self.world.clock.move(seconds=1)
        entry = await self.parts.proven()
        return entry.id

    async def archive(self) -> None:
        """Ships everything that the live history has."""
        self.world.clock.move(seconds=1)
        head = self.world.live.head()
        tip = await self.parts.archive.tip(head)
        while True:
            line = next(each for each in head.epochs if each.id == tip.epoch)
            child = next((each for each in head.epochs if each.parent == line.id), None)
            end = child.fork_position if child else head.position
            changes = self.world.live.history[tip.position : end]
            if changes:
                tip = await self.parts.archive.ship(tip, head, changes)
            if child is None:
                break
            tip = type(tip)(child.id, child.fork_position, None)
        await self.parts.archive.beat(tip, head, self.world.clock.now())

    async def prepared(self, target: Target | None = None) -> Restore:
        """A prepared restore, to `latest` unless told otherwise."""
        self.world.clock.move(seconds=1)
        restore_id = self.parts.repository.new_id()
        await self.prepare.run(restore_id, Aim(target or Latest(), Level.V2), self.running())
        return await self.journal.get(restore_id)

    async def activated(self, restore: Restore, confirmation: str = "") -> Restore:
        """An active restore."""
        await self.swap.activate(restore.id, confirmation, self.running())
        return await self.journal.get(restore.id)

    async def reverted(self, restore: Restore, confirmation: str = "") -> Restore:
        """A reverted restore."""
        await self.swap.revert(restore.id, confirmation, self.running())
        return await self.journal.get(restore.id)

    async def repaired(self) -> None:
        """Ends what a process left, as every replica does by itself."""
        for restore in await self.swap.abandoned():
            await self.swap.go_on(restore.id, self.running())
        await self.prepare.sweep()


def process(folder: Path, world: World, moments: Moments | None = None, **changes: Any) -> Process:
    """A process on a folder. Another one on the same folder and world is another replica, or the next start."""
    moments = moments or Moments()
    source = cast("MemoryRegistry", LiveSource(world))
    parts = make_parts(folder, clock=world.clock, registry=source, failpoints=moments, **changes)
    places = MemoryPlaces(world, moments)
    journal = Journal(parts.repository)
    prepare = Prepare(parts.repository, parts.archive, places, journal)
    rules = SwapRules(id_margin=MARGIN)
    swap = Swap(parts.repository, places, journal, prepare, rules)
    return Process(world, moments, parts, journal, prepare, swap)


def scratches(world: World) -> list[str]:
    """Names of places beside the live one."""
    return sorted(set(world.databases) - {"live"})


def token(restore: Restore) -> str:
    """What the names of a restore's places end with."""
    return ids.token(restore.id)


__all__ = ["AtBackup", "Killed", "Latest", "Moments", "Process", "World", "process", "scratches", "token"]
