"""What retention deletes, and above all what it does not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain.model import Epoch, Kind, Level, Place
from services.backup.domain.retention import SKEW, ArchiveFloor, Candidate, Plan, Policy, plan
from services.backup.domain.targets import SegmentSpan

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = Policy()


def proven(id: str, age: timedelta, **changes: object) -> Candidate:  # noqa: A002 - The domain's word.
    """A backup that passed V3."""
    return replace(Candidate(id, Kind.DAILY, NOW - age, Level.V3), **changes)  # type: ignore[arg-type]


FLOOR = [proven(f"floor{number}", number * HOUR) for number in range(3)]
"""Three fresh proven backups, so that nothing else is kept for being among the newest."""


def decided(candidates: Sequence[Candidate], id: str, **changes: object) -> tuple[bool, str]:  # noqa: A002
    """What becomes of a backup beside the three fresh ones: whether it goes, and why."""
    made = plan([*FLOOR, *candidates], replace(POLICY, **changes), NOW, force=True)  # type: ignore[arg-type]
    decision = next(each for each in made.decisions if each.id == id)
    return id in made.deletions, decision.why


def test_each_bucket_keeps_its_last_good_one() -> None:
    """Of two backups in one hour the later stays; of a day's, the last proven one fills the day."""
    early = proven("early", 10 * DAY + 2 * HOUR)
    late = proven("late", 10 * DAY + HOUR)

    gone, why = decided([early, late], "late", hourly=0)

    assert (gone, why) == (False, "the last good one of the day 2026-03-05")
    assert decided([early, late], "early", hourly=0)[0]


def test_an_unverified_backup_fills_no_bucket() -> None:
    """A later backup of the day that nobody verified does not push out the proven one."""
    good, bad = proven("good", 10 * DAY), proven("bad", 10 * DAY - HOUR, level=None)

    assert not decided([good, bad], "good")[0]
    assert decided([good, bad], "bad") == (True, "never verified, or found damaged, and its time for that is over")


@pytest.mark.parametrize(("level", "stays"), [(None, False), (Level.V1, False), (Level.V2, True), (Level.V4, True)])
def test_hours_take_v2(level: Level | None, *, stays: bool) -> None:
    """An hour is filled by a backup whose keys and ends were checked."""
    gone, _ = decided([proven("it", 30 * HOUR, level=level)], "it", daily=0, monthly=0)

    assert gone is not stays


@pytest.mark.parametrize("level", [Level.V2, None])
def test_days_and_months_take_v3(level: Level | None) -> None:
    """A day or a month is filled only by a backup that was read again as a whole."""
    assert decided([proven("it", 40 * DAY, level=level)], "it", hourly=1, daily=100)[0]
    assert not decided([proven("it", 40 * DAY)], "it", hourly=1, daily=100)[0]


def test_one_backup_fills_several_buckets() -> None:
    """The last of an hour may be the last of its day and month as well, and is told so."""
    made = plan(FLOOR, POLICY, NOW)

    newest = next(each for each in made.decisions if each.id == "floor0")
    assert newest.buckets == ("hour 2026-03-15T12", "day 2026-03-15", "month 2026-03")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pinned": True}, "pinned"),
        ({"locked_until": NOW + HOUR}, "locked until 2026-03-15 13:30 UTC"),
        ({"kind": Kind.SAFETY, "time": NOW - 5 * DAY}, "a safety backup younger than 7 days"),
        ({"level": None, "time": NOW - 23 * HOUR}, "not verified yet, and younger than 1 day"),
        ({"time": NOW + DAY}, "its time lies in the future"),
    ],
)
def test_protected_backups_stay(change: dict[str, object], why: str) -> None:
    """What is pinned, locked, a young safety backup, still to be verified or dated ahead is never deleted."""
    gone, told = decided([proven("it", 900 * DAY, **change)], "it", hourly=1, daily=0, monthly=0)

    assert not gone
    assert why in told


@pytest.mark.parametrize(
    "change",
    [
        {"locked_until": NOW - HOUR},
        {"kind": Kind.SAFETY, "time": NOW - 8 * DAY},
        {"level": None, "time": NOW - 25 * HOUR},
    ],
)
def test_protection_ends(change: dict[str, object]) -> None:
    """A lock that ran out, an old safety backup and one that was never verified in its time may go."""
    assert decided([proven("it", 900 * DAY, **change)], "it", hourly=1, daily=0, monthly=0)[0]


