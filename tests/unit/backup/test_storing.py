"""Dumps on their way into the store and back: whatever is changed on the way or at rest is found, and named."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry import errors
from llm_schema_registry.objects.store import Placement
from services.backup.domain.model import EncryptionRecord, Level, Manifest
from services.backup.domain.sealing import ALGORITHM, CHUNK_BYTES
from services.backup.usecases.catalog import Entry
from services.backup.usecases.reading import DumpReader
from services.backup.usecases.storing import DumpStore, Wrapping
from tests.backup_parts import CLUSTER, Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import CutShort, Flip

FLIPS = 10_000
PLACES = ("header", "key id in the header", "middle", "last byte of the first", "last byte of all")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases whose dumps take several objects."""
    parts = make_parts(tmp_path)
    parts.registry.write(3)
    parts.registry.dump_bytes = 2_500_000
    return parts


async def _pieces(content: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    position = 0
    for size in sizes:
        yield content[position : position + size]
        position += size
    yield content[position:]


async def _all(parts: Parts, manifest: Manifest) -> bytes:
    """What comes out of a backup. Raises BackupDamaged."""
    reader = DumpReader(parts.store, parts.repository.keys)
    async with aclosing(reader.read(manifest, lambda *_: None)) as dump:
        return b"".join([piece async for piece in dump])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 2_300_000),
    cuts=st.lists(st.integers(0, 400_000), max_size=6),
    sealed=st.booleans(),
    compression=st.sampled_from(["zstd", "gzip"]),
    alike=st.booleans(),
)
async def test_what_goes_in_comes_out(
    parts: Parts, size: int, cuts: list[int], sealed: bool, compression: str, alike: bool
) -> None:
    """Any dump in pieces of any length, also of none, is the same after storing and reading, sealed or not."""
    content = bytes(size) if alike else random.Random(size).randbytes(size)
    key = await parts.repository.keys.create(CLUSTER, f"backup/{parts.repository.new_id()}") if sealed else None
    made = await parts.backup()
    backup_id = parts.repository.new_id()
    wrapping = Wrapping(compression, 1, key, Placement(), object_bytes_max=500_000)  # type: ignore[arg-type]
    stores = DumpStore(parts.store, parts.repository.dice, parts.repository.failpoints)
    stored = await stores.save(backup_id, _pieces(content, cuts), wrapping, lambda *_: None)
    manifest = replace(
        made.manifest,
        id=backup_id,
        compression=compression,
        encryption=EncryptionRecord(ALGORITHM, key.id, CHUNK_BYTES) if key else None,
        dump_bytes=stored.dump_bytes,
        dump_sha256=stored.dump_sha256,
        objects=stored.objects,
    )

    assert await _all(parts, manifest) == content


@pytest.mark.regression("B6")
async def test_a_large_dump_takes_several_objects(parts: Parts) -> None:
    """An object ends at about its largest size, and the next one goes on."""
    made = await parts.backup()

    assert len(made.manifest.objects) > 1
    assert (await parts.look(made.id)).passed


