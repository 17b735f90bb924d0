"""Objects as files of a folder: for one machine, or several that mount one file system with working locks.

    <folder>/a/b/c                    the object a/b/c; nothing else is kept of it
    <folder>/.uploads/a/b/c/.<id>     what is being written; `sweep` removes what was left there
    <folder>/.lock                    held while an object is put into its place or removed

A new object is written to a file of its own, flushed to the disk, and renamed into place; the folder is flushed then.
So a reader sees the old object or the new one, whole, also after the power went.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from llm_schema_registry import errors
from llm_schema_registry.objects import directory_files as files
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.keys import check_key, check_prefix
from llm_schema_registry.objects.parts import PartHashes
from llm_schema_registry.objects.store import (
    PART_BYTES,
    SMALL_BYTES_MAX,
    Capabilities,
    InvalidRange,
    Listed,
    Lock,
    ObjectLockUnsupported,
    ObjectTooLarge,
    Part,
    Placement,
    Stored,
    Upload,
)

PIECE_BYTES = 1024 * 1024
"""Read or written at once, in a thread."""
LISTED_AT_ONCE = 1000
"""Files that are looked at in one go of a listing: who asks for the first ones does not wait for all of a folder's."""

_Result = TypeVar("_Result")


def machine_clock() -> datetime:
    """The time of this machine, UTC."""
    return datetime.now(UTC)


