"""The rows of a dump while it passes: how many each table has, and their digest, without a second read of the database.

An archive of pg_dump's custom format, uncompressed, is a header, a table of contents, and for each table a block: a
byte that says what it is, the entry's id, then chunks, each behind its length, until a length of zero. A number is its
sign in one byte and so many little-endian bytes as the header says, a text its length and its bytes. The rows are what
COPY writes as text, then the line `\\.` and two empty ones. Source: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c
(WriteHead, WriteToc), pg_backup_custom.c (_StartData, _EndData), pg_dump.c (dumpTableData_copy), of 12 to 18.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from services.backup.domain.row_digest import RowDigest

VERSIONS = range(14, 17)
"""Of archives, 1.14 to 1.16: what pg_dump 12 to 18 write."""
CONTENTS_BYTES_MAX = 16 * 1024 * 1024
"""Of header and table of contents, which are kept until they are whole."""
_MAGIC = b"PGDMP\x01"
_NUMBER_BYTES = 4
_NUMBER = struct.Struct("<BI")
_DATA = 1
_RELKIND_SINCE = 16
_ALGORITHM_SINCE = 15
_OFFSET_STATES = range(1, 4)
_END = (b"\\.\n", b"\n", b"\n")
"""Lines behind the rows."""


class Unreadable(Exception):
    """The archive is of a kind that is not read here; the message says what is odd."""


class DumpRows:
    """Give it every piece, then ask for `tables`.

    schema: whose tables count. What it cannot read it says once, in `unread`, and looks no further: then the tables
    themselves tell what they hold. Holds a piece and no row: one may be large.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self.unread = ""
        self._begin = bytearray()
        self._blocks: _Blocks | None = None

    def add(self, piece: bytes) -> None:
        """Takes the next bytes. Works for milliseconds: call it in a thread."""
        if self.unread:
            return
        try:
            if self._blocks is None:
                self._begin += piece
                found = _contents(self._begin, self._schema)
                if found is None:
                    return
                self._blocks = _Blocks(found.tables)
                piece = bytes(memoryview(self._begin)[found.size_bytes :])
                self._begin = bytearray()
            self._blocks.add(piece)
        except (Unreadable, UnicodeDecodeError) as odd:
            self.unread = str(odd)

    @property
    def count(self) -> int:
        """Rows so far, those of other schemas included. Of a table that has not ended the lines behind it may count."""
        return self._blocks.count if self._blocks is not None else 0

    def tables(self) -> Mapping[str, RowDigest] | None:
        """The digests of all tables with data in the archive, once it has passed; None when it was not read."""
        if self.unread or self._blocks is None or not self._blocks.ended:
            return None
        return self._blocks.tables


@dataclass(frozen=True, slots=True)
class _Contents:
    """Names of tables by the ids of their data, and where the blocks begin."""

    tables: Mapping[int, str]
    size_bytes: int


class _Short(Exception):
    """The rest is in pieces to come."""


class _Reader:
    """Reads what stands in an archive before its blocks."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self.at = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._content):
            raise _Short
        found = bytes(self._content[self.at : end])
        self.at = end
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        sign, value = _NUMBER.unpack(self.take(_NUMBER.size))
        return -int(value) if sign else int(value)

    def text(self) -> bytes | None:
        length = self.number()
        if length > CONTENTS_BYTES_MAX:
            raise Unreadable(f"a text of {length} bytes in the table of contents")
        return None if length < 0 else self.take(length)


def _contents(content: bytes | bytearray, schema: str) -> _Contents | None:
    """The table of contents; None while it is not whole."""
    reader = _Reader(content)
    try:
        version, offset_bytes = _head(reader)
        tables = {}
        for _ in range(reader.number()):
            number, kind, space, name = _entry(reader, version, offset_bytes)
            if (kind, space) == (b"TABLE DATA", schema.encode()) and name is not None:
                tables[number] = name.decode()
    except _Short:
        if len(content) > CONTENTS_BYTES_MAX:
            raise Unreadable(f"a table of contents of more than {CONTENTS_BYTES_MAX} bytes") from None
        return None
    return _Contents(tables, reader.at)


def _head(reader: _Reader) -> tuple[int, int]:
    """The archive's minor version and the bytes of an offset. Raises Unreadable."""
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise Unreadable("no archive of version 1")
    version, _revision, number_bytes, offset_bytes, _format = reader.take(5)
    if version not in VERSIONS or number_bytes != _NUMBER_BYTES:
        raise Unreadable(f"archive version 1.{version} with numbers of {number_bytes} bytes")
    compression = reader.byte() if version >= _ALGORITHM_SINCE else reader.number()
    if compression != 0:
        raise Unreadable("a compressed archive")
    for _ in range(7):
        reader.number()  # The time, from seconds to daylight saving.
    for _ in range(3):
        reader.text()  # The database, the server's version, pg_dump's.
    return version, offset_bytes