def _places(parts: Parts, entry: Entry) -> dict[str, tuple[str, int]]:
    first, last = entry.manifest.objects[0], entry.manifest.objects[-1]
    return {
        "header": (first.key, 3),
        "key id in the header": (first.key, 20),
        "middle": (first.key, first.size_bytes // 2),
        "last byte of the first": (first.key, first.size_bytes - 1),
        "last byte of all": (last.key, last.size_bytes - 1),
    }


@pytest.mark.regression("B2")
@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("place", list(PLACES))
async def test_a_flipped_bit_is_found_and_named(
    tmp_path: Path, place: str, sealed: bool, fault_table: FaultTable
) -> None:
    """T9: V3 finds it, and names the object and where in it."""
    parts = make_parts(tmp_path, **({} if sealed else {"recipients": ()}))
    parts.registry.write(3)
    parts.registry.dump_bytes = 2_500_000
    made = await parts.proven()
    key, offset = _places(parts, made)[place]
    parts.flip(key, offset)

    found = await parts.look(made.id)

    assert not found.passed
    assert f"{key}, at byte " in found.problems[0]
    assert (await parts.repository.catalog.get(made.id)).level < Level.V3
    sealing = "sealed" if sealed else "unsealed"
    fault_table(
        "T9", f"bit flipped at rest, {place}, {sealing}", f"V{int(found.level)} finds it, object and byte named"
    )


@pytest.mark.parametrize("length", [0, 1, 60, -1])
async def test_a_truncated_object_is_found(parts: Parts, length: int, fault_table: FaultTable) -> None:
    """T9: an object that is shorter than it was is found without reading it."""
    made = await parts.backup()
    path = parts.path(made.manifest.objects[0].key)
    path.write_bytes(path.read_bytes()[:length])

    found = await parts.look(made.id)

    assert (found.level, found.passed) == (Level.V1, False)
    assert made.manifest.objects[0].key in found.problems[0]
    fault_table("T9", f"object cut to {length} bytes", "V1 finds it and names the object")


async def test_a_missing_object_is_found(parts: Parts, fault_table: FaultTable) -> None:
    """T10: an object that is gone is reported, not passed over."""
    made = await parts.backup()
    parts.path(made.manifest.objects[1].key).unlink()

    found = await parts.look(made.id)

    assert found.problems == (f"{made.manifest.objects[1].key} is not in the store",)
    fault_table("T10", "object missing at rest", "V1 names it")


async def test_objects_of_two_backups_swapped_are_refused(parts: Parts, fault_table: FaultTable) -> None:
    """T11: an object of another backup, or of another place in the same one, opens nowhere else."""
    parts.registry.rng.seed(1)
    one = await parts.backup()
    parts.registry.rng.seed(1)
    other = await parts.backup()
    paths = [parts.path(entry.manifest.objects[0].key) for entry in (one, other)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)

    for entry in (one, other):
        with pytest.raises(errors.BackupDamaged, match=entry.manifest.objects[0].key):
            await _all(parts, entry.manifest)
    fault_table("T11", "objects of two backups swapped", "neither opens, both named")


@pytest.mark.parametrize("fault", [CutShort(0), CutShort(70), CutShort(900_000), Flip(0), Flip(500_000)])
async def test_what_a_store_returns_wrongly_is_refused(
    parts: Parts, fault: CutShort | Flip, fault_table: FaultTable
) -> None:
    """T9: an answer that is cut short or changed on its way is never handed on as complete."""
    made = await parts.backup()
    process = again(parts)
    process.plan.add("read", fault)

    with pytest.raises(errors.BackupDamaged, match=made.manifest.objects[0].key):
        await _all(process, made.manifest)

    assert await _all(process, made.manifest) == await _all(parts, made.manifest)
    fault_table("T9", f"answer of a read: {fault}", "BACKUP_DAMAGED names the object; a second read is right")


@pytest.mark.parametrize("index", [0, 1])
async def test_v2_opens_both_ends_of_every_object(parts: Parts, index: int) -> None:
    """A first or last chunk that does not open is found without reading the rest."""
    made = await parts.backup()
    record = made.manifest.objects[index]
    for offset in (60, record.size_bytes - 1):
        parts.flip(record.key, offset)
        found = await parts.look(made.id, Level.V2)
        assert (found.level, found.passed) == (Level.V2, False)
        assert record.key in found.problems[0]
        parts.flip(record.key, offset)
    assert (await parts.look(made.id, Level.V2)).passed


async def _flips(parts: Parts, entry: Entry, rng: random.Random, count: int) -> int:
    """How many of so many bits, flipped one at a time in what is stored, were handed on as complete."""
    missed = 0
    objects = entry.manifest.objects
    for _ in range(count):
        record = rng.choice(objects)
        path = parts.path(record.key)
        content = bytearray(path.read_bytes())
        offset, bit = rng.randrange(len(content)), rng.randrange(8)
        content[offset] ^= 1 << bit
        path.write_bytes(content)
        try:
            await _all(parts, entry.manifest)
            missed += 1
        except errors.BackupDamaged:
            pass
        content[offset] ^= 1 << bit
        path.write_bytes(content)
    return missed


async def test_random_flips_are_all_found(tmp_path: Path, rng: random.Random) -> None:
    """No bit of what is stored can change unnoticed."""
    parts = make_parts(tmp_path)
    parts.registry.dump_bytes = 20_000
    made = await parts.backup()

    assert await _flips(parts, made, rng, 200) == 0


@pytest.mark.slow
async def test_ten_thousand_random_flips_are_all_found(
    tmp_path: Path, rng: random.Random, fault_table: FaultTable
) -> None:
    """B9: of 10,000 bits flipped one at a time, sealed and not, none is handed on as complete."""
    for sealed in (True, False):
        folder = tmp_path / str(sealed)
        folder.mkdir()
        parts = make_parts(folder, **({} if sealed else {"recipients": ()}))
        parts.registry.dump_bytes = 20_000
        made = await parts.backup()

        assert await _flips(parts, made, rng, FLIPS // 2) == 0
    fault_table("T9", f"{FLIPS} random bit flips over stored bytes", "all found")
