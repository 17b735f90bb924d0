"""Deletes what retention no longer keeps: decides first, buries, waits, then deletes, the manifest before the data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectExists
from services.backup.domain import layout, retention
from services.backup.domain.forks import known_lines
from services.backup.domain.model import Level
from services.backup.domain.retention import Candidate, Plan, Policy
from services.backup.usecases.archive import Archive
from services.backup.usecases.catalog import Entry, Listing
from services.backup.usecases.leases import PATIENCE_SECONDS, Lease
from services.backup.usecases.remove import Removed, belongings, remove_backup
from services.backup.usecases.repository import WRITING, Repository

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
    """What a prune decided, and did: segments removed, bytes given back, backups buried and deleted for good."""

    plan: Plan
    segments: int
    stored_bytes: int
    buried: int
    deleted: int


class Prune:
    """Deletes backups and segments of one repository."""

    def __init__(self, repository: Repository, archive: Archive, rules: PruneRules) -> None:
        self._repository = repository
        self._archive = archive
        self._rules = rules

    async def plan(self, *, force: bool = False) -> Pruned:
        """What a prune would do now. Changes nothing."""
        listing = await self._repository.catalog.listing()
        plan = self._decide(listing, force=force)
        going = [entry for entry in listing.entries if entry.buried or entry.id in plan.deletions]
        segments = await self._removable(listing)
        size = sum(entry.manifest.stored_bytes for entry in going)
        return Pruned(plan, len(segments), size, len(plan.deletions), sum(1 for entry in going if entry.buried))

    async def apply(self, *, force: bool = False) -> Pruned:
        """Buries what the plan deletes, and deletes what was buried longer ago than the grace time.

        Raises errors.OperationRunning while a backup runs, errors.LeaseLost.
        """
        async with self._repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            listing = await self._repository.catalog.listing()
            plan = self._decide(listing, force=force)
            buried = 0
            for backup_id in plan.deletions:
                await lease.require()
                buried += await self._bury(backup_id, plan)
            deleted, size = await self._delete_buried(listing, plan, lease)
            listing = await self._repository.catalog.listing()
            segments = await self._removable(listing) if not plan.blocked else []
            for key in segments:
                await lease.require()
                await self._repository.store.delete(key)
                await self._repository.failpoints.reached("prune.segment_gone")
            await self._sweep_orphans(listing, lease)
            await self._repository.catalog.write()
        return Pruned(plan, len(segments), size, buried, deleted)

    async def delete(self, backup_id: str, *, dry_run: bool) -> Removed:
        """Deletes one backup that somebody names, at once. Raises as DeleteBackup says."""
        repository = self._repository
        entry = await repository.catalog.get(backup_id)
        listing = await repository.catalog.listing()
        self._require_deletable(entry, listing)
        if dry_run:
            return await belongings(repository, backup_id)
        async with repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            self._require_deletable(await repository.catalog.get(backup_id), await repository.catalog.listing())
            await lease.require()
            removed = await remove_backup(repository, backup_id, _key_ids(entry))
            await repository.catalog.write()
        return removed

    def _require_deletable(self, entry: Entry, listing: Listing) -> None:
        """Raises BackupProtected for a backup that is pinned, or among the newest that are proven."""
        proven = [each.id for each in listing.entries if each.level >= Level.V3 and not each.buried]
        protected = ""
        if entry.pinned:
            protected = "it is pinned: unpin it first"
        elif entry.id in proven[:PROVEN_KEPT]:
            protected = f"it is among the {PROVEN_KEPT} newest that are verified to V3: verify newer ones first"
        if protected:
            raise errors.BackupProtected(
                f"Backup {entry.id} is not deleted: {protected}.", metadata={"backup_id": entry.id}
            )

    def _decide(self, listing: Listing, *, force: bool) -> Plan:
        candidates = [
            Candidate(
                id=entry.id,
                kind=entry.manifest.kind,
                time=entry.manifest.end_time,
                level=entry.level if entry.evidence else None,
                pinned=entry.pinned,
                size_bytes=entry.manifest.stored_bytes,
                place=entry.manifest.place,
            )
            for entry in listing.entries
            if not entry.buried
        ]
        return retention.plan(candidates, self._rules.policy, self._repository.clock.now(), force=force)

    async def _bury(self, backup_id: str, plan: Plan) -> int:
        decision = next(each for each in plan.decisions if each.id == backup_id)
        note = {"backup_id": backup_id, "cause": decision.why, "plan": plan.digest}
        try:
            await self._repository.store.put(
                layout.tombstone(backup_id), json.dumps(note, sort_keys=True).encode(), if_absent=True
            )
        except ObjectExists:
            return 0
        await self._repository.failpoints.reached("prune.buried")
        return 1

    async def _delete_buried(self, listing: Listing, plan: Plan, lease: Lease) -> tuple[int, int]:
        """Deletes backups whose grace is over, but none that must be kept after all. Returns their number and bytes."""
        if plan.blocked:
            return 0, 0
        before = await self._repository.store.now() - self._rules.grace
        deleted = size = 0
        for entry in listing.entries:
            if entry.buried is None or entry.buried > before:
                continue
            if entry.pinned:
                await self._repository.store.delete(layout.tombstone(entry.id))
                continue
            await lease.require()
            try:
                size += (await remove_backup(self._repository, entry.id, _key_ids(entry))).stored_bytes
                deleted += 1
            except errors.BackupProtected:
                continue  # Locked: the tombstone stays, and a later prune tries again.
        # A deletion that ended between the manifest and the data left a tombstone without a manifest.
        known = {entry.id for entry in listing.entries}
        async for each in self._repository.store.list(layout.TOMBSTONES):
            backup_id = layout.tombstone_of(each.key)
            if backup_id and backup_id not in known and each.modify_time <= before:
                await lease.require()
                await remove_backup(self._repository, backup_id)
        return deleted, size

    async def _removable(self, listing: Listing) -> list[str]:
        """Keys of segments that no kept backup needs and that are old enough."""
        kept = [entry.manifest.place for entry in listing.entries if not entry.buried]
        beat = await self._archive.heartbeat()
        try:
            lines = known_lines(
                *(entry.manifest.facts.head.epochs for entry in listing.entries), beat.epochs if beat else ()
            )
        except ValueError:
            return []
        spans = retention.archive_floor(
            kept,
            await self._archive.spans(),
            list(lines.values()),
            await self._repository.store.now(),
            keep=self._rules.archive_keep,
        )
        return [layout.segment(span.epoch, span.first, span.last) for span in spans]

    async def _sweep_orphans(self, listing: Listing, lease: Lease) -> None:
        """Removes what runs that ended early left behind: data without a manifest, uploads that nobody ends."""
        store = self._repository.store
        before = await store.now() - ORPHAN_AGE
        known = {entry.id for entry in listing.entries}
        untrusted = {name for problem in listing.problems if (name := _id_in(problem))}
        orphans = set()
        async for each in store.list(layout.BACKUPS):
            backup_id = layout.backup_of(each.key)
            if backup_id and backup_id not in known | untrusted and each.modify_time < before:
                orphans.add(backup_id)
        for backup_id in orphans:
            if await store.head(layout.manifest(backup_id)) is None:
                await lease.require()
                await remove_backup(self._repository, backup_id)
        await store.sweep("", before)


def _key_ids(entry: Entry) -> tuple[str, ...]:
    encryption = entry.manifest.encryption
    return (encryption.key_id,) if encryption else ()


def _id_in(problem: str) -> str | None:
    return layout.backup_of(problem.split(" ", 1)[0])
