"""Lines of history: which positions of which epoch lie behind an epoch's newest one.

An epoch shares the positions up to its fork with its parent. What a parent went on to after the fork is another line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.backup.domain.model import Epoch, Place


@dataclass(frozen=True, slots=True)
class Stretch:
    """Positions of one epoch that belong to a line: those above `after`, up to `through` (None: all that follow)."""

    epoch: int
    after: int
    through: int | None

    def cut(self, position: int) -> int:
        """The position, or where the stretch ends if that is before it."""
        return position if self.through is None else min(position, self.through)


@dataclass(frozen=True, slots=True)
class Line:
    """An epoch with all that it goes back to. stretches: oldest first, without gaps."""

    epoch: int
    stretches: tuple[Stretch, ...]

    def stretch_at(self, position: int) -> Stretch | None:
        """The stretch that a position from 1 belongs to."""
        for stretch in self.stretches:
            if stretch.after < position and (stretch.through is None or position <= stretch.through):
                return stretch
        return None

    def holds(self, place: Place) -> bool:
        """Whether a place is on the line. Where an epoch begins is the same as where its parent was left."""
        return any(
            stretch.epoch == place.epoch
            and stretch.after <= place.position
            and (stretch.through is None or place.position <= stretch.through)
            for stretch in self.stretches
        )

    def part(self, after: int, through: int | None) -> tuple[Stretch, ...]:
        """Its positions above `after`, up to `through` (None: all that follow)."""
        cut = (
            Stretch(each.epoch, max(each.after, after), each.through if through is None else each.cut(through))
            for each in self.stretches
        )
        return tuple(each for each in cut if each.through is None or each.after < each.through)

    def place(self, position: int) -> Place:
        """The place of a position on the line; position 0 is before the first change of the first epoch."""
        stretch = self.stretch_at(position)
        return Place((stretch or self.stretches[0]).epoch, position)


def line_of(number: int, epochs: Iterable[Epoch]) -> Line:
    """The line that ends in an epoch. Raises ValueError when an epoch of it is not known, or goes back to itself."""
    known = {each.id: each for each in epochs}
    stretches: list[Stretch] = []
    current: int | None = number
    through: int | None = None
    while current is not None:
        epoch = known.get(current)
        if epoch is None:
            raise ValueError(f"the epoch {current} is not known")
        if epoch.parent is not None and epoch.parent >= epoch.id:
            raise ValueError(f"the epoch {current} names a parent that is not older")
        after = 0 if epoch.parent is None else epoch.fork_position
        if through is None or through > after:
            stretches.append(Stretch(current, after, through))
        through = after if through is None else min(after, through)
        current = epoch.parent
    return Line(number, tuple(reversed(stretches)) or (Stretch(number, 0, 0),))
