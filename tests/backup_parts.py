"""The making side of the backup service over a folder: a registry in memory, a clock moved by hand, real use cases."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from llm_schema_registry import errors
from llm_schema_registry.kernel.failpoints import NoFailpoints
from llm_schema_registry.objects.directory import DirectoryStore, machine_clock
from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.adapters.recipients import generate_key_file, load_recipient, system_dice
from services.backup.codec import segments
from services.backup.domain.documents import Signer
from services.backup.domain.model import (
    DatabaseFacts,
    Epoch,
    Head,
    Kind,
    Level,
    Manifest,
    StoredChange,
    TableFacts,
    Verification,
)
from services.backup.domain.retention import Policy
from services.backup.domain.targets import SegmentSpan
from services.backup.ports import Failpoints, Places, Recipient
from services.backup.usecases.archive import Archive, ArchiveRules
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Catalog, Entry
from services.backup.usecases.data_keys import DataKeys
from services.backup.usecases.make_backup import BackupRules, MakeBackup, Wanted
from services.backup.usecases.prune import Prune, PruneRules
from services.backup.usecases.repository import Repository
from services.backup.usecases.ship import Ship
from services.backup.usecases.verify import Verify
from tests.object_faults import FaultyStore, Plan

CLUSTER = "cluster-of-a-test"
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, time: datetime = NOON) -> None:
        self.time = time
        self.seconds = 0.0

    def now(self) -> datetime:
        """See Clock."""
        return self.time

    def monotonic(self) -> float:
        """See Clock."""
        return self.seconds

    def move(self, **by: float) -> None:
        """Lets time pass."""
        self.time += timedelta(**by)
        self.seconds += timedelta(**by).total_seconds()


class RealClock(HandClock):
    """The machine's clock, for a store whose clock is real."""

    def now(self) -> datetime:
        """See Clock."""
        return machine_clock() + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic() + self.seconds


