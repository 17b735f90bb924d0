"""Where replicas are: numeric addresses as they are, names by all of their addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from services.admin.adapters.control_peers import REPLICAS_MAX, ControlPeers, PeerOptions


def resolver(addresses: dict[str, list[str]]) -> Any:
    """Stands in for the loop's: a name has these addresses now."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host not in addresses:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses[host]]

    return getaddrinfo


async def targets(*given: str) -> list[str]:
    """The addresses of a registry that is set so."""
    peers = ControlPeers(PeerOptions({"registry": given}, None, None, 1))
    return [each.target for each in await peers.replicas("registry")]


async def test_names_stand_for_all_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up each time; each address counts once, in order; a name without one gives none."""
    found = {"headless": ["10.0.0.2", "10.0.0.1", "fd00::1"]}
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver(found), raising=False)

    assert await targets("127.0.0.1:9090", "headless:9090", "gone:9090", "headless:9090") == [
        "127.0.0.1:9090",
        "10.0.0.1:9090",
        "10.0.0.2:9090",
        "[fd00::1]:9090",
    ]
    found["headless"] = ["10.0.0.3"]
    assert await targets("headless:9090") == ["10.0.0.3:9090"]
    found["headless"] = [f"10.0.1.{number}" for number in range(200)]
    assert len(await targets("headless:9090")) == REPLICAS_MAX


async def test_localhost_is_looked_up() -> None:
    """The system's own resolver answers with numbers."""
    found = await targets("localhost:9090")

    assert "127.0.0.1:9090" in found
    assert set(found) <= {"127.0.0.1:9090", "[::1]:9090"}
