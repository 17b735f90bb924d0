"""Where a restore is to arrive, and the way there: a backup, and the pieces of the archive that follow it.

A time means: up to, and not including, the first change whose time is after it, in the order of commit from the backup
on. Times of neighbours may go back by as much as two replicas' clocks differ, so a later change may have an earlier
time: it is not taken, because the order of commit is the truth. A backup counts as before a time when its snapshot was
taken at or before it, and nothing that it holds is known to be later.

An unreachable target is an error that says what can be reached; nothing else is ever restored in its place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.backup.domain.lineage import Line, Stretch, line_of
from services.backup.domain.model import Epoch, Level, Place, StoredChange

CLOCKS_APART_MAX = timedelta(hours=1)
"""By which the clocks of those who write and of the database may differ for a backup to bound the search for a time."""


@dataclass(frozen=True, slots=True)
class Latest:
    """All that is known of the newest epoch."""


@dataclass(frozen=True, slots=True)
class AtBackup:
    """What a backup holds, and nothing after it."""

    id: str


@dataclass(frozen=True, slots=True)
class AtPlace:
    """Right after the change at a position, on the line that ends in an epoch, abandoned or not."""

    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """A moment. epoch: on the line that ends in it, abandoned or not; None means the newest one."""

    time: datetime
    epoch: int | None = None


Target = Latest | AtBackup | AtPlace | AtTime


@dataclass(frozen=True, slots=True)
class Base:
    """A backup to begin from. time: of its snapshot. level: the highest that it passed, None for none."""

    id: str
    place: Place
    time: datetime
    level: Level | None


@dataclass(frozen=True, slots=True)
class SegmentSpan:
    """A segment of the archive: positions first to last of an epoch, and its changes' times as far as they are known.

    last_time: of the last one, or when the segment was stored, which is no earlier. max_time: the latest of them, which
    need not be the last one's.
    """

    epoch: int
    first: int
    last: int
    first_time: datetime | None = None
    last_time: datetime | None = None
    max_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Where the registry stood at a moment, as a heartbeat tells: all changes before that moment lie up to there."""

    place: Place
    time: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions first to last of a segment: what the way takes of it."""

    segment: SegmentSpan
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The way to a target. pieces: in order, without gaps, from the base on.

    end: where it ends; None for a time, because only the changes themselves tell. proven: for a time, whether it is
    certain already that the pieces reach it; else `Cut.check` finds out.
    """

    target: Target
    base: Base
    line: Line
    pieces: tuple[Piece, ...]
    end: Place | None
    proven: bool

    @property
    def backup_id(self) -> str:
        return self.base.id


