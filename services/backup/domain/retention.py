"""Which backups may go, and why each of the others stays.

Natural buckets as restic has them: the last good backup of each UTC hour, day and month fills that bucket, whatever it
was made for, and the newest buckets that are not empty are kept. Only a backup that was verified fills one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from services.backup.domain import documents
from services.backup.domain.lineage import Line, line_of
from services.backup.domain.model import Epoch, Kind, Level, Place
from services.backup.domain.targets import SegmentSpan

HOURLY_LEVEL = Level.V2
"""What fills an hour."""
PROVEN_LEVEL = Level.V3
"""What fills a day or a month, and what counts among those that are always kept."""
SKEW = timedelta(minutes=5)
"""A manifest further ahead than this was dated by a wrong clock."""
DELETIONS_ALWAYS = 1
"""So many may go at a time, however few there are."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup as retention sees it.

    time: the manifest's end. level: the highest that it passed, None when none or when a later check found it damaged.
    """

    id: str
    kind: Kind
    time: datetime
    level: Level | None
    pinned: bool = False
    locked_until: datetime | None = None
    size_bytes: int = 0
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How many buckets are kept, and what is never done.

    floor: so many proven ones are always kept, the newest. stale_after: without a proven one that is younger, nothing
    is deleted. share_max: a plan that deletes more of all backups has to be forced. grace: what is younger has time to
    be verified. safety_keep: how long a safety backup stays at least.
    """

    hourly: int = 48
    daily: int = 30
    monthly: int = 12
    floor: int = 3
    stale_after: timedelta = timedelta(days=2)
    share_max: float = 0.2
    grace: timedelta = timedelta(hours=24)
    safety_keep: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if min(self.hourly, self.daily, self.monthly) < 0 or self.hourly + self.daily + self.monthly == 0:
            raise ValueError("hourly, daily, monthly: none may be below 0, and one must be above")
        if self.floor < 1 or not 0 < self.share_max <= 1:
            raise ValueError("floor must be at least 1, and share_max above 0 and at most 1")
        if min(self.stale_after, self.grace, self.safety_keep) < timedelta(0):
            raise ValueError("stale_after, grace, safety_keep: none may be below 0")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a backup. why: all reasons to keep it, or why there is none. buckets: those it fills."""

    id: str
    delete: bool
    why: str
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """decisions: one for each candidate, oldest first. blocked: why nothing may be deleted now, None when it may.

    future: backups whose time has not come, which some clock is to blame for. digest: recognises a plan that deletes
    the same backups under the same policy: what was confirmed is what is done.
    """

    decisions: tuple[Decision, ...]
    blocked: str | None
    future: tuple[str, ...]
    digest: str

    @property
    def deletions(self) -> tuple[str, ...]:
        """Ids of the backups that may be deleted now, oldest first; none while the plan is blocked."""
        return () if self.blocked else tuple(each.id for each in self.decisions if each.delete)


@dataclass(slots=True)
class _Reasons:
    keep: list[str] = field(default_factory=list)
    buckets: list[str] = field(default_factory=list)


def plan(candidates: Iterable[Candidate], policy: Policy, now: datetime, *, force: bool = False) -> Plan:
    """Decides about all backups of a repository.

    force: allows a plan beyond share_max; nothing else. While no proven backup is young enough nothing may be deleted,
    forced or not. Deleted is never: the newest proven one, any of the `floor` newest proven ones, one that fills a
    bucket, is pinned, locked, too young, or dated in the future.
    """
    ordered = sorted(candidates, key=lambda each: (each.time, each.id))
    future = tuple(each.id for each in ordered if each.time > now + SKEW)
    present = [each for each in ordered if each.time <= now + SKEW]
    proven = [each for each in present if _at_least(each, PROVEN_LEVEL)]
    reasons = {each.id: _Reasons(_own_reasons(each, policy, now)) for each in ordered}
    for number, each in enumerate(reversed(proven[-policy.floor :]), 1):
        what = "the newest that is proven" if number == 1 else f"among the {policy.floor} newest that are proven"
        reasons[each.id].keep.append(what)
    _fill_buckets(present, policy, reasons)
    decisions = tuple(_decision(each, reasons[each.id]) for each in ordered)
    deletions = [each.id for each in decisions if each.delete]
    blocked = _stale(proven, policy, now) if deletions else None
    if blocked is None and not force:
        blocked = _too_many(len(deletions), len(ordered), policy)
    return Plan(decisions, blocked, future, _digest(deletions, policy))


class ArchiveFloor:
    """Which segments of the archive may go: the unbroken run from the beginning of each epoch for which it says so.

    A segment may go when it is older than `keep` by its last_time and no retained backup needs it: none lies on the
    segment's line before its last change. While there is no backup, or the segment's epoch or time is not known, it
    stays.
    """

    def __init__(self, retained: Iterable[Place], epochs: Sequence[Epoch], now: datetime, *, keep: timedelta) -> None:
        self._places = list(retained)
        self._epochs = epochs
        self._before = now - keep
        self._lines: dict[int, Line | None] = {}

    def may_go(self, segment: SegmentSpan) -> bool:
        """Whether the segment may go, if all of its epoch that are before it do."""
        if not self._places or segment.last_time is None or segment.last_time >= self._before:
            return False
        if segment.epoch not in self._lines:
            self._lines[segment.epoch] = _line(segment.epoch, self._epochs)
        line = self._lines[segment.epoch]
        return line is not None and not any(line.holds(each) and each.position < segment.last for each in self._places)


def _line(epoch: int, epochs: Sequence[Epoch]) -> Line | None:
    try:
        return line_of(epoch, epochs)
    except ValueError:
        return None


def _at_least(candidate: Candidate, level: Level) -> bool:
    return candidate.level is not None and candidate.level >= level


def _own_reasons(candidate: Candidate, policy: Policy, now: datetime) -> list[str]:
    """Reasons to keep a backup that have nothing to do with the others."""
    age = now - candidate.time
    reasons = []
    if age < -SKEW:
        reasons.append("its time lies in the future: check the clocks")
    if candidate.pinned:
        reasons.append("pinned")
    if candidate.locked_until is not None and candidate.locked_until > now:
        reasons.append(f"locked until {_minute(candidate.locked_until)}")
    if candidate.kind is Kind.SAFETY and age < policy.safety_keep:
        reasons.append(f"a safety backup younger than {policy.safety_keep}")
    if not _at_least(candidate, HOURLY_LEVEL) and age < policy.grace:
        reasons.append(f"not verified yet, and younger than {policy.grace}")
    return reasons


def _fill_buckets(present: Sequence[Candidate], policy: Policy, reasons: Mapping[str, _Reasons]) -> None:
    # A bucket's name is the beginning of the time in ISO 8601, as long as its unit says.
    rules = (
        ("hour", policy.hourly, HOURLY_LEVEL, len("2026-01-31T23")),
        ("day", policy.daily, PROVEN_LEVEL, len("2026-01-31")),
        ("month", policy.monthly, PROVEN_LEVEL, len("2026-01")),
    )
    times = [(each, each.time.astimezone(UTC).isoformat()) for each in present]
    for unit, count, level, length in rules:
        last = {time[:length]: each.id for each, time in times if _at_least(each, level)}
        # Buckets were put in from the oldest to the newest; a bucket's last one replaced those before it.
        for bucket in list(last)[max(0, len(last) - count) :] if count else ():
            reasons[last[bucket]].buckets.append(f"{unit} {bucket}")


def _decision(candidate: Candidate, reasons: _Reasons) -> Decision:
    told = [*reasons.keep, *(f"the last good one of the {bucket}" for bucket in reasons.buckets)]
    if told:
        return Decision(candidate.id, delete=False, why="; ".join(told), buckets=tuple(reasons.buckets))
    if not _at_least(candidate, HOURLY_LEVEL):
        return Decision(
            candidate.id, delete=True, why="never verified, or found damaged, and its time for that is over"
        )
    return Decision(candidate.id, delete=True, why="its hour, day and month are held by others, or too long ago")


def _stale(proven: Sequence[Candidate], policy: Policy, now: datetime) -> str | None:
    if not proven:
        return "Nothing is deleted: no backup is proven by reading all of it again (V3). Verify one."
    newest = proven[-1]
    if now - newest.time > policy.stale_after:
        return (
            f"Nothing is deleted: the newest proven backup, {newest.id}, is of {_minute(newest.time)}, older than "
            f"{policy.stale_after}. Find out why none was made or verified since."
        )
    return None


def _too_many(deletions: int, total: int, policy: Policy) -> str | None:
    if deletions <= max(DELETIONS_ALWAYS, int(policy.share_max * total)):
        return None
    return (
        f"{deletions} of {total} backups would be deleted, more than {policy.share_max:.0%}. Look at the plan, and "
        "force it if it is what you want."
    )


def _digest(deletions: Sequence[str], policy: Policy) -> str:
    told = {name: str(value) for name, value in asdict(policy).items()}
    return hashlib.sha256(documents.canonical({"delete": list(deletions), "policy": told})).hexdigest()


def _minute(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
