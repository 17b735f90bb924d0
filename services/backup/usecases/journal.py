"""The journal of restores: the truth about them, also when the database is what was lost.

Each entry is a signed document, written once, under the next number: two processes that both believe to be in charge
cannot both write it.

A restore whose newest entry cannot be read is lost: nobody knows where it stands, so nobody acts on it, and the entry
before it never counts in its place. What it may have been given, epochs and schema ids, counts as given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
BACK_MAX = 8
"""Entries before one that cannot be read that are looked at for what they gave."""

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Lost:
    """A restore whose newest entry cannot be read. problem: why, and what to do, in words.

    before: the newest entry that can be read, for what it gave alone; None for none. unread: how many behind it cannot.
    """

    id: str
    number: int
    problem: str
    before: Restore | None
    unread: int

    @property
    def key(self) -> str:
        """Of the entry that cannot be read."""
        return layout.restore_entry(self.id, self.number)


@dataclass(frozen=True, slots=True)
class History:
    """The newest restores, newest first, and those among them that are lost."""

    restores: tuple[Restore, ...]
    lost: tuple[Lost, ...] = ()

    @property
    def told(self) -> tuple[Restore, ...]:
        """All that can be read, for what was given: the restores, and what comes before a lost entry."""
        return (*self.restores, *(each.before for each in self.lost if each.before is not None))

    @property
    def unread(self) -> int:
        """Entries that cannot be read: each may have begun an epoch, and passed over a margin of schema ids."""
        return sum(each.unread for each in self.lost)


class Journal:
    """The restores of one repository."""

    def __init__(self, repository: Repository, report: Report | None = None) -> None:
        """report: where an operator's notes go."""
        self._repository = repository
        self._report = report
        self._known: dict[str, Restore] = {}
        self._lost: dict[str, Lost] = {}

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
        """The newest restores, newest first; at most RESTORES_MAX, without those that are lost."""
        return [*(await self.history()).restores]

    async def history(self) -> History:
        """The newest restores, RESTORES_MAX at most. An entry is never changed, so it is read once; one that cannot be
        read may be brought back, so it is read again."""
        newest = await self._newest()
        found: dict[str, Restore] = {}
        lost: dict[str, Lost] = {}
        for name in sorted(newest, reverse=True)[:RESTORES_MAX]:
            known = self._known.get(name)
            try:
                same = known is not None and known.number == newest[name]
                found[name] = known if known and same else await self._read(name, newest[name])
            except (errors.BackupDamaged, errors.RestoreNotFound) as damaged:
                lost[name] = await self._look_back(name, newest[name], damaged.message)
        self._known, self._lost = found, lost
        return History(tuple(found.values()), tuple(lost.values()))

    async def _look_back(self, restore_id: str, number: int, problem: str) -> Lost:
        """What is known of a lost restore; it is told once."""
        known = self._lost.get(restore_id)
        if known is not None and known.number == number:
            return known
        if self._report is not None:
            self._report("restore passed over", restore_id=restore_id, message=problem)
        for unread in range(1, min(BACK_MAX, number)):
            with suppress(errors.BackupDamaged, errors.RestoreNotFound):
                return Lost(restore_id, number, problem, await self._read(restore_id, number - unread), unread)
        return Lost(restore_id, number, problem, None, min(BACK_MAX, number))

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
            raise _damaged(restore_id, key, str(invalid)) from None
        if (restore.id, restore.number) != (restore_id, number):
            raise _damaged(restore_id, key, "it is another entry")
        return restore


def _damaged(restore_id: str, key: str, problem: str) -> errors.BackupDamaged:
    return errors.BackupDamaged(
        f"{key}, which says where restore {restore_id} stands, cannot be trusted: {problem}. Nobody acts on that"
        " restore until the object is brought back, from the second store or as an older version of it; others go on."
        " Do not delete the object alone: the one before it would count then. What the restore keeps beside the live"
        f" database, under names that end with {ids.token(restore_id)}, stays until somebody drops it.",
        metadata={"key": key, "restore_id": restore_id},
    )


def _unknown(restore_id: str) -> errors.RestoreNotFound:
    return errors.RestoreNotFound(
        f"there is no restore {restore_id[:64]!r}; ListRestores shows those there are",
        metadata={"restore_id": restore_id[:64]},
    )
