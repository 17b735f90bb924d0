"""The catalog: what backups there are, by the object store's own word.

A backup exists when its signed manifest does. What changes about it (verifications, pins, tombstones) are objects
beside it, signed as well. None of them ever changes, so each is read once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    Listed,
    ObjectDamaged,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
)
from llm_schema_registry.operations import ids
from services.backup.domain import chain, layout, manifest
from services.backup.domain.chain import Link
from services.backup.domain.documents import DocumentInvalid, Signer, Verifier, decode_signed
from services.backup.domain.manifest import ManifestInvalid
from services.backup.domain.model import Kind, Level, Manifest, Verification
from services.backup.domain.remarks import Tombstone
from services.backup.usecases.remarks import Evidence, Remarks, RemarkStore

READ_AT_ONCE = 16
PROBLEMS_MAX = 100
VERIFICATIONS_MAX = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A backup with all that is said about it. sha256: of its manifest as stored. evidence: newest first.

    buried: when retention decided that it goes; None while it stays.
    """

    manifest: Manifest
    sha256: bytes
    evidence: tuple[Evidence, ...] = ()
    pinned: bool = False
    buried: datetime | None = None

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def level(self) -> Level:
        """Highest level that a verification passed, unless a later one found damage at that level or below."""
        good = Level.V0
        for each in reversed(self.evidence):
            good = max(good, each.level) if each.passed else Level(min(good, max(0, each.level - 1)))
        return good

    @property
    def doubtful(self) -> bool:
        """Whether it may hold what a restore is to undo: a safety backup, or one that was restored and did not make a
        registry."""
        restored = next((each for each in self.evidence if each.level >= Level.V4), None)
        return self.manifest.kind is Kind.SAFETY or (restored is not None and not restored.passed)

    @property
    def verified_time(self) -> datetime | None:
        """When the level was reached last."""
        return next((each.time for each in self.evidence if each.passed and each.level >= self.level), None)