@dataclass
class MemoryRegistry:
    """A registry in memory: a Source that obeys the port. dump: what pg_dump would write, anew for each snapshot."""

    clock: HandClock
    cluster_id: str = CLUSTER
    history: list[StoredChange] = field(default_factory=list)
    epochs: tuple[Epoch, ...] = (Epoch(1, None, 0),)
    floor: int = 0
    id_high: int = 0
    dump_bytes: int = 300_000
    down: bool = False
    dump_error: BaseException | None = None
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    rung: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, count: int = 1, payload_bytes: int = 50) -> None:
        """Commits so many changes."""
        for _ in range(count):
            position = self.history[-1].position + 1 if self.history else 1
            self.id_high = max(self.id_high, position)
            self.history.append(
                StoredChange(
                    position=position,
                    epoch=self.epochs[-1].id,
                    time=self.clock.now(),
                    actor="somebody",
                    subject=f"subject-{position}",
                    kind="version_registered",
                    method=None,
                    request_id=None,
                    digest=None,
                    payload_version=1,
                    payload=self.rng.randbytes(payload_bytes),
                )
            )
        self.rung.set()
        self.rung = asyncio.Event()

    def put_back(self, position: int) -> None:
        """Goes back to a position without a new epoch, as a restore by other means would."""
        self.history = [change for change in self.history if change.position <= position]

    def fork(self, position: int) -> None:
        """Goes back to a position and begins a new epoch there, as an activated restore does."""
        self.put_back(position)
        number = self.epochs[-1].id + 1
        self.epochs = (*self.epochs, Epoch(number, self.epochs[-1].id, position))
        self.write()

    def trim(self, position: int) -> None:
        """Drops changes up to a position."""
        self.floor = position
        self.history = [change for change in self.history if change.position > position]

    @property
    def position(self) -> int:
        """Position of the newest change."""
        return self.history[-1].position if self.history else self.floor

    async def head(self) -> Head:
        """See Source."""
        self._require_up()
        return Head(self.cluster_id, self.epochs[-1].id, self.position, self.floor, False, self.id_high, self.epochs)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[MemorySnapshot]:
        """See Source."""
        self._require_up()
        yield MemorySnapshot(self, await self.head())

    async def changes(self, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """See Source."""
        self._require_up()
        found: list[StoredChange] = []
        size = 0
        for change in self.history:
            if change.position > after and len(found) < limit and (not found or size < bytes_max):
                found.append(change)
                size += change.size_bytes
        return found

    async def wait(self, timeout_seconds: float) -> None:  # noqa: ARG002
        """See Source."""
        await self.rung.wait()

    async def check(self) -> None:
        """See Source."""
        self._require_up()

    def _require_up(self) -> None:
        if self.down:
            raise errors.DatabaseUnavailable("the database of the test is down")


class MemorySnapshot:
    """A snapshot of a MemoryRegistry."""

    dump_version = "17.0"
    dumped_rows = 0

    def __init__(self, registry: MemoryRegistry, head: Head) -> None:
        self._registry = registry
        self._head = head

    async def facts(self) -> DatabaseFacts:
        """See Snapshot."""
        registry = self._registry
        counts = dict.fromkeys(("changes", "schemas", "subjects", "versions"), self._head.position)
        return DatabaseFacts(
            head=self._head,
            time=registry.clock.now(),
            server_version="17.0",
            server_version_num=170000,
            encoding="UTF8",
            collation="C",
            character_type="C",
            extensions=(),
            migrations=("0001_init.sql",),
            tables=tuple(TableFacts(name, rows, bytes(32)) for name, rows in counts.items()),
            structure_sha256=bytes(32),
            access_sha256=bytes(32),
            database_bytes=8_000_000,
        )

    async def dump(self) -> AsyncGenerator[bytes, None]:
        """See Snapshot."""
        left = self._registry.dump_bytes
        while left > 0:
            piece = self._registry.rng.randbytes(min(left, 100_000))
            left -= len(piece)
            self.dumped_rows += 1
            yield piece
        if self._registry.dump_error is not None:
            raise self._registry.dump_error


class WholeDump:
    """A DumpCheck that reads all of a dump and keeps it."""

    def __init__(self) -> None:
        self.read = b""

    async def accept(self, dump: AsyncIterator[bytes], server_version_num: int) -> None:  # noqa: ARG002
        """See DumpCheck."""
        self.read = b""
        async for piece in dump:
            self.read += piece


@dataclass
class Parts:
    """The use cases over one store. plan: faults of the store."""

    clock: HandClock
    registry: MemoryRegistry
    plan: Plan
    folder: Path
    repository: Repository
    archive: Archive
    verify: Verify
    make: MakeBackup
    audit: ArchiveAudit
    prune: Prune
    ship: Ship
    dump: WholeDump
    recipients: tuple[Recipient, ...]
    reported: list[str]

    @property
    def store(self) -> ObjectStore:
        """The store, faults included."""
        return self.repository.store

    def running(self) -> Running:
        """What an operation would tell through."""
        operation = Operation("backup-1", OperationKind.BACKUP, "test", "", "here", self.clock.now(), Subject("backup"))
        return Running(operation, self.clock)

    async def backup(self, kind: Kind = Kind.MANUAL, **wanted: Any) -> Entry:
        """A backup."""
        subject = await self.make.run(Wanted(kind, **wanted), self.running())
        return await self.repository.catalog.get(subject.id)

    async def proven(self, kind: Kind = Kind.MANUAL, **wanted: Any) -> Entry:
        """A backup, verified to V3."""
        entry = await self.backup(kind, **wanted)
        await self.look(entry.id, Level.V3)
        return await self.repository.catalog.get(entry.id)

    async def look(self, backup_id: str, level: Level = Level.V3) -> Verification:
        """Verifies and records."""
        found = await self.verify.verify(backup_id, level, self.running())
        await self.repository.catalog.record(found)
        return found

    async def ids(self) -> list[str]:
        """Ids of all backups, newest first."""
        return [entry.id for entry in (await self.repository.catalog.listing()).entries]

    async def keys(self, prefix: str = "") -> list[str]:
        """Keys of all objects below a prefix, leases left out."""
        return [each.key async for each in self.store.list(prefix) if not each.key.startswith("leases/")]

    async def spans(self) -> list[SegmentSpan]:
        """All segments of the archive."""
        return await self.archive.run(lambda _: True)

    def path(self, key: str) -> Path:
        """The file of an object."""
        return self.folder / key

    def flip(self, key: str, offset: int) -> None:
        """Turns a bit of an object, at rest. offset: negative from the end."""
        content = bytearray(self.path(key).read_bytes())
        content[offset] ^= 1
        self.path(key).write_bytes(content)

    def data(self, manifest: Manifest) -> str:
        """Key of a backup's first data object."""
        return manifest.objects[0].key


def recipient(folder: Path, name: str = "recipient.key") -> Recipient:
    """A recipient with a key file of its own; the same file gives the same one."""
    path = folder / name
    if not path.exists():
        generate_key_file(path)
    return load_recipient(path).recipient


def make_parts(folder: Path, **changes: Any) -> Parts:
    """The use cases over `<folder>/store`.

    changes: `recipients`, `clock`, `registry`, `store`, `seed`, `owner`, `failpoints`, `policy`, `rules`,
    `lease_times`.
    """
    clock: HandClock = changes.get("clock") or HandClock()
    registry: MemoryRegistry = changes.get("registry") or MemoryRegistry(clock)
    registry.clock = clock
    place = changes.get("store_folder", folder / "store")
    plan = Plan()
    store: ObjectStore = changes.get("store") or FaultyStore(DirectoryStore(place, clock.now), plan)
    signer = Signer.of(changes.get("seed", b"s" * 32))
    recipients = changes["recipients"] if "recipients" in changes else (recipient(folder),)
    points: Failpoints = changes.get("failpoints") or NoFailpoints()
    verifiers = [signer.verifier, *changes.get("trusted", ())]
    repository = Repository(
        store=store,
        catalog=Catalog(store, verifiers, signer),
        keys=DataKeys(store, recipients, system_dice),
        leases=Leases(store, clock, changes.get("owner", "process-a"), changes.get("lease_times")),
        signer=signer,
        verifiers=verifiers,
        clock=clock,
        dice=system_dice,
        failpoints=points,
    )
    reported: list[str] = []
    dump = WholeDump()
    archive = Archive(repository, segments)
    audit = ArchiveAudit(repository, archive)
    verify = Verify(repository, dump, cast("Places", None))
    rules = changes.get("rules") or BackupRules("1.0", object_bytes_max=100_000)
    policy = changes.get("policy") or Policy()
    keep = PruneRules(policy, timedelta(hours=24), timedelta(days=35))

    def report(event: str, **facts: object) -> None:
        reported.append(f"{event} {facts}")

    return Parts(
        clock=clock,
        registry=registry,
        plan=plan,
        folder=place,
        repository=repository,
        archive=archive,
        verify=verify,
        make=MakeBackup(registry, repository, verify, rules),
        audit=audit,
        prune=Prune(repository, archive, audit, keep),
        ship=Ship(registry, repository, archive, ArchiveRules(seal_bytes=1000, seal_seconds=0.01), report),
        dump=dump,
        recipients=tuple(recipients),
        reported=reported,
    )


def parts_on(folder: Path, store: ObjectStore, **changes: Any) -> Parts:
    """The use cases over a store, by the real time: a real store has no other."""
    parts = make_parts(folder, clock=RealClock(), store=store, **changes)
    parts.registry.write(6)
    parts.registry.dump_bytes = 2_500_000
    return parts


def again(parts: Parts, **changes: Any) -> Parts:
    """Another process on the same store and registry, which knows nothing yet."""
    given = {
        "clock": parts.clock,
        "registry": parts.registry,
        "recipients": parts.recipients,
        "owner": "process-b",
        "store_folder": parts.folder,
    }
    return make_parts(parts.folder.parent, **(given | changes))


__all__ = ["CLUSTER", "NOON", "HandClock", "MemoryRegistry", "Parts", "again", "make_parts", "parts_on", "recipient"]
