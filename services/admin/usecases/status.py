"""The whole system at one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TypeVar

from llm_schema_registry import errors
from llm_schema_registry.operations.operations import Operations
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.system import Health, Protection, Replica, State, SystemStatus
from services.admin.ports import Peers, Protections
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.steer import Steer

T = TypeVar("T")

PROBLEMS_MAX = 100
NAMES_MAX = 100
ASK_SECONDS = 8.0
"""For each thing that is asked: within the call's own deadline, and one that is silent does not hide the others."""


class Status:
    """Looks at everything, side by side."""

    def __init__(
        self, peers: Peers, protections: Protections, operations: Operations, journal: RecoveryJournal, clock: Clock
    ) -> None:
        self._peers = peers
        self._steer = Steer(peers)
        self._protections = protections
        self._operations = operations
        self._journal = journal
        self._clock = clock

    async def system(self) -> SystemStatus:
        """The system as its parts answer. What does not answer in time is a problem, not an error."""
        time = self._clock.now()
        services = self._peers.services
        looks = asyncio.gather(*(self._steer.look(name) for name in services))
        found, protected, theirs, ours, lost = await asyncio.gather(
            looks,
            _asked("protection", self._protections.protection()),
            _asked("operations of the backup service", self._protections.running_operations()),
            _asked("operations", self._operations.list()),
            _asked("recoveries", self._journal.lost()),
        )
        replicas = dict(zip(services, found, strict=True))
        problems = [*_of_replicas(replicas)]
        protection: Protection | None = None
        if isinstance(protected, str):
            problems.append(protected)
        else:
            protection, told = protected
            problems += told
        problems += [each for each in (theirs, ours, lost) if isinstance(each, str)]
        problems += [] if isinstance(lost, str) else lost
        running = [] if isinstance(ours, str) else [each.name for each in ours if not each.done]
        running += [] if isinstance(theirs, str) else theirs
        return SystemStatus(
            time, _health(replicas, problems), replicas, protection, running[:NAMES_MAX], problems[:PROBLEMS_MAX]
        )


async def _asked(what: str, question: Awaitable[T]) -> T | str:
    """The answer, or why there is none."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await question
    except errors.Error as failed:
        return f"{what}: {failed.message}"
    except TimeoutError:
        return f"{what}: no answer within {ASK_SECONDS:g} s"


def _of_replicas(replicas: Mapping[str, Sequence[Replica]]) -> Iterator[str]:
    """What is wrong with processes: services without any first."""
    for service, found in replicas.items():
        if not any(each.process and each.process.serves for each in found):
            yield f"no replica of {service} serves" if found else f"{service} has no replica that is known"
    for found in replicas.values():
        yield from (each.problem for each in found if each.problem)
    for service, found in replicas.items():
        for each in found:
            if each.process is None:
                continue
            where = f"{service} at {each.address.target}"
            if each.process.state is not State.SERVING:
                yield f"{where} is {each.process.state.name}"
            for dependency in each.process.dependencies:
                if dependency.health in {Health.DEGRADED, Health.UNHEALTHY}:
                    yield f"{where}: {dependency.name} is {dependency.health.name}: {dependency.message}"


def _health(replicas: Mapping[str, Sequence[Replica]], problems: Sequence[str]) -> Health:
    for found in replicas.values():
        if not any(each.process and each.process.serves for each in found):
            return Health.UNHEALTHY
    return Health.DEGRADED if problems else Health.HEALTHY
