"""What the use cases need from outside, in the domain's words. Each method names its guarantees and its errors.

The object store's port is llm_schema_registry.objects.store; operations and leases are llm_schema_registry.operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
        """Asks an operation to end. One that has ended, or runs where it cannot be asked, is left."""
        ...

    async def release(self, restore_id: str) -> None:
        """Drops what a restore keeps beside the live database. May be repeated."""
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
