"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
PORT_MIN = 10_000
ATTEMPTS_MAX = 200
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_random = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with contextlib.closing(socket.socket()) as probe:
        # As servers do it: a port whose old connections are in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port on which nothing listens, below the range from which the kernel takes ports for outgoing connections.

    A server that stops and starts again on its port would lose an ephemeral one to any client meanwhile; a client that
    keeps trying to reach it may even connect to itself.
    """
    for _ in range(ATTEMPTS_MAX):
        port = _random.randrange(PORT_MIN, _ephemeral_min())
        if is_free(port):
            return port
    raise OSError(f"no free port on {HOST} between {PORT_MIN} and {_ephemeral_min()}")


def preferred_port(port: int) -> int:
    """The port itself when it is free, else another free one."""
    return port if is_free(port) else free_port()


def _ephemeral_min() -> int:
    """Lowest port of outgoing connections. Source: ip(7), ip_local_port_range; 32768 is Linux's default."""
    try:
        lowest = int(EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        return 32_768
    return lowest if lowest > PORT_MIN + ATTEMPTS_MAX else 32_768
