"""A schema with its sources as a graph of nodes, read lazily: only what a comparison visits is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final
from urllib.parse import unquote

from services.registry.domain.formats import Parsed, json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema import cost
from services.registry.domain.formats.jsonschema.exact.resource import (
    DRAFT_YEARS,
    EMBEDDED,
    ROOT,
    Resource,
    address,
    has_exact,
    is_embedded,
    is_tangled,
    outline,
)
from services.registry.domain.formats.jsonschema.exact.shape import (
    BLANK,
    INTEGER,
    INTEGRAL,
    KINDS,
    NOTHING,
    NUMBERS,
    UNKNOWN,
    Limit,
    Number,
    Shape,
    TextFormat,
    asserted,
)
from services.registry.domain.formats.jsonschema.exact.values import text_format
from services.registry.domain.formats.jsonschema.keywords import pointer
from services.registry.domain.model import Format

DRAFT_DEFAULT: Final = "https://json-schema.org/draft/2020-12/schema"
EXPONENT_MAX: Final = 1000
"""Numbers in a schema beyond 10 to this power, or finer than its inverse, are not modelled."""
COUNT_MAX: Final = 1 << 53
"""Lengths in a schema beyond this are not modelled."""


class Malformed(Exception):
    """A value that the keyword does not allow, in a place that the meta-schema does not look at."""


class Node:
    """A schema at a place of a resource, or one derived from it. Compared by identity.

    path: JSON pointer in its resource. origin: what a derived node stands for; itself otherwise.
    """

    __slots__ = (
        *("_letters", "_make", "_outline", "_parts", "_references", "_shape"),
        *("document", "origin", "path", "raw", "resource"),
    )

    def __init__(
        self, document: Document, resource: Resource, raw: Json, path: str, make: Callable[[Node], Shape] | None = None
    ) -> None:
        self.document = document
        self.resource = resource
        self.raw = raw
        self.path = path
        self.origin: Node = self
        self._make = make
        self._shape: Shape | None = None
        self._parts: list[str] | None = None
        self._letters: str | None = None
        self._outline: str | None = None
        self._references: tuple[str, ...] | None = None

    @property
    def shape(self) -> Shape:
        """What the schema says."""
        if self._shape is None:
            self._shape = self._make(self) if self._make is not None else _shape(self)
        return self._shape

    @property
    def is_never(self) -> bool:
        """Whether it is seen at once that nothing is accepted."""
        return self.raw is False or (self.raw is None and self.shape.never)

    @property
    def parts(self) -> list[str]:
        """Which of PARTS the schema has."""
        if self._parts is None:
            self._parts = asserted(self.shape)
        return self._parts

    @property
    def letters(self) -> str:
        """A text that is the same for two schemas only when they are equal; members in another order differ."""
        if self._letters is None:
            self._letters = repr(self.raw)
        return self._letters

    @property
    def outline(self) -> str:
        """The schema's text without what its references say; one for equal schemas."""
        if self._outline is None:
            self._outlined()
        return self._outline or ""

    def derived(self, make: Callable[[Node], Shape]) -> Node:
        """A node at the same place that says something else."""
        node = Node(self.document, self.resource, self.raw, self.path, make)
        node.origin = self.origin
        return node

    @property
    def references(self) -> tuple[str, ...]:
        """Every string that may be a `$ref` in the schema's text, in the order of the names there."""
        if self._references is None:
            self._outlined()
        return self._references or ()

    def _outlined(self) -> None:
        self._outline, self._references = outline(self.resource, self.raw)


