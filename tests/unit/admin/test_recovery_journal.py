"""The journal of recoveries: the last entry counts, and of two writers one learns that it is not in charge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.forgetting import KEEP_DAYS
from services.admin.domain.recovery import Recovery, RecoveryState, Spec, Target, TargetKind
from services.admin.usecases.recovery_journal import PLANS, RecoveryJournal
from services.backup.adapters.recipients import system_dice
from tests.backup_parts import NOON, HandClock

ID = "01KAX7H2E9P4Z8D3F6G5J1K0MC"
BEGUN = Recovery(ID, RecoveryState.RUNNING, Spec(Target(TargetKind.LATEST)), "ann", NOON)


@pytest.fixture
def journal(tmp_path: Path) -> RecoveryJournal:
    """An empty journal."""
    return RecoveryJournal(DirectoryStore(tmp_path), system_dice)


async def test_the_last_entry_counts(journal: RecoveryJournal) -> None:
    """A recovery is what its last entry says."""
    first = await journal.write(BEGUN)

    second = await journal.write(replace(first, problem="later"))

    assert second.number == 2
    assert await journal.get(ID) == second
    assert await journal.list() == [second]


async def test_two_writers(journal: RecoveryJournal) -> None:
    """The same entry is not written twice, not even with the same words."""
    first = await journal.write(BEGUN)
    await journal.write(first)

    with pytest.raises(errors.LeaseLost):
        await journal.write(first)


async def test_what_is_not_there(journal: RecoveryJournal, tmp_path: Path) -> None:
    """An unknown id is said to be unknown; an entry that cannot be read is named."""
    with pytest.raises(errors.RecoveryNotFound):
        await journal.get(ID)
    with pytest.raises(errors.RecoveryNotFound):
        await journal.get("../secret")

    await journal.write(BEGUN)
    (tmp_path / "recoveries" / ID / "000001.json").write_text("{}")
    with pytest.raises(errors.BackupDamaged, match="000001"):
        await journal.get(ID)


async def test_a_lost_recovery_is_passed_over(tmp_path: Path) -> None:
    """A recovery whose newest entry cannot be read is told once and not listed: the one before it does not count."""
    told: list[str] = []
    journal = RecoveryJournal(
        DirectoryStore(tmp_path), system_dice, lambda event, **facts: told.append(f"{event} {facts['recovery_id']}")
    )
    other = await journal.write(replace(BEGUN, id=f"{ID[:-1]}D"))
    await journal.write(await journal.write(BEGUN))
    (tmp_path / "recoveries" / ID / "000002.json").write_bytes(b"\0")

    listed = [await journal.list() for _ in range(2)]

    assert listed == [[other], [other]]
    assert told == [f"recovery passed over {ID}"]
    assert ["000002" in each for each in await journal.lost()] == [True]


async def test_old_plans_go(tmp_path: Path) -> None:
    """A plan is kept as long as its operation, and not longer; a recovery is kept for ever."""
    clock = HandClock()
    store = DirectoryStore(tmp_path, clock.now)
    journal = RecoveryJournal(store, system_dice)
    kept = await journal.write(BEGUN)
    for number in range(3):
        await journal.plan(replace(BEGUN, id=f"{ID[:-1]}{number}"))
    clock.move(days=KEEP_DAYS, seconds=-1)
    await journal.plan(BEGUN)

    await journal.forget_old_plans()
    before = [each.key async for each in store.list(PLANS)]
    clock.move(seconds=2)
    await journal.forget_old_plans()

    assert len(before) == 4
    assert [each.key async for each in store.list(PLANS)] == [f"{PLANS}{ID}.json"]
    assert await journal.list() == [kept]
