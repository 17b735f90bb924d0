"""JSON Schemas for tests: the real ones of installed packages, edits of them, and random ones. All by a given dice."""

from __future__ import annotations

import copy
import importlib.util
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

PACKAGES = ("check_jsonschema", "jsonschema_specifications", "setuptools")
TEXT_BYTES_MAX = 300_000
PIECES_PER_SCHEMA_MAX = 40
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"

Schema: TypeAlias = dict[str, Any]
_REFERENCE = re.compile(r'"\$ref": "#/(definitions|\$defs)/([^"/]+)')
_HOLDERS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def real_schemas() -> Iterator[tuple[str, Schema]]:
    """(name, schema) of every file in the packages that says it is a JSON Schema, but for the largest."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in sorted(Path(spec.origin).parent.rglob("*.json")):
            text = path.read_text(encoding="utf-8")
            if len(text) > TEXT_BYTES_MAX or '"$schema"' not in text:
                continue
            value = json.loads(text)
            if isinstance(value, dict) and "$schema" in value:
                yield f"{package}/{path.parent.name}/{path.name}", value


def pieces() -> Iterator[tuple[str, Schema]]:
    """Every real schema, and some of its definitions and properties as schemas of their own with what they refer to."""
    for name, schema in real_schemas():
        yield name, schema
        parts = [
            (f"{name}#{keyword}/{key}", part)
            for keyword in ("definitions", "$defs", "properties")
            for key, part in sorted(schema.get(keyword, {}).items())
            if isinstance(part, dict) and len(json.dumps(part)) > 60
        ]
        step = max(1, len(parts) // PIECES_PER_SCHEMA_MAX)
        for part_name, part in parts[::step]:
            yield part_name, _alone(part, schema)


def _alone(part: Schema, schema: Schema) -> Schema:
    """A part as a document, with the definitions that it needs."""
    found: Schema = {"$schema": schema["$schema"], **copy.deepcopy(part)}
    needed: dict[tuple[str, str], Any] = {}
    waiting = [part]
    while waiting:
        for keyword, key in _REFERENCE.findall(json.dumps(waiting.pop())):
            name = key.replace("~1", "/").replace("~0", "~")
            definition = schema.get(keyword, {}).get(name)
            if (keyword, name) not in needed and definition is not None:
                needed[keyword, name] = definition
                waiting.append(definition)
    for (keyword, key), definition in needed.items():
        found.setdefault(keyword, {})[key] = copy.deepcopy(definition)
    return found


def subschemas(schema: Any) -> Iterator[Schema]:
    """Every schema object in a schema, itself first."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in _HOLDERS:
        if isinstance(schema.get(keyword), dict):
            for item in schema[keyword].values():
                yield from subschemas(item)
    for keyword in (*_LISTS, "items"):
        if isinstance(schema.get(keyword), list):
            for item in schema[keyword]:
                yield from subschemas(item)
    for keyword in _SINGLE:
        yield from subschemas(schema.get(keyword))


Edit = Callable[[Schema, random.Random], bool]
_EDITS: dict[str, Edit] = {}


def _edit(function: Edit) -> Edit:
    _EDITS[function.__name__] = function
    return function


def edit_kinds() -> list[str]:
    """The names of all edits."""
    return sorted(_EDITS)


def mutated(schema: Schema, dice: random.Random) -> tuple[str, Schema] | None:
    """One edit at one place that can have it; None when none was found. The given schema is not changed."""
    for _ in range(40):
        changed = copy.deepcopy(schema)
        kind = dice.choice(edit_kinds())
        places = list(subschemas(changed))
        place = changed if kind == "rename_definition" else dice.choice(places)
        if _EDITS[kind](place, dice) and changed != schema:
            return kind, changed
    return None


def _some(items: Any, dice: random.Random) -> Any:
    return dice.choice(sorted(items)) if items else None


@_edit
def add_property(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict):
        return False
    place["properties"][f"added{dice.randrange(100)}"] = random_schema(dice, 1)
    return True


@_edit
def remove_property(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict) or not place["properties"]:
        return False
    del place["properties"][_some(place["properties"], dice)]
    return True


