"""What each draft of JSON Schema evaluates: a keyword that its draft does not know has no effect.

Source: the vocabularies of drafts 4, 6, 7, 2019-09 and 2020-12; for what they leave open (`dependencies` after draft 7,
content keywords) what the validating library does, which decides here what data is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DRAFT_4: Final = "http://json-schema.org/draft-04/schema"
DRAFT_6: Final = "http://json-schema.org/draft-06/schema"
DRAFT_7: Final = "http://json-schema.org/draft-07/schema"
DRAFT_2019: Final = "https://json-schema.org/draft/2019-09/schema"
DRAFT_2020: Final = "https://json-schema.org/draft/2020-12/schema"
LONE_REFERENCES: Final = frozenset({DRAFT_4, DRAFT_6, DRAFT_7})
"""Drafts in which `$ref` is all that counts in a schema that has it."""

TITLES: Final[Mapping[str, str]] = {
    DRAFT_4: "draft 4",
    DRAFT_6: "draft 6",
    DRAFT_7: "draft 7",
    DRAFT_2019: "draft 2019-09",
    DRAFT_2020: "draft 2020-12",
}

# fmt: off
_FOUR: Final = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "dependencies", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
        "minLength", "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties",
        "properties", "required", "type", "uniqueItems",
    }
)
_SIX: Final = _FOUR | {"additionalItems", "const", "contains", "contentEncoding", "contentMediaType", "propertyNames"}
_SEVEN: Final = _SIX | {"if", "then", "else"}
_CONTENT: Final = frozenset({"contentEncoding", "contentMediaType"})
_2019: Final = (_SEVEN - _CONTENT) | {
    "$recursiveRef", "dependentRequired", "dependentSchemas", "maxContains", "minContains", "unevaluatedItems",
    "unevaluatedProperties",
}
_2020: Final = (_2019 - {"$recursiveRef", "additionalItems"}) | {"$dynamicRef", "prefixItems"}

EVALUATED: Final[Mapping[str, frozenset[str]]] = {
    DRAFT_4: _FOUR | {"additionalItems"},
    DRAFT_6: _SIX,
    DRAFT_7: _SEVEN,
    DRAFT_2019: _2019,
    DRAFT_2020: _2020,
}
"""Keywords that decide whether data is accepted, by the address of the draft."""
# fmt: on
