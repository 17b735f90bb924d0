"""Says what is wrong with bytes that are no message: the field that holds invalid UTF-8, where that is the reason.

The protobuf library says only that it could not parse. This runs after a failure, never on the way of a good call.
Source: https://protobuf.dev/programming-guides/encoding/ (2026-11-23).
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from llm_schema_registry import errors

DEPTH_MAX = 32


def error(method: str, raw: bytes) -> errors.InvalidField:
    """The error for a request that could not be decoded. method: full name, `package.Service/Method`."""
    field = _invalid_text(_request_type(method), raw, 0)
    if field is None:
        return errors.InvalidField.of("request", f"the bytes are no message of {method}'s request type")
    return errors.InvalidField.of(field, "the text is not valid UTF-8")


def _request_type(method: str) -> Descriptor:
    found = descriptor_pool.Default().FindMethodByName(method.replace("/", "."))
    descriptor: Descriptor = found.input_type
    return descriptor


def _invalid_text(descriptor: Descriptor, raw: bytes, depth: int) -> str | None:
    """Path of the first text field whose bytes are not UTF-8; None when there is none, or the bytes end too early."""
    if depth > DEPTH_MAX:
        return None
    try:
        for number, value in _lengths(raw):
            field = descriptor.fields_by_number.get(number)
            if field is None:
                continue
            if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(value):
                return field.name
            if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
                inner = _invalid_text(field.message_type, value, depth + 1)
                if inner is not None:
                    return f"{field.name}.{inner}"
    except IndexError:
        return None
    return None


def _lengths(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every length-delimited field. Raises IndexError where the bytes are cut off or senseless."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        match tag & 7:
            case 0:
                _, position = _varint(raw, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(raw, position)
                if position + length > len(raw):
                    raise IndexError
                yield tag >> 3, raw[position : position + length]
                position += length
            case 5:
                position += 4
            case _:
                raise IndexError


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
