"""Segments of the archive, and changes in pipes, as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry.backup.v1 import archive_pb2 as pb
from services.backup.codec import segments
from services.backup.codec.segments import DelimitedReader, SegmentInvalid, delimited
from services.backup.domain.model import Epoch, Segment, StoredChange
from services.backup.domain.targets import SegmentSpan

CORPUS = Path(__file__).parents[2] / "corpora" / "backup"
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
BEFORE_1970 = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def change(position: int, epoch: int = 2, **more: object) -> StoredChange:
    """A change under a request id."""
    made = StoredChange(
        position=position,
        epoch=epoch,
        time=NOON + timedelta(seconds=position),
        actor="someone",
        subject="orders-value",
        kind="version_registered",
        method="RegisterSchema",
        request_id=f"request-{position}",
        digest=bytes([position % 256]) * 32,
        payload_version=1,
        payload=b"payload %d" % position,
    )
    return replace(made, **more)  # type: ignore[arg-type]


SEGMENT = Segment(
    cluster_id="0b5c7d4e-3f0a-4c39-9f0e-5a2f6f3c1b7d",
    epochs=(Epoch(1, None, 0), Epoch(2, 1, 100)),
    previous_sha256=b"\x01" * 32,
    schema_id_high=4096,
    seal_time=NOON,
    changes=(
        change(101),
        change(102, method=None, request_id=None, digest=None, subject="", payload=b""),
        change(103, time=BEFORE_1970),
    ),
)


def test_a_segment_comes_back() -> None:
    """What is written is read as it was, with and without a segment before it."""
    first = replace(SEGMENT, previous_sha256=None, changes=(change(101),))

    assert segments.decode(segments.encode(SEGMENT)) == SEGMENT
    assert segments.decode(segments.encode(first)) == first


def test_the_digest_is_of_the_plain_segment() -> None:
    """The chain goes by the SHA-256 of the bytes, which are the same every time."""
    content = segments.encode(SEGMENT)

    assert segments.digest(content) == hashlib.sha256(content).digest()
    assert segments.encode(replace(SEGMENT)) == content
    assert segments.digest(segments.encode(replace(SEGMENT, schema_id_high=4097))) != segments.digest(content)


def test_a_segment_tells_its_span() -> None:
    """Times may go back: the latest is not the last."""
    span = segments.span_of(SEGMENT)

    assert span == SegmentSpan(2, 101, 103, NOON + timedelta(seconds=101), BEFORE_1970, NOON + timedelta(seconds=102))


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("holds 0 changes", {"changes": ()}),
        ("change 102 of epoch 2 is missing: 103 follows", {"changes": (change(101), change(103))}),
        ("change 102 of epoch 2 is missing: 101 follows", {"changes": (change(101), change(101))}),
        ("change 1/102 is not of the segment's epoch", {"changes": (change(101), change(102, epoch=1))}),
        ("epochs are not in order", {"epochs": ()}),
        ("epochs are not in order", {"epochs": (Epoch(2, 1, 100), Epoch(1, None, 0))}),
        ("epochs are not in order", {"epochs": (Epoch(1, None, 0), Epoch(3, 1, 100))}),
        ("before its epoch began", {"epochs": (Epoch(1, None, 0), Epoch(2, 1, 101))}),
        ("cluster", {"cluster_id": ""}),
        ("digest of the segment before has 3 bytes", {"previous_sha256": b"abc"}),
        ("names a request by half", {"changes": (change(101, digest=None),)}),
    ],
)
def test_what_is_no_segment_is_not_written(why: str, changes: dict[str, object]) -> None:
    """A gap, two epochs, a false lineage or half a request: refused before it reaches the archive."""
    with pytest.raises(SegmentInvalid, match=why):
        segments.encode(replace(SEGMENT, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("why", "change_message"),
    [
        ("format 2", lambda message: setattr(message, "format", 2)),
        ("other positions", lambda message: setattr(message, "first_position", 100)),
        ("other positions", lambda message: setattr(message, "last_position", 104)),
        ("another epoch", lambda message: setattr(message, "epoch", 1)),
        ("is missing", lambda message: message.changes.pop(1)),
        ("holds 0 changes", lambda message: message.ClearField("changes")),
        ("finer than microseconds", lambda message: setattr(message.changes[0].time, "nanos", 1)),
        ("finer than microseconds", lambda message: setattr(message.seal_time, "nanos", -1000)),
        ("no calendar", lambda message: setattr(message.seal_time, "seconds", 1 << 60)),
        ("cannot be", lambda message: setattr(message.changes[0], "position", 0)),
        ("does not say what it is", lambda message: message.changes[0].ClearField("kind")),
        ("does not say what it is", lambda message: message.changes[0].ClearField("payload_version")),
        ("by half", lambda message: message.changes[0].request.ClearField("digest")),
        ("by half", lambda message: message.changes[1].request.SetInParent()),
        ("epoch 1 that cannot be", lambda message: setattr(message.epochs[0], "parent", 1)),
        ("epoch 2 that cannot be", lambda message: setattr(message.epochs[1], "fork_position", -1)),
        ("written by this program", lambda message: message.MergeFromString(b"\xf8\x07\x01")),
        ("written by this program", lambda message: message.changes[0].MergeFromString(b"\xf8\x07\x01")),
    ],
)
def test_what_is_no_segment_is_not_read(why: str, change_message: Callable[[pb.Segment], object]) -> None:
    """A segment with another format, a gap, a half truth or a field that is not known is refused with the reason."""
    message = pb.Segment.FromString(segments.encode(SEGMENT))
    change_message(message)

    with pytest.raises(SegmentInvalid, match=why):
        segments.decode(message.SerializeToString(deterministic=True))


def test_truncated_segments_are_refused() -> None:
    """Bytes that end anywhere too early are no segment."""
    content = segments.encode(SEGMENT)

    for length in range(len(content)):
        with pytest.raises(SegmentInvalid):
            segments.decode(content[:length])


@given(content=st.binary(max_size=200))
@settings(max_examples=100)
def test_garbage_is_refused(content: bytes) -> None:
    """Random bytes are refused without a crash."""
    with pytest.raises(SegmentInvalid):
        segments.decode(content)


def test_segments_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes or changes are refused on both sides."""
    content = segments.encode(SEGMENT)
    monkeypatch.setattr(segments, "SEGMENT_BYTES_MAX", len(content) - 1)

    for refused in (lambda: segments.encode(SEGMENT), lambda: segments.decode(content)):
        with pytest.raises(SegmentInvalid, match=f"has {len(content)} bytes"):
            refused()
    monkeypatch.setattr(segments, "SEGMENT_CHANGES_MAX", 2)
    with pytest.raises(SegmentInvalid, match="holds 3 changes"):
        segments.encode(SEGMENT)


