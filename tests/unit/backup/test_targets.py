"""Ways to a restore's target: the right one, or an error that says what can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain import targets
from services.backup.domain.lineage import Stretch, line_of
from services.backup.domain.model import Epoch, Level, Place, StoredChange
from services.backup.domain.targets import (
    AtBackup,
    AtPlace,
    AtTime,
    Base,
    Cut,
    Known,
    Latest,
    RestorePlan,
    SegmentSpan,
    Target,
    Unreachable,
    plan,
    stretches_for,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SKEW = 3 * SECOND
"""By which the times of changes are wrong."""
ROOT = (Epoch(1, None, 0),)
FORKED = (Epoch(1, None, 0), Epoch(2, 1, 20))


def at(position: float) -> datetime:
    """When the change at a position happened: one a second."""
    return NOON + position * SECOND


def base(epoch: int, position: int, level: Level | None = Level.V3, time: datetime | None = None) -> Base:
    """A backup at a place, taken half a second after its last change."""
    return Base(f"b{epoch}-{position}", Place(epoch, position), time or at(position + 0.5), level)


def span(epoch: int, first: int, last: int, *, times: bool = True) -> SegmentSpan:
    """A segment whose times are known, or not."""
    if not times:
        return SegmentSpan(epoch, first, last)
    return SegmentSpan(epoch, first, last, at(first), at(last), at(last))


def change(epoch: int, position: int, time: datetime | None = None) -> StoredChange:
    """A change."""
    return StoredChange(position, epoch, time or at(position), "a", "s", "k", None, None, None, 1, b"")


def taken(way: RestorePlan, *, changes: Sequence[StoredChange] | None = None) -> list[Place]:
    """The places of the changes that the cut includes, reading all pieces' segments as a whole."""
    cut = Cut(way)
    found = []
    for piece in way.pieces:
        whole = range(piece.segment.first, piece.segment.last + 1)
        shown = changes or [change(piece.segment.epoch, position) for position in whole]
        own = (each for each in shown if each.epoch == piece.segment.epoch and each.position in whole)
        found += [each.place for each in own if cut.includes(each)]
    cut.check()
    return found


def places(epoch: int, first: int, last: int) -> list[Place]:
    """Places of one epoch."""
    return [Place(epoch, position) for position in range(first, last + 1)]


SEGMENTS = [span(1, 1, 5), span(1, 6, 10), span(1, 11, 15)]
BASES = [base(1, 0), base(1, 7), base(1, 12)]


def test_latest_takes_all_there_is() -> None:
    """From the newest backup through the last segment."""
    way = plan(Latest(), BASES, SEGMENTS, ROOT)

    assert (way.backup_id, way.end) == ("b1-12", Place(1, 15))
    assert taken(way) == places(1, 13, 15)


def test_a_place_takes_the_newest_backup_before_it() -> None:
    """The way begins as late as it can and ends exactly there."""
    way = plan(AtPlace(1, 11), BASES, SEGMENTS, ROOT)

    assert way.backup_id == "b1-7"
    assert [(piece.first, piece.last) for piece in way.pieces] == [(8, 10), (11, 11)]
    assert taken(way) == places(1, 8, 11)


def test_a_place_where_a_backup_stands_needs_no_segment() -> None:
    """A target that is a backup's own place, or before the first change, takes the backup alone."""
    assert plan(AtPlace(1, 12), BASES, [], ROOT).pieces == ()
    assert plan(AtPlace(1, 0), BASES, SEGMENTS, ROOT).backup_id == "b1-0"


def test_a_backup_by_id_is_taken_as_it_is() -> None:
    """Nothing is replayed behind it."""
    way = plan(AtBackup("b1-7"), BASES, SEGMENTS, ROOT)

    assert (way.backup_id, way.pieces, way.end) == ("b1-7", (), Place(1, 7))
    assert taken(way) == []


def test_a_backup_that_is_not_verified_is_passed_over() -> None:
    """The newest one that passed the level is the base; by id an unverified one is refused."""
    bases = [*BASES, base(1, 13, Level.V1), base(1, 14, None)]

    assert plan(Latest(), bases, SEGMENTS, ROOT).backup_id == "b1-12"
    assert plan(Latest(), bases, SEGMENTS, ROOT, level=Level.V1).backup_id == "b1-13"
    with pytest.raises(Unreachable, match="b1-14 is not verified to V2"):
        plan(AtBackup("b1-14"), bases, SEGMENTS, ROOT)
    with pytest.raises(Unreachable, match="there is no backup gone"):
        plan(AtBackup("gone"), bases, SEGMENTS, ROOT)


