"""What the use cases need from outside, in the domain's words. Each method names its guarantees and its errors.

The object store's port is llm_schema_registry.objects.store; operations and leases are llm_schema_registry.operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from services.admin.domain.capacity import Figure, Usage, Written
from services.admin.domain.maintenance import Bloat, DatabaseStats, LongQuery, StoredSize
from services.admin.domain.recovery import Target
from services.admin.domain.restoring import BackupFacts, Ended, Estimates, Outlook, RestoreFacts, Work
from services.admin.domain.system import Address, MetricPoint, Option, Process, Protection, SmokeCheck, State


class Peers(Protocol):
    """Every process of the system, reached through its ControlService.

    A method about one replica raises errors.PeerUnreachable when it does not answer in time, and the error that it
    answers with otherwise. Messages name the replica.
    """

    @property
    def services(self) -> Sequence[str]:
        """Names of the services that are known, in the order of SERVICES."""
        ...

    async def replicas(self, service: str) -> Sequence[Address]:
        """Where the replicas of a service are now, by address: names are resolved anew. Empty when they have no address
        at this moment."""
        ...

    async def state(self, address: Address) -> Process:
        """The replica as it sees itself."""
        ...

    async def options(self, address: Address) -> Sequence[Option]:
        """The options in force, in the order of the reference page."""
        ...

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        """The replica's metrics as they are now."""
        ...

    async def set_mode(self, address: Address, mode: State) -> Process:
        """Puts the replica into a mode, out of a drain as well. A repeat changes nothing."""
        ...

    async def flush_caches(self, address: Address) -> str:
        """Makes the replica forget what it keeps of the database; what it could not forget, in words, empty for all
        forgotten."""
        ...

    async def stop(self, address: Address, *, cause: str, restart: bool) -> Process:
        """Begins the replica's shutdown and returns at once. restart: whether a supervisor is to start it again."""
        ...


class Protections(Protocol):
    """The backup service, as far as the state of the system goes."""

    async def protection(self) -> tuple[Protection, Sequence[str]]:
        """How things stand, and what is wrong with that in words. Raises errors.PeerUnreachable."""
        ...

    async def running_operations(self) -> Sequence[str]:
        """Names of operations that run there; at most 50. Raises errors.PeerUnreachable."""
        ...


class Trial(Protocol):
    """The registry as a client calls it. Methods raise the registry's own errors, and errors.PeerUnreachable."""

    async def health(self) -> bool:
        """Whether the standard health service says that it serves."""
        ...

    async def subjects(self, prefix: str, *, limit: int) -> Sequence[tuple[str, datetime]]:
        """The first subjects whose names begin with a prefix, deleted ones too, and when each was last changed."""
        ...

    async def register(self, subject: str, text: str) -> tuple[int, int]:
        """Registers a JSON Schema; its version's number and its id. A repeat returns the same."""
        ...

    async def latest(self, subject: str) -> tuple[int, int]:
        """Number and schema id of a subject's newest version."""
        ...

    async def text(self, schema_id: int) -> str:
        """The content of an id."""
        ...

    async def version(self, subject: str, number: int) -> tuple[int, str]:
        """Schema id and content of a version."""
        ...

    async def compatible(self, subject: str, text: str) -> bool:
        """Whether a candidate may follow the subject's versions, backward."""
        ...

    async def valid_schema(self, text: str) -> bool:
        """Whether a text is a JSON Schema."""
        ...

    async def valid_data(self, schema_id: int, data: str) -> bool:
        """Whether data fits a schema."""
        ...

    async def now(self) -> str:
        """The token of this moment in the history, as a watch that begins now tells it."""
        ...

    async def seen(self, token: str, subject: str) -> bool:
        """Waits until a watch from the token tells a registration under the subject. True then; it does not give up."""
        ...

    async def remove(self, subject: str) -> None:
        """Deletes every version of a subject. One that has none is left as it is."""
        ...

    async def purge(self, subject: str) -> None:
        """Purges a subject that was deleted. One that is purged, or never was, is left as it is."""
        ...


