"""The archive: the history of changes, shipped in sealed segments every few seconds.

One process of many ships, under a lease. A segment is written once, under a key that names its positions, and holds the
digest of the one before it: what is missing, changed or from elsewhere is noticed. The bucket says how far the archive
is; nothing is remembered elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence, Set
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged, ObjectExists, ObjectNotFound, ObjectTooLarge
from services.backup.domain import layout
from services.backup.domain.compression import Compressor, Corrupt, Decompressor, TooLong, Truncated
from services.backup.domain.documents import (
    DocumentInvalid,
    Fields,
    Signer,
    Verifier,
    decode_signed,
    encode_signed,
    time_text,
)
from services.backup.domain.forks import ancestry
from services.backup.domain.layout import SegmentKey
from services.backup.domain.lineage import Stretch
from services.backup.domain.model import SEGMENT_CHANGES_MAX, Epoch, Head, Place, Segment, StoredChange
from services.backup.domain.sealing import PREFIX_BYTES, SALT_BYTES, DataKey, Header, Tampered, open_sealed, seal
from services.backup.domain.targets import Cut, RestorePlan, SegmentSpan
from services.backup.ports import SegmentFormat
from services.backup.usecases.archive_size import ArchiveSize
from services.backup.usecases.line_ends import NEWEST_MAX, LineEnds
from services.backup.usecases.repository import Repository

CHANGES_MAX = 10_000
"""Of one segment that is sealed here."""
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""Of one segment as it is read back: one change alone may be larger than what seals a segment."""
KEY_LIFE = timedelta(days=1)
"""How long one data key seals segments, by the store's clock."""
KEY_LATE = timedelta(days=2)
"""After the making of its key a segment is stored by then. One that a process stores later, which stood still since,
has its key written down anew: nobody may take that for one that is out of use."""
KEYS_OF_SEGMENTS = "archive/"
"""What the purposes of their keys begin with."""
HEARTBEAT_SECONDS = 10.0
"""Time between two heartbeats while nothing changes."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of the archive's line: the newest segment's last position and digest. sha256: None before the first.

    first: where the newest segment begins; 0 before the first. change: its last one, where the segment was read.
    """

    epoch: int
    position: int
    sha256: bytes | None
    first: int = 0
    change: StoredChange | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the archive last said of itself: everything up to the place is in it, and no id above the mark was given.

    time: when the database was asked, by the store's clock; what was committed before it lies up to the place. first:
    where the newest segment begins, 0 when there is none.
    """

    time: datetime
    cluster_id: str
    place: Place
    first: int
    schema_id_high: int
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """The largest epoch and the largest schema id that the archive tells of; 0 for none.

    unread: names of newest segments that cannot be read. As many schema ids as they have changes count as given.
    """

    epoch: int
    schema_id: int
    unread: tuple[str, ...] = ()


class Archive:
    """Reads and writes the archive of one repository."""

    def __init__(self, repository: Repository, segments: SegmentFormat) -> None:
        self._repository = repository
        self._segments = segments
        self._size = ArchiveSize(repository.store, repository.clock)
        self._ends = LineEnds(repository.store)
        self._sealing: _Sealing | None = None

    # Reading

    async def key_ids(self) -> Sequence[str]:
        """All data keys of the repository."""
        return await self._repository.keys.ids()

    async def next_keys(self, after: SegmentKey | None, count: int) -> list[SegmentKey]:
        """The next segments behind one, of its line and those after it, or the first ones; so many at most."""
        start = layout.segment(after.epoch, after.first, after.last) if after is not None else ""
        found: list[SegmentKey] = []
        async for each in self._repository.store.list(layout.ARCHIVE, after=start):
            key = layout.segment_of(each.key)
            if key is not None:
                found.append(key)
            if len(found) >= count:
                break
        return found

    async def read(self, key: SegmentKey) -> tuple[Segment, bytes]:
        """A segment and its digest. Raises errors.BackupDamaged, KeyUnavailable, ObjectStoreUnavailable."""
        segment, digest, _ = await self._read(key)
        return segment, digest

    async def stored(self, key: SegmentKey) -> bytes:
        """A segment as it lies in the store, once all of it was read and found right. Raises as `read` does."""
        content = await self._content(key)
        await self._opened(key, content)
        return content

    async def _content(self, key: SegmentKey) -> bytes:
        name = layout.segment(key.epoch, key.first, key.last)
        try:
            content, _ = await self._repository.store.get(name)
        except ObjectNotFound:
            raise _damaged(name, "the segment is not there") from None
        except (ObjectDamaged, ObjectTooLarge) as failed:
            raise _damaged(name, str(failed)) from None
        return content

    async def _read(self, key: SegmentKey) -> tuple[Segment, bytes, str | None]:
        """A segment, its digest, and the id of the data key that it is sealed under."""
        return await self._opened(key, await self._content(key))

    async def _opened(self, key: SegmentKey, content: bytes) -> tuple[Segment, bytes, str | None]:
        """The same of a segment as it is stored."""
        name = layout.segment(key.epoch, key.first, key.last)
        body = self._signed_body(name, content)
        data_key = await self._key_of(name, body)
        try:
            plain = await asyncio.to_thread(_unpacked, name, body, data_key)
            segment = self._segments.decode(plain)
        except (Tampered, Corrupt, Truncated, TooLong, ValueError) as failed:
            raise _damaged(name, str(failed)) from None
        if (segment.epoch, segment.first, segment.last) != (key.epoch, key.first, key.last):
            raise _damaged(name, "it holds other changes than its name says")
        cluster = await self._repository.cluster_id()
        if cluster not in {None, segment.cluster_id}:
            raise _damaged(name, f"it is of registry {segment.cluster_id}, not of {cluster}")
        return segment, hashlib.sha256(plain).digest(), data_key.id if data_key else None

    async def heartbeat(self) -> Heartbeat | None:
        """The newest heartbeat; None when there is none, or it cannot be trusted: it is a hint."""
        repository = self._repository
        try:
            content, _ = await repository.store.get(layout.HEARTBEAT)
            return _read_heartbeat(content, repository.verifiers)
        except (ObjectNotFound, ObjectDamaged, ObjectTooLarge, DocumentInvalid):
            return None

    async def changes(self, way: RestorePlan, cut: Cut) -> AsyncGenerator[StoredChange, None]:
        """The changes that lead from the plan's base to its target, in the order of the history.

        Raises errors.BackupDamaged when a segment is damaged or does not follow the one before it; targets.Unreachable
        when they do not lead to the target.
        """
        previous: tuple[SegmentSpan, bytes] | None = None
        for piece in way.pieces:
            if cut.stopped:
                break
            span = piece.segment
            segment, digest = await self.read(SegmentKey(span.epoch, span.first, span.last))
            if previous is not None and _follows(previous[0], span) and segment.previous_sha256 != previous[1]:
                raise _damaged(
                    layout.segment(span.epoch, span.first, span.last), "it does not follow the segment before it"
                )
            previous = span, digest
            for change in segment.changes:
                if cut.includes(change):
                    yield change
        cut.check()

    async def audit(self, key: SegmentKey, before: tuple[SegmentKey, bytes] | None) -> tuple[bytes, str | None]:
        """A segment's digest and the id of the data key that it is sealed under, once all of it was read and found to
        follow the one before it, where that is given.

        Raises errors.BackupDamaged that names the segment, KeyUnavailable.
        """
        segment, digest, key_id = await self._read(key)
        follows = before is not None and (before[0].epoch, before[0].last + 1) == (key.epoch, key.first)
        if follows and before is not None and segment.previous_sha256 != before[1]:
            raise _damaged(layout.segment(key.epoch, key.first, key.last), "it does not follow the segment before it")
        return digest, key_id

    async def spans(self, stretches: Sequence[Stretch]) -> list[SegmentSpan]:
        """The segments that hold positions of some stretches, as their names and the listing tell of them: last_time is
        when one was stored. Listed are those that begin SEGMENT_CHANGES_MAX before a stretch, up to its end."""
        found: list[SegmentSpan] = []
        for stretch in stretches:
            # One that begins before the stretch may reach into it.
            start = layout.segments_from(stretch.epoch, max(0, stretch.after + 2 - SEGMENT_CHANGES_MAX))
            async with aclosing(self._listed(layout.epoch(stretch.epoch), start)) as listed:
                async for span in listed:
                    if stretch.through is not None and span.first > stretch.through:
                        break
                    if span.last > stretch.after:
                        found.append(span)
        return found

    async def present(self, keys: Set[str]) -> Set[str]:
        """Which of these keys of segments are there. Nothing behind the last of them is listed."""
        last, found = max(keys), set[str]()
        async for each in self._repository.store.list(layout.ARCHIVE):
            if each.key > last:
                break
            if each.key in keys:
                found.add(each.key)
        return found

    async def run(self, wanted: Callable[[SegmentSpan], bool]) -> list[SegmentSpan]:
        """The segments from the beginning of each epoch up to the first that is not wanted. No more of each is listed
        than those and that one, however long the archive is."""
        found: list[SegmentSpan] = []
        start = ""
        while True:
            async for span in self._listed(layout.ARCHIVE, start):
                if not wanted(span):
                    start = layout.behind_epoch(span.epoch)
                    break
                found.append(span)
            else:
                return found

    async def size(self) -> tuple[int, int]:
        """How many segments there are, and their bytes as stored; see ArchiveSize.read."""
        return await self._size.read()

    async def now(self) -> datetime:
        """The store's clock."""
        return await self._repository.store.now()

    async def _listed(self, prefix: str, after: str) -> AsyncGenerator[SegmentSpan, None]:
        async for each in self._repository.store.list(prefix, after=after):
            key = layout.segment_of(each.key)
            if key is not None:
                yield SegmentSpan(key.epoch, key.first, key.last, last_time=each.modify_time)

    async def epochs(self) -> Sequence[int]:
        """The epochs that have segments, in order."""
        return await self._ends.epochs()

    async def ending(self, epoch: int, beat: Heartbeat | None = None) -> tuple[Segment | None, Sequence[SegmentKey]]:
        """The newest segment of a line that can be read, None for none of the last NEWEST_MAX, and those behind it,
        newest first, which are damaged or sealed. beat: says where to begin to look."""
        damaged: list[SegmentKey] = []
        async with aclosing(self._ends.backwards(epoch, _begun(epoch, beat))) as keys:
            async for key in keys:
                with suppress(errors.BackupDamaged, errors.KeyUnavailable):
                    return (await self.read(key))[0], damaged
                damaged.append(key)
        return None, damaged

    async def known(self) -> Given:
        """What the archive tells of numbers that were given.

        Of each line the newest segment tells that can be read, and the heartbeat of all: what has rotten must not keep
        anything from being restored. Raises errors.BackupDamaged where neither tells, errors.ObjectStoreUnavailable.
        """
        lines = await self.epochs()
        beat = await self.heartbeat()
        epochs, ids, unread = [0, *lines], [0], list[SegmentKey]()
        if beat is not None:
            epochs += [each.id for each in beat.epochs]
            ids.append(beat.schema_id_high)
        for line in lines:
            segment, damaged = await self.ending(line, beat)
            unread += damaged
            if segment is not None:
                ids.append(segment.schema_id_high)
            elif len(damaged) == NEWEST_MAX and not _told(beat, damaged[-1]):
                raise _unknown_ids(damaged)
        # A change gives one schema id at most.
        passed_over = sum(key.last - key.first + 1 for key in unread)
        names = tuple(layout.segment(key.epoch, key.first, key.last) for key in unread)
        return Given(max(epochs), max(ids) + passed_over, names)

    async def tip(self, head: Head) -> Tip:
        """Where the archive of the database's history ends, by the bucket's own word.

        In the database's own line, or in the one that it forked from when that was not archived up to the fork.
        """
        beat = await self.heartbeat()
        lines = {line.id: line for line in head.epochs}
        child, end = head.epoch, head.position
        for line in ancestry(lines, head.epoch):
            found = await self._tip_of(line.id, beat)
            if found is not None:
                # What the line went on to behind the fork belongs to another history.
                return found if found.position < end or line.id == head.epoch else Tip(child, end, None)
            child, end = line.id, min(end, line.fork_position)
        return Tip(child, max(end, head.floor), None)

    async def _tip_of(self, epoch: int, beat: Heartbeat | None) -> Tip | None:
        """The newest segment of a line; None when it has none.

        The heartbeat says where to begin to look, no more: what counts is what is there.
        """
        newest = await self._ends.newest(epoch, _begun(epoch, beat))
        if newest is None:
            return None
        try:
            segment, digest = await self.read(newest)
        except errors.BackupDamaged as damaged:
            # Not done by itself: it may be good, and signed by a key that nobody named here.
            raise errors.BackupDamaged(
                f"{damaged.message}. Nothing is archived behind it until it is whole: bring it back, from the second"
                " store or as an older version of it, or delete that object while the database is whole, from which"
                " its changes are archived again.",
                metadata=damaged.metadata,
            ) from None
        return Tip(epoch, newest.last, digest, newest.first, segment.changes[-1])

    # Writing

    async def ship(self, tip: Tip, head: Head, changes: Sequence[StoredChange]) -> Tip:
        """Writes the changes, which follow the tip in its line, as one segment, and returns the new tip.

        Raises errors.LeaseLost when another process wrote other changes there.
        """
        repository = self._repository
        segment = Segment(
            cluster_id=head.cluster_id,
            epochs=tuple(line for line in head.epochs if line.id <= tip.epoch),
            previous_sha256=tip.sha256,
            schema_id_high=head.schema_id_high,
            seal_time=await repository.store.now(),
            changes=tuple(changes),
        )
        plain = self._segments.encode(segment)
        name = layout.segment(segment.epoch, segment.first, segment.last)
        sealing = await self._sealed_under(head.cluster_id, segment.seal_time)
        key = sealing.key if sealing else None
        salt, prefix = repository.dice(SALT_BYTES), repository.dice(PREFIX_BYTES)
        body = await asyncio.to_thread(_packed, name, plain, key, salt, prefix)
        signer = repository.signer
        content = _MAGIC + bytes.fromhex(signer.key_id) + signer.sign(_signed(name, body)) + body
        await repository.failpoints.reached("archive.before_put")
        try:
            stored = await repository.store.put(name, content, if_absent=True)
        except ObjectExists:
            raise errors.LeaseLost(f"Another process archived {name} already: this one starts over.") from None
        await repository.failpoints.reached("archive.put")
        if sealing and stored.modify_time > sealing.made + KEY_LATE:
            await repository.keys.renew(sealing.key, head.cluster_id, sealing.purpose)
        return Tip(tip.epoch, segment.last, hashlib.sha256(plain).digest(), segment.first)

    async def beat(self, tip: Tip, head: Head, asked: datetime) -> Heartbeat:
        """Writes a heartbeat and returns it. asked: a moment, by the store's clock, before the changes were read."""
        beat = Heartbeat(
            time=asked,
            cluster_id=head.cluster_id,
            place=Place(tip.epoch, tip.position),
            first=tip.first,
            schema_id_high=head.schema_id_high,
            epochs=head.epochs,
        )
        await self._repository.store.put(layout.HEARTBEAT, _heartbeat_document(beat, self._repository.signer))
        return beat

    async def _sealed_under(self, cluster_id: str, now: datetime) -> _Sealing | None:
        """What seals a segment; None where nothing is sealed. now: by the store's clock."""
        repository = self._repository
        if not repository.keys.enabled:
            return None
        known = self._sealing
        if known is None or not known.made <= now < known.made + KEY_LIFE:
            purpose = f"{KEYS_OF_SEGMENTS}{repository.new_id()}"
            known = self._sealing = _Sealing(await repository.keys.create(cluster_id, purpose), now, purpose)
        return known

    def _signed_body(self, name: str, content: bytes) -> bytes:
        """What follows the signature, once that was found to be of a known key. Raises errors.BackupDamaged."""
        head = len(_MAGIC) + KEY_ID_BYTES
        key_id, signature = content[len(_MAGIC) : head].hex(), content[head : head + SIGNATURE_BYTES]
        body = content[head + SIGNATURE_BYTES :]
        if not content.startswith(_MAGIC) or not body:
            raise _damaged(name, "it is no segment of an archive, version 1")
        verifier = next((each for each in self._repository.verifiers if each.key_id == key_id), None)
        if verifier is None:
            raise _damaged(name, f"it is signed by the key {key_id}, which is not among those that are trusted here")
        if not verifier.accepts(signature, _signed(name, body)):
            raise _damaged(name, "its signature does not hold: it was changed, or belongs elsewhere")
        return body

    async def _key_of(self, name: str, body: bytes) -> DataKey | None:
        """The key that a segment is sealed under; None for one that is not sealed."""
        if body.startswith(_ZSTD_MAGIC):
            return None
        try:
            return await self._repository.keys.open(Header.parse(body).key_id)
        except Tampered as tampered:
            raise _damaged(name, str(tampered)) from None


