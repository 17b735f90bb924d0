"""Documents as they stand: their addresses, their texts, and where a `$ref` in them may mean something unusual."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from services.registry.domain.formats import json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema import cost
from services.registry.domain.formats.jsonschema.keywords import walk

DRAFT_YEARS: Final[Mapping[str, int]] = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
ROOT: Final = "json-schema:///"
"""Where the library has a schema that gives itself no address."""
_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_REFERENCE = re.compile(r'"\$ref":("(?:[^"\\]|\\.)*")')
_LISTED = re.compile(r'"(?:enum|const)":')
_TANGLE = re.compile(r'"(?:\$anchor|\$dynamicAnchor|\$recursiveAnchor|\$dynamicRef|\$recursiveRef)"\s*:')
EMBEDDED = re.compile(r'"(?:\$id|id|\$schema)":"[^#]')
_IDENTIFIER = re.compile(r'"(?:\$id|id|\$schema)"\s*:\s*"')


class Resource:
    """One JSON document: the schema's own or a source.

    bases: what its references may be relative to. The library takes a document's own address in some places and the
    one that it was found by in others.
    """

    def __init__(self, name: str, root: Json, bases: Collection[str], draft: int, *, exact_numbers: bool) -> None:
        self.name = name
        self.root = root
        self.bases = bases
        self.draft = draft
        self._exact_numbers = exact_numbers

    def text(self, value: Json) -> str:
        """One text for all equal values of this resource."""
        if self._exact_numbers:
            return json_text.canonical(value)
        return _SORTED.encode(value)


def _referring(value: Json) -> Iterator[dict[str, Json]]:
    """The schemas with a `$ref` in a schema, in one order for all equal texts."""
    found = [(path, schema) for path, schema in walk(value) if isinstance(schema.get("$ref"), str)]
    yield from (schema for _, schema in sorted(found, key=lambda item: json_text.pointer(item[0])))


def _taken(schema: dict[str, Json]) -> str:
    """The reference of a schema, which is emptied."""
    reference, schema["$ref"] = str(schema["$ref"]), None
    return reference


def address(base: str, reference: str) -> str:
    """The address of the document that a reference leads into. Raises ValueError for one that is no address."""
    return cost.resolved(base, reference).partition("#")[0]


def has_exact(text: str) -> bool:
    return re.search(r"\d[.eE]", text) is not None


def is_tangled(text: str, root: Json) -> bool:
    """Whether a `$ref` in the text may mean something else than a pointer into its own document."""
    if "\\u00" in text:  # A letter of a keyword may be written as an escape.
        text = json.dumps(root, default=str)
    if _TANGLE.search(text):
        return True
    own = sum(isinstance(root.get(name), str) for name in ("$id", "id", "$schema")) if isinstance(root, dict) else 0
    if len(_IDENTIFIER.findall(text)) <= own:
        return False
    for path, schema in walk(root):
        if not path:
            continue
        if any(isinstance(schema.get(name), str) and not str(schema[name]).startswith("#") for name in ("$id", "id")):
            return True
        if "$schema" in schema:
            return True
    return False


def is_embedded(value: object) -> bool:
    """Whether a schema below the root is a resource of its own, with another base for its references."""
    return isinstance(value, dict) and any(
        isinstance(value.get(name), str) and not str(value[name]).startswith("#") for name in ("$id", "id", "$schema")
    )


def outline(resource: Resource, raw: Json) -> tuple[str, tuple[str, ...]]:
    """A schema's text without what its references say, one for equal schemas, and what they say in one order."""
    text = resource.text(raw)
    found = _REFERENCE.findall(text)
    if found and _LISTED.search(text) and len(found) > sum(1 for _ in _referring(raw)):
        # Something among the values of `enum` or `const` looks like a reference: there it is a value.
        stripped = copy.deepcopy(raw)
        references = tuple(_taken(schema) for schema in _referring(stripped))
        return resource.text(stripped), references
    return _REFERENCE.sub('"$ref":', text), tuple(json.loads(match) for match in found)
