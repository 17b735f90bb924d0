"""An object read in order, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.s3_bucket import Bucket, quoted, stored_of
from llm_schema_registry.objects.s3_calls import Answer
from llm_schema_registry.objects.s3_refusals import Refusal
from llm_schema_registry.objects.store import InvalidRange, ObjectDamaged, ObjectNotFound, Stored

PIECE_BYTES = 1024 * 1024
EMPTY_ANSWERS_MAX = 8
"""In a row, each of which ends before a byte came."""
_EXPECTED = frozenset({refusals.NOT_FOUND, refusals.PRECONDITION, refusals.INVALID_RANGE})


class Reading:
    """One pass over an object, or a range of it.

    opened: called once, with what the first answer tells, before its first byte is given out; may raise.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        *,
        start: int = 0,
        length: int | None = None,
        opened: Callable[[Stored], None] = lambda _: None,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._position = start
        self._end = None if length is None else start + length
        self._opened = opened
        self._stored: Stored | None = None
        self._empty_answers = 0
        self._advanced = time.monotonic()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, in pieces of at most PIECE_BYTES. Raises what ObjectStore.read does."""
        if self._end == self._position and not await self._some():
            return
        while self._end is None or self._position < self._end:
            answer = await self._answer()
            if answer is None:
                return
            before = self._position
            try:
                self._check(answer)
                async for piece in self._rest(answer["Body"], skip=self._skipped(answer)):
                    self._position += len(piece)
                    yield piece
            finally:
                answer["Body"].close()
            await self._advance(self._position - before)

    async def _some(self) -> bool:
        """Never true: an empty range is read by looking whether the object is there."""
        answer = await self._bucket.head(self._key)
        if answer is None:
            raise ObjectNotFound(self._key)
        stored = stored_of(self._key, answer)
        if self._position > stored.size_bytes:
            raise self._behind(stored)
        self._opened(stored)
        return False

    async def _answer(self) -> Answer | None:
        """The answer for what is left; None when nothing is."""
        asked: dict[str, Any] = {"ChecksumMode": "ENABLED"}
        if self._position or self._end is not None:
            last = "" if self._end is None else self._end - 1
            asked["Range"] = f"bytes={self._position}-{last}"
        if self._stored is not None:
            asked["IfMatch"] = quoted(self._stored.etag)
        try:
            return await self._bucket.calls.call("get_object", key=self._key, expected=_EXPECTED, **asked)
        except Refusal as refusal:
            code = refusal.code
        if code == refusals.INVALID_RANGE and self._stored is None:
            await self._some()
            return None
        if self._stored is None:
            raise ObjectNotFound(self._key)
        raise self._changed()

    def _check(self, answer: Answer) -> None:
        """Raises ObjectDamaged when the answer is about another content than the first one was."""
        stored = stored_of(self._key, answer)
        if self._stored is None:
            if self._position > stored.size_bytes:
                raise self._behind(stored)
            self._stored = stored
            self._opened(stored)
            self._end = stored.size_bytes if self._end is None else min(self._end, stored.size_bytes)
        elif (stored.etag, stored.size_bytes) != (self._stored.etag, self._stored.size_bytes):
            raise self._changed()

    def _skipped(self, answer: Answer) -> int:
        """Bytes before the position in this answer: some stores answer with the whole object."""
        return 0 if answer.get("ContentRange") else self._position

    async def _rest(self, body: Any, *, skip: int) -> AsyncIterator[bytes]:
        """Bytes from the position on, until the answer ends or breaks, or nothing more is wanted."""
        assert self._end is not None, "the first answer told the end"
        wanted = self._end - self._position
        while wanted > 0:
            try:
                piece = await body.read(PIECE_BYTES)
            except refusals.FAILURES:
                return
            if not piece:
                return
            passed = min(skip, len(piece))
            skip -= passed
            if piece := piece[passed : passed + wanted]:
                wanted -= len(piece)
                yield piece

    async def _advance(self, count: int) -> None:
        """After an answer: returns when it is worth asking again. Raises ObjectDamaged, ObjectStoreUnavailable."""
        assert self._end is not None, "the first answer told the end"
        if count:
            self._empty_answers = 0
            self._advanced = time.monotonic()
        if self._position >= self._end:
            return
        self._empty_answers += 1
        options = self._bucket.options
        waited = time.monotonic() - self._advanced
        if self._empty_answers > EMPTY_ANSWERS_MAX or waited > options.retry_seconds:
            raise ObjectDamaged(
                f"{self._key} ends at byte {self._position} of {self._end} in {options.place}, however often it is read"
            )
        await self._bucket.calls.pause(self._empty_answers)

    def _behind(self, stored: Stored) -> InvalidRange:
        return InvalidRange(f"{self._key} has {stored.size_bytes} bytes, none from {self._position} on")

    def _changed(self) -> ObjectDamaged:
        return ObjectDamaged(f"{self._key} was changed or removed while it was read, at byte {self._position}")
