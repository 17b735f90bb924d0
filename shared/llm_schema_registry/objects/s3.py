"""Objects in a bucket of S3, or of a store that speaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.keys import check_key, check_prefix
from llm_schema_registry.objects.s3_bucket import Bucket, etag_of, lock_of, moment_of, stored_of
from llm_schema_registry.objects.s3_calls import Answer, Calls
from llm_schema_registry.objects.s3_options import S3Options
from llm_schema_registry.objects.s3_put import Writer
from llm_schema_registry.objects.s3_read import Reading
from llm_schema_registry.objects.s3_refusals import Refusal
from llm_schema_registry.objects.s3_upload import S3Upload
from llm_schema_registry.objects.store import (
    SMALL_BYTES_MAX,
    Capabilities,
    Listed,
    Lock,
    ObjectLocked,
    ObjectTooLarge,
    Placement,
    Stored,
    Upload,
)

__all__ = ["S3Options", "S3Store", "open_s3"]


@asynccontextmanager
async def open_s3(options: S3Options) -> AsyncIterator[S3Store]:
    """A store; nothing is sent before its first method is called. Its connections are closed at the end."""
    calls = Calls(options)
    try:
        yield S3Store(calls)
    finally:
        await to_the_end(calls.close())


class S3Store:
    """An ObjectStore in a bucket; `open_s3` makes it.

    What the bucket can do is tried before the first write and remembered. Without conditional writes of the store,
    `if_absent` and `if_match` hold between the users of this object alone. Keys that `keys.check_key` does not allow
    raise ValueError everywhere.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._bucket = Bucket(calls)
        self._writer = Writer(self._bucket)

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        placement: Placement | None = None,
    ) -> Stored:
        """See ObjectStore."""
        check_key(key)
        if len(content) > SMALL_BYTES_MAX:
            raise ObjectTooLarge(f"{key} has {len(content)} bytes; `put` takes {SMALL_BYTES_MAX} at most, use `upload`")
        if if_absent and if_match is not None:
            raise ValueError("if_absent and if_match exclude each other")
        return await self._writer.put(key, content, if_absent=if_absent, if_match=if_match, placement=placement)

    @asynccontextmanager
    async def upload(
        self, key: str, *, placement: Placement | None = None, if_absent: bool = True
    ) -> AsyncIterator[Upload]:
        """See ObjectStore. The Upload is an S3Upload."""
        check_key(key)
        upload = S3Upload(self._bucket, self._writer, key, placement, if_absent=if_absent)
        try:
            yield upload
        finally:
            await upload.end()

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """See ObjectStore. The bytes are compared with the checksum where the store tells one over all of them."""
        check_key(key)
        return await self._writer.get(key)

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ObjectStore."""
        check_key(key)
        if start < 0 or (length is not None and length < 0):
            raise ValueError("start and length are not negative")
        async for piece in Reading(self._bucket, key, start=start, length=length).pieces():
            yield piece

    async def head(self, key: str) -> Stored | None:
        """See ObjectStore."""
        check_key(key)
        answer = await self._bucket.head(key)
        return None if answer is None else stored_of(key, answer)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore."""
        check_prefix(prefix)
        before = self._calls.options.key_prefix
        asked: dict[str, Any] = {"Prefix": before + prefix, "MaxKeys": self._calls.options.list_page}
        if after:
            asked["StartAfter"] = before + after
        page: Answer = {"NextContinuationToken": None}
        while page is not None:
            token = page["NextContinuationToken"]
            page = await self._calls.call(
                "list_objects_v2", **asked, **({} if token is None else {"ContinuationToken": token})
            )
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(before)
                yield Listed(key, entry["Size"], etag_of(entry), entry["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            if page.get("NextContinuationToken") in {None, token}:
                raise errors.ObjectStoreUnavailable(f"{self._calls.options.place} does not end a listing of {prefix!r}")

    async def delete(self, key: str) -> None:
        """See ObjectStore. In a bucket with versions the older ones stay, as its rules say."""
        check_key(key)
        # In a bucket with versions S3 would hide a locked object behind a marker, and say that it was removed.
        if self._bucket.lockable is not False and await self._locked(key):
            raise ObjectLocked(f"{key} is locked")
        try:
            await self._calls.call(
                "delete_object", key=key, expected=frozenset({refusals.NOT_FOUND, refusals.DENIED, "ObjectLocked"})
            )
        except Refusal as refusal:
            if refusal.code == refusals.NOT_FOUND:
                return
            if refusal.code == "ObjectLocked" or await self._locked(key):
                raise ObjectLocked(f"{key} is locked") from None
            # Not for a lock, so for want of a right: the answer to a second request says so.
            await self._calls.call("delete_object", key=key)

    async def _locked(self, key: str) -> bool:
        answer = await self._bucket.head(key)
        lock = None if answer is None else lock_of(answer)
        return lock is not None and answer is not None and lock.until > moment_of(answer, self._calls.options.place)

    async def extend_lock(self, key: str, lock: Lock) -> None:
        """See ObjectStore."""
        check_key(key)
        await self._writer.lock(key, lock)

    async def sweep(self, prefix: str, before: datetime) -> int:
        """See ObjectStore."""
        check_prefix(prefix)
        options = self._calls.options
        swept = 0
        marker: dict[str, Any] = {}
        while True:
            try:
                page = await self._calls.call(
                    "list_multipart_uploads",
                    expected=frozenset({refusals.NO_UPLOAD}),  # rclone, of a bucket that never had one.
                    Prefix=options.key_prefix + prefix,
                    MaxUploads=options.list_page,
                    **marker,
                )
            except Refusal:
                return swept
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before:
                    swept += await self._abort(upload["Key"].removeprefix(options.key_prefix), upload["UploadId"])
            following = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
            if not page.get("IsTruncated"):
                return swept
            if following == marker or None in following.values():
                raise errors.ObjectStoreUnavailable(f"{options.place} does not end its list of uploads")
            marker = following

    async def _abort(self, key: str, upload_id: str) -> int:
        try:
            await self._calls.call(
                "abort_multipart_upload", key=key, expected=frozenset({refusals.NO_UPLOAD}), UploadId=upload_id
            )
        except Refusal:
            return 0
        return 1

    async def now(self) -> datetime:
        """See ObjectStore. The Date of an answer."""
        return moment_of(await self._bucket.answering(), self._calls.options.place)

    async def probe(self) -> Capabilities:
        """See ObjectStore. Tried once, remembered."""
        return (await self._bucket.found()).capabilities

    async def check(self) -> None:
        """See ObjectStore."""
        await self._bucket.answering()
