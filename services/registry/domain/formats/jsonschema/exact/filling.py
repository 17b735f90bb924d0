"""The assumption `reader_fills_defaults`, as a change of the reader's schema and as a change of one instance.

It says: before a reader checks data it puts defaults where properties are missing, and takes the data if it passes
either as it came or filled. Defaults are filled in at *simple* places: the root, and below a simple place what its
`properties`, `additionalProperties`, `items` and `prefixItems` describe, where the schema at the place, after
following `$ref`, has no other keywords than these and `type`, `required`, `minItems`, `maxItems`, `minProperties` and
annotations. The default filled in is the `default` that stands in `properties/<name>` itself, when that property's
schema accepts it. Elsewhere, say below `anyOf`, it is not clear which default a reader would take, so none is filled
in.
"""

from __future__ import annotations

from dataclasses import replace

from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.shape import Shape
from services.registry.domain.formats.jsonschema.exact.values import data


class Filling:
    """Fills in the defaults of a reader's schema."""

    def __init__(self) -> None:
        self._nodes: dict[Node, Node] = {}
        self._checker = Checker()

    def relaxed(self, node: Node) -> Node:
        """The node for a simple place, not requiring what is filled in: it accepts what the reader takes."""
        if isinstance(node.raw, bool):
            return node
        found = self._nodes.get(node)
        if found is None:
            found = self._nodes[node] = node.derived(lambda _: self._relaxed(node))
        return found

    def _relaxed(self, node: Node) -> Shape:
        shape = node.shape
        if shape.ref is not None and shape == Shape(ref=shape.ref):
            return replace(shape, ref=self.relaxed(shape.ref))
        if not _is_simple(shape):
            return shape
        return replace(
            shape,
            required=shape.required - self._defaults(shape).keys(),
            properties={name: self.relaxed(child) for name, child in shape.properties.items()},
            additional=None if shape.additional is None else self.relaxed(shape.additional),
            items=None if shape.items is None else self.relaxed(shape.items),
            prefix=tuple(self.relaxed(child) for child in shape.prefix),
        )

    def filled(self, node: Node, value: Data) -> Data:
        """The instance with the defaults filled in. node: of the reader's own schema, not a relaxed one."""
        shape = node.shape
        while shape.ref is not None and shape == Shape(ref=shape.ref):  # No schema refers to itself in place.
            shape = shape.ref.shape
        if not _is_simple(shape):
            return value
        if isinstance(value, list):
            places = [shape.prefix[i] if i < len(shape.prefix) else shape.items for i in range(len(value))]
            return [
                item if place is None else self.filled(place, item) for place, item in zip(places, value, strict=True)
            ]
        if not isinstance(value, dict):
            return value
        found: dict[str, Data] = {}
        for name, item in value.items():
            place = shape.properties.get(name, shape.additional)
            found[name] = item if place is None else self.filled(place, item)
        return {**self._defaults(shape), **found}

    def _defaults(self, shape: Shape) -> dict[str, Data]:
        found: dict[str, Data] = {}
        for name, child in shape.properties.items():
            raw = child.origin.raw
            if isinstance(raw, dict) and "default" in raw:
                self._add(found, name, child.origin, raw["default"])
        return found

    def _add(self, found: dict[str, Data], name: str, child: Node, default: Json) -> None:
        try:
            value = data(default)
            if self._checker.is_valid(child, value):
                found[name] = value
        except (Unknown, OverflowError):
            return


def _is_simple(shape: Shape) -> bool:
    return shape == Shape(
        kinds=shape.kinds,
        required=shape.required,
        properties=shape.properties,
        additional=shape.additional,
        items=shape.items,
        prefix=shape.prefix,
        min_items=shape.min_items,
        max_items=shape.max_items,
        min_properties=shape.min_properties,
    )
