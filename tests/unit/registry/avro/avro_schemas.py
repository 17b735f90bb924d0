"""Random valid Avro schemas, and data that is valid for them by construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
BYTES = st.text(st.characters(max_codepoint=255), max_size=5)
TEXT = st.text(max_size=5)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    "bytes": BYTES,
    "string": TEXT,
}
LOGICAL: list[dict[str, Any]] = [
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2},
    {"type": "string", "logicalType": "uuid"},
    {"type": "string", "logicalType": "nobody-knows"},
]
DEPTH_MAX = 4


@dataclass
class Scope:
    """What has been defined so far. complete: definitions by full name that data may be made for."""

    draw: st.DrawFn
    names: list[str] = field(default_factory=list)
    complete: dict[str, Any] = field(default_factory=dict)


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    """A valid schema: all kinds, nested, recursive through unions, with defaults, aliases, orders and docs."""
    return _schema(Scope(draw), 0, "")


@st.composite
def schemas_with_data(draw: st.DrawFn) -> tuple[Any, Any]:
    """A valid schema, and a value in its JSON encoding."""
    scope = Scope(draw)
    schema = _schema(scope, 0, "")
    return schema, data(scope, schema, "", 0)


def respelled(schema: Any) -> Any:
    """The same meaning in other words: members turned round, full names, no docs, metadata, primitives as objects."""
    if isinstance(schema, list):
        return [respelled(branch) for branch in schema]
    if isinstance(schema, str):
        return {"type": schema, "comment": "x"}
    members = {name: value for name, value in reversed(schema.items()) if name not in ("doc", "namespace")}
    if "namespace" in schema:
        members["name"] = _name(schema)
    if "aliases" in schema:
        members["aliases"] = [f"{schema['namespace']}.{alias}" for alias in reversed(schema["aliases"])]
    for inner in members.keys() & {"items", "values"}:
        members[inner] = respelled(members[inner])
    if "fields" in members:
        members["fields"] = [{"hint": 1, **one, "type": respelled(one["type"])} for one in members["fields"]]
    return {**members, "comment": [1, {"a": None}]}


def data(scope: Scope, schema: Any, space: str, depth: int) -> Any:
    """A value that is valid for a schema."""
    if isinstance(schema, list):
        branch = schema[0] if depth > DEPTH_MAX else scope.draw(st.sampled_from(schema))
        return None if branch == "null" else {_label(branch, space): data(scope, branch, space, depth + 1)}
    if isinstance(schema, str):
        if schema in SCALARS:
            return scope.draw(SCALARS[schema])
        full = _full(schema, space)
        return data(scope, scope.complete[full], space, depth)
    kind = schema["type"]
    count = 0 if depth > DEPTH_MAX else scope.draw(st.integers(0, 2))
    match kind:
        case "array":
            return [data(scope, schema["items"], space, depth + 1) for _ in range(count)]
        case "map":
            return {f"k{i}": data(scope, schema["values"], space, depth + 1) for i in range(count)}
        case "enum":
            return scope.draw(st.sampled_from(schema["symbols"]))
        case "fixed":
            return "\xfe" * schema["size"]
        case "record":
            inner = schema["namespace"]
            return {one["name"]: data(scope, one["type"], inner, depth + 1) for one in schema["fields"]}
    return scope.draw(SCALARS[kind])


def _schema(scope: Scope, depth: int, space: str, *, in_union: bool = False) -> Any:
    simple = ["primitive", "logical", "enum", "fixed", *(["used"] if scope.complete else [])]
    nested = ["array", "map", "record", *([] if in_union else ["union"])]
    kind = scope.draw(st.sampled_from(simple if depth >= DEPTH_MAX else simple + nested * 2))
    match kind:
        case "primitive":
            name = scope.draw(st.sampled_from(PRIMITIVES))
            return scope.draw(st.sampled_from([name, {"type": name, "owner": "x"}]))
        case "logical":
            return dict(scope.draw(st.sampled_from(LOGICAL)))
        case "used":
            return scope.draw(st.sampled_from(sorted(scope.complete)))
        case "array":
            return {"type": "array", "items": _schema(scope, depth + 1, space)}
        case "map":
            return {"type": "map", "values": _schema(scope, depth + 1, space)}
        case "union":
            return _union(scope, depth, space)
        case "record":
            return _record(scope, depth)
    return _leaf(scope, kind)


def _leaf(scope: Scope, kind: str) -> dict[str, Any]:
    """An enum or a fixed."""
    schema = _named(scope, kind)
    if kind == "enum":
        schema["symbols"] = scope.draw(st.lists(st.sampled_from("ABCDEF"), min_size=1, max_size=4, unique=True))
        if scope.draw(st.booleans()):
            schema["default"] = schema["symbols"][-1]
    else:
        schema["size"] = scope.draw(st.sampled_from([0, 1, 12, 16]))
    scope.complete[_name(schema)] = schema
    return schema


def _record(scope: Scope, depth: int) -> dict[str, Any]:
    schema = _named(scope, "record")
    space = schema["namespace"]
    schema["fields"] = []
    for i in range(scope.draw(st.integers(0, 3))):
        own = {"name": f"f{i}", "type": _schema(scope, depth + 1, space)}
        if scope.draw(st.booleans()):
            own["order"] = scope.draw(st.sampled_from(["ascending", "descending", "ignore"]))
        if scope.draw(st.booleans()):
            own["aliases"] = [f"old{i}"]
        if isinstance(own["type"], list) and own["type"][0] == "null" and scope.draw(st.booleans()):
            own["default"] = None
        if own["type"] == "int":
            own["default"] = scope.draw(SCALARS["int"])
        schema["fields"].append(own)
    if scope.draw(st.booleans()):
        schema["fields"].append({"name": "self", "type": ["null", schema["name"]], "default": None})
    scope.complete[_name(schema)] = schema
    return schema


def _named(scope: Scope, kind: str) -> dict[str, Any]:
    """A definition under a new name, always in a namespace: names of the null one have no way to be written within."""
    name, space = f"T{len(scope.names)}", scope.draw(st.sampled_from(["x", "y.z"]))
    scope.names.append(f"{space}.{name}")
    schema: dict[str, Any] = {"type": kind, "name": name, "namespace": space}
    if scope.draw(st.booleans()):
        schema |= {"doc": scope.draw(TEXT), "aliases": [f"Old{name}"]}
    return schema


def _union(scope: Scope, depth: int, space: str) -> list[Any]:
    branches: dict[str, Any] = {"null": "null"} if scope.draw(st.booleans()) else {}
    for _ in range(scope.draw(st.integers(0 if branches else 1, 3))):
        known = dict(scope.complete)
        branch = _schema(scope, depth + 1, space, in_union=True)
        if branches.setdefault(_label(branch, space), branch) is not branch:
            scope.complete = known  # What a branch defines that is left out as a duplicate is not defined.
    return list(branches.values())


def _label(branch: Any, space: str) -> str:
    if isinstance(branch, str):
        return branch if branch in SCALARS else _full(branch, space)
    kind: str = branch["type"]
    return _name(branch) if "name" in branch else kind


def _name(schema: dict[str, Any]) -> str:
    return f"{schema['namespace']}.{schema['name']}"


def _full(name: str, space: str) -> str:
    return name if "." in name else f"{space}.{name}"
