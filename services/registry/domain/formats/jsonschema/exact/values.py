"""Values of data and of schemas: equality, kinds, numbers, as JSON Schema has them."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias, cast

import jsonschema_rs

from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.compiling import DRAFTS, PATTERNS
from services.registry.domain.formats.jsonschema.exact.shape import FRACTION, INTEGER, INTEGRAL, TextFormat

Value: TypeAlias = "Json | Data"

PATTERNS_KEPT: Final = 512
EXACT_DIGITS_MAX: Final = 15
FORMATS_KEPT: Final = 128


def key(value: Value) -> str:
    """One text for equal values: 1 and 1.0 are equal, 1 and true are not, members have no order."""
    match value:
        case None | bool() | str():
            return json.dumps(value)
        case list():
            return "[" + ",".join(key(item) for item in value) + "]"
        case dict():
            return "{" + ",".join(f"{json.dumps(name)}:{key(value[name])}" for name in sorted(value)) + "}"
        case float():
            return key(Decimal(repr(value)))
        case int() | Decimal():
            sign, digits, exponent = Decimal(value).as_tuple()
            text = "".join(map(str, digits)).strip("0")
            if not text:
                return "0"
            shift = int(exponent) + len(digits) - len("".join(map(str, digits)).rstrip("0"))
            return f"{'-' if sign else ''}{text}e{shift}"
    raise TypeError


def kind(value: Value) -> str:
    """Which of KINDS a value is."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case int():
            return INTEGER
    return INTEGRAL if Decimal(value) == Decimal(value).to_integral_value() else FRACTION


def data(value: Json) -> Data:
    """A value of a schema as data holds it, as if read from a payload. Raises OverflowError beyond doubles."""
    match value:
        case Decimal():
            number = float(value)
            if number in {float("inf"), float("-inf")}:
                raise OverflowError
            return number
        case list():
            return [data(item) for item in value]
        case dict():
            return {name: data(item) for name, item in value.items()}
    return cast("Data", value)


def exact(number: float | Decimal) -> Fraction:
    """The number that a text of it shows: 0.1 is a tenth."""
    return (
        Fraction(number)
        if isinstance(number, int)
        else Fraction(Decimal(repr(number)) if isinstance(number, float) else number)
    )


@functools.lru_cache(maxsize=PATTERNS_KEPT)
def _pattern(pattern: str) -> jsonschema_rs.Draft202012Validator | None:
    try:
        return jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=PATTERNS)
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def matches(pattern: str, text: str) -> bool:
    """Whether a text matches, by the engine that validates data; an unknown pattern matches nothing."""
    compiled = _pattern(pattern)
    return compiled is not None and compiled.is_valid(text)


@functools.lru_cache(maxsize=FORMATS_KEPT)
def text_format(dialect: str, name: str) -> TextFormat | None:
    """A format that the library checks when formats are asserted; None for one that it does not know in that draft."""
    found = TextFormat(dialect, name)
    return found if _format(found) is not None else None


@functools.lru_cache(maxsize=FORMATS_KEPT)
def _format(wanted: TextFormat) -> jsonschema_rs.Validator | None:
    try:
        return DRAFTS[wanted.dialect](
            {"format": wanted.name},
            offline=True,
            pattern_options=PATTERNS,
            validate_formats=True,
            ignore_unknown_formats=False,
        )
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def follows(wanted: TextFormat, text: str) -> bool:
    """Whether a text has a format."""
    compiled = _format(wanted)
    return compiled is None or compiled.is_valid(text)
