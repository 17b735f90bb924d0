"""Reads what COPY sends, many rows at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from psycopg import errors, pq

from llm_schema_registry.kernel.postgres import Connection

BATCH_BYTES = 1024 * 1024


async def copied(connection: Connection, statement: bytes) -> AsyncGenerator[Sequence[bytes], None]:
    """The rows that `COPY ... TO STDOUT` sends, in batches of about 1 MiB; nothing when it sends nothing.

    Nobody else uses the connection meanwhile. It is closed unless the stream was read to its end: the rest of it would
    be in the way of whatever came next. Raises psycopg.Error.

    The driver's own iterator takes a turn of its machinery for every row, which costs more than the hashing of it; here
    one takes what the socket has. Source: PostgreSQL documentation, "Functions Associated with the COPY Command".
    """
    server = connection.pgconn
    ended = False
    try:
        server.send_query(statement)
        while server.flush():
            await _ready(server, writable=True)
        await _expect(server, pq.ExecStatus.COPY_OUT)
        rows, size = list[bytes](), 0
        while (count := (got := server.get_copy_data(1))[0]) >= 0:
            if count == 0:
                await _ready(server)
                server.consume_input()
                continue
            rows.append(bytes(got[1]))
            size += count
            if size >= BATCH_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows
        await _expect(server, pq.ExecStatus.COMMAND_OK)
        ended = await _result(server) is None
    finally:
        if not ended:
            await connection.close()


async def _expect(server: pq.abc.PGconn, status: int) -> None:
    """Reads a result. Raises the server's error when it is another one."""
    result = await _result(server)
    if result is None:
        raise errors.OperationalError("the server ended a COPY early")
    if result.status != status:
        raise errors.error_from_result(result)


async def _result(server: pq.abc.PGconn) -> pq.abc.PGresult | None:
    while server.is_busy():
        await _ready(server)
        server.consume_input()
    return server.get_result()


async def _ready(server: pq.abc.PGconn, *, writable: bool = False) -> None:
    """Waits until the socket can be read or, while something is left to send, written."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    socket = server.socket
    loop.add_reader(socket, ready.set)
    if writable:
        loop.add_writer(socket, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(socket)
        if writable:
            loop.remove_writer(socket)
    if writable:
        server.consume_input()
