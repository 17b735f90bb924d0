"""Rules on objects: content models, properties, required names, dependencies."""

from __future__ import annotations

from typing import Final

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.rules.comparison import LOOKS_PER_STEP, Pair, Steps
from services.registry.domain.formats.jsonschema.rules.nodes import Node
from services.registry.domain.formats.jsonschema.rules.scalars import limit
from services.registry.domain.formats.jsonschema.rules.words import shown

_DEPENDENCIES: Final = ("dependencies", "dependentRequired", "dependentSchemas")


def objects(pair: Pair) -> Steps:
    """Two objects."""
    limit(pair, "maxProperties", "MAX_PROPERTIES")
    limit(pair, "minProperties", "MIN_PROPERTIES")
    _required(pair)
    yield from _properties(pair)
    for keyword, rule in (
        ("additionalProperties", "ADDITIONAL_PROPERTIES"),
        ("unevaluatedProperties", "UNEVALUATED_PROPERTIES"),
    ):
        old, new = ((keyword, node.get(keyword, True)) for node in (pair.writer, pair.reader))
        yield from rest(pair, old, new, rule)
    _needed_names(pair)
    yield from _needed_schemas(pair)


def rest(pair: Pair, writer: tuple[str, Json], reader: tuple[str, Json], rule: str) -> Steps:
    """What keywords say of all that is not listed: nothing at all, anything, or a schema."""
    (old_keyword, old), (new_keyword, new) = writer, reader
    places = (
        pair.writer.place(old_keyword) if old_keyword in pair.writer else None,
        pair.reader.place(new_keyword) if new_keyword in pair.reader else None,
    )
    if (old is False) != (new is False):
        pair.add(f"{rule}_{'REMOVED' if new is False else 'ADDED'}", *places)
    elif isinstance(old, dict) and isinstance(new, dict):
        pair.result.add((yield pair.writer.child(old, old_keyword), pair.reader.child(new, new_keyword)))
    elif isinstance(new, dict) and pair.reader.child(new, new_keyword).kind == "anything":
        return  # `{}` is another way to write true, and a reader that accepts everything does no harm.
    elif isinstance(old, dict) or isinstance(new, dict):
        pair.add(f"{rule}_{'EXTENDED' if isinstance(old, dict) else 'NARROWED'}", *places)


def _required(pair: Pair) -> None:
    """Names that one of the two requires. Only those with an entry in `properties` of both count (a known hole)."""
    old, new = _names(pair.writer.get("required")), _names(pair.reader.get("required"))
    written, read = _map(pair.writer, "properties"), _map(pair.reader, "properties")
    for name in written:
        if name not in read or (name in old) == (name in new):
            continue
        if name in old:
            pair.add("REQUIRED_ATTRIBUTE_REMOVED", _index(pair.writer, "required", name), None, name=name)
            continue
        default = pair.reader.side.has_default(read[name])
        rule = "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED" if default else "REQUIRED_ATTRIBUTE_ADDED"
        pair.add(rule, None, _index(pair.reader, "required", name), name=name)


