"""What two histories share, when lines of history have forked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.backup.domain.model import Epoch, Place

DEPTH_MAX = 10_000
"""Of forks behind one another: a restore makes one."""


class LineUnknown(ValueError):
    """A line of history is named of which nothing is known."""


def known_lines(*sources: Iterable[Epoch]) -> dict[int, Epoch]:
    """All lines that the sources tell of, by number. Raises ValueError when two tell differently of one."""
    lines: dict[int, Epoch] = {}
    for source in sources:
        for line in source:
            if lines.setdefault(line.id, line) != line:
                raise ValueError(f"two histories tell differently of epoch {line.id}: {line} and {lines[line.id]}")
    return lines


def ancestry(lines: Mapping[int, Epoch], epoch: int) -> list[Epoch]:
    """A line and those it came from, itself first. Raises LineUnknown."""
    found: list[Epoch] = []
    next_one: int | None = epoch
    while next_one is not None:
        line = lines.get(next_one)
        if line is None or len(found) >= DEPTH_MAX:
            raise LineUnknown(f"nothing is known of epoch {next_one}")
        found.append(line)
        next_one = line.parent
    return found


def shared_position(lines: Mapping[int, Epoch], one: Place, other: Place) -> int:
    """Up to which position the histories that end at two places are the same; 0 when they share nothing.

    Raises LineUnknown.
    """
    reach: dict[int, int] = {}
    position = one.position
    for line in ancestry(lines, one.epoch):
        reach[line.id] = position
        position = min(position, line.fork_position)
    position = other.position
    for line in ancestry(lines, other.epoch):
        if line.id in reach:
            return min(position, reach[line.id])
        position = min(position, line.fork_position)
    return 0
