"""Values of JSON that stand for single values of Avro: the same in defaults of fields and in the JSON encoding.

Source: Apache Avro 1.12 Specification, table of field default values, and "JSON Encoding", which refers to it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from services.registry.domain.formats.avro.model import Array, Definition, Enum, Fixed, Map, Primitive

_BITS: Final[Mapping[str, int]] = {"int": 32, "long": 64}


def scalar_fault(item: Primitive | Array | Map | Definition, value: object) -> str | None:
    """Why a value is not of a type, without a look at inner values; None when it may be."""
    match item:
        case Enum(name=name, known=known):
            return None if isinstance(value, str) and value in known else f"must be one of the symbols of `{name}`"
        case Fixed(size=size):
            if isinstance(value, str) and len(value) != size:
                return f"must have {size} characters, one for each byte"
            return _bytes_fault(value)
        case Array():
            return None if isinstance(value, list) else "must be an array"
        case Primitive():
            return _primitive_fault(item.kind, value)
        case _:
            return None if isinstance(value, dict) else f"must be an object, as the type is a {item.kind}"


def _primitive_fault(kind: str, value: object) -> str | None:
    match kind:
        case "null":
            return None if value is None else "must be null"
        case "boolean":
            return None if isinstance(value, bool) else "must be true or false"
        case "int" | "long":
            return _integer_fault(kind, value)
        case "float" | "double":
            return _number_fault(kind, value)
        case "bytes":
            return _bytes_fault(value)
        case _:
            return _string_fault(value)


def _integer_fault(kind: str, value: object) -> str | None:
    half = 1 << (_BITS[kind] - 1)
    if isinstance(value, int) and not isinstance(value, bool) and -half <= value < half:
        return None
    return f"must be an integer, without point or exponent, of {_BITS[kind]} bits"


def _number_fault(kind: str, value: object) -> str | None:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            if kind == "float":
                struct.pack("<f", value)
            if float(value) not in (float("inf"), float("-inf")):
                return None
        except OverflowError:
            pass
    return f"must be a number within the range of a {kind}"


def _string_fault(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which no UTF-8 text can hold"
    return None


def _bytes_fault(value: object) -> str | None:
    if isinstance(value, str) and (not value or max(value) <= "\xff"):
        return None
    return "must be a string of code points up to 255, one for each byte"
