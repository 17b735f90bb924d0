"""What a reader makes of a writer's message, and whether it is what the writer meant.

Both encodings are tried as real programs read them: unknown fields are kept aside in binary and skipped in JSON.
A message is read right when each field that both schemas have, by number, has the value and the presence that it had;
when fields that only the reader has are not set; and when no oneof that was set looks unset because the reader lacks
the member. A field that is not set counts with its default. Fields that only the writer has do no harm on their own.

Sources: protobuf.dev, "Encoding", "ProtoJSON Format", "Application Note: Field Presence", "Unknown Fields".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from services.registry.domain.evolution.report import Witness
from services.registry.domain.formats.protobuf.schema import (
    Schema,
    extensions_of,
    is_map,
    is_message,
    oneof_of,
    type_of,
)

SPECIAL: Final = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value", "BoolValue", "BytesValue"),
        *("DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value"),
    )
)
"""Messages that ProtoJSON writes in a form of their own. Source: protobuf.dev, "ProtoJSON Format"."""

REFUSALS: Final = (
    *(DecodeError, EncodeError, json_format.Error, RecursionError),
    *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError),
)
"""What the library raises for data that it does not read or cannot write: its own errors, and what its calls raise on
values, or on types called like its own, that it does not foresee."""


def judged(writer: Schema, reader: Schema, target: Descriptor, message: Message) -> Witness | None:
    """A witness when a message of the writer's is not read right as the reader's type `target`; None when it is.

    What the writer's own schema does not read right is no data of the writer: nothing nested too deep in binary, and in
    JSON nothing that it cannot hold, such as a timestamp out of range, or does not tell apart.
    """
    kind = type_of(message)
    binary = message.SerializeToString(deterministic=True)
    if from_binary(writer, kind, binary) is None:
        return None
    text = to_json(writer, message)
    read = from_binary(reader, target, binary)
    if read is None:
        return Witness(text or "", binary)
    if not _same(writer, reader, message, read):
        return Witness(text or "", binary, to_json(reader, read) or "")
    if text is None:
        return None
    own = from_json(writer, kind, text)
    if own is None or not _same(writer, writer, message, own):
        return None
    read = from_json(reader, target, text)
    if read is None:
        return Witness(text, binary)
    return None if _same(writer, reader, message, read) else Witness(text, binary, to_json(reader, read) or "")


def from_binary(schema: Schema, target: Descriptor, binary: bytes) -> Message | None:
    """The message that bytes hold; None when the library refuses them or a required field is missing."""
    message = schema.new(target)
    try:
        message.ParseFromString(binary)
    except REFUSALS:
        return None
    return message if message.IsInitialized() else None


def from_json(schema: Schema, target: Descriptor, text: str) -> Message | None:
    """The message that a ProtoJSON text holds, unknown fields skipped; None when it is refused."""
    message = schema.new(target)
    try:
        json_format.Parse(text, message, ignore_unknown_fields=True, descriptor_pool=schema.pool)
    except REFUSALS:
        return None
    return message if message.IsInitialized() else None


def to_json(schema: Schema, message: Message) -> str | None:
    """A message in ProtoJSON; None when it has no such form."""
    try:
        return json_format.MessageToJson(message, indent=None, ensure_ascii=False, descriptor_pool=schema.pool)
    except REFUSALS:
        return None


def is_well_known(message: Descriptor) -> bool:
    """Whether a message is one of those that every schema may import."""
    return bool(message.file.name.startswith("google/protobuf/"))


def same_well_known(one: Descriptor, other: Descriptor) -> bool:
    """Whether two messages are one that every schema may import."""
    return is_well_known(one) and is_well_known(other) and one.full_name == other.full_name


def _same(writer: Schema, reader: Schema, message: Message, read: Message) -> bool:
    """Whether a message reads as it was written. Depth is bounded by that of parsed messages."""
    source, target = type_of(message), type_of(read)
    if same_well_known(source, target):
        return message.SerializeToString(deterministic=True) == read.SerializeToString(deterministic=True)
    written, known = writer.fields(source), reader.fields(target)
    present = {field.number: value for field, value in message.ListFields()}
    seen = {field.number: value for field, value in read.ListFields()}
    if any(number not in written for number in seen):
        return False
    if any(number not in known and lost_case(writer, reader, written[number], known) for number in present):
        return False
    return all(
        _same_field(writer, reader, (field, known[number]), (message, read), (present.get(number), seen.get(number)))
        for number, field in written.items()
        if number in known
    )


def lost_case(writer: Schema, reader: Schema, field: FieldDescriptor, known: Mapping[int, FieldDescriptor]) -> bool:
    """Whether a writer's field that the reader lacks is a case of a oneof that the reader has with other cases."""
    if not writer.oneof(field):
        return False
    numbers = (other.number for other in oneof_of(field).fields)
    return any(number in known and reader.oneof(known[number]) for number in numbers)


def _same_field(
    writer: Schema,
    reader: Schema,
    fields: tuple[FieldDescriptor, FieldDescriptor],
    messages: tuple[Message, Message],
    values: tuple[Any, Any],
) -> bool:
    """Whether a field that both have reads as it was written. values: None for one that is not set."""
    (field, other), (value, seen) = fields, values
    if value is None and seen is None:
        if field.is_repeated or other.is_repeated or is_message(field) or is_message(other):
            return True
        return same_scalar(effective(messages[0], field), effective(messages[1], other))
    if value is None or seen is None:
        return False
    if is_map(field) or is_map(other):
        return is_map(field) and is_map(other) and _same_map(writer, reader, value, seen)
    if other.is_repeated:
        items = list(value) if field.is_repeated else [value]
        if len(items) != len(seen):
            return False
        return all(_same_value(writer, reader, one, two) for one, two in zip(items, seen, strict=True))
    return not field.is_repeated and _same_value(writer, reader, value, seen)


def effective(message: Message, field: FieldDescriptor) -> object:
    """A single scalar as programs get it: its value or its default."""
    if field.is_extension:
        return cast("object", extensions_of(message)[field])
    return getattr(message, field.name)


def _same_map(writer: Schema, reader: Schema, value: Any, seen: Any) -> bool:
    """Whether two maps have the same entries. Looking a key up in a map of another key type raises."""
    found = {(type(key) is str, key): seen[key] for key in list(seen)}
    return len(value) == len(found) and all(
        (type(key) is str, key) in found and _same_value(writer, reader, value[key], found[type(key) is str, key])
        for key in list(value)
    )


def _same_value(writer: Schema, reader: Schema, value: object, seen: object) -> bool:
    if isinstance(value, Message) and isinstance(seen, Message):
        return _same(writer, reader, value, seen)
    return same_scalar(value, seen)


def same_scalar(value: object, seen: object) -> bool:
    """Whether two scalars are one value: numbers by value, text and bytes by their bytes."""
    if isinstance(value, float) and isinstance(seen, float) and value != value:  # noqa: PLR0124 - it is NaN
        return seen != seen  # noqa: PLR0124
    if isinstance(value, str):
        value = value.encode("utf-8")
    if isinstance(seen, str):
        seen = seen.encode("utf-8")
    if isinstance(value, Message) or isinstance(seen, Message):
        return False
    return value == seen
