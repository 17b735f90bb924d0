"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
PORT_MIN = 10_000
ATTEMPTS_MAX = 200
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

RANGE = "LLMSR_LOCAL_PORTS"
"""`first-last`: where this process and those that it starts look for free ports. Processes side by side with ranges of
their own take no port from each other, also while its server is down to be started again."""

_random = random.SystemRandom()
_given: set[int] = set()


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
    first, last = _range()
    for _ in range(ATTEMPTS_MAX):
        port = _random.randint(first, last)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port on {HOST} from {first} to {last}")


def part(number: int, count: int) -> str:
    """One of so many parts of all ports that are looked at, from 0, as RANGE has it."""
    width = (_ephemeral_min() - PORT_MIN) // count
    return f"{PORT_MIN + number * width}-{PORT_MIN + (number + 1) * width - 1}"


def _range() -> tuple[int, int]:
    """First and last of the ports to choose from. Raises OSError for a range that cannot be."""
    given = os.environ.get(RANGE)
    if not given:
        return PORT_MIN, _ephemeral_min() - 1
    first, _, last = given.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 1 << 16):
        raise OSError(f"{RANGE} is {given!r}, not a range of ports such as 20000-20999")
    return int(first), int(last)


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
