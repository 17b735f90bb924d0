"""What the program writes: tables for people, JSON for programs, errors for both.

On a terminal tables are drawn by rich and wide columns fold; elsewhere a row is a line, columns are two or more spaces
apart, an empty cell is `-`, and nothing is cut. Text that came from others is written without its control characters,
which could make a terminal do things. JSON is UTF-8 whatever the locale, one document a command; commands that stream
write one document a line.
"""

from __future__ import annotations

import enum
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from llm_schema_registry import errors

if TYPE_CHECKING:
    from rich.console import Console

ROWS_MEASURED_MAX = 1000
"""A piped table of more rows is aligned by these; the widths of all would need all in memory."""
NOTHING = "-"
GAP = 2
"""Spaces between columns."""


class OutputFormat(enum.StrEnum):
    """Whom the output is for."""

    TABLE = "table"
    JSON = "json"


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with control and format characters as `\xNN`, `\uNNNN`; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def document(error: errors.Error) -> dict[str, Any]:
    """The error for programs: {"error": {"reason", "code", "message", "metadata", "violations"}}.

    reason and code: names, for example "SUBJECT_NOT_FOUND" and "NOT_FOUND". metadata: text by text. violations:
    [{"field", "description"}]. Further keys may come, these stay.
    """
    violations = [{"field": one.field, "description": one.description} for one in error.violations]
    return described(error.reason, error.code, error.message, metadata=error.metadata, violations=violations)


def described(
    reason: str,
    code: errors.Code,
    message: str,
    *,
    metadata: dict[str, str] | None = None,
    violations: Sequence[dict[str, str]] = (),
) -> dict[str, Any]:
    """As `document`, for what is not an error of the services."""
    return {
        "error": {
            "reason": reason,
            "code": code.name,
            "message": message,
            "metadata": metadata or {},
            "violations": list(violations),
        }
    }


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 change`, `1,234 changes`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


class Output:
    """Standard output and standard error of one run."""

    def __init__(self, wanted: OutputFormat, *, color: bool = True) -> None:
        self.wanted = wanted
        self.color = color

    @property
    def json(self) -> bool:
        """Whether the output is for programs."""
        return self.wanted is OutputFormat.JSON

    def document(self, value: Any) -> None:
        """Writes one JSON document, indented. Call it once a command."""
        _write_utf8(sys.stdout, json.dumps(value, ensure_ascii=False, indent=2))

    def line(self, value: Any) -> None:
        """Writes one JSON document as a line, at once: whoever reads a stream waits for it."""
        _write_utf8(sys.stdout, json.dumps(value, ensure_ascii=False))
        sys.stdout.flush()

    def raw(self, text: str) -> None:
        """Writes a text as it is, in UTF-8; on a terminal without control characters, and with a line end."""
        if sys.stdout.isatty():
            self.text(text)
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())

    def text(self, text: str = "") -> None:
        """Writes lines for people."""
        _write(sys.stdout, printable(text, keep="\n\t"))

    def heading(self, text: str) -> None:
        """Writes a line above a section, bold on a terminal, with an empty line before it."""
        if not sys.stdout.isatty():
            _write(sys.stdout, f"\n{printable(text)}")
            return
        self.console(sys.stdout).print(f"\n{printable(text)}", style="bold", soft_wrap=True)

    def note(self, text: str) -> None:
        """Writes a remark for people to standard error, so that standard output holds results alone."""
        _write(sys.stderr, printable(text, keep="\n\t"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: int = 0) -> None:
        """Writes rows under the columns' names. whole: so many first columns fold last: ids, which people copy."""
        head = [name.upper() for name in columns]
        cells = ([_cell(value) for value in row] for row in rows)
        if sys.stdout.isatty():
            self._drawn_table(head, list(cells), whole)
        else:
            _plain_table([head], cells)

    def record(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Writes names with their values, one a line."""
        cells = [[printable(name), _cell(value)] for name, value in pairs]
        if sys.stdout.isatty():
            self._drawn_record(cells)
        else:
            _plain_table([], cells)

    def error(self, error: errors.Error) -> None:
        """Writes an error to standard error: a paragraph, the fields at fault, the reason; or as JSON."""
        if self.json:
            self.error_document(document(error))
            return
        lines = [f"Error: {error.message}"]
        more = [one for one in error.violations if one.description not in error.message]
        lines += [f"  {one.field}: {one.description}" for one in more]
        lines += [f"Reason: {error.reason}"]
        self.note("\n".join(lines))

    def usage(self, message: str, hint: str = "") -> None:
        """Writes to standard error what is wrong with the command line; as JSON with reason USAGE."""
        if self.json:
            self.error_document(described("USAGE", errors.Code.INVALID_ARGUMENT, message))
            return
        self.note(f"Error: {message}" + (f"\n{hint}" if hint else ""))

    def error_document(self, value: Any) -> None:
        """Writes one JSON document to standard error."""
        _write_utf8(sys.stderr, json.dumps(value, ensure_ascii=False))

    def console(self, stream: TextIO) -> Console:
        """A rich console on the stream, as wide as its terminal."""
        from rich.console import Console

        return Console(file=stream, no_color=not self.color or None, highlight=False, markup=False, emoji=False)

    def _drawn_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], whole: int) -> None:
        from rich.table import Table

        console = self.console(sys.stdout)
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold")
        widths = _fitted(columns, rows, console.width - GAP * len(columns), whole)
        for name, width in zip(columns, widths, strict=True):
            # Rich measures again and would cut what does not fit; a width of its own is kept, and folds.
            table.add_column(name, overflow="fold", width=width)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    def _drawn_record(self, rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console(sys.stdout).print(table)


def paragraph(text: str, *, width: int, indent: str) -> str:
    """The text in lines of at most the width, each with the indent; words that are longer stay whole."""
    return "\n".join(
        textwrap.fill(
            line, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        for line in text.splitlines()
    )


def _plain_table(head: Sequence[Sequence[str]], rows: Iterable[Sequence[str]]) -> None:
    """Lines with aligned columns, the last column without padding."""
    pending: list[Sequence[str]] = list(head)
    source = iter(rows)
    for row in source:
        pending.append(row)
        if len(pending) > ROWS_MEASURED_MAX:
            break
    widths = [max(map(len, column)) for column in zip(*pending, strict=True)]
    line = _padder(widths)
    for row in pending:
        _write(sys.stdout, line(row))
    for row in source:
        _write(sys.stdout, line(row))


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int, whole: int) -> list[int]:
    """Widths of a drawn table's columns that fit into the room: the widest give way first, so that numbers, states
    and times stay whole as long as they can, and the first `whole` ones last. At least 2 each, which a Chinese
    character needs.
    """
    widths = [max(2, min(room, max(map(len, column)))) for column in zip(columns, *rows, strict=True)]
    while sum(widths) > room and max(widths) > 2:
        first = whole if max(widths[whole:], default=0) > 2 else 0
        widths[widths.index(max(widths[first:]), first)] -= 1
    return widths


def _padder(widths: Sequence[int]) -> Callable[[Sequence[str]], str]:
    def line(row: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        return (" " * GAP).join([*padded[:-1], row[-1]])

    return line


def _cell(value: object) -> str:
    return printable(str(value)) or NOTHING


def _escaped(char: str) -> str:
    number = ord(char)
    if char in "\n\r\t":
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}[char]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _write(stream: TextIO, text: str) -> None:
    """Writes a line in the stream's encoding; what that cannot say is written as an escape."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _write_utf8(stream: TextIO, text: str) -> None:
    stream.flush()
    stream.buffer.write(text.encode() + b"\n")
    stream.buffer.flush()
