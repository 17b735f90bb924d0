"""Segments and changes as bytes: backup.v1.Segment for the archive, delimited registry.v1.StoredChange for pipes.

A segment is written deterministically, fields in order, so the digest of one is that of every copy of it. One that was
not written so, or holds fields that are not known here, is refused.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from llm_schema_registry.backup.v1 import archive_pb2 as pb
from llm_schema_registry.registry.v1 import change_pb2, stored_change_pb2
from services.backup.domain.model import SEGMENT_CHANGES_MAX, Epoch, Segment, StoredChange
from services.backup.domain.targets import SegmentSpan

FORMAT = 1
CHANGE_BYTES_MAX = 80 * 1024 * 1024
"""Of one change: the largest schema text that a registry can be set to take has 64 MiB."""
SEGMENT_BYTES_MAX = 96 * 1024 * 1024
"""Of a plain segment. It is sealed at about 1 MiB, but one change alone may be larger."""
EPOCHS_MAX = 100_000
_START = datetime(1970, 1, 1, tzinfo=UTC)
_DIGEST_BYTES = 32
_VARINT_BYTES_MAX = 5
"""Of a length below 2^35; every allowed one is far below."""


class SegmentInvalid(ValueError):
    """Bytes are no segment, or no change, that could have been written; the message says what is wrong."""


def encode(segment: Segment) -> bytes:
    """The plain segment; the same segment gives the same bytes. Raises SegmentInvalid for one that `decode` refuses."""
    _check(segment)
    message = pb.Segment(
        format=FORMAT,
        cluster_id=segment.cluster_id,
        epoch=segment.epoch,
        epochs=[_epoch_message(each) for each in segment.epochs],
        first_position=segment.first,
        last_position=segment.last,
        previous_sha256=segment.previous_sha256 or b"",
        schema_id_high=segment.schema_id_high,
        seal_time=_timestamp(segment.seal_time),
        changes=[change_message(change) for change in segment.changes],
    )
    content = message.SerializeToString(deterministic=True)
    if len(content) > SEGMENT_BYTES_MAX:
        raise SegmentInvalid(f"the segment has {len(content)} bytes, more than {SEGMENT_BYTES_MAX}")
    return content


def decode(content: bytes) -> Segment:
    """Reads a plain segment, strictly. Raises SegmentInvalid."""
    if len(content) > SEGMENT_BYTES_MAX:
        raise SegmentInvalid(f"the segment has {len(content)} bytes, more than {SEGMENT_BYTES_MAX}")
    message = pb.Segment()
    _parse(message, content, "segment")
    if message.format != FORMAT:
        raise SegmentInvalid(f"the segment is of format {message.format}, and only {FORMAT} is known")
    segment = Segment(
        cluster_id=message.cluster_id,
        epochs=tuple(_epoch(each) for each in message.epochs),
        previous_sha256=message.previous_sha256 or None,
        schema_id_high=message.schema_id_high,
        seal_time=_time(message.seal_time, "the seal_time"),
        changes=tuple(_change(each) for each in message.changes),
    )
    _check(segment)
    told = (message.epoch, message.first_position, message.last_position)
    if told != (segment.epoch, segment.first, segment.last):
        raise SegmentInvalid("the segment's head names another epoch or other positions than its changes have")
    return segment


def digest(content: bytes) -> bytes:
    """What the next segment of the epoch names as the one before it: SHA-256 of the plain segment."""
    return hashlib.sha256(content).digest()


def change_message(change: StoredChange) -> stored_change_pb2.StoredChange:
    """The change as a message. Raises SegmentInvalid for one that could not be read again."""
    message = stored_change_pb2.StoredChange(
        epoch=change.epoch,
        position=change.position,
        time=_timestamp(change.time),
        actor=change.actor,
        subject=change.subject,
        kind=change.kind,
        payload_version=change.payload_version,
        payload=change.payload,
    )
    named = (change.method, change.request_id, change.digest)
    if any(each is not None for each in named):
        if change.method is None or change.request_id is None or change.digest is None:
            raise SegmentInvalid(f"the change {change.place} names a request by half")
        message.request.CopyFrom(
            change_pb2.RequestKey(method=change.method, request_id=change.request_id, digest=change.digest)
        )
    return message


def delimited(change: StoredChange) -> bytes:
    """A change for a pipe: its length as a varint, then its message. Raises SegmentInvalid when it is too long."""
    content = change_message(change).SerializeToString(deterministic=True)
    if len(content) > CHANGE_BYTES_MAX:
        raise SegmentInvalid(f"the change {change.place} has {len(content)} bytes, more than {CHANGE_BYTES_MAX}")
    return _varint(len(content)) + content


class DelimitedReader:
    """Reads delimited changes from pieces of any length. Holds one change at most, besides what it is given."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, content: bytes) -> list[StoredChange]:
        """The changes that are whole by now, in order. Raises SegmentInvalid; the reader cannot be used after it."""
        self._buffer += content
        found: list[StoredChange] = []
        start = 0
        while (told := _length(self._buffer, start)) is not None:
            length, begin = told
            if len(self._buffer) - begin < length:
                break
            message = stored_change_pb2.StoredChange()
            _parse(message, bytes(memoryview(self._buffer)[begin : begin + length]), "change")
            found.append(_change(message))
            start = begin + length
        del self._buffer[:start]
        return found

    def finish(self) -> None:
        """Returns when nothing is left over. Raises SegmentInvalid when the stream ended inside a change."""
        if self._buffer:
            raise SegmentInvalid(f"the stream of changes ends inside one, after {len(self._buffer)} bytes of it")