@dataclass(frozen=True, slots=True)
class _Sealing:
    """The data key that seals segments now. made: when, by the store's clock."""

    key: DataKey
    made: datetime
    purpose: str


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """When a segment is sealed: at so many bytes, or so many seconds after the one before."""

    seal_bytes: int = 1024 * 1024
    seal_seconds: float = 5.0


_HEARTBEAT = "heartbeat"
_MAGIC = b"LSRSEG1\0"
KEY_ID_BYTES = 16
SIGNATURE_BYTES = 64
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def _signed(name: str, body: bytes) -> bytes:
    """What is signed: the place as well as the bytes."""
    return _MAGIC + name.encode() + b"\0" + hashlib.sha256(body).digest()


def _follows(before: SegmentSpan, after: SegmentSpan) -> bool:
    """Whether a segment is the next one of the same line."""
    return after.epoch == before.epoch and after.first == before.last + 1


def _packed(name: str, plain: bytes, key: DataKey | None, salt: bytes, prefix: bytes) -> bytes:
    compressor = Compressor("zstd")
    compressed = compressor.update(plain) + compressor.finish()
    return compressed if key is None else seal(key, name, compressed, salt=salt, prefix=prefix)


def _unpacked(name: str, content: bytes, key: DataKey | None) -> bytes:
    compressed = content if key is None else open_sealed(key, name, content)
    decompressor = Decompressor("zstd", output_bytes_max=SEGMENT_BYTES_MAX)
    return decompressor.update(compressed) + decompressor.finish()


