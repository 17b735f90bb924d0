"""Evidence about backups: the last word counts, whatever the clocks of the processes show that say something."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry.objects.directory import DirectoryStore
from services.backup.domain.model import Level, Verification
from tests.backup_parts import NOON, HandClock, Parts, again, make_parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases over an empty folder, beside a registry with some content."""
    parts = make_parts(tmp_path)
    parts.registry.write(10)
    return parts


async def test_damage_counts_although_a_clock_was_ahead(parts: Parts) -> None:
    """Evidence is dated by the store's clock: what a process passed whose own is a day ahead is not the last word."""
    made = await parts.backup()
    store = DirectoryStore(parts.folder, parts.clock.now)
    ahead = again(parts, clock=HandClock(NOON + timedelta(days=1)), store=store)
    await ahead.look(made.id)
    parts.clock.move(minutes=10)
    parts.path(made.manifest.objects[-1].key).unlink()

    await parts.look(made.id)

    found = await parts.repository.catalog.get(made.id)
    assert [(each.time, each.passed) for each in found.evidence[:2]] == [
        (NOON + timedelta(minutes=10), False),
        (NOON + timedelta(microseconds=1), True),
    ]
    assert found.level is Level.V0


async def test_damage_counts_after_evidence_of_the_future(parts: Parts) -> None:
    """Evidence that was in the store before its own time counts from when it was stored."""
    made = await parts.backup()
    future = Verification(made.id, Level.V3, NOON + timedelta(days=1), (), 1.0)
    await parts.repository.catalog.remarks.record(future)
    assert (await parts.repository.catalog.get(made.id)).level is Level.V3
    parts.clock.move(minutes=10)
    parts.path(made.manifest.objects[-1].key).unlink()

    await parts.look(made.id)

    assert (await parts.repository.catalog.get(made.id)).level is Level.V0


async def test_evidence_of_one_moment_is_in_its_order(parts: Parts) -> None:
    """A backup that is found damaged and whole again within a second, by the store's clock, is whole."""
    made = await parts.backup()
    for problems in (("gone",), (), ("gone",), ()):
        await parts.repository.catalog.record(Verification(made.id, Level.V3, NOON, problems, 1.0))

    assert (await parts.repository.catalog.get(made.id)).level is Level.V3
