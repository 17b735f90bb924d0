"""The journal of restores: written once, in order, by one process, and signed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged
from services.backup.domain import layout
from services.backup.domain.restore import Restore, RestoreState
from services.backup.domain.targets import Latest
from services.backup.usecases.journal import RESTORES_MAX, Journal
from tests.backup_parts import Parts, make_parts
from tests.object_faults import Raise


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """A repository."""
    return make_parts(tmp_path)


@pytest.fixture
def journal(parts: Parts) -> Journal:
    """Its journal."""
    return Journal(parts.repository)


def begun(parts: Parts) -> Restore:
    """A restore that nobody wrote of yet."""
    parts.clock.move(seconds=1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return Restore(parts.repository.new_id(), RestoreState.PREPARING, Latest(), "backup", "scratch", "ann", start)


async def test_the_last_entry_counts(parts: Parts, journal: Journal) -> None:
    """A restore is what its last entry says, whoever reads it."""
    restore = await journal.write(begun(parts))

    prepared = await journal.write(restore, state=RestoreState.PREPARED)

    assert prepared.number == 2
    assert await Journal(parts.repository).get(restore.id) == prepared
    assert await journal.list() == [prepared]


async def test_two_writers(parts: Parts, journal: Journal) -> None:
    """Of two processes that write the same entry one is told that it is no longer in charge."""
    restore = await journal.write(begun(parts))
    other = Journal(parts.repository)

    written = await asyncio.gather(
        *(each.write(restore, state=RestoreState.PREPARED) for each in (journal, other)), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in written) == ["LeaseLost", "Restore"]


async def test_newest_first_and_no_more(parts: Parts, journal: Journal) -> None:
    """The newest are listed, and all ids are known."""
    made = [await journal.write(begun(parts)) for _ in range(RESTORES_MAX + 3)]

    listed = await journal.list()

    assert [each.id for each in listed] == [each.id for each in reversed(made)][:RESTORES_MAX]
    assert len(await journal.ids()) == RESTORES_MAX + 3


async def test_listing_sees_what_another_wrote(parts: Parts, journal: Journal) -> None:
    """What was read before is not shown in the place of what another process wrote since."""
    restore = await journal.write(begun(parts))
    await journal.list()

    await Journal(parts.repository).write(restore, state=RestoreState.PREPARED)

    assert (await journal.list())[0].state is RestoreState.PREPARED


@pytest.mark.parametrize("restore_id", ["", "x", "../../etc/passwd", "01J" + "0" * 23, "\x00"])
async def test_unknown_restore(journal: Journal, restore_id: str) -> None:
    """An id that nobody has, or that is none, is not found."""
    with pytest.raises(errors.RestoreNotFound):
        await journal.get(restore_id)


async def test_damaged_entry(parts: Parts, journal: Journal) -> None:
    """A changed byte of an entry is found, and the entry named."""
    restore = await journal.write(begun(parts))
    key = layout.restore_entry(restore.id, 1)
    content = parts.path(key).read_bytes()
    for offset in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        parts.path(key).write_bytes(damaged)

        with pytest.raises(errors.BackupDamaged, match=restore.id):
            await Journal(parts.repository).get(restore.id)


async def test_a_lost_restore_is_passed_over(parts: Parts) -> None:
    """A restore whose newest entry is damaged is lost: it is told once, and the others are listed. What came before it
    is known for its numbers alone."""
    told: list[str] = []
    journal = Journal(parts.repository, lambda event, **facts: told.append(f"{event} {facts['restore_id']}"))
    lost = await journal.write(begun(parts), new_epoch=7)
    lost = await journal.write(lost, state=RestoreState.RELEASED)
    other = await journal.write(begun(parts))
    parts.flip(layout.restore_entry(lost.id, 2), 40)
    journal = Journal(parts.repository, lambda event, **facts: told.append(f"{event} {facts['restore_id']}"))

    found = [await journal.history() for _ in range(2)][1]

    assert await journal.list() == [other]
    assert [(each.id, each.unread, each.before and each.before.new_epoch) for each in found.lost] == [(lost.id, 1, 7)]
    assert told == [f"restore passed over {lost.id}"]


async def test_a_lost_restore_that_is_brought_back(parts: Parts, journal: Journal) -> None:
    """Once its entry can be read again, a restore counts as before."""
    restore = await journal.write(begun(parts))
    reader = Journal(parts.repository)
    parts.flip(layout.restore_entry(restore.id, 1), 40)
    assert await reader.list() == []

    parts.flip(layout.restore_entry(restore.id, 1), 40)

    assert await reader.list() == [restore]


async def test_what_to_do_about_a_lost_restore(parts: Parts, journal: Journal) -> None:
    """The error names the object, and says what brings the restore back and what must not be done."""
    restore = await journal.write(begun(parts))
    parts.flip(layout.restore_entry(restore.id, 1), 40)

    with pytest.raises(errors.BackupDamaged, match=r"brought back.*Do not delete") as refused:
        await journal.get(restore.id)

    assert refused.value.metadata["key"] == layout.restore_entry(restore.id, 1)


async def test_entry_of_another(parts: Parts, journal: Journal) -> None:
    """An entry that was put in another one's place is refused, though its signature holds."""
    one, other = [await journal.write(begun(parts)) for _ in range(2)]
    stolen = parts.path(layout.restore_entry(one.id, 1)).read_bytes()
    parts.path(layout.restore_entry(other.id, 1)).write_bytes(stolen)

    with pytest.raises(errors.BackupDamaged, match="another entry"):
        await Journal(parts.repository).get(other.id)


async def test_stranger_signature(tmp_path: Path, parts: Parts, journal: Journal) -> None:
    """An entry that a key signed which is not trusted here is refused."""
    restore = await journal.write(begun(parts))
    stranger = make_parts(tmp_path, seed=b"t" * 32)

    with pytest.raises(errors.BackupDamaged):
        await Journal(stranger.repository).get(restore.id)


async def test_an_entry_that_the_store_returns_damaged(parts: Parts, journal: Journal) -> None:
    """What the store itself finds to be damaged is BACKUP_DAMAGED as well, and names the entry."""
    restore = await journal.write(begun(parts))
    parts.plan.add("get", Raise(ObjectDamaged("of the test")))

    with pytest.raises(errors.BackupDamaged, match=restore.id):
        await journal.get(restore.id)
