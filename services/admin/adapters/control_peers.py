"""Every process of the system, over gRPC."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.client.control import ControlClient
from llm_schema_registry.control.v1 import control_service_pb2 as pb
from services.admin.codec import nouns
from services.admin.domain.system import SERVICES, Address, MetricPoint, Option, Process, State

REPLICAS_MAX = 100
"""Addresses of one service that are looked at."""
RESOLVE_SECONDS_MAX = 3.0


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Where the processes are, and how to speak to them.

    targets: by service, each `host:port`; a host that is a name stands for all of its addresses. token: the control
    token; None for a client certificate alone. timeout_seconds: for one answer.
    """

    targets: Mapping[str, Sequence[str]]
    token: str | None
    tls: Tls | None
    timeout_seconds: float


class ControlPeers:
    """See Peers. A channel is opened for each request and closed behind it: replicas come and go."""

    def __init__(self, options: PeerOptions) -> None:
        self._options = options

    @property
    def services(self) -> Sequence[str]:
        """See Peers."""
        return [name for name in SERVICES if self._options.targets.get(name)]

    async def replicas(self, service: str) -> Sequence[Address]:
        """See Peers."""
        found: dict[str, None] = {}
        for target in self._options.targets.get(service, ()):
            for address in await _resolved(target):
                found[address] = None
        return [Address(service, target) for target in list(found)[:REPLICAS_MAX]]

    async def state(self, address: Address) -> Process:
        """See Peers."""
        async with self._client(address) as client:
            answer = await client.call(client.control.GetState, pb.GetStateRequest())
        return nouns.read_process(answer.process)

    async def options(self, address: Address) -> Sequence[Option]:
        """See Peers."""
        async with self._client(address) as client:
            answer = await client.call(client.control.GetConfig, pb.GetConfigRequest())
        return nouns.read_options(answer.options)

    async def metrics(self, address: Address) -> Sequence[MetricPoint]:
        """See Peers."""
        async with self._client(address) as client:
            answer = await client.call(client.control.GetMetrics, pb.GetMetricsRequest())
        return nouns.read_points(answer.points)

    async def set_mode(self, address: Address, mode: State) -> Process:
        """See Peers."""
        request = pb.ResumeRequest(mode=int(mode))  # type: ignore[arg-type]  # the same numbers
        async with self._client(address) as client:
            answer = await client.call(client.control.Resume, request)
        return nouns.read_process(answer.process)

    async def flush_caches(self, address: Address) -> str:
        """See Peers."""
        async with self._client(address) as client:
            answer = await client.call(client.control.FlushCaches, pb.FlushCachesRequest(), timeout_seconds=20)
        return "; ".join(f"{each.name}: {each.problem}" for each in answer.caches if each.problem)

    async def stop(self, address: Address, *, cause: str, restart: bool) -> Process:
        """See Peers."""
        async with self._client(address) as client:
            answer = await client.call(client.control.Stop, pb.StopRequest(cause=cause, restart=restart))
        return nouns.read_process(answer.process)

    @asynccontextmanager
    async def _client(self, address: Address) -> AsyncIterator[ControlClient]:
        """A client of one replica. Raises errors.PeerUnreachable, naming it, when nobody answers."""
        token = self._options.token
        metadata = [("authorization", f"Bearer {token}")] if token else []
        client: Any = ControlClient(
            address.target, tls=self._options.tls, metadata=metadata, timeout_seconds=self._options.timeout_seconds
        )
        async with client:
            try:
                yield client
            except errors.Error as failed:
                raise _told(address, failed) from None


def _told(address: Address, failed: errors.Error) -> errors.Error:
    """What a replica answered, or that it did not, with its address."""
    where = {"service": address.service, "address": address.target}
    # CANCELLED: the process ended in the middle of the call.
    if failed.code in {errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED, errors.Code.CANCELLED}:
        return errors.PeerUnreachable(
            f"{address.service} at {address.target} does not answer: {failed.message}", metadata=where, retry_seconds=1
        )
    return errors.PeerFailed(
        f"{address.service} at {address.target} refused: {failed.message}",
        metadata={**where, "peer_reason": failed.reason},
    )


async def _resolved(target: str) -> Sequence[str]:
    """The addresses of a target, sorted; none when its name has none now."""
    host, _, port = target.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return [target]
    try:
        async with asyncio.timeout(RESOLVE_SECONDS_MAX):
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    return sorted({f"[{each[4][0]}]:{port}" if ":" in str(each[4][0]) else f"{each[4][0]}:{port}" for each in found})
