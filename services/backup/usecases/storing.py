"""A dump on its way into the store: compressed, sealed, cut into objects, digested at every stage."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.store import PART_BYTES, Lock, ObjectStore, Placement
from llm_schema_registry.operations.ports import Dice
from services.backup.domain import layout
from services.backup.domain.compression import Compression, Compressor
from services.backup.domain.model import Kind, ObjectRecord, PartRecord
from services.backup.domain.sealing import PREFIX_BYTES, SALT_BYTES, DataKey, Sealer
from services.backup.ports import Failpoints
from services.backup.usecases.ahead import ahead

OBJECT_BYTES_MAX = 4 * 1024**3
OBJECTS_MAX = 10_000
DURABLE = frozenset({Kind.DAILY, Kind.MONTHLY})
"""Kinds that are kept for more than the thirty days that the cheaper storage class bills at least."""


@dataclass(frozen=True, slots=True)
class StoredDump:
    """What was stored of a dump, and what the dump was before."""

    dump_bytes: int
    dump_sha256: bytes
    objects: tuple[ObjectRecord, ...]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How a dump is stored. key: None stores it unsealed. object_bytes_max: about where a further object begins."""

    compression: Compression
    level: int
    key: DataKey | None
    placement: Placement
    object_bytes_max: int = OBJECT_BYTES_MAX


def placement(kind: Kind, lock_until: datetime | None) -> Placement:
    """How data of a backup of a kind is kept. lock_until: None when nothing is to be locked, or it is over."""
    if kind not in DURABLE:
        return Placement("STANDARD")
    return Placement("STANDARD_IA", Lock("COMPLIANCE", lock_until) if lock_until is not None else None)


def context(backup_id: str, number: int) -> str:
    """What binds sealed bytes to their place: an object of another backup, or another of this one, never opens."""
    return f"backup/{backup_id}/{number}"


class DumpStore:
    """Stores the dumps of one repository."""

    def __init__(self, store: ObjectStore, dice: Dice, failpoints: Failpoints) -> None:
        self._store = store
        self._dice = dice
        self._failpoints = failpoints

    async def save(
        self, backup_id: str, dump: AsyncIterator[bytes], wrapping: Wrapping, tell: Callable[[int, int], None]
    ) -> StoredDump:
        """Stores the whole dump as objects of a backup, and returns what was stored.

        tell: called with the bytes of the dump and the number of stored parts so far. Whatever fails, the object that
        was being written is aborted; those before it are for the caller to remove. Memory does not grow with the dump.
        """
        async with aclosing(ahead(dump)) as pieces:
            return await self._save(backup_id, pieces, wrapping, tell)

    async def _save(
        self, backup_id: str, dump: AsyncIterator[bytes], wrapping: Wrapping, tell: Callable[[int, int], None]
    ) -> StoredDump:
        pipe = _Pipe(Compressor(wrapping.compression, wrapping.level))
        objects: list[ObjectRecord] = []
        parts_done = 0
        while not pipe.ended:
            number = len(objects) + 1
            if number > OBJECTS_MAX:
                raise errors.BackupFailed(
                    f"The dump takes more than {OBJECTS_MAX} objects of {wrapping.object_bytes_max} bytes."
                )
            key = layout.data(backup_id, number)
            sealer = self._sealer(backup_id, number, wrapping.key)
            digest = hashlib.sha256()
            size = 0
            async with self._store.upload(key, placement=wrapping.placement) as upload:
                while size < wrapping.object_bytes_max and not pipe.ended:
                    piece = await anext(dump, None)
                    stored = await asyncio.to_thread(pipe.step, piece, sealer, digest)
                    size += len(stored)
                    await upload.write(stored)
                    tell(pipe.taken, parts_done + size // PART_BYTES)
                    await self._failpoints.reached("backup.piece_written")
                if sealer is not None:
                    rest = sealer.finish()
                    digest.update(rest)
                    await upload.write(rest)
                await self._failpoints.reached("backup.before_complete")
                kept, parts = await upload.complete()
            parts_done += len(parts)
            tell(pipe.taken, parts_done)
            await self._failpoints.reached("backup.object_complete")
            records = tuple(PartRecord(part.size_bytes, part.sha256) for part in parts)
            objects.append(ObjectRecord(key, kept.size_bytes, digest.digest(), records))
        return StoredDump(pipe.taken, pipe.digest.digest(), tuple(objects))

    def _sealer(self, backup_id: str, number: int, key: DataKey | None) -> Sealer | None:
        if key is None:
            return None
        return Sealer(key, context(backup_id, number), salt=self._dice(SALT_BYTES), prefix=self._dice(PREFIX_BYTES))


class _Pipe:
    """The stages that work on one piece after the other, in a thread: they let go of the interpreter's lock."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.digest = hashlib.sha256()
        self.taken = 0
        self.ended = False

    def step(self, piece: bytes | None, sealer: Sealer | None, stored: hashlib._Hash) -> bytes:
        """What is stored of the next piece of the dump. None ends it."""
        if piece is None:
            self.ended = True
            compressed = self._compressor.finish()
        else:
            self.digest.update(piece)
            self.taken += len(piece)
            compressed = self._compressor.update(piece)
        out = compressed if sealer is None else sealer.update(compressed)
        stored.update(out)
        return out
