"""What the use cases need from outside, in the domain's words. Each method names its guarantees and its errors.

The object store's port is llm_schema_registry.objects.store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from services.backup.domain.model import DatabaseFacts, Epoch, Head, Place, Segment, StoredChange


class Failpoints(Protocol):
    """Named points at which a test may end, stop or fail the process. In service nothing happens at them."""

    async def reached(self, name: str) -> None:
        """Called at the point, before what comes next is begun."""
        ...


class Snapshot(Protocol):
    """One consistent view of the live database, held open by a session of its own."""

    async def facts(self) -> DatabaseFacts:
        """What the database holds in this snapshot.

        Costs little once a dump was read to its end, whose rows are digested on the way; else all tables are read.
        Raises errors.DatabaseUnavailable, DatabaseUnfit, and BackupFailed when the dump lacks rows of the snapshot.
        """
        ...

    def dump(self) -> AsyncGenerator[bytes, None]:
        """pg_dump's custom format, uncompressed, of this snapshot, in pieces of at most 1 MiB.

        Ends only when pg_dump ended with status 0 and wrote a whole archive. Raises errors.BackupFailed with the end of
        what pg_dump said (never a password), also when it stalls for longer than its limit or writes nothing. The
        program has ended when the iterator is closed, whatever closed it.
        """
        ...

    @property
    def dumped_rows(self) -> int:
        """Rows of the dump that were read so far, as far as they can be told."""
        ...

    @property
    def dump_version(self) -> str:
        """Version of the pg_dump that is used."""
        ...


class Source(Protocol):
    """The live registry's database. Every method raises errors.DatabaseUnavailable when it cannot be reached."""

    async def head(self) -> Head:
        """Where it stands."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """A snapshot that lasts as long as the block.

        Raises errors.ToolMismatch, with both versions, when no pg_dump of the server's major is at hand;
        errors.DatabaseUnfit when a migration runs or rights are missing. A session that ends meanwhile fails what the
        snapshot does next: nothing read after it is from another snapshot.
        """
        ...

    async def changes(self, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """Rows of the history with positions after `after`, in order and without gaps; empty when there are none.

        At most `limit`, and no more once they pass `bytes_max`, but always one when there is one.
        """
        ...

    async def wait(self, timeout_seconds: float) -> None:
        """Returns when the history may have grown, or at the timeout. A hint. Never raises."""
        ...

    async def check(self) -> None:
        """Returns when the database answers."""
        ...


@dataclass(frozen=True, slots=True)
class RegistryCheck:
    """What the registry's own code found in a database: contents whose fingerprints were made anew, and what is wrong.

    problems: at most 100, in words; empty when all is well.
    """

    schemas: int
    changes: int
    problems: tuple[str, ...]


class PlaceWriter(Protocol):
    """Writes to a place that nobody serves. Each method is called once at most, in this order."""

    async def replay(self, changes: AsyncIterator[StoredChange]) -> Place:
        """As Places.replay."""
        ...

    async def begin_epoch(self, epoch: Epoch, *, next_schema_id: int, actor: str) -> None:
        """Appends EPOCH_STARTED for a new line that forks at the place's present position, moves the id sequence so
        that it gives nothing below `next_schema_id` (it never falls), and allows writes: in one transaction.

        A place whose line is this epoch already stays as it is. Raises errors.RestoreFailed when the place does not
        stand at the fork.
        """
        ...


class Places(Protocol):
    """Where a registry's tables can live: databases beside the live one or, without the right to create those, schemas.

    A name here is a database's or a schema's. Names of restores are made by `scratch` and `aside`, so whatever is left
    over can be recognised. Every method raises errors.DatabaseUnavailable when the server cannot be reached, and
    errors.DatabaseUnfit, saying which right or thing is missing, when the server refuses.
    """

    @property
    def live(self) -> str:
        """The name that the registry serves from."""
        ...

    def scratch(self, token: str) -> str:
        """Name of the place that a restore is prepared in. token: 12 lower-case letters or digits."""
        ...

    def aside(self, token: str) -> str:
        """Name under which the replaced one is kept."""
        ...

    async def existing(self) -> Mapping[str, int]:
        """Names that are there, of live, scratch and aside ones, with their bytes on the server."""
        ...

    async def preflight(self, facts: DatabaseFacts) -> Sequence[str]:
        """What would keep a backup with these facts from being restored here, in words; empty when nothing would.

        Server's major and client programs, encoding, extensions, roles, rights, and room, as far as the server tells:
        1.3 times the backup's database. Changes nothing.
        """
        ...

    async def create(self, name: str, facts: DatabaseFacts) -> None:
        """Makes an empty place, with a backup's encoding and collation. One that is there is an error."""
        ...

    async def drop(self, name: str) -> None:
        """Removes a scratch or aside place with all that is in it; one that is not there counts as removed.

        Refuses the live name, and every name that `scratch` and `aside` do not make, with ValueError.
        """
        ...

    async def restore(self, name: str, dump: AsyncIterator[bytes]) -> None:
        """Loads a dump into an empty place, stopping at the first error.

        Raises errors.RestoreFailed with the end of what pg_restore said; what `dump` raises, once pg_restore has ended.
        The place may hold anything then: drop it.
        """
        ...

    async def facts(self, name: str) -> DatabaseFacts:
        """What the place holds. Reads all of it."""
        ...

    async def rows(self, name: str) -> Mapping[str, int]:
        """How many rows each of the place's tables has: those of its facts, without reading them."""
        ...

    async def check(self, name: str) -> RegistryCheck:
        """What the registry's own code says of the place: every content's fingerprints made anew, every reference and
        count in order, the history without gaps."""
        ...

    async def head(self, name: str) -> Head:
        """Where the place stands."""
        ...

    async def changes(self, name: str, after: int, *, limit: int, bytes_max: int) -> Sequence[StoredChange]:
        """As Source.changes, of any place."""
        ...

    async def replay(self, name: str, changes: AsyncIterator[StoredChange]) -> Place:
        """Applies changes that follow the place's head, in order, and returns where it stands then.

        Each is committed with its own position, time, actor and request. Raises errors.RestoreFailed for one that
        cannot follow; those before it stay applied, so a repeat continues behind them: changes up to the head are
        passed over.
        """
        ...

    async def set_fenced(self, name: str, *, fenced: bool) -> Head:
        """Stops or allows writes, and returns the head after it.

        No write is acknowledged after a fence that the returned head does not show. Repeating it changes nothing.
        """
        ...

    def writer(self, name: str) -> AbstractAsyncContextManager[PlaceWriter]:
        """The registry's own code, started and connected to a place, so that what it is told then is done at once.

        Raises errors.RestoreFailed when it does not start.
        """
        ...

    async def swap(self, *, incoming: str, aside: str) -> None:
        """Puts `incoming` in the live one's place, and the live one aside.

        Nobody is connected to either in between; sessions are ended. Continues where an earlier try stopped, whatever
        it had done; done already, it changes nothing. When the live one does not exist, `incoming` alone is renamed.
        """
        ...


