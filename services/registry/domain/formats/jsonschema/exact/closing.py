"""The assumption `declared_properties_only`, as a change of the writer's schema and as a test of one instance.

It says: where the writer's schema declares properties for an object, the object has no others. Precisely: an object in
the instance is *closed* when some schema that applies to it has `properties`, in itself or in any of its subschemas for
the same instance. Every member of a closed object must be looked at by a schema that applies to the object and holds
for it: by `properties`, `patternProperties`, `additionalProperties` or `unevaluatedProperties`; this is what
`unevaluatedProperties` asks (2020-12, core, section 11.3), for all schemas of the object together and in every draft.
So `additionalProperties: true` says that there are others, and an object of which no property is declared is a free
map.

The closed schema accepts every instance of the writer that obeys, and perhaps some that do not: where two schemas apply
to one part, each lets the names of the other pass. What a proof shows of it holds for the writer; a witness must be
accepted by the writer's own schema and obey.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.registry.domain.formats.jsonschema.exact.check import Checker, is_evaluated, members
from services.registry.domain.formats.jsonschema.exact.document import Document, Node
from services.registry.domain.formats.jsonschema.exact.shape import BLANK, NOTHING, Shape, in_place
from services.registry.domain.formats.jsonschema.exact.values import Value, matches

CLOSED_MAX: Final = 20_000
"""Nodes derived for one writer; what lies beyond stays open."""
SHAPES_MAX: Final = 400
"""Schemas for one place in the data; a place with more stays open."""
SIBLINGS_MAX: Final = 12

_Choices = tuple[tuple[Node, int], ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One schema for a place in the data, with the branches of `oneOf` that lead to it."""

    node: Node
    shape: Shape
    choices: _Choices