class MaintenanceSession(Protocol):
    """One session with the database whose statements may take as long as they need, and that waits only briefly for
    locks. Methods that work on something return why they passed it over, empty for done, and raise
    errors.DatabaseUnavailable."""

    async def size(self, name: str) -> StoredSize | None:
        """What a table or index takes now; None when it is gone."""
        ...

    async def vacuum(self, table: str) -> str:
        """Gives back the space of dead rows."""
        ...

    async def analyze(self, table: str) -> str:
        """Renews the planner's statistics."""
        ...

    async def reindex(self, index: str) -> str:
        """Rebuilds the index beside the old one."""
        ...

    async def drop_leftovers(self) -> tuple[Sequence[str], Sequence[str]]:
        """Drops invalid indexes that rebuilds left which did not end. Returns the names of those that are gone, and of
        those that stay because a transaction holds them. What another session builds is neither."""
        ...


class Database(Protocol):
    """The registry's database. Raises errors.DatabaseUnavailable while it cannot be reached."""

    async def tables(self) -> Sequence[str]:
        """Names of the registry's tables, by name."""
        ...

    async def indexes(self, tables: Sequence[str]) -> Sequence[str]:
        """Names of the valid indexes of tables, by table and name."""
        ...

    async def require_rights(self, tables: Sequence[str]) -> None:
        """Returns when the role may maintain the tables. Raises errors.DatabaseUnfit, naming what it lacks."""
        ...

    def session(self) -> AbstractAsyncContextManager[MaintenanceSession]:
        """A session of its own, for the block."""
        ...

    async def bloat(self) -> Sequence[Bloat]:
        """An estimate of each table and index, the largest bloat first."""
        ...

    async def stats(self) -> DatabaseStats:
        """What the server counted."""
        ...

    async def long_queries(self, at_least_seconds: float, limit: int) -> Sequence[LongQuery]:
        """What runs for so long, the longest first. Raises errors.DatabaseUnfit when the role may not see it."""
        ...

    async def usage(self) -> Usage:
        """What it takes and holds. Raises errors.DatabaseUnfit when it holds no registry."""
        ...

    async def written(self, stretch_seconds: int) -> Sequence[Written]:
        """Its growth by the times of the changes, one for each stretch of time with any, oldest first. Raises as
        `usage`."""
        ...


class Stores(Protocol):
    """The object stores behind the backup service."""

    async def stored_bytes(self) -> int:
        """Bytes of all backups and of the archive. Raises errors.PeerUnreachable."""
        ...


class Recorded(Protocol):
    """What a monitoring system has recorded."""

    async def figures(self, start: datetime, end: datetime) -> Mapping[str, Sequence[Figure]]:
        """Figures by the resource's name, oldest first. Raises errors.PeerUnreachable, errors.PeerFailed."""


class Restores(Protocol):
    """The backup service, as far as recoveries go. Raises errors.PeerUnreachable when no replica of it answers, and
    what it refuses with."""

    async def outlook(self, target: Target, backup_id: str = "") -> Outlook:
        """How a restore would reach the target; nothing is made. backup_id: to begin from, empty for the newest one."""
        ...

    async def backup(self, backup_id: str) -> BackupFacts:
        """A backup."""
        ...

    async def restore(self, restore_id: str) -> RestoreFacts:
        """A restore as it stands."""
        ...

    async def begin(self, work: Work, request_id: str) -> str:
        """Begins the work and returns its operation's name; a repeat with the same request id returns the same."""
        ...

    async def ended(self, operation: str) -> Ended | None:
        """How an operation ended; None while it runs."""
        ...

    async def cancel(self, operation: str) -> None:
        """Asks an operation to end. One that has ended is left."""
        ...

    async def release(self, restore_id: str) -> None:
        """Drops what a restore keeps beside the live database. May be repeated."""
        ...

    async def archived_time(self) -> datetime | None:
        """Until when everything that was committed is in the archive; None when that is not known."""
        ...

    async def estimates(self) -> Estimates:
        """How long steps took in the newest backup, verification and drill."""
        ...


class SmokeTest(Protocol):
    """Tries the registry as a client does."""

    async def run(self) -> Sequence[SmokeCheck]:
        """Everything that was tried, in order. What fails is a check that did not pass, not an error."""
        ...


class Failpoints(Protocol):
    """Moments that a test may stop at."""

    async def reached(self, name: str) -> None:
        """Says that a moment has come."""
        ...
