"""Random JSON Schemas of every draft, their rewritings, and data that they tell apart."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]
NAMES = ["a", "b", "ab", "é"]
TYPES = ["string", "integer", "number", "boolean", "null", "object", "array"]
SCALARS: list[Any] = [None, True, False, 0, 1, 2, 3, 1.0, 1.5, -1, "", "a", "ab", "abc"]
DEPTH_MAX = 3

VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def schemas(draw: st.DrawFn, draft: str | None = None) -> dict[str, Any]:
    """A valid schema that names its draft, with definitions that it may refer to, also in odd places."""
    chosen = draft or draw(st.sampled_from(DRAFTS))
    level = DRAFTS.index(chosen)
    root = _object(draw, level, 0)
    root["definitions"] = {
        name: _schema(draw, level, 2) for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    }
    root["definitions"]["leaf"] = {"minLength": 1}
    return {"$schema": chosen, **root}


def _schema(draw: st.DrawFn, level: int, depth: int) -> Any:
    if level > 0 and draw(st.integers(0, 9)) == 0:
        return draw(st.booleans())
    return _object(draw, level, depth)


def _object(draw: st.DrawFn, level: int, depth: int) -> dict[str, Any]:
    keywords = _plain(level) if depth >= DEPTH_MAX else {**_plain(level), **_nested(level, depth)}
    chosen = draw(st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True))
    schema = {keyword: draw(keywords[keyword]) for keyword in chosen}
    if level == 0:
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            if name in schema:
                schema.setdefault(name.removeprefix("exclusive").lower(), 1)
    return schema


def _plain(level: int) -> dict[str, st.SearchStrategy[Any]]:
    """Keywords without subschemas."""
    small, number = st.integers(0, 3), st.sampled_from([0, 1, 2, 1.5, -1])
    names = st.lists(st.sampled_from(NAMES), min_size=level == 0, max_size=3, unique=True)
    values = st.lists(st.sampled_from(SCALARS), min_size=1, max_size=4, unique_by=repr)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
        "enum": values.filter(lambda found: len({(isinstance(v, bool), v) for v in found}) == len(found)),
        "minLength": small,
        "maxLength": small,
        "pattern": st.sampled_from(["^a", "b$"]),
        "minimum": number,
        "maximum": number,
        "exclusiveMinimum": st.booleans() if level == 0 else number,
        "exclusiveMaximum": st.booleans() if level == 0 else number,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "required": names,
        "minProperties": small,
        "maxProperties": small,
        "minItems": small,
        "maxItems": small,
        "uniqueItems": st.booleans(),
        "format": st.sampled_from(["ipv4", "unknown"]),
        "title": st.just("t"),
        "description": st.just("d"),
        "default": st.sampled_from(SCALARS),
        "x-unknown": st.just({"minLength": 1}),
        "const": st.sampled_from(SCALARS),
        "minContains": small,
        "maxContains": small,
        "dependentRequired": st.dictionaries(st.sampled_from(NAMES), names, max_size=2),
        "$ref": st.sampled_from(["#/definitions/leaf", "#/definitions/leaf/minLength/../x"][:1]),
        "$comment": st.just("c"),
        "examples": st.just([1]),
    }
    return keywords


def _nested(level: int, depth: int) -> dict[str, st.SearchStrategy[Any]]:
    """Keywords with subschemas."""

    @st.composite
    def below(draw: st.DrawFn) -> Any:
        return _schema(draw, level, depth + 1)

    branches = st.lists(below(), min_size=1, max_size=3)
    members = st.dictionaries(st.sampled_from(NAMES), below(), max_size=3)
    rest = st.booleans() | below()
    single = {name: below() for name in ("not", "contains", "propertyNames", "if", "then", "else", "unevaluatedItems")}
    return {
        **single,
        "allOf": branches,
        "anyOf": branches,
        "oneOf": branches,
        "properties": members,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), below(), max_size=2),
        "additionalProperties": rest,
        "unevaluatedProperties": below(),
        "additionalItems": rest,
        "items": below() if level == 4 else below() | branches,
        "prefixItems": branches,
        "dependentSchemas": members,
        "dependencies": members,
    }


@st.composite
def rewritten(draw: st.DrawFn, schema: Any) -> Any:
    """The same meaning in other words: orders, annotations, no-ops, notations."""
    changed = _rewrite(draw, copy.deepcopy(schema))
    assert isinstance(changed, dict)
    return changed


SUBSCHEMAS = ["not", "contains", "propertyNames", "if", "then", "else", "unevaluatedItems", "additionalProperties"]
SUBSCHEMAS += ["unevaluatedProperties", "additionalItems", "items"]
MAPS = ["properties", "patternProperties", "dependentSchemas", "definitions", "dependencies"]


def _rewrite(draw: st.DrawFn, schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    for keyword, value in list(schema.items()):
        if keyword in SUBSCHEMAS and isinstance(value, dict):
            schema[keyword] = _rewrite(draw, value)
        elif keyword in MAPS:
            schema[keyword] = {name: _rewrite(draw, item) for name, item in value.items()}
        elif keyword in ("allOf", "anyOf", "oneOf"):
            schema[keyword] = draw(st.permutations([_rewrite(draw, item) for item in value]))
        elif keyword in ("required", "enum") or (keyword == "type" and isinstance(value, list)):
            schema[keyword] = draw(st.permutations(value))
        elif keyword == "minLength" and draw(st.booleans()):
            schema[keyword] = value
    for name, value in (("description", "other"), ("uniqueItems", False), ("minItems", 0), ("title", "x")):
        if draw(st.integers(0, 3)) == 0:
            schema.setdefault(name, value) if name in ("uniqueItems", "minItems") else schema.update({name: value})
    if isinstance(schema.get("type"), str) and draw(st.booleans()):
        schema["type"] = [schema["type"]]
    return {name: schema[name] for name in draw(st.permutations(list(schema)))}
