"""The archive's chain is read again by itself: all of it within a week, a little at a time, whoever does it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey
from services.backup.usecases import audit as module
from services.backup.usecases.archive import Tip
from services.backup.usecases.audit import (
    EVERY,
    PASS,
    ROUND_SECONDS,
    SEGMENTS_MAX,
    SEGMENTS_MIN,
    ArchiveAudit,
    Break,
    share,
)
from tests.backup_parts import Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import Raise


@pytest.fixture
async def parts(tmp_path: Path) -> Parts:
    """A repository with an archive of ten segments of two changes each, positions 1 to 20."""
    parts = make_parts(tmp_path)
    await ship(parts, 10)
    return parts


async def ship(parts: Parts, segments: int) -> None:
    """Writes and archives so many segments of two changes each."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        for _ in range(segments):
            parts.registry.write(2)
            await parts.ship.step(lease)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round reads three segments."""
    monkeypatch.setattr(module, "SEGMENTS_MIN", 3)


def auditor(parts: Parts) -> ArchiveAudit:
    """The audit in a process that knows nothing yet."""
    process = again(parts)
    return ArchiveAudit(process.repository, process.archive)


async def test_a_whole_archive_is_read_once_and_then_rested(parts: Parts) -> None:
    """Nothing is wrong, a pass ends, and the next one begins after its time, with what came meanwhile."""
    audit = auditor(parts)
    assert await audit.round() == []
    first = audit.state
    assert first is not None
    assert (first.resting, first.segments, first.ended) == (True, 10, parts.clock.now())

    await ship(parts, 1)
    parts.clock.move(seconds=EVERY.total_seconds() - 100)
    await audit.round()
    assert audit.state == first
    parts.clock.move(seconds=200)
    await audit.round()

    assert audit.state is not None
    assert (audit.state.resting, audit.state.segments, await audit.check()) == (True, 11, None)


@pytest.mark.usefixtures("slow")
async def test_another_process_goes_on_where_one_ended(parts: Parts) -> None:
    """How far the pass is lies in the store; no segment is read twice in it, and none is left out."""
    read: list[SegmentKey] = []
    for _ in range(4):
        audit = auditor(parts)
        inner = audit._archive.audit

        async def spy(key, before, inner=inner):  # type: ignore[no-untyped-def]
            read.append(key)
            assert (before is None) == (key.first == 1)
            return await inner(key, before)

        audit._archive.audit = spy  # type: ignore[method-assign]
        assert audit.state is None or not audit.state.resting
        await audit.round()

    assert [key.first for key in read] == list(range(1, 21, 2))
    assert audit.state is not None
    assert audit.state.resting


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("flipped", "1/7 to 1/8: archive/"),
        ("gone", "1/9 to 1/10: positions 7 to 8 before it are missing"),
        ("of another chain", "does not follow"),
        ("sealed under a key that is gone", "1/7 to 1/8"),
    ],
)
@pytest.mark.usefixtures("slow")
async def test_a_break_is_told_with_its_positions_until_it_is_gone(
    parts: Parts, damage: str, told: str, fault_table: FaultTable
) -> None:
    """T9, T11: whoever reads on tells it once, health tells it everywhere, and a pass that finds it whole clears it."""
    key = SegmentKey(1, 7, 8)
    path = parts.path(layout.segment(1, 7, 8))
    content = path.read_bytes()
    segment, _ = await parts.archive.read(key)
    path.unlink()
    if damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage != "gone":
        process = again(parts)
        tip = Tip(1, 6, b"x" * 32 if damage == "of another chain" else segment.previous_sha256)
        await process.archive.ship(tip, await parts.registry.head(), segment.changes)
        if damage.startswith("sealed"):
            assert process.archive._sealing is not None
            await parts.repository.keys.remove(process.archive._sealing.key.id)

    found: list[Break] = []
    for _ in range(4):
        found += await auditor(parts).round()
    other = auditor(parts)
    await other.known()
    text = await other.check()

    assert told in str(found[0])
    assert text is not None
    assert str(found[0]) in text
    path.write_bytes(content)
    parts.clock.move(days=5)
    for _ in range(4):
        assert await other.round() == []
    assert await other.check() is None
    fault_table("T9" if damage == "flipped" else "T11", f"segment {damage}", "told with its positions until repaired")


@pytest.mark.usefixtures("slow")
async def test_retention_is_no_break(parts: Parts) -> None:
    """What was deleted from the beginning, up to behind the place where the audit stands, is not missed."""
    audit = auditor(parts)
    await audit.round()
    assert audit.state is not None
    assert audit.state.at == SegmentKey(1, 5, 6)
    for first in range(1, 11, 2):
        await parts.store.delete(layout.segment(1, first, first + 1))

    for _ in range(2):
        assert await auditor(parts).round() == []

    known = await audit.known()
    assert known is not None
    assert (known.resting, known.breaks) == (True, ())


async def test_a_store_that_is_away_is_no_break(parts: Parts) -> None:
    """The round fails as a whole, and the next one reads the same again."""
    process = again(parts)
    audit = ArchiveAudit(process.repository, process.archive)
    process.plan.add("get", None, None, Raise(errors.ObjectStoreUnavailable("away, by the test")))
    with pytest.raises(errors.ObjectStoreUnavailable):
        await audit.round()

    assert await audit.round() == []
    assert audit.state is not None
    assert audit.state.resting


async def test_a_forged_record_is_passed_over(parts: Parts) -> None:
    """A record that nobody signed who is trusted neither hides a break nor skips a segment."""
    stranger = again(parts, seed=b"x" * 32, trusted=[parts.repository.signer.verifier])
    await ArchiveAudit(stranger.repository, stranger.archive).round()

    audit = auditor(parts)
    assert await audit.known() is None
    await audit.round()

    assert audit.state is not None
    assert audit.state.segments == 10


@pytest.mark.parametrize("segments", [0, 10, 100_000, 600_000, 4_000_000])
def test_a_pass_ends_in_time(segments: int) -> None:
    """However large the archive is, its segments are read within the time of a pass, and never all at once."""
    left, since, rounds = segments, timedelta(0), 0
    while left > 0:
        count = share(left, since)
        assert SEGMENTS_MIN <= count <= SEGMENTS_MAX
        left, since, rounds = left - count, since + timedelta(seconds=ROUND_SECONDS), rounds + 1

    assert since <= PASS
    assert timedelta(days=7) >= EVERY + PASS