@_edit
def require_property(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict) or not place["properties"]:
        return False
    name = _some(place["properties"], dice)
    place["required"] = sorted({*place.get("required", []), name})
    return True


@_edit
def release_property(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("required"), list) or len(place["required"]) < 2:
        return False
    place["required"] = [name for name in place["required"] if name != _some(place["required"], dice)]
    return bool(place["required"])


@_edit
def rename_property(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict) or not place["properties"]:
        return False
    name = _some(place["properties"], dice)
    place["properties"][name + "_renamed"] = place["properties"].pop(name)
    return True


@_edit
def change_type(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("type"), str):
        return False
    place["type"] = dice.choice(TYPES)
    return True


@_edit
def widen_type(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("type"), str):
        return False
    place["type"] = sorted({place["type"], dice.choice(TYPES)})
    return len(place["type"]) > 1


@_edit
def nullable(place: Schema, dice: random.Random) -> bool:
    if "type" not in place or "$schema" in place:
        return False
    inner = dict(place)
    place.clear()
    place["anyOf"] = [inner, {"type": "null"}]
    return True


@_edit
def bound(place: Schema, dice: random.Random) -> bool:
    keywords = (
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    )
    present = [word for word in keywords if word in place] or list(keywords[:6])
    word = dice.choice(present)
    place[word] = max(0, int(place.get(word, 5)) + dice.choice((-3, -1, 1, 2, 10)))
    return True


@_edit
def remove_bound(place: Schema, dice: random.Random) -> bool:
    words = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "uniqueItems", "format")
    present = [word for word in words if word in place and not isinstance(place[word], dict)]
    if not present:
        return False
    del place[dice.choice(present)]
    return True


@_edit
def enum_add(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("enum"), list):
        return False
    place["enum"].append(f"added{dice.randrange(100)}")
    return True


@_edit
def enum_remove(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("enum"), list) or len(place["enum"]) < 2:
        return False
    place["enum"].pop(dice.randrange(len(place["enum"])))
    return True


@_edit
def const(place: Schema, dice: random.Random) -> bool:
    if isinstance(place.get("enum"), list) and place["enum"] and not isinstance(place.get("properties"), dict):
        place["const"] = place.pop("enum")[0]
        return True
    if "const" in place and not isinstance(place["const"], dict):
        place["enum"] = [place.pop("const"), "other"]
        return True
    return False


@_edit
def branch_add(place: Schema, dice: random.Random) -> bool:
    word = next((word for word in ("anyOf", "oneOf") if isinstance(place.get(word), list)), None)
    if word is None:
        return False
    place[word].insert(dice.randrange(len(place[word]) + 1), random_schema(dice, 1))
    return True


@_edit
def branch_remove(place: Schema, dice: random.Random) -> bool:
    word = next((word for word in ("anyOf", "oneOf", "allOf") if isinstance(place.get(word), list)), None)
    if word is None or len(place[word]) < 2:
        return False
    place[word].pop(dice.randrange(len(place[word])))
    return True


@_edit
def any_to_one(place: Schema, dice: random.Random) -> bool:
    for word, other in (("anyOf", "oneOf"), ("oneOf", "anyOf")):
        if word in place and other not in place:
            place[other] = place.pop(word)
            return True
    return False


@_edit
def pattern(place: Schema, dice: random.Random) -> bool:
    if place.get("type") != "string":
        return False
    place["pattern"] = dice.choice(("^[a-z]+$", "^a", "[0-9]", "^.{1,5}$"))
    return True


@_edit
def additional(place: Schema, dice: random.Random) -> bool:
    if place.get("type") != "object" and "properties" not in place:
        return False
    if place.get("additionalProperties") is False:
        place["additionalProperties"] = dice.choice((True, {"type": "string"}))
    else:
        place["additionalProperties"] = False
    return True


@_edit
def open_up(place: Schema, dice: random.Random) -> bool:
    return place.pop("additionalProperties", None) is not None


