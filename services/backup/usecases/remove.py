"""Removes a backup: the manifest first, so that nothing ever lists a backup whose data is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectLocked
from services.backup.domain import layout
from services.backup.usecases.repository import Repository


@dataclass(frozen=True, slots=True)
class Removed:
    """Keys that were, or would be, removed, in that order, and the bytes of the data among them."""

    keys: tuple[str, ...]
    stored_bytes: int


async def belongings(repository: Repository, backup_id: str) -> Removed:
    """All objects of a backup, its manifest first, what is said about it last.

    The data key is not among them, and neither is the tombstone, which says for a while longer that it was deleted.
    """
    data, size = [], 0
    async for each in repository.store.list(layout.backup(backup_id)):
        if each.key != layout.manifest(backup_id):
            data.append(each.key)
            size += each.size_bytes
    evidence = [each.key async for each in repository.store.list(layout.verifications(backup_id))]
    keys = [layout.manifest(backup_id), *data, *evidence, layout.pin(backup_id)]
    return Removed(tuple(keys), size)


async def left_over(repository: Repository, backup_id: str) -> bool:
    """Whether any object of a backup is left, its tombstone and key not counted."""
    if await repository.store.head(layout.pin(backup_id)) is not None:
        return True
    for prefix in (layout.backup(backup_id), layout.verifications(backup_id)):
        async for _ in repository.store.list(prefix):
            return True
    return False


async def remove_backup(repository: Repository, backup_id: str, key_ids: Sequence[str] = ()) -> Removed:
    """Removes all of a backup, and its data keys last. A repeat finishes what an earlier call began.

    Raises errors.BackupProtected for an object that is locked; its manifest is gone then only if that was not locked.
    """
    found = await belongings(repository, backup_id)
    for number, key in enumerate(found.keys):
        try:
            await repository.store.delete(key)
        except ObjectLocked:
            raise errors.BackupProtected(
                f"{key} is locked in the object store: the backup can be deleted once the lock has ended",
                metadata={"backup_id": backup_id, "key": key},
            ) from None
        await repository.failpoints.reached("remove.manifest_gone" if number == 0 else "remove.object_gone")
    for key_id in key_ids:
        await repository.keys.remove(key_id)
    return found