class DumpCheck(Protocol):
    """PostgreSQL's own reader of dumps."""

    async def accept(self, dump: AsyncIterator[bytes], server_version_num: int) -> None:
        """Reads a whole dump of a server of this version as a restore would, without a database.

        Raises errors.BackupDamaged with what the reader said, errors.ToolMismatch when no reader is at hand, and what
        `dump` raises.
        """
        ...


class SegmentFormat(Protocol):
    """How a segment of the archive is written."""

    def encode(self, segment: Segment) -> bytes:
        """The segment's bytes; the same segment gives the same ones."""
        ...

    def decode(self, content: bytes) -> Segment:
        """The segment. Raises ValueError that says what is wrong: no segment, a gap, two epochs, a limit."""
        ...


class Recipient(Protocol):
    """Someone who can open data keys. Any one of a key's recipients is enough."""

    @property
    def name(self) -> str:
        """Unique among recipients and stable: it is written beside what was wrapped for them."""
        ...

    @property
    def algorithm(self) -> str:
        """How it wraps, such as `AES-256-GCM`, `X25519-HKDF-SHA256-AES-256-GCM`, `AWS-KMS`."""
        ...

    @property
    def opens(self) -> bool:
        """Whether this process holds what opening needs."""
        ...

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """The data key, readable to the recipient alone and only together with the same context."""
        ...

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key. Raises errors.KeyUnavailable when it cannot be opened here."""
        ...


class Election(Protocol):
    """Lets one process of many hold an office, by the database."""

    def held(self, office: str) -> AbstractAsyncContextManager[bool]:
        """Whether this process holds the office for the block; False when another does, without waiting.

        True as well when the database cannot be reached: the lease in the object store decides then.
        """
        ...
