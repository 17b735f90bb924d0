"""What pg_restore writes as a script, in the pieces that a session takes: statements, and rows of a COPY between them.

Only the lexical form is read (PostgreSQL documentation, "Lexical Structure"), to know whether a line begins within a
text or a function's body: there a line is never a command. pg_dump sets standard_conforming_strings.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

LINE_BYTES_MAX = 256 << 20
"""Of one line: a row holds a text of 64 MiB at most, which may be twice as long when escaped."""
STATEMENTS_BYTES = 64 * 1024
STATEMENT_BYTES_MAX = 16 << 20

_COPY = re.compile(rb"COPY .+ FROM stdin;\n")
_END_OF_ROWS = b"\\.\n"
_META = re.compile(rb"\\(un)?restrict [0-9A-Za-z]+\n")
_OPENING = re.compile(
    rb"(?P<escape>\b[eE]')|(?P<quote>['\"])|(?P<dollar>\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$)|--|/\*"
)
_ESCAPED_END = re.compile(rb"\\.|'")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")


class NotAScript(Exception):
    """What was read is no script of pg_restore; the message says why."""


@dataclass(frozen=True, slots=True)
class Statements:
    """Whole statements."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY; its rows come next."""

    statement: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the COPY before, in its text format."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfRows:
    """The COPY has no more rows."""


Piece = Statements | Copy | Rows | EndOfRows


async def pieces(script: AsyncIterator[bytes]) -> AsyncIterator[Piece]:
    """The script in order. Raises NotAScript for one that ends early, commands of psql, and what exceeds the limits."""
    reader = _Reader()
    async for lines in _whole_lines(script):
        for piece in reader.read(lines):
            yield piece
    for piece in reader.end():
        yield piece


class _Reader:
    """Where in the script we are."""

    def __init__(self) -> None:
        self._lexer = _Lexer()
        self._gathered = bytearray()
        self._copying = False

    def read(self, lines: bytes) -> Iterator[Piece]:
        """What the next whole lines hold."""
        rest = lines
        while rest:
            if self._copying:
                rows, rest, self._copying = _rows(rest)
                if rows:
                    yield Rows(rows)
                if not self._copying:
                    yield EndOfRows()
            else:
                line, rest = _first_line(rest)
                yield from self._line(line)

    def end(self) -> Iterator[Piece]:
        """What is left at the script's end."""
        if self._copying or not self._lexer.outside:
            raise NotAScript("it ends within the rows of a table, or within a statement")
        yield from self._statements()

    def _line(self, line: bytes) -> Iterator[Piece]:
        if self._lexer.outside and _COPY.fullmatch(line):
            yield from self._statements()
            yield Copy(line.rstrip(b";\n"))
            self._copying = True
        elif self._lexer.outside and line.startswith(b"\\"):
            if _META.fullmatch(line) is None:
                raise NotAScript(f"it holds a command of psql: {line[:80]!r}")
        else:
            self._gathered += line
            self._lexer.read(line)
            if len(self._gathered) > STATEMENT_BYTES_MAX:
                raise NotAScript(f"a statement is longer than {STATEMENT_BYTES_MAX} bytes")
            if len(self._gathered) > STATEMENTS_BYTES and self._lexer.outside and line.endswith(b";\n"):
                yield from self._statements()

    def _statements(self) -> Iterator[Piece]:
        """What was gathered, when it is more than nothing."""
        if self._gathered:
            yield Statements(bytes(self._gathered))
            self._gathered.clear()


async def _whole_lines(script: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The script in pieces that end where a line ends."""
    waiting: list[bytes] = []
    size = 0
    async for piece in script:
        end = piece.rfind(b"\n") + 1
        if end:
            yield b"".join([*waiting, piece[:end]])
            waiting, size = [], 0
        if len(piece) > end:
            waiting.append(piece[end:])
            size += len(piece) - end
        if size > LINE_BYTES_MAX:
            raise NotAScript(f"a line is longer than {LINE_BYTES_MAX} bytes")
    if waiting:
        yield b"".join(waiting) + b"\n"


def _first_line(lines: bytes) -> tuple[bytes, bytes]:
    end = lines.index(b"\n") + 1
    return lines[:end], lines[end:]


def _rows(lines: bytes) -> tuple[bytes, bytes, bool]:
    """Rows, what comes after them, and whether there may be more rows."""
    if lines.startswith(_END_OF_ROWS):
        return b"", lines[len(_END_OF_ROWS) :], False
    end = lines.find(b"\n" + _END_OF_ROWS) + 1
    if end == 0:
        return lines, b"", True
    return lines[:end], lines[end + len(_END_OF_ROWS) :], False


class _Lexer:
    """Whether a text, a quoted name, a function's body or a comment goes on after what was read."""

    def __init__(self) -> None:
        self._within = b""
        self._depth = 0

    @property
    def outside(self) -> bool:
        """Whether what comes next is a statement's own text."""
        return not self._within

    def read(self, line: bytes) -> None:
        """Reads the next line."""
        at = 0
        while at < len(line):
            at = self._enter(line, at) if self.outside else self._leave(line, at)

    def _enter(self, line: bytes, at: int) -> int:
        """Where what opens next begins, having entered it; the line's end when nothing does."""
        found = _OPENING.search(line, at)
        if found is None or found[0] == b"--":
            return len(line)
        if found[0] == b"/*":
            self._within, self._depth = b"/*", 1
        else:
            self._within = b"e'" if found["escape"] else found[0]
        return found.end()

    def _leave(self, line: bytes, at: int) -> int:
        """Behind what is open, when it ends in the line. A doubled quote ends a text and begins one: all the same."""
        if self._within == b"e'":
            found = _ESCAPED_END.search(line, at)
            if found is None:
                return len(line)
            if found[0] == b"'":
                self._within = b""
            return found.end()
        if self._within == b"/*":
            found = _COMMENT_EDGE.search(line, at)
            if found is None:
                return len(line)
            self._depth += 1 if found[0] == b"/*" else -1
            if self._depth == 0:
                self._within = b""
            return found.end()
        end = line.find(self._within, at)
        if end < 0:
            return len(line)
        after = end + len(self._within)
        self._within = b""
        return after
