"""What a schema says, in one form for all drafts: the words of 2020-12, numbers exact, references as links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeAlias

from services.registry.domain.formats.json_text import Json

if TYPE_CHECKING:
    from services.registry.domain.formats.jsonschema.exact.document import Node

Number: TypeAlias = int | Decimal

INTEGER: Final = "integer"
INTEGRAL: Final = "integral"
FRACTION: Final = "fraction"
NUMBERS: Final = frozenset({INTEGER, INTEGRAL, FRACTION})
KINDS: Final = frozenset({"null", "boolean", "string", "array", "object", *NUMBERS})
"""Kinds of values. 2, 2.0 and 2.5 are three kinds: draft 4 alone says that 2.0 is no integer."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of a range of numbers."""

    value: Number
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A format by name, as one draft has it: the drafts differ, for example on `hostname`. dialect: of a Parsed."""

    dialect: str
    name: str


@dataclass(frozen=True, slots=True)
class Shape:
    """The assertions of one schema object; what is absent says nothing.

    opaque: it holds something that is not modelled, so nothing is known about it but its text.
    never: it accepts nothing. kinds: of KINDS. values: those of `enum` and `const` together.
    additional holds for names that neither `properties` nor `patterns` cover; `items` for items after `prefix`.
    """

    opaque: bool = False
    never: bool = False
    kinds: frozenset[str] | None = None
    values: tuple[Json, ...] | None = None
    minimum: Limit | None = None
    maximum: Limit | None = None
    multiple: Number | None = None
    min_length: int = 0
    max_length: int | None = None
    pattern: str | None = None
    format: TextFormat | None = None
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False
    prefix: tuple[Node, ...] = ()
    items: Node | None = None
    contains: Node | None = None
    min_contains: int = 1
    max_contains: int | None = None
    unevaluated_items: Node | None = None
    min_properties: int = 0
    max_properties: int | None = None
    required: frozenset[str] = frozenset()
    properties: Mapping[str, Node] = field(default_factory=dict)
    patterns: Mapping[str, Node] = field(default_factory=dict)
    additional: Node | None = None
    names: Node | None = None
    unevaluated: Node | None = None
    dependent_required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    dependent: Mapping[str, Node] = field(default_factory=dict)
    ref: Node | None = None
    all_of: tuple[Node, ...] = ()
    any_of: tuple[Node, ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None
    condition: Node | None = None
    consequent: Node | None = None
    alternative: Node | None = None

    @property
    def is_object(self) -> bool:
        """Whether it says anything about members by name."""
        return bool(self.properties or self.patterns or self.additional is not None)

    @property
    def is_plain(self) -> bool:
        """Whether no other schema applies to the same instance."""
        return not any(True for _ in in_place(self))


BLANK: Final = Shape()
NOTHING: Final = Shape(never=True)
UNKNOWN: Final = Shape(opaque=True)

PARTS: Final[Mapping[str, frozenset[str]]] = {
    "type": frozenset({"kinds"}),
    "enum": frozenset({"values"}),
    "minimum": frozenset({"minimum"}),
    "maximum": frozenset({"maximum"}),
    "multipleOf": frozenset({"multiple"}),
    "minLength": frozenset({"min_length"}),
    "maxLength": frozenset({"max_length"}),
    "pattern": frozenset({"pattern"}),
    "format": frozenset({"format"}),
    "minItems": frozenset({"min_items"}),
    "maxItems": frozenset({"max_items"}),
    "uniqueItems": frozenset({"unique"}),
    "items": frozenset({"prefix", "items"}),
    "contains": frozenset({"contains", "min_contains", "max_contains"}),
    "minProperties": frozenset({"min_properties"}),
    "maxProperties": frozenset({"max_properties"}),
    "required": frozenset({"required"}),
    "properties": frozenset({"properties", "patterns", "additional"}),
    "propertyNames": frozenset({"names"}),
    "dependentRequired": frozenset({"dependent_required"}),
    "dependentSchemas": frozenset({"dependent"}),
    "$ref": frozenset({"ref"}),
    "allOf": frozenset({"all_of"}),
    "anyOf": frozenset({"any_of"}),
    "oneOf": frozenset({"one_of"}),
    "not": frozenset({"negated"}),
    "if": frozenset({"condition", "consequent", "alternative"}),
    "unevaluatedItems": frozenset({"unevaluated_items"}),
    "unevaluatedProperties": frozenset({"unevaluated"}),
}
"""The assertions, each of which must hold by itself, and what they read. In the order in which they are proved."""

_DEFAULTS: Final = {item.name: getattr(BLANK, item.name) for item in fields(Shape)}


def asserted(shape: Shape) -> list[str]:
    """Which of PARTS a shape has."""
    return [part for part, names in PARTS.items() if any(getattr(shape, name) != _DEFAULTS[name] for name in names)]


def in_place(shape: Shape) -> Iterator[Node]:
    """Schemas for the same instance whose successes count as the shape's own for `unevaluated*`."""
    if shape.ref is not None:
        yield shape.ref
    yield from shape.all_of
    yield from shape.any_of
    yield from shape.one_of
    yield from shape.dependent.values()
    for item in (shape.condition, shape.consequent, shape.alternative):
        if item is not None:
            yield item
