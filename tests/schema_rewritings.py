"""Pairs of JSON Schemas that mean nearly the same: one schema, written twice with its keywords moved about.

Keywords are split over `allOf`, `$ref`, `if`, `anyOf`, `oneOf` and double negations, and replaced by others that say
the same; then often one small thing is changed. Whether a rewriting keeps the meaning is not relied on: verdicts are
judged by instances. All by a given dice.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from tests import schema_mutations

Schema: TypeAlias = dict[str, Any]
Definitions: TypeAlias = dict[str, Any]

NAMES: Final = ("a", "b", "ab", "c")
PATTERNS: Final = ("^a", "b$", "^c$", ".")
TEXTS: Final = ("", "a", "b", "ab", "abb", "é", "😀a", "c")
NUMBERS: Final = (0, 1, 1.0, 2, 3, -1, 0.5, 2.5, 4, 1e1)
TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
TOGETHER: Final = (
    {"properties", "patternProperties", "additionalProperties"},
    {"prefixItems", "items"},
    {"contains", "minContains", "maxContains"},
    {"if", "then", "else"},
)
"""Keywords of which one changes what another says."""


def near_pair(dice: random.Random) -> tuple[Schema, Schema]:
    """A reader and a writer, each a rewriting of one schema; three in four times one of them changed a little."""
    schema = base(dice, 3)
    pair = [_document(schema, dice), _document(schema, dice)]
    if dice.random() < 0.75:
        side = dice.randrange(2)
        changed = schema_mutations.mutated(pair[side], dice)
        if changed is not None:
            pair[side] = changed[1]
    return pair[0], pair[1]


def _document(schema: Schema, dice: random.Random) -> Schema:
    definitions: Definitions = {}
    found: Schema = rewritten(copy.deepcopy(schema), dice, definitions, dice.choice((1, 2, 4)))
    if "$defs" not in found and definitions:
        return {**found, "$defs": definitions}
    return found


def base(dice: random.Random, depth: int) -> Any:
    """A small schema over few names, texts and numbers, so that everything touches everything."""
    if depth == 0:
        return dice.choice((True, False, {"type": dice.choice(TYPES)}, {"const": dice.choice((*TEXTS, *NUMBERS))}))
    makers = dice.sample(_MAKERS, k=dice.choice((1, 1, 2, 3)))
    found: Schema = {}
    for make in makers:
        found |= make(dice, depth - 1)
    return found


def _objects(dice: random.Random, depth: int) -> Schema:
    found: Schema = {"properties": {name: base(dice, depth) for name in dice.sample(NAMES, k=dice.randint(1, 2))}}
    if dice.random() < 0.7:
        found["type"] = "object"
    if dice.random() < 0.4:
        found["patternProperties"] = {dice.choice(PATTERNS): base(dice, depth)}
    if dice.random() < 0.4:
        found["additionalProperties"] = dice.choice((False, base(dice, depth)))
    if dice.random() < 0.5:
        found["required"] = dice.sample(NAMES, k=dice.randint(1, 2))
    return found


def _sizes(dice: random.Random, _: int) -> Schema:
    low = dice.randint(0, 2)
    what = dice.choice(("Properties", "Items", "Length"))
    return {f"min{what}": low, f"max{what}": low + dice.randint(0, 2)}


def _arrays(dice: random.Random, depth: int) -> Schema:
    found: Schema = {"items": base(dice, depth)}
    if dice.random() < 0.4:
        found["prefixItems"] = [base(dice, depth)]
    if dice.random() < 0.4:
        found |= {"contains": base(dice, depth), "minContains": dice.randint(0, 2), "maxContains": dice.randint(1, 3)}
    if dice.random() < 0.3:
        found["uniqueItems"] = True
    if dice.random() < 0.5:
        found["type"] = "array"
    return found


def _numbers(dice: random.Random, _: int) -> Schema:
    found: Schema = {"type": dice.choice(("number", "integer")), "minimum": dice.choice(NUMBERS)}
    if dice.random() < 0.5:
        found[dice.choice(("maximum", "exclusiveMaximum"))] = dice.choice(NUMBERS)
    if dice.random() < 0.4:
        found["multipleOf"] = dice.choice((1, 2, 0.5, 3, 0.1))
    return found


def _texts(dice: random.Random, _: int) -> Schema:
    return {"type": "string", "pattern": dice.choice(PATTERNS), "maxLength": dice.randint(0, 3)}


def _values(dice: random.Random, _: int) -> Schema:
    return {"enum": dice.sample((*TEXTS, None, True, 1, 2, 2.5, [1], [1.0, True], {"a": 1, "b": 2}), k=4)}


def _branches(dice: random.Random, depth: int) -> Schema:
    return {dice.choice(("anyOf", "oneOf")): [base(dice, depth) for _ in range(dice.randint(2, 3))]}


def _tagged(dice: random.Random, depth: int) -> Schema:
    names = dice.sample(TEXTS, k=2)
    return {
        "oneOf": [
            {"type": "object", "required": ["a"], "properties": {"a": {"const": name}, "b": base(dice, depth)}}
            for name in names
        ]
    }


def _conditions(dice: random.Random, depth: int) -> Schema:
    found: Schema = {"if": base(dice, depth)}
    found |= {"then": base(dice, depth)} if dice.random() < 0.8 else {}
    return found | ({"else": base(dice, depth)} if dice.random() < 0.6 else {})


def _dependents(dice: random.Random, depth: int) -> Schema:
    if dice.random() < 0.5:
        return {"dependentRequired": {dice.choice(NAMES): dice.sample(NAMES, k=1)}}
    return {"dependentSchemas": {dice.choice(NAMES): base(dice, depth)}}


def _negation(dice: random.Random, depth: int) -> Schema:
    return {"not": base(dice, depth)}


def _unevaluated(dice: random.Random, depth: int) -> Schema:
    inner = _objects(dice, depth) if dice.random() < 0.7 else _arrays(dice, depth)
    inner.pop("additionalProperties", None)
    word = "unevaluatedProperties" if "properties" in inner else "unevaluatedItems"
    return {dice.choice(("allOf", "anyOf")): [inner, base(dice, depth)], word: dice.choice((False, base(dice, depth)))}


def _names(dice: random.Random, _: int) -> Schema:
    return {"propertyNames": dice.choice(({"enum": list(NAMES[:2])}, {"pattern": "^a"}, {"maxLength": 1}))}


def _recursion(dice: random.Random, depth: int) -> Schema:
    """A list or tree that ends with what `base` says."""
    own = base(dice, depth)
    step = dice.choice(NAMES)
    again = dice.choice(("anyOf", "oneOf"))
    return {again: [own, {"type": "object", "properties": {step: {"$ref": "#"}}}]}


_MAKERS: Final = (
    *(_objects, _objects, _sizes, _arrays, _numbers, _texts, _values, _branches, _tagged, _conditions),
    *(_dependents, _negation, _unevaluated, _names, _recursion),
)


def rewritten(schema: Any, dice: random.Random, definitions: Definitions, count: int) -> Any:
    """The schema with so many rewritings at random places. definitions: where those that are moved away are put."""
    for _ in range(count):
        places = [place for place in schema_mutations.subschemas(schema) if "$ref" not in place]
        if not places:
            break
        place = dice.choice(places)
        kept = {"$defs": place.pop("$defs")} if "$defs" in place else {}
        changed = dice.choice(_REWRITINGS)(copy.deepcopy(place), dice, definitions)
        place.clear()
        place.update(changed)
        place.update(kept)
    return schema


def _split(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    """Its keywords shared out among the schema and an `allOf`."""
    moved: Schema = {}
    for word in list(schema):
        group = next((group for group in TOGETHER if word in group), {word})
        if word in schema and not word.startswith("unevaluated") and dice.random() < 0.6:
            moved |= {item: schema.pop(item) for item in list(schema) if item in group}
    return {**schema, "allOf": [*schema.get("allOf", []), moved]}


def _referred(schema: Schema, dice: random.Random, definitions: Definitions) -> Schema:
    name = f"d{len(definitions)}"
    definitions[name] = schema
    reference = {"$ref": f"#/$defs/{name}"}
    return reference if dice.random() < 0.6 else {"allOf": [reference]}


def _conditional(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    if dice.random() < 0.4:
        return {"if": schema, "else": False}
    return {"if": base(dice, 1), "then": schema, "else": copy.deepcopy(schema)}


def _negated_twice(schema: Schema, _: random.Random, __: Definitions) -> Schema:
    return {"not": {"not": schema}}


def _with_a_narrower_branch(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    return {"anyOf": dice.sample([schema, {"allOf": [copy.deepcopy(schema), base(dice, 1)]}], k=2)}


def _by_kind(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    """Two branches that exclude each other."""
    test = dice.choice(({"type": dice.choice(TYPES)}, {"required": [dice.choice(NAMES)]}, base(dice, 1)))
    branches = [{"allOf": [schema, test]}, {"allOf": [copy.deepcopy(schema), {"not": copy.deepcopy(test)}]}]
    return {dice.choice(("anyOf", "oneOf")): branches}


def _lists_spread(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    """`enum` as branches of `const`, several types as branches of one."""
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return {"allOf": [{"anyOf": [{"const": value} for value in schema.pop("enum")]}, schema]}
    if isinstance(schema.get("type"), str):
        other = dice.choice(TYPES)
        kinds = [{"type": schema.pop("type")}, {"type": other}]
        return {"allOf": [{"anyOf": kinds}, {"anyOf": [kinds[0], {"not": kinds[1]}]}, schema]}
    return schema


def _members_said_otherwise(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    if isinstance(schema.get("required"), list) and dice.random() < 0.5:
        wanted = schema.pop("required")
        return {**schema, "allOf": [*schema.get("allOf", []), *({"required": [name]} for name in wanted)]}
    if isinstance(schema.get("properties"), dict) and "patternProperties" not in schema:
        return {**schema, "patternProperties": {f"^{name}$": item for name, item in schema.pop("properties").items()}}
    if isinstance(schema.get("dependentSchemas"), dict):
        pairs = schema.pop("dependentSchemas").items()
        lacking = [{"anyOf": [{"not": {"type": "object", "required": [name]}}, item]} for name, item in pairs]
        return {**schema, "allOf": [*schema.get("allOf", []), *lacking]}
    if schema.get("additionalProperties") is False and "unevaluatedProperties" not in schema:
        del schema["additionalProperties"]
        return {**schema, "unevaluatedProperties": False}
    return schema


def _limits_said_otherwise(schema: Schema, dice: random.Random, _: Definitions) -> Schema:
    if "minimum" in schema and "not" not in schema:
        least = schema.pop("minimum")
        return {**schema, "not": {"type": "number", "exclusiveMaximum": least}}
    if "maxItems" in schema and "items" in schema and "prefixItems" not in schema and dice.random() < 0.7:
        most = schema.pop("maxItems")
        return {**schema, "prefixItems": [schema["items"]] * most, "items": False} if most else schema
    if "minItems" in schema and "contains" not in schema:
        least = schema.pop("minItems")
        return {**schema, "contains": True, "minContains": least}
    if "const" in schema:
        value = schema.pop("const")
        return {**schema, "enum": [value]}
    return schema


_REWRITINGS: Final[tuple[Callable[[Schema, random.Random, Definitions], Schema], ...]] = (
    *(_split, _split, _referred, _conditional, _negated_twice, _with_a_narrower_branch, _by_kind),
    *(_lists_spread, _members_said_otherwise, _members_said_otherwise, _limits_said_otherwise),
)


def small_values(dice: random.Random, count: int) -> list[Any]:
    """Values over the same few names, texts and numbers, two levels deep at most."""
    return [_small(dice, 2) for _ in range(count)]


def _small(dice: random.Random, depth: int) -> Any:
    kind = dice.randrange(8) if depth else dice.randrange(4)
    if kind < 2:
        return dice.choice(NUMBERS)
    if kind == 2:
        return dice.choice(TEXTS)
    if kind == 3:
        return dice.choice((None, True, False))
    if kind < 6:
        return {name: _small(dice, depth - 1) for name in dice.sample((*NAMES, "x"), k=dice.randint(0, 3))}
    return [_small(dice, depth - 1) for _ in range(dice.randint(0, 3))]
