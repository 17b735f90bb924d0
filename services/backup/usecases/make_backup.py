"""Makes a backup: one snapshot, its dump and its facts, then the manifest, which alone makes it exist."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.store import Placement
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import PATIENCE_SECONDS, Lease
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain import layout, manifest
from services.backup.domain.compression import Compression
from services.backup.domain.model import DatabaseFacts, EncryptionRecord, Kind, Level, Manifest, Verification
from services.backup.domain.remarks import Tombstone
from services.backup.domain.sealing import ALGORITHM, CHUNK_BYTES, DataKey
from services.backup.ports import Snapshot, Source
from services.backup.usecases.catalog import Listing
from services.backup.usecases.remove import remove_backup
from services.backup.usecases.repository import WRITING, Repository
from services.backup.usecases.storing import OBJECT_BYTES_MAX, DumpStore, StoredDump, Wrapping, placement
from services.backup.usecases.verify import Verify

DUMP_FORMAT = "pgc/1"
DUMP_BYTES_MIN = 1024
"""An archive of pg_dump with the registry's tables in it is never smaller."""
CLEANING_SECONDS = 30.0
SKEW_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backup that is to be made. slot: the scheduled moment it is for; None when somebody asked for it."""

    kind: Kind
    slot: datetime | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class BackupRules:
    """How backups are made.

    lock_days: how long daily and monthly backups are locked in a store that can lock; 0 locks none.
    shrink_max: what part of the versions of the backup before may be missing; more looks like a loss, and is refused
    for scheduled kinds.
    """

    code_version: str
    compression: Compression = "zstd"
    compression_level: int = 3
    object_bytes_max: int = OBJECT_BYTES_MAX
    lock_days: int = 0
    shrink_max: float = 0.5


@dataclass(slots=True)
class _Attempt:
    """One backup on its way. bytes_expected: of its dump, as many as the newest backup's had; 0 for the first one.

    key: what it is sealed under, once made. manifest_sha256: once it may be stored.
    """

    backup_id: str
    wanted: Wanted
    lease: Lease
    bytes_expected: int
    key: DataKey | None = None
    manifest_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """What came of a snapshot."""

    facts: DatabaseFacts
    dump: StoredDump
    dump_version: str


class MakeBackup:
    """Makes backups of one registry in one repository."""

    kind = OperationKind.BACKUP

    def __init__(self, source: Source, repository: Repository, verify: Verify, rules: BackupRules) -> None:
        self._source = source
        self._repository = repository
        self._verify = verify
        self._rules = rules

    async def run(self, wanted: Wanted, running: Running) -> Subject:
        """Makes the backup, verified to V2 before it counts, and returns its id.

        Atomic: whatever ends it early leaves no backup, and what was stored is removed as far as the store can be
        reached; what is left over is swept later. When the store stops answering in the very commit there may be a
        backup all the same, and a whole one. Raises what its steps raise: errors.DatabaseUnavailable,
        DatabaseUnfit, ToolMismatch, WrongCluster, KeyUnavailable, OperationRunning, LeaseLost, BackupFailed,
        BackupDamaged, ObjectStoreUnavailable, ObjectStoreDenied.
        """
        repository = self._repository
        async with repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS) as lease:
            listing = await repository.catalog.listing()
            if wanted.slot is not None and (done := _made(listing, wanted)):
                return Subject("backup", done)
            expected = listing.entries[0].manifest.dump_bytes if listing.entries else 0
            attempt = _Attempt(self._new_id(listing), wanted, lease, expected)
            running.about(Subject("backup", attempt.backup_id))
            try:
                await self._make(attempt, running)
            except BaseException:
                await to_the_end(self._remove(attempt))
                raise
        return Subject("backup", attempt.backup_id)

    def _new_id(self, listing: Listing) -> str:
        """An id after all others, also when the clock went back since the newest one was made."""
        repository = self._repository
        found = repository.new_id()
        newest = max((entry.id for entry in listing.entries), default="")
        if found > newest:
            return found
        return ids.new_id(ids.time_of(newest) + timedelta(milliseconds=1), repository.dice(ids.RANDOM_BYTES))

    async def _make(self, attempt: _Attempt, running: Running) -> None:
        repository, clock, backup_id = self._repository, self._repository.clock, attempt.backup_id
        began = clock.now()
        async with running.step("check"):
            await self._require_clock()
            head = await self._source.head()
            await repository.bind(head.cluster_id)
            if repository.keys.enabled:
                attempt.key = await repository.keys.create(head.cluster_id, f"backup/{backup_id}")
            await repository.failpoints.reached("backup.checked")
        taken = await self._take(attempt, running)
        async with running.step("verify") as say:
            listing = await repository.catalog.listing()
            before = listing.entries[0] if listing.entries else None
            self._require_plausible(attempt.wanted, taken, before.manifest if before else None)
            key = attempt.key
            made = Manifest(
                id=backup_id,
                cluster_id=taken.facts.head.cluster_id,
                kind=attempt.wanted.kind,
                slot=attempt.wanted.slot,
                start_time=began,
                end_time=clock.now(),
                lease_generation=attempt.lease.generation,
                previous_sha256=before.sha256 if before else None,
                code_version=self._rules.code_version,
                dump_version=taken.dump_version,
                dump_format=DUMP_FORMAT,
                dump_bytes=taken.dump.dump_bytes,
                dump_sha256=taken.dump.dump_sha256,
                compression=self._rules.compression,
                encryption=EncryptionRecord(ALGORITHM, key.id, CHUNK_BYTES) if key else None,
                facts=taken.facts,
                objects=taken.dump.objects,
            )
            verified = clock.monotonic()
            await self._verify.require_whole(made)
            verification = Verification(backup_id, Level.V2, made.end_time, (), clock.monotonic() - verified)
            say("the store has what was written, and the keys of a restore open it")
        async with running.step("commit") as say:
            await self._commit(made, attempt)
            # A record that cannot be written now is made by the next verification.
            with suppress(errors.Error):
                await repository.catalog.record(verification)
                await repository.catalog.write()
            say(f"{backup_id} at {made.place}, {made.stored_bytes} bytes stored of {made.dump_bytes}")

    async def _require_clock(self) -> None:
        """Raises BackupFailed when this machine's clock and the store's differ: retention goes by the times of backups.

        Source: pgBackRest's ClockError; RequestTimeTooSkewed of S3, which comes at 15 minutes.
        """
        ahead = (self._repository.clock.now() - await self._repository.store.now()).total_seconds()
        if abs(ahead) > SKEW_SECONDS_MAX:
            raise errors.BackupFailed(
                f"The clock of this machine is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the object"
                " store's: a backup would be kept and deleted by a wrong time. Set this machine's clock (NTP).",
                metadata={"ahead_seconds": round(ahead)},
            )

    async def _take(self, attempt: _Attempt, running: Running) -> _Taken:
        """Stores the dump and reads the facts, both of one snapshot: the dump first, whose rows are facts as well."""
        repository = self._repository
        wrapping = self._wrapping(attempt.wanted.kind, attempt.key)

        async def store(snapshot: Snapshot) -> StoredDump:
            def tell(dump_bytes: int, parts: int) -> None:
                # One that has grown beyond what was expected says nothing of its end.
                total = attempt.bytes_expected if dump_bytes <= attempt.bytes_expected else 0
                running.tell(bytes_done=dump_bytes, bytes_total=total, rows_done=snapshot.dumped_rows, parts_done=parts)

            dumps = DumpStore(repository.store, repository.dice, repository.failpoints)
            async with aclosing(snapshot.dump()) as dump:
                return await dumps.save(attempt.backup_id, dump, wrapping, tell)

        async with running.step("dump") as say, self._source.snapshot() as snapshot:
            await repository.failpoints.reached("backup.snapshot_open")
            dump = await store(snapshot)
            facts = await snapshot.facts()
            if dump.dump_bytes < DUMP_BYTES_MIN:
                raise errors.BackupFailed(f"pg_dump wrote {dump.dump_bytes} bytes, which cannot be a registry")
            say(f"{dump.dump_bytes} bytes of {sum(table.rows for table in facts.tables)} rows")
            return _Taken(facts, dump, snapshot.dump_version)

    def _wrapping(self, kind: Kind, key: DataKey | None) -> Wrapping:
        """How a backup of this kind is stored."""
        rules = self._rules
        until = self._repository.clock.now() + timedelta(days=rules.lock_days) if rules.lock_days else None
        placed = placement(kind, until)
        return Wrapping(rules.compression, rules.compression_level, key, placed, rules.object_bytes_max)

    def _require_plausible(self, wanted: Wanted, taken: _Taken, before: Manifest | None) -> None:
        """Raises BackupFailed when a scheduled backup would hold far less than the one before it."""
        scheduled = wanted.kind not in {Kind.MANUAL, Kind.SAFETY}
        if before is None or not scheduled or before.place.epoch != taken.facts.head.epoch:
            return
        now, then = taken.facts.rows("versions"), before.facts.rows("versions")
        if then and now < then * (1 - self._rules.shrink_max):
            raise errors.BackupFailed(
                f"The registry holds {now} versions, the backup before ({before.id}) held {then}: that looks like a"
                " loss. If it is meant, make one backup by hand (kind MANUAL); the schedule goes on from there.",
                metadata={"versions": now, "versions_before": then, "backup_id": before.id},
            )

    async def _commit(self, made: Manifest, attempt: _Attempt) -> None:
        """Writes the manifest while this process holds the office. Raises LeaseLost when that is no longer so.

        The caller takes back what was written then.
        """
        repository = self._repository
        content = manifest.encode(made, repository.signer)
        if attempt.wanted.pinned or attempt.wanted.kind is Kind.SAFETY:
            # Before the manifest: a backup that is to be pinned is never without.
            await repository.catalog.remarks.pin(made.id)
        await repository.failpoints.reached("backup.before_commit")
        await attempt.lease.require()
        attempt.manifest_sha256 = hashlib.sha256(content).digest()
        lock = self._wrapping(made.kind, None).placement.lock
        await repository.store.put(
            layout.manifest(made.id), content, if_absent=True, placement=Placement("STANDARD", lock)
        )
        await repository.failpoints.reached("backup.committed")
        # A process that slept between the two lines above may have written what nobody expected any more.
        await attempt.lease.require()

    async def _remove(self, attempt: _Attempt) -> None:
        """Removes what a failed run stored, the manifest first. What cannot be removed now is swept later."""
        key_ids = (attempt.key.id,) if attempt.key else ()
        with suppress(errors.Error, TimeoutError):
            async with asyncio.timeout(CLEANING_SECONDS):
                if attempt.manifest_sha256 is not None:
                    # Another process may have listed it, and named it in the manifest of its own backup.
                    why = "its process lost the office while it was committed"
                    tombstone = Tombstone(attempt.backup_id, attempt.manifest_sha256, why)
                    await self._repository.catalog.remarks.bury(tombstone)
                await remove_backup(self._repository, attempt.backup_id, key_ids)


def _made(listing: Listing, wanted: Wanted) -> str | None:
    """The backup of this slot, when another process was faster."""
    same = (
        entry.id
        for entry in listing.entries
        if entry.manifest.kind is wanted.kind and entry.manifest.slot == wanted.slot and not entry.buried
    )
    return next(same, None)
