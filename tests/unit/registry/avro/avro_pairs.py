"""Pairs of schemas, one made from the other by a few edits, and values of any schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.avro.language import ParsedAvro
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.values import Chosen, Meant, Smallest, Value
from tests.unit.registry.avro.avro_schemas import LOGICAL, PRIMITIVES, schemas

T = TypeVar("T")
FORMAT = Avro()
EDITS_MAX = 3
DEPTH_MAX = 8
NUMBERS = [0, 1, -1, 63, 64, -65, 2**24 + 1, 86_400_000, 2**31 - 1, -(2**31)]
LARGE = [2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63)]
UUID = "123e4567-e89b-12d3-a456-426614174000"
NEW: list[Any] = [
    *PRIMITIVES,
    *LOGICAL,
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 3},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    ["null", "int"],
    ["float", "long"],
    ["string", "bytes"],
]


class Draw(Protocol):
    """Takes an example from a strategy."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


@st.composite
def pairs(draw: st.DrawFn) -> tuple[ParsedAvro, ParsedAvro]:
    """A schema, and the same after one to EDITS_MAX edits, in either order."""
    text = draw(schemas())
    one, other = FORMAT.parse(json.dumps(text), {}), None
    edited = copy.deepcopy(text)
    for _ in range(draw(st.integers(1, EDITS_MAX))):
        before = copy.deepcopy(edited)
        edited = _edit(draw, edited)
        try:
            other = FORMAT.parse(json.dumps(edited), {})
        except InvalidSchema:
            edited = before
    other = other or FORMAT.parse(json.dumps(edited), {})
    return draw(st.sampled_from([(one, other), (other, one)]))


def value(draw: Draw, schema: Schema) -> Value:
    """A value that a writer with the schema may write, which its logical types accept. Raises TooLarge for none."""
    return _value(draw, schema, schema.root, Smallest(schema), 0)


def plain(item: Value) -> Any:
    """A value as the libraries hold it: without the branches of unions."""
    match item:
        case Chosen(value=inner) | Meant(value=inner):
            return plain(inner)
        case list():
            return [plain(one) for one in item]
        case dict():
            return {name: plain(one) for name, one in item.items()}
    return item


def _value(draw: Draw, schema: Schema, use: Type | Definition, smallest: Smallest, depth: int) -> Value:
    item = schema.resolve(use)
    if depth > DEPTH_MAX or smallest.count(item) > 10_000:
        return smallest.value(item)
    count = draw(st.integers(0, 2)) if isinstance(item, Array | Map) else 0
    match item:
        case Union(branches=branches):
            able = [index for index, one in enumerate(branches) if smallest.count(one) <= 10_000]
            index = draw(st.sampled_from(able))
            return Chosen(index, _value(draw, schema, branches[index], smallest, depth + 1))
        case Record(fields=fields):
            return {one.name: _value(draw, schema, one.type, smallest, depth + 1) for one in fields}
        case Array(items=inner):
            return [_value(draw, schema, inner, smallest, depth + 1) for _ in range(count)]
        case Map(values=inner):
            return {f"k{index}é": _value(draw, schema, inner, smallest, depth + 1) for index in range(count)}
        case Enum(symbols=symbols):
            return draw(st.sampled_from(symbols))
        case Fixed(size=size, logical=annotation):
            return (
                bytes(size - 1) + b"\x07"
                if size and annotation
                else draw(st.sampled_from([bytes(size), b"\xfe" * size]))
            )
        case Primitive():
            return _scalar(draw, item)


def _scalar(draw: Draw, item: Primitive) -> Value:
    name = item.logical.name if item.logical else ""
    match item.kind:
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "int" | "long" if name:
            return draw(st.sampled_from([0, 1, 63, 2_932_896]))
        case "int":
            return draw(st.sampled_from(NUMBERS))
        case "long":
            return draw(st.sampled_from(NUMBERS + LARGE))
        case "float":
            return draw(st.floats(width=32))
        case "double":
            return draw(st.floats())
        case "string":
            return UUID if name else draw(st.sampled_from(["", "a", "é\U0001f600", UUID, "x" * 70]))
    return draw(st.sampled_from([b"\x01", b"\x0f\x00"] if name else [b"", b"\xff", b"abc", b"\xc3\xa9", b"\x00" * 70]))