class Document:
    """A parsed schema and its sources.

    characters: of all its texts. kept: nodes that follow from others, by what they say. compared: which nodes of others
    are the same. tangled: it uses anchors, dynamic references, embedded resources or drafts, so that its references are
    not followed.
    """

    def __init__(self, parsed: Parsed, *, assert_formats: bool = False) -> None:
        self.assert_formats = assert_formats
        self.draft = DRAFT_YEARS[parsed.dialect]
        self.characters = len(parsed.text) + sum(map(len, parsed.sources.values()))
        root = json_text.read(parsed.text)
        self.dialect = parsed.dialect
        base = address(ROOT, cost.own_address(root, parsed.dialect))
        self.tangled = is_tangled(parsed.text, root)
        self._resources: dict[str, Resource] = {}
        own = Resource("", root, (base,), self.draft, exact_numbers=has_exact(parsed.text))
        for name, text in parsed.sources.items():
            value = json_text.read(text)
            draft = self._draft_of(value)
            found_by = [address(ROOT, name), address(base, name)]
            given = [address(one, cost.own_address(value, parsed.dialect)) for one in found_by]
            addresses = dict.fromkeys([*found_by, *given])
            resource = Resource(name, value, tuple(addresses), draft, exact_numbers=has_exact(text))
            self.tangled = self.tangled or is_tangled(text, value) or draft != self.draft
            for key in addresses:
                # Which of two that go by one name the library takes is not for us to say.
                self.tangled = self.tangled or self._resources.setdefault(key, resource) is not resource
        for key in (base, ROOT):
            self.tangled = self.tangled or self._resources.setdefault(key, own) is not own
        self._nodes: dict[tuple[str, str], Node] = {}
        self.compared: dict[tuple[Node, Node], bool] = {}
        self.kept: dict[tuple[Node, str], Node] = {}
        self.root = self.node(own, root, "")

    def forget(self) -> None:
        """Makes it as new for another comparison: only what its texts say is kept."""
        self.compared = {}
        self.kept = {}

    @classmethod
    def of(cls, schema: dict[str, Json]) -> Document:
        """A schema of 2020-12 that stands in no text of a user."""
        text = json.dumps(schema, default=float)
        return cls(Parsed(Format.JSON, text, b"", b"", dialect=DRAFT_DEFAULT))

    def node(self, resource: Resource, raw: Json, path: str) -> Node:
        """The node at a place."""
        key = (resource.name, path)
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = Node(self, resource, raw, path)
        return found

    def made(self, shape: Shape, place: Node) -> Node:
        """A node that stands in no text, said to be at another's place."""
        node = Node(self, place.resource, None, place.path, lambda _: shape)
        node.origin = node
        return node

    def target(self, resource: Resource, reference: str) -> Node | None:
        """Where a `$ref` leads; None when that is not known here."""
        if self.tangled:
            return None
        try:
            addresses = {address(base, reference) for base in resource.bases}
            fragment = reference.partition("#")[2]
        except ValueError:
            return None
        several = {self._resources[one] for one in addresses if one in self._resources}
        found = resource if reference.startswith("#") else several.pop() if len(several) == 1 else None
        if found is None or (fragment and not fragment.startswith("/")):
            return None
        value = found.root
        for step in unquote(fragment).split("/")[1:]:
            part = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
            if is_embedded(value):
                return None
        return self.node(found, value, unquote(fragment)) if isinstance(value, dict | bool) else None

    def _draft_of(self, value: Json) -> int:
        declared = value.get("$schema") if isinstance(value, dict) else None
        return DRAFT_YEARS.get(declared.removesuffix("#"), 0) if isinstance(declared, str) else self.draft


def same(reader: Node, writer: Node) -> bool:
    """Whether two schemas are equal as texts, with everything that they refer to, under whatever names."""
    one, other = reader.origin, writer.origin
    if one is other:
        return True
    known = one.document.compared.get((one, other))
    if known is None:
        pairs: dict[tuple[Node, Node], None] = {}
        known = _are_same(one, other, pairs)
        # Pairs met on the way to a difference may be equal or not; those met without any are all equal.
        one.document.compared.update(dict.fromkeys(pairs, True) if known else {(one, other): False})
    return known


def _are_same(one: Node, other: Node, seen: dict[tuple[Node, Node], None]) -> bool:
    waiting = [(one, other)]
    while waiting:
        one, other = waiting.pop()
        if one is other or (one, other) in seen:
            continue
        seen[one, other] = None
        if one.raw is None or other.raw is None or one.resource.draft != other.resource.draft:
            return False
        if one.document.tangled or other.document.tangled:
            return False
        if one.letters == other.letters and "$ref" not in one.letters:
            continue
        if one.outline != other.outline:
            return False
        if one.references and (one.path or other.path) and EMBEDDED.search(one.outline):
            return False  # What looks like an identifier may change where the references lead.
        for reference, opposite in zip(one.references, other.references, strict=True):
            first = one.document.target(one.resource, reference)
            second = other.document.target(other.resource, opposite)
            if first is None or second is None:
                return False
            waiting.append((first, second))
    return True


