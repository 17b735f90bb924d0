"""Files and standard input, read without holding more than a named limit and without keeping Ctrl-C waiting."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llm_schema_registry import errors
from llm_schema_registry.cli.exit_codes import UsageFault

STANDARD_INPUT = "-"
DOCUMENT_BYTES_MAX = 15 << 20
"""The largest schema or payload that is read. Above every server's limit, and with its envelope within the largest
message that the client sends (client.channel.MESSAGE_BYTES_MAX)."""
LINE_BYTES_MAX = 8 << 20
"""The longest line. Above every server's limit for one payload."""
CHUNK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. number: from 1."""

    file: str
    number: int
    data: bytes


async def read_document(file: str) -> bytes:
    """All of a file, or of standard input for `-`.

    Raises UsageFault when it cannot be read, errors.LimitExceeded above DOCUMENT_BYTES_MAX.
    """
    data = bytearray()
    with opened(file) as descriptor:
        while chunk := await _read(descriptor, file):
            data += chunk
            if len(data) > DOCUMENT_BYTES_MAX:
                raise _too_large(f"{_name(file)} is", DOCUMENT_BYTES_MAX)
    return bytes(data)


async def read_text(file: str) -> str:
    """As `read_document`, for UTF-8. Raises UsageFault naming the first byte that is not."""
    data = await read_document(file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failed:
        raise UsageFault(f"{_name(file)} is not UTF-8: byte {failed.start + 1} cannot be read.") from None


async def read_lines(file: str) -> AsyncIterator[Line]:
    """The lines of a file or of standard input that are not blank, as they can be read. Raises as `read_document`,
    with LINE_BYTES_MAX for each line.
    """
    rest = b""
    number = 0
    with opened(file) as descriptor:
        while chunk := await _read(descriptor, file):
            first, *others = chunk.split(b"\n")
            rest += first
            for following in others:
                number += 1
                if rest.strip():
                    yield Line(file, number, rest)
                rest = following
            if len(rest) > LINE_BYTES_MAX:
                raise _too_large(f"line {number + 1} of {_name(file)} is", LINE_BYTES_MAX)
    if rest.strip():
        yield Line(file, number + 1, rest)


async def read_blocks(file: str, bytes_max: int) -> AsyncIterator[bytes]:
    """The bytes of a file or of standard input, as they can be read. Raises UsageFault when they cannot."""
    with opened(file) as descriptor:
        while block := await _read(descriptor, file, bytes_max):
            yield block


@contextmanager
def opened(file: str) -> Iterator[int]:
    """The descriptor of a file, or of standard input for `-`. Raises UsageFault when it cannot be opened."""
    if file == STANDARD_INPUT:
        yield 0
        return
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as failed:
        raise UsageFault(f"{file!r} cannot be read: {getattr(failed, 'strerror', None) or failed}.") from None
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise UsageFault(f"{file!r} is a folder. Name a file, or - for standard input.")
        yield descriptor
    finally:
        os.close(descriptor)


async def _read(descriptor: int, file: str, bytes_max: int = CHUNK_BYTES) -> bytes:
    """The next bytes; none at the end."""
    await _readable(descriptor)
    try:
        return os.read(descriptor, bytes_max)
    except OSError as failed:
        raise UsageFault(f"{_name(file)} cannot be read: {failed.strerror}.") from None


async def _readable(descriptor: int) -> None:
    """Waits until a read would not block; so Ctrl-C ends a wait for a pipe or a terminal."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except (PermissionError, OSError):
        return  # A regular file never blocks, and epoll refuses it. Source: epoll_ctl(2), EPERM.
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _name(file: str) -> str:
    return "standard input" if file == STANDARD_INPUT else repr(file)


def _too_large(what: str, limit_bytes: int) -> errors.LimitExceeded:
    return errors.LimitExceeded(f"{what} larger than {limit_bytes >> 20} MiB.", metadata={"limit_bytes": limit_bytes})
