"""Streams made smaller, and back: one frame of Zstandard with its checksum (RFC 8878), or one gzip member (RFC 1952).

The level is a matter of the writer; the reader is told the kind alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal, Protocol, cast

import zstandard

Compression = Literal["zstd", "gzip"]
LEVEL = 3
LEVELS = {"zstd": range(1, 20), "gzip": range(1, 10)}
"""Levels of Zstandard above 19 need windows that readers refuse."""
WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""What a frame may ask its reader to keep in memory."""
PIECE_BYTES_MAX = 64 * 1024 * 1024
"""Largest piece that `pieces` gives out."""
_GZIP_WBITS = 31
_ZSTD_STEP_BYTES = 1024
"""Taken from the input at a time: four bytes can stand for 128 KiB, so this becomes 32 MiB and a window at most."""
_GZIP_STEP_BYTES = 1024 * 1024


class Truncated(Exception):
    """The compressed stream ends before its end mark."""


class Corrupt(Exception):
    """The bytes are no such compressed stream, its checksum is wrong, or something follows its end."""


class TooLong(Exception):
    """More comes out than was allowed."""


class _Engine(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class Compressor:
    """Compresses one stream. threads: for zstd, besides the caller's; with 0 it works in the caller's."""

    def __init__(self, kind: str, level: int = LEVEL, *, threads: int = 0) -> None:
        if level not in LEVELS.get(kind, ()):
            raise ValueError(f"no such compression: {kind} level {level}")
        if kind == "zstd":
            whole = zstandard.ZstdCompressor(
                level=level, write_checksum=True, write_content_size=False, threads=threads
            )
            self._stream: zstandard.ZstdCompressionObj | zlib._Compress = whole.compressobj()
        else:
            self._stream = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WBITS)

    def update(self, plain: bytes) -> bytes:
        """Takes the next bytes and returns what is compressed by now, perhaps nothing."""
        return self._stream.compress(plain)

    def finish(self) -> bytes:
        """Returns the rest with the end mark. Nothing can be added after it."""
        return self._stream.flush()


class Decompressor:
    """Decompresses one stream. output_bytes_max: of all that comes out; more raises TooLong, before it is given out.

    Only `finish` tells that nothing is missing at the end. After an exception it cannot be used.
    """

    def __init__(self, kind: str, *, output_bytes_max: int) -> None:
        if kind not in LEVELS:
            raise ValueError(f"no such compression: {kind}")
        self._left = output_bytes_max
        self._step = self._step_zstd if kind == "zstd" else self._step_gzip
        self._step_bytes = _ZSTD_STEP_BYTES if kind == "zstd" else _GZIP_STEP_BYTES
        if kind == "zstd":
            self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
        else:
            self._gzip = zlib.decompressobj(_GZIP_WBITS)
        self._kind = kind

    def pieces(self, compressed: bytes) -> Iterator[bytes]:
        """What comes out of the next bytes, in pieces of at most PIECE_BYTES_MAX, however much that is in all.

        All pieces must be taken before the next bytes are given. Raises Corrupt and TooLong.
        """
        view = memoryview(compressed)
        for start in range(0, len(view), self._step_bytes):
            if self._engine.eof:
                raise Corrupt(f"something follows the end of the {self._kind} stream")
            for plain in self._step(view[start : start + self._step_bytes]):
                self._left -= len(plain)
                if self._left < 0:
                    raise TooLong(f"the {self._kind} stream holds more than it should")
                if plain:
                    yield plain
            if self._engine.unused_data:
                raise Corrupt(f"something follows the end of the {self._kind} stream")

    def update(self, compressed: bytes) -> bytes:
        """What comes out of the next bytes, in one piece. Raises as `pieces` does."""
        return b"".join(self.pieces(compressed))

    def finish(self) -> bytes:
        """Returns nothing more, once the end mark was read. Raises Truncated."""
        if not self._engine.eof:
            raise Truncated(f"the {self._kind} stream ends before its end mark")
        return b""

    @property
    def _engine(self) -> _Engine:
        return cast(_Engine, self._zstd if self._kind == "zstd" else self._gzip)

    def _step_zstd(self, compressed: memoryview) -> Iterator[bytes]:
        try:
            yield self._zstd.decompress(compressed)
        except zstandard.ZstdError as error:
            raise Corrupt(f"the zstd stream is damaged: {error}") from None

    def _step_gzip(self, compressed: memoryview) -> Iterator[bytes]:
        rest: bytes | memoryview = compressed
        while True:
            try:
                plain = self._gzip.decompress(rest, PIECE_BYTES_MAX)
            except zlib.error as error:
                raise Corrupt(f"the gzip stream is damaged: {error}") from None
            yield plain
            rest = self._gzip.unconsumed_tail
            if not rest and len(plain) < PIECE_BYTES_MAX:
                return
            if self._gzip.eof:
                return