def test_the_newest_proven_ones_stay() -> None:
    """Three proven ones stay although no bucket holds them, and newer ones that are not proven do not count."""
    old = [proven(f"old{number}", (1 + number) * HOUR) for number in range(5)]
    newer = [proven("newer", timedelta(0), level=Level.V2)]

    made = plan([*old, *newer], Policy(hourly=1, daily=0, monthly=0), NOW, force=True)

    assert made.deletions == ("old4", "old3")


def test_without_a_fresh_proven_one_nothing_goes() -> None:
    """When the newest proven one is too old, or there is none, even a forced plan deletes nothing and says why."""
    old = [proven(f"old{number}", 3 * DAY + number * HOUR) for number in range(9)]
    fresh = [replace(each, id=f"v2-{each.id}", time=NOW, level=Level.V2) for each in old]

    stale = plan([*old, *fresh], Policy(hourly=1, daily=0, monthly=0), NOW, force=True)
    none = plan(fresh, Policy(hourly=1, daily=0, monthly=0), NOW, force=True)

    assert stale.deletions == none.deletions == ()
    assert stale.blocked is not None
    assert "the newest proven backup, old0, is of 2026-03-12 12:30 UTC, older than 2 days" in stale.blocked
    assert none.blocked is not None
    assert "no backup is proven" in none.blocked
    assert any(each.delete for each in stale.decisions)


def test_a_large_plan_has_to_be_forced() -> None:
    """A plan that deletes more than a fifth of all deletes nothing until it is forced; its digest stays the same."""
    many = [*FLOOR, *(proven(f"many{number:02}", 400 * DAY + number * HOUR) for number in range(20))]
    tight = Policy(hourly=3)

    blocked, forced = plan(many, tight, NOW), plan(many, tight, NOW, force=True)

    assert blocked.deletions == ()
    assert blocked.blocked is not None
    assert "of 23 backups would be deleted, more than 20%" in blocked.blocked
    assert len(forced.deletions) > 4
    assert blocked.digest == forced.digest


def test_a_single_deletion_need_not_be_forced() -> None:
    """Among few backups one may go at a time, though it is more than a fifth."""
    made = plan([*FLOOR, proven("old", 900 * DAY)], Policy(hourly=3, daily=0, monthly=0), NOW)

    assert made.deletions == ("old",)


def test_a_backup_from_the_future_counts_for_nothing() -> None:
    """It is kept and told, fills no bucket and is not the newest proven one."""
    made = plan([*FLOOR, proven("ahead", -400 * DAY)], Policy(hourly=0, daily=1, monthly=1), NOW)

    assert made.future == ("ahead",)
    kept = next(each for each in made.decisions if each.id == "floor0")
    assert kept.buckets == ("day 2026-03-15", "month 2026-03")
    assert plan([proven("ahead", -400 * DAY), proven("old", 9 * DAY)], POLICY, NOW).deletions == ()


def test_the_digest_tells_plans_apart() -> None:
    """Another policy, or other deletions, give another digest; the same ones give the same."""
    some = [*FLOOR, proven("old", 900 * DAY), proven("older", 900 * DAY + HOUR)]
    tight = Policy(hourly=3, daily=0, monthly=0)

    assert plan(some, tight, NOW).digest == plan(list(reversed(some)), tight, NOW + HOUR).digest
    assert plan(some[:-1], tight, NOW).digest != plan(some, tight, NOW).digest
    assert plan(some, replace(tight, floor=2), NOW).digest != plan(some, tight, NOW).digest


@pytest.mark.parametrize(
    "changes",
    [{"hourly": -1}, {"hourly": 0, "daily": 0, "monthly": 0}, {"floor": 0}, {"share_max": 0}, {"grace": -HOUR}],
)
def test_policies_that_keep_nothing_are_refused(changes: dict[str, object]) -> None:
    """A policy that would delete everything by mistake is no policy."""
    with pytest.raises(ValueError, match=r"must|may"):
        replace(POLICY, **changes)  # type: ignore[arg-type]


