"""The reading end of a pipe, many bytes at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios

PIECE_BYTES_MAX = 768 * 1024
ENOUGH_BYTES = 512 * 1024
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

    async def read(self) -> bytes:
        """The next piece, of at most PIECE_BYTES_MAX; empty at the end."""
        there = self._there()
        if there == 0:
            await self._ready()
        before = -1
        for _ in range(GATHER_TURNS):
            there = self._there()
            if there in {0, before} or there >= ENOUGH_BYTES:
                break  # It is the end, or the writer pauses, or there is enough.
            before = there
            await asyncio.sleep(GATHER_SECONDS)
        return os.read(self._descriptor, PIECE_BYTES_MAX)

    def close(self) -> None:
        """Closes it, once or more often."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

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