def test_a_gap_is_named() -> None:
    """A missing segment is told with its positions and what can be reached on either side."""
    bases, segments = [base(1, 2), base(1, 14)], [span(1, 1, 5), span(1, 11, 15)]

    with pytest.raises(Unreachable, match="positions 6 to 10 of epoch 1 are missing") as refused:
        plan(AtPlace(1, 12), bases, segments, ROOT)

    assert (refused.value.nearest_before, refused.value.nearest_after) == (Place(1, 5), Place(1, 14))


def test_latest_is_never_something_older() -> None:
    """When something is known behind a gap, or a heartbeat tells of more, `latest` is an error, not what is before."""
    with pytest.raises(Unreachable, match="positions 6 to 10"):
        plan(Latest(), [base(1, 2)], [span(1, 1, 5), span(1, 11, 15)], ROOT)
    with pytest.raises(Unreachable, match="positions 16 to 18 of epoch 1") as refused:
        plan(Latest(), BASES, SEGMENTS, ROOT, heartbeat=Known(Place(1, 18), at(19)))
    assert refused.value.nearest_before == Place(1, 15)


def test_without_a_backup_nothing_can_be_reached() -> None:
    """Segments alone lead nowhere; a target before the first backup names that backup."""
    with pytest.raises(Unreachable, match="no backup of epoch 1"):
        plan(Latest(), [], SEGMENTS, ROOT)
    with pytest.raises(Unreachable, match="at or before 1/3") as refused:
        plan(AtPlace(1, 3), [base(1, 7)], SEGMENTS, ROOT)
    assert refused.value.nearest_after == Place(1, 7)
    with pytest.raises(Unreachable, match="epoch 0 is not known"):
        plan(Latest(), BASES, SEGMENTS, ())


def test_a_place_behind_the_end_is_unreachable() -> None:
    """A position that nobody has seen is an error."""
    with pytest.raises(Unreachable, match="positions 16 to 99 of epoch 1 are missing"):
        plan(AtPlace(1, 99), BASES, SEGMENTS, ROOT)


def test_overlapping_segments_are_followed() -> None:
    """Segments that two processes sealed over each other lead on, and no change is taken twice."""
    segments = [span(1, 1, 8), span(1, 5, 10), span(1, 6, 7), span(1, 9, 15)]

    way = plan(Latest(), [base(1, 0)], segments, ROOT)

    assert taken(way) == places(1, 1, 15)


FORK_SEGMENTS = [span(1, 1, 15), span(1, 16, 30), span(2, 21, 25)]


def test_the_line_turns_off_at_the_fork() -> None:
    """The parent's segment is cut at the fork, and what it abandoned is not entered."""
    way = plan(Latest(), [base(1, 10), base(1, 28)], FORK_SEGMENTS, FORKED)

    assert way.backup_id == "b1-10"
    assert taken(way) == places(1, 11, 20) + places(2, 21, 25)
    assert way.end == Place(2, 25)


def test_an_abandoned_line_is_entered_by_name() -> None:
    """A target that names the old epoch gets its changes behind the fork; one that names the new one never does."""
    bases = [base(1, 10), base(1, 22), base(2, 23)]

    assert taken(plan(AtPlace(1, 24), bases, FORK_SEGMENTS, FORKED)) == places(1, 23, 24)
    assert taken(plan(AtPlace(2, 24), bases, FORK_SEGMENTS, FORKED)) == places(2, 24, 24)
    assert taken(plan(AtPlace(2, 18), bases, FORK_SEGMENTS, FORKED)) == places(1, 11, 18)
    assert plan(AtPlace(2, 18), bases, FORK_SEGMENTS, FORKED).end == Place(1, 18)
    assert taken(plan(AtTime(at(23.5), epoch=1), bases, FORK_SEGMENTS, FORKED)) == places(1, 23, 23)


def test_forks_of_forks_are_followed() -> None:
    """Through three epochs, the middle one only between its two forks."""
    epochs = (Epoch(1, None, 0), Epoch(2, 1, 10), Epoch(3, 2, 15), Epoch(4, 1, 5))
    segments = [span(1, 1, 20), span(2, 11, 30), span(3, 16, 18), span(4, 6, 7)]

    assert taken(plan(AtPlace(3, 18), [base(1, 0)], segments, epochs)) == [
        *places(1, 1, 10),
        *places(2, 11, 15),
        *places(3, 16, 18),
    ]
    assert taken(plan(Latest(), [base(1, 0)], segments, epochs)) == places(1, 1, 5) + places(4, 6, 7)


