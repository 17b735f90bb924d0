"""The journal of restores: the truth about them, also when the database is what was lost.

Each entry is a signed document, written once, under the next number: two processes that both believe to be in charge
cannot both write it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.store import ObjectDamaged, ObjectExists, ObjectNotFound, ObjectTooLarge
from llm_schema_registry.operations import ids
from services.backup.domain import layout
from services.backup.domain.documents import DocumentInvalid, decode_signed, encode_signed
from services.backup.domain.restore import Restore, from_document, to_document
from services.backup.usecases.repository import Repository

KIND = "restore"
RESTORES_MAX = 100
"""Newest ones that are shown."""
PUT_SECONDS = 60.0


class Journal:
    """The restores of one repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, Restore] = {}

    async def write(self, restore: Restore, **changes: Any) -> Restore:
        """Appends an entry that says what changed, and returns the restore as it stands.

        Raises errors.LeaseLost when another process wrote an entry meanwhile. A caller that is cancelled wrote it, or
        not: `get` tells.
        """
        changed = replace(restore, **changes, number=restore.number + 1)
        # A store takes the same bytes twice as one write that was repeated: two writers must not write the same.
        document = to_document(changed) | {"written_by": self._repository.dice(8).hex()}
        content = encode_signed(KIND, document, self._repository.signer)
        await self._repository.failpoints.reached(f"journal.{changed.state.value}")
        try:
            # A write that went on by itself could follow what its caller wrote next.
            await to_the_end(self._put(layout.restore_entry(changed.id, changed.number), content))
        except ObjectExists:
            raise errors.LeaseLost(f"Another process works on restore {restore.id}: this one stopped.") from None
        await self._repository.failpoints.reached(f"journaled.{changed.state.value}")
        return changed

    async def _put(self, key: str, content: bytes) -> None:
        try:
            async with asyncio.timeout(PUT_SECONDS):
                await self._repository.store.put(key, content, if_absent=True)
        except TimeoutError:
            raise errors.ObjectStoreUnavailable(
                f"The object store did not take {key} within {PUT_SECONDS:g} seconds: repeat.", retry_seconds=10
            ) from None

    async def get(self, restore_id: str) -> Restore:
        """A restore as it stands. Raises errors.RestoreNotFound, errors.BackupDamaged."""
        if not ids.is_id(restore_id):
            raise _unknown(restore_id)
        numbers = [
            found[1]
            async for each in self._repository.store.list(layout.restore(restore_id))
            if (found := layout.restore_entry_of(each.key))
        ]
        if not numbers:
            raise _unknown(restore_id)
        return await self._read(restore_id, max(numbers))

    async def list(self) -> Sequence[Restore]:
        """The newest restores, newest first; at most RESTORES_MAX. An entry is never changed, so it is read once."""
        newest = await self._newest()
        found: dict[str, Restore] = {}
        for name in sorted(newest, reverse=True)[:RESTORES_MAX]:
            known = self._known.get(name)
            found[name] = known if known and known.number == newest[name] else await self._read(name, newest[name])
        self._known = found
        return [*found.values()]

    async def ids(self) -> Collection[str]:
        """Ids of all restores there ever were."""
        return (await self._newest()).keys()

    async def _newest(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        async for each in self._repository.store.list(layout.RESTORES):
            found = layout.restore_entry_of(each.key)
            if found is not None:
                newest[found[0]] = max(found[1], newest.get(found[0], 0))
        return newest

    async def _read(self, restore_id: str, number: int) -> Restore:
        key = layout.restore_entry(restore_id, number)
        try:
            content, _ = await self._repository.store.get(key)
            restore = from_document(decode_signed(KIND, content, self._repository.verifiers))
        except ObjectNotFound:
            raise _unknown(restore_id) from None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge, ValueError, KeyError, TypeError) as invalid:
            raise errors.BackupDamaged(f"{key} cannot be trusted: {invalid}", metadata={"key": key}) from None
        if (restore.id, restore.number) != (restore_id, number):
            raise errors.BackupDamaged(f"{key} cannot be trusted: it is another entry", metadata={"key": key})
        return restore


def _unknown(restore_id: str) -> errors.RestoreNotFound:
    return errors.RestoreNotFound(
        f"there is no restore {restore_id[:64]!r}; ListRestores shows those there are",
        metadata={"restore_id": restore_id[:64]},
    )
