"""What values of logical types mean, so that two readings of the same bytes can be compared.

Source: Apache Avro 1.12 Specification, "Logical Types".
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final, TypeAlias

from services.registry.domain.formats.avro import logical
from services.registry.domain.formats.avro.logical import Logical
from services.registry.domain.formats.avro.model import Fixed, Primitive
from services.registry.domain.formats.avro.values import Value

Meaning: TypeAlias = tuple[object, ...]

_NANOSECONDS: Final[Mapping[str, int]] = {"millis": 10**6, "micros": 10**3, "nanos": 1}
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_SECOND_NANOSECONDS: Final = 10**9
_DAY_SECONDS: Final = 86_400
_YEARS_SECONDS: Final = range((1 - _EPOCH) * _DAY_SECONDS, (datetime.date.max.toordinal() + 1 - _EPOCH) * _DAY_SECONDS)


def fault(item: Primitive | Fixed, value: Value) -> str | None:
    """Why a value that is read as a logical type is none of it; None when it is one.

    Dates and times are taken as they come: the specification sets them no bounds.
    """
    annotation = item.logical
    if annotation is None:
        return None
    if isinstance(value, str):
        return logical.fault_of_string(value)
    if isinstance(value, bytes) and annotation.name == "big-decimal":
        return None if _big_decimal(value) is not None else "must be a big-decimal: a number's bytes and its scale"
    return logical.fault_of_bytes(annotation, value) if isinstance(value, bytes) else None


def meaning(item: Primitive | Fixed, value: Value) -> Meaning:
    """What a value stands for: equal when two readings of it agree.

    Numbers compare by value, whatever their type; a string and the bytes of its UTF-8 agree, and so do a UUID in a
    string and the string.
    """
    if isinstance(value, str):
        return "bytes", value.encode()
    if item.logical is None or value is None or isinstance(value, bool):
        return ("bytes", value) if isinstance(value, bytes) else ("value", isinstance(value, bool), _comparable(value))
    name = item.logical.name
    if isinstance(value, int):
        what, _, unit = name.rpartition("-")
        return what or name, value * _NANOSECONDS.get(unit, 1)
    assert isinstance(value, bytes)
    if name == "decimal":
        return "decimal", *_shortest(int.from_bytes(value, "big", signed=True), item.logical.scale)
    if name == "big-decimal":
        number = _big_decimal(value)
        return ("bytes", value) if number is None else ("decimal", *_shortest(*number))
    return name, value


def described(item: Primitive | Fixed, value: Value) -> str:
    """What a value stands for, for people: ISO 8601 for dates and times, digits for decimals."""
    annotation = item.logical
    if annotation is None:
        return f"plain {item.kind} {_shown(value)}"
    if isinstance(value, int):
        return f"{annotation.name} {_moment(annotation, value)}"
    if isinstance(value, bytes) and annotation.name == "decimal":
        number = int.from_bytes(value, "big", signed=True)
        return f"decimal {_digits(number, annotation.scale)}"
    if isinstance(value, bytes) and annotation.name == "big-decimal":
        found = _big_decimal(value)
        return "no big-decimal" if found is None else f"big-decimal {_digits(*found)}"
    return f"{annotation.name} {_shown(value)}"


def _comparable(value: Value) -> object:
    return "NaN" if value != value else value  # noqa: PLR0124  # Only a NaN differs from itself, and it is one value.


def _shown(value: Value) -> str:
    if isinstance(value, bytes):
        return f"0x{value[:32].hex()}"
    return f'"{value[:100]}"' if isinstance(value, str) else str(value)


def _moment(annotation: Logical, value: int) -> str:
    what, _, unit = annotation.name.rpartition("-")
    if annotation.name == "date":
        seconds, rest, places = value * _DAY_SECONDS, 0, 0
    else:
        seconds, rest = divmod(value * _NANOSECONDS[unit], _SECOND_NANOSECONDS)
        places = {"millis": 3, "micros": 6, "nanos": 9}[unit]
    if seconds not in (range(_DAY_SECONDS) if what == "time" else _YEARS_SECONDS):
        return f"{value} {'days' if annotation.name == 'date' else unit} from the beginning"
    days, second = divmod(seconds, _DAY_SECONDS)
    day = datetime.date.fromordinal(_EPOCH + days).isoformat()
    if annotation.name == "date":
        return day
    minutes, second = divmod(second, 60)
    clock = f"{minutes // 60:02}:{minutes % 60:02}:{second:02}.{rest:09}"[: 9 + places]
    if what == "time":
        return clock
    return f"{day}T{clock}" + ("Z" if what == "timestamp" else "")


def _digits(number: int, scale: int) -> str:
    if number.bit_length() > 300 or not 0 <= scale <= 100:
        return f"of {number.bit_length()} bits and scale {scale}"
    digits = str(abs(number)).rjust(scale + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[: len(digits) - scale]}" + (f".{digits[len(digits) - scale :]}" if scale else "")


def _shortest(number: int, scale: int) -> tuple[int, int]:
    """The same decimal without zeros at its end."""
    if number == 0:
        return 0, 0
    while number % 10 == 0:
        number, scale = number // 10, scale - 1
    return number, scale


def _big_decimal(content: bytes) -> tuple[int, int] | None:
    """Unscaled number and scale: its bytes with their length before them, then the scale, as Avro writes both."""
    length, position = _long(content, 0)
    end = position + length
    if length < 1 or end >= len(content):
        return None
    scale, last = _long(content, end)
    if last != len(content):
        return None
    return int.from_bytes(content[position:end], "big", signed=True), scale


def _long(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position + index + 1
    return -1, -1
