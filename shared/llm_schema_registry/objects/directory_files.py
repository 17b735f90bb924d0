"""The files behind DirectoryStore. Everything here blocks, and raises OSError beside the port's exceptions."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat as modes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from llm_schema_registry import errors
from llm_schema_registry.objects.keys import SEGMENT
from llm_schema_registry.objects.store import (
    Listed,
    ObjectChanged,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    Stored,
)

UPLOADS = ".uploads"
LOCK = ".lock"
FOLDER_MODE = 0o700
FILE_MODE = 0o600
LOCK_SECONDS = 20.0
"""Longest wait for another writer, which holds the lock for a comparison and a rename."""
POLL_SECONDS = (0.001, 0.05)
"""Between tries to get the lock: the first pause, and the longest."""
COMPARED_BYTES = 1024 * 1024
FOLDER_TRIES = 20
"""To make a folder while others remove it because it is empty."""

_DRAFT = re.compile(r"\.(\d{1,15})-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Place:
    """A store's folder."""

    folder: Path

    def path(self, key: str) -> Path:
        """Where an object is kept."""
        return self.folder / key

    def prepare(self) -> None:
        """Makes the folder; its parents must be there. Raises OSError."""
        with suppress(FileExistsError):
            self.folder.mkdir(FOLDER_MODE)
            flush_folder(self.folder.parent)

    def require(self) -> None:
        """Returns when the folder is there, or could be made: a volume that is not mounted must not look empty.

        Raises FileNotFoundError.
        """
        if not self.folder.is_dir():
            self.folder.parent.stat()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, of all processes. Raises ObjectStoreUnavailable after LOCK_SECONDS."""
        descriptor = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        pause, longest = POLL_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise errors.ObjectStoreUnavailable(
                        f"another process has held {self.folder / LOCK} for {LOCK_SECONDS:g} s: end the process that "
                        "hangs (`fuser` names it), then repeat"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return


@dataclass(frozen=True, slots=True)
class Condition:
    """Of what is there, for a write."""

    if_absent: bool = False
    if_match: str | None = None


class Draft:
    """A file that is written and then becomes an object, or is discarded. Not for two threads at once."""

    def __init__(self, place: Place, key: str, path: Path, descriptor: int) -> None:
        self._place = place
        self._key = key
        self._path = path
        self._descriptor: int | None = descriptor
        self.size_bytes = 0

    @classmethod
    def begin(cls, place: Place, key: str, now: datetime) -> Self:
        """An empty draft that began now."""
        place.prepare()
        folder = place.folder / UPLOADS / key
        path = folder / f".{int(now.timestamp())}-{secrets.token_hex(8)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        for tried in range(1, FOLDER_TRIES + 1):
            try:
                _make_folders(place.folder, folder, durable=False)
                return cls(place, key, path, os.open(path, flags, FILE_MODE))
            except FileNotFoundError:
                if tried == FOLDER_TRIES:
                    raise
        raise AssertionError("the loop returns or raises")

    def write(self, content: bytes) -> None:
        """Appends."""
        assert self._descriptor is not None, "the draft is closed"
        rest = memoryview(content)
        while rest:
            written = os.write(self._descriptor, rest)
            self.size_bytes += written
            rest = rest[written:]

    def commit(self, condition: Condition, now: datetime) -> Stored:
        """Makes the draft the object, if the condition holds, and flushes it.

        Raises ObjectExists, ObjectChanged; ObjectDamaged when the file has another size than what was written. An
        object with the same bytes as the draft counts as the draft.
        """
        path = self._place.path(self._key)
        try:
            found = self._flush(now)
            with self._place.locked():
                present = stat(self._place, self._key)
                if not self._allowed(condition, present):
                    flush_folder(path.parent)
                    assert present is not None, "an object with the same bytes is there"
                    return present
                _make_folders(self._place.folder, path.parent, durable=True)
                self._path.rename(path)
            flush_folder(path.parent)
        except FileNotFoundError:
            raise errors.ObjectStoreUnavailable(
                f"the upload of {self._key} was removed from {self._place.folder / UPLOADS} while it ran, by a sweep "
                "or by hand: repeat it"
            ) from None
        return _stored(self._key, found)

    def _flush(self, now: datetime) -> os.stat_result:
        assert self._descriptor is not None, "the draft is closed"
        # The nanoseconds are dice: with the file's number and size they tell two contents apart that are written
        # within one tick of the clock, whatever the clock does.
        nanoseconds = int(now.timestamp()) * 1_000_000_000 + secrets.randbelow(1_000_000_000)
        os.utime(self._descriptor, ns=(nanoseconds, nanoseconds))
        os.fsync(self._descriptor)
        found = os.fstat(self._descriptor)
        if found.st_size != self.size_bytes:
            raise ObjectDamaged(
                f"{self._key}: {self.size_bytes} bytes were written, the file {self._path} has {found.st_size}"
            )
        return found

    def _allowed(self, condition: Condition, present: Stored | None) -> bool:
        """Whether to write; no for an object that is there with these bytes."""
        if condition.if_match is not None:
            if present is not None and present.etag == condition.if_match:
                return True
            if present is None or not self._same(present):
                raise ObjectChanged(f"{self._key} is not the object that was expected")
            return False
        if not condition.if_absent or present is None:
            return True
        if not self._same(present):
            raise ObjectExists(f"{self._key} is there already, with other bytes")
        return False

    def _same(self, present: Stored) -> bool:
        if present.size_bytes != self.size_bytes:
            return False
        with self._path.open("rb") as ours, self._place.path(self._key).open("rb") as theirs:
            while piece := ours.read(COMPARED_BYTES):
                if piece != theirs.read(COMPARED_BYTES):
                    return False
        return True

    def discard(self) -> None:
        """Removes what is left of the draft. A repeat does nothing."""
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        self._path.unlink(missing_ok=True)
        _prune(self._path.parent, self._place.folder)


class Reader:
    """An open object: what it was when it was opened."""

    def __init__(self, key: str, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self.stored = _stored(key, os.fstat(descriptor))

    @classmethod
    def open(cls, place: Place, key: str) -> Self:
        """Raises ObjectNotFound."""
        try:
            descriptor = os.open(place.path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            place.require()
            raise ObjectNotFound(key) from None
        except OSError as error:
            if error.errno == errno.ELOOP:  # A symbolic link is no object.
                raise ObjectNotFound(key) from None
            raise
        if not modes.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectNotFound(key)
        return cls(key, descriptor)

    def read(self, start: int, count: int) -> bytes:
        """Exactly so many bytes. Raises ObjectDamaged when the file ends before."""
        assert self._descriptor is not None, "the reader is closed"
        pieces: list[bytes] = []
        while count > 0:
            piece = os.pread(self._descriptor, count, start)
            if not piece:
                raise ObjectDamaged(f"{self.stored.key} ends at byte {start} of {self.stored.size_bytes}")
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """A repeat does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def stat(place: Place, key: str) -> Stored | None:
    """What is kept under a key; None when nothing is."""
    try:
        found = place.path(key).lstat()
    except (FileNotFoundError, NotADirectoryError):
        place.require()
        return None
    return _stored(key, found) if modes.S_ISREG(found.st_mode) else None


