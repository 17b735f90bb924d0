"""Rules on arrays: items, lists of items, what comes after them."""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.rules.comparison import Pair, Steps
from services.registry.domain.formats.jsonschema.rules.nodes import Node
from services.registry.domain.formats.jsonschema.rules.objects import rest
from services.registry.domain.formats.jsonschema.rules.scalars import limit


@dataclass(frozen=True, slots=True)
class Items:
    """What an array says of its items: one schema for all, or a list and what comes after it.

    all: None when absent. listed: None when there is no list. rest: true when absent.
    """

    node: Node
    all: Json
    listed: list[Json] | None
    list_keyword: str
    rest: Json
    rest_keyword: str

    @classmethod
    def of(cls, node: Node) -> Items:
        """The items of an array, in the words of any draft."""
        items, listed = node.get("items"), node.get("prefixItems")
        if isinstance(listed, list):
            return cls(node, None, listed, "prefixItems", True if items is None else items, "items")
        if isinstance(items, list):
            return cls(node, None, items, "items", node.get("additionalItems", True), "additionalItems")
        return cls(node, items, None, "items", node.get("additionalItems", True), "additionalItems")

    def as_list(self) -> Items:
        """The same with a list: one schema for all is what comes after an empty one."""
        if self.listed is not None:
            return self
        rest = True if self.all is None else self.all
        return Items(self.node, None, [], "items", rest, "items")

    def is_open(self) -> bool:
        """Whether anything may come after the list."""
        return self.rest is True and self.node.get("unevaluatedItems", True) is True

    def standing_in(self) -> Node | None:
        """The schema of what comes after the list; None where nothing may."""
        if isinstance(self.rest, dict):
            return self.node.child(self.rest, self.rest_keyword)
        value = self.node.get("unevaluatedItems")
        return self.node.child(value, "unevaluatedItems") if self.rest is True and isinstance(value, dict) else None


def arrays(pair: Pair) -> Steps:
    """Two arrays."""
    limit(pair, "maxItems", "MAX_ITEMS")
    limit(pair, "minItems", "MIN_ITEMS")
    limit(pair, "maxContains", "MAX_CONTAINS")
    limit(pair, "minContains", "MIN_CONTAINS")
    _unique(pair)
    writer, reader = Items.of(pair.writer), Items.of(pair.reader)
    if writer.listed is None and reader.listed is None:
        yield from _all(pair, writer, reader)
    else:
        writer, reader = writer.as_list(), reader.as_list()
        yield from _listed(pair, writer, reader)
    # What comes after the list is compared also where it has no effect because there is no list: a known quirk.
    yield from rest(pair, (writer.rest_keyword, writer.rest), (reader.rest_keyword, reader.rest), "ADDITIONAL_ITEMS")
    old, new = (("unevaluatedItems", node.get("unevaluatedItems", True)) for node in (pair.writer, pair.reader))
    yield from rest(pair, old, new, "UNEVALUATED_ITEMS")


def _unique(pair: Pair) -> None:
    old, new = (node.get("uniqueItems") is True for node in (pair.writer, pair.reader))
    if old and not new:
        pair.add("UNIQUE_ITEMS_REMOVED", pair.writer.place("uniqueItems"), None)
    elif new and not old:
        pair.add("UNIQUE_ITEMS_ADDED", None, pair.reader.place("uniqueItems"))


def _all(pair: Pair, writer: Items, reader: Items) -> Steps:
    if writer.all is not None and reader.all is not None:
        pair.result.add((yield pair.writer.child(writer.all, "items"), pair.reader.child(reader.all, "items")))
    elif writer.all is not None:
        pair.add("SCHEMA_REMOVED", pair.writer.place("items"), None)
    elif reader.all is not None and pair.reader.child(reader.all, "items").kind != "anything":
        pair.add("SCHEMA_ADDED", None, pair.reader.place("items"))


def _listed(pair: Pair, writer: Items, reader: Items) -> Steps:
    old, new = writer.listed or [], reader.listed or []
    for index in range(max(len(old), len(new))):
        before = pair.writer.child(old[index], writer.list_keyword, index) if index < len(old) else None
        after = pair.reader.child(new[index], reader.list_keyword, index) if index < len(new) else None
        if before is not None and after is not None:
            pair.result.add((yield before, after))
        elif after is not None:
            yield from _added(pair, writer, after, index, pair.reader.place(reader.list_keyword, index))
        elif before is not None:
            yield from _removed(pair, reader, before, index, pair.writer.place(writer.list_keyword, index))


def _added(pair: Pair, writer: Items, new: Node, index: int, place: str) -> Steps:
    name = str(index)
    if writer.is_open():
        empty = "_WITH_EMPTY_SCHEMA" if new.kind == "anything" else ""
        pair.add(f"ITEM{empty}_ADDED_TO_OPEN_CONTENT_MODEL", None, place, name=name)
        return
    standing_in = writer.standing_in()
    if standing_in is None:
        pair.add("ITEM_ADDED_TO_CLOSED_CONTENT_MODEL", None, place, name=name)
        return
    below = yield standing_in, new
    if below.compatible:
        pair.result.add(below)
    rule = f"ITEM_ADDED_{'IS' if below.compatible else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
    pair.add(rule, None, place, name=name, why=below.why())


def _removed(pair: Pair, reader: Items, old: Node, index: int, place: str) -> Steps:
    name = str(index)
    if reader.is_open():
        pair.add("ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL", place, None, name=name)
        return
    standing_in = reader.standing_in()
    if standing_in is None:
        forbidden = "_WITH_FALSE" if old.kind == "nothing" else ""
        pair.add(f"ITEM{forbidden}_REMOVED_FROM_CLOSED_CONTENT_MODEL", place, None, name=name)
        return
    below = yield old, standing_in
    if below.compatible:
        pair.result.add(below)
    rule = f"ITEM_REMOVED_{'IS' if below.compatible else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
    pair.add(rule, place, None, name=name, why=below.why())
