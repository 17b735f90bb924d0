"""The directory store on its disk: what it leaves there, what the disk does to it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_schema_registry.errors import Error, ObjectStoreDenied, ObjectStoreUnavailable
from llm_schema_registry.objects import directory, directory_files
from llm_schema_registry.objects.directory import DirectoryStore, translated
from llm_schema_registry.objects.store import Listed, ObjectChanged, ObjectDamaged, ObjectNotFound

ROOT = Path(__file__).resolve().parents[3]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(folder: Path) -> DirectoryStore:
    return DirectoryStore(folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The store's lock, as another process would hold it."""
    with (folder / directory_files.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def drafts(folder: Path) -> list[Path]:
    return [path for path in (folder / directory_files.UPLOADS).rglob("*") if path.is_file()]


def modes(folder: Path, *, folders: bool) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*")) if path.is_dir() is folders}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_plain_files(store: DirectoryStore, folder: Path) -> None:
    """Objects are files by the name of their key, so that they can be copied and read without this program."""
    await store.put("a/b.json", b"text")

    assert (folder / "a" / "b.json").read_bytes() == b"text"


async def test_modes(store: DirectoryStore, folder: Path) -> None:
    """Nobody but the owner can read anything."""
    await store.put("a/b", b"")
    async with store.upload("c") as upload:
        await upload.complete()

    assert modes(folder, folders=True) == {0o700}
    assert modes(folder, folders=False) == {0o600}


async def test_durable(store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are flushed before the object gets its name, and the name before the write returns."""
    await store.put("a/0", b"")
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("flush " + ("draft" if target.name.startswith(".") else target.name))
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    await store.put("a/1", b"text")
    await store.put("new/2", b"text")

    assert events == [
        *("flush draft", "rename to 1", "flush a"),
        *("flush draft", "flush objects", "rename to 2", "flush new"),
    ]


async def test_nothing_left(store: DirectoryStore, folder: Path) -> None:
    """Writes and removals leave no drafts and no empty folders."""
    await store.put("a/b/c", b"1")
    await store.put("a/b/c", b"2")
    async with store.upload("d/e") as upload:
        await upload.write(b"x")
    await store.delete("a/b/c")

    assert names(folder) == [directory_files.LOCK]


async def test_key_below_a_key(store: DirectoryStore) -> None:
    """A key cannot be an object and the beginning of another one; the message says so and the first stays."""
    await store.put("a", b"1")
    await store.put("b/c", b"2")

    with pytest.raises(ObjectStoreDenied, match="begin with another object's key"):
        await store.put("a/x", b"")
    with pytest.raises(ObjectStoreDenied, match="begin with another object's key"):
        await store.put("b", b"")

    assert (await store.get("a"))[0] == b"1"
    assert (await store.get("b/c"))[0] == b"2"


async def test_parent_missing(tmp_path: Path) -> None:
    """A volume that is not mounted is ObjectStoreDenied for every method, and never looks like an empty store."""
    store = DirectoryStore(tmp_path / "volume" / "objects")

    for call in (store.check(), store.put("a", b""), store.get("a"), store.head("a"), store.sweep("", NOON)):
        with pytest.raises(ObjectStoreDenied, match="mount the volume"):
            await call
    with pytest.raises(ObjectStoreDenied, match="mount the volume"):
        await anext(store.list(""))
    assert not (tmp_path / "volume").exists()


async def test_a_long_folder_is_listed_bit_by_bit(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of keys, folders among objects; what is removed meanwhile is left out, and nobody is asked about
    files whose turn does not come."""
    monkeypatch.setattr(directory, "LISTED_AT_ONCE", 2)
    keys = ["a", "b/1", "b/2", "b/3", "c", "d", "e", "f"]
    for key in reversed(keys):
        await store.put(key, key.encode())
    looked: list[str] = []

    def look(place: directory_files.Place, some: Sequence[str]) -> list[Listed]:
        looked.extend(some)
        return listed(place, some)

    listed = directory_files.listed
    monkeypatch.setattr(directory_files, "listed", look)

    found: list[str] = []
    async for each in store.list(""):
        found.append(each.key)
        if each.key == "a":
            await store.delete("b/3")
        if each.key == "d":
            break

    assert found == ["a", "b/1", "b/2", "c", "d"]
    assert looked == found
    assert [each.key async for each in store.list("", after="b/1")] == ["b/2", "c", "d", "e", "f"]


async def test_a_volume_that_goes_away_in_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not listed yet does not look as if it had been removed."""
    monkeypatch.setattr(directory, "LISTED_AT_ONCE", 2)
    (tmp_path / "volume").mkdir()
    store = DirectoryStore(tmp_path / "volume" / "objects")
    for key in "abc":
        await store.put(key, b"")

    listing = store.list("")
    await anext(listing)
    await anext(listing)
    (tmp_path / "volume").rename(tmp_path / "elsewhere")

    with pytest.raises(ObjectStoreDenied, match="mount the volume"):
        await anext(listing)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ObjectStoreDenied, "add space"),
        (errno.EDQUOT, ObjectStoreDenied, "add space"),
        (errno.EACCES, ObjectStoreDenied, "user that the service runs as"),
        (errno.EROFS, ObjectStoreDenied, "mount it writable"),
        (errno.EIO, ObjectStoreUnavailable, "EIO"),
        (errno.ESTALE, ObjectStoreUnavailable, "ESTALE"),
    ],
)
async def test_disk_errors(
    store: DirectoryStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Error],
    words: str,
) -> None:
    """An error of the disk names the folder and what to do, and leaves nothing half-written."""
    await store.put("key", b"before")

    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(number, "the system's words")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(kind, match=words) as caught:
        await store.put("key", b"after")
    monkeypatch.undo()

    assert str(folder) in str(caught.value)
    assert (await store.get("key"))[0] == b"before"
    assert drafts(folder) == []


def test_unknown_disk_error(folder: Path) -> None:
    """An error without a number is told too."""
    assert "unknown error" in str(translated(OSError("odd"), folder))


async def test_short_writes(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes few bytes at once gets them all."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))

    await store.put("key", b"0123456789")

    assert (await store.get("key"))[0] == b"0123456789"


async def test_lock_held_by_another(store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs while it holds the lock makes others fail after a limit, with its name to look for."""
    await store.put("key", b"1")
    monkeypatch.setattr(directory_files, "LOCK_SECONDS", 0.05)

    with held(folder), pytest.raises(ObjectStoreUnavailable, match="fuser"):
        await store.put("key", b"2")

    await store.put("key", b"3")
    assert (await store.get("key"))[0] == b"3"
    assert drafts(folder) == []


async def test_cancelled(store: DirectoryStore, folder: Path) -> None:
    """A write that is cancelled has ended when the cancellation is over, and left no draft."""
    await store.put("key", b"1")

    with held(folder):
        writing = asyncio.create_task(store.put("key", b"2"))
        while not drafts(folder):  # noqa: ASYNC110  A thread makes it.
            await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.sleep(0)
        assert not writing.done()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert drafts(folder) == []


async def test_killed_writer(store: DirectoryStore, folder: Path) -> None:
    """What a killed process was writing is invisible, and swept by age and prefix."""
    program = f"""
import asyncio, os, sys
sys.path.insert(0, {str(ROOT / "shared")!r})
from pathlib import Path
from llm_schema_registry.objects.directory import DirectoryStore
async def main():
    async with DirectoryStore(Path({str(folder)!r})).upload("a/b") as upload:
        await upload.write(bytes(3_000_000))
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)

    assert killed.returncode == -9
    assert len(drafts(folder)) == 1
    assert [listed.key async for listed in store.list("")] == []
    now = datetime.now(UTC)
    assert await store.sweep("", now - timedelta(hours=1)) == 0
    assert await store.sweep("b", now + timedelta(hours=1)) == 0
    assert await store.sweep("a/", now + timedelta(hours=1)) == 1
    assert names(folder) == []


async def test_clock(folder: Path) -> None:
    """Times are those of the clock that was given."""
    store = DirectoryStore(folder, lambda: NOON)
    stored = await store.put("key", b"1")

    head = await store.head("key")

    assert head is not None
    assert stored.modify_time == head.modify_time == await store.now() == NOON


async def test_etags_when_time_stands(folder: Path) -> None:
    """Contents that follow each other within one tick of the clock have different etags."""
    store = DirectoryStore(folder, lambda: NOON)

    etags = [(await store.put("key", b"%03d" % number)).etag for number in range(50)]

    assert len(set(etags)) == 50
    with pytest.raises(ObjectChanged):
        await store.put("key", b"new", if_match=etags[-2])


async def test_file_that_was_cut(store: DirectoryStore, folder: Path) -> None:
    """A file that becomes shorter while it is read is ObjectDamaged, and the message names the byte."""
    await store.put("key", bytes(3 * 1024 * 1024))
    reading = store.read("key")
    await anext(reading)

    os.truncate(folder / "key", 1024 * 1024)

    with pytest.raises(ObjectDamaged, match="1048576"):
        await anext(reading)


async def test_reader_keeps_its_object(store: DirectoryStore) -> None:
    """A reader goes on with the object as it was, when it is replaced or removed meanwhile."""
    await store.put("key", b"1" * 3_000_000)
    reading = store.read("key")
    pieces = [await anext(reading)]

    await store.put("key", b"2" * 3_000_000)
    await store.delete("key")
    pieces += [piece async for piece in reading]

    assert b"".join(pieces) == b"1" * 3_000_000


async def test_links_and_strangers(store: DirectoryStore, folder: Path, tmp_path: Path) -> None:
    """Symbolic links are no objects, nor are files whose names are no keys."""
    (tmp_path / "secret").write_text("secret")
    await store.put("a", b"")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "lost+found").mkdir()
    (folder / "a b").write_text("")

    assert [listed.key async for listed in store.list("")] == ["a"]
    assert await store.head("link") is None
    with pytest.raises(ObjectNotFound):
        await store.get("link")