def _heartbeat_document(beat: Heartbeat, signer: Signer) -> bytes:
    body = {
        "time": time_text(beat.time),
        "cluster_id": beat.cluster_id,
        "epoch": beat.place.epoch,
        "position": beat.place.position,
        "first": beat.first,
        "schema_id_high": beat.schema_id_high,
        "epochs": [{"id": line.id, "parent": line.parent, "fork_position": line.fork_position} for line in beat.epochs],
    }
    return encode_signed(_HEARTBEAT, body, signer)


def _read_heartbeat(content: bytes, verifiers: Sequence[Verifier]) -> Heartbeat:
    """The heartbeat of a document. Raises DocumentInvalid."""
    fields = Fields(decode_signed(_HEARTBEAT, content, verifiers), _HEARTBEAT)
    return Heartbeat(
        time=fields.time("time"),
        cluster_id=fields.text("cluster_id"),
        place=Place(fields.integer("epoch"), fields.integer("position")),
        first=fields.integer("first"),
        schema_id_high=fields.integer("schema_id_high"),
        epochs=tuple(_epoch(line) for line in fields.many("epochs")),
    )


def _epoch(line: Fields) -> Epoch:
    parent = line.integer("parent") if line.present("parent") else None
    return Epoch(line.integer("id"), parent, line.integer("fork_position"))


def _begun(epoch: int, beat: Heartbeat | None) -> int:
    """Where the newest segment of a line began when the heartbeat was written; 0 when that does not say."""
    return beat.first if beat is not None and beat.place.epoch == epoch else 0


def _told(beat: Heartbeat | None, oldest: SegmentKey) -> bool:
    """Whether a heartbeat tells of all schema ids that were given before a segment."""
    return beat is not None and (beat.place.epoch, beat.place.position + 1) >= (oldest.epoch, oldest.first)


def _unknown_ids(keys: Sequence[SegmentKey]) -> errors.BackupDamaged:
    name = layout.segment(keys[0].epoch, keys[0].first, keys[0].last)
    return errors.BackupDamaged(
        f"{name} and {len(keys) - 1} segments before it cannot be read, for damage or for want of a key, and no"
        " heartbeat tells which schema ids were given: bring one of them back, from the second store or as an older"
        " version of it, or the key.",
        metadata={"key": name},
    )


def _damaged(name: str, problem: str) -> errors.BackupDamaged:
    return errors.BackupDamaged(f"{name}: {problem}", metadata={"key": name})
