"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
PORT_MIN = 10_000
ATTEMPTS_MAX = 200
PARTS_MAX = 64
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_random = random.SystemRandom()
_given: set[int] = set()
_part = [0, 1]
"""Which part of how many `free_port` looks in."""


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
    keeps trying to reach it may even connect to itself. For the same reason this process is given none twice.
    """
    number, count = _part
    width = (_ephemeral_min() - PORT_MIN) // count
    first = PORT_MIN + number * width
    for _ in range(ATTEMPTS_MAX):
        port = _random.randrange(first, first + width)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port on {HOST} between {first} and {first + width}")


def look_apart(number: int, count: int) -> None:
    """Has `free_port` look in one part of so many, from 0: processes side by side take no port from each other, also
    while its server is down to be started again."""
    if not 0 <= number < count <= PARTS_MAX:
        raise ValueError(f"part {number} of {count}, which are {PARTS_MAX} at most")
    _part[:] = number, count


class Claims:
    """Ports that a launcher keeps for its servers, also while one of them is down to be started again.

    A claim is a UDP socket with the same number, on which nothing is ever received: it goes with the process, however
    that ends, knows no TIME_WAIT, and two launchers that look at one moment cannot both get it.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, preferred: int) -> int:
        """The preferred port when it is free and unclaimed, else another one; ours until the end. Raises OSError."""
        if self._claim(preferred):
            return preferred
        for _ in range(ATTEMPTS_MAX):
            port = free_port()
            if self._claim(port):
                return port
        raise OSError(f"no unclaimed port on {HOST} after {ATTEMPTS_MAX} attempts")

    def close(self) -> None:
        """Gives all of them up."""
        while self._sockets:
            self._sockets.pop().close()

    def _claim(self, port: int) -> bool:
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind((HOST, port))
        except OSError:
            claim.close()
            return False
        if not is_free(port):
            claim.close()
            return False
        self._sockets.append(claim)
        return True


def _ephemeral_min() -> int:
    """Lowest port of outgoing connections. Source: ip(7), ip_local_port_range; 32768 is Linux's default."""
    try:
        lowest = int(EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        return 32_768
    return lowest if lowest > PORT_MIN + ATTEMPTS_MAX else 32_768
