"""Copies backups and the archive into a second store: object by object, compared on arrival, the manifest last."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    Listed,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
    Placement,
)
from services.backup.domain import layout
from services.backup.domain.model import Manifest, ObjectRecord
from services.backup.usecases.catalog import Catalog, Listing
from services.backup.usecases.reading import damaged
from services.backup.usecases.repository import Repository
from services.backup.usecases.storing import placement

PRIMARY = "primary"
NAME = "second"
FULL_SECONDS = 3600.0
"""Time between two looks at all of the archive in both stores."""
PROBLEMS_MAX = 5
"""Told of one round."""


@dataclass(slots=True)
class CopyState:
    """What this process knows of the second store. problem: why it is behind; empty when it is not."""

    complete: frozenset[str] = frozenset()
    time: datetime | None = None
    problem: str = ""
    copied_bytes: int = 0


class Copying:
    """Keeps a second store like the first. What the first loses stays there: retention alone deletes, by its rules."""

    def __init__(self, repository: Repository, second: ObjectStore, lock_days: int = 0) -> None:
        """lock_days: as BackupRules has them, of the copies too, where the second store can lock."""
        self._repository = repository
        self._lock_days = lock_days
        self._second = second
        self.catalog = Catalog(second, repository.verifiers, repository.signer)
        self.state = CopyState()
        self._copied: dict[int, str] = {}
        self._full_next = 0.0
        self._keys_time = datetime.min.replace(tzinfo=UTC)

    async def round(self) -> None:
        """Copies all that is missing. What keeps it from that is a problem in the state, and is tried again later.

        What is wrong with one object does not keep the others from being copied.
        """
        problems: list[str] = []
        for work in (self._copy_identity, self._copy_segments, self._copy_backups):
            try:
                problems += await work()
            except errors.Error as failed:
                problems.append(failed.message)
                if not isinstance(failed, errors.BackupDamaged):
                    break  # The store itself, or whose it is.
        self.state.problem = "; ".join(problems[:PROBLEMS_MAX])
        if not problems:
            self.state.time = self._repository.clock.now()

    async def mend(self, backup_id: str) -> None:
        """Copies a backup that was found damaged there once more, over what is there.

        Raises errors.BackupNotFound when the first store no longer has it, BackupDamaged when it is no better there.
        """
        manifest = (await self._repository.catalog.get(backup_id)).manifest
        placed = await self._placement(manifest)
        for record in manifest.objects:
            await self._copy_object(record, placed, again=True)

    async def _copy_identity(self) -> list[str]:
        """Whose repository it is. Raises WrongCluster when the second store is another's."""
        await self._copy_small(layout.REPOSITORY)
        return []

    async def _copy_keys(self) -> list[str]:
        """Wrapped keys: without them the copies are of no use to anybody, so they come before what they seal."""
        began = await self._repository.store.now()
        there = {each.key async for each in self._second.list(layout.KEYS)}
        here = [each.key async for each in self._repository.store.list(layout.KEYS)]
        problems: list[str] = []
        for key in here:
            if key not in there:
                wrong = await self._copy_small_or_say(key)
                problems += wrong
                there |= set() if wrong else {key}
        newest: dict[str, int] = {}
        for key in there.intersection(here):
            if found := layout.key_of(key):
                newest[found[0]] = max(found[1], newest.get(found[0], 0))
        for key in there:
            found = layout.key_of(key)
            if found and found[1] < newest.get(found[0], 0):
                # A rotation took recipients away: so here as well.
                await self._second.delete(key)
        self._keys_time = began
        return problems

    async def _copy_backups(self) -> list[str]:
        """Backups, oldest first, and what is said about them."""
        listing = await self._repository.catalog.listing()
        problems, there = await self._copy_keys(), await self._whole()
        for entry in reversed(listing.entries):
            if entry.id in there or entry.buried:
                continue
            try:
                await self._copy_backup(entry.manifest)
            except errors.BackupDamaged as damage:
                problems.append(damage.message)
        # No verifications: those of the first store say nothing about the bytes here.
        for name in (layout.PINS, layout.RESTORES, layout.DRILLS):
            problems += await self._copy_all_small(name)
        problems += await self._copy_tombstones(listing)
        self.state.complete = frozenset(await self._whole()) & {entry.id for entry in listing.entries}
        return problems

    async def _copy_tombstones(self, listing: Listing) -> list[str]:
        """Tombstones of backups that were deleted before they came here: what follows them would miss them.

        No others: what is here is deleted by this store's own retention.
        """
        here, problems = await self.catalog.listing(), []
        known = {entry.id for entry in here.entries} | here.untrusted | {each.backup_id for each in here.tombstones}
        for each in listing.tombstones:
            if each.manifest_sha256 in here.referred and each.backup_id not in known:
                problems += await self._copy_small_or_say(layout.tombstone(each.backup_id), changing=True)
        return problems

    async def _whole(self) -> set[str]:
        """Ids of the backups that are in the second store with all their objects, as far as a listing tells."""
        sizes = {each.key: each.size_bytes async for each in self._second.list(layout.BACKUPS)}
        return {
            entry.id
            for entry in (await self.catalog.listing()).entries
            if all(sizes.get(record.key) == record.size_bytes for record in entry.manifest.objects)
        }

    async def _copy_backup(self, manifest: Manifest) -> None:
        placed = await self._placement(manifest)
        for record in manifest.objects:
            await self._copy_object(record, placed)
        await self._repository.failpoints.reached("copy.before_manifest")
        # One that is there, but is not listed, was damaged there: the one that can be trusted takes its place.
        await self._copy_small(layout.manifest(manifest.id), changing=True, placed=Placement("STANDARD", placed.lock))

    async def _placement(self, manifest: Manifest) -> Placement:
        """How the copy of a backup is kept: as the backup is, and locked until its own lock is over."""
        until = manifest.end_time + timedelta(days=self._lock_days)
        locks = self._lock_days > 0 and until > await self._second.now()
        return placement(manifest.kind, until if locks else None)

    async def _copy_object(self, record: ObjectRecord, placed: Placement, *, again: bool = False) -> None:
        """Copies a data object, and compares its digest on arrival with its record's.

        again: also when one is there that looks right, for the store's word on it was found wrong.
        """
        digest, size = hashlib.sha256(), 0
        stored = None if again else await self._second.head(record.key)
        if stored is not None and stored.size_bytes == record.size_bytes and stored.sha256 == record.sha256:
            return
        try:
            async with self._second.upload(record.key, placement=placed, if_absent=False) as upload:
                async for piece in self._repository.store.read(record.key):
                    await asyncio.to_thread(digest.update, piece)
                    size += len(piece)
                    await upload.write(piece)
                if (size, digest.digest()) != (record.size_bytes, record.sha256):
                    raise damaged(record.key, 0, "it is not what the manifest says, and was not copied")
                await upload.complete()
        except ObjectNotFound:
            raise damaged(record.key, 0, "the object is not there, and was not copied") from None
        except ObjectDamaged as failed:
            raise damaged(record.key, 0, f"it did not arrive in the second store: {failed}") from None
        self.state.copied_bytes += size

    async def _copy_segments(self) -> list[str]:
        """Segments of the archive, each once: they never change. Those up to the newest known copy are not listed
        again, but for once every FULL_SECONDS."""
        now = self._repository.clock.monotonic()
        if now >= self._full_next:
            self._copied, self._full_next = {}, now + FULL_SECONDS
        problems = await self._copy_small_or_say(layout.HEARTBEAT, changing=True)
        stuck: set[int] = set()
        # Epochs sort after those before them, so what follows the newest one's copies may be new epochs as well.
        older = sorted(self._copied)[:-1]
        newest = max(self._copied.values(), default="")
        places = [*((layout.epoch(each), self._copied[each]) for each in older), (layout.ARCHIVE, newest)]
        for prefix, after in places:
            async for each, missing in self._compared(prefix, after):
                segment = layout.segment_of(each.key)
                if segment is None:
                    continue
                if missing and each.modify_time >= self._keys_time:
                    problems += await self._copy_keys()  # A segment's key is older than the segment.
                found = await self._copy_small_or_say(each.key) if missing else []
                problems += found
                if found:
                    stuck.add(segment.epoch)  # It is tried again in the next round.
                elif segment.epoch not in stuck:
                    self._copied[segment.epoch] = each.key
        return problems

    async def _copy_all_small(self, prefix: str) -> list[str]:
        problems: list[str] = []
        async for each, missing in self._compared(prefix):
            if missing:
                problems += await self._copy_small_or_say(each.key)
        return problems

    async def _compared(self, prefix: str, after: str = "") -> AsyncIterator[tuple[Listed, bool]]:
        """The objects of the first store, and whether each is missing in the second. Both are listed side by side, in
        the order of keys: nothing is kept of them, however many there are."""
        others = self._second.list(prefix, after=after)
        other = await anext(others, None)
        async for each in self._repository.store.list(prefix, after=after):
            while other is not None and other.key < each.key:
                other = await anext(others, None)
            yield each, other is None or other.key != each.key

    async def _copy_small_or_say(self, key: str, *, changing: bool = False) -> list[str]:
        """Copies an object; what is wrong with it."""
        try:
            await self._copy_small(key, changing=changing)
        except errors.BackupDamaged as damage:
            return [damage.message]
        return []

    async def _copy_small(self, key: str, *, changing: bool = False, placed: Placement | None = None) -> None:
        try:
            content, _ = await self._repository.store.get(key)
        except ObjectNotFound:
            return
        except (ObjectDamaged, ObjectTooLarge) as failed:
            raise damaged(key, 0, f"it was not copied: {failed}") from None
        try:
            await self._second.put(key, content, if_absent=not changing, placement=placed)
        except ObjectExists:
            if key != layout.REPOSITORY:
                raise damaged(key, 0, "the second store holds other bytes under this key") from None
            raise errors.WrongCluster(
                f"The second store holds another {key}: it belongs to something else, or was changed. Use an empty"
                " bucket or prefix.",
                metadata={"key": key},
            ) from None
