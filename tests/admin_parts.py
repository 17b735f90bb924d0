"""Stand-ins for the processes of a system, and for the registry as a client sees it."""

# ruff: noqa: ARG002 - the signatures are those of the ports
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from llm_schema_registry import errors
from services.admin.domain.system import (
    SERVICES,
    Address,
    Dependency,
    Health,
    MetricPoint,
    Option,
    Process,
    Protection,
    State,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def process(service: str, instance_id: str, state: State = State.SERVING, **facts: object) -> Process:
    """A process that works."""
    made = Process(service, instance_id, "1.0", "", NOON, 1.0, state, 0, Health.HEALTHY)
    return replace(made, **facts)  # type: ignore[arg-type]


@dataclass
class StandInPeers:
    """Processes by address; None for one that is down.

    on_stop: what is at an address after a stop, by default a new process when a restart is wanted, else none.
    asked: every request that changes something, in order.
    """

    places: dict[Address, Process | None] = field(default_factory=dict)
    on_stop: Callable[[Address, bool], Process | None] | None = None
    asked: list[str] = field(default_factory=list)
    kept: str = ""

    def add(self, service: str, number: int = 1, **facts: object) -> Address:
        """Adds a replica."""
        address = Address(service, f"{service}-{number}:1")
        self.places[address] = process(service, f"{service}-{number}", **facts)  # type: ignore[arg-type]
        return address

    @property
    def services(self) -> Sequence[str]:
        """See Peers."""
        return [name for name in SERVICES if any(each.service == name for each in self.places)]

    async def replicas(self, service: str) -> Sequence[Address]:
        """See Peers."""
        return [each for each in self.places if each.service == service]

    async def state(self, address: Address) -> Process:
        """See Peers."""
        found = self.places[address]
        if found is None:
            raise errors.PeerUnreachable(f"{address.service} at {address.target} does not answer: nobody is there")
        return found

    async def options(self, address: Address) -> Sequence[Option]:
        """See Peers."""
        await self.state(address)
        return [Option("server.grpc_port", "9090", "default")]

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        """See Peers."""
        await self.state(address)
        return []

    async def set_mode(self, address: Address, mode: State) -> Process:
        """See Peers."""
        self.places[address] = replace(await self.state(address), state=mode)
        self.asked.append(f"{mode.name} {address.target}")
        return await self.state(address)

    async def flush_caches(self, address: Address) -> str:
        """See Peers."""
        await self.state(address)
        self.asked.append(f"flush {address.target}")
        return self.kept

    async def stop(self, address: Address, *, cause: str, restart: bool) -> Process:
        """See Peers."""
        before = await self.state(address)
        self.asked.append(f"{'restart' if restart else 'stop'} {address.target}")
        if self.on_stop is not None:
            self.places[address] = self.on_stop(address, restart)
        else:
            self.places[address] = process(address.service, f"{before.instance_id}+") if restart else None
        return replace(before, state=State.DRAINING)


@dataclass
class StandInProtections:
    """A backup service. problem: why it does not answer."""

    told: Sequence[str] = ()
    running: Sequence[str] = ()
    problem: str = ""

    async def protection(self) -> tuple[Protection, Sequence[str]]:
        """See Protections."""
        if self.problem:
            raise errors.PeerUnreachable(self.problem)
        return Protection(newest_backup_id="newest"), self.told

    async def running_operations(self) -> Sequence[str]:
        """See Protections."""
        if self.problem:
            raise errors.PeerUnreachable(self.problem)
        return self.running


REDIS_AWAY = Dependency("redis", Health.DEGRADED, critical=False, message="it does not answer")


@dataclass
class StandInRegistry:
    """See Trial. subjects_by_name: text and time of change of each. broken: an error by the method's name."""

    subjects_by_name: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    broken: dict[str, errors.Error] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lies: set[str] = field(default_factory=set)

    def _begin(self, method: str) -> bool:
        self.asked.append(method)
        if method in self.broken:
            raise self.broken[method]
        return method not in self.lies

    async def health(self) -> bool:
        """See Trial."""
        return self._begin("health")

    async def subjects(self, prefix: str, *, limit: int) -> Sequence[tuple[str, datetime]]:
        """See Trial."""
        self._begin("subjects")
        found = [(name, time) for name, (_, time) in sorted(self.subjects_by_name.items()) if name.startswith(prefix)]
        return found[:limit]

    async def register(self, subject: str, text: str) -> tuple[int, int]:
        """See Trial."""
        self._begin("register")
        self.subjects_by_name[subject] = (text, NOON)
        return 1, 7

    async def latest(self, subject: str) -> tuple[int, int]:
        """See Trial."""
        self._begin("latest")
        return 1, 7

    async def text(self, schema_id: int) -> str:
        """See Trial."""
        self._begin("text")
        return next(text for text, _ in self.subjects_by_name.values())

    async def version(self, subject: str, number: int) -> tuple[int, str]:
        """See Trial."""
        return (7 if self._begin("version") else 8), self.subjects_by_name[subject][0]

    async def compatible(self, subject: str, text: str) -> bool:
        """See Trial."""
        return self._begin("compatible") and "integer" not in text

    async def valid_schema(self, text: str) -> bool:
        """See Trial."""
        self._begin("valid_schema")
        return '"type": 1' not in text

    async def valid_data(self, schema_id: int, data: str) -> bool:
        """See Trial."""
        self._begin("valid_data")
        return "1" not in data

    async def now(self) -> str:
        """See Trial."""
        self._begin("now")
        return "token"

    async def seen(self, token: str, subject: str) -> bool:
        """See Trial."""
        return self._begin("seen")

    async def remove(self, subject: str) -> None:
        """See Trial."""
        self._begin("remove")

    async def purge(self, subject: str) -> None:
        """See Trial."""
        self._begin("purge")
        self.subjects_by_name.pop(subject, None)
