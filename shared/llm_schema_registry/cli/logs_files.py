"""Log files as blocks of bytes: plain, .gz and .zst, or standard input, a block at a time."""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import PurePath
from typing import IO

from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.reading import STANDARD_INPUT, opened, read_blocks

BLOCK_BYTES = 1 << 20
"""How much is read, or unpacked, at once: a file that unpacks to a million times its size takes no more memory."""
ZSTD_BYTES = 1 << 10
"""How much of a .zst file is unpacked at once: at most 256 blocks of 128 KiB, each of which takes 4 bytes or more.
Source: RFC 8878, section 3.1.1.2."""
FILES_MAX = 1_000
WINDOW_BYTES_MAX = 1 << 27
"""The largest zstd window. Source: RFC 8878 recommends 8 MiB; this is what `zstd --long` makes."""


class Damaged(Exception):
    """A compressed file cannot be read on; what came before was read. The message says why."""


def chosen(given: Sequence[str]) -> list[str]:
    """The files to read: those given, or standard input when it is no terminal. Raises UsageFault."""
    if not given and sys.stdin is not None and sys.stdin.isatty():
        raise UsageFault("Name the log files, or pipe a log in.")
    files = list(given) or [STANDARD_INPUT]
    if files.count(STANDARD_INPUT) > 1:
        raise UsageFault("Standard input can be read once.")
    if len(files) > FILES_MAX:
        raise UsageFault(f"At most {FILES_MAX:,} files.")
    return files


async def blocks(file: str) -> AsyncIterator[bytes]:
    """The bytes of a file, unpacked, as they come.

    Raises UsageFault when it cannot be opened, Damaged when it is compressed and ends too early or is no such file.
    """
    suffix = PurePath(file).suffix.lower()
    if file == STANDARD_INPUT or suffix not in {".gz", ".zst"}:
        async for block in read_blocks(file, BLOCK_BYTES):
            yield block
            await asyncio.sleep(0)  # A regular file never waits: without this Ctrl-C would.
        return
    with opened(file) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as packed:
        for block in _gunzipped(packed) if suffix == ".gz" else _unpacked(packed):
            yield block
            await asyncio.sleep(0)


def _gunzipped(packed: IO[bytes]) -> Iterator[bytes]:
    import gzip

    with gzip.GzipFile(fileobj=packed, mode="rb") as file:
        try:
            while block := file.read(BLOCK_BYTES):
                yield block
        except (OSError, EOFError, zlib.error) as failed:
            raise Damaged(str(failed)) from None


def _unpacked(packed: IO[bytes]) -> Iterator[bytes]:
    """The content of a .zst file: of every frame, one behind the other, as `cat` leaves them."""
    import zstandard

    frame = None
    try:
        while data := packed.read(ZSTD_BYTES):
            while data:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
                if frame.eof:
                    frame = None
    except (OSError, zstandard.ZstdError) as failed:
        raise Damaged(str(failed)) from None
    if frame is not None:
        raise Damaged("it ends in the middle of a frame")
