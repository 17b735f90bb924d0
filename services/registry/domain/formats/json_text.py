"""JSON texts: read strictly, and written in the two forms that fingerprints are made of."""

from __future__ import annotations

import decimal
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Final, TypeAlias

Json: TypeAlias = "bool | int | Decimal | str | list[Json] | dict[str, Json] | None"

DEPTH_MAX = 100
"""Levels of nesting. Real schemas have 28 at most; the validating library refuses at 128."""

INTEGER_DIGITS_MAX = 19
"""Integers of more digits are written with an exponent in canonical texts."""

_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^" \t\n\r]+')
_LONG_NUMBER = re.compile(rf"[0-9]{{{INTEGER_DIGITS_MAX + 1}}}")


class TextError(Exception):
    """The text is not JSON as RFC 8259 has it, or beyond a limit. `str()` says where and why."""


def read(text: str) -> Json:
    """The value of a JSON text. Numbers are exact: int, or Decimal when written with a point or an exponent.

    Raises TextError on anything but one JSON value: also on a name that stands twice in an object, on NaN and
    Infinity, and on more than DEPTH_MAX levels.
    """
    try:
        value: Json = _READER.decode(text)
    except json.JSONDecodeError as error:
        raise TextError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise TextError(f"nested deeper than {DEPTH_MAX} levels") from None
    except decimal.InvalidOperation:
        raise TextError("a number cannot be read: its exponent has too many digits") from None
    except ValueError as error:  # An integer of more digits than Python converts.
        raise TextError(f"a number cannot be read: {str(error).partition(';')[0]}") from None
    if is_deeper(text.encode("utf-8", "surrogatepass"), DEPTH_MAX):
        raise TextError(f"nested deeper than {DEPTH_MAX} levels")
    if "\\u" in text and not is_text(value):  # Only an escape can spell half of a pair.
        raise TextError("an escape like \\ud800 is half of a surrogate pair, which no text can hold")
    return value


def is_deeper(data: bytes, levels: int) -> bool:
    """Whether a valid JSON text nests deeper than some levels.

    On the text, for walking the value takes longer than reading it: what is left of it are brackets. Each round takes
    out the innermost ones, which leaves little of most texts; the others are counted through.
    """
    if data.count(b"{") + data.count(b"[") <= levels:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = data.translate(_ONE_KIND, _NO_BRACKETS).replace(b'""', b"")
    brackets = b"".join(brackets.split(b'"')[::2])
    rounds = min(levels, _ROUNDS_MAX)
    for _ in range(rounds):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > levels - rounds


def is_text(value: object) -> bool:
    """Whether every name and every string in a value can be written in UTF-8."""
    try:
        for item in _walk(value):
            if isinstance(item, str):
                item.encode("utf-8")
            elif isinstance(item, dict):
                "".join(item).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def compact(text: str) -> str:
    """A valid JSON text without insignificant white space, otherwise letter for letter."""
    if "\\" in text:
        return "".join(_TOKENS.findall(text))
    pieces = text.split('"')  # Without escapes every second one is outside of strings: ten times as fast as tokens.
    pieces[::2] = '"'.join(pieces[::2]).translate(_NO_SPACE).split('"')
    return '"'.join(pieces)


def canonical(value: Json) -> str:
    """One text for all equal values: members by name, numbers by value (1, 1.0 and 10e-1 are one), no white space."""
    try:
        text = _PLAIN.encode(value)
    except TypeError:  # A Decimal.
        return _canonical(value)
    return _canonical(value) if _LONG_NUMBER.search(text) else text


def _canonical(value: Json) -> str:
    """`canonical` of a value with any numbers."""
    match value:
        case None | bool() | str():
            return json.dumps(value)
        case int() | Decimal():
            return _number(value)
        case list():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case dict():
            members = (f"{json.dumps(name)}:{_canonical(value[name])}" for name in sorted(value))
            return "{" + ",".join(members) + "}"


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer. Source: RFC 6901, section 4."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _walk(value: object) -> Iterator[object]:
    """Every value in a value, without recursion."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        yield item


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


_ROUNDS_MAX: Final = 12
_STEPS: Final = {ord("["): 1, ord("]"): -1}
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_SPACE: Final = str.maketrans("", "", " \t\n\r")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_READER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_refuse_constant)
_PLAIN: Final = json.JSONEncoder(check_circular=False, sort_keys=True, separators=(",", ":"))
"""Made once: `json.loads` and `json.dumps` with arguments make one for every text."""
