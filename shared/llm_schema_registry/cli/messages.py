"""Messages of the contract for people and for programs."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def as_document(message: Message) -> dict[str, Any]:
    """The message as ProtoJSON (64-bit integers are strings, bytes base64) with the protos' own field names. Fields
    with their default value are there too, so that a program need not ask; messages that are unset are not.

    Raises TypeError for a message inside google.protobuf.Any whose kind this program does not know.
    """
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def label(message: Message, field: str) -> str:
    """The name of the value of an enum field, without the enum's prefix: ACTIVE for VERSION_STATE_ACTIVE. The number
    for a value that this program does not know, because the service is newer.
    """
    described = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert described is not None
    number: int = getattr(message, field)
    value = described.values_by_number.get(number)
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", described.name).upper() + "_"
    return value.name.removeprefix(prefix) if value is not None else str(number)


def moment(time: Timestamp) -> str:
    """RFC 3339 in UTC, to the second; empty when unset."""
    return time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ") if time.seconds or time.nanos else ""


def seconds(duration: Duration) -> float:
    """The length of time in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)
