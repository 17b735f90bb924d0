"""A real process of the kernel: its start, its end, its signals, its command line, its settings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.control.v1 import control_service_pb2 as pb
from llm_schema_registry.kernel.settings_sources import CONFIG_FILE, SECRETS_DIRECTORY
from tests.fix_echo import EchoCode, health_stub, open_channel
from tests.fix_echo_process import ADMIN, LOOPBACK, WAIT_SECONDS, Spawn, control_stub, http_get, mtls, refuses
from tests.fix_faults import eventually
from tests.fix_tls import Authority, secure_channel

OTHER_LOOPBACK = "127.0.0.2"
STEPS = [
    "become not ready",
    "drain calls in flight",
    "stop background work",
    "close database",
    "close redis",
    "flush metrics, traces and logs",
    "final cleanup",
]


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Ports on which nobody listens on 127.0.0.1, and nobody else can while they are held."""
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind((LOOPBACK, 0))
        yield [holder.getsockname()[1] for holder in holders]


@pytest.mark.option("server.grpc_port", "server.http_port", "server.drain_seconds")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_start_the_ordered_shutdown(
    spawn: Spawn, number: signal.Signals, free_port: Callable[[], int]
) -> None:
    """SIGTERM and SIGINT unwind the steps in order, each logged with its duration, and the exit status is 0."""
    wanted = {"server.grpc_port": str(free_port()), "server.http_port": str(free_port())}
    echo = await spawn(wanted)
    ready = await echo.line("ready")
    assert [ready["grpc_port"], ready["http_port"]] == [int(port) for port in wanted.values()]

    echo.process.send_signal(number)

    assert await echo.end() == 0
    steps = [line for line in echo.lines if line["event"] == "shutdown step"]
    assert [line["step"] for line in steps] == STEPS
    assert all(line["duration_seconds"] >= 0 for line in steps)
    assert steps[1]["duration_seconds"] < 4
    assert [line["cause"] for line in echo.lines if line["event"] == "shutdown begins"] == [number.name]


@pytest.mark.option("server.listen_address", "server.health_port")
async def test_only_the_chosen_address_is_listened_on(spawn: Spawn, authority: Authority) -> None:
    """Outside local mode every port is opened on the address of the settings, and on no other one."""
    with held_ports(3) as (grpc_port, http_port, health_port):
        chosen = {
            "server.listen_address": OTHER_LOOPBACK,
            "server.grpc_port": str(grpc_port),
            "server.http_port": str(http_port),
            "server.health_port": str(health_port),
        }
        echo = await spawn(mtls(authority) | chosen)
        await echo.line("ready")

        assert [await refuses(LOOPBACK, port) for port in (grpc_port, http_port, health_port)] == [True] * 3
        assert not await refuses(OTHER_LOOPBACK, http_port)
        admin = authority.issue("admin", uris=(ADMIN,))
        async with secure_channel(grpc_port, authority, admin, address=OTHER_LOOPBACK) as channel:
            assert (await control_stub(channel).GetState(pb.GetStateRequest())).process.service == "echo"
        async with grpc.aio.insecure_channel(f"{OTHER_LOOPBACK}:{health_port}") as channel:
            answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_drain_serves_on_and_flips_readiness_first(spawn: Spawn, echo_code: EchoCode) -> None:
    """While the balancer is waited for, calls are answered, readiness is 503, liveness 200; a second signal forces."""
    echo = await spawn({"server.drain_seconds": "600", "server.shutdown_timeout_seconds": "700"})
    ready = await echo.line("ready")
    assert (await http_get(ready["http_port"], "/health/ready"))[0] == 200
    async with open_channel(ready["grpc_port"]) as channel:
        stub = echo_code.rpc.EchoServiceStub(channel)
        await stub.Echo(echo_code.pb.EchoRequest(text="before"))

        echo.process.send_signal(signal.SIGTERM)
        await echo.line("shutdown step")

        assert (await stub.Echo(echo_code.pb.EchoRequest(text="during"))).text == "during"
        answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    status, _, body = await http_get(ready["http_port"], "/health/ready")
    assert (status, json.loads(body)["state"]) == (503, "DRAINING")
    assert (await http_get(ready["http_port"], "/health/live"))[0] == 200

    echo.process.send_signal(signal.SIGINT)
    assert await echo.end() == 128 + signal.SIGINT
    assert "forced exit" in echo.events


