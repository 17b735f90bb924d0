"""When scheduled backups are due: cron expressions of five fields, in UTC, so no hour is skipped or comes twice.

A slot is a moment that an expression names. A slot that was missed is run late once: the newest one counts, those
before it are over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from services.backup.domain.model import Kind

CRON_CHARACTERS_MAX = 200
_FIELDS = 5
_PROBE = datetime(2024, 1, 1, tzinfo=UTC)


class InvalidSchedule(ValueError):
    """A cron expression that cannot be read, or that names no moment; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Makes backups of a kind at the moments of a cron expression. Raises InvalidSchedule."""

    kind: Kind
    cron: str

    def __post_init__(self) -> None:
        validate(self.cron)


def validate(cron: str) -> None:
    """Returns for an expression that names moments. Raises InvalidSchedule for any other."""
    if len(cron) > CRON_CHARACTERS_MAX:
        raise InvalidSchedule(f"a cron expression has at most {CRON_CHARACTERS_MAX} characters")
    if len(cron.split()) != _FIELDS:
        raise InvalidSchedule(f"{cron!r}: a cron expression has five fields: minute, hour, day, month, day of the week")
    try:
        next(CronSim(cron, _PROBE))
        next(CronSim(cron, _PROBE, reverse=True))
    except CronSimError as error:
        raise InvalidSchedule(f"{cron!r}: {error}") from None
    except StopIteration:
        raise InvalidSchedule(f"{cron!r} never comes") from None


def due(schedule: Schedule, last_slot: datetime | None, now: datetime, first_seen: datetime) -> datetime | None:
    """The slot to make a backup for now, None when there is none.

    It is the newest one up to now, if it is later than the last that was committed or, when there is none, not before
    the schedule was first seen. A clock that went back finds nothing due until it is past the last slot again.
    """
    slot = last_before(schedule, now)
    if slot is None:
        return None
    if last_slot is None:
        return slot if slot >= first_seen else None
    return slot if slot > last_slot else None


def last_committed(slots: Iterable[datetime], now: datetime) -> datetime | None:
    """The newest slot up to now among those that have a backup: what `due` goes by.

    Slots ahead of now, left by a clock that was wrong, are passed over: one of them must not stop all backups until
    then.
    """
    return max((slot for slot in slots if slot <= now), default=None)


def last_before(schedule: Schedule, now: datetime) -> datetime | None:
    """The newest slot up to now; None when the calendar ends before it."""
    start = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(schedule.cron, start, reverse=True), None)


def next_slot(schedule: Schedule, after: datetime) -> datetime | None:
    """The first slot after a moment; None when the calendar ends before it."""
    return next(CronSim(schedule.cron, after.astimezone(UTC)), None)
