"""The meaning of a schema alone: one text for schemas that differ only in what no validator looks at.

Two schemas with equal bodies accept the same data, with `format` asserted or not. The other way round nothing is
promised: equal meaning is recognised only where it is plain. Our own code, so that it stays the same for years.

Left out: annotations (title, description, default, examples, deprecated, readOnly, writeOnly, $comment, and content
keywords where the draft makes them annotations), keywords that the draft does not know, what stands beside a `$ref` up
to draft 7, keywords that say nothing (`minLength: 0`, `then` without `if`, `additionalProperties: true`). Sorted: names
and values in sets, branches of allOf, anyOf and oneOf. Written in one way: numbers by value, `const` as `enum` of one,
type lists of one, `true` for `{}`. The draft is always named, so equal texts of two drafts differ.

Kept as they are: addresses and definitions, for others may refer to them; everything that a JSON pointer in the
text leads through; a text with anchors, addresses inside or dynamic references as a whole; and, where unevaluated
members count anywhere, what tells which members are evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias
from urllib.parse import unquote

from services.registry.domain.formats import json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.cost import at, pointer_path
from services.registry.domain.formats.jsonschema.drafts import DRAFT_4, EVALUATED, LONE_REFERENCES
from services.registry.domain.formats.jsonschema.keywords import SUBSCHEMA, SUBSCHEMA_LISTS, SUBSCHEMA_MAPS, held

Path: TypeAlias = tuple[str, ...]

_ADDRESSES: Final = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "id")
_SPECIAL: Final = (*(f'"{name}"' for name in _ADDRESSES if name != "id"), '"$ref"', '"unevaluated')
"""One of these stands in every schema in which there is more to look out for than keywords without effect; in draft 4
that may be an `id` too."""
_UNUSUAL_INDEX: Final = re.compile(r"\+[0-9]+|0[0-9]+")
"""Parts of pointers that libraries may read as an index, though an index is not written so."""
_ALWAYS: Final = frozenset({"$defs", "$id", "definitions", "id"})
_UNEVALUATED: Final = ("unevaluatedItems", "unevaluatedProperties")
_SCALAR: Final = frozenset(
    {"exclusiveMaximum", "exclusiveMinimum", "format", "maxItems", "maxLength", "maxProperties", "maximum", "minItems"}
    | {"minLength", "minProperties", "minimum", "multipleOf", "pattern", "uniqueItems"}
)
"""Keywords with a value that stays as it is."""
_PERHAPS_ALL: Final = frozenset({"additionalItems", "additionalProperties", "if", "items", "propertyNames"})
_PERHAPS_NOTHING: Final = frozenset(
    {"additionalItems", "dependencies", "dependentRequired", "dependentSchemas", "else", "exclusiveMaximum"}
    | {"exclusiveMinimum", "maxContains", "minContains", "minItems", "minLength", "minProperties"}
    | {"patternProperties", "properties", "required", "then", "uniqueItems"}
)
"""Keywords that `_accepts_all` and `_says_nothing` look at."""
_BRANCHES: Final = frozenset({"allOf", "anyOf", "oneOf"})


def body(value: Json, draft: str, sources: Mapping[str, Json], *, spelled: str = "") -> bytes:
    """The meaning of a schema as bytes: a canonical text, and the sources where there are any.

    value: a valid schema of the draft (its address), nested at most json_text.DEPTH_MAX levels, as its sources are. A
    source that others point into counts with its whole value, otherwise with its meaning. spelled: a text of the value,
    where there is one, which saves time.
    """
    text = canonical_text(value, draft, sources, spelled=spelled)
    if not sources:
        return text.encode("utf-8")
    into = any(_points_into_others(document) for document in (value, *sources.values()))
    whole = into or any(_mentions(document, _UNEVALUATED) for document in (value, *sources.values()))
    pieces = [text]
    for name in sorted(sources):
        source = sources[name]
        declared = source.get("$schema") if isinstance(source, dict) else None
        own = declared.removesuffix("#") if isinstance(declared, str) else draft
        plain = whole or own not in EVALUATED
        pieces.append(json_text.canonical(name))
        pieces.append(json_text.canonical(source) if plain else canonical_text(source, own, sources))
    return "\n".join(pieces).encode("utf-8")


def canonical_text(value: Json, draft: str, sources: Mapping[str, Json], *, spelled: str = "") -> str:
    """A schema of the same meaning, one for many. It names its draft, and it is its own canonical text.

    sources: what refers to it or is referred to, for pointers and unevaluated members there. spelled: as for `body`.
    """
    fragment = "#" if draft.startswith("http:") else ""
    if isinstance(value, bool):
        value = {} if value else {"not": {}}
    assert isinstance(value, dict)
    named: dict[str, Json] = {**value, "$schema": draft + fragment}
    others = list(sources.values())
    plain = _Simple(draft, frozenset(), evaluated_members_count=False)
    if not others and spelled and "\\u" not in spelled and not _is_special(spelled, draft, schemas="$schema" in value):
        return _written(plain, value, draft + fragment)  # Most schemas: nothing to look out for.
    text = json_text.canonical(named)
    if not others and not _is_special(text, draft, schemas=True):
        return _written(plain, value, draft + fragment)
    if _has_addresses(named, draft) or any(_has_addresses(other, draft) for other in others):
        return text
    counts = any(_mentions(other, _UNEVALUATED) for other in others) or (
        '"unevaluated' in text
        and any(
            name in schema and name in EVALUATED[draft]
            for schema in _reached(named, draft, evaluated_members_count=True)
            for name in _UNEVALUATED
        )
    )
    pointed = {
        path
        for schema in _reached(named, draft, evaluated_members_count=counts)
        if (path := _pointer_path(schema.get("$ref"))) is not None
    }
    for other in others:
        pointed.update(path for reference in _references(other) if (path := _pointer_path(reference)) is not None)
    if any(_UNUSUAL_INDEX.fullmatch(part) for path in pointed for part in path):
        return text
    return _written(_Simple(draft, _ways(pointed), evaluated_members_count=counts), value, draft + fragment)


def _is_special(text: str, draft: str, *, schemas: bool) -> bool:
    """Whether a text, in which no name is spelled by escapes, may have more to look out for than keywords.

    schemas: whether there is a `$schema` at its root, where it is nothing special.
    """
    return (
        any(name in text for name in _SPECIAL)
        or (draft == DRAFT_4 and '"id"' in text)
        or text.count('"$schema"') != int(schemas)
    )


@dataclass(frozen=True, slots=True)
class _Simple:
    """Writes schemas of one text in the one way. ways: places that pointers lead to or through."""

    draft: str
    ways: frozenset[Path]
    evaluated_members_count: bool

    def schema(self, value: Json, path: Path) -> Json:
        """A subschema; the root stays an object."""
        if not isinstance(value, dict):
            return value
        simple: dict[str, Json] = {}
        for keyword in kept(value, self.draft, evaluated_members_count=self.evaluated_members_count):
            if keyword in _SCALAR:
                simple[keyword] = value[keyword]
                continue
            place = (*path, keyword)
            one = self._keyword(keyword, value[keyword], place)
            if self.evaluated_members_count or place in self.ways or not _accepts_all(keyword, one, value):
                simple[keyword] = one
        if self.ways:
            for keyword in value:
                if keyword not in simple and (*path, keyword) in self.ways:
                    simple[keyword] = self._keyword(keyword, value[keyword], (*path, keyword))
        if "const" in simple and "enum" not in simple and (*path, "const") not in self.ways:
            simple["enum"] = [simple.pop("const")]
        if not simple and path and self.draft != DRAFT_4:
            return True
        return simple

    def _keyword(self, keyword: str, value: Json, path: Path) -> Json:
        if keyword not in EVALUATED[self.draft] and keyword not in _ALWAYS:
            return value
        if isinstance(value, dict) and keyword in SUBSCHEMA_MAPS:
            return {name: self._member(keyword, item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list) and keyword in SUBSCHEMA_LISTS:
            return self._list(keyword, value, path)
        if keyword in SUBSCHEMA:
            return self.schema(value, path)
        if path in self.ways:  # Parts of it may be pointed to, so they stay where they are.
            return value
        return _PLAIN.get(keyword, _same)(value)

    def _member(self, keyword: str, value: Json, path: Path) -> Json:
        if isinstance(value, list) and keyword == "dependencies":
            return _sorted(value)
        return self.schema(value, path)

    def _list(self, keyword: str, values: list[Json], path: Path) -> Json:
        simple = [self.schema(value, (*path, str(index))) for index, value in enumerate(values)]
        if keyword not in _BRANCHES or path in self.ways:
            return simple
        return _sorted(simple) if keyword == "oneOf" else _unique(simple)


def _written(simple: _Simple, value: dict[str, Json], draft: str) -> str:
    root = simple.schema(value, ())
    assert isinstance(root, dict)
    return json_text.canonical({**root, "$schema": draft})


def kept(schema: Mapping[str, Json], draft: str, *, evaluated_members_count: bool) -> Iterator[str]:
    """The keywords of a schema that decide something, or that others may refer to."""
    lone = draft in LONE_REFERENCES and isinstance(schema.get("$ref"), str)
    known = EVALUATED[draft]
    for keyword, value in schema.items():
        if keyword in _ALWAYS:
            if keyword not in ("$id", "id") or isinstance(value, str):
                yield keyword
        elif (
            keyword in known
            and (not lone or keyword == "$ref")
            and (keyword not in _PERHAPS_ALL or evaluated_members_count or not _accepts_all(keyword, value, schema))
            and (keyword not in _PERHAPS_NOTHING or not _says_nothing(keyword, value, schema))
        ):
            yield keyword


def _says_nothing(keyword: str, value: Json, schema: Mapping[str, Json]) -> bool:
    """Whether a keyword has no effect, not even on which members are evaluated."""
    match keyword:
        case "minLength" | "minItems" | "minProperties":
            return _is_number(value, 0)
        case "uniqueItems":
            return value is False
        case "exclusiveMinimum" | "exclusiveMaximum":
            return value is False
        case "required" | "properties" | "patternProperties" | "dependentSchemas":
            return not value
        case "dependencies" | "dependentRequired":
            return isinstance(value, dict) and all(item == [] for item in value.values())
        case "then" | "else":
            return "if" not in schema
        case "minContains":
            return "contains" not in schema or _is_number(value, 1)
        case "maxContains":
            return "contains" not in schema
        case "additionalItems":
            return not isinstance(schema.get("items"), list)
    return False


def _accepts_all(keyword: str, value: Json, schema: Mapping[str, Json]) -> bool:
    """Whether a keyword only tells which members are evaluated."""
    match keyword:
        case "additionalProperties" | "additionalItems" | "items" | "propertyNames":
            return value is True or value == {}
        case "if":
            return "then" not in schema and "else" not in schema
    return False


def _is_number(value: Json, number: int) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value == number


def _same(value: Json) -> Json:
    return value


def _sorted(values: Json) -> Json:
    return sorted(values, key=json_text.canonical) if isinstance(values, list) else values


def _unique(values: Json) -> Json:
    """A list as a set: sorted, each value once."""
    if not isinstance(values, list):
        return values
    texts = {json_text.canonical(value): value for value in values}
    return [texts[text] for text in sorted(texts)]


def _types(value: Json) -> Json:
    """A type list without what another type includes; one type stands alone."""
    if not isinstance(value, list):
        return value
    names = sorted({name for name in value if isinstance(name, str)})
    if "number" in names and "integer" in names:
        names.remove("integer")
    return names[0] if len(names) == 1 else [*names]


def _named_lists(value: Json) -> Json:
    return {name: _sorted(item) for name, item in value.items() if item != []} if isinstance(value, dict) else value


_PLAIN: Final[Mapping[str, Callable[[Json], Json]]] = {
    "type": _types,
    "required": _unique,
    "enum": _unique,
    "dependentRequired": _named_lists,
}


def _has_addresses(document: Json, draft: str) -> bool:
    """Whether a text names places in itself other than by pointers, or has parts with addresses of their own."""
    own = "id" if draft == DRAFT_4 else "$id"
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            for name in _ADDRESSES:
                if name not in item or (name in ("id", "$id") and (name != own or item is document)):
                    continue
                if isinstance(item[name], str | bool):
                    return True
            if item is not document and isinstance(item.get("$schema"), str):
                return True
            waiting.extend(item.values())
    return isinstance(document, dict) and isinstance(document.get(own), str) and "#" in str(document[own]).rstrip("#")


def _mentions(document: Json, names: tuple[str, ...]) -> bool:
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            if any(name in item for name in names):
                return True
            waiting.extend(item.values())
    return False


def _references(document: Json) -> Iterator[str]:
    """Every text under a `$ref`, wherever it stands."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            reference = item.get("$ref")
            if isinstance(reference, str):
                yield reference
            waiting.extend(item.values())


def _points_into_others(document: Json) -> bool:
    """Whether a reference leads to a part of another text."""
    return any("#" in reference.rstrip("#") and not reference.startswith("#") for reference in _references(document))


def _pointer_path(reference: Json) -> Path | None:
    """The parts of a reference's pointer, as texts; None when it has none."""
    fragment = unquote(reference.partition("#")[2]) if isinstance(reference, str) else ""
    return pointer_path(fragment) if fragment.startswith("/") else None


def _reached(root: dict[str, Json], draft: str, *, evaluated_members_count: bool) -> Iterator[dict[str, Json]]:
    """Every schema that counts, those included that pointers lead to."""
    waiting: list[Json] = [root]
    seen: set[int] = set()
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        path = _pointer_path(schema.get("$ref"))
        if path is not None:
            waiting.append(at(root, path))
        for keyword in kept(schema, draft, evaluated_members_count=evaluated_members_count):
            waiting.extend(held(keyword, schema[keyword]))


def _ways(pointed: set[Path]) -> frozenset[Path]:
    """Every place on the way to a place, itself included."""
    return frozenset(path[:end] for path in pointed for end in range(1, len(path) + 1))