def entries(place: Place, beginning: str, prefix: str, after: str) -> list[str]:
    """What one folder holds of the keys that are asked for, in the order of whole keys: keys of objects, and the
    beginnings of keys that folders are, which end with a slash.

    beginning: the folder, "" or ending with a slash.
    """
    found: list[str] = []
    try:
        with os.scandir(place.folder / beginning) as scanned:
            for entry in scanned:
                if SEGMENT.fullmatch(entry.name) is None:
                    continue
                path = beginning + entry.name
                if entry.is_dir(follow_symlinks=False):
                    path += "/"
                    if (path.startswith(prefix) or prefix.startswith(path)) and _reaches(path, after):
                        found.append(path)
                elif path.startswith(prefix) and path > after and entry.is_file(follow_symlinks=False):
                    found.append(path)
    except (FileNotFoundError, NotADirectoryError):
        place.require()
    return sorted(found)


def listed(place: Place, keys: Sequence[str]) -> list[Listed]:
    """What a listing tells of objects; those that are gone meanwhile are left out."""
    found = (stat(place, key) for key in keys)
    return [Listed(each.key, each.size_bytes, each.etag, each.modify_time) for each in found if each is not None]


def remove(place: Place, key: str) -> None:
    """Removes an object and the folders that become empty."""
    path = place.path(key)
    if stat(place, key) is None:
        return
    with place.locked():
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        flush_folder(path.parent)
        _prune(path.parent, place.folder)


def sweep(place: Place, prefix: str, before: datetime) -> int:
    """Removes drafts below the prefix that began before a moment."""
    place.require()
    swept = 0
    top = place.folder / UPLOADS
    for folder, _, names in os.walk(top):
        key = Path(folder).relative_to(top).as_posix()
        for name in names:
            began = _DRAFT.fullmatch(name)
            if began is None or not key.startswith(prefix) or int(began[1]) >= before.timestamp():
                continue
            with suppress(FileNotFoundError):
                (Path(folder) / name).unlink()
                swept += 1
            _prune(Path(folder), place.folder)
    return swept


def check(place: Place, now: datetime) -> None:
    """Returns when the folder is there, made if need be, and can be written."""
    draft = Draft.begin(place, "check", now)
    try:
        draft.write(b"x")
    finally:
        draft.discard()


def flush_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folders(top: Path, folder: Path, *, durable: bool) -> None:
    path = top
    for name in folder.relative_to(top).parts:
        path /= name
        try:
            path.mkdir(FOLDER_MODE)
        except FileExistsError:
            continue
        if durable:
            flush_folder(path.parent)


def _prune(folder: Path, top: Path) -> None:
    """Removes folders that are empty, up to the top, which stays."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:  # Not empty, or gone already.
            return
        folder = folder.parent


def _reaches(beginning: str, after: str) -> bool:
    """Whether a key that begins like this can come after another key."""
    return beginning > after or after.startswith(beginning)


def _etag(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _moment(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime_ns // 1_000_000_000, UTC)


def _stored(key: str, found: os.stat_result) -> Stored:
    return Stored(key, found.st_size, _etag(found), _moment(found))
