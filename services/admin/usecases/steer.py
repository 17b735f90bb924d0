"""Asks every replica of some services for the same thing, side by side, and tells what each did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from llm_schema_registry import errors
from services.admin.domain.system import Address, Process, Replica, ReplicaOptions, State
from services.admin.ports import Peers

T = TypeVar("T")


class Steer:
    """Modes, caches and options of the system's processes."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def look(self, service: str) -> Sequence[Replica]:
        """Every replica of a service as it sees itself; a problem for one that does not answer."""
        return await self._at_each([service], self._peers.state)

    async def set_mode(self, services: Sequence[str], mode: State) -> Sequence[Replica]:
        """Puts every replica into a mode."""
        return await self._at_each(services, lambda address: self._peers.set_mode(address, mode))

    async def flush_caches(self, services: Sequence[str]) -> Sequence[Replica]:
        """Makes every replica forget what it keeps of the database."""

        async def flush(address: Address) -> Process:
            problem = await self._peers.flush_caches(address)
            if problem:
                raise errors.PeerFailed(f"{address.service} at {address.target} kept entries: {problem}")
            return await self._peers.state(address)

        return await self._at_each(services, flush)

    async def options(self, service: str) -> Sequence[ReplicaOptions]:
        """The options in force at every replica."""
        addresses = await self._peers.replicas(service)
        found = await asyncio.gather(*(self._tried(each, self._peers.options) for each in addresses))
        return [
            ReplicaOptions(address, (), answer) if isinstance(answer, str) else ReplicaOptions(address, answer)
            for address, answer in zip(addresses, found, strict=True)
        ]

    async def _at_each(
        self, services: Sequence[str], ask: Callable[[Address], Awaitable[Process]]
    ) -> Sequence[Replica]:
        addresses = [each for service in services for each in await self._peers.replicas(service)]
        found = await asyncio.gather(*(self._tried(each, ask) for each in addresses))
        return [
            Replica(address, problem=answer) if isinstance(answer, str) else Replica(address, answer)
            for address, answer in zip(addresses, found, strict=True)
        ]

    async def _tried(self, address: Address, ask: Callable[[Address], Awaitable[T]]) -> T | str:
        """The answer, or why there is none."""
        try:
            return await ask(address)
        except errors.Error as failed:
            return failed.message
