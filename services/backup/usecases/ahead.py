"""Reads ahead: what makes bytes goes on while those before are worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

PIECE_BYTES = 256 * 1024
"""Smaller pieces are gathered to about this: each costs a turn through a thread."""
PIECES_MAX = 1
"""Held at once, beside the one that is being gathered."""


async def ahead(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The bytes of the source, in pieces of PIECE_BYTES and more, read up to PIECES_MAX of them ahead.

    Raises what the source raises, once what came before it was given out. Closing it ends the reading, not the source.
    """
    queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(PIECES_MAX)
    reading = asyncio.create_task(_read(source, queue), name="reading ahead")
    try:
        while (piece := await queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(source: AsyncIterator[bytes], queue: asyncio.Queue[bytes | BaseException | None]) -> None:
    """Puts the pieces into the queue, and what the source raises behind them."""
    gathered = bytearray()
    try:
        async for piece in source:
            if not gathered and len(piece) >= PIECE_BYTES:
                await queue.put(piece)
                continue
            gathered += piece
            if len(gathered) >= PIECE_BYTES:
                await queue.put(bytes(gathered))
                gathered.clear()
    except Exception as failure:  # noqa: BLE001 - handed on to whoever waits for a piece
        await queue.put(failure)
        return
    if gathered:
        await queue.put(bytes(gathered))
    await queue.put(None)
