"""When scheduled backups are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain import schedules
from services.backup.domain.model import Kind
from services.backup.domain.schedules import InvalidSchedule, Schedule, due, last_before, last_committed, next_slot

HOURLY = Schedule(Kind.HOURLY, "0 * * * *")
DAILY = Schedule(Kind.DAILY, "30 2 * * *")
MONTHLY = Schedule(Kind.MONTHLY, "0 3 1 * *")
LEAP = Schedule(Kind.MANUAL, "0 0 29 2 *")
SEEN = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_slot_is_due_from_its_moment_on() -> None:
    """Not before its second, then until it is committed, then not again."""
    assert due(HOURLY, at("2026-03-01T11:00"), at("2026-03-01T11:59:59.999999"), SEEN) is None
    assert due(HOURLY, at("2026-03-01T11:00"), at("2026-03-01T12:00"), SEEN) == at("2026-03-01T12:00")
    assert due(HOURLY, at("2026-03-01T11:00"), at("2026-03-01T12:40"), SEEN) == at("2026-03-01T12:00")
    assert due(HOURLY, at("2026-03-01T12:00"), at("2026-03-01T12:40"), SEEN) is None


def test_missed_slots_are_run_once() -> None:
    """After days of absence the newest slot is due, and then nothing."""
    now = at("2026-03-10T12:20")

    found = due(HOURLY, at("2026-03-01T11:00"), now, SEEN)

    assert found == at("2026-03-10T12:00")
    assert due(HOURLY, found, now, SEEN) is None


def test_years_of_absence_cost_nothing() -> None:
    """The newest slot is found from the present, not by counting up from the last one."""
    assert due(Schedule(Kind.HOURLY, "* * * * *"), at("1971-01-01"), at("2026-03-01T12:00:30"), SEEN) == at(
        "2026-03-01T12:00"
    )
    assert due(LEAP, None, at("2031-06-01"), at("1999-01-01")) == at("2028-02-29")


def test_a_new_schedule_does_not_run_for_the_past() -> None:
    """Without a committed slot only those from the schedule's first day on are due."""
    seen = at("2026-03-01T12:30")

    assert due(HOURLY, None, at("2026-03-01T12:59"), seen) is None
    assert due(HOURLY, None, at("2026-03-01T13:00"), seen) == at("2026-03-01T13:00")
    assert due(HOURLY, None, at("2026-03-01T13:00"), at("2026-03-01T13:00")) == at("2026-03-01T13:00")


def test_a_clock_that_went_back_finds_nothing_due() -> None:
    """Until the clock is past the last slot again no backup is made twice."""
    last = at("2026-03-01T12:00")

    assert due(HOURLY, last, at("2026-03-01T10:30"), SEEN) is None
    assert due(HOURLY, last, at("2026-03-01T13:00"), SEEN) == at("2026-03-01T13:00")


def test_a_slot_from_the_future_does_not_stop_backups() -> None:
    """A clock that was a year ahead for a moment left a slot: the present goes by the others."""
    slots = [at("2026-03-01T11:00"), at("2027-03-01T11:00"), at("2026-03-01T12:00")]

    last = last_committed(slots, at("2026-03-01T13:10"))

    assert last == at("2026-03-01T12:00")
    assert due(HOURLY, last, at("2026-03-01T13:10"), SEEN) == at("2026-03-01T13:00")
    assert last_committed([], at("2026-03-01T13:10")) is None


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_summer_time_changes_nothing(day: str) -> None:
    """On the days when Europe's clocks change there are 24 hourly slots and one at 02:30."""
    now, end, hours, nights = at(day), at(day) + timedelta(days=1), 0, 0
    while now < end:
        hours += due(HOURLY, now - timedelta(microseconds=1), now, SEEN) == now
        nights += due(DAILY, now - timedelta(microseconds=1), now, SEEN) == now
        now += timedelta(minutes=30)

    assert (hours, nights) == (24, 1)


def test_other_time_zones_are_understood() -> None:
    """Moments may come in any zone; slots are in UTC."""
    now = datetime(2026, 3, 1, 14, 10, tzinfo=timezone(timedelta(hours=2)))

    assert last_before(HOURLY, now) == at("2026-03-01T12:00")
    assert next_slot(HOURLY, now) == at("2026-03-01T13:00")


MOMENTS = st.integers(0, 100 * 365 * 86_400 * 1_000_000).map(
    lambda microseconds: datetime(1980, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


@given(schedule=st.sampled_from([HOURLY, DAILY, MONTHLY, LEAP]), now=MOMENTS)
@settings(max_examples=150)
def test_slots_lie_around_a_moment(schedule: Schedule, now: datetime) -> None:
    """The slot before is not after now, the next one is, and there is none between them."""
    before, after = last_before(schedule, now), next_slot(schedule, now)

    assert before is not None
    assert after is not None
    assert before <= now < after
    assert next_slot(schedule, before) == after
    assert last_before(schedule, after - timedelta(microseconds=1)) == before


@given(
    steps=st.lists(st.integers(-7200, 90_000), min_size=1, max_size=60),
    loses=st.lists(st.booleans(), min_size=60, max_size=60),
)
@settings(max_examples=60)
def test_no_slot_comes_twice(steps: list[int], loses: list[bool]) -> None:
    """Over random waits, clocks that jump both ways and runs that fail, no slot is committed twice."""
    now, committed = at("2026-03-01T00:30"), list[datetime]()
    for step, fails in zip(steps, loses, strict=False):
        now += timedelta(seconds=step)
        slot = due(HOURLY, last_committed(committed, now), now, SEEN)
        if slot is not None and not fails:
            assert slot not in committed
            committed.append(slot)


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * 0 * *", "Bad day-of-month"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("x * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("5-1 * * * *", "Bad minute"),
        ("* * * * 8", "Bad day-of-week"),
        ("0 0 */29 2 MON#5", "never comes"),
        ("1,2," * 60 + " * * * *", "at most 200"),
    ],
)
def test_other_expressions_are_refused(cron: str, why: str) -> None:
    """What cannot be read, or never comes, is refused with the field that is wrong."""
    with pytest.raises(InvalidSchedule, match=why):
        Schedule(Kind.DAILY, cron)


@pytest.mark.parametrize("cron", ["*/5 * * * *", "0 0 L * *", "0 0 * * MON#1", "0 0 29 2 *", "15 3 * JAN-MAR,DEC SUN"])
def test_usual_expressions_are_taken(cron: str) -> None:
    """Steps, names, last days and leap days are understood."""
    schedules.validate(cron)

    assert next_slot(Schedule(Kind.DAILY, cron), SEEN) is not None