class _Reading:
    """Reads the keywords of one schema object."""

    def __init__(self, node: Node, raw: Mapping[str, Json]) -> None:
        self.node = node
        self.raw = raw
        self.draft = node.resource.draft

    def child(self, value: Json, *steps: str | int) -> Node:
        if not isinstance(value, dict | bool):
            raise Malformed
        return self.node.document.node(self.node.resource, value, self.node.path + pointer(steps))

    def schema(self, keyword: str, *, since: int = 4) -> Node | None:
        if keyword not in self.raw or self.draft < since:
            return None
        return self.child(self.raw[keyword], keyword)

    def schemas(self, keyword: str, *, since: int = 4) -> tuple[Node, ...]:
        if keyword not in self.raw or self.draft < since:
            return ()
        value = self.raw[keyword]
        if not isinstance(value, list) or (not value and keyword in {"anyOf", "oneOf"}):
            raise Malformed
        return tuple(self.child(item, keyword, index) for index, item in enumerate(value))

    def map(self, keyword: str, *, since: int = 4) -> dict[str, Node]:
        if keyword not in self.raw or self.draft < since:
            return {}
        value = self.raw[keyword]
        if not isinstance(value, dict):
            raise Malformed
        return {
            name: self.child(item, keyword, name)
            for name, item in value.items()
            if keyword != "dependencies" or not isinstance(item, list)
        }

    def number(self, keyword: str) -> Number | None:
        value = self.raw.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise Malformed
        exact = Decimal(value)
        if exact and (exact.adjusted() > EXPONENT_MAX or int(exact.as_tuple().exponent) < -EXPONENT_MAX):
            raise Malformed
        return int(exact) if exact == exact.to_integral_value() else exact

    def divisor(self) -> Number | None:
        value = self.number("multipleOf")
        if value is not None and value <= 0:
            raise Malformed
        return value

    def count(self, keyword: str, *, since: int = 4) -> int | None:
        value = self.number(keyword) if self.draft >= since else None
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
            raise Malformed
        return value

    def text(self, keyword: str) -> str | None:
        value = self.raw.get(keyword)
        if value is not None and not isinstance(value, str):
            raise Malformed
        return value

    def format(self) -> TextFormat | None:
        """None where formats are not asserted, and for one that the draft does not know."""
        name = self.text("format")
        document = self.node.document
        return text_format(document.dialect, name) if name is not None and document.assert_formats else None

    def strings(self, value: Json) -> frozenset[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Malformed
        return frozenset(str(item) for item in value)

    def kinds(self) -> frozenset[str] | None:
        value = self.raw.get("type")
        if value is None:
            return None
        found: set[str] = set()
        for name in value if isinstance(value, list) else [value]:
            if name == "number":
                found |= NUMBERS
            elif name == INTEGER:
                found |= {INTEGER} if self.draft == 4 else {INTEGER, INTEGRAL}
            elif name in KINDS:
                found.add(str(name))
            else:
                raise Malformed
        return frozenset(found)

    def values(self) -> tuple[Json, ...] | None:
        listed = self.raw.get("enum")
        if "enum" in self.raw and not isinstance(listed, list):
            raise Malformed
        found = tuple(listed) if isinstance(listed, list) else None
        if "const" in self.raw and self.draft >= 6:
            wanted = json_text.canonical(self.raw["const"])
            if found is not None and wanted not in {json_text.canonical(item) for item in found}:
                return ()
            found = (self.raw["const"],)
        return found

    def bound(self, inclusive: str, exclusive: str, *, lower: bool) -> Limit | None:
        value = self.number(inclusive)
        if self.draft == 4:
            return None if value is None else Limit(value, self.raw.get(exclusive) is True)
        strict = self.number(exclusive)
        if strict is None:
            return None if value is None else Limit(value)
        if value is not None and (value > strict if lower else value < strict):
            return Limit(value)
        return Limit(strict, exclusive=True)

    def arrays(self) -> dict[str, object]:
        """`prefix` and `items` from the words of the draft."""
        if self.draft >= 2020:
            return {"prefix": self.schemas("prefixItems"), "items": self.schema("items")}
        if isinstance(self.raw.get("items"), list):
            return {"prefix": self.schemas("items"), "items": self.schema("additionalItems")}
        return {"items": self.schema("items")}

    def dependencies(self) -> dict[str, object]:
        """The library keeps `dependencies` in the later drafts too."""
        needed: dict[str, frozenset[str]] = {}
        for keyword, since in (("dependentRequired", 2019), ("dependencies", 4)):
            value = self.raw.get(keyword)
            if value is None or self.draft < since:
                continue
            if not isinstance(value, dict):
                raise Malformed
            for name, item in value.items():
                if isinstance(item, list):
                    needed[name] = needed.get(name, frozenset()) | self.strings(item)
        schemas, older = self.map("dependentSchemas", since=2019), self.map("dependencies")
        if schemas.keys() & older.keys():
            raise Malformed
        return {"dependent_required": needed, "dependent": {**schemas, **older}}

    def is_unmodelled(self) -> bool:
        """The library checks encoded content in drafts 6 and 7; in 2019-09 `contains` does not evaluate items."""
        if self.draft in {6, 7}:
            return "contentEncoding" in self.raw or "contentMediaType" in self.raw
        if self.draft == 2019:
            return "$recursiveRef" in self.raw or "unevaluatedItems" in self.raw
        return self.draft == 2020 and "$dynamicRef" in self.raw


def _shape(node: Node) -> Shape:
    raw = node.raw
    if raw is True:
        return BLANK
    if raw is False:
        return NOTHING
    if not isinstance(raw, dict):
        return UNKNOWN
    try:
        return _read(_Reading(node, raw))
    except Malformed:
        return UNKNOWN


def _read(reading: _Reading) -> Shape:
    raw, document = reading.raw, reading.node.document
    reference: Node | None = None
    if "$ref" in raw:
        target = raw["$ref"]
        reference = document.target(reading.node.resource, target) if isinstance(target, str) else None
        if reference is None:
            return UNKNOWN
        if reading.draft <= 7:
            return Shape(ref=reference)
    if reading.is_unmodelled() or (reading.node.path and is_embedded(raw)):
        return UNKNOWN
    found: dict[str, object] = {"ref": reference}
    for words, read in _GROUPS:
        if not words.isdisjoint(raw):
            found.update(read(reading))
    return Shape(**found)  # type: ignore[arg-type]


def _read_values(reading: _Reading) -> dict[str, object]:
    return {"kinds": reading.kinds(), "values": reading.values()}


def _read_numbers(reading: _Reading) -> dict[str, object]:
    return {
        "minimum": reading.bound("minimum", "exclusiveMinimum", lower=True),
        "maximum": reading.bound("maximum", "exclusiveMaximum", lower=False),
        "multiple": reading.divisor(),
    }


def _read_texts(reading: _Reading) -> dict[str, object]:
    return {
        "min_length": reading.count("minLength") or 0,
        "max_length": reading.count("maxLength"),
        "pattern": reading.text("pattern"),
        "format": reading.format(),
    }


def _read_arrays(reading: _Reading) -> dict[str, object]:
    contains = reading.schema("contains", since=6)
    least = reading.count("minContains", since=2019) if contains else None
    return {
        **reading.arrays(),
        "min_items": reading.count("minItems") or 0,
        "max_items": reading.count("maxItems"),
        "unique": reading.raw.get("uniqueItems") is True,
        "contains": contains,
        "min_contains": 1 if least is None else least,
        "max_contains": reading.count("maxContains", since=2019) if contains else None,
        "unevaluated_items": reading.schema("unevaluatedItems", since=2019),
    }


def _read_objects(reading: _Reading) -> dict[str, object]:
    return {
        "min_properties": reading.count("minProperties") or 0,
        "max_properties": reading.count("maxProperties"),
        "required": reading.strings(reading.raw["required"]) if "required" in reading.raw else frozenset(),
        "properties": reading.map("properties"),
        "patterns": reading.map("patternProperties"),
        "additional": reading.schema("additionalProperties"),
        "names": reading.schema("propertyNames", since=6),
        "unevaluated": reading.schema("unevaluatedProperties", since=2019),
        **reading.dependencies(),
    }


def _read_combined(reading: _Reading) -> dict[str, object]:
    condition = reading.schema("if", since=7)
    return {
        "all_of": reading.schemas("allOf"),
        "any_of": reading.schemas("anyOf"),
        "one_of": reading.schemas("oneOf"),
        "negated": reading.schema("not"),
        "condition": condition,
        "consequent": reading.schema("then", since=7) if condition else None,
        "alternative": reading.schema("else", since=7) if condition else None,
    }


_Reader = Callable[[_Reading], dict[str, object]]
_GROUPS: Final[tuple[tuple[frozenset[str], _Reader], ...]] = (
    (frozenset({"type", "enum", "const"}), _read_values),
    (frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}), _read_numbers),
    (frozenset({"minLength", "maxLength", "pattern", "format"}), _read_texts),
    (
        frozenset({"prefixItems", "items", "additionalItems", "minItems", "maxItems", "uniqueItems"})
        | {"contains", "unevaluatedItems"},
        _read_arrays,
    ),
    (
        frozenset({"minProperties", "maxProperties", "required", "properties", "patternProperties"})
        | {"additionalProperties", "propertyNames", "unevaluatedProperties"}
        | {"dependencies", "dependentRequired", "dependentSchemas"},
        _read_objects,
    ),
    (frozenset({"allOf", "anyOf", "oneOf", "not", "if"}), _read_combined),
)