@_edit
def wrap_reference(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict) or not place["properties"] or "$schema" not in place:
        return False
    name = _some(place["properties"], dice)
    place.setdefault("definitions", {})["wrapped"] = place["properties"][name]
    place["properties"][name] = {"$ref": "#/definitions/wrapped"}
    return True


@_edit
def rename_definition(place: Schema, dice: random.Random) -> bool:
    for keyword in ("definitions", "$defs"):
        names = [name for name in place.get(keyword, {}) if re.fullmatch(r"[A-Za-z0-9_-]+", name)]
        if names:
            name = dice.choice(sorted(names))
            text = re.sub(rf'"#/{re.escape(keyword)}/{name}(?=["/])', f'"#/{keyword}/{name}_renamed', json.dumps(place))
            place.clear()
            place.update(json.loads(text))
            place[keyword][f"{name}_renamed"] = place[keyword].pop(name)
            return True
    return False


@_edit
def move_to_all_of(place: Schema, dice: random.Random) -> bool:
    words = [word for word in ("required", "enum", "pattern", "minLength", "properties", "type") if word in place]
    if not words or "allOf" in place or "additionalProperties" in place:
        return False
    word = dice.choice(words)
    place["allOf"] = [{word: place.pop(word)}]
    return True


@_edit
def items(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("items"), dict):
        return False
    place["items"] = dice.choice(({"type": "string"}, {"anyOf": [place["items"], {"type": "number"}]}, True))
    return True


@_edit
def unique(place: Schema, dice: random.Random) -> bool:
    if place.get("type") != "array":
        return False
    place["uniqueItems"] = not place.get("uniqueItems", False)
    return True


@_edit
def format_change(place: Schema, dice: random.Random) -> bool:
    if place.get("type") != "string":
        return False
    place["format"] = dice.choice(("uri", "date", "email"))
    return True


@_edit
def dependent(place: Schema, dice: random.Random) -> bool:
    if not isinstance(place.get("properties"), dict) or len(place["properties"]) < 2:
        return False
    one, other = dice.sample(sorted(place["properties"]), 2)
    place["dependencies"] = {one: [other]}
    return True


@_edit
def describe(place: Schema, dice: random.Random) -> bool:
    place["description"] = f"described {dice.randrange(1000)}"
    return "$ref" not in place


def random_schema(dice: random.Random, depth: int) -> Any:
    """A small schema of 2020-12 that uses any of its validation keywords, with few names and numbers."""
    if depth <= 0:
        return dice.choice(
            (
                True, {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"const": "a"},
                {"enum": ["a", "b", 1]}, {"type": "null"}, {"minLength": 2}, {"minimum": 1}, {"maximum": 2}, False,
                {"type": "array"}, {"type": "object"}, {"const": 1}, {"const": 1.0}, {"const": True}, {"multipleOf": 2},
                {"type": ["string", "null"]}, {"type": "integer", "minimum": 0, "maximum": 3}, {"pattern": "^a"},
            )
        )  # fmt: skip
    found: Schema = {}
    for word in dice.sample(sorted(_RANDOM), dice.choice((1, 1, 2, 2, 3, 4))):
        found[word] = _RANDOM[word](dice, depth - 1)
    return found


def _names(dice: random.Random) -> list[str]:
    return dice.sample(("a", "b", "c", "xa"), dice.choice((1, 1, 2)))


def _named(dice: random.Random, depth: int) -> Schema:
    return {name: random_schema(dice, depth) for name in _names(dice)}


def _listed(dice: random.Random, depth: int) -> list[Any]:
    return [random_schema(dice, depth) for _ in range(dice.choice((1, 2, 2, 3)))]


