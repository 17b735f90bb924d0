"""A validator of our own over nodes: for the search, for values that a schema lists, and for the assumptions.

It knows which subschemas applied to which part of an instance, which the library does not tell. What it says of a
witness is always confirmed by the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.shape import NUMBERS, Shape
from services.registry.domain.formats.jsonschema.exact.values import Value, exact, follows, key, kind, matches

STEPS_MAX: Final = 60_000
"""Of one comparison: a schema applied to a value is one step."""
DEPTH_MAX: Final = 60


class Unknown(Exception):
    """It depends on a part of the schema that is not modelled, or costs more steps than are allowed."""


class Checker:
    """Applies nodes to values, within STEPS_MAX steps altogether."""

    def __init__(self, steps_max: int = STEPS_MAX) -> None:
        self._left = steps_max

    @property
    def is_exhausted(self) -> bool:
        """Whether no step is left."""
        return self._left < 0

    def is_valid(self, node: Node, value: Value) -> bool:
        """Raises Unknown."""
        return self.applied(node, value) is not None

    def all_valid(self, nodes: Iterable[Node], value: Value) -> bool:
        """Raises Unknown."""
        return all(self.applied(node, value) is not None for node in nodes)

    def applied(self, node: Node, value: Value, depth: int = 0) -> list[Node] | None:
        """The schemas that hold for the value itself, the node first; None when it is not valid. Raises Unknown."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            raise Unknown
        shape = node.shape
        if shape.opaque:
            raise Unknown
        if shape.never or not self._is_scalar_valid(shape, value):
            return None
        found = self._in_place(shape, value, depth + 1)
        if found is None:
            return None
        found.insert(0, node)
        if isinstance(value, list):
            return found if self._is_array_valid(shape, [*value], found, depth + 1) else None
        if isinstance(value, dict):
            return found if self._is_object_valid(shape, {**value}, found, depth + 1) else None
        return found

    def _is_scalar_valid(self, shape: Shape, value: Value) -> bool:
        if shape.kinds is not None and kind(value) not in shape.kinds:
            return False
        if shape.values is not None and key(value) not in {key(item) for item in shape.values}:
            return False
        if isinstance(value, str):
            return (
                shape.min_length <= len(value)
                and (shape.max_length is None or len(value) <= shape.max_length)
                and (shape.pattern is None or matches(shape.pattern, value))
                and (shape.format is None or follows(shape.format, value))
            )
        if kind(value) in NUMBERS and isinstance(value, int | float | Decimal):
            return _is_number_valid(shape, value)
        return True

    def _in_place(self, shape: Shape, value: Value, depth: int) -> list[Node] | None:
        """What applies to the value itself below a schema; None when that fails."""
        found: list[Node] = []
        wanted = [*([shape.ref] if shape.ref is not None else []), *shape.all_of]
        if isinstance(value, dict):
            wanted += [node for name, node in shape.dependent.items() if name in value]
        if shape.negated is not None and self.applied(shape.negated, value, depth) is not None:
            return None
        if shape.condition is not None:
            held = self.applied(shape.condition, value, depth)
            found += held or []
            following = shape.alternative if held is None else shape.consequent
            wanted += [following] if following is not None else []
        for node in wanted:
            held = self.applied(node, value, depth)
            if held is None:
                return None
            found += held
        for branches, exactly in ((shape.any_of, False), (shape.one_of, True)):
            if branches:
                several = [held for node in branches if (held := self.applied(node, value, depth)) is not None]
                if not several or (exactly and len(several) > 1):
                    return None
                found += [node for held in several for node in held]
        return found

    def _is_array_valid(self, shape: Shape, value: list[Value], applied: list[Node], depth: int) -> bool:
        if len(value) < shape.min_items or (shape.max_items is not None and len(value) > shape.max_items):
            return False
        if shape.unique and len({key(item) for item in value}) < len(value):
            return False
        for index, item in enumerate(value):
            node = shape.prefix[index] if index < len(shape.prefix) else shape.items
            if node is not None and self.applied(node, item, depth) is None:
                return False
        if shape.contains is not None:
            count = sum(self.applied(shape.contains, item, depth) is not None for item in value)
            if count < shape.min_contains or (shape.max_contains is not None and count > shape.max_contains):
                return False
        if shape.unevaluated_items is not None:
            for index, item in enumerate(value):
                if self._is_item_evaluated(applied, index, item, depth):
                    continue
                if self.applied(shape.unevaluated_items, item, depth) is None:
                    return False
        return True

    def _is_item_evaluated(self, applied: list[Node], index: int, item: Value, depth: int) -> bool:
        for position, node in enumerate(applied):
            shape = node.shape
            if index < len(shape.prefix) or shape.items is not None:
                return True
            if position and shape.unevaluated_items is not None:
                return True
            if shape.contains is not None and self.applied(shape.contains, item, depth) is not None:
                return True
        return False

    def _is_object_valid(self, shape: Shape, value: dict[str, Value], applied: list[Node], depth: int) -> bool:
        if len(value) < shape.min_properties or (
            shape.max_properties is not None and len(value) > shape.max_properties
        ):
            return False
        if not shape.required <= value.keys():
            return False
        if any(name in value and not needed <= value.keys() for name, needed in shape.dependent_required.items()):
            return False
        if shape.names is not None and any(self.applied(shape.names, name, depth) is None for name in value):
            return False
        for name, item in value.items():
            if any(self.applied(node, item, depth) is None for node in members(shape, name)):
                return False
        if shape.unevaluated is not None:
            for name, item in value.items():
                if not is_evaluated(applied, name) and self.applied(shape.unevaluated, item, depth) is None:
                    return False
        return True


def _is_number_valid(shape: Shape, value: float | Decimal) -> bool:
    number = exact(value)
    low, high = shape.minimum, shape.maximum
    if low is not None and (number < exact(low.value) or (low.exclusive and number == exact(low.value))):
        return False
    if high is not None and (number > exact(high.value) or (high.exclusive and number == exact(high.value))):
        return False
    return shape.multiple is None or (number / exact(shape.multiple)).denominator == 1


def members(shape: Shape, name: str) -> Iterator[Node]:
    """The schemas that a shape's own `properties`, patterns and rest have for a member of that name."""
    own = shape.properties.get(name)
    if own is not None:
        yield own
    matched = own is not None
    for pattern, node in shape.patterns.items():
        if matches(pattern, name):
            matched = True
            yield node
    if not matched and shape.additional is not None:
        yield shape.additional


def is_evaluated(applied: list[Node], name: str) -> bool:
    """Whether a schema that applied, other than by the first one's `unevaluatedProperties`, looked at the member."""
    return any(
        (position and node.shape.unevaluated is not None) or any(True for _ in members(node.shape, name))
        for position, node in enumerate(applied)
    )
