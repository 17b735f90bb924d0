"""The port of object stores, in the words of S3.

Every implementation passes tests/contract/objects/store_suite.py, which is the specification. Every method may raise
errors.ObjectStoreUnavailable (the store did not answer, answered with an error of its own, or asked to slow down,
during every attempt) and errors.ObjectStoreDenied (the credentials do not allow it, the bucket is not there, or it is
full: repeating does not help). The exceptions below are facts that callers act on; they never reach the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

KEY_BYTES_MAX = 1024
"""Of a key in UTF-8. Source: S3 User Guide, object keys. Keys of ours are ASCII: letters, digits, `-_./`."""
PART_BYTES_MIN = 5 * 1024 * 1024
"""Of every part but the last. Source: S3 User Guide, multipart upload limits."""
PART_BYTES = 21 * 256 * 1024
"""Of the first parts of an upload, 5.25 MiB: little more than the least that S3 takes, because several are in memory at
once, and enough for the largest object that it takes."""
PARTS_MAX = 10_000
SMALL_BYTES_MAX = 64 * 1024 * 1024
"""Largest object that `get` and `put` handle in one piece."""


class ObjectNotFound(Exception):
    """No object has this key."""


class ObjectExists(Exception):
    """An object has this key already, with other bytes. Nothing was written."""


class ObjectChanged(Exception):
    """The object is not the one that was expected, or there is none. Nothing was written."""


class ObjectDamaged(Exception):
    """What the store holds, or returned, is not what was written; the message says where."""


class ObjectTooLarge(Exception):
    """The object is larger than SMALL_BYTES_MAX."""


class ObjectLocked(Exception):
    """The object is locked: it can be neither deleted nor locked for less time."""


class ObjectLockUnsupported(Exception):
    """The store, or this bucket, cannot lock objects."""


class InvalidRange(Exception):
    """The range begins behind the end of the object."""


StorageClass = Literal["STANDARD", "STANDARD_IA"]
LockMode = Literal["GOVERNANCE", "COMPLIANCE"]


@dataclass(frozen=True, slots=True)
class Lock:
    """Until when an object can be neither deleted nor overwritten (S3 Object Lock)."""

    mode: LockMode
    until: datetime


@dataclass(frozen=True, slots=True)
class Placement:
    """How an object is kept. What a store cannot do is left out; `Capabilities` says what that is."""

    storage_class: StorageClass = "STANDARD"
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it. modify_time: by the store's clock, aware, UTC."""

    key: str
    size_bytes: int
    etag: str
    modify_time: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is kept.

    etag: opaque, another one after every change of the content; what `if_match` compares.
    sha256: of the content, when the store computed or checked one over the whole object; else None.
    encryption: what the store says it encrypts with (`AES256`, `aws:kms`); None when it says nothing.
    storage_class, lock: as the store tells them; None when it says nothing.
    """

    key: str
    size_bytes: int
    etag: str
    modify_time: datetime
    sha256: bytes | None = None
    encryption: str | None = None
    storage_class: str | None = None
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an upload: number from 1, size, SHA-256 of its bytes."""

    number: int
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was found to do, by trying it.

    checksums: refuses a part whose SHA-256 is not the one that was sent. conditional_writes: honours `if_absent` and
    `if_match` by itself. object_lock: the bucket can lock objects. encryption: what it says of a probe object.
    storage_classes: keeps the storage class that it is given.
    """

    checksums: bool
    conditional_writes: bool
    object_lock: bool
    encryption: str | None = None
    storage_classes: bool = False


class Upload(Protocol):
    """A multipart upload that runs. Nothing of it can be seen before `complete` returned."""

    async def write(self, content: bytes) -> None:
        """Takes the next bytes of the object, of any length, also zero.

        Returns once they are in the upload's buffer, which holds a bounded number of bytes; so a slow store slows the
        writer down. Raises what an earlier part ran into.
        """
        ...

    async def complete(self) -> tuple[Stored, tuple[Part, ...]]:
        """The object, once all bytes are durable and what the store has was compared with what was written.

        Raises ObjectDamaged when the store's checksum or size differs from what was written (the object is removed
        then), ObjectExists when an object with the key is there already and the upload was to be its first.
        """
        ...


class ObjectStore(Protocol):
    """Objects by key. A write is atomic and durable once it returned, and every later read and listing sees it."""

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        placement: Placement | None = None,
    ) -> Stored:
        """Stores a small object (at most SMALL_BYTES_MAX), over what is there.

        if_absent: only when there is none, else ObjectExists. if_match: only over the object with this etag, else
        ObjectChanged, also when there is none. A repeat inside, after an answer that was lost, finds its own earlier
        write and succeeds: an object that is there with the very same bytes counts as written.
        """
        ...

    def upload(
        self, key: str, *, placement: Placement | None = None, if_absent: bool = True
    ) -> AbstractAsyncContextManager[Upload]:
        """A streamed object of any size. Left without `complete` or with an exception, also when cancelled, it is
        aborted: no part of it stays behind as far as the store can be reached.
        """
        ...

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """A small object. Raises ObjectNotFound; ObjectTooLarge above SMALL_BYTES_MAX."""
        ...

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of an object, or a range of them, in pieces of at most 1 MiB.

        A connection that breaks is repeated from where it stood, on the same content. Raises ObjectNotFound;
        ObjectDamaged when the content changed meanwhile or ended early; InvalidRange for a start beyond the end.
        """
        ...

    async def head(self, key: str) -> Stored | None:
        """What is kept under a key; None when nothing is."""
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """Every object whose key begins with the prefix, by key in code-point order, beginning after a key.

        All of them, however many pages that takes.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there counts as removed. Raises ObjectLocked."""
        ...

    async def extend_lock(self, key: str, lock: Lock) -> None:
        """Locks an object, or locks it for longer. Raises ObjectNotFound; ObjectLocked when it would become shorter;
        ObjectLockUnsupported when the store has none."""
        ...

    async def sweep(self, prefix: str, before: datetime) -> int:
        """Aborts uploads below the prefix that began before a moment, and returns how many."""
        ...

    async def now(self) -> datetime:
        """The store's clock, to the second. Leases and ages are judged by it alone."""
        ...

    async def probe(self) -> Capabilities:
        """Finds out by trying, with objects below `probe/` that it removes again."""
        ...

    async def check(self) -> None:
        """Returns when the store answers."""
        ...
