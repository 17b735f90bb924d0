"""A streamed upload that holds a bounded number of bytes and leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
from contextlib import suppress
from datetime import UTC
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.parts import part_bytes
from llm_schema_registry.objects.s3_bucket import Bucket, digest, encoded, etag_of, stored_of
from llm_schema_registry.objects.s3_calls import Answer
from llm_schema_registry.objects.s3_put import Writer
from llm_schema_registry.objects.s3_refusals import Refusal
from llm_schema_registry.objects.store import ObjectDamaged, ObjectExists, Part, Placement, Stored

QUEUED_PARTS = 0
"""Full parts that wait, beside those that travel and the one that is filled: none, since a slow store makes every one
of them stay in memory, and a fast one takes them at once."""
ABORTS_MAX = 5
"""Parts that travel during an abort survive it, so it is repeated. Source: S3 API, AbortMultipartUpload."""
ABORT_SECONDS = 30.0
NONCE = "upload"
"""Metadata of an object: by which upload it was written."""


class S3Upload:
    """An Upload. Up to one part is a PutObject; more is a multipart upload."""

    def __init__(
        self, bucket: Bucket, writer: Writer, key: str, placement: Placement | None, *, if_absent: bool
    ) -> None:
        self._bucket = bucket
        self._calls = bucket.calls
        self._writer = writer
        self._key = key
        self._placement = placement
        self._if_absent = if_absent
        self._nonce = secrets.token_hex(16)
        self._buffer = io.BytesIO()
        self._pending_bytes = 0
        self._upload_id: str | None = None
        self._sent: dict[int, SentPart] = {}
        self._number = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(QUEUED_PARTS + bucket.options.concurrency)
        self._travelling = asyncio.Semaphore(bucket.options.concurrency)
        self._error: Exception | None = None
        self._ended = False

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were written and that the store has not yet."""
        return self._buffer.tell() + self._pending_bytes

    async def write(self, content: bytes) -> None:
        """See Upload."""
        self._check()
        rest = memoryview(content)
        while rest:
            room = self._part_bytes - self._buffer.tell()
            self._buffer.write(rest[:room])
            rest = rest[room:]
            if self._buffer.tell() == self._part_bytes:
                await self._send()

    async def complete(self) -> tuple[Stored, tuple[Part, ...]]:
        """See Upload."""
        self._check()
        if self._number == 1:
            content = self._buffer.getvalue()
            stored = await self._writer.put(
                self._key, content, if_absent=self._if_absent, if_match=None, placement=self._placement
            )
            self._ended = True
            return stored, (Part(1, len(content), await digest(content, "sha256")),)
        if self._buffer.tell():
            await self._send()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._check()
        stored = await self._assemble()
        self._ended = True
        return stored, tuple(self._sent[number].part for number in sorted(self._sent))

    async def end(self) -> None:
        """Aborts what was not completed; the upload cannot be used any more. A repeat does nothing."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await to_the_end(_gathered(self._tasks))
        if self._upload_id is not None:
            await to_the_end(self._abort(self._upload_id))

    @property
    def _part_bytes(self) -> int:
        return part_bytes(self._number, self._bucket.options.part_bytes)

    def _check(self) -> None:
        assert not self._ended, "the upload has ended"
        if self._error is not None:
            raise self._error

    async def _send(self) -> None:
        """Hands the part that is full to a task, once there is room for it."""
        if self._upload_id is None:
            # To the end: an upload that was created, and whose id nobody heard, could not be aborted.
            await to_the_end(self._begin())
        await self._room.acquire()
        content, self._buffer = self._buffer.getvalue(), io.BytesIO()  # Shared, not copied.
        self._pending_bytes += len(content)
        task = asyncio.create_task(self._transfer(self._number, content))
        self._number += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._check()

    async def _begin(self) -> None:
        placing = await self._bucket.placing(self._placement)
        if (await self._bucket.found()).capabilities.checksums:
            placing["ChecksumAlgorithm"] = "SHA256"
        answer = await self._calls.call(
            "create_multipart_upload", key=self._key, Metadata={NONCE: self._nonce}, **placing
        )
        self._upload_id = str(answer["UploadId"])

    async def _transfer(self, number: int, content: bytes) -> None:
        try:
            # First come, first served: some stores keep parts in memory that are ahead of their turn.
            async with self._travelling:
                self._sent[number] = await self._sent_part(number, content)
        except Exception as error:  # noqa: BLE001  The writer raises it.
            self._error = self._error or error
        finally:
            self._pending_bytes -= len(content)
            self._room.release()

    async def _sent_part(self, number: int, content: bytes) -> SentPart:
        sha256 = await digest(content, "sha256")
        proof = await self._bucket.proving(content, sha256)
        try:
            answer = await self._calls.call(
                "upload_part",
                key=self._key,
                expected=frozenset({refusals.NO_UPLOAD}),
                UploadId=self._upload_id,
                PartNumber=number,
                body=content,
                **proof,
            )
        except Refusal:
            raise self._swept() from None
        return SentPart(Part(number, len(content), sha256), etag_of(answer), "ChecksumSHA256" in proof)

    async def _assemble(self) -> Stored:
        """Makes the parts an object, and compares what the store then has with what was written."""
        conditional = (await self._bucket.found()).capabilities.conditional_writes
        async with self._writer.turn(self._key, needed=self._if_absent and not conditional):
            if self._if_absent and not conditional and (there := await self._bucket.head(self._key)) is not None:
                return self._same(there)
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._if_absent and conditional else {}
            try:
                await self._calls.call(
                    "complete_multipart_upload",
                    key=self._key,
                    expected=frozenset({refusals.NO_UPLOAD, refusals.PRECONDITION, "InvalidPart"}),
                    landed=self._landed,
                    UploadId=self._upload_id,
                    MultipartUpload={"Parts": [self._sent[number].named() for number in sorted(self._sent)]},
                    **condition,
                )
            except Refusal as refusal:
                return await self._decided(refusal.code)
            return await self._compared()

    async def _decided(self, code: str) -> Stored:
        """What became of a completion that was refused: an earlier attempt may have done it."""
        there = await self._bucket.head(self._key)
        if there is not None and _nonce_of(there) == self._nonce:
            return await self._compared()
        if code == refusals.PRECONDITION and there is not None:
            return self._same(there)
        if code == "InvalidPart":
            raise ObjectDamaged(f"{self._bucket.options.place} lost or changed a part of {self._key}: upload it again")
        raise self._swept()

    async def _landed(self) -> bool:
        there = await self._bucket.head(self._key)
        return there is not None and _nonce_of(there) == self._nonce

    async def _compared(self) -> Stored:
        there = await self._bucket.head(self._key)
        if there is None:
            raise ObjectDamaged(f"{self._key} was completed and is not in {self._bucket.options.place}")
        ours = _nonce_of(there) in {self._nonce, None}
        if not ours:
            raise ObjectExists(f"{self._key} was replaced by another upload right after it was completed")
        if (wrong := self._differs(there)) is not None:
            with suppress(errors.Error):
                await self._calls.call("delete_object", key=self._key)
            self._upload_id = None
            raise ObjectDamaged(f"{self._bucket.options.place} holds {self._key} with {wrong}; it was removed")
        self._upload_id = None
        return await self._locked(there)

    def _same(self, there: Answer) -> Stored:
        """What is there, when it has these bytes. Raises ObjectExists."""
        known = there.get("ChecksumSHA256") == self._composite() or etag_of(there) == self._composite_etag()
        if known and self._differs(there) is None:
            return stored_of(self._key, there)
        raise ObjectExists(f"{self._key} is there already, with other bytes")

    def _differs(self, there: Answer) -> str | None:
        """In what an object differs from what was written, as far as the store tells; None when in nothing."""
        size = sum(sent.part.size_bytes for sent in self._sent.values())
        if stored_of(self._key, there).size_bytes != size:
            return f"{stored_of(self._key, there).size_bytes} bytes instead of {size}"
        told = there.get("ChecksumSHA256")
        if all(sent.checked for sent in self._sent.values()) and told is not None and told != self._composite():
            return "another checksum than what was written"
        return None

    def _composite(self) -> str:
        """S3's checksum of a multipart object: over the checksums of its parts, and their number."""
        digests = b"".join(self._sent[number].part.sha256 for number in sorted(self._sent))
        return f"{encoded(hashlib.sha256(digests).digest())}-{len(self._sent)}"

    def _composite_etag(self) -> str | None:
        """S3's etag of a multipart object, unless the etags of its parts are no MD5."""
        try:
            digests = b"".join(bytes.fromhex(self._sent[number].etag) for number in sorted(self._sent))
        except ValueError:
            return None
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self._sent)}"

    async def _locked(self, there: Answer) -> Stored:
        """What is stored, locked as asked: some stores forget the lock of a multipart upload."""
        stored = stored_of(self._key, there)
        asked = self._placement.lock if self._placement is not None else None
        if asked is None or not (await self._bucket.found()).capabilities.object_lock:
            return stored
        if stored.lock is not None and stored.lock.until >= asked.until.astimezone(UTC):
            return stored
        await self._writer.lock(self._key, asked)
        answer = await self._bucket.head(self._key)
        return stored if answer is None else stored_of(self._key, answer)

    async def _abort(self, upload_id: str) -> None:
        """Aborts, and looks whether the upload is gone. What cannot be reached now is left to `sweep`."""
        gone = frozenset({refusals.NO_UPLOAD})
        with suppress(errors.Error, TimeoutError):
            async with asyncio.timeout(ABORT_SECONDS):
                for _ in range(ABORTS_MAX):
                    try:
                        await self._calls.call(
                            "abort_multipart_upload", key=self._key, expected=gone, UploadId=upload_id
                        )
                        await self._calls.call("list_parts", key=self._key, expected=gone, UploadId=upload_id)
                    except Refusal:
                        return

    def _swept(self) -> errors.ObjectStoreUnavailable:
        return errors.ObjectStoreUnavailable(
            f"the upload of {self._key} was aborted by somebody else, by a sweep or a rule of the bucket: repeat it"
        )


class SentPart:
    """A part that the store has."""

    __slots__ = ("checked", "etag", "part")

    def __init__(self, part: Part, etag: str, checked: bool) -> None:
        self.part = part
        self.etag = etag
        self.checked = checked

    def named(self) -> dict[str, Any]:
        """The part in the list that completes the upload."""
        named: dict[str, Any] = {"PartNumber": self.part.number, "ETag": f'"{self.etag}"'}
        return named | ({"ChecksumSHA256": encoded(self.part.sha256)} if self.checked else {})


async def _gathered(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(set(tasks))


def _nonce_of(answer: Answer) -> str | None:
    value = answer.get("Metadata", {}).get(NONCE)
    return value if isinstance(value, str) else None
