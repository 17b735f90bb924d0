"""Where uploads are cut into parts."""

from __future__ import annotations

import hashlib

from llm_schema_registry.objects.store import PARTS_MAX, Part

PARTS_PER_SIZE = 1_000
"""Parts double in size after so many, so that PARTS_MAX never binds: with 5.25 MiB they hold 5.1 TiB."""


def part_bytes(number: int, first_bytes: int) -> int:
    """Size of a part, numbered from 1, when the first has `first_bytes`. Raises ValueError behind PARTS_MAX."""
    if not 1 <= number <= PARTS_MAX:
        raise ValueError(f"an upload has 1 to {PARTS_MAX} parts, not a part {number}")
    return int(first_bytes << ((number - 1) // PARTS_PER_SIZE))


class PartHashes:
    """Cuts a stream of bytes into parts and hashes them, without keeping it."""

    def __init__(self, first_bytes: int) -> None:
        self._first_bytes = first_bytes
        self._parts: list[Part] = []
        self._hash = hashlib.sha256()
        self._size = 0

    def update(self, content: bytes) -> None:
        """Takes the next bytes. Raises ValueError behind PARTS_MAX."""
        rest = memoryview(content)
        while rest:
            room = part_bytes(len(self._parts) + 1, self._first_bytes) - self._size
            if room == 0:
                self._end()
                continue
            self._hash.update(rest[:room])
            self._size += len(rest[:room])
            rest = rest[room:]

    def parts(self) -> tuple[Part, ...]:
        """All parts, the last one included. One of no bytes for an empty stream."""
        if self._size or not self._parts:
            self._end()
        return tuple(self._parts)

    def _end(self) -> None:
        self._parts.append(Part(len(self._parts) + 1, self._size, self._hash.digest()))
        self._hash = hashlib.sha256()
        self._size = 0
