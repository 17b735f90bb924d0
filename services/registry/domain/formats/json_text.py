"""JSON texts: read strictly, and written in the two forms that fingerprints are made of."""

from __future__ import annotations

import decimal
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TypeAlias

Json: TypeAlias = "bool | int | Decimal | str | list[Json] | dict[str, Json] | None"

DEPTH_MAX = 100
"""Levels of nesting. Real schemas have 28 at most; the validating library refuses at 128."""

INTEGER_DIGITS_MAX = 19
"""Integers of more digits are written with an exponent in canonical texts."""

_STRING = re.compile(r'("(?:[^"\\]|\\.)*")')
_SPACE = str.maketrans("", "", " \t\n\r")
_UNUSUAL_NUMBER = re.compile(rf"[:\[,\s]-?\d+[.eE]|^-?\d+[.eE]|\d{{{INTEGER_DIGITS_MAX + 1}}}")


class TextError(Exception):
    """The text is not JSON as RFC 8259 has it, or beyond a limit. `str()` says where and why."""


def read(text: str) -> Json:
    """The value of a JSON text. Numbers are exact: int, or Decimal when written with a point or an exponent.

    Raises TextError on anything but one JSON value: also on a name that stands twice in an object, on NaN and
    Infinity, and on more than DEPTH_MAX levels.
    """
    try:
        value: Json = json.loads(text, object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise TextError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise TextError(f"nested deeper than {DEPTH_MAX} levels") from None
    except decimal.InvalidOperation:
        raise TextError("a number cannot be read: its exponent has too many digits") from None
    except ValueError as error:  # An integer of more digits than Python converts.
        raise TextError(f"a number cannot be read: {str(error).partition(';')[0]}") from None
    if text.count("{") + text.count("[") > DEPTH_MAX and depth(value) > DEPTH_MAX:
        raise TextError(f"nested deeper than {DEPTH_MAX} levels")
    if "\\u" in text and not is_text(value):  # Only an escape can spell half of a pair.
        raise TextError("an escape like \\ud800 is half of a surrogate pair, which no text can hold")
    return value


def depth(value: object) -> int:
    """Levels of nesting: 0 for a scalar, 1 for `[]`. Without recursion, so any value will do."""
    return max((level for _, level in _walk(value)), default=0)


def is_text(value: object) -> bool:
    """Whether every name and every string in a value can be written in UTF-8."""
    try:
        for item, _ in _walk(value):
            if isinstance(item, str):
                item.encode("utf-8")
            elif isinstance(item, dict):
                "".join(item).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def compact(text: str) -> str:
    """A valid JSON text without insignificant white space, otherwise letter for letter."""
    pieces = _STRING.split(text)
    pieces[::2] = [between.translate(_SPACE) for between in pieces[::2]]
    return "".join(pieces)


def canonical_text(text: str, value: Json) -> str:
    """`canonical` of the value that `read` made of a text, faster where the text's numbers are plain integers."""
    if _UNUSUAL_NUMBER.search(text):
        return canonical(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def canonical(value: Json) -> str:
    """One text for all equal values: members by name, numbers by value (1, 1.0 and 10e-1 are one), no white space."""
    match value:
        case None | bool() | str():
            return json.dumps(value)
        case int() | Decimal():
            return _number(value)
        case list():
            return "[" + ",".join(canonical(item) for item in value) + "]"
        case dict():
            members = (f"{json.dumps(name)}:{canonical(value[name])}" for name in sorted(value))
            return "{" + ",".join(members) + "}"


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer. Source: RFC 6901, section 4."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _walk(value: object) -> Iterator[tuple[object, int]]:
    """Every value in a value with its level: that of a container counts the container."""
    waiting = [(value, 0)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict | list):
            level += 1
            waiting.extend((child, level) for child in (item.values() if isinstance(item, dict) else item))
        yield item, level


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name in members if counts[name] > 1)
        raise TextError(f"the name {json.dumps(twice[:100])} stands twice in one object")
    return members


def _refuse_constant(constant: str) -> Json:
    raise TextError(f"{constant} is not a JSON number")


def _number(value: int | Decimal) -> str:
    """Plain when it is an integer of few digits, else sign, digits without zeros at the ends, exponent.

    Exact, one text for equal values, and short also for 1e400000000.
    """
    sign, digits, exponent = Decimal(value).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return "0"
    stripped = text.rstrip("0")
    scale = int(exponent) + len(text) - len(stripped)
    minus = "-" if sign else ""
    if 0 <= scale <= INTEGER_DIGITS_MAX - len(stripped):
        return f"{minus}{stripped}{'0' * scale}"
    return f"{minus}{stripped}" + (f"e{scale}" if scale else "")
