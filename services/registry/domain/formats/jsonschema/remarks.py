"""What a schema says that is allowed but probably not meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, TypeGuard

from services.registry.domain.formats import Problem, json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.drafts import EVALUATED, LONE_REFERENCES, TITLES
from services.registry.domain.formats.jsonschema.keywords import KNOWN, Path, walk
from services.registry.domain.formats.jsonschema.rules.nodes import KEYWORDS_OF, SILENT

_RANGES: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
)
_TYPES_OF: Final[Mapping[str, frozenset[str]]] = {
    keyword: frozenset({kind, "integer"} if kind == "number" else {kind})
    for kind, keywords in KEYWORDS_OF.items()
    for keyword in keywords
}
_NEEDS: Final = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}
ENUM_VALUES_MAX: Final = 1_000
"""Values of one enum that are looked at."""
NAME_CHARACTERS_MAX: Final = 100


def remarks(root: Json, draft: str) -> Iterator[Problem]:
    """Keywords without effect, and contradictions that are plain to see. draft: the root's address."""
    evaluated = EVALUATED[draft]
    ever = frozenset[str]().union(*EVALUATED.values()) - SILENT  # Content keywords are annotations elsewhere.
    for path, schema in walk(root):
        for keyword in schema:
            if keyword not in KNOWN and not keyword.startswith(("x-", "$comment")):
                yield _unknown(path, keyword)
            elif keyword in ever and keyword not in evaluated:
                yield _remark(path, keyword, f"`{keyword}` has no effect in {TITLES[draft]}")
        if draft in LONE_REFERENCES and "$ref" in schema:
            yield from _beside_reference(path, schema, evaluated)
            continue
        live = {keyword: value for keyword, value in schema.items() if keyword in evaluated}
        yield from _without_effect(path, live)
        yield from _contradictions(path, live)


def _beside_reference(path: Path, schema: dict[str, Json], evaluated: frozenset[str]) -> Iterator[Problem]:
    for keyword in schema:
        if keyword in evaluated and keyword != "$ref":
            yield _remark(path, keyword, f"`{keyword}` has no effect beside `$ref` up to draft 7: use allOf")


def _without_effect(path: Path, schema: dict[str, Json]) -> Iterator[Problem]:
    types = _types(schema)
    for keyword in schema:
        meant = _TYPES_OF.get(keyword)
        if types is not None and meant is not None and not types & meant:
            kinds = " or ".join(f"`{name}`" for name in sorted(types))
            yield _remark(path, keyword, f"`{keyword}` has no effect on values of type {kinds}")
        if keyword in _NEEDS and _NEEDS[keyword] not in schema:
            yield _remark(path, keyword, f"`{keyword}` has no effect without `{_NEEDS[keyword]}`")
    if "if" in schema and "then" not in schema and "else" not in schema:
        yield _remark(path, "if", "`if` has no effect without `then` or `else`")
    if "additionalItems" in schema and not isinstance(schema.get("items"), list):
        yield _remark(path, "additionalItems", "`additionalItems` has no effect unless `items` is a list")


def _contradictions(path: Path, schema: dict[str, Json]) -> Iterator[Problem]:
    for lower, upper in _RANGES:
        low, high = schema.get(lower), schema.get(upper)
        if _is_number(low) and _is_number(high) and low > high:
            yield _remark(path, lower, f"`{lower}` is greater than `{upper}`: nothing can be valid")
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if _is_number(low) and _is_number(high) and low >= high:
        yield _remark(path, "exclusiveMinimum", "the exclusive limits leave no number: none can be valid")
    if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
        yield from _forbidden(path, schema.get("properties"), schema.get("required"))
    types, values = _types(schema), schema.get("enum", [schema["const"]] if "const" in schema else None)
    if types is not None and isinstance(values, list):
        for index, value in enumerate(values[:ENUM_VALUES_MAX]):
            if not types & _types_of(value):
                place: Path = (*path, "enum", index) if "enum" in schema else (*path, "const")
                text = "this value can never be valid: `type` excludes its type"
                yield Problem(json_text.pointer(place), "", "enum" if "enum" in schema else "const", text)


def _forbidden(path: Path, declared: Json, required: Json) -> Iterator[Problem]:
    for index, name in enumerate(required if isinstance(required, list) else ()):
        if not isinstance(declared, dict) or name not in declared:
            text = f"`{str(name)[:NAME_CHARACTERS_MAX]}` is required, and `additionalProperties: false` forbids it"
            yield Problem(json_text.pointer((*path, "required", index)), "", "required", text)


def _is_number(value: Json) -> TypeGuard[int | Decimal]:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _types(schema: dict[str, Json]) -> frozenset[str] | None:
    declared = schema.get("type")
    names = declared if isinstance(declared, list) else [declared]
    types = frozenset(name for name in names if isinstance(name, str))
    return types or None


def _types_of(value: Json) -> frozenset[str]:
    """The types that a value is of."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int() | Decimal():
            whole = isinstance(value, int) or value == value.to_integral_value()
            return frozenset({"integer", "number"} if whole else {"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case dict():
            return frozenset({"object"})


def _unknown(path: Path, keyword: str) -> Problem:
    near = difflib.get_close_matches(keyword[:NAME_CHARACTERS_MAX], KNOWN, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    name = keyword[:NAME_CHARACTERS_MAX]
    return _remark(path, keyword, f"`{name}` is no keyword of any draft and has no effect{hint}")


def _remark(path: Path, keyword: str, message: str) -> Problem:
    return Problem(json_text.pointer((*path, keyword)), "", keyword[:NAME_CHARACTERS_MAX], message)
