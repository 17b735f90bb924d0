"""Data keys: opened by any one of their recipients, wrapped anew when the recipients change."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout
from services.backup.domain.model import Level
from tests.backup_parts import CLUSTER, Parts, again, make_parts, recipient
from tests.fix_fault_table import FaultTable
from tests.object_faults import Raise

DENIED = errors.ObjectStoreDenied("no right to delete")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases with two recipients."""
    parts = make_parts(tmp_path, recipients=(recipient(tmp_path, "one"), recipient(tmp_path, "two")))
    parts.registry.write(5)
    return parts


@pytest.mark.parametrize("name", ["one", "two"])
async def test_any_one_recipient_opens_it(parts: Parts, tmp_path: Path, name: str, fault_table: FaultTable) -> None:
    """T19: with one of two recipients left, a backup is read in full."""
    made = await parts.backup()

    found = await again(parts, recipients=(recipient(tmp_path, name),)).look(made.id)

    assert found.passed
    fault_table("T19", f"only recipient `{name}` is left of two", "V3 passed")


async def test_a_wrong_key_opens_nothing_and_says_whose_it_was(
    parts: Parts, tmp_path: Path, fault_table: FaultTable
) -> None:
    """T19: with another key not a byte is given out, and the error names the recipients that could."""
    made = await parts.backup()
    stranger = again(parts, recipients=(recipient(tmp_path, "stranger"),))

    with pytest.raises(errors.KeyUnavailable) as refused:
        await stranger.verify.verify(made.id, Level.V3, stranger.running())

    for known in parts.recipients:
        assert known.name in refused.value.message
    assert stranger.dump.read == b""
    fault_table("T19", "wrong key", "KEY_UNAVAILABLE names the recipients, 0 bytes given out")


async def test_who_could_not_restore_does_not_back_up(parts: Parts, tmp_path: Path) -> None:
    """Without a recipient that can open, the run fails before it reads the database."""

    class Sealed:
        def __init__(self) -> None:
            inner = recipient(tmp_path, "offline")
            self.name, self.algorithm, self.opens, self.wrap = inner.name, inner.algorithm, False, inner.wrap

    process = again(parts, recipients=(Sealed(),))
    with pytest.raises(errors.KeyUnavailable):
        await process.backup()

    assert await parts.ids() == []


@pytest.mark.parametrize("damage", ["missing", "flipped", "another"])
async def test_damage_of_a_key_is_damage_of_the_backup(parts: Parts, damage: str, fault_table: FaultTable) -> None:
    """T9: a key's document that is gone, changed or another's is found by V2, which names it."""
    made = await parts.backup()
    assert made.manifest.encryption is not None
    key_id = made.manifest.encryption.key_id
    name = layout.key(key_id, 1)
    if damage == "missing":
        await parts.store.delete(name)
    elif damage == "flipped":
        parts.flip(name, 5)
    else:
        other = await parts.repository.keys.create(CLUSTER, "backup/another")
        parts.path(name).write_bytes(parts.path(layout.key(other.id, 1)).read_bytes())

    found = await again(parts).look(made.id)

    assert (found.level, found.passed) == (Level.V2, False)
    assert key_id in found.problems[0]
    fault_table("T9", f"key document {damage}", "V2 finds it and names the key")


async def test_rotation_rewraps_keys_and_leaves_the_data(parts: Parts, tmp_path: Path) -> None:
    """After a rotation new recipients alone open what old ones opened; the stored data is the same."""
    made = await parts.backup()
    before = {key: parts.path(key).read_bytes() for key in await parts.keys("backups/")}
    rotating = again(parts, recipients=(recipient(tmp_path, "one"), recipient(tmp_path, "three")))

    planned = await rotating.repository.keys.rotate(dry_run=True)
    done = await rotating.repository.keys.rotate(dry_run=False)
    repeated = await rotating.repository.keys.rotate(dry_run=False)

    assert (planned.rewrapped, done.rewrapped, repeated.rewrapped, repeated.unchanged) == (1, 1, 0, 1)
    assert {key: parts.path(key).read_bytes() for key in before} == before
    assert (await again(parts, recipients=(recipient(tmp_path, "three"),)).look(made.id)).passed
    removed = again(parts, recipients=(recipient(tmp_path, "two"),))
    with pytest.raises(errors.KeyUnavailable):
        await removed.verify.verify(made.id, Level.V2, removed.running())


async def test_a_rotation_that_was_cut_off_is_finished_by_the_next(parts: Parts, tmp_path: Path) -> None:
    """Forms for a recipient of before do not stay behind when a rotation ended between writing and removing."""
    await parts.backup()
    rotating = again(parts, recipients=(recipient(tmp_path, "three"), recipient(tmp_path, "one")))
    rotating.plan.add("delete", Raise(DENIED))
    with pytest.raises(errors.ObjectStoreDenied):
        await rotating.repository.keys.rotate(dry_run=False)
    assert len(await parts.keys("keys/")) == 2

    await rotating.repository.keys.rotate(dry_run=False)

    assert [layout.key_of(key)[1] for key in await parts.keys("keys/")] == [2]  # type: ignore[index]


async def test_one_key_that_cannot_be_opened_does_not_stop_the_others(parts: Parts, tmp_path: Path) -> None:
    """A rotation does what it can, and names what it could not."""
    first, second = await parts.backup(), await parts.backup()
    names = sorted(str(each.manifest.encryption.key_id) for each in (first, second) if each.manifest.encryption)
    parts.flip(layout.key(names[0], 1), 5)
    rotating = again(parts, recipients=(recipient(tmp_path, "one"),))

    with pytest.raises(errors.BackupDamaged, match=names[0]):
        await rotating.repository.keys.rotate(dry_run=False)

    assert await parts.keys(layout.key_versions(names[1])) == [layout.key(names[1], 2)]


async def test_a_rotation_to_nobody_is_refused(parts: Parts) -> None:
    """Without recipients a rotation would lose every key."""
    with pytest.raises(errors.KeyUnavailable, match="nobody"):
        await again(parts, recipients=()).repository.keys.rotate(dry_run=False)
