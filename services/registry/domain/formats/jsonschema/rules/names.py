"""The rules by name: 132 kinds of difference, and what each means for a reader.

Source: the reference registry (Confluent Schema Registry 8.4 and 8.5), kinds of difference of its JSON Schema format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.registry.domain.evolution.policy import Policy


def _limits(names: Iterable[str], ends: Iterable[str]) -> set[str]:
    return {f"{name}_{end}" for name in names for end in ends}


_UPPER: Final = (
    "MAX_LENGTH",
    "MAXIMUM",
    "EXCLUSIVE_MAXIMUM",
    "MAX_PROPERTIES",
    "MAX_ITEMS",
    "MAX_CONTAINS",
)
_LOWER: Final = (
    "MIN_LENGTH",
    "MINIMUM",
    "EXCLUSIVE_MINIMUM",
    "MIN_PROPERTIES",
    "MIN_ITEMS",
    "MIN_CONTAINS",
)
_REST: Final = ("ADDITIONAL_PROPERTIES", "UNEVALUATED_PROPERTIES")
_REST_OF_ITEMS: Final = ("ADDITIONAL_ITEMS", "UNEVALUATED_ITEMS")

FINE: Final[frozenset[str]] = frozenset(
    _limits(_UPPER, ("REMOVED", "INCREASED"))
    | _limits(_LOWER, ("REMOVED", "DECREASED"))
    | _limits((*_REST, *_REST_OF_ITEMS), ("ADDED", "EXTENDED"))
    | {
        "ID_CHANGED",
        "TITLE_CHANGED",
        "DESCRIPTION_CHANGED",
        "DEFAULT_CHANGED",
        "SCHEMA_REMOVED",
        "TYPE_EXTENDED",
        "PATTERN_REMOVED",
        "MULTIPLE_OF_REMOVED",
        "MULTIPLE_OF_REDUCED",
        "REQUIRED_ATTRIBUTE_REMOVED",
        "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED",
        "DEPENDENCY_ARRAY_REMOVED",
        "DEPENDENCY_ARRAY_NARROWED",
        "DEPENDENCY_SCHEMA_REMOVED",
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "UNIQUE_ITEMS_REMOVED",
        "ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL",
        "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ENUM_ARRAY_EXTENDED",
        "COMBINED_TYPE_EXTENDED",
        "PRODUCT_TYPE_NARROWED",
        "SUM_TYPE_EXTENDED",
        "NOT_TYPE_NARROWED",
    }
)
"""Compatible under STRICT and LENIENT."""

LENIENT: Final[frozenset[str]] = frozenset(
    _limits(_REST, ("REMOVED", "NARROWED"))
    | {
        "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL",
        "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
    }
)
"""Compatible under LENIENT alone."""

DECLARED_ONLY: Final[frozenset[str]] = frozenset(
    {
        "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL",
        "RESERVED_PROPERTY_REMOVED",
        "RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY",
    }
)
"""Never found by comparing two texts: the first gave way to three finer ones; reserved names are not in a text."""

BREAKING: Final[frozenset[str]] = frozenset(
    _limits(_UPPER, ("ADDED", "DECREASED"))
    | _limits(_LOWER, ("ADDED", "INCREASED"))
    | _limits(_REST_OF_ITEMS, ("REMOVED", "NARROWED"))
    | DECLARED_ONLY
    | {
        "SCHEMA_ADDED",
        "TYPE_NARROWED",
        "TYPE_CHANGED",
        "PATTERN_ADDED",
        "PATTERN_CHANGED",
        "MULTIPLE_OF_ADDED",
        "MULTIPLE_OF_EXPANDED",
        "MULTIPLE_OF_CHANGED",
        "REQUIRED_ATTRIBUTE_ADDED",
        "DEPENDENCY_ARRAY_ADDED",
        "DEPENDENCY_ARRAY_EXTENDED",
        "DEPENDENCY_ARRAY_CHANGED",
        "DEPENDENCY_SCHEMA_ADDED",
        "REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "UNIQUE_ITEMS_ADDED",
        "ITEM_ADDED_TO_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "ITEM_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ENUM_ARRAY_NARROWED",
        "ENUM_ARRAY_CHANGED",
        "COMBINED_TYPE_CHANGED",
        "COMBINED_TYPE_SUBSCHEMAS_CHANGED",
        "PRODUCT_TYPE_EXTENDED",
        "SUM_TYPE_NARROWED",
        "NOT_TYPE_EXTENDED",
    }
)
"""Incompatible under STRICT and LENIENT."""


def compatible_under(policy: Policy) -> frozenset[str]:
    """The rules that do no harm under STRICT or LENIENT."""
    return FINE | LENIENT if policy is Policy.LENIENT else FINE
