"""The nouns of backups. Times are aware and in UTC, digests are SHA-256, sizes are bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Kind(enum.Enum):
    """Why a backup was made. SAFETY: of the present state, before a restore takes its place."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"
    MANUAL = "manual"
    SAFETY = "safety"


class Level(enum.IntEnum):
    """How far a backup was verified; each level includes the ones below.

    V0: the dump ended well and all its bytes arrived. V1: the store holds them as the manifest says. V2: the keys of a
    restore open it, first and last chunk of every object. V3: every byte was read again, all digests hold, and
    PostgreSQL's own reader accepts the dump. V4: it was restored, and counts, digests and fingerprints are those of the
    snapshot.
    """

    V0 = 0
    V1 = 1
    V2 = 2
    V3 = 3
    V4 = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the history. position: of its newest change, 0 before the first."""

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.position}"


@dataclass(frozen=True, slots=True)
class Epoch:
    """A line of the history, which shares the positions up to the fork with its parent (None: the first line)."""

    id: int
    parent: int | None
    fork_position: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where a registry's database stands.

    floor: changes after this position are still kept there. schema_id_high: no larger schema id was ever reserved.
    epochs: all lines it knows, by id; the last one is its own.
    """

    cluster_id: str
    epoch: int
    position: int
    floor: int
    fenced: bool
    schema_id_high: int
    epochs: tuple[Epoch, ...]

    @property
    def place(self) -> Place:
        return Place(self.epoch, self.position)


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A row of the history, as the registry wrote it. Only the registry reads the payload.

    method, request_id, digest: the request it was made under, None for all three when there was none.
    """

    position: int
    epoch: int
    time: datetime
    actor: str
    subject: str
    kind: str
    method: str | None
    request_id: str | None
    digest: bytes | None
    payload_version: int
    payload: bytes

    @property
    def place(self) -> Place:
        return Place(self.epoch, self.position)

    @property
    def size_bytes(self) -> int:
        """About what it takes in a segment."""
        return len(self.payload) + len(self.actor) + len(self.subject) + 64


SEGMENT_CHANGES_MAX = 100_000
"""Of any segment, whatever version sealed it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the history in the archive: changes of one epoch, their positions without gaps.

    epochs: all lines up to this one, by id. previous_sha256: digest of the segment before it in the epoch, before
    sealing; None for the first. schema_id_high: no larger schema id was reserved when it was sealed.
    """

    cluster_id: str
    epochs: tuple[Epoch, ...]
    previous_sha256: bytes | None
    schema_id_high: int
    seal_time: datetime
    changes: tuple[StoredChange, ...]

    @property
    def epoch(self) -> int:
        return self.changes[0].epoch

    @property
    def first(self) -> int:
        return self.changes[0].position

    @property
    def last(self) -> int:
        return self.changes[-1].position


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table's contents: rows, and their RowDigest, whatever their order, under fixed settings."""

    name: str
    rows: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a registry's database holds, read in one snapshot.

    server_version_num: as PostgreSQL counts, 170010 for 17.10. extensions: (name, version), by name.
    migrations: names of the applied files, in order. tables: by name, all of the registry's.
    structure_sha256: over columns, constraints, indexes, sequences, functions. access_sha256: over owners and grants.
    database_bytes: on the server's disk, indexes included. time: the server's clock. roles: names of those that own
    something, have a right or gave one; none in backups of before they were told.
    """

    head: Head
    time: datetime
    server_version: str
    server_version_num: int
    encoding: str
    collation: str
    character_type: str
    extensions: tuple[tuple[str, str], ...]
    migrations: tuple[str, ...]
    tables: tuple[TableFacts, ...]
    structure_sha256: bytes
    access_sha256: bytes
    database_bytes: int
    roles: tuple[str, ...] = ()

    @property
    def server_major(self) -> int:
        return self.server_version_num // 10_000

    def rows(self, table: str) -> int:
        """Rows of a table; 0 for an unknown one."""
        return next((facts.rows for facts in self.tables if facts.name == table), 0)


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part of a stored object, in order."""

    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """A stored object of a backup: its key below the repository, its size and digest as stored, its parts."""

    key: str
    size_bytes: int
    sha256: bytes
    parts: tuple[PartRecord, ...]


@dataclass(frozen=True, slots=True)
class EncryptionRecord:
    """How the objects are sealed. key_id: of the data key; its wrapped forms are in `keys/<key_id>/`."""

    algorithm: str
    key_id: str
    chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup. It exists when this is stored, signed, and names objects whose bytes are what it says.

    id: a ULID, so ids order by time. slot: the scheduled moment it was made for, None when asked for by hand.
    start_time, end_time: of the run, by the clock of the process that made it. lease_generation: of the lease it was
    committed under. previous_sha256: digest of the stored manifest before it, None for the first: a manifest that was
    removed from the middle, without a tombstone, is noticed. dump_*: the stream of pg_dump before compression.
    dump_format: `pgc/1`, pg_dump's custom format without its own compression. compression: `zstd` or `gzip`.
    """

    id: str
    cluster_id: str
    kind: Kind
    slot: datetime | None
    start_time: datetime
    end_time: datetime
    lease_generation: int
    previous_sha256: bytes | None
    code_version: str
    dump_version: str
    dump_format: str
    dump_bytes: int
    dump_sha256: bytes
    compression: str
    encryption: EncryptionRecord | None
    facts: DatabaseFacts
    objects: tuple[ObjectRecord, ...]

    @property
    def stored_bytes(self) -> int:
        return sum(each.size_bytes for each in self.objects)

    @property
    def place(self) -> Place:
        return self.facts.head.place


@dataclass(frozen=True, slots=True)
class Verification:
    """Evidence that a backup was verified, or that it was not: problems, each with the object and place.

    duration_seconds: of the whole; restore_seconds: of the restore alone, at V4.
    """

    backup_id: str
    level: Level
    time: datetime
    problems: tuple[str, ...]
    duration_seconds: float
    restore_seconds: float | None = None

    @property
    def passed(self) -> bool:
        return not self.problems
