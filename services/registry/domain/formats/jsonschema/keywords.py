"""Which keywords hold subschemas, and a walk over them that follows the structure, not the names.

Source: the vocabularies of JSON Schema drafts 4, 6, 7, 2019-09 and 2020-12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.registry.domain.formats import json_text
from services.registry.domain.formats.json_text import Json

SUBSCHEMA = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
SUBSCHEMA_LISTS = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
SUBSCHEMA_MAPS = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
SAME_INSTANCE = frozenset({"allOf", "anyOf", "dependencies", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
"""Keywords whose subschemas apply to the very instance that the schema itself applies to. `$ref` does too."""

# fmt: off
PLAIN = frozenset(
    {
        "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef",
        "$ref", "$schema", "$vocabulary", "const", "contentEncoding", "contentMediaType", "default",
        "dependentRequired", "deprecated", "description", "enum", "examples", "exclusiveMaximum",
        "exclusiveMinimum", "format", "id", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum",
        "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "pattern", "readOnly",
        "required", "title", "type", "uniqueItems", "writeOnly",
    }
)
# fmt: on
KNOWN = PLAIN | SUBSCHEMA | SUBSCHEMA_LISTS | SUBSCHEMA_MAPS

Path = tuple[str | int, ...]


def pointer(path: Sequence[str | int]) -> str:
    """json_text.pointer, faster where no name holds a slash or a tilde."""
    text = "/".join(map(str, path))
    if not path or "~" in text or text.count("/") >= len(path):
        return json_text.pointer(path)
    return f"/{text}"


class Child(NamedTuple):
    """A subschema: where it stands below its schema, and the keyword that holds it."""

    path: Path
    keyword: str
    schema: dict[str, Json]


def children(schema: dict[str, Json]) -> Iterator[Child]:
    """The subschemas directly below a schema, boolean ones left out."""
    for keyword, value in schema.items():
        if isinstance(value, dict) and keyword in SUBSCHEMA_MAPS:
            for name, item in value.items():
                if isinstance(item, dict):
                    yield Child((keyword, name), keyword, item)
        elif isinstance(value, dict) and keyword in SUBSCHEMA:
            yield Child((keyword,), keyword, value)
        elif isinstance(value, list) and keyword in SUBSCHEMA_LISTS:
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield Child((keyword, index), keyword, item)


def held(keyword: str, value: Json) -> list[dict[str, Json]]:
    """The subschemas under one keyword, boolean ones left out: `children` without the paths, for less."""
    if isinstance(value, dict):
        if keyword in SUBSCHEMA_MAPS:
            return [item for item in value.values() if isinstance(item, dict)]
        return [value] if keyword in SUBSCHEMA else []
    if isinstance(value, list) and keyword in SUBSCHEMA_LISTS:
        return [item for item in value if isinstance(item, dict)]
    return []


def walk(root: Json) -> Iterator[tuple[Path, dict[str, Json]]]:
    """Every schema object in a document with its path, the root first."""
    if not isinstance(root, dict):
        return
    waiting: list[tuple[Path, dict[str, Json]]] = [((), root)]
    while waiting:
        path, schema = waiting.pop()
        yield path, schema
        waiting.extend((path + child.path, child.schema) for child in children(schema))