@dataclass(frozen=True, slots=True)
class Listing:
    """All backups, newest first, and what of the rest cannot be trusted or was taken away, in words.

    untrusted: ids of all backups whose manifests cannot be; nothing may be concluded about them, and nothing deleted.
    tombstones: of backups that are being deleted, or were.
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    untrusted: frozenset[str] = frozenset()
    tombstones: tuple[Tombstone, ...] = ()

    def entry(self, backup_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == backup_id), None)

    @property
    def referred(self) -> frozenset[bytes]:
        """Digests of manifests that others name as the one before them: a tombstone with one of them is needed."""
        return frozenset(each.manifest.previous_sha256 for each in self.entries if each.manifest.previous_sha256)


class Catalog:
    """The backups of one store."""

    def __init__(self, store: ObjectStore, verifiers: Sequence[Verifier], signer: Signer) -> None:
        """signer: of what is said about backups from here on."""
        self.store = store
        self.remarks = RemarkStore(store, verifiers, signer)
        self._verifiers = tuple(verifiers)
        self._cluster: str | None = None
        self._read: dict[tuple[str, str], tuple[Manifest, bytes]] = {}

    async def listing(self) -> Listing:
        """Every backup, newest first, tombstones included."""
        listed = [each async for each in self.store.list(layout.BACKUPS) if layout.manifest_of(each.key)]
        # After the manifests: whatever is deleted meanwhile has its tombstone by then.
        remarks = await self.remarks.all()
        limit = asyncio.Semaphore(READ_AT_ONCE)

        async def read(listed: Listed) -> tuple[Manifest, bytes] | str | None:
            async with limit:
                return await self._manifest(listed)

        entries, problems, untrusted, vanished = [], [], set(), set()
        for each, found in zip(listed, await asyncio.gather(*(read(each) for each in listed)), strict=True):
            if found is None:
                vanished.add(str(layout.manifest_of(each.key)))  # Deleted since it was listed.
            elif isinstance(found, str):
                problems.append(found)
                untrusted.add(str(layout.manifest_of(each.key)))
            else:
                entries.append(_entry(*found, remarks))
        there = {(each.key, each.etag) for each in listed}
        self._read = {key: value for key, value in self._read.items() if key in there}
        entries.sort(key=lambda entry: entry.id, reverse=True)
        tombstones = tuple(each.tombstone for each in remarks.tombstones.values())
        problems += chain.missing(
            [Link(each.id, each.sha256, each.manifest.previous_sha256) for each in reversed(entries)],
            {each.manifest_sha256 for each in tombstones},
            untrusted | vanished,
        )
        problems += remarks.problems
        return Listing(tuple(entries), tuple(problems[:PROBLEMS_MAX]), frozenset(untrusted), tombstones)

    async def get(self, backup_id: str) -> Entry:
        """A backup. Raises errors.BackupNotFound, errors.BackupDamaged for a manifest that cannot be trusted."""
        if not ids.is_id(backup_id):
            raise _unknown(backup_id)
        key = layout.manifest(backup_id)
        stored = await self.store.head(key)
        if stored is None:
            raise _unknown(backup_id)
        found = await self._manifest(Listed(key, stored.size_bytes, stored.etag, stored.modify_time))
        if found is None:
            raise _unknown(backup_id)
        if isinstance(found, str):
            raise errors.BackupDamaged(found, metadata={"key": key})
        return _entry(*found, await self.remarks.about(backup_id))

    async def record(self, verification: Verification) -> str:
        """Keeps the evidence of a verification, and returns its key.

        It is dated by the store's clock, and behind all that is known of the backup: the last word counts.
        """
        known = (await self.remarks.about(verification.backup_id)).evidence.get(verification.backup_id)
        time = await self.store.now()
        if known:
            time = max(time, known[0].time + timedelta.resolution)
        return await self.remarks.record(replace(verification, time=time))

    async def verifications(self, backup_id: str) -> tuple[Verification, ...]:
        """The newest verifications of a backup that count, newest first."""
        keys = [each.key async for each in self.store.list(layout.verifications(backup_id))]
        found = [(key, layout.verification_of(key)) for key in keys]
        newest = sorted(
            ((key, told) for key, told in found if told is not None), key=lambda each: each[1].time, reverse=True
        )
        read = []
        for key, _ in newest[:VERIFICATIONS_MAX]:
            # What is gone, or does not count, is left out: the listing tells of it.
            with suppress(errors.OperationNotFound, errors.BackupDamaged):
                read.append(await self.verification(key))
        return tuple(read)

    async def verification(self, key: str) -> Verification:
        """A verification by its object's key. Raises errors.OperationNotFound when it is gone, BackupDamaged."""
        try:
            return await self.remarks.verification(key)
        except ObjectNotFound:
            raise errors.OperationNotFound(f"the verification {key} is gone with its backup") from None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            raise errors.BackupDamaged(f"{key} does not count: {invalid}", metadata={"key": key}) from None

    async def write(self) -> Listing:
        """Writes `catalog.json`, what there is as one page for people and other programs, and returns it.

        Nothing here reads it: the manifests are the truth.
        """
        listing = await self.listing()
        page = {
            "note": "Written for people. The manifests are the truth.",
            "backups": [_page(entry) for entry in listing.entries],
            "problems": list(listing.problems),
        }
        await self.store.put(layout.CATALOG, json.dumps(page, indent=1).encode())
        return listing

    async def rebuild(self) -> tuple[Listing, list[str]]:
        """Reads every manifest anew, compares what the store lists with what they say, and writes the page.

        Returns what there is, and what is wrong: what the listing tells, objects that are missing or have another size,
        objects that belong to no backup.
        """
        self._read.clear()
        self.remarks.forget()
        self._cluster = None
        listing = await self.write()
        sizes = {each.key: each.size_bytes async for each in self.store.list(layout.BACKUPS)}
        keys = {told[0] async for each in self.store.list(layout.KEYS) if (told := layout.key_of(each.key))}
        problems = list(listing.problems)
        wanted = set()
        for entry in listing.entries:
            wanted.add(layout.manifest(entry.id))
            encryption = entry.manifest.encryption
            if encryption is not None and encryption.key_id not in keys:
                problems.append(f"the data key {encryption.key_id} of backup {entry.id} is missing")
            for record in entry.manifest.objects:
                wanted.add(record.key)
                size = sizes.get(record.key)
                if size is None:
                    problems.append(f"{record.key} is missing")
                elif size != record.size_bytes:
                    problems.append(f"{record.key} has {size} bytes, {record.size_bytes} were written")
        alone = [key for key in sizes if key not in wanted and layout.backup_of(key) not in listing.untrusted]
        problems += [f"{key} belongs to no backup, or to one that is being made" for key in alone]
        return listing, problems[:PROBLEMS_MAX]

    async def pin(self, backup_id: str, *, pinned: bool) -> Entry:
        """Pins or unpins a backup and returns it. Raises as `get` does."""
        entry = await self.get(backup_id)
        await (self.remarks.pin(backup_id) if pinned else self.remarks.unpin(backup_id))
        return replace(entry, pinned=pinned)

    async def _manifest(self, listed: Listed) -> tuple[Manifest, bytes] | str | None:
        """A manifest with its digest, or what is wrong with it; None when it is gone.

        What is wrong is found anew each time: a store may have returned once what it does not hold.
        """
        found = self._read.get((listed.key, listed.etag)) or await self._read_manifest(listed.key)
        if isinstance(found, tuple):
            self._read[listed.key, listed.etag] = found
            cluster = await self._cluster_id()
            if cluster not in {None, found[0].cluster_id}:
                return f"{listed.key} cannot be trusted: it is of registry {found[0].cluster_id}, not of {cluster}"
        return found

    async def _read_manifest(self, key: str) -> tuple[Manifest, bytes] | str | None:
        try:
            content, _ = await self.store.get(key)
            found = manifest.decode(content, self._verifiers)
        except ObjectNotFound:
            return None
        except (ManifestInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            return f"{key} cannot be trusted: {invalid}"
        if found.id != layout.manifest_of(key):
            return f"{key} cannot be trusted: it is the manifest of {found.id}"
        return found, hashlib.sha256(content).digest()

    async def _cluster_id(self) -> str | None:
        """Whose backups these are; None when nothing that can be trusted says so."""
        if self._cluster is None:
            with suppress(ObjectNotFound, ObjectDamaged, ObjectTooLarge, DocumentInvalid):
                content, _ = await self.store.get(layout.REPOSITORY)
                told = decode_signed("repository", content, self._verifiers).get("cluster_id")
                self._cluster = told if isinstance(told, str) else None
        return self._cluster


def _entry(known: Manifest, sha256: bytes, remarks: Remarks) -> Entry:
    buried = remarks.tombstones.get(known.id)
    return Entry(
        manifest=known,
        sha256=sha256,
        evidence=tuple(remarks.evidence.get(known.id, ())),
        pinned=known.id in remarks.pins,
        buried=buried.time if buried else None,
    )


def _page(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "id": manifest.id,
        "kind": manifest.kind.value,
        "end_time": manifest.end_time.isoformat(),
        "place": str(manifest.place),
        "stored_bytes": manifest.stored_bytes,
        "database_bytes": manifest.facts.database_bytes,
        "server_version": manifest.facts.server_version,
        "verified": entry.level.name,
        "pinned": entry.pinned,
        "being_deleted": entry.buried is not None,
        "manifest_sha256": entry.sha256.hex(),
    }


def _unknown(backup_id: str) -> errors.BackupNotFound:
    return errors.BackupNotFound(
        f"there is no backup {backup_id[:64]!r}; ListBackups shows those there are",
        metadata={"backup_id": backup_id[:64]},
    )
