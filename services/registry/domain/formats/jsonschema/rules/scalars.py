"""Rules on annotations, strings, numbers and enumerations."""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation
from typing import Final

from services.registry.domain.formats.jsonschema.rules.comparison import LOOKS_PER_STEP, Pair
from services.registry.domain.formats.jsonschema.rules.nodes import Node
from services.registry.domain.formats.jsonschema.rules.words import shown

REMAINDER_DIGITS_MAX: Final = 400
"""Digits of a quotient beyond which it is not looked at whether one multipleOf divides the other."""

_CONTEXT: Final = Context(prec=REMAINDER_DIGITS_MAX)
_ANNOTATIONS: Final = (
    ("$id", "ID_CHANGED"),
    ("id", "ID_CHANGED"),
    ("title", "TITLE_CHANGED"),
    ("description", "DESCRIPTION_CHANGED"),
    ("default", "DEFAULT_CHANGED"),
)


def remarks(pair: Pair) -> None:
    """Titles and the like, which never do harm."""
    writer, reader = pair.writer.schema, pair.reader.schema
    for keyword, rule in _ANNOTATIONS:
        if keyword not in writer and keyword not in reader:
            continue
        numbers = pair.writer.side.numbers
        if keyword in writer and keyword in reader and numbers.of(writer[keyword]) == numbers.of(reader[keyword]):
            continue
        old, new = (shown(schema[keyword]) if keyword in schema else "none" for schema in (writer, reader))
        pair.add(rule, _there(pair.writer, keyword), _there(pair.reader, keyword), old=old, new=new)


def limit(pair: Pair, keyword: str, rule: str) -> None:
    """A limit by its name; also one that draft 4 writes with a boolean."""
    if keyword not in pair.writer.live and keyword not in pair.reader.live:
        return
    old, new = _limit(pair.writer, keyword), _limit(pair.reader, keyword)
    if old is None and new is None:
        return
    if old is None or new is None:
        end = "ADDED" if old is None else "REMOVED"
    elif old == new:
        return
    else:
        end = "INCREASED" if old < new else "DECREASED"
    pair.add(
        f"{rule}_{end}",
        None if old is None else pair.writer.place(keyword),
        None if new is None else pair.reader.place(keyword),
        old=shown(old),
        new=shown(new),
    )


def strings(pair: Pair) -> None:
    """Lengths and patterns. A pattern that changed is not looked into."""
    limit(pair, "maxLength", "MAX_LENGTH")
    limit(pair, "minLength", "MIN_LENGTH")
    old, new = pair.writer.get("pattern"), pair.reader.get("pattern")
    if old == new:
        return
    rule = "PATTERN_ADDED" if old is None else "PATTERN_REMOVED" if new is None else "PATTERN_CHANGED"
    pair.add(rule, _there(pair.writer, "pattern"), _there(pair.reader, "pattern"), old=shown(old), new=shown(new))


def numbers(pair: Pair) -> None:
    """Ranges, divisors, and integers beside numbers."""
    limit(pair, "maximum", "MAXIMUM")
    limit(pair, "minimum", "MINIMUM")
    limit(pair, "exclusiveMaximum", "EXCLUSIVE_MAXIMUM")
    limit(pair, "exclusiveMinimum", "EXCLUSIVE_MINIMUM")
    _divisors(pair)


def typing(pair: Pair) -> None:
    """Whether values of other types get in, and numbers that are no integers."""
    writer, reader = pair.writer, pair.reader
    old = (writer.typed, writer.integer)
    new = (reader.typed, reader.integer)
    if old == new:
        return
    wider = (writer.typed or not reader.typed) and (writer.integer or not reader.integer)
    pair.add(
        "TYPE_EXTENDED" if wider else "TYPE_NARROWED",
        writer.place("type") if writer.typed else writer.path,
        reader.place("type") if reader.typed else reader.path,
        old=writer.described() if writer.typed else "values of any type",
        new=reader.described() if reader.typed else "values of any type",
    )


def enumerations(pair: Pair) -> None:
    """The values that are listed. A constant is a list of one."""
    of = pair.writer.side.numbers.of
    pair.count((len(pair.writer.values) + len(pair.reader.values)) // LOOKS_PER_STEP)
    old = {of(value): value for value in pair.writer.values}
    new = {of(value): value for value in pair.reader.values}
    gone = [value for number, value in old.items() if number not in new]
    come = [value for number, value in new.items() if number not in old]
    if not gone and not come:
        return
    rule = "ENUM_ARRAY_EXTENDED" if not gone else "ENUM_ARRAY_NARROWED" if not come else "ENUM_ARRAY_CHANGED"
    places = [
        node.place("enum" if "enum" in node and node.values is node.get("enum") else "const")
        for node in (pair.writer, pair.reader)
    ]
    pair.add(rule, places[0], places[1], old=shown(gone), new=shown(come))


def _divisors(pair: Pair) -> None:
    old, new = pair.writer.get("multipleOf"), pair.reader.get("multipleOf")
    if old == new:
        return
    if not isinstance(old, int | Decimal):
        rule = "MULTIPLE_OF_ADDED"
    elif not isinstance(new, int | Decimal):
        rule = "MULTIPLE_OF_REMOVED"
    elif _divides(new, old):
        rule = "MULTIPLE_OF_REDUCED"
    else:
        rule = "MULTIPLE_OF_EXPANDED" if _divides(old, new) else "MULTIPLE_OF_CHANGED"
    pair.add(rule, _there(pair.writer, "multipleOf"), _there(pair.reader, "multipleOf"), old=shown(old), new=shown(new))


def _divides(divisor: int | Decimal, number: int | Decimal) -> bool:
    try:
        return _CONTEXT.remainder(Decimal(number), Decimal(divisor)) == 0
    except InvalidOperation:  # The quotient has too many digits.
        return False


def _limit(node: Node, keyword: str) -> int | Decimal | None:
    """The limit under a keyword. Draft 4's `exclusiveMaximum: true` makes `maximum` the exclusive one."""
    value = node.get(keyword)
    if isinstance(value, bool):
        value = node.get(keyword.removeprefix("exclusive").lower()) if value else None
    elif keyword in ("maximum", "minimum") and node.get(f"exclusive{keyword.capitalize()}") is True:
        return None
    return value if isinstance(value, int | Decimal) else None


def _there(node: Node, keyword: str) -> str | None:
    return node.place(keyword) if keyword in node.schema else None
