"""Small objects and locks: what is written with one request."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any

from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.s3_bucket import Bucket, digest, etag_of, lock_of, moment_of, quoted, stored_of
from llm_schema_registry.objects.s3_read import Reading
from llm_schema_registry.objects.s3_refusals import Refusal
from llm_schema_registry.objects.store import (
    SMALL_BYTES_MAX,
    Lock,
    ObjectChanged,
    ObjectDamaged,
    ObjectExists,
    ObjectLocked,
    ObjectLockUnsupported,
    ObjectNotFound,
    ObjectTooLarge,
    Placement,
    Stored,
)

READS_MAX = 2
"""Of a small object whose bytes do not have the checksum that the store tells."""


class Writer:
    """Writes small objects; keeps writers of one key in this process apart where the store does not."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, key: str, *, needed: bool) -> AsyncIterator[None]:
        """One writer of a key at a time, in this process, when that is needed."""
        if not needed:
            yield
            return
        lock = self._turns.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def put(
        self, key: str, content: bytes, *, if_absent: bool, if_match: str | None, placement: Placement | None
    ) -> Stored:
        """See ObjectStore.put."""
        conditional = if_absent or if_match is not None
        native = (await self._bucket.found()).capabilities.conditional_writes
        async with self.turn(key, needed=conditional and not native):
            if conditional and not native:
                return await self._put_compared(key, content, if_match, placement)
            conditions: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
            if if_match is not None:
                conditions = {"IfMatch": quoted(if_match)}
            try:
                return await self._put(key, content, placement, **conditions)
            except Refusal:
                return await self._same(key, content, if_match)

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """See ObjectStore.get."""
        for _ in range(READS_MAX):
            told: list[Stored] = []

            def opened(stored: Stored, told: list[Stored] = told) -> None:
                if stored.size_bytes > SMALL_BYTES_MAX:
                    raise ObjectTooLarge(f"{key} has {stored.size_bytes} bytes; read it with `read`")
                told.append(stored)

            content = b"".join([piece async for piece in Reading(self._bucket, key, opened=opened).pieces()])
            if told[0].sha256 is None or told[0].sha256 == await digest(content, "sha256"):
                return content, told[0]
        raise ObjectDamaged(f"{self._bucket.options.place} returns {key} with other bytes than its checksum is of")

    async def lock(self, key: str, lock: Lock) -> None:
        """See ObjectStore.extend_lock."""
        if not (await self._bucket.found()).capabilities.object_lock:
            raise ObjectLockUnsupported(f"{self._bucket.options.place} was not created with object lock")
        if await self._locked(key, lock):
            return
        retention = {"Mode": lock.mode, "RetainUntilDate": lock.until.astimezone(UTC)}
        expected = frozenset({refusals.NOT_FOUND, refusals.DENIED})
        try:
            await self._bucket.calls.call("put_object_retention", key=key, expected=expected, Retention=retention)
        except Refusal as refusal:
            if refusal.code == refusals.DENIED and not await self._locked(key, lock):
                # Not for a lock, so for want of a right: the answer to a second request says so.
                await self._bucket.calls.call("put_object_retention", key=key, Retention=retention)

    async def _locked(self, key: str, wanted: Lock) -> bool:
        """Whether the lock is there already. Raises ObjectNotFound, ObjectLocked for one that would become less."""
        answer = await self._bucket.head(key)
        if answer is None:
            raise ObjectNotFound(key)
        present = lock_of(answer)
        if present is None:
            return False
        if present.until > wanted.until or (present.mode, wanted.mode) == ("COMPLIANCE", "GOVERNANCE"):
            raise ObjectLocked(f"{key} is locked ({present.mode}) until {present.until:%Y-%m-%dT%H:%M:%SZ}")
        return present == wanted

    async def _put(self, key: str, content: bytes, placement: Placement | None, **conditions: Any) -> Stored:
        """Raises Refusal when a condition does not hold."""
        sha256 = await digest(content, "sha256")
        proof = await self._bucket.proving(content, sha256)
        placing = await self._bucket.placing(placement)
        expected = frozenset({refusals.PRECONDITION, refusals.NOT_FOUND}) if conditions else frozenset()
        answer = await self._bucket.calls.call(
            "put_object", key=key, expected=expected, body=content, **proof, **placing, **conditions
        )
        return Stored(
            key=key,
            size_bytes=len(content),
            etag=etag_of(answer),
            modify_time=moment_of(answer, self._bucket.options.place),
            sha256=sha256 if "ChecksumSHA256" in proof else None,
            encryption=answer.get("ServerSideEncryption"),
            storage_class=placing.get("StorageClass"),
            lock=placement.lock if placement is not None and "ObjectLockMode" in placing else None,
        )

    async def _put_compared(
        self, key: str, content: bytes, if_match: str | None, placement: Placement | None
    ) -> Stored:
        """A conditional write where the store knows none: another process can come between. `probe` says so."""
        there = await self._bucket.head(key)
        fits = there is None if if_match is None else there is not None and etag_of(there) == if_match
        if not fits:
            return await self._same(key, content, if_match)
        stored = await self._put(key, content, placement)
        there = await self._bucket.head(key)
        if there is None or etag_of(there) != stored.etag:
            return await self._same(key, content, if_match)
        return stored

    async def _same(self, key: str, content: bytes, if_match: str | None) -> Stored:
        """What is there, when it has the very same bytes. Raises ObjectExists or ObjectChanged."""
        there: Any = await self._bucket.head(key)
        if there is not None and stored_of(key, there).size_bytes == len(content):
            present, stored = await self.get(key)
            if present == content:
                return stored
        if if_match is None:
            raise ObjectExists(f"{key} is there already, with other bytes")
        raise ObjectChanged(f"{key} is not the object that was expected")