def _entry(reader: _Reader, version: int, offset_bytes: int) -> tuple[int, bytes | None, bytes | None, bytes | None]:
    """An entry's id, kind, schema and name."""
    number = reader.number()
    reader.number()  # Whether it has data.
    reader.text(), reader.text()  # Ids of the catalogue.
    name, kind = reader.text(), reader.text()
    reader.number()  # The section.
    reader.text(), reader.text(), reader.text()  # What makes it, what drops it, its COPY.
    space = reader.text()
    reader.text(), reader.text()  # Tablespace, access method.
    if version >= _RELKIND_SINCE:
        reader.number()
    reader.text(), reader.text()  # The owner, and a word of old.
    while reader.text() is not None:
        pass  # What it depends on.
    if reader.byte() not in _OFFSET_STATES:
        raise Unreadable(f"an entry of the table of contents, {number}, that ends otherwise than known")
    reader.take(offset_bytes)
    return number, kind, space, name


class _Blocks:
    """Reads the blocks behind a table of contents."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self.tables: dict[str, RowDigest] = {}
        self._ended_rows = 0
        self._rest = b""
        self._block: int | None = None
        self._table = RowDigest()
        self._left = 0
        self._row: hashlib._Hash | None = None

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._ended_rows + (self._table.rows if self._block is not None else 0)

    @property
    def ended(self) -> bool:
        """Whether what was read ends with a block, and every table had one."""
        return self._block is None and not self._rest and self.tables.keys() == set(self._names.values())

    def add(self, piece: bytes) -> None:
        """Takes the next bytes. Raises Unreadable."""
        content, at = self._rest + piece if self._rest else piece, 0
        size = len(content)
        while at < size:
            if self._left:
                end = min(size, at + self._left)
                self._lines(content, at, end)
                self._left -= end - at
                at = end
            elif self._block is None:
                if size - at < 1 + _NUMBER.size:
                    break
                self._begin(content[at], _number(content, at + 1))
                at += 1 + _NUMBER.size
            else:
                if self._row is None:
                    at = self._rows(content, at)
                if size - at < _NUMBER.size:
                    break
                self._left = _number(content, at)
                at += _NUMBER.size
                if not self._left:
                    self._end()
        self._rest = content[at:]

    def _begin(self, kind: int, number: int) -> None:
        if kind != _DATA:
            raise Unreadable(f"a block of kind {kind}")
        self._block, self._table = number, RowDigest()

    def _end(self) -> None:
        if self._row is not None:
            raise Unreadable("a table whose last row does not end")
        self._table.remove(_END)
        name = None if self._block is None else self._names.get(self._block)
        if name is not None:
            self.tables[name] = self._table
        self._ended_rows += self._table.rows
        self._block = None

    def _rows(self, content: bytes, at: int) -> int:
        """Takes the chunks that are one whole row each, as pg_dump writes them by now, and returns where others begin.

        Once for every row there is, so it does nothing twice.
        """
        unpack, find, head, size = _NUMBER.unpack_from, content.find, _NUMBER.size, len(content)
        rows: list[bytes] = []
        while at + head <= size:
            sign, length = unpack(content, at)
            start = at + head
            end = start + length
            if sign or end > size or find(b"\n", start, end) != end - 1:
                break
            rows.append(content[start:end])
            at = end
        self._table.add(rows)
        return at

    def _lines(self, content: bytes, start: int, end: int) -> None:
        """Takes lines of any chunk, also parts of them."""
        view = memoryview(content)
        while start < end:
            stop = content.find(b"\n", start, end) + 1
            row = self._row or hashlib.sha256()
            row.update(view[start : stop or end])
            self._row = None if stop else row
            if not stop:
                return
            self._table.add_hashed(row.digest())
            start = stop


def _number(content: bytes, at: int) -> int:
    sign, value = _NUMBER.unpack_from(content, at)
    if sign:
        raise Unreadable("a negative length")
    return int(value)
