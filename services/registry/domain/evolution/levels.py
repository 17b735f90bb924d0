"""Compatibility levels as three facts each, and the pairs of reader and writer that they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.registry.domain.model import State, VersionHead

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Level:
    """backward: the candidate reads what older versions wrote. forward: they read what it writes.

    transitive: every version of the history counts, not only the one in force.
    """

    name: str
    backward: bool
    forward: bool
    transitive: bool

    @property
    def checks(self) -> bool:
        """Whether the level asks for anything at all."""
        return self.backward or self.forward


LEVELS = {
    level.name: level
    for level in (
        Level("NONE", backward=False, forward=False, transitive=False),
        Level("BACKWARD", backward=True, forward=False, transitive=False),
        Level("BACKWARD_TRANSITIVE", backward=True, forward=False, transitive=True),
        Level("FORWARD", backward=False, forward=True, transitive=False),
        Level("FORWARD_TRANSITIVE", backward=False, forward=True, transitive=True),
        Level("FULL", backward=True, forward=True, transitive=False),
        Level("FULL_TRANSITIVE", backward=True, forward=True, transitive=True),
    )
}
"""Source: Confluent, "Schema Evolution and Compatibility", compatibility types table."""


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    """A reader that must understand a writer. number: of the older version among the two."""

    reader: T
    writer: T
    number: int
    candidate_reads: bool


def history(level: Level, live: Sequence[VersionHead]) -> tuple[VersionHead, ...]:
    """The versions that a candidate is compared with, newest first.

    live: heads by number. Versions that never were active do not count. Without `transitive` it is the version that
    `latest` names; when none is ACTIVE, the newest that once was.
    """
    counted = [head for head in reversed(live) if head.activated]
    if level.transitive or not counted:
        return tuple(counted) if level.checks else ()
    if not level.checks:
        return ()
    return (next((head for head in counted if head.state is State.ACTIVE), counted[0]),)


def pairs(level: Level, older: Sequence[tuple[int, T]], candidate: T) -> Iterator[Pair[T]]:
    """Reader/writer pairs that must be compatible, in the order of `older` ((number, schema), newest first)."""
    for number, schema in older:
        if level.backward:
            yield Pair(reader=candidate, writer=schema, number=number, candidate_reads=True)
        if level.forward:
            yield Pair(reader=schema, writer=candidate, number=number, candidate_reads=False)
