"""Schemas as the rules see them: each is of one kind, and what says several things at once is an allOf of those.

An object of keywords becomes one part for each of: `enum` or `const`, allOf, anyOf, oneOf, `not`, what its type reads
(for several types an anyOf of them), if/then/else, and a reference that has keywords beside it. One part stands for
itself, several are an allOf, none accepts everything. Without `type`, keywords about strings, numbers, arrays or
objects make a part of that kind which is not typed: it accepts values of other types.

Source: how the reference registry's library reads schemas (everit-org/json-schema), by its documented behaviour. Ours:
`const` is an enum of one value, and a type list of one is that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import jsonschema_rs

from services.registry.domain.formats import Parsed, json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema import cost
from services.registry.domain.formats.jsonschema.drafts import DRAFT_2020, EVALUATED, LONE_REFERENCES
from services.registry.domain.formats.jsonschema.keywords import pointer

Kind: TypeAlias = Literal[
    "nothing", "anything", "string", "number", "boolean", "null", "object", "array", "enum", "combined", "not", "if"
]
Schema: TypeAlias = "dict[str, Json]"
Member: TypeAlias = "Node | tuple[Json, str, bool]"
"""What is combined: a part, or a subschema with its path and whether that is in a referenced text."""

PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)
SILENT: Final = frozenset({"format", "contentEncoding", "contentMediaType"})
"""Keywords that the rules do not see at all."""

KEYWORDS_OF: Final[Mapping[Kind, frozenset[str]]] = {
    "string": frozenset({"maxLength", "minLength", "pattern"}),
    "number": frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"}),
    "array": frozenset(
        {"additionalItems", "contains", "items", "maxContains", "maxItems", "minContains", "minItems", "prefixItems"}
        | {"unevaluatedItems", "uniqueItems"}
    ),
    "object": frozenset(
        {"additionalProperties", "dependencies", "dependentRequired", "dependentSchemas", "maxProperties"}
        | {"minProperties", "patternProperties", "properties", "propertyNames", "required", "unevaluatedProperties"}
    ),
}
_KINDS: Final[Mapping[str, Kind]] = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
    "array": "array",
    "object": "object",
}
CRITERIA: Final = ("allOf", "anyOf", "oneOf")
_OF_ANY_TYPE: Final = frozenset({*cost.REFERENCES, *CRITERIA, "const", "enum", "if", "not"})


class NotResolved(Exception):
    """A reference leads to a place that is not understood here."""


@dataclass(slots=True, eq=False)
class Node:
    """A schema of one kind, or a part of one. Two places of a text are two nodes.

    live: keywords that its draft knows and the rules see. path: JSON pointer in the text; in a referenced text that of
    the reference. typed: values of other types are refused. whole: it is all that its schema says, so that titles and
    the like are its own. values: of an enum. members: of what is combined.
    """

    side: Side
    kind: Kind
    schema: Schema
    live: Schema
    path: str
    foreign: bool = False
    typed: bool = True
    integer: bool = False
    whole: bool = True
    criterion: str = "allOf"
    values: list[Json] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    _built: list[Node] | None = None

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.live

    def get(self, keyword: str, default: Json = None) -> Json:
        """The value of a keyword, if its draft knows it."""
        return self.live.get(keyword, default)

    def place(self, *parts: str | int) -> str:
        """The pointer to a place below."""
        return self.path if self.foreign else self.path + pointer(parts)

    def child(self, value: Json, *parts: str | int) -> Node:
        """The node of a subschema. Raises NotResolved."""
        return self.side.node(value, self.place(*parts), foreign=self.foreign)

    def subschemas(self) -> list[Node]:
        """The members, equal ones once. Raises NotResolved."""
        if self._built is None:
            self._built = list(self._build())
        return self._built

    def _build(self) -> Iterator[Node]:
        seen: set[tuple[int, bool]] = set()
        for member in self.members:
            if isinstance(member, Node):
                yield member
                continue
            value, path, foreign = member
            number = self.side.numbers.of(value), foreign
            if number not in seen:
                seen.add(number)
                yield self.side.node(value, path, foreign=foreign)

    def described(self) -> str:
        """What it is, for a message."""
        if self.kind == "combined":
            return f"{self.criterion} of {len(self.members)}"
        if self.kind == "number":
            return "integer" if self.integer else "number"
        return {"if": "if/then/else", "enum": "an enumeration", "not": "a `not`"}.get(self.kind, self.kind)


class Numbers:
    """One number for all equal JSON values, so that comparing them again costs nothing."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}
        self._of: dict[int, tuple[Json, int]] = {}

    def of(self, value: Json) -> int:
        """The value's number. The value must not change."""
        if not isinstance(value, dict | list):
            return self._number(value if isinstance(value, str) else (json_text.canonical(value),))
        kept = self._of.get(id(value))
        if kept is None:
            if isinstance(value, dict):
                key: object = frozenset((name, self.of(item)) for name, item in value.items())
            else:
                key = (0, *map(self.of, value))
            kept = self._of[id(value)] = (value, self._number(key))
        return kept[1]

    def _number(self, key: object) -> int:
        return self._known.setdefault(key, len(self._known))


