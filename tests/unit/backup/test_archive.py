"""The archive as it lies in the store: what is missing, changed or from elsewhere is noticed and named."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout
from services.backup.domain.documents import Signer
from services.backup.domain.layout import SegmentKey
from services.backup.domain.lineage import Stretch
from services.backup.domain.model import SEGMENT_CHANGES_MAX, StoredChange
from services.backup.domain.targets import Base, Cut, Latest, SegmentSpan, Unreachable, plan
from services.backup.usecases.archive import Given, Tip
from services.backup.usecases.line_ends import NEWEST_MAX
from tests.backup_parts import CLUSTER, Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import CutShort, Flip


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases beside an empty registry."""
    return make_parts(tmp_path)


async def ship(parts: Parts, *, steps: int = 1, changes: int = 3) -> list[str]:
    """Writes changes and ships them, step by step; keys of all segments."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        for _ in range(steps):
            parts.registry.write(changes)
            parts.clock.move(seconds=5)
            await parts.ship.step(lease)
    return [key for key in await parts.keys(layout.ARCHIVE) if layout.segment_of(key)]


async def replay(parts: Parts) -> list[StoredChange]:
    """All changes that a restore from the first backup to the latest place would apply."""
    entries = (await parts.repository.catalog.listing()).entries
    bases = [Base(e.id, e.manifest.place, e.manifest.facts.time, e.level) for e in entries[-1:]]
    way = plan(Latest(), bases, await parts.spans(), parts.registry.epochs)
    cut = Cut(way)
    async with aclosing(parts.archive.changes(way, cut)) as changes:
        return [change async for change in changes]


async def test_what_is_shipped_is_read_back(parts: Parts) -> None:
    """Every change, in order and as it was, leads from the backup to the newest one."""
    await parts.backup()
    keys = await ship(parts, steps=4)

    assert len(keys) == 4
    assert await replay(parts) == parts.registry.history


async def test_the_tip_is_found_again_by_another_process(parts: Parts) -> None:
    """Another process finds where the archive ends by the bucket alone, with and without a heartbeat."""
    await ship(parts, steps=3)
    head = await parts.registry.head()
    known = parts.ship.state.tip

    found = await again(parts).archive.tip(head)
    await parts.store.delete(layout.HEARTBEAT)
    without = await again(parts).archive.tip(head)

    assert known is not None
    assert (found.epoch, found.position, found.sha256, found.first) == (1, 9, known.sha256, 7)
    assert without == found


async def test_the_beginnings_of_epochs_are_found_without_listing_the_rest(parts: Parts) -> None:
    """Retention looks at what may go, and at one more of each epoch, however many there are."""
    names = {(epoch, first, first + 9) for epoch in (1, 2, 4) for first in range(1, 400, 10)}
    for name in names:
        await parts.store.put(layout.segment(*name), b"")
    asked: list[tuple[int, int]] = []

    def wanted(span: SegmentSpan) -> bool:
        asked.append((span.epoch, span.first))
        return span.last <= {1: 30, 2: 0, 4: 400}[span.epoch]

    found = [(span.epoch, span.first) for span in await parts.archive.run(wanted)]

    whole = [(4, first) for first in range(1, 400, 10)]
    assert found == [(1, 1), (1, 11), (1, 21), *whole]
    assert asked == [(1, 1), (1, 11), (1, 21), (1, 31), (2, 1), *whole]
    some = {layout.segment(1, 11, 20), layout.segment(2, 1, 10), layout.segment(3, 1, 10)}
    assert await parts.archive.present(some) == {layout.segment(1, 11, 20), layout.segment(2, 1, 10)}


async def test_what_holds_a_part_of_a_line_is_listed(parts: Parts) -> None:
    """Also the largest segment that reaches into it; not what lies before and behind, nor another line's."""
    whole = SEGMENT_CHANGES_MAX
    names = [(1, 1, whole), (1, whole + 1, whole + 10), (1, whole + 11, whole + 20), (2, whole + 5, whole + 9)]
    for name in names:
        await parts.store.put(layout.segment(*name), b"")

    async def spans(*stretches: Stretch) -> list[tuple[int, int, int]]:
        return [(span.epoch, span.first, span.last) for span in await parts.archive.spans(stretches)]

    assert await spans(Stretch(1, whole - 1, whole + 10)) == names[:2]
    assert await spans(Stretch(1, whole, None)) == names[1:3]
    assert await spans(Stretch(1, whole + 9, whole + 11)) == names[1:3]
    assert await spans(Stretch(1, 0, whole)) == names[:1]
    assert await spans(Stretch(1, whole + 20, None)) == []
    assert await spans(Stretch(1, whole + 2, whole + 4), Stretch(2, whole + 4, None)) == [names[1], names[3]]
    assert await spans() == []


