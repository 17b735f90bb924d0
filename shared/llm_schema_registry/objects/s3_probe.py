"""What a bucket can do, found out by trying: stores that speak S3 differ, and some accept what they then ignore."""

from __future__ import annotations

import base64
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.s3_calls import Calls
from llm_schema_registry.objects.s3_options import S3Options
from llm_schema_registry.objects.s3_refusals import Refusal
from llm_schema_registry.objects.store import Capabilities

FOLDER = "probe"
CONTENT = b"llm-schema-registry probes what this store can do\n"
OTHER = b"other bytes\n"


@dataclass(frozen=True, slots=True)
class Found:
    """encrypts: whether a write may name its encryption."""

    capabilities: Capabilities
    encrypts: bool


def encryption(options: S3Options) -> dict[str, Any]:
    """Parameters that ask for encryption at rest."""
    if options.kms_key_id is None:
        return {"ServerSideEncryption": "AES256"}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key_id}


def checksum(sha256: bytes) -> dict[str, Any]:
    """Parameters that make the store check the bytes. Without the algorithm some stores only note the checksum."""
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": base64.b64encode(sha256).decode("ascii")}


async def probe(calls: Calls) -> Found:
    """What the bucket of the calls can do. Removes its object again, as far as it may."""
    trial = Trial(calls)
    try:
        encrypts, told = await trial.encrypts()
        capabilities = Capabilities(
            checksums=await trial.checks(encrypts=encrypts),
            conditional_writes=await trial.compares(encrypts=encrypts),
            object_lock=await trial.locks(),
            encryption=told,
            storage_classes=await trial.places(encrypts=encrypts),
        )
    finally:
        await trial.tidy()
    return Found(capabilities, encrypts)


class Trial:
    """One probing, with one object that is written over and over."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._key = f"{FOLDER}/{secrets.token_hex(8)}"

    async def encrypts(self) -> tuple[bool, str | None]:
        """Whether a write may ask for encryption, and what is said of the object then.

        Raises ObjectStoreDenied when a KMS key was chosen and is refused: nothing is stored without it then.
        """
        chosen = self._calls.options.kms_key_id is not None
        accepted = await self._accepted(CONTENT, expected=frozenset() if chosen else refusals.UNSUPPORTED)
        if not accepted:
            await self._put(CONTENT, encrypts=False)
        answer = await self._calls.call("head_object", key=self._key)
        told = answer.get("ServerSideEncryption")
        return accepted, told if isinstance(told, str) else None

    async def checks(self, *, encrypts: bool) -> bool:
        """Whether false checksums are refused and true ones are not."""
        false, true = (checksum(hashlib.sha256(content).digest()) for content in (OTHER, CONTENT))
        refusing = refusals.UNSUPPORTED | refusals.WRONG_BYTES
        if await self._accepted(CONTENT, expected=refusing, encrypts=encrypts, **false):
            return False
        return await self._accepted(CONTENT, expected=refusing, encrypts=encrypts, **true)

    async def compares(self, *, encrypts: bool) -> bool:
        """Whether conditions that do not hold, of the object that `encrypts` wrote, keep a write from happening."""
        expected = refusals.UNSUPPORTED | {refusals.PRECONDITION}
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"00000000000000000000000000000000"'}):
            try:
                await self._put(OTHER, expected=expected, encrypts=encrypts, **condition)
            except Refusal as refusal:
                if refusal.code == refusals.PRECONDITION:
                    continue
            return False
        return True

    async def places(self, *, encrypts: bool) -> bool:
        """Whether the storage class of an object is kept."""
        unsupported = refusals.UNSUPPORTED
        if not await self._accepted(CONTENT, expected=unsupported, encrypts=encrypts, StorageClass="STANDARD_IA"):
            return False
        answer = await self._calls.call("head_object", key=self._key)
        return answer.get("StorageClass") == "STANDARD_IA"

    async def locks(self) -> bool:
        """Whether the bucket says that it locks objects. Not tried: a locked probe would stay."""
        expected = refusals.UNSUPPORTED | {refusals.DENIED, "ObjectLockConfigurationNotFoundError", refusals.NOT_FOUND}
        try:
            answer = await self._calls.call("get_object_lock_configuration", expected=expected)
        except Refusal:
            return False
        configuration: dict[str, Any] = answer.get("ObjectLockConfiguration", {})
        return configuration.get("ObjectLockEnabled") == "Enabled"

    async def tidy(self) -> None:
        """Removes the object. Who may not delete, or meets a bucket that locks everything, leaves it."""
        with suppress(errors.Error):
            await self._calls.call("delete_object", key=self._key)

    async def _accepted(
        self, content: bytes, *, expected: frozenset[str], encrypts: bool = True, **parameters: Any
    ) -> bool:
        try:
            await self._put(content, expected=expected, encrypts=encrypts, **parameters)
        except Refusal:
            return False
        return True

    async def _put(
        self,
        content: bytes,
        *,
        expected: frozenset[str] = frozenset(),
        encrypts: bool,
        **parameters: Any,
    ) -> None:
        if "ChecksumSHA256" not in parameters:
            md5 = hashlib.md5(content, usedforsecurity=False).digest()
            parameters["ContentMD5"] = base64.b64encode(md5).decode("ascii")
        if encrypts:
            parameters |= encryption(self._calls.options)
        await self._calls.call("put_object", key=self._key, expected=expected, body=content, **parameters)