class Side:
    """The reader's or the writer's schema with all that it refers to."""

    def __init__(self, parsed: Parsed, numbers: Numbers) -> None:
        self.numbers = numbers
        self._draft = parsed.dialect or DRAFT_2020
        self._root = json_text.read(parsed.text)
        self._nodes: dict[int, Node] = {}
        self._matchers: dict[str, jsonschema_rs.Validator] = {}
        self._documents: cost.Documents | None = None
        if cost.may_refer(parsed.text, parsed.sources):
            sources = {name: json_text.read(source) for name, source in parsed.sources.items()}
            self._documents = cost.Documents(self._root, sources, self._draft)

    def root(self) -> Node:
        """The node of the whole schema. Raises NotResolved."""
        return self.node(self._root, "", foreign=False)

    def node(self, value: Json, path: str, *, foreign: bool) -> Node:
        """The node of a schema. Raises NotResolved."""
        seen: set[int] = set()
        while isinstance(value, dict):
            known = self._nodes.get(id(value))
            if known is not None:
                return known
            keyword = self._only_reference(value)
            if keyword is None or id(value) in seen:
                break
            seen.add(id(value))
            value, path, foreign = self._target(value, keyword, path)
        if not isinstance(value, dict):
            return Node(self, "nothing" if value is False else "anything", {}, {}, path, foreign)
        node = self._nodes[id(value)] = self._read(value, path, foreign=foreign)
        return node

    def has_default(self, value: Json) -> bool:
        """Whether a subschema has a default, there or where its reference leads."""
        for _ in range(cost.SUBSCHEMAS_MAX):
            if not isinstance(value, dict):
                return False
            if "default" in value:
                return True
            if self._documents is None or "$ref" not in value:
                return False
            value = self._documents.target(value, "$ref")
        return False

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a property's name matches a pattern, in linear time."""
        matcher = self._matchers.get(pattern)
        if matcher is None:
            matcher = self._matchers[pattern] = jsonschema_rs.Draft202012Validator(
                {"pattern": pattern}, pattern_options=PATTERNS, offline=True
            )
        return matcher.is_valid(name)

    def _draft_of(self, schema: Schema) -> str:
        place = self._documents.place(schema) if self._documents else None
        return place.draft if place else self._draft

    def _only_reference(self, schema: Schema) -> str | None:
        """The keyword of a reference that is all that a schema says."""
        draft = self._draft_of(schema)
        if draft in LONE_REFERENCES:
            return "$ref" if isinstance(schema.get("$ref"), str) else None
        evaluated = [keyword for keyword in schema if keyword in EVALUATED[draft] and keyword not in SILENT]
        return evaluated[0] if len(evaluated) == 1 and evaluated[0] in cost.REFERENCES else None

    def _target(self, schema: Schema, keyword: str, path: str) -> tuple[Json, str, bool]:
        """What a reference leads to, and its place: in a referenced text that of the reference."""
        target = self._documents.target(schema, keyword) if self._documents else None
        if target is None:
            raise NotResolved(f"`{keyword}` at {path or 'the root'} leads to a place that is not understood here")
        place = self._documents.place(target) if self._documents and isinstance(target, dict) else None
        if place is None or place.document:
            return target, path, place is not None
        return target, pointer(place.path), False

    def _read(self, schema: Schema, path: str, *, foreign: bool) -> Node:
        evaluated = EVALUATED[self._draft_of(schema)]
        live = {keyword: value for keyword, value in schema.items() if keyword in evaluated and keyword not in SILENT}
        whole = Node(self, "anything", schema, live, path, foreign)
        declared = live.get("type")
        if isinstance(declared, str) and declared in _KINDS and live.keys().isdisjoint(_OF_ANY_TYPE):
            whole.kind, whole.integer = _KINDS[declared], declared == "integer"
            return whole
        parts = list(self._parts(whole))
        if not parts:
            return whole
        if len(parts) == 1 and isinstance(parts[0], Node):
            parts[0].whole = True
            return parts[0]
        whole.kind, whole.members = "combined", parts
        return whole

    def _parts(self, whole: Node) -> Iterator[Member]:
        schema, path, foreign = whole.schema, whole.path, whole.foreign

        def part(kind: Kind) -> Node:
            return Node(self, kind, schema, whole.live, path, foreign, whole=False)

        for keyword in cost.REFERENCES:
            if keyword in whole:
                yield self._target(schema, keyword, whole.place(keyword))
        for keyword, values in (("enum", whole.get("enum")), ("const", [whole.get("const")])):
            if keyword in whole and isinstance(values, list):
                node = part("enum")
                node.values = values
                yield node
        for criterion in CRITERIA:
            items = whole.get(criterion)
            if isinstance(items, list):
                node = part("combined")
                node.criterion = criterion
                node.members = [(item, whole.place(criterion, index), foreign) for index, item in enumerate(items)]
                yield node
        if "not" in whole:
            yield part("not")
        yield from self._typed(whole)
        if "if" in whole and ("then" in whole or "else" in whole):
            yield part("if")

    def _typed(self, whole: Node) -> Iterator[Node]:
        declared = whole.get("type")
        names = declared if isinstance(declared, list) else [declared]
        types = [name for name in names if isinstance(name, str) and name in _KINDS]
        if types:
            nodes = [
                Node(
                    self,
                    _KINDS[name],
                    whole.schema,
                    whole.live,
                    whole.path,
                    whole.foreign,
                    integer=name == "integer",
                    whole=False,
                )
                for name in types
            ]
            if len(nodes) == 1:
                yield nodes[0]
                return
            several: list[Member] = [*nodes]
            yield Node(
                self,
                "combined",
                whole.schema,
                whole.live,
                whole.path,
                whole.foreign,
                whole=False,
                criterion="anyOf",
                members=several,
            )
            return
        for kind, keywords in KEYWORDS_OF.items():
            if any(keyword in whole for keyword in keywords):
                yield Node(self, kind, whole.schema, whole.live, whole.path, whole.foreign, typed=False, whole=False)