class Closing:
    """Closes a writer's schema, lazily."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._entries: dict[tuple[Node, frozenset[Node]], Node] = {}
        self._declaring: dict[Node, bool] = {}
        self._count = 0

    def closed(self, node: Node, beside: frozenset[Node] = frozenset()) -> Node:
        """The node as an entry: a schema for a place in the data. beside: others for the same place."""
        if isinstance(node.raw, bool):
            return node
        identity = (node, beside)
        found = self._entries.get(identity)
        if found is None:
            self._count += 1
            if self._count > CLOSED_MAX or len(beside) > SIBLINGS_MAX:
                return node
            found = self._entries[identity] = node.derived(lambda _: self._entry(node, beside))
        return found

    def _entry(self, node: Node, beside: frozenset[Node]) -> Shape:
        shape = node.shape
        if shape.never or shape.opaque:
            return shape
        if not beside and _is_reference(shape) and shape.ref is not None:
            return replace(shape, ref=self.closed(shape.ref))
        parts = list(_parts(node, SHAPES_MAX))
        around = [part for other in beside for part in _parts(other, SHAPES_MAX)]
        if len(parts) + len(around) >= SHAPES_MAX:
            return shape
        place = _Place(self, [*parts, *around])
        inner = place.inner(node, ())
        is_closed = any(part.shape.properties for part in parts) and not any(part.shape.opaque for part in parts)
        others = [part.shape for part in around]
        if any(item.additional is not None or item.unevaluated is not None or item.opaque for item in others):
            is_closed = False
        if not is_closed or shape.unevaluated is not None or (shape.additional is not None):
            return inner.shape
        passing = {name: self._any() for item in others for name in item.properties}
        patterns = {pattern: self._any() for item in others for pattern in item.patterns}
        if shape.is_plain:
            same = inner.shape
            return replace(
                same,
                properties={**passing, **same.properties},
                patterns={**patterns, **same.patterns},
                additional=self._none(),
            )
        return Shape(ref=inner, properties=passing, patterns=patterns, unevaluated=self._none())

    def _any(self) -> Node:
        return self._document.made(BLANK, self._document.root)

    def _none(self) -> Node:
        return self._document.made(NOTHING, self._document.root)

    def declares(self, node: Node) -> bool:
        """Whether a schema has `properties`, in itself or in any of its subschemas for the same instance."""
        found = self._declaring.get(node)
        if found is None:
            found = self._declaring[node] = any(part.shape.properties for part in _parts(node, SHAPES_MAX))
        return found

    def obeys(self, value: Value, checker: Checker) -> bool:
        """Whether an instance that the document accepts is as the assumption has it. Raises Unknown."""
        waiting: list[tuple[list[Node], Value]] = [([self._document.root], value)]
        while waiting:
            entries, item = waiting.pop()
            applied = [node for entry in entries for node in checker.applied(entry, item) or []]
            if isinstance(item, list):
                for index, element in enumerate(item):
                    waiting.append((_item_entries(applied, index, element, checker), element))
            if isinstance(item, dict):
                is_closed = any(self.declares(entry) for entry in entries)
                for name, member in item.items():
                    if is_closed and not is_evaluated([applied[0], *applied], name):
                        return False
                    waiting.append((_member_entries(applied, name, member, checker), member))
        return True


def _member_entries(applied: Sequence[Node], name: str, member: Value, checker: Checker) -> list[Node]:
    found = [child for node in applied for child in members(node.shape, name)]
    found += [node.shape.unevaluated for node in applied if node.shape.unevaluated is not None]
    return [entry for entry in found if checker.is_valid(entry, member)]


def _item_entries(applied: Sequence[Node], index: int, element: Value, checker: Checker) -> list[Node]:
    found: list[Node | None] = []
    for node in applied:
        shape = node.shape
        found.append(shape.prefix[index] if index < len(shape.prefix) else shape.items)
        found += [shape.contains, shape.unevaluated_items]
    return [entry for entry in found if entry is not None and checker.is_valid(entry, element)]


def _is_reference(shape: Shape) -> bool:
    return shape == Shape(ref=shape.ref)


def _parts(node: Node, most: int) -> Iterator[_Part]:
    """The schemas for the same place at and below a node, whichever of them hold; `not` says nothing about names."""
    waiting: list[tuple[Node, _Choices]] = [(node, ())]
    count = 0
    while waiting and count < most:
        current, choices = waiting.pop()
        count += 1
        shape = current.shape
        yield _Part(current, shape, choices)
        exclusive = {id(branch): index for index, branch in enumerate(shape.one_of)}
        for below in in_place(shape):
            index = exclusive.get(id(below))
            waiting.append((below, choices if index is None else (*choices, (current, index))))


def _are_exclusive(one: _Choices, other: _Choices) -> bool:
    chosen = dict(one)
    return any(chosen.get(choice, index) != index for choice, index in other)


class _Place:
    """All schemas for one place in the data, whose subschemas are closed with regard to one another."""

    def __init__(self, closing: Closing, parts: Sequence[_Part]) -> None:
        self._closing = closing
        self._parts = parts
        self._inner: dict[tuple[Node, _Choices], Node] = {}

    def inner(self, node: Node, choices: _Choices) -> Node:
        """A schema of this place with its children closed, itself left open."""
        shape = node.shape
        if shape.never or shape.opaque or isinstance(node.raw, bool):
            return node
        identity = (node, choices)
        found = self._inner.get(identity)
        if found is None:
            found = self._inner[identity] = node.derived(lambda _: self._inner_shape(_Part(node, shape, choices)))
        return found

    def _inner_shape(self, part: _Part) -> Shape:
        shape, choices = part.shape, part.choices
        return replace(
            shape,
            properties={name: self._member(part, name, child) for name, child in shape.properties.items()},
            patterns={name: self._child(part, child) for name, child in shape.patterns.items()},
            additional=self._optional(part, shape.additional),
            unevaluated=self._optional(part, shape.unevaluated),
            prefix=tuple(self._child(part, child) for child in shape.prefix),
            items=self._optional(part, shape.items),
            unevaluated_items=self._optional(part, shape.unevaluated_items),
            ref=None if shape.ref is None else self.inner(shape.ref, choices),
            all_of=tuple(self.inner(below, choices) for below in shape.all_of),
            any_of=tuple(self.inner(below, choices) for below in shape.any_of),
            one_of=tuple(self.inner(below, (*choices, (part.node, index))) for index, below in enumerate(shape.one_of)),
            dependent={name: self.inner(below, choices) for name, below in shape.dependent.items()},
            consequent=None if shape.consequent is None else self.inner(shape.consequent, choices),
            alternative=None if shape.alternative is None else self.inner(shape.alternative, choices),
        )

    def _optional(self, part: _Part, child: Node | None) -> Node | None:
        return None if child is None else self._child(part, child)

    def _others(self, part: _Part) -> Iterator[_Part]:
        return (
            other
            for other in self._parts
            if other.node is not part.node and not _are_exclusive(part.choices, other.choices)
        )

    def _member(self, part: _Part, name: str, child: Node) -> Node:
        """A child for one name, beside what other schemas, and patterns of its own, have for that name."""
        found = {node for pattern, node in part.shape.patterns.items() if matches(pattern, name)}
        for other in self._others(part):
            found.update(members(other.shape, name))
            if other.shape.unevaluated is not None:
                found.add(other.shape.unevaluated)
        return self._closing.closed(child, frozenset(found - {child}))

    def _child(self, part: _Part, child: Node) -> Node:
        """A child for many names or positions, beside whatever may apply to one of them."""
        found = {node for node in _children(part.shape) if node is not child}
        if child is part.shape.additional or child is part.shape.items:
            found = {node for node in (part.shape.unevaluated, part.shape.contains) if node is not None}
        for other in self._others(part):
            found.update(_children(other.shape))
        return self._closing.closed(child, frozenset(found - {child}))


def _children(shape: Shape) -> Iterator[Node]:
    yield from shape.properties.values()
    yield from shape.patterns.values()
    yield from shape.prefix
    for node in (shape.additional, shape.unevaluated, shape.items, shape.contains, shape.unevaluated_items):
        if node is not None:
            yield node