async def test_a_damaged_tip_tells_what_to_do(parts: Parts) -> None:
    """Nothing is archived behind it; deleted, as the error says, its changes are archived again."""
    await parts.backup()
    keys = await ship(parts, steps=3)
    parts.flip(keys[-1], 200)

    with pytest.raises(errors.BackupDamaged, match="or delete that object while the database is whole") as refused:
        await again(parts).archive.tip(await parts.registry.head())
    assert refused.value.metadata == {"key": keys[-1]}
    await parts.store.delete(keys[-1])
    await ship(parts, steps=2)

    assert await replay(parts) == parts.registry.history


async def test_an_empty_archive_begins_at_the_floor(parts: Parts) -> None:
    """What the database no longer keeps is not waited for."""
    parts.registry.write(5)
    parts.registry.trim(3)

    assert await parts.archive.tip(await parts.registry.head()) == Tip(1, 3, None)


async def test_a_forged_heartbeat_makes_the_archiver_skip_nothing(parts: Parts, fault_table: FaultTable) -> None:
    """A heartbeat that nobody signed, or that names segments which are not there, is passed over."""
    await ship(parts, steps=2)
    head = await parts.registry.head()
    stranger = again(parts, seed=b"x" * 32)
    await stranger.archive.beat(Tip(1, 1000, None, 900), head, parts.clock.now())
    unsigned = again(parts)
    assert await unsigned.archive.heartbeat() is None
    assert (await unsigned.archive.tip(head)).position == 6

    await parts.archive.beat(Tip(1, 1000, None, 900), head, parts.clock.now())
    assert (await again(parts).archive.tip(head)).position == 6
    fault_table("T11", "heartbeat forged, or ahead of the segments", "the tip is where the segments end")


async def test_a_heartbeat_vouches_for_no_later_moment_than_it_asked_at(parts: Parts) -> None:
    """Its time is from before the changes were read: what commits meanwhile is not claimed to be in the archive."""
    parts.registry.write()
    asked = parts.clock.now()
    read = parts.registry.changes

    async def slow(after: int, *, limit: int, bytes_max: int):  # type: ignore[no-untyped-def]
        found = await read(after, limit=limit, bytes_max=bytes_max)
        parts.clock.move(seconds=3)
        return found

    parts.registry.changes = slow  # type: ignore[method-assign]
    async with parts.repository.leases.held("archive") as lease:
        parts.ship.state.head = await parts.registry.head()
        parts.ship.state.tip = Tip(1, 0, None)
        await parts.ship.step(lease)

    beat = await parts.archive.heartbeat()
    assert beat is not None
    assert beat.time == asked


@pytest.mark.parametrize("offset", [0, 8, 24, 90, 120, -1])
async def test_a_flipped_bit_is_found_and_the_segment_named(parts: Parts, offset: int, fault_table: FaultTable) -> None:
    """T9: whichever byte of a segment is changed."""
    await parts.backup()
    keys = await ship(parts, steps=3)
    parts.flip(keys[1], offset)

    with pytest.raises(errors.BackupDamaged, match=keys[1]):
        await replay(parts)
    fault_table("T9", f"bit of a segment flipped at byte {offset}", "BACKUP_DAMAGED names the segment")


@pytest.mark.parametrize("fault", [CutShort(0), CutShort(50), Flip(200)])
async def test_a_segment_that_is_returned_wrongly_is_refused(parts: Parts, fault: CutShort | Flip) -> None:
    """What a store returned once is not taken, and the next answer is read."""
    await parts.backup()
    keys = await ship(parts)
    found = layout.segment_of(keys[0])
    assert found is not None
    parts.plan.add("get", fault)

    with pytest.raises(errors.BackupDamaged, match=keys[0]):
        await parts.archive.read(found)
    assert (await parts.archive.read(found))[0].changes


async def test_a_dropped_segment_is_a_gap_that_is_named(parts: Parts, fault_table: FaultTable) -> None:
    """T11: without a segment there is no way, and the error says which positions are missing."""
    await parts.backup()
    keys = await ship(parts, steps=3)
    parts.path(keys[1]).unlink()

    with pytest.raises(Unreachable, match="4 to 6"):
        await replay(parts)
    fault_table("T11", "segment dropped", "unreachable, positions 4 to 6 named")


async def test_segments_in_each_others_place_are_refused(parts: Parts, fault_table: FaultTable) -> None:
    """T11: a segment is signed for its own key."""
    await parts.backup()
    one, other, _ = await ship(parts, steps=3)
    contents = parts.path(one).read_bytes(), parts.path(other).read_bytes()
    parts.path(one).write_bytes(contents[1])
    parts.path(other).write_bytes(contents[0])

    with pytest.raises(errors.BackupDamaged, match=one):
        await replay(parts)
    fault_table("T11", "segments reordered", "BACKUP_DAMAGED names the first")


