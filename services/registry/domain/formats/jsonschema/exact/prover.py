"""The library's decision procedure behind three questions. It is asked about pieces, never about untrusted addresses.

Source: jsonschema-rs 0.60, module `canonical`, documented as experimental: the version is pinned, and what it says is
tested against instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.compiling import PATTERNS
from services.registry.domain.formats.jsonschema.exact.document import Node, same
from services.registry.domain.formats.jsonschema.exact.shape import INTEGER, INTEGRAL, NUMBERS, Shape

NODES_MAX: Final = 150
"""Schemas in one question: the procedure's cost can grow exponentially."""
DEPTH_MAX: Final = 40
CASES_MAX: Final = 24
"""Product of the branches of every `anyOf` and `oneOf` in one question."""
APART_NODES_MAX: Final = 40
"""Schemas in a question whether schemas are apart: there are many of those."""
TOTAL_NODES_MAX: Final = 1_500
"""Schemas in all questions of one comparison."""

_Schema = dict[str, Any]


class TooLarge(Exception):
    """The question is beyond a limit, or cannot be put in the words of 2020-12."""


class Prover:
    """Asks the library, about at most TOTAL_NODES_MAX schemas."""

    def __init__(self) -> None:
        self._left = TOTAL_NODES_MAX

    def covers(self, reader: Node, writers: Sequence[Node]) -> bool:
        """Whether it is proved that whatever all the writers' nodes accept the reader's accepts."""
        pair = self._pair(reader, writers)
        if pair is None:
            return False
        try:
            return pair[0].covers(pair[1]) == jsonschema_rs.canonical.Containment.YES
        except (jsonschema_rs.canonical.CanonicalizationError, ValueError):
            return False

    def lost(self, reader: Node, writers: Sequence[Node]) -> Json:
        """A schema of what all the writers' nodes accept and the reader's does not; True when there is none."""
        pair = self._pair(reader, writers)
        if pair is None:
            return True
        try:
            found: Json = pair[1].subtract(pair[0]).to_json_schema()  # type: ignore[assignment]
        except (jsonschema_rs.canonical.CanonicalizationError, ValueError):
            return True
        return found

    def apart(self, one: Node, others: Sequence[Node]) -> bool:
        """Whether it is proved that no value is accepted by all of them."""
        pair = self._pair(one, others, APART_NODES_MAX)
        if pair is None:
            return False
        try:
            both = pair[0].intersect(pair[1])
            return both.satisfiability() == jsonschema_rs.canonical.Satisfiability.NO
        except (jsonschema_rs.canonical.CanonicalizationError, ValueError):
            return False

    def _pair(
        self, reader: Node, writers: Sequence[Node], nodes_max: int = NODES_MAX
    ) -> tuple[jsonschema_rs.CanonicalSchema, jsonschema_rs.CanonicalSchema] | None:
        if self._left <= 0:
            return None
        writing = _Writing(nodes_max)
        try:
            one = writing.schema(reader)
            several: list[Json] = [writing.schema(node) for node in writers]
        except TooLarge:
            return None
        finally:
            self._left -= writing.count
        other: Json = several[0] if len(several) == 1 else {"allOf": several}
        try:
            return _canonical(one, writing.definitions), _canonical(other, writing.definitions)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None


def _canonical(schema: Json, definitions: Mapping[str, Json]) -> jsonschema_rs.CanonicalSchema:
    document: Any = schema
    if definitions:
        document = {"allOf": [schema], "$defs": dict(definitions)}
    return jsonschema_rs.canonicalize(
        document,
        draft=jsonschema_rs.Draft202012,
        validate_formats=False,
        pattern_options=PATTERNS,
        offline=True,
    )


