"""A network between a client and a server on this machine, which a test cuts and mends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from deploy.local.ports import HOST, free_port

PIECE_BYTES = 64 * 1024


class Link:
    """Carries bytes from a port of its own to a server's. Cut, it loses nothing and delivers nothing: connections stay,
    new ones get no answer, and what was sent meanwhile arrives when it is mended, as packets do that are sent again."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self._server_port = server_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def target(self) -> str:
        """Address to call instead of the server's."""
        return f"{HOST}:{self.port}"

    def cut(self) -> None:
        """Nothing passes any more."""
        self._whole.clear()

    def mend(self) -> None:
        """Everything passes again, what waited first."""
        self._whole.set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(lambda ended: self._tasks.pop(ended).transport.abort())

    async def close(self) -> None:
        """Ends every connection."""
        ending = [*self._tasks]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self._server_port)
            try:
                await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except OSError:
            return
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction until its end, which is carried as well."""
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                await self._whole.wait()
                writer.write(piece)
                await writer.drain()
        await self._whole.wait()
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def link(server_port: int) -> AsyncIterator[Link]:
    """A link to a server, for the block."""
    made = Link(server_port)
    server = await asyncio.start_server(made.accept, HOST, made.port)
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
