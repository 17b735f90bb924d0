"""Whether a stream is a whole archive of pg_dump, as far as can be told while it passes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llm_schema_registry import errors

MAGIC = b"PGDMP"
CUSTOM_FORMAT = 1
_HEADER_BYTES = 11
_FORMAT_AT = 10


class DumpCheck:
    """Give it every piece, then `finish`. What it cannot see is left to the verification of the stored backup.

    It looks for the header and, in the table of contents, for the data of every table of a schema. There a text is its
    length in five bytes, sign and little-endian number, then its bytes; an entry's name stands right before its kind.
    Source: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c, WriteHead and WriteToc; alike in archives 1.12 to 1.16.
    """

    def __init__(self, tables: Sequence[str]) -> None:
        self._missing = {name: _text(name) + _text("TABLE DATA") for name in tables}
        self._longest = max(map(len, self._missing.values()), default=1)
        self._rest = b""
        self._seen = 0

    def add(self, piece: bytes) -> None:
        """Looks at the next piece. Raises errors.BackupFailed when it does not begin as an archive does."""
        if self._seen < _HEADER_BYTES:
            self._begin(piece)
        self._seen += len(piece)
        if not self._missing:
            return
        searched = self._rest + piece
        self._missing = {name: entry for name, entry in self._missing.items() if entry not in searched}
        self._rest = searched[-(self._longest - 1) :]

    def _begin(self, piece: bytes) -> None:
        start = (self._rest + piece)[:_HEADER_BYTES]
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            raise errors.BackupFailed("what pg_dump wrote is no archive of its custom format: it does not begin as one")
        if len(start) == _HEADER_BYTES and start[_FORMAT_AT] != CUSTOM_FORMAT:
            raise errors.BackupFailed("what pg_dump wrote is an archive of another format than the custom one")

    def finish(self) -> None:
        """Raises errors.BackupFailed unless everything was there."""
        if self._seen < _HEADER_BYTES:
            raise errors.BackupFailed(f"pg_dump ended well, but wrote {self._seen} bytes, which is no archive")
        if self._missing:
            raise errors.BackupFailed(
                f"pg_dump ended well, but its archive has no data of table {', '.join(sorted(self._missing))}",
            )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"\0" + struct.pack("<I", len(encoded)) + encoded