def _check(segment: Segment) -> None:
    """What a segment promises: changes of one epoch, without gaps, and the lines that lead to it."""
    changes = segment.changes
    if not 0 < len(changes) <= SEGMENT_CHANGES_MAX:
        raise SegmentInvalid(f"the segment holds {len(changes)} changes, not 1 to {SEGMENT_CHANGES_MAX}")
    for index, change in enumerate(changes):
        if change.epoch != segment.epoch:
            raise SegmentInvalid(f"the change {change.place} is not of the segment's epoch {segment.epoch}")
        if change.position != segment.first + index:
            expected = segment.first + index
            raise SegmentInvalid(
                f"the change {expected} of epoch {segment.epoch} is missing: {change.position} follows"
            )
    numbers = [each.id for each in segment.epochs]
    if numbers != sorted(set(numbers)) or numbers[-1:] != [segment.epoch] or len(numbers) > EPOCHS_MAX:
        raise SegmentInvalid("the segment's epochs are not in order, or do not end with its own")
    if segment.epochs[-1].fork_position >= segment.first:
        raise SegmentInvalid(f"the segment begins at {segment.first}, before its epoch began")
    if not segment.cluster_id or segment.schema_id_high < 0:
        raise SegmentInvalid("the segment does not name its cluster, or a mark of schema ids below 0")
    if segment.previous_sha256 is not None and len(segment.previous_sha256) != _DIGEST_BYTES:
        raise SegmentInvalid(f"the digest of the segment before has {len(segment.previous_sha256)} bytes")


def span_of(segment: Segment) -> SegmentSpan:
    """Which positions and times a segment holds."""
    times = [change.time for change in segment.changes]
    return SegmentSpan(segment.epoch, segment.first, segment.last, times[0], times[-1], max(times))


def _change(message: stored_change_pb2.StoredChange) -> StoredChange:
    if message.epoch < 1 or message.position < 1:
        raise SegmentInvalid(f"a change names the place {message.epoch}/{message.position}, which cannot be")
    where = f"the change {message.epoch}/{message.position}"
    if not message.kind or message.payload_version < 1:
        raise SegmentInvalid(f"{where} does not say what it is")
    request = message.request if message.HasField("request") else None
    if request is not None and not (request.method and request.request_id and len(request.digest) == _DIGEST_BYTES):
        raise SegmentInvalid(f"{where} names a request by half")
    return StoredChange(
        position=message.position,
        epoch=message.epoch,
        time=_time(message.time, where),
        actor=message.actor,
        subject=message.subject,
        kind=message.kind,
        method=request.method if request else None,
        request_id=request.request_id if request else None,
        digest=request.digest if request else None,
        payload_version=message.payload_version,
        payload=message.payload,
    )


def _epoch(message: pb.EpochLine) -> Epoch:
    if message.id < 1 or not 0 <= message.parent < message.id or message.fork_position < 0:
        raise SegmentInvalid(f"the segment tells of an epoch {message.id} that cannot be")
    return Epoch(message.id, message.parent or None, message.fork_position)


def _epoch_message(epoch: Epoch) -> pb.EpochLine:
    return pb.EpochLine(id=epoch.id, parent=epoch.parent or 0, fork_position=epoch.fork_position)


def _parse(message: Message, content: bytes, what: str) -> None:
    try:
        message.ParseFromString(content)
    except DecodeError:
        raise SegmentInvalid(f"the bytes are no {what}: they were changed, or cut off") from None
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != content:
        raise SegmentInvalid(f"the {what} was not written by this program, or by a newer one")


def _timestamp(time: datetime) -> Timestamp:
    since = time - _START
    seconds, rest = divmod(since, timedelta(seconds=1))
    return Timestamp(seconds=seconds, nanos=rest.microseconds * 1000)


def _time(timestamp: Timestamp, where: str) -> datetime:
    if timestamp.nanos % 1000 or not 0 <= timestamp.nanos < 1_000_000_000:
        raise SegmentInvalid(f"{where} tells a time that is finer than microseconds, or none")
    try:
        return _START + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
    except OverflowError:
        raise SegmentInvalid(f"{where} tells a time that no calendar has") from None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _length(content: bytearray, start: int) -> tuple[int, int] | None:
    """The length that stands at a place, and where what it counts begins; None when it is not whole yet."""
    number = 0
    for index in range(_VARINT_BYTES_MAX):
        if start + index >= len(content):
            return None
        byte = content[start + index]
        number |= (byte & 127) << 7 * index
        if number > CHANGE_BYTES_MAX:
            raise SegmentInvalid(f"the stream of changes tells a length above {CHANGE_BYTES_MAX}: it is damaged")
        if byte < 128:
            return number, start + index + 1
    raise SegmentInvalid("the stream of changes tells a length that never ends: it is damaged")