async def test_a_duplicate_under_another_name_is_refused(parts: Parts, fault_table: FaultTable) -> None:
    """T11: a copy of a segment under another key is not read as that one."""
    await parts.backup()
    one, _ = await ship(parts, steps=2)
    copy = layout.segment(1, 7, 9)
    await parts.store.put(copy, parts.path(one).read_bytes())

    with pytest.raises(errors.BackupDamaged, match=copy):
        await replay(parts)
    fault_table("T11", "segment duplicated under another key", "BACKUP_DAMAGED names the copy")


async def test_a_segment_that_does_not_follow_is_refused(parts: Parts, fault_table: FaultTable) -> None:
    """T11: a segment of the same positions that was signed by a trusted key, but follows another, breaks the chain."""
    await parts.backup()
    keys = await ship(parts, steps=2)
    segment, _ = await parts.archive.read(SegmentKey(1, 4, 6))
    parts.path(keys[1]).unlink()
    await parts.archive.ship(Tip(1, 3, b"x" * 32), await parts.registry.head(), segment.changes)

    with pytest.raises(errors.BackupDamaged, match="does not follow"):
        await replay(parts)
    with pytest.raises(errors.BackupDamaged, match="does not follow"):
        await parts.archive.audit(
            SegmentKey(1, 4, 6), (SegmentKey(1, 1, 3), (await parts.archive.read(SegmentKey(1, 1, 3)))[1])
        )
    fault_table("T11", "segment of another chain", "BACKUP_DAMAGED: it does not follow")


async def test_a_segment_of_a_stranger_is_refused(parts: Parts) -> None:
    """Signed by a key that is not trusted, or of another registry."""
    await parts.backup()
    await ship(parts)
    head = await parts.registry.head()
    parts.registry.write(2)
    stranger = again(parts, seed=b"x" * 32)
    await stranger.archive.ship(Tip(1, 3, None), head, parts.registry.history[3:])
    with pytest.raises(errors.BackupDamaged, match="not among those that are trusted"):
        await parts.archive.read(SegmentKey(1, 4, 5))

    parts.path(layout.segment(1, 4, 5)).unlink()
    parts.registry.cluster_id = "another-registry"
    await parts.archive.ship(Tip(1, 3, None), await parts.registry.head(), parts.registry.history[3:])
    with pytest.raises(errors.BackupDamaged, match="another-registry"):
        await parts.archive.read(SegmentKey(1, 4, 5))


async def test_segments_of_keys_before_a_rotation_are_read(parts: Parts) -> None:
    """A signing key of before is trusted as long as it is named."""
    await parts.backup()
    await ship(parts)
    process = again(parts, seed=b"n" * 32, trusted=[Signer.of(b"s" * 32).verifier])

    assert (await process.archive.read(SegmentKey(1, 1, 3)))[0].cluster_id == CLUSTER
    assert len(await process.ids()) == 1


async def test_the_same_segment_twice_is_somebody_elses(parts: Parts) -> None:
    """A process that would write what another has written learns that it no longer leads."""
    await ship(parts)
    head = await parts.registry.head()

    with pytest.raises(errors.LeaseLost):
        await parts.archive.ship(Tip(1, 0, None), head, parts.registry.history)


async def test_known_tells_the_largest_epoch_and_id(parts: Parts) -> None:
    """Of the newest segments and the heartbeat, whichever tells more."""
    await ship(parts, steps=2)
    await parts.store.delete(layout.HEARTBEAT)

    assert await parts.archive.known() == Given(1, 6)


async def test_ids_that_nothing_tells_of_are_not_guessed(parts: Parts) -> None:
    """A tail that cannot be read at all, and no heartbeat behind it: what lies before may have given any id."""
    keys = await ship(parts, steps=NEWEST_MAX + 2)
    for key in keys[2:]:
        parts.flip(key, 90)
    assert (await parts.archive.known()).schema_id > 0, "the heartbeat tells"
    await parts.store.delete(layout.HEARTBEAT)

    with pytest.raises(errors.BackupDamaged, match="which schema ids were given") as refused:
        await parts.archive.known()
    assert refused.value.metadata == {"key": keys[-1]}


async def test_a_rotten_end_counts_as_given(parts: Parts) -> None:
    """Of newest segments that cannot be read the one before tells, and every change of theirs counts as an id; nothing
    is raised."""
    await ship(parts, steps=2)
    await parts.store.delete(layout.HEARTBEAT)
    parts.flip(layout.segment(1, 4, 6), 90)

    assert await parts.archive.known() == Given(1, 6, (layout.segment(1, 4, 6),))

    parts.flip(layout.segment(1, 1, 3), 90)
    assert (await parts.archive.known()).schema_id == 6
