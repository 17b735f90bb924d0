"""Which calls get a log line at their end, and what it says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry.control.v1 import control_service_pb2 as pb
from llm_schema_registry.kernel.settings import ObservabilitySettings
from llm_schema_registry.kernel.settings_sources import CONFIG_FILE
from tests.contract.kernel.test_kernel_calls import Send, every_kind, failure, unary
from tests.fix_echo import EchoCode, EchoServer, health_stub, local_settings, open_channel, serve_echo
from tests.fix_echo_process import BEARER, Spawn, control_stub

QUICK = 0.000_001
"""Seconds that every call exceeds."""


def calls(echo: EchoServer) -> list[dict[str, Any]]:
    """The lines about calls."""
    return [line for line in echo.lines() if line["event"] == "call"]


def observed(**options: Any) -> Any:
    """Settings with options of observability."""
    return local_settings(observability=ObservabilitySettings(**options))


@every_kind
async def test_a_quick_call_that_went_well_is_not_logged(echo: EchoServer, echo_stub: Any, send: Send) -> None:
    """By default a call that is not notable leaves no line; one that failed does, with what there is to know."""
    await send(echo_stub, echo.request("hello"))
    await failure(send(echo_stub, echo.request("hello", "not-found")))

    [line] = calls(echo)
    assert (line["code"], line["reason"], line["logged"]) == ("NOT_FOUND", "SUBJECT_NOT_FOUND", "notable")
    assert line["duration_ms"] > 0
    assert {"method", "request_id", "trace_id", "peer", "caller"} <= set(line)


@pytest.mark.option("observability.log_calls")
@every_kind
async def test_every_call_is_logged_when_asked_for(echo_code: EchoCode, send: Send) -> None:
    """With observability.log_calls=all each call has its line; those of streams say that they are streams."""
    async with serve_echo(echo_code, observed(log_calls="all")) as echo, open_channel(echo.ports.grpc) as channel:
        await send(echo.stub(channel), echo.request("hello"))

        [line] = calls(echo)
    assert (line["code"], line["logged"]) == ("OK", "all")
    assert line.get("stream", False) is (send is not unary)


@pytest.mark.option("observability.slow_call_seconds")
@every_kind
async def test_a_slow_call_is_logged_unless_it_streams(echo_code: EchoCode, send: Send) -> None:
    """A call above observability.slow_call_seconds has its line; a stream is long by nature and has none."""
    async with (
        serve_echo(echo_code, observed(slow_call_seconds=QUICK)) as echo,
        open_channel(echo.ports.grpc) as channel,
    ):
        await send(echo.stub(channel), echo.request("hello"))

        lines = calls(echo)
    assert [line["logged"] for line in lines] == (["notable"] if send is unary else [])


async def test_health_checks_that_went_well_are_never_logged(echo_code: EchoCode) -> None:
    """Probes come every second: the log is not for them."""
    from grpc_health.v1 import health_pb2  # noqa: PLC0415 - only here

    async with serve_echo(echo_code, observed(log_calls="all")) as echo, open_channel(echo.ports.grpc) as channel:
        await health_stub(channel).Check(health_pb2.HealthCheckRequest())

        assert calls(echo) == []


async def test_reload_changes_which_calls_are_logged(spawn: Spawn, echo_code: EchoCode, tmp_path: Path) -> None:
    """Both options take effect in a running process."""
    path = tmp_path / "settings.yaml"
    path.write_text("observability: {log_calls: notable}\n")
    echo = await spawn(variables={CONFIG_FILE: str(path)})
    async with open_channel((await echo.line("ready"))["grpc_port"]) as channel:
        stub = echo_code.rpc.EchoServiceStub(channel)
        await stub.Echo(echo_code.pb.EchoRequest(), metadata=[("x-request-id", "before")])
        path.write_text(f"observability: {{log_calls: all, slow_call_seconds: {QUICK:f}}}\n")
        answer = await control_stub(channel).Reload(pb.ReloadRequest(), metadata=BEARER)
        await stub.Echo(echo_code.pb.EchoRequest(), metadata=[("x-request-id", "behind")])
    echo.process.send_signal(signal.SIGTERM)
    assert await echo.end() == 0

    assert list(answer.changed_options) == ["observability.log_calls", "observability.slow_call_seconds"]
    logged = [line["request_id"] for line in echo.lines if line["event"] == "call"]
    assert "before" not in logged
    assert "behind" in logged


async def test_changes_of_state_are_logged(spawn: Spawn) -> None:
    """Every step of a process's life is a line with the state before and after."""
    echo = await spawn({})
    await echo.line("ready")
    echo.process.send_signal(signal.SIGTERM)
    assert await echo.end() == 0

    steps = [(line["before"], line["state"]) for line in echo.lines if line["event"] == "state changed"]
    assert steps == [("STARTING", "SERVING"), ("SERVING", "DRAINING"), ("DRAINING", "STOPPED")]
