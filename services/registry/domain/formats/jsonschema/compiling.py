"""Schemas compiled by the validating library: always offline, with the linear-time pattern engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urldefrag

import jsonschema_rs

from services.registry.domain.formats import json_text
from services.registry.domain.formats.jsonschema import cost

DRAFTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}
DRAFT_NUMBERS: Final[Mapping[str, int]] = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012,
}
PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)
"""The linear-time engine: no look-around and no back-references, and so no pattern that never ends."""


def compiled(
    schema_text: str, schema: json_text.Json, draft: str, sources: Mapping[str, str], *, assert_formats: bool
) -> jsonschema_rs.Validator:
    """The validator that data of a schema is checked with. schema: the value of the text.

    Raises jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError and ValueError: say, for a `$ref` that leads
    nowhere.
    """
    found = resources(schema, draft, sources)
    return DRAFTS[draft](
        schema_text if isinstance(schema, dict) else schema is True,
        registry=registry(found, draft) if found else None,
        validate_formats=assert_formats,
        pattern_options=PATTERNS,
        mask="the value",
        offline=True,
    )


def registry(found: list[tuple[str, Any]], draft: str) -> jsonschema_rs.Registry:
    """The documents that references may lead to; one that names no draft is read in that of the schema."""
    return jsonschema_rs.Registry(found, draft=DRAFT_NUMBERS[draft], retriever=_refuse_retrieval)


def resources(schema: json_text.Json, draft: str, sources: Mapping[str, str]) -> list[tuple[str, Any]]:
    """The sources with the addresses under which the schema may refer to them."""
    base = urldefrag(cost.own_address(schema, draft))[0]
    found: list[tuple[str, Any]] = []
    for name, source in sources.items():
        value = json.loads(source)
        found += [(address, value) for address in {name, cost.resolved(base, name)}]
    return found


def _refuse_retrieval(uri: str) -> json_text.Json:
    raise ValueError(f"{uri} is not among the references, and nothing is ever fetched")