class DirectoryStore:
    """An ObjectStore in a folder. Its last component is made when it is missing, its parents are not.

    Objects cannot be locked, checksums are not kept, and `Placement` is left out. A key cannot be an object and the
    beginning of another key (`a` and `a/b`): whichever comes second is refused with ObjectStoreDenied. Keys that
    `keys.check_key` does not allow raise ValueError everywhere.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime] = machine_clock) -> None:
        self._place = files.Place(folder)
        self._clock = clock

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        placement: Placement | None = None,  # noqa: ARG002  Left out, as the port allows.
    ) -> Stored:
        """See ObjectStore. The comparison and the write are one step, also between processes."""
        check_key(key)
        if len(content) > SMALL_BYTES_MAX:
            raise ObjectTooLarge(f"{key} has {len(content)} bytes; `put` takes {SMALL_BYTES_MAX} at most, use `upload`")
        if if_absent and if_match is not None:
            raise ValueError("if_absent and if_match exclude each other")
        condition = files.Condition(if_absent, if_match)

        def write() -> Stored:
            draft = files.Draft.begin(self._place, key, self._clock())
            try:
                draft.write(content)
                return draft.commit(condition, self._clock())
            finally:
                draft.discard()

        stored = await self._run(write)
        return replace(stored, sha256=hashlib.sha256(content).digest())

    @asynccontextmanager
    async def upload(
        self,
        key: str,
        *,
        placement: Placement | None = None,  # noqa: ARG002  Left out, as the port allows.
        if_absent: bool = True,
    ) -> AsyncIterator[Upload]:
        """See ObjectStore."""
        check_key(key)
        draft = await self._run(
            lambda: files.Draft.begin(self._place, key, self._clock()), undo=lambda made: made.discard()
        )
        upload = DirectoryUpload(self, draft, files.Condition(if_absent))
        try:
            yield upload
        finally:
            upload.open = False
            await self._run(draft.discard)

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """See ObjectStore."""
        check_key(key)

        def read() -> tuple[bytes, Stored]:
            reader = files.Reader.open(self._place, key)
            try:
                if reader.stored.size_bytes > SMALL_BYTES_MAX:
                    raise ObjectTooLarge(f"{key} has {reader.stored.size_bytes} bytes; read it with `read`")
                return reader.read(0, reader.stored.size_bytes), reader.stored
            finally:
                reader.close()

        return await self._run(read)

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ObjectStore. What is read is the object as it was at the beginning, also when it is replaced."""
        check_key(key)
        if start < 0 or (length is not None and length < 0):
            raise ValueError("start and length are not negative")
        reader = await self._run(lambda: files.Reader.open(self._place, key), undo=lambda made: made.close())
        try:
            size = reader.stored.size_bytes
            if start > size:
                raise InvalidRange(f"{key} has {size} bytes, none from {start} on")
            end = size if length is None else min(size, start + length)
            for position in range(start, end, PIECE_BYTES):
                yield await self._run(partial(reader.read, position, min(PIECE_BYTES, end - position)))
        finally:
            reader.close()

    async def head(self, key: str) -> Stored | None:
        """See ObjectStore."""
        check_key(key)
        return await self._run(lambda: files.stat(self._place, key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore. An object that comes or goes meanwhile is listed or not."""
        check_prefix(prefix)
        # Depth first. The beginnings of keys that are folders end with a slash, so they sort as whole keys do.
        pending: list[str] = [prefix[: prefix.rfind("/") + 1]]
        while pending:
            beginning = pending.pop()
            if not beginning or beginning.endswith("/"):
                pending.extend(reversed(await self._entries(beginning, prefix, after)))
                continue
            keys = [beginning]
            while pending and len(keys) < LISTED_AT_ONCE and not pending[-1].endswith("/"):
                keys.append(pending.pop())
            for found in await self._listed(keys):
                yield found

    async def _entries(self, beginning: str, prefix: str, after: str) -> Sequence[str]:
        return await self._run(lambda: files.entries(self._place, beginning, prefix, after))

    async def _listed(self, keys: Sequence[str]) -> Sequence[Listed]:
        return await self._run(lambda: files.listed(self._place, keys))

    async def delete(self, key: str) -> None:
        """See ObjectStore. Folders that become empty go too."""
        check_key(key)
        await self._run(lambda: files.remove(self._place, key))

    async def extend_lock(self, key: str, lock: Lock) -> None:  # noqa: ARG002
        """Raises ObjectLockUnsupported: files cannot be locked against their owner."""
        check_key(key)
        raise ObjectLockUnsupported(f"the folder {self._place.folder} cannot lock objects")

    async def sweep(self, prefix: str, before: datetime) -> int:
        """See ObjectStore. An upload that still runs and is swept fails when it completes."""
        check_prefix(prefix)
        return await self._run(lambda: files.sweep(self._place, prefix, before))

    async def now(self) -> datetime:
        """See ObjectStore. The clock of this machine."""
        return self._clock().replace(microsecond=0)

    async def probe(self) -> Capabilities:
        """See ObjectStore. Raises ObjectStoreDenied when the folder cannot be written."""
        await self.check()
        return Capabilities(checksums=False, conditional_writes=True, object_lock=False)

    async def check(self) -> None:
        """See ObjectStore. Raises ObjectStoreDenied when the folder cannot be written."""
        await self._run(lambda: files.check(self._place, self._clock()))

    async def _run(self, work: Callable[[], _Result], *, undo: Callable[[_Result], object] | None = None) -> _Result:
        """The result of work in a thread.

        A cancelled caller waits for the thread, which may hold a file, and undoes what it made.
        """
        try:
            return await to_the_end(asyncio.to_thread(work), undo=undo)
        except OSError as error:
            raise translated(error, self._place.folder) from None


class DirectoryUpload:
    """An Upload into a draft. Buffers PIECE_BYTES, plus what one write brings."""

    def __init__(self, store: DirectoryStore, draft: files.Draft, condition: files.Condition) -> None:
        self._store = store
        self._draft = draft
        self._condition = condition
        self._buffer = bytearray()
        self._hashes = PartHashes(PART_BYTES)
        self.open = True

    async def write(self, content: bytes) -> None:
        """See Upload."""
        assert self.open, "the upload has ended"
        self._buffer += content
        if len(self._buffer) >= PIECE_BYTES:
            await self._flush()

    async def complete(self) -> tuple[Stored, tuple[Part, ...]]:
        """See Upload."""
        assert self.open, "the upload has ended"
        await self._flush()
        stored = await self._store._run(self._commit)  # noqa: SLF001  The store's other half.
        self.open = False
        parts = self._hashes.parts()
        return (replace(stored, sha256=parts[0].sha256) if len(parts) == 1 else stored), parts

    def _commit(self) -> Stored:
        return self._draft.commit(self._condition, self._store._clock())  # noqa: SLF001

    async def _flush(self) -> None:
        piece, self._buffer = bytes(self._buffer), bytearray()

        def write() -> None:
            self._draft.write(piece)
            self._hashes.update(piece)

        await self._store._run(write)  # noqa: SLF001


def translated(error: OSError, folder: Path) -> errors.Error:
    """The error of the family for one of the operating system."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            what = "is full: free or add space"
        case errno.EACCES | errno.EPERM:
            what = "cannot be read or written by this user: give it to the user that the service runs as, mode 0700"
        case errno.EROFS:
            what = "is on a file system that is mounted read-only: mount it writable"
        case errno.ENOENT:
            what = "cannot be made because its parent is missing: create it, or mount the volume it belongs to"
        case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
            what = "has a file where a folder is needed, or the reverse: a key cannot begin with another object's key"
        case _:
            code = errno.errorcode.get(error.errno or 0, "unknown error")
            return errors.ObjectStoreUnavailable(
                f"the folder {folder} of the object store cannot be used ({code}): check the disk and the file system"
            )
    return errors.ObjectStoreDenied(f"the folder {folder} of the object store {what}")
