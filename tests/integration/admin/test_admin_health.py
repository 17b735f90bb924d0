"""Health of the admin service, which needs no credential."""

from __future__ import annotations

import json
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.admin.app import OPERATION, PACKAGE
from tests.fix_faults import SERVING
from tests.fix_steering import System

NAMES = ("", "liveness", "readiness", "startup", f"{PACKAGE}.AdminService", f"{OPERATION}.OperationService")


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_serves(steered: System, name: str) -> None:
    """grpc.health.v1 answers whoever asks, by Check and by Watch."""
    async with grpc.aio.insecure_channel(steered.admin.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub
        request = health_pb2.HealthCheckRequest(service=name)
        checked = await stub(channel).Check(request, timeout=10)
        watch = stub(channel).Watch(request, timeout=10)
        watched = await watch.read()
        watch.cancel()

    assert checked.status == watched.status == SERVING


def test_pages_tell_what_it_depends_on(steered: System) -> None:
    """The readiness page names store and database, neither of them critical, with version and uptime."""
    status, page = steered.admin.http("/health/ready")

    told = json.loads(page)
    assert status == 200
    assert {name: each["critical"] for name, each in told["dependencies"].items()} == {
        "object store": False,
        "postgresql": False,
    }
    assert {"version", "commit", "uptime_seconds"} <= set(told), told
    assert [steered.admin.http(f"/health/{name}")[0] for name in ("live", "startup")] == [200, 200]