_RANDOM: dict[str, Callable[[random.Random, int], Any]] = {
    "type": lambda dice, _: dice.choice(
        (*TYPES, "object", "object", "array", ["object", "string"], ["integer", "null"])
    ),
    "enum": lambda dice, _: dice.choice((["a", "b"], [1, 2, "a"], [{"a": 1}, {}], [[], [1]], [None, True, 1])),
    "const": lambda dice, _: dice.choice(("a", 1, 1.0, True, None, {"a": 1}, [1])),
    "minimum": lambda dice, _: dice.choice((0, 1, 1.5, -1)),
    "maximum": lambda dice, _: dice.choice((0, 1, 2.5, 3)),
    "exclusiveMinimum": lambda dice, _: dice.choice((0, 1)),
    "exclusiveMaximum": lambda dice, _: dice.choice((2, 3)),
    "multipleOf": lambda dice, _: dice.choice((1, 2, 0.5, 3)),
    "minLength": lambda dice, _: dice.choice((0, 1, 2)),
    "maxLength": lambda dice, _: dice.choice((0, 1, 3)),
    "pattern": lambda dice, _: dice.choice(("^a", "b$", "^[ab]*$", ".")),
    "minItems": lambda dice, _: dice.choice((0, 1, 2)),
    "maxItems": lambda dice, _: dice.choice((0, 1, 2)),
    "uniqueItems": lambda dice, _: dice.choice((True, False)),
    "items": random_schema,
    "prefixItems": _listed,
    "contains": random_schema,
    "minContains": lambda dice, _: dice.choice((0, 1, 2)),
    "maxContains": lambda dice, _: dice.choice((0, 1, 2)),
    "unevaluatedItems": random_schema,
    "minProperties": lambda dice, _: dice.choice((0, 1, 2)),
    "maxProperties": lambda dice, _: dice.choice((0, 1, 2)),
    "required": lambda dice, _: _names(dice),
    "properties": _named,
    "patternProperties": lambda dice, depth: {dice.choice(("^x", "a", "^a$")): random_schema(dice, depth)},
    "additionalProperties": random_schema,
    "propertyNames": lambda dice, _: dice.choice(({"maxLength": 1}, {"pattern": "^[abc]"}, {"enum": ["a", "b"]})),
    "dependentRequired": lambda dice, _: {dice.choice(("a", "b")): _names(dice)},
    "dependentSchemas": _named,
    "unevaluatedProperties": random_schema,
    "allOf": _listed,
    "anyOf": _listed,
    "oneOf": _listed,
    "not": random_schema,
    "if": random_schema,
    "then": random_schema,
    "else": random_schema,
}


def random_pair(dice: random.Random) -> tuple[Any, Any]:
    """Two random schemas that have something to do with each other: edited, widened or joined."""
    first = random_schema(dice, 2)
    match dice.randrange(6):
        case 0:
            return first, random_schema(dice, 2)
        case 1:
            return {"anyOf": [first, random_schema(dice, 1)]}, first
        case 2:
            return first, {"allOf": [first, random_schema(dice, 1)]}
        case 3:
            return {"$defs": {"t": first}, "$ref": "#/$defs/t"}, first
    wrapped = {"type": "object", "properties": {"a": first, "c": {"$ref": "#"}}}
    if dice.random() < 0.3:
        first = wrapped
    second = copy.deepcopy(first)
    for _ in range(dice.choice((1, 1, 2))):
        if isinstance(second, dict):
            edited = mutated(second, dice)
            second = edited[1] if edited is not None else second
    return (first, second) if dice.random() < 0.5 else (second, first)


def random_values(dice: random.Random, count: int) -> Iterator[Any]:
    """Values that such schemas may accept, without regard to any one of them."""
    for _ in range(count):
        yield _value(dice, 3)


_SCALARS = (None, True, False, 0, 1, 1.0, 2, 3, -1, 0.5, 1.5, 2.5, 6, "", "a", "b", "ab", "aab", "x", "xa", "other")


def _value(dice: random.Random, depth: int) -> Any:
    shape = dice.random()
    if depth <= 0 or shape < 0.3:
        return dice.choice(_SCALARS)
    if shape < 0.5:
        return [_value(dice, depth - 1) for _ in range(dice.choice((0, 1, 1, 2, 2, 3)))]
    names = ("a", "b", "c", "xa", "x1", "d", "added1", "a_renamed", "ba")
    return {dice.choice(names): _value(dice, depth - 1) for _ in range(dice.choice((0, 1, 1, 2, 2, 3)))}
