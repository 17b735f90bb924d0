"""The journal of recoveries, in the object store: there when the database is what was lost.

    recoveries/<id>/<n>.json   every state of a recovery, the last one counts
    plans/<id>.json            what a dry run found, until its operation is forgotten

An entry is written once, under the next number: of two processes that both believe to be in charge one learns here that
it is not. A recovery whose newest entry cannot be read is lost: nobody acts on it, the entry before it never counts in
its place, and it keeps no other one from being started.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.store import ObjectDamaged, ObjectExists, ObjectNotFound, ObjectStore, ObjectTooLarge
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.forgetting import forget_old
from llm_schema_registry.operations.ports import Dice
from services.admin.domain.recovery import Recovery
from services.admin.domain.recovery_documents import from_document, to_document

RECOVERIES = "recoveries/"
PLANS = "plans/"
RECOVERIES_MAX = 100
"""Newest ones that are shown."""
PUT_SECONDS = 30.0
Report = Callable[..., None]
_ENTRY = re.compile(rf"{RECOVERIES}([0-9A-Z]{{26}})/([0-9]{{6}})\.json", re.ASCII)


class RecoveryJournal:
    """The recoveries of one system."""

    def __init__(self, store: ObjectStore, dice: Dice, report: Report | None = None) -> None:
        """report: where an operator's notes go."""
        self._store = store
        self._dice = dice
        self._report = report
        self._known: dict[str, Recovery] = {}
        self._lost: dict[str, str] = {}

    async def write(self, recovery: Recovery) -> Recovery:
        """Appends an entry, and returns the recovery with its number. Raises errors.LeaseLost when another process
        wrote one meanwhile. A caller that is cancelled wrote it, or not: `get` tells."""
        written = replace(recovery, number=recovery.number + 1)
        # A store takes the same bytes twice as one write that was repeated: two writers must not write the same.
        document = to_document(written) | {"written_by": self._dice(8).hex()}
        try:
            await to_the_end(self._put(_entry(written.id, written.number), json.dumps(document, indent=1).encode()))
        except ObjectExists:
            raise errors.LeaseLost(
                f"Another process works on recovery {recovery.id}: this one stopped.",
                metadata={"recovery_id": written.id},
            ) from None
        return written

    async def get(self, recovery_id: str) -> Recovery:
        """A recovery as it stands. Raises errors.RecoveryNotFound."""
        if not ids.is_id(recovery_id):
            raise _unknown(recovery_id)
        keys = [each.key async for each in self._store.list(f"{RECOVERIES}{recovery_id}/")]
        numbers = [int(found[2]) for key in keys if (found := _ENTRY.fullmatch(key))]
        if not numbers:
            raise _unknown(recovery_id)
        return await self._read(_entry(recovery_id, max(numbers)))

    async def list(self) -> Sequence[Recovery]:
        """The newest recoveries, newest first; at most RECOVERIES_MAX, without those that are lost. An entry never
        changes, so it is read once; one that cannot be read may be brought back, so it is read again."""
        read: dict[str, Recovery] = {}
        lost: dict[str, str] = {}
        for name, number in await self._newest(""):
            try:
                read[name] = await self._entry(name, number)
            except (errors.BackupDamaged, errors.RecoveryNotFound) as damaged:
                lost[name] = damaged.message
                if self._report is not None and name not in self._lost:
                    self._report("recovery passed over", recovery_id=name, message=damaged.message)
        self._known, self._lost = read, lost
        return [*read.values()]

    async def begun_since(self, time: datetime) -> Sequence[Recovery]:
        """Those that were begun since a moment, as `list` tells them; no others are listed for that."""
        newest = await self._newest(f"{RECOVERIES}{ids.new_id(time, bytes(ids.RANDOM_BYTES))}")
        read: dict[str, Recovery] = {}
        for name, number in newest:
            with suppress(errors.BackupDamaged, errors.RecoveryNotFound):
                read[name] = await self._entry(name, number)
        self._known |= read
        return [*read.values()]

    async def _newest(self, after: str) -> Sequence[tuple[str, int]]:
        """Ids of recoveries behind a key, newest first, with the numbers of their newest entries."""
        newest: dict[str, int] = {}
        async for each in self._store.list(RECOVERIES, after=after):
            if found := _ENTRY.fullmatch(each.key):
                newest[found[1]] = max(int(found[2]), newest.get(found[1], 0))
        return sorted(newest.items(), reverse=True)[:RECOVERIES_MAX]

    async def _entry(self, name: str, number: int) -> Recovery:
        known = self._known.get(name)
        return known if known is not None and known.number == number else await self._read(_entry(name, number))

    async def lost(self) -> Sequence[str]:
        """Of each of those that are lost: why, and what to do, in words."""
        await self.list()
        return [*self._lost.values()]

    async def plan(self, recovery: Recovery) -> None:
        """Keeps what a dry run found, as the result of its operation."""
        await self._put(f"{PLANS}{recovery.id}.json", json.dumps(to_document(recovery), indent=1).encode())

    async def planned(self, recovery_id: str) -> Recovery:
        """What a dry run found. Raises errors.RecoveryNotFound."""
        return await self._read(f"{PLANS}{recovery_id}.json")

    async def forget_old_plans(self) -> None:
        """Removes plans whose operations are forgotten; recoveries stay."""
        await forget_old(self._store, PLANS)

    async def _put(self, key: str, content: bytes) -> None:
        try:
            async with asyncio.timeout(PUT_SECONDS):
                await self._store.put(key, content, if_absent=True)
        except TimeoutError:
            raise errors.ObjectStoreUnavailable(
                f"The object store did not take {key} within {PUT_SECONDS:g} seconds: repeat.", retry_seconds=10
            ) from None

    async def _read(self, key: str) -> Recovery:
        try:
            return from_document(json.loads((await self._store.get(key))[0]))
        except ObjectNotFound:
            raise _unknown(key.split("/")[1].removesuffix(".json")) from None
        except (ObjectDamaged, ObjectTooLarge, ValueError, KeyError, TypeError, AttributeError) as invalid:
            raise errors.BackupDamaged(
                f"{key}, the record of a recovery, cannot be read: {invalid}. Nobody acts on that recovery until the"
                " object is brought back, as an older version of it or from a copy of the bucket; others can be"
                " started. Do not delete the object alone: the one before it would count then.",
                metadata={"key": key},
            ) from None


def _entry(recovery_id: str, number: int) -> str:
    return f"{RECOVERIES}{recovery_id}/{number:06}.json"


def _unknown(recovery_id: str) -> errors.RecoveryNotFound:
    return errors.RecoveryNotFound(
        f"there is no recovery {recovery_id[:64]!r}; ListRecoveries shows those there are",
        metadata={"recovery_id": recovery_id[:64]},
    )