@pytest.mark.parametrize(
    "epochs", [(Epoch(2, 1, 5),), (Epoch(2, 2, 5),), (Epoch(1, 2, 0), Epoch(2, 1, 5))], ids=["missing", "self", "loop"]
)
def test_a_broken_lineage_is_refused(epochs: Sequence[Epoch]) -> None:
    """An epoch without its parent, or one that leads back to itself, is an error and no endless walk."""
    with pytest.raises(Unreachable, match="epoch"):
        plan(AtPlace(2, 1), BASES, SEGMENTS, epochs)


def test_a_fork_at_a_backup_is_the_same_place() -> None:
    """Where the parent was left is where the child begins, so a backup there serves both."""
    line = line_of(2, FORKED)

    assert line.holds(Place(1, 20))
    assert line.holds(Place(2, 20))
    assert not line.holds(Place(1, 21))
    assert taken(plan(Latest(), [base(1, 20)], FORK_SEGMENTS, FORKED)) == places(2, 21, 25)


@pytest.mark.parametrize("times", [True, False])
def test_a_time_takes_all_changes_up_to_it(*, times: bool) -> None:
    """Exactly at a commit the change is included; just before it, it is not."""
    segments = [span(1, 1, 5, times=times), span(1, 6, 10, times=times), span(1, 11, 15, times=times)]

    assert taken(plan(AtTime(at(9)), BASES, segments, ROOT)) == places(1, 8, 9)
    assert taken(plan(AtTime(at(9) - SECOND / 1_000_000), BASES, segments, ROOT)) == places(1, 8, 8)


def test_a_time_stops_at_the_first_later_change() -> None:
    """A change that was committed after a later one is not taken, although its own time is before the target."""
    segments = [SegmentSpan(1, 1, 5, at(1), at(3), at(9))]
    changes = [change(1, 1), change(1, 2), change(1, 3, at(9)), change(1, 4), change(1, 5, at(3))]

    way = plan(AtTime(at(5)), [base(1, 0)], segments, ROOT)

    assert taken(way, changes=changes) == places(1, 1, 2)


def test_a_time_behind_the_end_is_unreachable() -> None:
    """Beyond the last change nobody knows what was lost, unless something tells that the registry stood still."""
    target = AtTime(at(20))

    with pytest.raises(Unreachable, match="archive ends at 1/15") as refused:
        plan(target, BASES, SEGMENTS, ROOT)
    assert refused.value.nearest_before == Place(1, 15)
    assert taken(plan(target, BASES, SEGMENTS, ROOT, heartbeat=Known(Place(1, 15), at(20)))) == places(1, 13, 15)
    assert taken(plan(target, [*BASES, base(1, 15, None, at(21))], SEGMENTS, ROOT)) == places(1, 13, 15)
    with pytest.raises(Unreachable, match="positions 16 to 17"):
        plan(target, BASES, SEGMENTS, ROOT, heartbeat=Known(Place(1, 17), at(20)))


def test_a_time_behind_the_end_is_found_out_while_reading() -> None:
    """When no segment tells its times, the cut notices that the changes end before the target."""
    segments = [replace(each, max_time=None) for each in SEGMENTS]

    way = plan(AtTime(at(20)), BASES, segments, ROOT)

    assert not way.proven
    with pytest.raises(Unreachable, match="archive ends at 1/15"):
        taken(way)


def test_a_time_inside_a_gap_is_unreachable() -> None:
    """A missing segment before the target is named."""
    with pytest.raises(Unreachable, match="positions 6 to 10 of epoch 1") as refused:
        plan(AtTime(at(8)), [base(1, 2), base(1, 13)], [span(1, 1, 5), span(1, 11, 15)], ROOT)

    assert (refused.value.nearest_before, refused.value.nearest_after) == (Place(1, 5), Place(1, 13))


def test_a_time_before_the_first_backup_is_unreachable() -> None:
    """The first backup is named as what can be reached."""
    with pytest.raises(Unreachable, match="taken at or before") as refused:
        plan(AtTime(at(3)), [base(1, 7)], SEGMENTS, ROOT)

    assert refused.value.nearest_after == Place(1, 7)


def test_a_backup_dated_too_early_is_not_a_base() -> None:
    """A backup whose clock was behind does not serve a time that what it holds is known to be past."""
    wrong = base(1, 12, time=at(3))
    untold = [span(1, 1, 15, times=False)]

    assert plan(AtTime(at(4)), [base(1, 1), wrong], SEGMENTS, ROOT).backup_id == "b1-1"
    assert plan(AtTime(at(4)), [base(1, 1), base(1, 8), wrong], untold, ROOT).backup_id == "b1-1"