@given(count=st.integers(0, 9), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4))
@settings(max_examples=80)
def test_changes_go_through_pipes(count: int, sizes: list[int]) -> None:
    """However a pipe cuts the stream, the same changes arrive, in order, each as soon as it is whole."""
    sent = [change(position, payload=bytes(position * 37)) for position in range(1, count + 1)]
    stream = b"".join(delimited(each) for each in sent)
    reader, found, start, index = DelimitedReader(), list[StoredChange](), 0, 0

    while start < len(stream):
        size = sizes[index % len(sizes)]
        found += reader.feed(stream[start : start + size])
        start, index = start + size, index + 1
    reader.finish()

    assert found == sent


def test_a_stream_that_ends_inside_a_change_is_refused() -> None:
    """The end of the stream must be the end of a change."""
    stream = delimited(change(1)) + delimited(change(2))
    reader = DelimitedReader()

    assert reader.feed(stream[:-1]) == [change(1)]
    with pytest.raises(SegmentInvalid, match="ends inside one"):
        reader.finish()


@pytest.mark.parametrize(
    "stream", [b"\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x80\x00", b"\x01\xff"]
)
def test_damaged_streams_are_refused(stream: bytes) -> None:
    """A length that never ends or is beyond the limit, or bytes that are no change, end the reading at once."""
    reader = DelimitedReader()

    with pytest.raises(SegmentInvalid):
        reader.feed(stream)


def test_changes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change beyond the limit is not sent."""
    monkeypatch.setattr(segments, "CHANGE_BYTES_MAX", 50)

    with pytest.raises(SegmentInvalid, match="more than 50"):
        delimited(change(1))


def test_the_first_version_is_read_for_ever() -> None:
    """The segment of version 1 in the corpus is read as it was written then, and is still written so."""
    stored = (CORPUS / "segment-v1.binpb").read_bytes()

    assert segments.decode(stored) == SEGMENT
    assert segments.encode(SEGMENT) == stored