@pytest.mark.regression("B1")
def test_b1_hourly_backups_cover_days_and_months() -> None:
    """Regression B1: after 400 days of hourly backups there are 30 days and 12 months, and no run deleted its own."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    kept: dict[str, Candidate] = {}
    for number in range(400 * 24):
        now = start + number * HOUR
        own = Candidate(f"b{number:05}", Kind.HOURLY, now, Level.V3 if now.hour in {2, 14} else Level.V2)
        kept[own.id] = own
        # Most of the year it cleans up every eight hours, at the end after every run: the test is quicker so.
        if number % 8 and number < 360 * 24:
            continue
        deletions = plan(kept.values(), POLICY, now).deletions
        assert own.id not in deletions
        for each in deletions:
            del kept[each]

    times = [each.time for each in kept.values()]
    good = [each.time for each in kept.values() if each.level is Level.V3]
    assert len({time.date() for time in good}) >= 30
    assert len({(time.year, time.month) for time in good}) == 12
    assert {now - number * HOUR for number in range(48)} <= set(times)
    assert len(kept) <= 48 + 30 + 12 + 3


def check_invariants(candidates: Sequence[Candidate], made: Plan, now: datetime, *, force: bool) -> None:
    """The study's §4.12 (1) to (5), said again in other words."""
    by_id = {each.id: each for each in candidates}
    present = [each for each in candidates if each.time <= now + SKEW]
    good = sorted((each for each in present if (each.level or 0) >= Level.V3), key=lambda each: (each.time, each.id))
    gone = set(made.deletions)
    for decision in made.decisions:
        for bucket in decision.buckets:
            assert (by_id[decision.id].level or 0) >= (Level.V2 if bucket.startswith("hour") else Level.V3)
    assert not gone & {each.id for each in good[-POLICY.floor :]}
    for each in (by_id[id] for id in gone):  # noqa: A001 - The domain's word.
        assert not each.pinned
        assert each.locked_until is None or each.locked_until <= now
        assert each.kind is not Kind.SAFETY or now - each.time >= POLICY.safety_keep
        assert (each.level or 0) >= Level.V2 or now - each.time >= POLICY.grace
        assert each.time <= now + SKEW
    if not good or now - good[-1].time > POLICY.stale_after:
        assert not gone
    assert force or len(gone) <= max(1, len(candidates) * POLICY.share_max)
    for unit, level in (("%Y-%m-%d", Level.V3), ("%Y-%m", Level.V3), ("%Y-%m-%d %H", Level.V2)):
        count = {"%Y-%m-%d": POLICY.daily, "%Y-%m": POLICY.monthly, "%Y-%m-%d %H": POLICY.hourly}[unit]
        filled = {each.time.strftime(unit) for each in present if (each.level or 0) >= level}
        held = {each.time.strftime(unit) for each in present if (each.level or 0) >= level and each.id not in gone}
        assert set(sorted(filled)[-count:]) <= held


def live_through(rng: random.Random, every: timedelta, *, force: bool) -> None:
    """Years of failures, outages, pins and clocks that jump; after each run the plan is checked and carried out."""
    now, kept = datetime(2022, 1, 1, tzinfo=UTC), dict[str, Candidate]()
    for number in range(160):
        now += every * rng.choice([1, 1, 1, 1, 1, 2, 5, 40]) + timedelta(seconds=rng.randrange(600))
        clock = now + (DAY * rng.choice([-400, -1, 1, 400]) if rng.random() < 0.04 else timedelta(0))
        if rng.random() < 0.9:
            kept[f"b{number:04}"] = Candidate(
                f"b{number:04}",
                rng.choice(list(Kind)),
                clock,
                rng.choice([None, Level.V1, Level.V2, Level.V3, Level.V4]),
                pinned=rng.random() < 0.02,
                locked_until=now + DAY * rng.randrange(60) if rng.random() < 0.1 else None,
            )
        made = plan(kept.values(), POLICY, clock, force=force)
        check_invariants(list(kept.values()), made, clock, force=force)
        assert plan(list(kept.values())[::-1], POLICY, clock, force=force) == made
        for each in made.deletions:
            del kept[each]


CADENCES = st.sampled_from([HOUR, 6 * HOUR, DAY])


@given(seed=st.integers(0, 1 << 32), every=CADENCES, force=st.booleans())
@settings(max_examples=5)
def test_years_of_accidents_never_lose_what_counts(seed: int, every: timedelta, *, force: bool) -> None:
    """Over years of random failures, outages, pins and clocks that jump, every plan keeps the invariants."""
    live_through(random.Random(seed), every, force=force)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(seed=st.integers(0, 1 << 32), every=CADENCES, force=st.booleans())
@settings(max_examples=100)
def test_many_years_of_accidents_never_lose_what_counts(seed: int, every: timedelta, *, force: bool) -> None:
    """The same, many times over."""
    live_through(random.Random(seed), every, force=force)


EPOCHS = (Epoch(1, None, 0), Epoch(2, 1, 100), Epoch(3, 2, 150))
OLD, NEW = NOW - 40 * DAY, NOW - 30 * DAY


