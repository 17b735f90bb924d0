"""A dump on its way back out of the store: every digest and tag compared before a byte is believed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from llm_schema_registry import errors
from llm_schema_registry.objects.store import InvalidRange, ObjectDamaged, ObjectNotFound, ObjectStore
from services.backup.domain.compression import Corrupt, Decompressor, TooLong, Truncated
from services.backup.domain.model import Manifest, ObjectRecord
from services.backup.domain.sealing import HEADER_BYTES, DataKey, Header, Opener, Tampered, open_chunk
from services.backup.usecases.data_keys import DataKeys
from services.backup.usecases.storing import context

PLAIN_BYTES = 1024 * 1024
"""About as much as is unpacked at a time: a stored mebibyte may stand for a hundred."""


class DumpReader:
    """Reads the dumps of one store back."""

    def __init__(self, store: ObjectStore, keys: DataKeys) -> None:
        self._store = store
        self._keys = keys

    async def read(self, manifest: Manifest, tell: Callable[[int, int], None]) -> AsyncGenerator[bytes, None]:
        """The dump, in pieces, as pg_dump wrote it.

        tell: called with the bytes given out and the number of objects read. Raises errors.BackupDamaged that names the
        object and the place, errors.KeyUnavailable. A piece that is given out is authentic where the backup is sealed;
        that all of them are right and none is missing is known only when the iterator has ended.
        """
        key = await self._key(manifest)
        unpack = _Unpacking(manifest)
        for number, record in enumerate(manifest.objects, start=1):
            opener = None if key is None else Opener(key, context(manifest.id, number))
            async with aclosing(self._checked(record)) as checked:
                async for stored in checked:
                    async with aclosing(self._in_thread(record, unpack.pieces(stored, opener))) as pieces:
                        async for plain in pieces:
                            yield plain
                    tell(unpack.given, number)
            async with aclosing(self._in_thread(record, unpack.rest(opener))) as pieces:
                async for plain in pieces:
                    yield plain
        unpack.finish()

    async def check_ends(self, manifest: Manifest) -> None:
        """Opens the first and the last chunk of every object: the keys fit, and the ends are where they should be.

        Of a backup that is not sealed it reads the first and the last bytes alone. Raises as `read` does.
        """
        key = await self._key(manifest)
        for number, record in enumerate(manifest.objects, start=1):
            if key is None:
                await self._range(record, 0, min(64, record.size_bytes))
                await self._range(record, max(0, record.size_bytes - 64), min(64, record.size_bytes))
                continue
            try:
                header = Header.parse(await self._range(record, 0, HEADER_BYTES))
                last = header.chunk_count(record.size_bytes) - 1
                for index in sorted({0, last}):
                    start, length = header.chunk_span(record.size_bytes, index)
                    chunk = await self._range(record, start, length)
                    place = context(manifest.id, number)
                    await asyncio.to_thread(open_chunk, key, place, header, index, chunk, last=index == last)
            except Tampered as tampered:
                raise damaged(record.key, tampered.offset, str(tampered)) from None

    async def _key(self, manifest: Manifest) -> DataKey | None:
        return None if manifest.encryption is None else await self._keys.open(manifest.encryption.key_id)

    async def _range(self, record: ObjectRecord, start: int, length: int) -> bytes:
        try:
            content = b"".join([piece async for piece in self._store.read(record.key, start=start, length=length)])
        except ObjectNotFound:
            raise damaged(record.key, 0, "the object is not there") from None
        except (ObjectDamaged, InvalidRange) as failed:
            raise damaged(record.key, start, str(failed)) from None
        if len(content) != length:
            raise damaged(record.key, start, f"{len(content)} bytes came of {length}")
        return content

    async def _checked(self, record: ObjectRecord) -> AsyncGenerator[bytes, None]:
        """An object's bytes, each part compared as soon as it is whole, then all of them."""
        comparing = _Comparing(record)
        try:
            async for piece in self._store.read(record.key):
                await asyncio.to_thread(comparing.add, piece)
                yield piece
        except ObjectNotFound:
            raise damaged(record.key, 0, "the object is not there") from None
        except ObjectDamaged as failed:
            raise damaged(record.key, comparing.seen, str(failed)) from None
        comparing.finish()

    async def _in_thread(self, record: ObjectRecord, pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The pieces, gathered in a thread to about PLAIN_BYTES each."""

        def gather() -> bytes:
            gathered = bytearray()
            for piece in pieces:
                gathered += piece
                if len(gathered) >= PLAIN_BYTES:
                    break
            return bytes(gathered)

        try:
            while plain := await asyncio.to_thread(gather):
                yield plain
        except Tampered as tampered:
            raise damaged(record.key, tampered.offset, str(tampered)) from None
        except (Corrupt, Truncated, TooLong) as failed:
            raise damaged(record.key, 0, str(failed)) from None


class _Comparing:
    """Compares an object's bytes with its record while they pass."""

    def __init__(self, record: ObjectRecord) -> None:
        self._record = record
        self._whole = hashlib.sha256()
        self._part = hashlib.sha256()
        self._part_left = record.parts[0].size_bytes if record.parts else 0
        self._part_index = 0
        self.seen = 0

    def add(self, piece: bytes) -> None:
        """Takes the next bytes. Raises BackupDamaged at the first part that is wrong, or for bytes too many."""
        self._whole.update(piece)
        rest = memoryview(piece)
        while rest:
            if self._part_index >= len(self._record.parts):
                raise damaged(self._record.key, self.seen, "the object is longer than it was")
            taken = rest[: self._part_left]
            self._part.update(taken)
            self.seen += len(taken)
            self._part_left -= len(taken)
            rest = rest[len(taken) :]
            if self._part_left == 0:
                self._end_part()

    def _end_part(self) -> None:
        known = self._record.parts[self._part_index]
        if self._part.digest() != known.sha256:
            start = self.seen - known.size_bytes
            raise damaged(
                self._record.key, start, f"the SHA-256 of part {self._part_index + 1} is not what was written"
            )
        self._part_index += 1
        self._part = hashlib.sha256()
        if self._part_index < len(self._record.parts):
            self._part_left = self._record.parts[self._part_index].size_bytes

    def finish(self) -> None:
        """Raises BackupDamaged when bytes are missing or the whole is another one."""
        if self.seen != self._record.size_bytes or self._part_index != len(self._record.parts):
            raise damaged(self._record.key, self.seen, f"the object ends early, after {self.seen} bytes")
        if self._whole.digest() != self._record.sha256:
            raise damaged(self._record.key, 0, "the SHA-256 of the object is not what was written")


class _Unpacking:
    """Opens, decompresses and digests a dump's bytes, across its objects."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._decompressor = Decompressor(manifest.compression, output_bytes_max=manifest.dump_bytes)
        self._digest = hashlib.sha256()
        self.given = 0

    def pieces(self, stored: bytes, opener: Opener | None) -> Iterator[bytes]:
        """What comes out of the next stored bytes."""
        yield from self._out(stored if opener is None else opener.update(stored))

    def rest(self, opener: Opener | None) -> Iterator[bytes]:
        """What comes out at the end of an object."""
        if opener is not None:
            yield from self._out(opener.finish())

    def finish(self) -> None:
        """Raises BackupDamaged when the dump is not the one that was stored."""
        last = self._manifest.objects[-1].key
        try:
            self._decompressor.finish()
        except Truncated as failed:
            raise damaged(last, 0, str(failed)) from None
        if self.given != self._manifest.dump_bytes or self._digest.digest() != self._manifest.dump_sha256:
            raise damaged(last, 0, "what came out is not the dump that was stored")

    def _out(self, compressed: bytes) -> Iterator[bytes]:
        for piece in self._decompressor.pieces(compressed):
            self._digest.update(piece)
            self.given += len(piece)
            yield piece


def damaged(key: str, offset: int, problem: str) -> errors.BackupDamaged:
    """A backup that must not be restored."""
    return errors.BackupDamaged(
        f"{key}, at byte {offset}: {problem}. Take an older backup or another store's copy.",
        metadata={"key": key, "offset": offset},
    )
