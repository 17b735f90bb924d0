"""The binary encoding, as far as it can be read without a schema.

Source: protobuf.dev, "Encoding" (Programming Guides).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
GROUP: Final = 3
GROUP_END: Final = 4
FIXED32: Final = 5

VARINT_BYTES_MAX: Final = 10
DEPTH_MAX: Final = 100
"""Messages within messages: what Protobuf's own parsers take."""


class WireError(Exception):
    """Bytes that are not this encoding. offset: where."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it stands in a message. start, end: its value; whole: tag and value.

    The value of a group ends before its end tag, which belongs to the whole.
    """

    number: int
    wire_type: int
    start: int
    end: int
    whole: bytes


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of a message, in the order they stand in. Raises WireError at the first place that is none."""
    position = start
    stop = len(data) if end is None else end
    while position < stop:
        number, wire_type, value = tag(data, position, stop)
        if wire_type == GROUP_END:
            raise WireError(position, f"the end of a group that did not begin, field {number}")
        finish, after = _value(data, value, stop, number, wire_type)
        inner = value
        if wire_type == LENGTH:
            inner = varint(data, value, stop)[1]
        yield Field(number, wire_type, inner, finish, data[position:after])
        position = after


def tag(data: bytes, position: int, stop: int) -> tuple[int, int, int]:
    """Number, wire type, and where the value begins. Raises WireError."""
    key, after = varint(data, position, stop)
    number, wire_type = key >> 3, key & 7
    if not 0 < number < 1 << 29:
        raise WireError(position, f"{number} is no field number")
    if wire_type > FIXED32:
        raise WireError(position, f"{wire_type} is no wire type, field {number}")
    return number, wire_type, after


def varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """An unsigned varint and what comes after it. Raises WireError."""
    value = 0
    for index in range(VARINT_BYTES_MAX):
        if position + index >= stop:
            raise WireError(position, "the data ends within a number")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & ((1 << 64) - 1), position + index + 1
    raise WireError(position, f"a number has more than {VARINT_BYTES_MAX} bytes")


def zigzag(value: int) -> int:
    """The signed number that a zigzag varint stands for."""
    return (value >> 1) ^ -(value & 1)


def _value(data: bytes, position: int, stop: int, number: int, wire_type: int) -> tuple[int, int]:
    """Where a value ends, and what comes after its field. Raises WireError."""
    if wire_type == VARINT:
        after = varint(data, position, stop)[1]
    elif wire_type == FIXED64:
        after = position + 8
    elif wire_type == FIXED32:
        after = position + 4
    elif wire_type == LENGTH:
        length, begin = varint(data, position, stop)
        after = begin + length
    else:
        return _group(data, position, stop, number)
    if after > stop:
        raise WireError(position, f"the data ends within field {number}")
    return after, after


def _group(data: bytes, position: int, stop: int, number: int) -> tuple[int, int]:
    """Where a group's content ends, and what comes after its end tag, without recursion. Raises WireError."""
    open_groups = [number]
    while position < stop:
        inner, wire_type, value = tag(data, position, stop)
        if wire_type == GROUP:
            open_groups.append(inner)
            if len(open_groups) > DEPTH_MAX:
                raise WireError(position, f"groups are nested deeper than {DEPTH_MAX}")
            position = value
        elif wire_type == GROUP_END:
            if open_groups.pop() != inner:
                raise WireError(position, f"the end of another group than the open one, field {inner}")
            if not open_groups:
                return position, value
            position = value
        else:
            position = _value(data, value, stop, inner, wire_type)[1]
    raise WireError(position, f"the data ends within the group of field {number}")