def _properties(pair: Pair) -> Steps:
    written, read = _map(pair.writer, "properties"), _map(pair.reader, "properties")
    pair.count((len(written) + len(read)) // LOOKS_PER_STEP)
    for name, new in read.items():
        if name in written:
            child = pair.writer.child(written[name], "properties", name)
            pair.result.add((yield child, pair.reader.child(new, "properties", name)))
        else:
            yield from _added(pair, name, new)
    for name, old in written.items():
        if name not in read:
            yield from _removed(pair, name, old)


def _added(pair: Pair, name: str, value: Json) -> Steps:
    """A property that the reader alone declares. What the writer may send under its name decides."""
    new = pair.reader.child(value, "properties", name)
    place = pair.reader.place("properties", name)
    required = name in _names(pair.reader.get("required"))
    default = pair.reader.side.has_default(value)
    need = "OPTIONAL_PROPERTY" if not required else "REQUIRED_PROPERTY_WITH_DEFAULT" if default else "REQUIRED_PROPERTY"
    if _is_open(pair.writer):
        if new.kind == "anything":
            pair.add("PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL", None, place, name=name)
        else:
            pair.add(f"{need}_ADDED_TO_OPEN_CONTENT_MODEL", None, place, name=name)
        return
    standing_in = _standing_in(pair, pair.writer, name)
    if standing_in is not None:
        below = yield standing_in, new
        if below.compatible:
            pair.result.add(below)
        pair.add(
            f"PROPERTY_ADDED_{'IS' if below.compatible else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
            None,
            place,
            name=name,
            why=below.why(),
        )
    pair.add(f"{need}_ADDED_TO_UNOPEN_CONTENT_MODEL", None, place, name=name)


def _removed(pair: Pair, name: str, value: Json) -> Steps:
    """A property that the writer alone declares. What the reader accepts under its name decides."""
    old = pair.writer.child(value, "properties", name)
    place = pair.writer.place("properties", name)
    if _is_open(pair.reader):
        pair.add("PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL", place, None, name=name)
        return
    standing_in = _standing_in(pair, pair.reader, name)
    if standing_in is None:
        forbidden = "WITH_FALSE_" if old.kind == "nothing" else ""
        pair.add(f"PROPERTY_{forbidden}REMOVED_FROM_CLOSED_CONTENT_MODEL", place, None, name=name)
        return
    below = yield old, standing_in
    if below.compatible:
        pair.result.add(below)
    pair.add(
        f"PROPERTY_REMOVED_{'IS' if below.compatible else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        place,
        None,
        name=name,
        why=below.why(),
    )


def _is_open(node: Node) -> bool:
    """Whether an object accepts any other property."""
    return (
        not _map(node, "patternProperties")
        and node.get("additionalProperties", True) is True
        and node.get("unevaluatedProperties", True) is True
    )


def _standing_in(pair: Pair, node: Node, name: str) -> Node | None:
    """The schema of a property that an object does not declare; None where it accepts none (or is taken to).

    The first pattern that matches, else additionalProperties, else unevaluatedProperties, if it is a schema. So an
    object with patterns of which none matches counts as closed, also when additionalProperties is true: a known quirk.
    """
    patterns = _map(node, "patternProperties")
    for pattern, value in patterns.items():
        pair.count(1)
        if node.side.matches(pattern, name):
            return node.child(value, "patternProperties", pattern)
    keyword = "additionalProperties" if "additionalProperties" in node else "unevaluatedProperties"
    value = node.get(keyword)
    return node.child(value, keyword) if isinstance(value, dict) else None


def _needed_names(pair: Pair) -> None:
    """Lists of names that must be present where another is."""
    old, new = _dependencies(pair.writer, lists=True), _dependencies(pair.reader, lists=True)
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        asked, asks = (None if found is None else _names(found[1]) for found in (before, after))
        if asked == asks:
            continue
        if asked is None or asks is None:
            end = "ADDED" if asked is None else "REMOVED"
        else:
            end = "EXTENDED" if asks >= asked else "NARROWED" if asked >= asks else "CHANGED"
        pair.add(
            f"DEPENDENCY_ARRAY_{end}",
            pair.writer.place(before[0], name) if before else None,
            pair.reader.place(after[0], name) if after else None,
            name=name,
            old=shown([*sorted(asked)]) if asked else "nothing",
            new=shown([*sorted(asks)]) if asks else "nothing",
        )


def _needed_schemas(pair: Pair) -> Steps:
    """Schemas of objects that have a name."""
    old, new = _dependencies(pair.writer, lists=False), _dependencies(pair.reader, lists=False)
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if before and after:
            child = pair.writer.child(before[1], before[0], name)
            pair.result.add((yield child, pair.reader.child(after[1], after[0], name)))
        elif before:
            pair.add("DEPENDENCY_SCHEMA_REMOVED", pair.writer.place(before[0], name), None, name=name)
        elif after:
            pair.add("DEPENDENCY_SCHEMA_ADDED", None, pair.reader.place(after[0], name), name=name)


def _dependencies(node: Node, *, lists: bool) -> dict[str, tuple[str, Json]]:
    """What an object asks for where a property is present, with the keyword: lists of names, or schemas.

    One property may have both. Where two keywords say the same kind of thing of one, the later one counts.
    """
    return {
        name: (keyword, value)
        for keyword in _DEPENDENCIES
        for name, value in _map(node, keyword).items()
        if isinstance(value, list) is lists
    }


def _map(node: Node, keyword: str) -> dict[str, Json]:
    value = node.get(keyword)
    return value if isinstance(value, dict) else {}


def _names(value: Json) -> frozenset[str]:
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()


def _index(node: Node, keyword: str, name: str) -> str:
    value = node.get(keyword)
    return node.place(keyword, value.index(name)) if isinstance(value, list) and name in value else node.path