@pytest.mark.option("server.grace_seconds")
async def test_calls_in_flight_are_answered_within_the_grace(spawn: Spawn, echo_code: EchoCode) -> None:
    """A call that ends within the grace is answered, after the process has ceased to take connections."""
    echo = await spawn({"server.grace_seconds": "20"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        hang = await hanging(echo_code, channel, ready["http_port"])

        echo.process.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(LOOPBACK, ready["grpc_port"]))
        echo.process.send_signal(signal.SIGUSR1)

        assert (await hang).text == "late"
    assert await echo.end() == 0


@pytest.mark.option("server.grace_seconds")
async def test_calls_are_cancelled_after_the_grace(spawn: Spawn, echo_code: EchoCode) -> None:
    """A call that does not end within the grace is cancelled, and the process ends in order."""
    echo = await spawn({"server.grace_seconds": "0"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        hang = await hanging(echo_code, channel, ready["http_port"])

        echo.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hang

    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert await echo.end() == 0


async def hanging(echo_code: EchoCode, channel: grpc.aio.Channel, http_port: int) -> Any:
    """A call that the process has in work and does not end by itself."""
    call = echo_code.rpc.EchoServiceStub(channel).Echo(
        echo_code.pb.EchoRequest(text="late", action="hang"), timeout=WAIT_SECONDS
    )

    async def begun() -> bool:
        return call.done() or await calls_in_flight(http_port) == 1

    await eventually(begun)
    return call


async def calls_in_flight(http_port: int) -> int:
    """How many calls the process has in work."""
    return int(json.loads((await http_get(http_port, "/health/live"))[2])["in_flight"])


@pytest.mark.option("server.shutdown_timeout_seconds")
async def test_shutdown_is_bounded(spawn: Spawn) -> None:
    """A step that hangs is given up, the others still run, and the exit status says so."""
    options = {"server.shutdown_timeout_seconds": "2.5", "server.grace_seconds": "0.1"}
    echo = await spawn(options, variables={"ECHO_CLOSE": "hang"})
    await echo.line("ready")

    echo.process.send_signal(signal.SIGTERM)

    assert await echo.end() == 1
    outcomes = {line["step"]: line["outcome"] for line in echo.lines if line["event"] == "shutdown step"}
    assert list(outcomes) == STEPS
    assert {outcomes["close database"], outcomes["close redis"]} == {"timeout"}
    limits = {line["step"]: line.get("timeout_seconds", 0) for line in echo.lines if line["event"] == "shutdown step"}
    assert limits["close redis"] < 2.5


async def test_signal_during_the_start_ends_it(spawn: Spawn) -> None:
    """A process that waits in its start stops at the first signal, and closes what it had opened."""
    echo = await spawn(variables={"ECHO_BUILD": "unreachable"})
    await echo.line("waiting for dependency")

    echo.process.send_signal(signal.SIGTERM)

    assert await echo.end() == 0
    steps = [line["step"] for line in echo.lines if line["event"] == "shutdown step"]
    assert steps == STEPS[3:]


async def test_startup_probe_answers_while_starting(spawn: Spawn, free_port: Callable[[], int]) -> None:
    """During the start the HTTP pages are there: alive, but neither started nor ready."""
    port = free_port()
    echo = await spawn({"server.http_port": str(port)}, variables={"ECHO_BUILD": "hang"})
    await echo.line("starting")
    while True:
        try:
            answers = {probe: (await http_get(port, f"/health/{probe}"))[0] for probe in ("live", "startup", "ready")}
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0)

    assert answers == {"live": 200, "startup": 503, "ready": 503}


@pytest.mark.parametrize(
    ("build", "told"), [("fail", "The echo has no mountain. Build one."), ("defect", "unexpected exception")]
)
async def test_failed_start_is_told_once(spawn: Spawn, build: str, told: str) -> None:
    """A start that fails says why in one line, closes what was opened, and exits with 1."""
    echo = await spawn(variables={"ECHO_BUILD": build})

    assert await echo.end() == 1
    assert [line["message"] for line in echo.lines if line["event"] == "start failed"] == [told]


@pytest.mark.option("server.startup_timeout_seconds")
async def test_missing_dependency_is_waited_for(spawn: Spawn) -> None:
    """What is not up yet is waited for, with a log line, and given up after the startup timeout."""
    echo = await spawn({"server.startup_timeout_seconds": "0.5"}, variables={"ECHO_BUILD": "unreachable"})

    assert await echo.end() == 1
    assert "waiting for dependency" in echo.events
    [line] = [line for line in echo.lines if line["event"] == "start failed"]
    assert "The mountain does not answer." in line["message"]


@pytest.mark.parametrize("option", ["server.grpc_port", "server.http_port"])
async def test_taken_port_is_a_clear_message(spawn: Spawn, option: str) -> None:
    """A taken port is named in the message, and the exit status is 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        echo = await spawn({option: str(port)})

        assert await echo.end() == 1
    [line] = [line for line in echo.lines if line["event"] == "start failed"]
    assert f"127.0.0.1:{port}" in line["message"]


@pytest.mark.option("server.reuse_port")
async def test_processes_may_share_a_port(spawn: Spawn) -> None:
    """With server.reuse_port a second process listens on the port of the first."""
    first = await spawn({"server.reuse_port": "true"})
    port = (await first.line("ready"))["grpc_port"]
    second = await spawn({"server.reuse_port": "true", "server.grpc_port": str(port)})

    assert (await second.line("ready"))["grpc_port"] == port


@pytest.mark.option("server.reuse_port")
async def test_processes_share_no_port_unless_told(spawn: Spawn) -> None:
    """Without server.reuse_port a second process does not start on the port of the first."""
    first = await spawn()
    port = (await first.line("ready"))["grpc_port"]
    second = await spawn({"server.grpc_port": str(port)})

    assert await second.end() == 1
    [line] = [line for line in second.lines if line["event"] == "start failed"]
    assert f"{LOOPBACK}:{port}" in line["message"]


@pytest.mark.option("server.local_mode")
async def test_local_mode_warns_and_is_needed(spawn: Spawn) -> None:
    """Local mode warns loudly; without it, and without an authenticator, the process does not start."""
    local = await spawn()
    await local.line("ready")
    assert [line["level"] for line in local.lines if line["event"].startswith("LOCAL MODE")] == ["warning"]

    open_to_all = await spawn({"server.local_mode": "false"})
    assert await open_to_all.end() == 2
    assert "security.mtls_enabled" in "".join(open_to_all.text)


async def test_ready_file_holds_the_ports(spawn: Spawn, tmp_path: Path) -> None:
    """The file that SCHEMA_REGISTRY_READY_FILE names is there while the process serves."""
    path = tmp_path / "ready.json"
    echo = await spawn(variables={"SCHEMA_REGISTRY_READY_FILE": str(path)})
    ready = await echo.line("ready")
    assert json.loads(path.read_text())["grpc_port"] == ready["grpc_port"]

    echo.process.send_signal(signal.SIGTERM)
    await echo.end()
    assert not path.exists()


async def test_config_prints_values_with_sources(spawn: Spawn, tmp_path: Path) -> None:
    """`config` shows every option's value and source, secrets as stars, and serves nothing."""
    (tmp_path / "settings.toml").write_text("[server]\ngrace_seconds = 7\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "control__token").write_text("another-secret-token\n")
    variables = {CONFIG_FILE: str(tmp_path / "settings.toml"), SECRETS_DIRECTORY: str(tmp_path / "secrets")}
    echo = await spawn({"control.token": ""}, "config", variables=variables)
    output, _ = await echo.process.communicate()

    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in output.decode().splitlines()}
    assert echo.process.returncode == 0
    assert rows["server.grace_seconds"] == ["7.0", f"file {tmp_path / 'settings.toml'}"]
    assert rows["control.token"] == ["********", f"secret file {tmp_path / 'secrets' / 'control__token'}"]
    assert rows["server.grpc_port"] == ["0", "environment SCHEMA_REGISTRY__SERVER__GRPC_PORT"]
    assert rows["health.poll_seconds"] == ["2", "default"]
    assert "secret-token" not in output.decode()


async def test_wrong_settings_are_all_told(spawn: Spawn) -> None:
    """Every error of the settings is on standard error, no secret is, and the exit status is 2."""
    echo = await spawn({"server.grpc_prot": "1", "server.http_port": "99999", "control.token": "short-secret"})

    assert await echo.end() == 2
    text = "".join(echo.text)
    assert "did you mean server.grpc_port" in text
    assert "server.http_port = '99999'" in text
    assert "control.token" in text
    assert "short-secret" not in text


async def test_version_is_printed(spawn: Spawn) -> None:
    """--version prints the service and the version."""
    echo = await spawn(None, "--version")
    output, _ = await echo.process.communicate()

    assert output.decode().startswith("echo ")


@pytest.mark.option("health.poll_seconds")
async def test_dependencies_are_polled(spawn: Spawn, tmp_path: Path) -> None:
    """PostgreSQL down makes the process not ready but leaves it alive; Redis down degrades it; each told once."""
    database, redis = tmp_path / "database-down", tmp_path / "redis-down"
    variables = {"ECHO_DATABASE_DOWN": str(database), "ECHO_REDIS_DOWN": str(redis)}
    echo = await spawn({"health.poll_seconds": "0.02", "health.failure_threshold": "2"}, variables=variables)
    port = (await echo.line("ready"))["http_port"]

    redis.touch()
    while (line := await echo.line("dependency changed"))["status"] != "UNHEALTHY":
        pass
    assert line["dependency"] == "redis"
    status, _, body = await http_get(port, "/health/ready")
    assert (status, json.loads(body)["status"]) == (200, "DEGRADED")

    database.touch()
    while (line := await echo.line("dependency changed"))["status"] != "UNHEALTHY":
        pass
    assert line["dependency"] == "postgresql"
    status, _, body = await http_get(port, "/health/ready")
    document = json.loads(body)
    assert (status, document["status"]) == (503, "UNHEALTHY")
    assert document["dependencies"]["postgresql"]["message"] == "switched off"
    assert document["dependencies"]["postgresql"]["latency_ms"] >= 0
    assert (await http_get(port, "/health/live"))[0] == 200

    database.unlink()
    while (line := await echo.line("dependency changed"))["status"] != "HEALTHY":
        pass
    assert (await http_get(port, "/health/ready"))[0] == 200


@pytest.mark.option("features.read_only_mode")
async def test_read_only_mode_refuses_writes(spawn: Spawn, echo_code: EchoCode) -> None:
    """With features.read_only_mode the process starts in READ_ONLY."""
    echo = await spawn({"features.read_only_mode": "true"})
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo_code.rpc.EchoServiceStub(channel).Write(echo_code.pb.EchoRequest())

    assert type(from_rpc_error(caught.value)) is errors.ReadOnly
    assert ready["state"] == "READ_ONLY"


@pytest.mark.option("observability.log_format")
async def test_text_logs_are_readable(spawn: Spawn) -> None:
    """With observability.log_format=text lines are for people."""
    echo = await spawn({"observability.log_format": "text"})
    assert echo.process.stderr is not None
    first = (await echo.process.stderr.readline()).decode()
    os.kill(echo.process.pid, signal.SIGKILL)

    assert " info     starting " in first


@pytest.mark.option("observability.metrics_enabled", "observability.metrics_path")
@pytest.mark.parametrize("enabled", [True, False])
async def test_metrics_page(spawn: Spawn, echo_code: EchoCode, *, enabled: bool) -> None:
    """The metrics page shows the calls in Prometheus's format at its path, or is not there."""
    options = {"observability.metrics_path": "/numbers", "observability.metrics_enabled": str(enabled).lower()}
    echo = await spawn(options)
    ready = await echo.line("ready")
    async with open_channel(ready["grpc_port"]) as channel:
        await echo_code.rpc.EchoServiceStub(channel).Echo(echo_code.pb.EchoRequest(text="hello"))
    status, headers, body = await http_get(ready["http_port"], "/numbers")

    assert status == (200 if enabled else 404)
    if enabled:
        assert headers["content-type"].startswith("text/plain")
        assert b'grpc_server_call_started_total{grpc_method="echo.v1.EchoService/Echo"} 1.0' in body
        assert (
            b'grpc_server_call_duration_seconds_count{grpc_method="echo.v1.EchoService/Echo",grpc_status="OK"} 1.0'
            in body
        )
        assert b"process_cpu_seconds_total" in body
        assert b"schema_registry_process_ready 1.0" in body
        assert b'schema_registry_dependency_status{dependency="redis"} 1.0' in body
