"""Work on texts as plain functions, so that another process can do it: arguments and results can be pickled."""

from __future__ import annotations

from collections.abc import Mapping

from cachetools import LRUCache

from services.registry.domain.formats import DataValidator, Parsed, SchemaFormat, Validation

COMPILED_MAX = 32
"""Schemas that a worker keeps compiled."""

_compiled: LRUCache[tuple[bytes, bytes, bool], DataValidator] = LRUCache(COMPILED_MAX)


def parse(language: SchemaFormat, text: str, sources: Mapping[str, str]) -> Parsed:
    """See SchemaFormat.parse."""
    return language.parse(text, sources)


def check(language: SchemaFormat, parsed: Parsed, key: bytes, data: bytes, *, assert_formats: bool) -> Validation:
    """See DataValidator.check. key: the schema's identity, under which it is kept compiled here."""
    known = (key, parsed.identity_body, assert_formats)
    validator = _compiled.get(known)
    if validator is None:
        validator = _compiled[known] = language.validator(parsed, assert_formats=assert_formats)
    return validator.check(data)
