"""The reading end of a pipe, many bytes at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from contextlib import suppress

PIECE_BYTES_MAX = 1024 * 1024
ENOUGH_BYTES = 768 * 1024
GATHER_SECONDS = 0.003
"""How long a writer is let go on before it is looked again what there is: pg_dump writes four kilobytes at a time, and
to wake up for each would cost more than all else that is done with them."""
GATHER_TURNS = 4
_COUNT = struct.Struct("i")


class PipeEnd:
    """Reads a pipe. Works with a duplicate of the descriptor, until it is closed; one reader at a time.

    An asyncio.StreamReader would copy every byte twice more, a few kilobytes at a time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        os.set_blocking(self._descriptor, False)

    async def read(self) -> bytes:
        """The next piece, of at most PIECE_BYTES_MAX; empty at the end."""
        while True:
            if self._there() == 0:
                await self._ready()
            await self._gather()
            with suppress(BlockingIOError):
                return os.read(self._descriptor, PIECE_BYTES_MAX)

    def close(self) -> None:
        """Closes it, once or more often."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    async def _gather(self) -> None:
        """Returns when there is enough, when the writer pauses, or at the end."""
        before = 0
        for _ in range(GATHER_TURNS):
            there = self._there()
            if there == before or there >= ENOUGH_BYTES:
                return
            before = there
            await asyncio.sleep(GATHER_SECONDS)

    def _there(self) -> int:
        """How many bytes can be read now. Source: FIONREAD of tty_ioctl(2) and pipe(7)."""
        answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, _COUNT.pack(0))
        return int(_COUNT.unpack(answer)[0])

    async def _ready(self) -> None:
        """Waits until there is something to read, or the end."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)
