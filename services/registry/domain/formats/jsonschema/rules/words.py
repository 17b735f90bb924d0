"""What each rule's finding says to a person, and what to do about it.

A template may use {old} and {new}: what the writer and the reader have there; {name}: what it is about; {why}: a
reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from services.registry.domain.formats.json_text import Json, canonical

SHOWN_CHARACTERS_MAX: Final = 100

_LIMITS: Final[Mapping[str, str]] = {
    "MAX_LENGTH": "maxLength",
    "MAXIMUM": "maximum",
    "EXCLUSIVE_MAXIMUM": "exclusiveMaximum",
    "MAX_PROPERTIES": "maxProperties",
    "MAX_ITEMS": "maxItems",
    "MAX_CONTAINS": "maxContains",
    "MIN_LENGTH": "minLength",
    "MINIMUM": "minimum",
    "EXCLUSIVE_MINIMUM": "exclusiveMinimum",
    "MIN_PROPERTIES": "minProperties",
    "MIN_ITEMS": "minItems",
    "MIN_CONTAINS": "minContains",
}
_RESTS: Final[Mapping[str, str]] = {
    "ADDITIONAL_PROPERTIES": "additionalProperties",
    "UNEVALUATED_PROPERTIES": "unevaluatedProperties",
    "ADDITIONAL_ITEMS": "additionalItems",
    "UNEVALUATED_ITEMS": "unevaluatedItems",
}
_DEFAULT_OR_OPTIONAL: Final = "leave `{name}` out of `required`, or give it a default"
_OPEN: Final = (
    "close the older schema first (`additionalProperties: false`), use policy LENIENT or EXACT, or add it under level "
    "FORWARD only"
)
_CLOSED: Final = "keep the property, or let the reader accept others (`additionalProperties`) before it goes"
_COVER: Final = "make the two agree: every value that the writer's part accepts must be one that the reader's accepts"
NO_HARM: Final = "nothing to do"

_WORDS: Final[dict[str, tuple[str, str]]] = {
    "ID_CHANGED": ("the identifier changed from {old} to {new}", NO_HARM),
    "TITLE_CHANGED": ("the title changed from {old} to {new}", NO_HARM),
    "DESCRIPTION_CHANGED": ("the description changed", NO_HARM),
    "DEFAULT_CHANGED": ("the default changed from {old} to {new}", NO_HARM),
    "SCHEMA_REMOVED": ("the reader says nothing of items, which the writer restricts", NO_HARM),
    "SCHEMA_ADDED": (
        "the reader restricts items, of which the writer says nothing",
        "leave `items` out, or let it accept everything",
    ),
    "TYPE_EXTENDED": ("the reader accepts {new} where the writer writes {old}", NO_HARM),
    "TYPE_NARROWED": ("the reader accepts only {new} where the writer writes {old}", "keep the wider type"),
    "TYPE_CHANGED": (
        "the reader expects {new} where the writer writes {old}{why}",
        "keep the type, or make the reader's an anyOf that also has the old one",
    ),
    "PATTERN_ADDED": ("the reader asks for the pattern {new}, the writer for none", "leave the pattern out"),
    "PATTERN_REMOVED": ("the reader no longer asks for the pattern {old}", NO_HARM),
    "PATTERN_CHANGED": (
        "the pattern changed from {old} to {new}, and patterns are not compared any further",
        "keep the pattern, or leave it out",
    ),
    "MULTIPLE_OF_ADDED": ("the reader asks for multiples of {new}, the writer for none", "leave multipleOf out"),
    "MULTIPLE_OF_REMOVED": ("the reader no longer asks for multiples of {old}", NO_HARM),
    "MULTIPLE_OF_REDUCED": ("the reader asks for multiples of {new}, and those of {old} are such", NO_HARM),
    "MULTIPLE_OF_EXPANDED": (
        "the reader asks for multiples of {new}, and those of {old} need not be such",
        "keep multipleOf, or make it a divisor of {old}",
    ),
    "MULTIPLE_OF_CHANGED": (
        "the reader asks for multiples of {new}, and those of {old} need not be such",
        "keep multipleOf, or make it a divisor of {old}",
    ),
    "REQUIRED_ATTRIBUTE_ADDED": (
        "the reader requires the property `{name}`, which the writer may leave out",
        _DEFAULT_OR_OPTIONAL,
    ),
    "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED": (
        "the reader requires the property `{name}`, which has a default",
        NO_HARM,
    ),
    "REQUIRED_ATTRIBUTE_REMOVED": ("the reader no longer requires the property `{name}`", NO_HARM),
    "DEPENDENCY_ARRAY_ADDED": (
        "the reader asks for {new} where `{name}` is present, the writer for nothing",
        "leave the dependency out",
    ),
    "DEPENDENCY_ARRAY_REMOVED": ("the reader no longer asks for {old} where `{name}` is present", NO_HARM),
    "DEPENDENCY_ARRAY_EXTENDED": (
        "where `{name}` is present the reader asks for more: {new} instead of {old}",
        "ask for no more than before",
    ),
    "DEPENDENCY_ARRAY_NARROWED": (
        "where `{name}` is present the reader asks for less: {new} instead of {old}",
        NO_HARM,
    ),
    "DEPENDENCY_ARRAY_CHANGED": (
        "where `{name}` is present the reader asks for {new} instead of {old}",
        "ask for no more than before",
    ),
    "DEPENDENCY_SCHEMA_ADDED": (
        "the reader has a schema for objects with `{name}`, the writer has none",
        "leave the dependency out",
    ),
    "DEPENDENCY_SCHEMA_REMOVED": ("the reader no longer has a schema for objects with `{name}`", NO_HARM),
    "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL": (
        "the reader declares the property `{name}`, of any value; the writer's object is open",
        NO_HARM,
    ),
    "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL": (
        "the reader declares the property `{name}`; the writer's object is open, so it may hold any value already",
        _OPEN,
    ),
    "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL": (
        (
            "the reader declares the property `{name}`, required with a default; the writer's object is open, so it "
            "may hold any value already"
        ),
        _OPEN,
    ),
    "REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL": (
        "the reader requires the property `{name}`, which the writer does not know",
        _DEFAULT_OR_OPTIONAL,
    ),
    "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL": (
        "the reader requires the property `{name}`, which the writer does not declare",
        _DEFAULT_OR_OPTIONAL,
    ),
    "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL": (
        "the reader requires the property `{name}`, which has a default; the writer never sends it",
        NO_HARM,
    ),
    "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL": (
        "the reader declares the optional property `{name}`, which the writer does not declare",
        NO_HARM,
    ),
    "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader declares the property `{name}` and accepts what the writer allows under that name",
        NO_HARM,
    ),
    "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader declares the property `{name}`, and the writer allows other values under that name{why}",
        _COVER,
    ),
    "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL": (
        "the reader no longer declares the property `{name}` and accepts any value there",
        NO_HARM,
    ),
    "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the reader no longer declares the property `{name}`, which the writer forbids",
        NO_HARM,
    ),
    "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the reader no longer declares the property `{name}` and accepts no others",
        _CLOSED,
    ),
    "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader no longer declares the property `{name}` and accepts its values under other keywords",
        NO_HARM,
    ),
    "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        (
            "the reader no longer declares the property `{name}`, and what it accepts under that name is not all that "
            "the writer writes{why}"
        ),
        _COVER,
    ),
    "UNIQUE_ITEMS_ADDED": ("the reader asks for items that all differ, the writer does not", "leave uniqueItems out"),
    "UNIQUE_ITEMS_REMOVED": ("the reader no longer asks for items that all differ", NO_HARM),
    "ITEM_ADDED_TO_OPEN_CONTENT_MODEL": (
        "the reader restricts item {name}, where the writer allows any value",
        "let the item accept everything, or close the older schema first",
    ),
    "ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL": ("the reader lists item {name}, of any value", NO_HARM),
    "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL": ("the reader knows item {name}, which the writer never sends", NO_HARM),
    "ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader lists item {name} and accepts what the writer allows there",
        NO_HARM,
    ),
    "ITEM_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader lists item {name}, and the writer allows other values there{why}",
        _COVER,
    ),
    "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL": ("the reader no longer lists item {name}: any value does", NO_HARM),
    "ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the reader no longer lists item {name}, which the writer forbids",
        NO_HARM,
    ),
    "ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the reader no longer lists item {name} and accepts no items beyond its list",
        "keep the item, or let the reader accept further ones before it goes",
    ),
    "ITEM_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the reader no longer lists item {name} and accepts its values as further items",
        NO_HARM,
    ),
    "ITEM_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        (
            "the reader no longer lists item {name}, and what it accepts as further items is not all that the writer "
            "writes{why}"
        ),
        _COVER,
    ),
    "ENUM_ARRAY_EXTENDED": ("the reader knows more values: {new}", NO_HARM),
    "ENUM_ARRAY_NARROWED": (
        "the writer may send values that the reader does not list: {old}",
        "keep the values until nobody sends them",
    ),
    "ENUM_ARRAY_CHANGED": (
        "the writer may send values that the reader does not list: {old}; new ones are {new}",
        "keep the old values beside the new ones until nobody sends them",
    ),
    "COMBINED_TYPE_EXTENDED": ("{old} became {new}, which is wider", NO_HARM),
    "COMBINED_TYPE_CHANGED": ("{old} became {new}, which is not wider", "keep {old}, or use anyOf"),
    "COMBINED_TYPE_SUBSCHEMAS_CHANGED": (
        "the subschemas do not correspond: {name}{why}",
        "keep the subschemas and change each compatibly, or add new ones to an anyOf",
    ),
    "PRODUCT_TYPE_EXTENDED": (
        "the reader's allOf asks for more: {new} subschemas instead of {old}",
        "ask for no more than before",
    ),
    "PRODUCT_TYPE_NARROWED": ("the reader asks for less: {new} of the {old} subschemas that all hold", NO_HARM),
    "SUM_TYPE_EXTENDED": ("the reader leaves more choice: {new} subschemas instead of {old}", NO_HARM),
    "SUM_TYPE_NARROWED": (
        "the reader leaves less choice: {new} subschemas instead of {old}",
        "keep the old subschemas until nobody writes what they accept",
    ),
    "NOT_TYPE_EXTENDED": (
        "the reader's `not` excludes more, or something else, than the writer's",
        "exclude no more than before",
    ),
    "NOT_TYPE_NARROWED": ("the reader's `not` excludes less than the writer's", NO_HARM),
}
for _rule, _keyword in _LIMITS.items():
    _wider, _narrower = ("INCREASED", "DECREASED") if "MAX" in _rule else ("DECREASED", "INCREASED")
    _WORDS[f"{_rule}_ADDED"] = (f"the reader sets {_keyword} {{new}}, the writer none", f"leave {_keyword} out")
    _WORDS[f"{_rule}_REMOVED"] = (f"the reader no longer sets {_keyword} {{old}}", NO_HARM)
    _WORDS[f"{_rule}_{_wider}"] = (f"{_keyword} widened from {{old}} to {{new}}", NO_HARM)
    _WORDS[f"{_rule}_{_narrower}"] = (
        f"{_keyword} is {{new}} for the reader and {{old}} for the writer",
        f"keep {_keyword} {{old}}, or widen it",
    )
for _rule, _keyword in _RESTS.items():
    _WORDS[f"{_rule}_ADDED"] = (f"the reader accepts by {_keyword} what the writer never sends", NO_HARM)
    _WORDS[f"{_rule}_EXTENDED"] = (f"the reader accepts anything by {_keyword}, the writer does not", NO_HARM)
    _WORDS[f"{_rule}_REMOVED"] = (
        f"the reader forbids by {_keyword} what the writer may send",
        f"keep {_keyword} as it was, or tell the writers to close theirs first",
    )
    _WORDS[f"{_rule}_NARROWED"] = (
        f"the reader restricts by {_keyword} what the writer sends without restriction",
        f"keep {_keyword} as it was, or tell the writers to restrict theirs first",
    )

WORDS: Final[Mapping[str, tuple[str, str]]] = _WORDS


def shown(value: Json) -> str:
    """A value of a schema as JSON, shortened."""
    if type(value) is int:
        text = str(value)
    elif isinstance(value, str):
        text = json.dumps(value[:SHOWN_CHARACTERS_MAX], ensure_ascii=False)
    elif isinstance(value, list):
        text = _listed(value)
    else:
        text = canonical(value) if not isinstance(value, dict) else "an object"
    return shortened(text)


def shortened(text: str) -> str:
    """At most SHOWN_CHARACTERS_MAX characters of a text."""
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 1] + "…"


def _listed(values: list[Json]) -> str:
    pieces: list[str] = []
    length = 0
    for value in values:
        pieces.append("[…]" if isinstance(value, list) else shown(value))
        length += len(pieces[-1])
        if length > SHOWN_CHARACTERS_MAX:
            break
    return ", ".join(pieces)