class _Writing:
    """Nodes as schemas of 2020-12 with shared definitions."""

    def __init__(self, nodes_max: int) -> None:
        self._nodes_max = nodes_max
        self.count = 0
        self.definitions: dict[str, Json] = {}
        self._names: dict[Node, str] = {}
        self._targets: list[Node] = []
        self._depth = 0
        self._cases = 1

    def schema(self, node: Node) -> Json:
        """Raises TooLarge."""
        self.count += 1
        shape = node.shape
        if self.count > self._nodes_max or self._depth > DEPTH_MAX or shape.opaque or shape.format is not None:
            raise TooLarge
        if shape.never:
            return False
        self._cases *= max(1, len(shape.any_of)) * max(1, len(shape.one_of))
        if self._cases > CASES_MAX:
            raise TooLarge
        self._depth += 1
        found = {**_scalars(shape), **self._structure(shape)}
        self._depth -= 1
        return found

    def _structure(self, shape: Shape) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for keyword, node in (
            ("items", shape.items),
            ("contains", shape.contains),
            ("unevaluatedItems", shape.unevaluated_items),
            ("additionalProperties", shape.additional),
            ("propertyNames", shape.names),
            ("unevaluatedProperties", shape.unevaluated),
            ("not", shape.negated),
            ("if", shape.condition),
            ("then", shape.consequent),
            ("else", shape.alternative),
        ):
            if node is not None:
                found[keyword] = self.schema(node)
        for keyword, nodes in (
            ("prefixItems", shape.prefix),
            ("allOf", shape.all_of),
            ("anyOf", shape.any_of),
            ("oneOf", shape.one_of),
        ):
            if nodes:
                found[keyword] = [self.schema(node) for node in nodes]
        for keyword, named in (
            ("properties", shape.properties),
            ("patternProperties", shape.patterns),
            ("dependentSchemas", shape.dependent),
        ):
            if named:
                found[keyword] = {name: self.schema(node) for name, node in named.items()}
        if shape.ref is not None:
            found["$ref"] = "#/$defs/" + self._definition(shape.ref)
        return found

    def _definition(self, node: Node) -> str:
        """The name under which a node is defined; one for equal nodes of both sides."""
        name = self._names.get(node)
        if name is not None and name not in self.definitions:
            raise TooLarge  # The library overflows its stack on some schemas that lead back to themselves.
        if name is None:
            equal = next((item for item in self._targets if _is_unchanged(item, node)), None)
            name = self._names[equal] if equal is not None else str(len(self._targets))
            self._names[node] = name
            if equal is None:
                self._targets.append(node)
                self.definitions[name] = self.schema(node)
        return name


def _is_unchanged(one: Node, other: Node) -> bool:
    """Whether two nodes are the same in text and neither is derived: a derived one says something else."""
    return one.origin is one and other.origin is other and one.document is not other.document and same(one, other)


def _scalars(shape: Shape) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if shape.kinds is not None:
        found["type"] = list(_types(shape.kinds))
    if shape.values is not None:
        found["enum"] = list(shape.values)
        if not shape.values:
            return {"not": {}}
    for limit, inclusive, exclusive in (
        (shape.minimum, "minimum", "exclusiveMinimum"),
        (shape.maximum, "maximum", "exclusiveMaximum"),
    ):
        if limit is not None:
            found[exclusive if limit.exclusive else inclusive] = limit.value
    for keyword, value, default in (
        ("multipleOf", shape.multiple, None),
        ("minLength", shape.min_length, 0),
        ("maxLength", shape.max_length, None),
        ("pattern", shape.pattern, None),
        ("minItems", shape.min_items, 0),
        ("maxItems", shape.max_items, None),
        ("uniqueItems", shape.unique, False),
        ("maxContains", shape.max_contains, None),
        ("minProperties", shape.min_properties, 0),
        ("maxProperties", shape.max_properties, None),
    ):
        found |= {keyword: value} if value != default else {}
    if shape.contains is not None and shape.min_contains != 1:
        found["minContains"] = shape.min_contains
    if shape.required:
        found["required"] = [*sorted(shape.required)]
    if shape.dependent_required:
        found["dependentRequired"] = {name: [*sorted(needed)] for name, needed in shape.dependent_required.items()}
    return found


def _types(kinds: frozenset[str]) -> list[str]:
    """Names of 2020-12 for kinds. Raises TooLarge for draft 4's integers, which it cannot say."""
    found = sorted(kinds - NUMBERS)
    numbers = kinds & NUMBERS
    if numbers == NUMBERS:
        return [*found, "number"]
    if numbers == {INTEGER, INTEGRAL}:
        return [*found, "integer"]
    if numbers:
        raise TooLarge
    return found
