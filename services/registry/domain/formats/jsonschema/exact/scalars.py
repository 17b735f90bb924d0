"""Assertions that follow from joined facts alone, and cases that the facts suggest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.facts import (
    Choice,
    Context,
    Facts,
    Known,
    lacking,
    made,
    present,
)
from services.registry.domain.formats.jsonschema.exact.shape import FRACTION, NUMBERS, Limit, Shape, in_place
from services.registry.domain.formats.jsonschema.exact.values import exact, key

DISCRIMINATING_MAX: Final = 200
"""Values of a member that are taken case by case."""

_ABOUT: Final = {
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "multipleOf": NUMBERS,
    "minLength": frozenset({"string"}),
    "maxLength": frozenset({"string"}),
    "pattern": frozenset({"string"}),
    "format": frozenset({"string"}),
    "minItems": frozenset({"array"}),
    "maxItems": frozenset({"array"}),
    "uniqueItems": frozenset({"array"}),
    "items": frozenset({"array"}),
    "contains": frozenset({"array"}),
    "unevaluatedItems": frozenset({"array"}),
    "minProperties": frozenset({"object"}),
    "maxProperties": frozenset({"object"}),
    "required": frozenset({"object"}),
    "properties": frozenset({"object"}),
    "propertyNames": frozenset({"object"}),
    "dependentRequired": frozenset({"object"}),
    "dependentSchemas": frozenset({"object"}),
    "unevaluatedProperties": frozenset({"object"}),
}
"""The kinds of values that an assertion says something about; absent: all."""


def kinds_of(part: str) -> frozenset[str] | None:
    """The kinds of values that an assertion says something about; None for all."""
    return _ABOUT.get(part)


def holds(shape: Shape, part: str, known: Facts) -> bool:
    """Whether the facts alone show an assertion."""
    about = _ABOUT.get(part)
    if about is not None and not about & known.kinds:
        return True
    match part:
        case "type":
            return shape.kinds is not None and known.kinds <= shape.kinds
        case "minimum" | "maximum" | "multipleOf":
            return _number_holds(shape, part, known)
        case "pattern":
            return shape.pattern in known.texts
        case "format":
            return shape.format in known.formats
        case "uniqueItems":
            return known.unique or (known.max_items is not None and known.max_items <= 1)
        case "required":
            return shape.required <= known.required
        case "dependentRequired":
            return all(_dependent_holds(name, needed, known) for name, needed in shape.dependent_required.items())
    return _size_holds(shape, part, known)


def _size_holds(shape: Shape, part: str, known: Facts) -> bool:
    match part:
        case "minLength":
            return known.min_length >= shape.min_length
        case "maxLength":
            return _at_most(known.max_length, shape.max_length)
        case "minItems":
            return known.min_items >= shape.min_items
        case "maxItems":
            return _at_most(known.max_items, shape.max_items)
        case "minProperties":
            return max(known.min_properties, len(known.required)) >= shape.min_properties
        case "maxProperties":
            return _at_most(known.names_max, shape.max_properties)
    return False


def _at_most(known: int | None, wanted: int | None) -> bool:
    return wanted is None or (known is not None and known <= wanted)


def _number_holds(shape: Shape, part: str, known: Facts) -> bool:
    whole = FRACTION not in known.kinds
    if part == "multipleOf":
        if shape.multiple is None:
            return True
        wanted = exact(shape.multiple)
        if whole and wanted.numerator == 1:
            return True
        return any((multiple / wanted).denominator == 1 for multiple in known.multiples)
    lower = part == "minimum"
    have, want = (known.minimum, shape.minimum) if lower else (known.maximum, shape.maximum)
    if want is None:
        return True
    if have is None:
        return False
    if whole:
        return _whole(have, lower=lower) >= _whole(want, lower=lower) if lower else _whole(have) <= _whole(want)
    if have.value == want.value:
        return have.exclusive or not want.exclusive
    return (have.value > want.value) == lower


def _whole(limit: Limit, *, lower: bool = False) -> int:
    """The first integer within a bound."""
    value = exact(limit.value)
    if lower:
        found = -(-value.numerator // value.denominator)
        return found + 1 if limit.exclusive and found == value else found
    found = value.numerator // value.denominator
    return found - 1 if limit.exclusive and found == value else found


def _dependent_holds(name: str, needed: frozenset[str], known: Facts) -> bool:
    if known.refuses(name):
        return True
    # Members that must be there when this one is, and what those ask for in turn.
    found = {name, *known.required}
    while True:
        more = {
            other
            for _, shape in known.shapes
            for present, others in shape.dependent_required.items()
            if present in found
            for other in others
        }
        if more <= found:
            return needed <= found
        found |= more


def further_cases(node: Node, context: Context, knowledge: Known) -> Iterator[list[Context]]:
    """Cases by kind of value, and by the values of a member that tells the reader's branches apart."""
    known = knowledge.of(context)
    chosen = {(choice.owner, choice.keyword) for choice in context.choices}
    if len(known.kinds) > 1 and (node, "kinds") not in chosen:
        groups = [known.kinds & NUMBERS, *({item} for item in sorted(known.kinds - NUMBERS))]
        present = [frozenset(group) for group in groups if group]
        if len(present) > 1:
            yield [_kind_case(node, context, group, index) for index, group in enumerate(present)]
        elif len(known.kinds) > 1:
            several = [frozenset({item}) for item in sorted(known.kinds)]
            yield [_kind_case(node, context, group, index) for index, group in enumerate(several)]
    if known.kinds == {"object"}:
        for name in _telling(node):
            if (node, f"value of {name}") not in chosen:
                cases = _value_cases(node, context, knowledge, name)
                if cases is not None:
                    yield cases


def _kind_case(node: Node, context: Context, group: frozenset[str], index: int) -> Context:
    only = made(node, f"kind {','.join(sorted(group))}", lambda: Shape(kinds=group))
    return context.joined([only], Choice(node, "kinds", index))


def _telling(node: Node) -> list[str]:
    """Members on whose values the branches of a node differ, as far as can be seen at once."""
    found: dict[str, None] = {}
    waiting = [(node, 0)]
    while waiting and len(found) < 8:
        current, depth = waiting.pop(0)
        shape = current.shape
        for name, child in shape.properties.items():
            if child.shape.values is not None or (child.shape.kinds is not None and depth > 0):
                found[name] = None
        for name in sorted(shape.required) if depth > 0 else ():
            found[name] = None
        if depth < 3:
            waiting += [(below, depth + 1) for below in in_place(shape)]
            if shape.negated is not None:
                waiting.append((shape.negated, depth + 1))
    return list(found)[:8]


def _value_cases(node: Node, context: Context, knowledge: Known, name: str) -> list[Context] | None:
    known = knowledge.of(context)
    member = knowledge.of(Context(tuple(known.member(name))))
    cases: list[Context] = []
    if member.values is not None and len(member.values) <= DISCRIMINATING_MAX:
        for index, value in enumerate(member.values):
            choice = Choice(node, f"value of {name}", index)
            cases.append(context.joined([present(node, name), _valued(node, name, value)], choice))
    else:
        cases.append(context.joined([present(node, name)], Choice(node, f"value of {name}", 0)))
    if name not in known.required:
        cases.append(context.joined([lacking(node, name)], Choice(node, f"value of {name}", len(cases))))
    return cases if len(cases) > 1 else None


def _valued(node: Node, name: str, value: Json) -> Node:
    """Objects in which a member, if it is there, has a value."""

    def make() -> Shape:
        return Shape(properties={name: node.document.made(Shape(values=(value,)), node)})

    return made(node, f"value {key(value)} of {name}", make)