def _edit(draw: st.DrawFn, text: Any) -> Any:
    """The text with one place changed; perhaps no valid schema any more."""
    holder = {"type": text}
    owner, key = draw(st.sampled_from(list(_places(holder, "type"))))
    item = owner[key]
    if isinstance(item, str) or draw(st.integers(0, 5)) == 0:
        owner[key] = _new(draw, [*NEW, ["null", item]])
    elif isinstance(item, list):
        _edit_union(draw, item)
    else:
        _edit_object(draw, item)
    return holder["type"]


def _new(draw: st.DrawFn, items: list[Any]) -> Any:
    return copy.deepcopy(draw(st.sampled_from(items)))


def _places(owner: Any, key: Any) -> Iterator[tuple[Any, Any]]:
    """Where types stand, as a container and a key."""
    item = owner[key]
    yield owner, key
    if isinstance(item, list):
        for index in range(len(item)):
            yield from _places(item, index)
    elif isinstance(item, dict):
        for inner in item.keys() & {"items", "values"}:
            yield from _places(item, inner)
        for one in item.get("fields", ()):
            yield from _places(one, "type")


def _edit_union(draw: st.DrawFn, item: list[Any]) -> None:
    match draw(st.sampled_from(["add", "remove", "turn"])):
        case "add":
            item.insert(draw(st.integers(0, len(item))), _new(draw, [*PRIMITIVES, *LOGICAL]))
        case "remove" if item:
            del item[draw(st.integers(0, len(item) - 1))]
        case _:
            item.reverse()


def _edit_object(draw: st.DrawFn, item: dict[str, Any]) -> None:
    match item["type"]:
        case "record":
            _edit_record(draw, item)
        case "enum":
            _edit_enum(draw, item)
        case "fixed":
            item["size"] = draw(st.sampled_from([0, 1, 2, 12, 16]))
            if draw(st.booleans()):
                item |= draw(
                    st.sampled_from([{"logicalType": "duration"}, {"logicalType": "uuid"}, {"namespace": "q"}])
                )
        case "array" | "map":
            item[{"array": "items", "map": "values"}[item["type"]]] = _new(draw, NEW)
        case _:
            replaced = draw(st.sampled_from([{"type": item["type"]}, *LOGICAL]))
            item.clear()
            item |= replaced


def _edit_record(draw: st.DrawFn, item: dict[str, Any]) -> None:
    fields = item["fields"]
    index = draw(st.integers(0, max(0, len(fields) - 1)))
    match draw(st.sampled_from(["add", "default", "remove", "rename", "alias", "turn", "space", "name"])):
        case "add":
            fields.insert(index, {"name": "new", "type": _new(draw, NEW)})
        case "default":
            fields.insert(
                index,
                draw(
                    st.sampled_from(
                        [
                            {"name": "n1", "type": "int", "default": 3},
                            {"name": "n2", "type": ["null", "string"], "default": None},
                            {"name": "n3", "type": {"type": "string", "logicalType": "uuid"}, "default": "x"},
                            {"name": "n4", "type": {"type": "map", "values": "double"}, "default": {"a": 1}},
                        ]
                    )
                ),
            )
        case "remove" if fields:
            del fields[index]
        case "rename" if fields:
            fields[index] |= {"name": "renamed", "aliases": [fields[index]["name"]]}
        case "alias" if len(fields) > 1:
            fields[0]["aliases"] = [fields.pop()["name"]]
        case "space":
            item["namespace"] = "q"
        case "name":
            item["name"] = "Other"
        case _:
            fields.reverse()


def _edit_enum(draw: st.DrawFn, item: dict[str, Any]) -> None:
    match draw(st.sampled_from(["add", "remove", "default", "none", "turn"])):
        case "add":
            item["symbols"].append("NEW")
        case "remove":
            del item["symbols"][-1:]
        case "default":
            item["default"] = item["symbols"][0] if item["symbols"] else "X"
        case "none":
            item.pop("default", None)
        case _:
            item["symbols"].reverse()
    if item.get("default") not in item["symbols"]:
        item.pop("default", None)
