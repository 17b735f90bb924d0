"""Deletes what retention no longer keeps: decides first, buries, waits, then deletes, the manifest before the data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import Listed
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import PATIENCE_SECONDS, Lease
from services.backup.domain import layout, retention
from services.backup.domain.forks import known_lines
from services.backup.domain.model import Level
from services.backup.domain.remarks import Tombstone
from services.backup.domain.retention import Candidate, Plan, Policy
from services.backup.usecases.archive import KEYS_OF_SEGMENTS, Archive
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Catalog, Entry, Listing
from services.backup.usecases.remove import Removed, belongings, left_over, remove_backup
from services.backup.usecases.repository import WRITING, Repository

LOOKS_AT_ONCE = 16
"""Backups whose locks are asked for at once."""
ORPHAN_AGE = timedelta(hours=24)
"""Data without a manifest is younger than this while its backup may still be running somewhere."""
PROVEN_KEPT = 3


@dataclass(frozen=True, slots=True)
class PruneRules:
    """policy: what is kept. grace: time between the burial of a backup and its deletion. archive_keep: of segments."""

    policy: Policy
    grace: timedelta
    archive_keep: timedelta


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune decided, and did: segments removed, backups buried and deleted for good.

    stored_bytes: of all backups that go, those whose grace time is not over included.
    """

    plan: Plan
    segments: int
    stored_bytes: int
    buried: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The store that another one is a copy of."""

    catalog: Catalog
    archive: Archive


class Prune:
    """Deletes backups and segments of one repository."""

    def __init__(
        self,
        repository: Repository,
        archive: Archive,
        audit: ArchiveAudit,
        rules: PruneRules,
        origin: Origin | None = None,
    ) -> None:
        """audit: finds the archive's keys that are out of use. origin: of a store that is a copy, what it is a copy of.
        What is there yet is not deleted here."""
        self._origin = origin
        self._repository = repository
        self._archive = archive
        self._audit = audit
        self._rules = rules
        self._kept_keys: set[str] = set()

    async def plan(self, *, force: bool = False) -> Pruned:
        """What a prune would do now. Changes nothing."""
        outlook = await self._outlook(force=force)
        return Pruned(
            outlook.plan,
            len(outlook.segments),
            outlook.stored_bytes,
            len(outlook.plan.deletions),
            len(outlook.over),
        )

    async def apply(self, *, force: bool = False) -> Pruned:
        """Buries what the plan deletes, and deletes what was buried longer ago than the grace time.

        Raises errors.OperationRunning while a backup runs, errors.LeaseLost.
        """
        repository = self._repository
        async with repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            outlook = await self._outlook(force=force)
            buried = [each for each in outlook.plan.decisions if each.id in outlook.plan.deletions]
            for decision in buried:
                entry = outlook.listing.entry(decision.id)
                assert entry is not None, "retention decides about backups of the listing"
                await lease.require()
                await self._bury(entry, decision.why)
            for backup_id in outlook.revived:
                await lease.require()
                await repository.catalog.remarks.dig_out(backup_id)
            deleted = 0
            for entry in outlook.over:
                deleted += await self._delete(entry, lease)
            # A backup that has to stay after all needs its part of the archive.
            segments = outlook.segments if deleted == len(outlook.over) else ()
            for key in segments:
                await lease.require()
                await repository.store.delete(key)
                await repository.failpoints.reached("prune.segment_gone")
            listing = await repository.catalog.listing()
            # What a manifest says that cannot be read is not known, and neither is what it needs.
            careful = outlook.plan.blocked is not None or bool(listing.untrusted)
            unused = frozenset[str]() if careful else await self._audit.unused_keys()
            await self._sweep(listing, unused, lease)
            # Who listed the backups before they went still needs the tombstones that those referred to.
            await self._sweep_tombstones(listing, outlook.listing.referred | listing.referred, lease)
            await repository.catalog.write()
        return Pruned(outlook.plan, len(segments), outlook.stored_bytes, len(buried), deleted)

    async def sweep(self) -> None:
        """Removes what ended early and left something behind, as `apply` does, and nothing that anybody may want.

        Raises errors.OperationRunning while a backup runs, errors.LeaseLost.
        """
        async with self._repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            # Keys of the archive are removed by `apply`: only a repository that is pruned has any out of use.
            await self._sweep(await self._repository.catalog.listing(), frozenset(), lease)

    async def delete(self, backup_id: str, *, dry_run: bool) -> Removed:
        """Deletes one backup that somebody names, at once. Raises as DeleteBackup says."""
        repository = self._repository
        if dry_run:
            await self._deletable(backup_id)
            return await belongings(repository, backup_id)
        async with repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            entry = await self._deletable(backup_id)
            await lease.require()
            if entry is not None and not entry.buried:
                # So that a repeat, or the next prune, finishes what is begun here.
                await self._bury(entry, "somebody asked for it")
            removed = await remove_backup(repository, backup_id, _key_ids(entry) if entry else ())
            await repository.catalog.write()
        return removed

    async def _deletable(self, backup_id: str) -> Entry | None:
        """The backup, when it may be deleted; None for one whose deletion was begun and did not end.

        Raises errors.BackupNotFound, BackupProtected, BackupDamaged.
        """
        catalog = self._repository.catalog
        try:
            entry = await catalog.get(backup_id)
        except errors.BackupNotFound:
            store = self._repository.store
            if not ids.is_id(backup_id) or await store.head(layout.tombstone(backup_id)) is None:
                raise
            if await left_over(self._repository, backup_id):
                return None
            raise
        await self._require_deletable(entry, await catalog.listing())
        return entry

    async def _require_deletable(self, entry: Entry, listing: Listing) -> None:
        """Raises BackupProtected for a backup that is pinned, locked, or among the newest that are proven."""
        locked = await self._locked_until(entry)
        proven = [each.id for each in listing.entries if each.level >= Level.V3 and not each.buried]
        protected = ""
        if entry.pinned:
            protected = "it is pinned: unpin it first"
        elif locked is not None and locked > await self._repository.store.now():
            protected = f"the object store has it locked until {locked:%Y-%m-%d %H:%M UTC}"
        elif entry.id in proven[:PROVEN_KEPT]:
            protected = f"it is among the {PROVEN_KEPT} newest that are verified to V3: verify newer ones first"
        if protected:
            raise errors.BackupProtected(
                f"Backup {entry.id} is not deleted: {protected}.", metadata={"backup_id": entry.id}
            )

    async def _outlook(self, *, force: bool) -> _Outlook:
        """What is to be done now. By the store's clock alone: a machine's may be wrong."""
        listing, now = await self._repository.catalog.listing(), await self._repository.store.now()
        before = now - self._rules.grace
        plan, again = await self._plans(listing, now, force=force)
        buried = [entry for entry in listing.entries if entry.buried]
        if buried and plan.blocked is None:
            plan = replace(plan, blocked=again.blocked)
        kept = {decision.id for decision in again.decisions if not decision.delete}
        going = [entry for entry in buried if entry.id not in kept]
        over = [] if plan.blocked else [entry for entry in going if entry.buried and entry.buried <= before]
        size = sum(entry.manifest.stored_bytes for entry in going)
        return _Outlook(
            listing=listing,
            plan=plan,
            over=tuple(over),
            revived=tuple(entry.id for entry in buried if entry.id in kept),
            segments=() if plan.blocked else await self._removable(listing, {entry.id for entry in over}),
            stored_bytes=size
            + sum(entry.manifest.stored_bytes for entry in listing.entries if entry.id in plan.deletions),
        )

    async def _plans(self, listing: Listing, now: datetime, *, force: bool) -> tuple[Plan, Plan]:
        """What becomes of the backups that are not buried, and of all of them."""
        plan, again = self._planned(listing, {}, now, force=force)
        if plan.blocked is None:
            # The store knows best what it lets nobody delete, and is asked about what would go alone.
            going = {each.id for each in (*plan.decisions, *again.decisions) if each.delete}
            locks = await self._locks([entry for entry in listing.entries if entry.id in going])
            if locks:
                plan, again = self._planned(listing, locks, now, force=force)
        return await self._spared(plan), again

    async def _locks(self, entries: Sequence[Entry]) -> dict[str, datetime]:
        """Until when backups are locked, of those that are."""
        limit = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def until(entry: Entry) -> tuple[str, datetime | None]:
            async with limit:
                return entry.id, await self._locked_until(entry)

        found = await asyncio.gather(*map(until, entries))
        return {backup_id: time for backup_id, time in found if time is not None}

    def _planned(
        self, listing: Listing, locks: Mapping[str, datetime], now: datetime, *, force: bool
    ) -> tuple[Plan, Plan]:
        policy = self._rules.policy
        candidates = [_candidate(entry, locks.get(entry.id)) for entry in listing.entries]
        buried = {entry.id for entry in listing.entries if entry.buried}
        plan = retention.plan([each for each in candidates if each.id not in buried], policy, now, force=force)
        # What was buried is looked at again beside all others: those that were better then may be damaged by now.
        return plan, retention.plan(candidates, policy, now, force=True)

    async def _locked_until(self, entry: Entry) -> datetime | None:
        """Until when the store lets nobody delete all of a backup; None when it can be deleted, as far as it tells."""
        keys = [layout.manifest(entry.id), *(record.key for record in entry.manifest.objects)]
        heads = [await self._repository.store.head(key) for key in keys]
        return max((head.lock.until for head in heads if head is not None and head.lock is not None), default=None)

    async def _spared(self, plan: Plan) -> Plan:
        """The plan without backups that the store which this one is a copy of still has."""
        if self._origin is None:
            return plan
        listing = await self._origin.catalog.listing()
        there = {entry.id for entry in listing.entries if not entry.buried} | listing.untrusted
        spared = [
            replace(each, delete=False, why="the first store keeps it") if each.delete and each.id in there else each
            for each in plan.decisions
        ]
        return replace(plan, decisions=tuple(spared))

    async def _bury(self, entry: Entry, why: str) -> None:
        await self._repository.catalog.remarks.bury(Tombstone(entry.id, entry.sha256, why))
        await self._repository.failpoints.reached("prune.buried")

    async def _delete(self, entry: Entry, lease: Lease) -> int:
        """Deletes a backup whose grace is over; 0 when it has to stay a while longer."""
        await lease.require()
        if await self._repository.store.head(layout.pin(entry.id)) is not None:
            return 0  # Pinned since it was looked at: the next prune takes its tombstone away.
        try:
            await remove_backup(self._repository, entry.id, _key_ids(entry))
        except errors.BackupProtected:
            return 0  # Locked: the tombstone stays, and a later prune tries again.
        return 1

    async def _removable(self, listing: Listing, over: Set[str]) -> tuple[str, ...]:
        """Keys of segments that no kept backup needs and that are old enough.

        A backup that is buried needs its segments until it is gone: somebody may pin it. What a backup needs whose
        manifest cannot be read is not known, so all stay then.
        """
        if listing.untrusted:
            return ()
        kept = [entry.manifest.place for entry in listing.entries if entry.id not in over]
        beat = await self._archive.heartbeat()
        try:
            lines = known_lines(
                *(entry.manifest.facts.head.epochs for entry in listing.entries), beat.epochs if beat else ()
            )
        except ValueError:
            return ()
        now, keep = await self._repository.store.now(), self._rules.archive_keep
        floor = retention.ArchiveFloor(kept, list(lines.values()), now, keep=keep)
        spans = await self._archive.run(floor.may_go)
        keys = {layout.segment(span.epoch, span.first, span.last) for span in spans}
        if self._origin is not None and keys:
            keys -= await self._origin.archive.present(keys)
        return tuple(sorted(keys))

    async def _sweep(self, listing: Listing, unused: Set[str], lease: Lease) -> None:
        """Removes what ended early and left something behind: deletions, backups, uploads; and keys that nothing needs.

        unused: keys that no segment of the archive needs.
        """
        store = self._repository.store
        before = await store.now() - ORPHAN_AGE
        kept = {entry.id for entry in listing.entries} | listing.untrusted
        objects = {id_: time async for each in store.list(layout.BACKUPS) for id_, time in _owner(each)}
        alone = {backup_id for backup_id, time in objects.items() if time < before and backup_id not in kept}
        # A deletion that ended between the manifest and the data left a tombstone without a manifest.
        for backup_id in await self._tombstones() - kept:
            if backup_id in objects or await left_over(self._repository, backup_id):
                alone.add(backup_id)
        for backup_id in sorted(alone):
            if await store.head(layout.manifest(backup_id)) is None:
                await lease.require()
                with suppress(errors.BackupProtected):  # Locked: a later prune tries again.
                    await remove_backup(self._repository, backup_id)
        used = {key_id for entry in listing.entries for key_id in _key_ids(entry)}
        await self._sweep_keys(used, set(objects) - alone, unused, lease)
        await store.sweep("", before)

    async def _tombstones(self) -> set[str]:
        """Ids of all backups with a tombstone, trusted or not."""
        found = {layout.tombstone_of(each.key) async for each in self._repository.store.list(layout.TOMBSTONES)}
        return {each for each in found if each}

    async def _sweep_tombstones(self, listing: Listing, referred: Set[bytes], lease: Lease) -> None:
        """Removes tombstones of backups of which nothing is left, once no manifest refers to theirs.

        So there are never more of them than backups, and those that are being deleted.
        """
        if listing.untrusted:
            return  # What they refer to is not known.
        digests = {each.backup_id: each.manifest_sha256 for each in listing.tombstones}
        for backup_id in sorted(await self._tombstones() - {entry.id for entry in listing.entries}):
            if digests.get(backup_id) in referred or await left_over(self._repository, backup_id):
                continue
            await lease.require()
            await self._repository.catalog.remarks.dig_out(backup_id)

    async def _sweep_keys(self, used: Set[str], present: Set[str], unused: Set[str], lease: Lease) -> None:
        """Removes data keys of backups of which nothing is left, and the archive's that are unused.

        used: by manifests. present: ids of backups with any object.
        """
        repository = self._repository
        before = await repository.store.now() - ORPHAN_AGE
        old = set(await repository.keys.older(before)) - used
        for key_id in sorted(old - (self._kept_keys - unused)):
            try:
                purpose = await repository.keys.purpose(key_id)
            except errors.BackupDamaged:
                continue  # What it opens is not known.
            backup_id = purpose.removeprefix("backup/")
            if purpose.startswith(KEYS_OF_SEGMENTS) and key_id in unused:
                await lease.require()
                # Whoever writes it down again meanwhile has a use for it.
                await repository.keys.remove(key_id, before)
                await repository.failpoints.reached("prune.key_gone")
                continue
            if backup_id == purpose or not ids.is_id(backup_id) or backup_id in present:
                self._kept_keys.add(key_id)
                continue
            if await repository.store.head(layout.manifest(backup_id)) is None:
                await lease.require()
                await repository.keys.remove(key_id)


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What a prune does. over: buried ones whose grace is over. revived: ids of buried ones that are kept after all."""

    listing: Listing
    plan: Plan
    over: tuple[Entry, ...]
    revived: tuple[str, ...]
    segments: tuple[str, ...]
    stored_bytes: int


def _candidate(entry: Entry, locked_until: datetime | None) -> Candidate:
    return Candidate(
        id=entry.id,
        kind=entry.manifest.kind,
        time=entry.manifest.end_time,
        level=entry.level if entry.evidence else None,
        pinned=entry.pinned,
        locked_until=locked_until,
        size_bytes=entry.manifest.stored_bytes,
        place=entry.manifest.place,
    )


def _key_ids(entry: Entry) -> tuple[str, ...]:
    encryption = entry.manifest.encryption
    return (encryption.key_id,) if encryption else ()


def _owner(listed: Listed) -> Iterator[tuple[str, datetime]]:
    backup_id = layout.backup_of(listed.key)
    if backup_id:
        yield backup_id, listed.modify_time
