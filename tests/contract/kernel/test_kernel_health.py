"""grpc.health.v1, reflection and ControlService's credential over a real channel."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.lifecycle import State
from llm_schema_registry.kernel.policy import PolicyMissing, methods
from llm_schema_registry.kernel.settings import HealthSettings
from tests.fix_echo import SERVICE, EchoCode, EchoServer, health_stub, local_settings, open_channel, reflect, serve_echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
READY_NAMES = ("", SERVICE, "readiness")
ALL_NAMES = (*READY_NAMES, "liveness", "startup")


async def statuses(port: int) -> dict[str, int]:
    """What Check answers for every name."""
    async with open_channel(port) as channel:
        stub = health_stub(channel)
        return {name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ALL_NAMES}


async def test_starting_process_lives_only(echo_code: EchoCode) -> None:
    """Before SERVING only liveness is SERVING, the empty name not."""
    async with serve_echo(echo_code, mode=None) as server:
        assert await statuses(server.ports.grpc) == {**dict.fromkeys(ALL_NAMES, NOT_SERVING), "liveness": SERVING}


@pytest.mark.parametrize("mode", [State.SERVING, State.READ_ONLY])
async def test_running_process_is_ready(echo_code: EchoCode, mode: State) -> None:
    """While reads are served every name is SERVING."""
    async with serve_echo(echo_code, mode=mode) as server:
        assert await statuses(server.ports.grpc) == dict.fromkeys(ALL_NAMES, SERVING)


async def test_maintenance_is_not_ready(echo_code: EchoCode) -> None:
    """In MAINTENANCE the process is out of rotation, but alive and started."""
    async with serve_echo(echo_code, mode=State.MAINTENANCE) as server:
        assert await statuses(server.ports.grpc) == {
            **dict.fromkeys(READY_NAMES, NOT_SERVING),
            "liveness": SERVING,
            "startup": SERVING,
        }


async def test_draining_process_lives(echo: EchoServer) -> None:
    """A drain takes readiness away and leaves liveness alone."""
    echo.lifecycle.drain()

    assert await statuses(echo.ports.grpc) == {
        **dict.fromkeys(READY_NAMES, NOT_SERVING),
        "liveness": SERVING,
        "startup": SERVING,
    }


@pytest.mark.parametrize(("critical", "ready"), [(True, False), (False, True)])
async def test_dependencies_decide_readiness(echo: EchoServer, *, critical: bool, ready: bool) -> None:
    """Without a critical dependency the process is not ready, but alive; without another one it is ready."""

    async def broken() -> str | None:
        return "refused"

    echo.dependencies.watch([DependencyCheck("postgresql", critical=critical, check=broken)])
    await echo.dependencies.poll()

    found = await statuses(echo.ports.grpc)
    assert found["readiness"] == (SERVING if ready else NOT_SERVING)
    assert found["liveness"] == SERVING


async def test_unknown_names(echo: EchoServer) -> None:
    """Check of an unknown name is NOT_FOUND; Watch says SERVICE_UNKNOWN and stays open."""
    request = health_pb2.HealthCheckRequest(service="nobody")
    async with open_channel(echo.ports.grpc) as channel:
        stub = health_stub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(request)
        watch: Any = stub.Watch(request)

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await watch.read()).status == SERVICE_UNKNOWN
        assert not watch.done()
        watch.cancel()


async def test_list_names_everything(echo: EchoServer) -> None:
    """List gives the status of every name."""
    messages: Any = health_pb2
    async with open_channel(echo.ports.grpc) as channel:
        answer = await health_stub(channel).List(messages.HealthListRequest())

    assert {name: found.status for name, found in answer.statuses.items()} == dict.fromkeys(ALL_NAMES, SERVING)


async def test_watch_follows_changes(echo: EchoServer) -> None:
    """A watch tells the present status and every change of it, once each."""
    async with open_channel(echo.ports.grpc) as channel:
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING

        echo.lifecycle.enter_mode(State.READ_ONLY)
        echo.lifecycle.drain()
        assert (await watch.read()).status == NOT_SERVING
        echo.lifecycle.enter_mode(State.SERVING)
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_open_watch_does_not_hold_up_the_stop(echo: EchoServer) -> None:
    """A stop with a long grace ends at once although a health watch and a reflection stream are open."""
    async with open_channel(echo.ports.grpc) as channel:
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        reflection = reflect(channel)
        await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await reflection.read()

        await asyncio.wait_for(echo.server.stop(grace_seconds=60), 10)

        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
        await reflection.code()


async def test_health_is_not_counted_as_work(echo: EchoServer) -> None:
    """An open health watch is no call in flight."""
    async with open_channel(echo.ports.grpc) as channel:
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()

        assert echo.lifecycle.in_flight == 0
        watch.cancel()


@pytest.mark.option("server.reflection_enabled")
@pytest.mark.parametrize("enabled", [True, False])
async def test_reflection_lists_services(echo_code: EchoCode, *, enabled: bool) -> None:
    """server.reflection_enabled decides whether a caller can ask for the services."""
    server_settings = local_settings().server.model_copy(update={"reflection_enabled": enabled})
    async with (
        serve_echo(echo_code, local_settings(server=server_settings)) as server,
        open_channel(server.ports.grpc) as channel,
    ):
        call = reflect(channel, iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if enabled:
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} <= names
        else:
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_methods_without_policy_are_refused(echo_code: EchoCode) -> None:
    """A service of ours with a method that lacks its policy cannot be served."""
    with pytest.raises(PolicyMissing, match=r"echo\.v1\.BareService/Bare"):
        methods("echo.v1.BareService")


@pytest.mark.option("health.failure_threshold", "health.check_timeout_seconds")
async def test_health_options_reach_the_checks(echo_code: EchoCode) -> None:
    """A check that takes longer than the timeout has failed, and the threshold decides when that counts."""
    answer = asyncio.Event()
    answer.set()

    async def check() -> str | None:
        await answer.wait()
        return None

    settings = local_settings(health=HealthSettings(check_timeout_seconds=0.01, failure_threshold=2))
    async with serve_echo(echo_code, settings) as server:
        server.dependencies.watch([DependencyCheck("postgresql", critical=True, check=check)])
        await server.dependencies.poll()
        answer.clear()
        seen = []
        for _ in range(2):
            await server.dependencies.poll()
            seen.append(server.dependencies.findings[0].status.name)

    assert seen == ["DEGRADED", "UNHEALTHY"]
    assert server.dependencies.findings[0].message == "no answer within 0.01 s"
