"""Rows of the history as messages on a pipe: each StoredChange with its length before it, as a varint.

Source: protobuf's delimited form, as of `google.protobuf.proto.parse_length_prefixed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from google.protobuf.message import DecodeError

from llm_schema_registry.registry.v1.stored_change_pb2 import StoredChange
from services.registry.adapters.postgres_commit import Payload
from services.registry.codec import events as codec
from services.registry.codec import nouns
from services.registry.domain.events import Event, RequestKey

CHANGE_BYTES_MAX = 128 << 20
"""Of one message: the largest text that a registry accepts is 64 MiB."""
_LENGTH_BYTES_MAX = 5
_CONTINUES = 0x80


class NotAChange(Exception):
    """What stands on the pipe, or in a row, is not a change; the message says where."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of the history, and the event it holds."""

    position: int
    epoch: int
    time: datetime
    actor: str
    subject: str
    kind: str
    request: RequestKey | None
    payload: Payload
    event: Event


def rows(source: BinaryIO) -> Iterator[StoredRow]:
    """The rows that the source holds, to its end. Raises NotAChange; errors.Internal for a payload it cannot read."""
    after = "at the beginning"
    while (length := _length(source, after)) is not None:
        stored = source.read(length)
        if len(stored) != length:
            raise NotAChange(f"the input ends within a change, {after}")
        row = _row(stored, after)
        after = f"after position {row.position}"
        yield row


def _length(source: BinaryIO, after: str) -> int | None:
    """The next length; None at the end of the input."""
    value = 0
    for index in range(_LENGTH_BYTES_MAX):
        byte = source.read(1)
        if not byte:
            if index == 0:
                return None
            raise NotAChange(f"the input ends within a length, {after}")
        value |= (byte[0] & ~_CONTINUES) << (7 * index)
        if byte[0] < _CONTINUES:
            if value > CHANGE_BYTES_MAX:
                raise NotAChange(f"a change of {value} bytes {after}: at most {CHANGE_BYTES_MAX} are read")
            return value
    raise NotAChange(f"a length of more than {_LENGTH_BYTES_MAX} bytes {after}")


def _row(stored: bytes, after: str) -> StoredRow:
    try:
        message = StoredChange.FromString(stored)
        time = nouns.read_timestamp(message.time)
    except (DecodeError, ValueError, OverflowError):
        raise NotAChange(f"what stands {after} is not a change") from None
    request = message.request if message.HasField("request") else None
    return StoredRow(
        position=message.position,
        epoch=message.epoch,
        time=time,
        actor=message.actor,
        subject=message.subject,
        kind=message.kind,
        request=RequestKey(request.method, request.request_id, request.digest) if request else None,
        payload=Payload(message.payload_version, message.payload),
        event=event(message.payload_version, message.payload, message.kind, message.subject),
    )


def event(payload_version: int, payload: bytes, kind: str, subject: str) -> Event:
    """The event of a stored payload.

    Raises errors.Internal as `codec.read_payload`; NotAChange when the row says another kind or subject than the
    payload.
    """
    found = codec.read_payload(payload_version, payload)
    if (codec.kind(found), found.subject) != (kind, subject):
        raise NotAChange(
            f"the row says {kind} of subject {subject!r}, its payload {codec.kind(found)} of {found.subject!r}"
        )
    return found