def test_a_missing_change_stops_the_cut() -> None:
    """A segment that holds less than its key says does not go unnoticed."""
    cut = Cut(plan(AtPlace(1, 5), [base(1, 0)], SEGMENTS, ROOT))
    assert cut.includes(change(1, 1))

    with pytest.raises(Unreachable, match="positions 2 to 2 of epoch 1 are missing"):
        cut.includes(change(1, 3))
    with pytest.raises(Unreachable, match="ends at 1/1, before the target"):
        cut.check()
    assert cut.place == Place(1, 1)


def test_a_cut_stops_for_good() -> None:
    """After its end it includes nothing, not even a change that would follow."""
    cut = Cut(plan(AtPlace(1, 8), BASES, SEGMENTS, ROOT))

    assert cut.includes(change(1, 8))
    assert cut.stopped
    assert not cut.includes(change(1, 9))
    assert cut.place == Place(1, 8)
    cut.check()


@st.composite
def worlds(
    draw: st.DrawFn,
) -> tuple[tuple[Epoch, ...], dict[Place, StoredChange], list[Base], list[SegmentSpan], Target]:
    """A lineage with forks, its changes, some backups, an archive with holes and overlaps, and a target."""
    epochs, ends, start = [Epoch(1, None, 0)], {1: draw(st.integers(1, 20))}, {1: 0}
    for number in range(2, draw(st.integers(1, 4)) + 1):
        parent = draw(st.sampled_from(epochs))
        fork = draw(st.integers(start[parent.id], ends[parent.id]))
        epochs.append(Epoch(number, parent.id, fork))
        start[number], ends[number] = fork, fork + draw(st.integers(1, 12))
    changes = {}
    for epoch in epochs:
        for position in range(start[epoch.id] + 1, ends[epoch.id] + 1):
            skew = draw(st.sampled_from([0, 0, 0, -1, 1])) * SKEW
            changes[Place(epoch.id, position)] = change(epoch.id, position, at(10 * epoch.id + position) + skew)
    bases = []
    for number in range(draw(st.integers(1, 4))):
        epoch = draw(st.sampled_from(epochs))
        position = draw(st.integers(start[epoch.id], ends[epoch.id]))
        level = draw(st.sampled_from([Level.V3, Level.V3, None]))
        bases.append(Base(f"b{number}", Place(epoch.id, position), at(10 * epoch.id + position + 0.5), level))
    segments = []
    for epoch in epochs:
        position = start[epoch.id]
        while position < ends[epoch.id]:
            last = min(ends[epoch.id], position + draw(st.integers(1, 6)))
            first = max(start[epoch.id], position - draw(st.sampled_from([0, 0, 2]))) + 1
            if draw(st.integers(0, 9)):
                times = [changes[Place(epoch.id, each)].time for each in range(first, last + 1)]
                known = max(times) if draw(st.booleans()) else None
                segments.append(SegmentSpan(epoch.id, first, last, times[0], times[-1], known))
            position = last
    epoch = draw(st.sampled_from(epochs))
    target: Target = draw(
        st.one_of(
            st.just(Latest()),
            st.integers(0, 34).map(lambda position: AtPlace(epoch.id, position)),
            st.integers(0, 80).map(lambda second: AtTime(at(second), epoch.id)),
        )
    )
    return tuple(epochs), changes, bases, draw(st.permutations(segments)), target


def history(epoch: int, epochs: Sequence[Epoch], changes: dict[Place, StoredChange]) -> list[StoredChange]:
    """All changes of the line that ends in an epoch, said as simply as can be."""
    own = next(each for each in epochs if each.id == epoch)
    before = [] if own.parent is None else history(own.parent, epochs, changes)[: own.fork_position]
    return before + [each for place, each in changes.items() if place.epoch == epoch]


def could_be_reached(
    target: Target, whole: Sequence[StoredChange], archived: set[Place], usable: Sequence[Base], newest: int
) -> bool:
    """Whether a refused target had a way after all, by a base that nothing speaks against."""

    def archived_between(start: int, end: int) -> bool:
        return end <= len(whole) and {each.place for each in whole[start:end]} <= archived

    if isinstance(target, AtTime):
        end = next((index for index, each in enumerate(whole) if each.time > target.time), None)
        early = [each.place.position for each in usable if each.time <= target.time]
        # A base that is dated too early, and stands behind the end, may have been taken: refusing is right then.
        if end is None or not early or max(early) > end:
            return False
        return archived_between(max(early), end + 1)
    end = newest if isinstance(target, Latest) else target.position if isinstance(target, AtPlace) else 0
    before = [each.place.position for each in usable if each.place.position <= end]
    return bool(before) and archived_between(max(before), end)