def span(epoch: int, first: int, last: int, time: datetime | None = OLD) -> SegmentSpan:
    """A segment that was stored at a time."""
    return SegmentSpan(epoch, first, last, last_time=time)


def floor(retained: Sequence[Place], segments: Sequence[SegmentSpan]) -> list[tuple[int, int, int]]:
    """Epoch and positions of the segments that may go."""
    return [(each.epoch, each.first, each.last) for each in gone(retained, segments)]


def gone(retained: Sequence[Place], segments: Sequence[SegmentSpan]) -> list[SegmentSpan]:
    """What goes of each epoch, from its beginning on."""
    floor = ArchiveFloor(retained, EPOCHS, NOW, keep=35 * DAY)
    ordered = sorted(segments, key=lambda each: (each.epoch, each.first, each.last))
    epochs = itertools.groupby(ordered, key=lambda each: each.epoch)
    return [each for _, own in epochs for each in itertools.takewhile(floor.may_go, own)]


def test_segments_before_every_backup_may_go() -> None:
    """Old segments that end at or before the oldest retained backup go; the one it stands in stays."""
    segments = [span(1, 1, 10), span(1, 11, 20), span(1, 21, 30)]

    assert floor([Place(1, 25), Place(1, 90)], segments) == [(1, 1, 10), (1, 11, 20)]
    assert floor([Place(1, 20)], segments) == [(1, 1, 10), (1, 11, 20)]
    assert floor([Place(1, 5), Place(1, 90)], segments) == []


def test_young_segments_stay() -> None:
    """Within the keep time nothing goes, nor anything behind it: the archive never gets a hole."""
    assert floor([Place(1, 90)], [span(1, 1, 10), span(1, 11, 20, NEW), span(1, 21, 30)]) == [(1, 1, 10)]
    assert floor([Place(1, 90)], [span(1, 1, 10, None), span(1, 11, 20)]) == []


def test_a_backup_of_the_parent_holds_the_childs_segments() -> None:
    """A backup before the fork needs the segments of the epochs that forked after it."""
    segments = [span(1, 1, 80), span(1, 81, 120), span(2, 101, 150), span(3, 151, 160)]

    assert floor([Place(1, 80)], segments) == [(1, 1, 80)]
    assert floor([Place(2, 150)], segments) == [(1, 1, 80), (1, 81, 120), (2, 101, 150)]
    assert floor([Place(3, 160)], segments) == [(1, 1, 80), (1, 81, 120), (2, 101, 150), (3, 151, 160)]


def test_a_backup_of_an_abandoned_line_holds_its_own_segments_alone() -> None:
    """Behind the fork the old line's backup cannot lead to the new line, and does not hold its segments."""
    segments = [span(1, 101, 130), span(2, 101, 150)]

    assert floor([Place(1, 110), Place(3, 160)], segments) == [(2, 101, 150)]


def test_without_backups_or_knowledge_segments_stay() -> None:
    """No backup at all, or an epoch of which nothing is known: nothing goes."""
    assert floor([], [span(1, 1, 10)]) == []
    assert floor([Place(1, 90)], [span(7, 1, 10)]) == []


@given(
    positions=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 199)), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 30), min_size=1, max_size=15),
    ages=st.lists(st.integers(0, 80), min_size=45, max_size=45),
)
@settings(max_examples=150)
def test_no_retained_backup_loses_its_way(positions: list[tuple[int, int]], widths: list[int], ages: list[int]) -> None:
    """(6) What goes is old, and lies in no backup's future: what it leads to stays reachable."""
    segments, start = list[SegmentSpan](), {1: 0, 2: 100, 3: 150}
    for epoch in (1, 2, 3):
        position = start[epoch]
        for width in widths:
            age = NOW - ages[len(segments) % len(ages)] * DAY
            segments.append(span(epoch, position + 1, position + width, age))
            position += width
    places = [Place(epoch, max(position, start[epoch])) for epoch, position in positions]

    for epoch, _first, last in floor(places, segments):
        forks = {1: {1: 10_000}, 2: {1: 100, 2: 10_000}, 3: {1: 100, 2: 150, 3: 10_000}}[epoch]
        for place in places:
            on_line = place.epoch in forks and place.position <= forks[place.epoch]
            assert not on_line or place.position >= last
    going = set(gone(places, segments))
    assert all(each.last_time is not None and each.last_time < NOW - 35 * DAY for each in going)
    for epoch in (1, 2, 3):
        own = [each in going for each in segments if each.epoch == epoch]
        assert own == sorted(own, reverse=True)
