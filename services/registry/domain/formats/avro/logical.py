"""Logical types: which declarations are valid, and which values follow them.

Source: Apache Avro 1.12 Specification, "Logical Types".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.registry.domain.formats.json_text import Json

UNDERLYING: Final[Mapping[str, frozenset[str]]] = {
    "decimal": frozenset({"bytes", "fixed"}),
    "big-decimal": frozenset({"bytes"}),
    "uuid": frozenset({"string", "fixed"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "timestamp-nanos": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "local-timestamp-nanos": frozenset({"long"}),
    "duration": frozenset({"fixed"}),
}
FIXED_SIZES: Final[Mapping[str, int]] = {"uuid": 16, "duration": 12}

_DAY_FIRST: Final = -719_162
_DAY_LAST: Final = 2_932_896
"""Days of 0001-01-01 and 9999-12-31 from 1970-01-01: what a date can be in ISO 8601 without special agreement."""

_DAY_SECONDS: Final = 86_400
_PER_SECOND: Final[Mapping[str, int]] = {"millis": 10**3, "micros": 10**6, "nanos": 10**9}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_LOG10_2: Final = 30102999566398119521373889472449302676
_LOG10_2_SCALE: Final = 10**38

_EXACT_PRECISION_MAX: Final = 10_000
"""Beyond, a power of ten costs more than it tells: the number of bits decides, which errs by less than one digit."""


class Ignored(Exception):
    """The declaration is invalid, so that implementations must take the underlying type. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Logical:
    """A valid logical type. precision, scale: of a decimal."""

    name: str
    precision: int = 0
    scale: int = 0


def declared(attributes: Mapping[str, Json], kind: str, size: int = 0) -> Logical | None:
    """The logical type that a schema object declares; None when it declares none.

    kind: the underlying type. size: of a fixed. Raises Ignored.
    """
    if "logicalType" not in attributes:
        return None
    name = attributes["logicalType"]
    if not isinstance(name, str) or name not in UNDERLYING:
        raise Ignored("it is no logical type of the specification")
    if kind not in UNDERLYING[name]:
        raise Ignored(f"`{name}` annotates {' or '.join(sorted(UNDERLYING[name]))}, not {kind}")
    if kind == "fixed" and size != FIXED_SIZES.get(name, size):
        raise Ignored(f"`{name}` needs a fixed of size {FIXED_SIZES[name]}")
    return _decimal(attributes, kind, size) if name == "decimal" else Logical(name)


def fault_of_number(logical: Logical, value: int) -> str | None:
    """Why an int or a long does not follow its logical type; None when it does."""
    kind, _, unit = logical.name.rpartition("-")
    if logical.name == "date":
        first, last = _DAY_FIRST, _DAY_LAST
    elif kind == "time":
        first, last = 0, _DAY_SECONDS * _PER_SECOND[unit] - 1
    else:
        first, last = (day * _DAY_SECONDS * _PER_SECOND[unit] for day in (_DAY_FIRST, _DAY_LAST + 1))
        last -= 1
    if first <= value <= last:
        return None
    what = "a time of one day" if kind == "time" else "a date of the years 1 to 9999"
    return f"must be {what}, so between {first} and {last}"


def fault_of_string(value: str) -> str | None:
    """Why a string is no UUID; None when it is one."""
    return None if _UUID.fullmatch(value) else "must be a UUID as RFC 4122 writes it: 8-4-4-4-12 hexadecimal digits"


def fault_of_bytes(logical: Logical, value: bytes) -> str | None:
    """Why bytes do not follow their logical type; None when they do. Every 16 bytes are a UUID, 12 a duration."""
    if logical.name != "decimal":
        return None
    if not value:
        return "must hold at least one byte of a decimal"
    if _fits(abs(int.from_bytes(value, "big", signed=True)), logical.precision):
        return None
    return f"must be a decimal of at most {logical.precision} digits"


def _decimal(attributes: Mapping[str, Json], kind: str, size: int) -> Logical:
    precision, scale = attributes.get("precision"), attributes.get("scale", 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or precision < 1:
        raise Ignored("`precision` must be an integer greater than zero")
    if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= precision:
        raise Ignored("`scale` must be an integer from zero to `precision`")
    if kind == "fixed" and precision > _digits(size):
        raise Ignored(f"a fixed of size {size} holds at most {_digits(size)} digits")
    return Logical("decimal", precision, scale)


def _digits(size: int) -> int:
    """Decimal digits that every number of so many bytes, sign included, has room for."""
    return max(0, (8 * size - 1) * _LOG10_2 // _LOG10_2_SCALE)


def _fits(value: int, precision: int) -> bool:
    if value.bit_length() <= 3 * precision:  # A digit holds more than three bits.
        return True
    if precision > _EXACT_PRECISION_MAX:
        return value.bit_length() <= math.ceil(precision * math.log2(10))
    return bool(value < 10**precision)