@given(world=worlds())
@settings(max_examples=200)
def test_a_plan_leads_exactly_to_its_target_or_is_refused(
    world: tuple[tuple[Epoch, ...], dict[Place, StoredChange], list[Base], list[SegmentSpan], Target],
) -> None:
    """Against a model that knows the whole history: what is reached is the target; what is refused has no way."""
    epochs, changes, bases, segments, target = world
    assert not isinstance(target, AtBackup)
    epoch = len(epochs) if isinstance(target, Latest) else target.epoch
    assert epoch is not None
    whole = history(epoch, epochs, changes)
    archived = {Place(each.epoch, position) for each in segments for position in range(each.first, each.last + 1)}

    def on_line(place: Place) -> bool:
        fork = next(each for each in epochs if each.id == place.epoch).fork_position
        own = Place(place.epoch, place.position)
        here = place.position in {0, fork} or own in {each.place for each in whole}
        return here and line_of(epoch, epochs).holds(place)

    try:
        way = plan(target, bases, segments, epochs)
        found = taken(way, changes=list(changes.values()))
    except Unreachable:
        usable = [each for each in bases if each.level is not None and on_line(each.place)]
        told = [each.place.position for each in bases if on_line(each.place)]
        told += [each.place.position for each in whole if each.place in archived]
        assert not could_be_reached(target, whole, archived, usable, max(told, default=0))
        return

    begin = way.base.place.position
    assert way.base.level is not None
    assert on_line(way.base.place)
    assert found == [each.place for each in whole[begin : begin + len(found)]]
    end = begin + len(found)
    if isinstance(target, AtPlace):
        assert end == target.position
    if isinstance(target, Latest):
        assert way.end is not None
        assert all(each.place.position <= end for each in bases if on_line(each.place))
        assert all(each.place not in archived for each in whole[end:])
    if isinstance(target, AtTime):
        assert all(each.time <= target.time for each in whole[begin:end])
        later = whole[end : end + 1]
        stood_still = any(
            on_line(each.place) and each.place.position <= end and each.time >= target.time for each in bases
        )
        assert stood_still or (later and later[0].time > target.time)


@given(world=worlds())
@settings(max_examples=300)
def test_a_plan_needs_no_other_segments(
    world: tuple[tuple[Epoch, ...], dict[Place, StoredChange], list[Base], list[SegmentSpan], Target],
) -> None:
    """Listed by what it needs alone, the archive leads the same way to the same places, or nowhere as before; for other
    targets than times in the same words."""
    epochs, changes, bases, segments, target = world
    listed = [SegmentSpan(each.epoch, each.first, each.last) for each in segments]

    def outcome(spans: Sequence[SegmentSpan]) -> object:
        try:
            way = plan(target, bases, spans, epochs)
            return way.base, taken(way, changes=list(changes.values()))
        except Unreachable as refused:
            reason = "" if isinstance(target, AtTime) else refused.reason
            return reason, refused.nearest_before, refused.nearest_after

    with patch.object(targets, "CLOCKS_APART_MAX", 2 * SKEW):
        needed = stretches_for(target, bases, epochs)
    some = [
        each
        for each in listed
        if any(
            each.epoch == one.epoch and each.last > one.after and (one.through is None or each.first <= one.through)
            for one in needed
        )
    ]
    assert outcome(some) == outcome(listed)


def test_what_lies_before_the_base_and_behind_the_target_is_not_needed() -> None:
    """However long the archive is: from the newest backup on, up to the place, or to a backup well after the time."""
    bases = [base(1, 0), base(1, 40_000), base(2, 41_000, time=NOON + timedelta(hours=12.5))]
    epochs = (Epoch(1, None, 0), Epoch(2, 1, 40_500))

    assert stretches_for(Latest(), bases, epochs) == (Stretch(2, 41_000, None),)
    assert stretches_for(AtPlace(1, 700), bases, epochs) == (Stretch(1, 0, 700),)
    assert stretches_for(AtPlace(2, 40_600), bases, epochs) == (Stretch(1, 40_000, 40_500), Stretch(2, 40_500, 40_600))
    assert stretches_for(AtTime(at(7200)), bases, epochs) == (Stretch(1, 0, 40_000),)
    assert stretches_for(AtTime(at(41_000)), bases, epochs) == (Stretch(1, 40_000, 40_500), Stretch(2, 40_500, 41_000))
    assert stretches_for(AtTime(at(42_000)), bases, epochs)[-1] == Stretch(2, 40_500, None), "clocks may differ"
    assert stretches_for(AtBackup("b1-0"), bases, epochs) == ()
    assert stretches_for(Latest(), [], epochs) == ()
