"""Moments and lengths of time as messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime | None) -> Timestamp | None:
    """A moment; None stays unset."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time.astimezone(UTC))
    return message


def duration(seconds: float | None) -> Duration | None:
    """A length of time; None stays unset, and what is negative is none."""
    if seconds is None:
        return None
    message = Duration()
    message.FromTimedelta(timedelta(seconds=max(0.0, seconds)))
    return message
