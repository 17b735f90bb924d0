"""Bytes as lines of text, and lines as the fields of a log line. Whatever comes is counted, nothing raises."""

from __future__ import annotations

import enum
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

LINE_BYTES_MAX = 1 << 20
"""The longest line that is read; of a longer one nothing is kept."""


QUICK_CALL = re.compile(
    r'\{"timestamp": "([0-9-]{10}T[0-9:]{8})\.([0-9]{3})\+00:00", "level": "info", "event": "call",'
    r' "service": "([A-Za-z0-9_.-]{1,64})", "trace_id": "([0-9a-f]{1,64})",'
    r' "request_id": "([A-Za-z0-9._:@/+-]{1,128})",'
    r' "method": "([A-Za-z0-9_./]+)", "code": "OK", "reason": "", "message": "",'
    r' "duration_ms": ([0-9]{1,12}\.[0-9]{1,6}), "peer": "[^"\\\x00-\x1f]*", "caller": "[^"\\\x00-\x1f]*",'
    r' "received_bytes": [0-9]{1,18}, "sent_bytes": [0-9]{1,18}, "logged": "([a-z]+)"\}'
)
"""The line of a unary call that went well, as the services write it: nearly every line of a large log.

Groups: second, thousandths, service, trace id, request id, method, milliseconds, which calls are logged. It pins the
whole line, so that decoding it would say the same; matching takes a third of the time.
"""


class Unreadable(enum.StrEnum):
    """Why a line is not one of the services' JSON log lines."""

    TEXT = "text"
    """It is no JSON object: the text format, or what something else wrote."""
    BROKEN = "broken"
    """It begins like one and is none: damaged, or two that were written into each other."""
    CUT_OFF = "cut_off"
    """The last line, half written."""
    TOO_LONG = "too_long"
    """Above LINE_BYTES_MAX."""
    NOT_UTF8 = "not_utf8"
    OTHER_SHAPE = "other_shape"
    """An object without timestamp, level and event as the services write them."""


class Lines:
    """Cuts the blocks of one file into lines. `unreadable` counts those that are none."""

    def __init__(self, unreadable: Counter[str]) -> None:
        self._unreadable = unreadable
        self._rest = b""
        self._skipping = False

    def cut(self, block: bytes) -> list[str]:
        """The lines that the block completes, without their ends."""
        if self._skipping and b"\n" in block:
            self._skipping = False
            self._unreadable[Unreadable.TOO_LONG] += 1
            block = block.partition(b"\n")[2]
        end = block.rfind(b"\n")
        if end < 0:
            self._keep(block)
            return []
        whole = self._rest + block[:end]
        self._rest = b""
        self._keep(block[end + 1 :])
        return list(self._short(_decoded(whole, self._unreadable)))

    def end(self) -> str:
        """What stands behind the last line end; empty when nothing does."""
        if self._skipping:
            self._unreadable[Unreadable.TOO_LONG] += 1
            return ""
        return "".join(_decoded(self._rest, self._unreadable))

    def _keep(self, rest: bytes) -> None:
        """Keeps the beginning of a line, unless it is too long already."""
        if not self._skipping:
            self._rest += rest
            self._skipping = len(self._rest) > LINE_BYTES_MAX
        if self._skipping:
            self._rest = b""

    def _short(self, lines: list[str]) -> Iterable[str]:
        # A character has one byte or more: this lets pass some lines of LINE_BYTES_MAX characters, which is enough.
        if max(map(len, lines), default=0) <= LINE_BYTES_MAX:
            return lines
        kept = [line for line in lines if len(line) <= LINE_BYTES_MAX]
        self._unreadable[Unreadable.TOO_LONG] += len(lines) - len(kept)
        return kept


def fields_of(text: str) -> dict[str, Any] | Unreadable:
    """The fields of a line. Of a key that comes twice the last value counts, as everywhere in Python."""
    if not text.startswith("{"):
        return Unreadable.TEXT
    try:
        found, end = _decode(text)
    # Brackets nested by thousands, and numbers of thousands of digits.
    except (ValueError, RecursionError):
        return Unreadable.BROKEN
    if end != len(text) and text[end:].strip():
        return Unreadable.BROKEN
    fields: dict[str, Any] = found
    return fields


def _decoded(data: bytes, unreadable: Counter[str]) -> list[str]:
    """The lines as text; at once where all are, which is almost always."""
    try:
        return data.decode().split("\n")
    except UnicodeDecodeError:
        return list(_decoded_one_by_one(data, unreadable))


def _decoded_one_by_one(data: bytes, unreadable: Counter[str]) -> Iterator[str]:
    for line in data.split(b"\n"):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            unreadable[Unreadable.NOT_UTF8] += 1


_decode = json.JSONDecoder().raw_decode
