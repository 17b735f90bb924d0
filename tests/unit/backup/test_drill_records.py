"""Records of drills: signed, so that nobody who can only write to the bucket can claim that a restore was tried."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from services.backup.domain import layout
from services.backup.domain.documents import Signer
from services.backup.domain.model import Place
from services.backup.domain.remarks import DrillRecord, encode_drill
from services.backup.usecases.drill import Drill
from services.backup.usecases.prepare import Prepare
from tests.backup_parts import NOON, HandClock, Parts, make_parts
from tests.fix_fault_table import FaultTable
from tests.memory_places import World, process

ID = "01J00000000000000000000000"
LATER = NOON + timedelta(days=400)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """An empty repository."""
    return make_parts(tmp_path)


def drill(parts: Parts) -> Drill:
    """What shows drills; none is run here."""
    return Drill(parts.repository, cast("Prepare", None))


def record(time: datetime) -> DrillRecord:
    """A drill that went well."""
    return DrillRecord(ID, time, (), 12.5, 0.25, Place(2, 40))


async def test_a_record_is_read_back(parts: Parts) -> None:
    """What a drill found is found again, the newest first, so many as are asked for."""
    times = [NOON + timedelta(days=number) for number in range(3)]
    for time in times:
        await parts.store.put(layout.drill(time), encode_drill(record(time), parts.repository.signer))

    shown = drill(parts)

    assert await shown.list(2) == [record(times[2]), record(times[1])]
    assert await shown.newest() == record(times[2])
    assert await shown.get(layout.drill(times[0])) == record(times[0])
    assert shown.problems == []


async def test_a_drill_is_dated_by_the_store(tmp_path: Path) -> None:
    """A process whose clock is a day ahead does not keep the next drill from being the newest."""
    world = World(HandClock())
    world.register()
    true = HandClock()
    await process(tmp_path, world).backup()
    one = process(tmp_path, world, store=DirectoryStore(tmp_path / "store", true.now))
    world.clock.move(days=1)

    subject = await Drill(one.parts.repository, one.prepare).run(one.running())

    assert (await Drill(one.parts.repository, one.prepare).get(subject.id)).time == true.now()


@pytest.mark.parametrize("forgery", ["unsigned", "of an unknown key", "changed", "under another name"])
async def test_a_forged_record_does_not_count(parts: Parts, forgery: str, fault_table: FaultTable) -> None:
    """T11: it is neither the newest drill nor listed, and why is told."""
    signer = parts.repository.signer
    true = encode_drill(record(NOON), signer)
    await parts.store.put(layout.drill(NOON), true)
    forged = {
        "unsigned": b'{"backup_id":"01J00000000000000000000000"}',
        "of an unknown key": encode_drill(record(LATER), Signer.of(b"x" * 32)),
        "changed": encode_drill(record(LATER), signer).replace(b"12500", b"12501"),
        "under another name": true,
    }
    await parts.store.put(layout.drill(LATER), forged[forgery])

    shown = drill(parts)
    newest = await shown.newest()

    assert newest == record(NOON)
    assert await shown.list(10) == [record(NOON)]
    assert [each.startswith(f"{layout.drill(LATER)} does not count") for each in shown.problems] == [True]
    with pytest.raises(errors.BackupDamaged, match="does not count"):
        await shown.get(layout.drill(LATER))
    fault_table("T11", f"drill's record {forgery}", "passed over and told")
