"""What a write to the bucket says, and what its answers tell."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects import s3_probe
from llm_schema_registry.objects.s3_calls import Answer, Calls
from llm_schema_registry.objects.s3_refusals import NOT_FOUND, Refusal
from llm_schema_registry.objects.store import Lock, LockMode, Placement, Stored

_MODES: dict[str, LockMode] = {"GOVERNANCE": "GOVERNANCE", "COMPLIANCE": "COMPLIANCE"}
STANDARD = "STANDARD"


class Bucket:
    """The bucket of the options, and what it was found to do."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.options = calls.options
        self._found: s3_probe.Found | None = None
        self._probing = asyncio.Lock()
        self._seen = False

    @property
    def lockable(self) -> bool | None:
        """Whether objects can be locked; None when it was not tried yet."""
        return None if self._found is None else self._found.capabilities.object_lock

    async def found(self) -> s3_probe.Found:
        """What the bucket can do: tried once, remembered."""
        async with self._probing:
            if self._found is None:
                self._found = await s3_probe.probe(self.calls)
            return self._found

    async def head(self, key: str) -> Answer | None:
        """The answer to HEAD; None when nothing is there."""
        try:
            answer = await self.calls.call(
                "head_object", key=key, expected=frozenset({NOT_FOUND}), ChecksumMode="ENABLED"
            )
        except Refusal:
            if not self._seen:  # HEAD says of a bucket that is missing what it says of an object.
                await self.answering()
            return None
        self._seen = True
        return answer

    async def answering(self) -> Answer:
        """The answer to HEAD of the bucket. Raises ObjectStoreDenied when there is no such bucket."""
        try:
            answer = await self.calls.call("head_bucket", expected=frozenset({NOT_FOUND}))
        except Refusal:
            raise errors.ObjectStoreDenied(
                f"{self.options.place} does not exist: create it, or correct the name of the bucket",
                metadata={"code": "NoSuchBucket"},
            ) from None
        self._seen = True
        return answer

    async def placing(self, placement: Placement | None) -> dict[str, Any]:
        """Parameters of a write: encryption, storage class and lock, as far as the bucket has them."""
        found = await self.found()
        placement = placement or Placement()
        said: dict[str, Any] = s3_probe.encryption(self.options) if found.encrypts else {}
        if placement.storage_class != STANDARD and found.capabilities.storage_classes:
            said["StorageClass"] = placement.storage_class
        if placement.lock is not None and found.capabilities.object_lock:
            said["ObjectLockMode"] = placement.lock.mode
            said["ObjectLockRetainUntilDate"] = placement.lock.until
        return said

    async def proving(self, content: bytes, sha256: bytes) -> dict[str, Any]:
        """Parameters by which the store knows the bytes that it should have received."""
        if (await self.found()).capabilities.checksums:
            return s3_probe.checksum(sha256)
        return {"ContentMD5": encoded(await digest(content, "md5"))}


async def digest(content: bytes, name: str) -> bytes:
    """A hash of the content, computed in a thread."""
    # MD5 is S3's check of a transfer, no protection.
    return await asyncio.to_thread(lambda: hashlib.new(name, content, usedforsecurity=False).digest())


def encoded(digest: bytes) -> str:
    """Base64, as S3's headers want it."""
    return base64.b64encode(digest).decode("ascii")


def etag_of(answer: Answer) -> str:
    """The etag without the quotes that some answers have and others lack."""
    return str(answer.get("ETag", "")).strip('"')


def quoted(etag: str) -> str:
    """The etag as a condition wants it."""
    return f'"{etag}"'


def stored_of(key: str, answer: Answer) -> Stored:
    """What an answer to GET or HEAD tells of the object, whatever range of it was asked for."""
    total = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return Stored(
        key=key,
        size_bytes=int(total) if total.isdecimal() else int(answer.get("ContentLength", 0)),
        etag=etag_of(answer),
        modify_time=answer["LastModified"].astimezone(UTC),
        sha256=_sha256_of(answer),
        encryption=answer.get("ServerSideEncryption"),
        storage_class=answer.get("StorageClass"),
        lock=lock_of(answer),
    )


def lock_of(answer: Answer) -> Lock | None:
    """The lock that an answer tells of."""
    mode, until = _MODES.get(str(answer.get("ObjectLockMode"))), answer.get("ObjectLockRetainUntilDate")
    return Lock(mode, until.astimezone(UTC)) if mode is not None and isinstance(until, datetime) else None


def moment_of(answer: Answer, place: str) -> datetime:
    """When the answer was made, by the store's clock. Raises ObjectStoreUnavailable for an answer that has no date."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        raise errors.ObjectStoreUnavailable(
            f"{place} answers without its time: let proxies pass the Date header on"
        ) from None


def _sha256_of(answer: Answer) -> bytes | None:
    """The checksum over the whole object; None for one over the checksums of parts."""
    text = answer.get("ChecksumSHA256")
    if not isinstance(text, str) or answer.get("ChecksumType") == "COMPOSITE":
        return None
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return value if len(value) == hashlib.sha256().digest_size else None
