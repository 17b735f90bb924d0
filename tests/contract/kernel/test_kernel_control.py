"""ControlService of a real process: who may steer it, and what each method does in each state."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.control.v1 import control_service_pb2 as pb
from llm_schema_registry.control.v1 import process_pb2
from llm_schema_registry.kernel.lifecycle import MODES, State
from llm_schema_registry.kernel.serving import EXIT_RESTART
from llm_schema_registry.kernel.settings_sources import CONFIG_FILE
from tests.fix_echo import CONTROL_TOKEN, open_channel
from tests.fix_echo_process import ADMIN, BEARER, LOOPBACK, Spawn, control_stub, mtls, refuses
from tests.fix_faults import eventually
from tests.fix_tls import Authority, secure_channel


@pytest.mark.option("control.token")
async def test_control_needs_its_token(spawn: Spawn) -> None:
    """Also in local mode ControlService refuses a call without the token, or with another one."""
    echo = await spawn()
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub = control_stub(channel)
        wrong = [(), (("authorization", "Bearer nothing"),), (("authorization", CONTROL_TOKEN),)]
        for metadata in wrong:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetState(pb.GetStateRequest(), metadata=metadata)
            assert type(from_rpc_error(caught.value)) is errors.CredentialInvalid

        process = (await stub.GetState(pb.GetStateRequest(), metadata=BEARER)).process
    assert (process.service, process.state, process.in_flight) == ("echo", State.SERVING, 0)
    assert process.health == process_pb2.HEALTH_STATUS_HEALTHY
    assert [(found.name, found.critical) for found in process.dependencies] == [
        ("postgresql", True),
        ("redis", False),
    ]


@pytest.mark.option("control.client_names")
async def test_control_accepts_named_certificates(spawn: Spawn, authority: Authority) -> None:
    """Under mTLS a certificate that control.client_names names needs no token; any other one does."""
    echo = await spawn(mtls(authority))
    ready = await echo.line("ready")
    admin = authority.issue("admin", uris=(ADMIN,))
    other = authority.issue("other", uris=("spiffe://example.org/other",))
    async with secure_channel(ready["grpc_port"], authority, admin) as channel:
        assert (await control_stub(channel).GetState(pb.GetStateRequest())).process.service == "echo"
    async with secure_channel(ready["grpc_port"], authority, other) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await control_stub(channel).GetState(pb.GetStateRequest())
    assert type(from_rpc_error(caught.value)) is errors.CredentialInvalid
    assert ready["health_port"]


async def test_control_steers_the_process(spawn: Spawn) -> None:
    """Drain, Resume and Stop change the state as the contract says."""
    echo = await spawn()
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        for _ in range(2):
            drained = await stub.Drain(pb.DrainRequest(), metadata=BEARER)
            assert drained.process.state == State.DRAINING
        maintenance = pb.ResumeRequest(mode=State.MAINTENANCE)  # type: ignore[arg-type]
        assert (await stub.Resume(maintenance, metadata=BEARER)).process.state == State.MAINTENANCE
        assert (await stub.Resume(pb.ResumeRequest(), metadata=BEARER)).process.state == State.MAINTENANCE
        serving = pb.ResumeRequest(mode=State.SERVING)  # type: ignore[arg-type]
        assert (await stub.Resume(serving, metadata=BEARER)).process.state == State.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Resume(pb.ResumeRequest(mode=State.DRAINING), metadata=BEARER)  # type: ignore[arg-type]
        assert type(from_rpc_error(caught.value)) is errors.InvalidField

        await stub.Stop(pb.StopRequest(cause="rolling restart"), metadata=BEARER)
    assert await echo.end() == 0
    assert [line["cause"] for line in echo.lines if line["event"] == "shutdown begins"] == ["Stop RPC: rolling restart"]


@pytest.mark.option("features.read_only_mode")
async def test_resume_keeps_read_only_mode(spawn: Spawn) -> None:
    """A process that was started read-only is read-only again after a drain."""
    echo = await spawn({"features.read_only_mode": "true"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        assert (await stub.Drain(pb.DrainRequest(), metadata=BEARER)).process.state == State.DRAINING

        assert (await stub.Resume(pb.ResumeRequest(), metadata=BEARER)).process.state == State.READ_ONLY


async def test_starting_process_cannot_be_steered(spawn: Spawn, free_port: Callable[[], int]) -> None:
    """The gRPC port, and with it ControlService, is not there before the end of the start."""
    grpc_port, http_port = free_port(), free_port()
    options = {"server.grpc_port": str(grpc_port), "server.http_port": str(http_port)}
    echo = await spawn(options, variables={"ECHO_BUILD": "hang"})
    await echo.line("starting")

    async def alive() -> bool:
        return not await refuses(LOOPBACK, http_port)

    await eventually(alive)
    assert await refuses(LOOPBACK, grpc_port)


@pytest.mark.parametrize("mode", sorted(MODES))
async def test_draining_process_can_be_steered(spawn: Spawn, mode: State) -> None:
    """Every method of ControlService answers in every mode, and while the process drains from it."""
    echo = await spawn()
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        resume = pb.ResumeRequest(mode=mode)  # type: ignore[arg-type]
        assert (await stub.Resume(resume, metadata=BEARER)).process.state == mode
        for expected in (mode, State.DRAINING):
            state = await stub.GetState(pb.GetStateRequest(), metadata=BEARER)
            assert state.process.state == expected
            assert not (await stub.Reload(pb.ReloadRequest(), metadata=BEARER)).changed_options
            drained = await stub.Drain(pb.DrainRequest(), metadata=BEARER)
            assert drained.process.state == State.DRAINING
        resumed = await stub.Resume(pb.ResumeRequest(), metadata=BEARER)
        assert resumed.process.state == mode
        await stub.Drain(pb.DrainRequest(), metadata=BEARER)
        assert (await stub.Stop(pb.StopRequest(), metadata=BEARER)).process.state == State.DRAINING
    assert await echo.end() == 0


async def test_stopping_process_can_be_looked_at(spawn: Spawn) -> None:
    """While it stops a process still tells its state, reloads, and takes a second Stop; it drains by itself."""
    echo = await spawn({"server.drain_seconds": "600", "server.shutdown_timeout_seconds": "700"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        await stub.Stop(pb.StopRequest(), metadata=BEARER)
        await echo.line("shutdown step")

        assert (await stub.GetState(pb.GetStateRequest(), metadata=BEARER)).process.state == State.DRAINING
        assert not (await stub.Reload(pb.ReloadRequest(), metadata=BEARER)).changed_options
        await stub.Stop(pb.StopRequest(), metadata=BEARER)
        for refused in (
            stub.Drain(pb.DrainRequest(), metadata=BEARER),
            stub.Resume(pb.ResumeRequest(), metadata=BEARER),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            assert type(from_rpc_error(caught.value)) is errors.IllegalState


@pytest.mark.option("observability.log_level", "observability.trace_sampling_rate")
async def test_reload_applies_what_may_change(spawn: Spawn, tmp_path: Path) -> None:
    """Reload puts new values in force, names those that need a restart, and refuses wrong ones whole."""
    path = tmp_path / "settings.yaml"
    path.write_text("observability: {log_level: error, trace_sampling_rate: 0.1}\n")
    ready_file = tmp_path / "ready.json"
    variables = {CONFIG_FILE: str(path), "SCHEMA_REGISTRY_READY_FILE": str(ready_file)}
    echo = await spawn(variables=variables)
    while not ready_file.exists():  # noqa: ASYNC110 - the other process has no other way to tell
        await asyncio.sleep(0.01)
    async with open_channel(json.loads(ready_file.read_text())["grpc_port"]) as channel:
        stub = control_stub(channel)
        path.write_text("observability: {log_level: shout, trace_sampling_rate: 0.5}\n")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Reload(pb.ReloadRequest(), metadata=BEARER)
        error = from_rpc_error(caught.value)
        assert [violation.field for violation in error.violations] == ["observability.log_level"]

        path.write_text("observability: {log_level: info, trace_sampling_rate: 0.5}\nserver: {grace_seconds: 3}\n")
        answer = await stub.Reload(pb.ReloadRequest(), metadata=BEARER)
    assert list(answer.changed_options) == ["observability.log_level", "observability.trace_sampling_rate"]
    assert list(answer.restart_options) == ["server.grace_seconds"]

    echo.process.send_signal(signal.SIGTERM)
    assert await echo.end() == 0
    assert "ready" not in echo.events
    assert "stopped" in echo.events


async def test_stop_with_restart_asks_for_a_successor(spawn: Spawn) -> None:
    """The process ends in order and with status 75; a second Stop without the wish does not take it back."""
    echo = await spawn({"server.drain_seconds": "2"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        await stub.Stop(pb.StopRequest(cause="new version", restart=True), metadata=BEARER)
        await stub.Stop(pb.StopRequest(), metadata=BEARER)

    assert await echo.end() == EXIT_RESTART == 75
    assert [line["failed_steps"] for line in echo.lines if line["event"] == "stopped"] == [[]]


async def test_metrics_are_those_of_the_page(spawn: Spawn) -> None:
    """Counters, gauges and histograms as they are now; of a histogram the count and the total."""
    echo = await spawn()
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        stub: Any = control_stub(channel)
        for _ in range(3):
            await stub.GetState(pb.GetStateRequest(), metadata=BEARER)
        answer = await stub.GetMetrics(pb.GetMetricsRequest(), metadata=BEARER)
        flushed = await stub.FlushCaches(pb.FlushCachesRequest(), metadata=BEARER)

    assert {point.kind for point in answer.points} == {"counter", "gauge", "histogram"}
    durations = [
        point
        for point in answer.points
        if point.name == "grpc.server.call.duration" and "GetState" in "".join(point.attributes.values())
    ]
    assert [point.count for point in durations] == [3]
    assert durations[0].unit == "s"
    assert 0 < durations[0].value < 30
    assert answer.time.seconds
    assert list(flushed.caches) == []
