"""What the use cases need from outside, in the domain's words. Each method names its guarantees and its errors.

The object store's port is llm_schema_registry.objects.store; operations and leases are llm_schema_registry.operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.admin.domain.system import Address, MetricPoint, Option, Process, Protection, State


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