class Unreachable(Exception):
    """No way leads to the target. nearest_before, nearest_after: the nearest places that can be reached, if any."""

    def __init__(self, reason: str, nearest_before: Place | None = None, nearest_after: Place | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.nearest_before = nearest_before
        self.nearest_after = nearest_after


def plan(
    target: Target,
    bases: Iterable[Base],
    segments: Iterable[SegmentSpan],
    epochs: Sequence[Epoch],
    *,
    level: Level = Level.V2,
    heartbeat: Known | None = None,
) -> RestorePlan:
    """The way to a target from the newest backup before it that passed a level. Raises Unreachable.

    epochs: all that are known; the one with the highest id is the newest. segments: in any order; they may overlap.
    """
    every = list(bases)
    if isinstance(target, AtBackup):
        return _to_backup(target, every, epochs, level)
    survey = _surveyed(target, every, segments, epochs, level, heartbeat)
    if isinstance(target, AtTime):
        return survey.to_time(target)
    return survey.to_position(target, survey.newest if isinstance(target, Latest) else target.position)


def stretches_for(
    target: Target, bases: Sequence[Base], epochs: Sequence[Epoch], *, level: Level = Level.V2
) -> tuple[Stretch, ...]:
    """Where the segments lie that `plan` needs for the same, when nothing tells the times of their changes: with those
    alone it leads the same way, or refuses as well. Raises Unreachable.

    For a time they end where a backup was made CLOCKS_APART_MAX after it: what came behind that is later. Of one that
    cannot be reached a gap may be told as longer than it is, when it goes on behind that backup.
    """
    if isinstance(target, AtBackup):
        return ()
    survey = _surveyed(target, bases, (), epochs, level, None)
    through: int | None = None
    if isinstance(target, AtTime):
        base = survey.base_before(target.time)
        late = (each.place.position for each in bases if survey.line.holds(each.place) and _made_after(each, target))
        through = min(late, default=None)
    else:
        through = None if isinstance(target, Latest) else target.position
        base = survey.base_at(through)
    return survey.line.part(base.place.position, through) if base is not None else ()


class Cut:
    """Tells which changes, shown in the order of the plan's pieces, belong to the target; it stops for good at its end.

    Changes that the base has already, that came before, or that lie on another line are passed over.
    """

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._position = plan.base.place.position
        self.stopped = plan.end is not None and self._position >= plan.end.position

    @property
    def place(self) -> Place:
        """Where the restore stands after the changes that were included."""
        return self._plan.base.place if self._position == self._plan.base.place.position else self._here()

    def includes(self, change: StoredChange) -> bool:
        """Whether the change is to be applied. Raises Unreachable when one is missing before it."""
        if self.stopped or change.position <= self._position:
            return False
        stretch = self._plan.line.stretch_at(change.position)
        if stretch is None or stretch.epoch != change.epoch:
            return False
        if change.position != self._position + 1:
            raise Unreachable(_gap(change.epoch, self._position + 1, change.position - 1), self.place)
        target, end = self._plan.target, self._plan.end
        if isinstance(target, AtTime) and change.time > target.time:
            self.stopped = True
            return False
        self._position = change.position
        self.stopped = end is not None and self._position >= end.position
        return True

    def check(self) -> None:
        """Returns once all changes were shown, if they led to the target. Raises Unreachable if they did not."""
        if self.stopped or (self._plan.end is None and self._plan.proven):
            return
        raise Unreachable(f"the archive ends at {self.place}, before the target", self.place)

    def _here(self) -> Place:
        return self._plan.line.place(self._position)


class _Track:
    """The segments of a line, to be followed from any position."""

    def __init__(self, line: Line, segments: Iterable[SegmentSpan]) -> None:
        self._line = line
        self._longest: dict[int, tuple[list[int], list[SegmentSpan]]] = {}
        wanted = {stretch.epoch for stretch in line.stretches}
        self.all = sorted(
            (each for each in segments if each.epoch in wanted), key=lambda each: (each.first, each.last, each.epoch)
        )
        for each in self.all:
            starts, longest = self._longest.setdefault(each.epoch, ([], []))
            starts.append(each.first)
            longest.append(each if not longest or each.last > longest[-1].last else longest[-1])

    def piece(self, position: int) -> Piece | None:
        """What leads on from a position that is needed next: as far as one segment goes."""
        stretch = self._line.stretch_at(position)
        if stretch is None or stretch.epoch not in self._longest:
            return None
        starts, longest = self._longest[stretch.epoch]
        index = bisect_right(starts, position) - 1
        if index < 0 or longest[index].last < position:
            return None
        return Piece(longest[index], position, stretch.cut(longest[index].last))

    @property
    def last(self) -> int:
        """The highest position on the line that a segment holds; 0 when none does."""
        ends = (
            stretch.cut(each.last)
            for each in self.all
            for stretch in self._line.stretches
            if stretch.epoch == each.epoch and each.last > stretch.after and each.first <= stretch.cut(each.first)
        )
        return max(ends, default=0)

    def next_first(self, position: int) -> int | None:
        """The first position on the line above one that a segment begins at."""
        on_line = (
            each.first for each in self.all if each.first > position and self._line.holds(Place(each.epoch, each.first))
        )
        return next(on_line, None)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is known of a line. bases: on the line, by position, of any level."""

    line: Line
    bases: Sequence[Base]
    track: _Track
    level: Level
    heartbeat: Known | None

    @property
    def newest(self) -> int:
        """The highest position that anything tells of."""
        beat = self.heartbeat
        known = beat.place.position if beat is not None and self.line.holds(beat.place) else 0
        return max(self.track.last, known, *(each.place.position for each in self.bases), 0)

    def to_position(self, target: Target, position: int) -> RestorePlan:
        base = self.base_at(position)
        after = next((each.place for each in self._usable if each.place.position > position), None)
        if base is None:
            where = "" if isinstance(target, Latest) else f", at or before {self.line.place(position)}"
            raise Unreachable(f"{self._nothing()}{where}", None, after)
        pieces, reached = self._follow(base.place.position, position)
        if reached < position:
            reason = _gap(self.line.place(reached + 1).epoch, reached + 1, self._gap_end(reached, position))
            raise Unreachable(reason, self.line.place(reached), after)
        end = base.place if base.place.position == position else self.line.place(position)
        return RestorePlan(target, base, self.line, pieces, end, proven=True)

    def to_time(self, target: AtTime) -> RestorePlan:
        time = target.time
        base = self.base_before(time)
        after = next((each.place for each in self._usable if each.time > time), None)
        if base is None:
            raise Unreachable(f"{self._nothing()}, taken at or before {time.isoformat()}", None, after)
        pieces, reached, found = self._follow_until(base.place.position, time)
        proven = found or self._stood_still(reached, time)
        # Only the changes themselves can tell where the time falls: no times are known, or those of a segment's rest.
        open_ended = any(piece.segment.max_time is None or _later(piece.segment, time) for piece in pieces)
        if not proven and not open_ended:
            here = self.line.place(reached)
            if reached < self.newest:
                end = self._gap_end(reached, self.newest)
                raise Unreachable(_gap(self.line.place(reached + 1).epoch, reached + 1, end), here, after)
            raise Unreachable(f"the archive ends at {here}, before {time.isoformat()}", here, after)
        return RestorePlan(target, base, self.line, pieces, None, proven)

    def base_at(self, position: int | None) -> Base | None:
        """The newest sufficient one at or before a position; None means the newest position of all."""
        usable = reversed(self._usable)
        return next((each for each in usable if position is None or each.place.position <= position), None)

    def base_before(self, time: datetime) -> Base | None:
        """The newest sufficient one that holds nothing later than a time, as far as is known."""
        late = [each.place.position for each in self.bases if each.time > time]
        late += [each.last for each in self.track.all if _later(each, time) and self._inside(each)]
        limit = min(late, default=None)
        for base in reversed(self._usable):
            held = limit is not None and base.place.position >= limit
            if base.time <= time and not held:
                return base
        return None

    def _inside(self, segment: SegmentSpan) -> bool:
        """Whether all of a segment lies on the line."""
        return all(self.line.stretch_at(each) is not None for each in (segment.first, segment.last)) and all(
            self.line.holds(Place(segment.epoch, each)) for each in (segment.first, segment.last)
        )

    def _follow(self, position: int, end: int) -> tuple[tuple[Piece, ...], int]:
        pieces: list[Piece] = []
        while position < end:
            piece = self.track.piece(position + 1)
            if piece is None:
                break
            last = min(piece.last, end)
            pieces.append(Piece(piece.segment, piece.first, last))
            position = last
        return tuple(pieces), position

    def _follow_until(self, position: int, time: datetime) -> tuple[tuple[Piece, ...], int, bool]:
        pieces: list[Piece] = []
        while (piece := self.track.piece(position + 1)) is not None:
            pieces.append(piece)
            position = piece.last
            if _later(piece.segment, time) and _whole(piece):
                return tuple(pieces), position, True
        return tuple(pieces), position, False

    def _stood_still(self, reached: int, time: datetime) -> bool:
        """Whether the line is known to have been no further than this at a time."""
        known = [Known(each.place, each.time) for each in self.bases]
        if self.heartbeat is not None and self.line.holds(self.heartbeat.place):
            known.append(self.heartbeat)
        return any(each.place.position <= reached and each.time >= time for each in known)

    def _gap_end(self, reached: int, end: int) -> int:
        following = self.track.next_first(reached + 1)
        return end if following is None else max(reached + 1, min(end, following - 1))

    @property
    def _usable(self) -> Sequence[Base]:
        return [each for each in self.bases if each.level is not None and each.level >= self.level]

    def _nothing(self) -> str:
        return f"there is no backup of epoch {self.line.epoch} or of those before it, verified to {self.level.name}"


def _surveyed(
    target: Latest | AtPlace | AtTime,
    bases: Iterable[Base],
    segments: Iterable[SegmentSpan],
    epochs: Sequence[Epoch],
    level: Level,
    heartbeat: Known | None,
) -> _Survey:
    """What is known of a target's line. Raises Unreachable."""
    line = _line(_epoch_of(target, epochs), epochs)
    on_line = sorted((each for each in bases if line.holds(each.place)), key=lambda each: each.place.position)
    return _Survey(line, on_line, _Track(line, segments), level, heartbeat)


def _made_after(base: Base, target: AtTime) -> bool:
    return base.time > target.time + CLOCKS_APART_MAX


def _to_backup(target: AtBackup, bases: Sequence[Base], epochs: Sequence[Epoch], level: Level) -> RestorePlan:
    base = next((each for each in bases if each.id == target.id), None)
    if base is None:
        raise Unreachable(f"there is no backup {target.id}")
    if base.level is None or base.level < level:
        raise Unreachable(f"the backup {target.id} is not verified to {level.name}: verify it first")
    return RestorePlan(target, base, _line(base.place.epoch, epochs), (), base.place, proven=True)


def _epoch_of(target: Latest | AtPlace | AtTime, epochs: Sequence[Epoch]) -> int:
    if not isinstance(target, Latest) and target.epoch is not None:
        return target.epoch
    return max((each.id for each in epochs), default=0)


def _line(epoch: int, epochs: Sequence[Epoch]) -> Line:
    try:
        return line_of(epoch, epochs)
    except ValueError as error:
        raise Unreachable(f"{error}") from None


def _later(segment: SegmentSpan, time: datetime) -> bool:
    return segment.max_time is not None and segment.max_time > time


def _whole(piece: Piece) -> bool:
    return piece.first == piece.segment.first and piece.last == piece.segment.last


def _gap(epoch: int, first: int, last: int) -> str:
    return f"the archive has a gap: the positions {first} to {last} of epoch {epoch} are missing"
