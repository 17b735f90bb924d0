"""What the client tells gRPC about every method: deadlines, and which calls are repeated when."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry.client.channel import RECONNECT_SECONDS_MAX
from llm_schema_registry.client.service_config import (
    ATTEMPTS_MAX,
    BACKOFF_MULTIPLIER,
    BACKOFF_SECONDS,
    BACKOFF_SECONDS_MAX,
    policy,
    service_config,
    services,
)

METHODS = [(service, method) for service in services() for method in service.methods]
JITTER = 0.2
"""By which part gRPC changes each wait. Source: grpc/doc/connection-backoff.md, gRFC A6 (2026-11)."""


def configured() -> dict[tuple[str, str], dict[str, Any]]:
    """Each method's part of the service config."""
    document = json.loads(service_config())
    return {(part["name"][0]["service"], part["name"][0]["method"]): part for part in document["methodConfig"]}


def test_every_service_of_the_contract_is_in_it() -> None:
    """One that is left out would have neither deadlines nor repeats."""
    protos = Path(__file__).resolve().parents[3] / "protos"
    declared = {
        name
        for path in protos.rglob("*.proto")
        for name in re.findall(r"^service (\w+) ", path.read_text(), re.MULTILINE)
    }

    assert {service.name for service in services()} == declared


@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda described: described.name)
def test_the_contract_decides_what_is_repeated(service: Any, method: Any) -> None:
    """A method is repeated when, and only when, its policy says that this is safe."""
    part = configured()[service.full_name, method.name]

    assert ("retryPolicy" in part) == policy(method).retryable
    if "retryPolicy" in part:
        assert part["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]


def test_repeats_outlast_a_reconnect() -> None:
    """A call that finds no replica is still there when the channel has tried to connect again."""
    waits, wait = 0.0, BACKOFF_SECONDS
    for _ in range(ATTEMPTS_MAX - 1):
        waits += min(wait, BACKOFF_SECONDS_MAX) * (1 - JITTER)
        wait *= BACKOFF_MULTIPLIER

    assert waits > RECONNECT_SECONDS_MAX * (1 + JITTER)


def test_calls_are_spread_over_replicas() -> None:
    """Round robin, so that a replica which leaves is one of several."""
    assert json.loads(service_config())["loadBalancingConfig"] == [{"round_robin": {}}]
