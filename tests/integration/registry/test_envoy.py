"""A real Envoy with an active gRPC health check in front of two replicas, by the configuration that operators get."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient, from_rpc_error
from llm_schema_registry.control.v1 import control_service_pb2, control_service_pb2_grpc
from tests.fix_calls import Registry
from tests.fix_faults import eventually, mixed_load
from tests.fix_service import CONTROL_TOKEN, MakeService, Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIGURATION = Path(__file__).resolve().parents[3] / "deploy" / "envoy" / "registry.yaml"
CLIENTS = 2
Name = Callable[..., str]


def _program() -> str:
    """Envoy, as the package of the development dependencies brings it."""
    return str(Path(sys.executable).with_name("envoy"))


def configured(replicas: list[Service], *, port: int, admin_port: int) -> dict[str, Any]:
    """The operators' configuration with the addresses of this machine put in, and nothing else changed."""
    configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    resources = configuration["static_resources"]
    configuration["admin"]["address"]["socket_address"]["port_value"] = admin_port
    resources["listeners"][0]["address"]["socket_address"]["port_value"] = port
    addresses = [{"address": "127.0.0.1", "port_value": replica.ports["grpc_port"]} for replica in replicas]
    resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": address}}} for address in addresses
    ]
    return configuration


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    target: str
    admin_port: int

    async def host(self, replica: Service) -> dict[str, Any]:
        """What Envoy knows of a replica."""
        document = await asyncio.to_thread(self._get, "/clusters?format=json")
        (cluster,) = document["cluster_statuses"]
        port = replica.ports["grpc_port"]
        hosts: list[dict[str, Any]] = cluster["host_statuses"]
        (found,) = (host for host in hosts if host["address"]["socket_address"]["port_value"] == port)
        return found

    async def in_rotation(self, replica: Service) -> bool:
        """Whether calls are sent to a replica."""
        health: dict[str, Any] = (await self.host(replica))["health_status"]
        return not health.get("failed_active_health_check", False)

    async def out_of_rotation(self, replica: Service) -> bool:
        """The opposite."""
        return not await self.in_rotation(replica)

    async def requests(self, replica: Service) -> int:
        """How many calls were sent to a replica."""
        counters = {stat["name"]: stat.get("value", "0") for stat in (await self.host(replica))["stats"]}
        return int(counters["rq_total"])

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
async def replicas(make_service: MakeService, database_url: str) -> list[Service]:
    """Two replicas that drain as long as they do by default."""
    made = [make_service(database_url, server__drain_seconds=5) for _ in range(2)]
    for service in made:
        service.launch()
    for service in made:
        await asyncio.to_thread(service.wait_ready)
    return made


@pytest.fixture
async def envoy(replicas: list[Service], tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Envoy]:
    """Envoy in front of the replicas, both in rotation."""
    port, admin_port = free_port(), free_port()
    configuration = tmp_path / "envoy.json"
    configuration.write_text(json.dumps(configured(replicas, port=port, admin_port=admin_port)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with (tmp_path / "envoy.log").open("wb") as log:
        command = [_program(), "-c", str(configuration), *options]
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    running = Envoy(f"127.0.0.1:{port}", admin_port)

    async def ready() -> bool:
        assert process.returncode is None, (tmp_path / "envoy.log").read_text()
        try:
            return all([await running.in_rotation(replica) for replica in replicas])
        except (OSError, KeyError, ValueError):
            return False

    try:
        await eventually(ready)
        yield running
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


def test_the_configuration_is_valid_as_it_stands() -> None:
    """Envoy accepts the file that operators get."""
    command = [_program(), "--mode", "validate", "-c", str(CONFIGURATION), "--log-level", "error"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_a_draining_replica_leaves_the_rotation_before_it_stops(
    replicas: list[Service], envoy: Envoy, name: Name
) -> None:
    """Each replica in turn is stopped and started under load: no call fails, and none is sent to one that left."""
    async with AsyncExitStack() as stack:
        registries = [Registry(await stack.enter_async_context(RegistryClient(envoy.target))) for _ in range(CLIENTS)]
        async with mixed_load(registries, name("envoy")) as load:
            for replica in replicas:
                before = await envoy.requests(replica)
                await eventually(lambda r=replica, b=before: more(envoy, r, b))  # type: ignore[misc]

                stopping = asyncio.create_task(replica.stop_async())
                await eventually(lambda r=replica: envoy.out_of_rotation(r))  # type: ignore[misc]
                assert not stopping.done(), "it served until the balancer had noticed"
                left = await settled(envoy, replica)
                assert await stopping == 0
                assert await envoy.requests(replica) == left, "no call was sent to a replica that had left"

                await replica.start_async()
                await eventually(lambda r=replica: envoy.in_rotation(r))  # type: ignore[misc]
                await eventually(lambda r=replica, b=left: more(envoy, r, b))  # type: ignore[misc]

    assert load.failures == []
    assert min(load.calls.values()) > 50, load.calls


async def settled(envoy: Envoy, replica: Service) -> int:
    """The number of calls to a replica once it stands still: Envoy's workers hear of its decisions a little later."""
    counts = [-1]

    async def still() -> bool:
        counts.append(await envoy.requests(replica))
        return counts[-5:] == counts[-1:] * 5

    await eventually(still)
    return counts[-1]


async def more(envoy: Envoy, replica: Service, than: int) -> bool:
    """Whether more calls were sent to a replica."""
    return await envoy.requests(replica) > than


async def test_control_is_not_reachable_through_the_balancer(envoy: Envoy) -> None:
    """Even with the token: who steers a replica talks to that replica."""
    async with grpc.aio.insecure_channel(envoy.target) as channel:
        stub: Any = control_service_pb2_grpc.ControlServiceStub(channel)
        metadata = (("authorization", f"Bearer {CONTROL_TOKEN}"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetState(control_service_pb2.GetStateRequest(), metadata=metadata, timeout=10)

    assert type(from_rpc_error(caught.value)) is errors.MethodUnknown
