"""Reads and writes what is said about backups, beside them. What is not signed by a trusted key does not count."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from llm_schema_registry.objects.store import Listed, ObjectDamaged, ObjectNotFound, ObjectStore, ObjectTooLarge
from services.backup.domain import layout, remarks
from services.backup.domain.documents import DocumentInvalid, Signer, Verifier
from services.backup.domain.model import Level, Verification
from services.backup.domain.remarks import Tombstone
from services.backup.domain.retention import SKEW

READ_AT_ONCE = 16
PROBLEMS_MAX = 100


@dataclass(frozen=True, slots=True)
class Evidence:
    """A verification, as far as it decides something."""

    level: Level
    time: datetime
    passed: bool


@dataclass(frozen=True, slots=True)
class Buried:
    """A tombstone, and when it was set by the store's clock."""

    tombstone: Tombstone
    time: datetime


@dataclass(slots=True)
class Remarks:
    """What is said about backups, by their ids. evidence: newest first. problems: of what cannot be trusted."""

    evidence: dict[str, list[Evidence]] = field(default_factory=lambda: defaultdict(list))
    pins: set[str] = field(default_factory=set)
    tombstones: dict[str, Buried] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


_Decode = Callable[[str, bytes, Sequence[Verifier]], object]


class RemarkStore:
    """The remarks in one store. Each is read once: it never changes, but is replaced or removed as a whole."""

    def __init__(self, store: ObjectStore, verifiers: Sequence[Verifier], signer: Signer) -> None:
        self._store = store
        self._verifiers = tuple(verifiers)
        self._signer = signer
        self._read: dict[tuple[str, str], object] = {}

    async def all(self) -> Remarks:
        """About every backup."""
        found, there = await self._remarks(layout.VERIFICATIONS, layout.PINS, layout.TOMBSTONES)
        self._read = {key: value for key, value in self._read.items() if key in there}
        return found

    async def about(self, backup_id: str) -> Remarks:
        """About one backup."""
        found, _ = await self._remarks(
            layout.verifications(backup_id), layout.pin(backup_id), layout.tombstone(backup_id)
        )
        return found

    def forget(self) -> None:
        """Reads everything anew from now on."""
        self._read.clear()

    async def record(self, verification: Verification) -> str:
        """Keeps a piece of evidence, and returns its key."""
        key = layout.verification(
            verification.backup_id, verification.level, verification.time, passed=verification.passed
        )
        await self._store.put(key, remarks.encode_verification(verification, self._signer))
        return key

    async def verification(self, key: str) -> Verification:
        """A piece of evidence. Raises ObjectNotFound, DocumentInvalid, ObjectDamaged, ObjectTooLarge."""
        content, _ = await self._store.get(key)
        return remarks.decode_verification(key, content, self._verifiers)

    async def pin(self, backup_id: str) -> None:
        """Pins a backup, also over a pin that nobody trusts."""
        await self._store.put(layout.pin(backup_id), remarks.encode_pin(backup_id, self._signer))

    async def unpin(self, backup_id: str) -> None:
        """Takes a pin away."""
        await self._store.delete(layout.pin(backup_id))

    async def bury(self, tombstone: Tombstone) -> None:
        """Sets a tombstone, also over one that nobody trusts."""
        await self._store.put(layout.tombstone(tombstone.backup_id), remarks.encode_tombstone(tombstone, self._signer))

    async def dig_out(self, backup_id: str) -> None:
        """Takes a tombstone away."""
        await self._store.delete(layout.tombstone(backup_id))

    async def _remarks(self, verifications: str, pins: str, tombstones: str) -> tuple[Remarks, set[tuple[str, str]]]:
        """What is said in the objects with three prefixes, and which those are."""
        of_verifications, of_pins, of_tombstones = await asyncio.gather(
            self._trusted(verifications, layout.verification_of, remarks.decode_verification),
            self._trusted(pins, layout.pin_of, remarks.require_pin),
            self._trusted(tombstones, layout.tombstone_of, remarks.decode_tombstone),
        )
        found, there = Remarks(), set()
        for listed, remark in (*of_verifications, *of_pins, *of_tombstones):
            there.add((listed.key, listed.etag))
            match remark:
                case Verification():
                    time = _dated(remark.time, listed.modify_time)
                    found.evidence[remark.backup_id].append(Evidence(remark.level, time, remark.passed))
                case Tombstone():
                    found.tombstones[remark.backup_id] = Buried(remark, listed.modify_time)
                case str():
                    found.pins.add(remark)
                case DocumentInvalid() if len(found.problems) < PROBLEMS_MAX:
                    found.problems.append(f"{listed.key} does not count: {remark}")
        for each in found.evidence.values():
            each.sort(key=lambda evidence: evidence.time, reverse=True)
        return found, there

    async def _trusted(
        self, prefix: str, named: Callable[[str], object], decode: _Decode
    ) -> list[tuple[Listed, object]]:
        """What the objects with a prefix say, or why they say nothing (DocumentInvalid)."""
        listed = [each async for each in self._store.list(prefix) if named(each.key) is not None]
        limit = asyncio.Semaphore(READ_AT_ONCE)

        async def read(each: Listed) -> object:
            async with limit:
                return await self._remark(each, decode)

        found = await asyncio.gather(*(read(each) for each in listed))
        return [(each, remark) for each, remark in zip(listed, found, strict=True) if remark is not None]

    async def _remark(self, listed: Listed, decode: _Decode) -> object:
        """A remark, why it is none, or None when it is gone. What is wrong is found anew each time."""
        known = self._read.get((listed.key, listed.etag))
        if known is not None:
            return known
        try:
            content, _ = await self._store.get(listed.key)
            known = decode(listed.key, content, self._verifiers)
        except ObjectNotFound:
            return None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            return DocumentInvalid(str(invalid))
        self._read[listed.key, listed.etag] = known
        return known


def _dated(told: datetime, stored: datetime) -> datetime:
    """When something was said: one that lay in the store before its own time was dated by a wrong clock."""
    return told if told <= stored + SKEW else stored
