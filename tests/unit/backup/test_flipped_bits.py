"""Bits that flip in whatever is stored of a backup and of the archive: V3 finds each, and none is restored."""

from __future__ import annotations

import random
from contextlib import aclosing
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey
from services.backup.domain.model import Level
from services.backup.usecases.reading import DumpReader
from tests.backup_parts import Parts, again, make_parts
from tests.fix_fault_table import FaultTable

FLIPS = 10_000
FLIPS_QUICKLY = 400


async def stored(folder: Path, *, sealed: bool) -> tuple[Parts, str]:
    """A backup of several objects and an archive; the backup's id."""
    parts = make_parts(folder, **({} if sealed else {"recipients": ()}))
    parts.registry.dump_bytes = 150_000
    parts.registry.write(5)
    made = await parts.backup()
    for _ in range(2):
        parts.registry.write(5)
        parts.clock.move(seconds=1)
        await archive(parts)
    return parts, made.id


async def archive(parts: Parts) -> None:
    """Ships what the registry has and the archive has not."""
    head = await parts.registry.head()
    tip = await parts.archive.tip(head)
    await parts.archive.ship(tip, head, parts.registry.history[tip.position :])


async def found_by_v3(parts: Parts, backup_id: str) -> bool:
    """Whether a process that knows nothing yet finds the backup to be damaged when it reads all of it."""
    try:
        return not (await parts.verify.verify(backup_id, Level.V3, parts.running())).passed
    except (errors.BackupDamaged, errors.KeyUnavailable):
        return True


async def restorable(parts: Parts, backup_id: str) -> bool:
    """Whether a restore would get to the end of the backup's dump."""
    reader = DumpReader(parts.store, parts.repository.keys)
    try:
        entry = await parts.repository.catalog.get(backup_id)
        async with aclosing(reader.read(entry.manifest, lambda *_: None)) as dump:
            async for _ in dump:
                pass
    except (errors.BackupDamaged, errors.KeyUnavailable):
        return False
    return True


async def readable(parts: Parts, key: SegmentKey) -> bool:
    """Whether a segment passes the audit, which reads it as a restore does."""
    try:
        await parts.archive.audit(key, None)
    except (errors.BackupDamaged, errors.KeyUnavailable):
        return False
    return True


async def missed(parts: Parts, backup_id: str, rng: random.Random, count: int) -> list[str]:
    """Flips so many bits, one at a time, in objects of all kinds alike; those that were not found, or would have been
    restored."""
    kinds = (layout.backup(backup_id), layout.KEYS)
    keys = [each for each in await parts.keys() if layout.segment_of(each) or each.startswith(kinds)]
    segments = [found for each in keys if (found := layout.segment_of(each))]
    passed = []
    for _ in range(count):
        key = rng.choice(keys)
        path = parts.path(key)
        whole = path.read_bytes()
        content, offset, bit = bytearray(whole), rng.randrange(len(whole)), rng.randrange(8)
        content[offset] ^= 1 << bit
        path.write_bytes(content)
        segment = layout.segment_of(key)
        if segment is not None:
            good = await readable(again(parts), segment)
        elif key.startswith(layout.KEYS) and not await of_backup(parts, backup_id, key):
            good = all([await readable(again(parts), each) for each in segments])
        else:
            good = not await found_by_v3(again(parts), backup_id) or await restorable(again(parts), backup_id)
        if good:
            passed.append(f"{key} at {offset}, bit {bit}")
        path.write_bytes(whole)
    return passed


async def of_backup(parts: Parts, backup_id: str, key: str) -> bool:
    """Whether the wrapped forms of a data key are those of the backup's, not of the archive's."""
    encryption = (await parts.repository.catalog.get(backup_id)).manifest.encryption
    return encryption is not None and key.startswith(layout.key_versions(encryption.key_id))


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
async def test_flips_in_every_kind_of_object(tmp_path: Path, rng: random.Random, *, sealed: bool) -> None:
    """A bit of a manifest, its signature, a wrapped key, data or a segment does not change unnoticed."""
    parts, made = await stored(tmp_path, sealed=sealed)
    assert not await found_by_v3(again(parts), made)
    assert await restorable(again(parts), made)

    assert await missed(parts, made, rng, FLIPS_QUICKLY // 2) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
@pytest.mark.rotating(2)
async def test_ten_thousand_flips_in_every_kind_of_object(
    tmp_path: Path, rng: random.Random, fault_table: FaultTable, *, sealed: bool
) -> None:
    """T9: of thousands of flipped bits, in objects of all kinds, V3 finds each, and a restore reads none to its end."""
    parts, made = await stored(tmp_path, sealed=sealed)

    assert await missed(parts, made, rng, FLIPS // 2) == []
    told = "sealed" if sealed else "plain"
    injected = f"{FLIPS // 2} random bit flips over manifest, keys, data and segments, {told}"
    fault_table("T9", injected, "V3 finds all; none restored")
