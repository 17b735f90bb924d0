"""Members of data that no schema declares: what strict checking refuses.

A member is declared by `properties`, by a pattern of `patternProperties` that matches, by `additionalProperties` or
`unevaluatedProperties` where they are given and not false; in any schema that applies to its object: through `$ref`,
allOf, the branches of anyOf and oneOf that accept the object (all of them when none does), `if`, `then` or `else`, and
dependent schemas. Members of a value of which the schema says nothing at all (`{}` or `true`) are free; so is all that
is in a value which `enum` or `const` lists in full. Members that the schema itself forbids are left to the validator. A
dynamic reference may lead to any schema of its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import jsonschema_rs

from llm_schema_registry.errors import LimitExceeded
from services.registry.domain.formats import Problem
from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.cost import Documents, Place
from services.registry.domain.formats.jsonschema.drafts import EVALUATED, LONE_REFERENCES
from services.registry.domain.formats.jsonschema.keywords import pointer

KEYWORD: Final = "unknownField"
STEPS_MAX: Final = 300_000
"""Schemas and names that are looked at for one payload: about a second."""
COMPILING_STEPS: Final = 500
"""What compiling one branch counts as."""
HINTS_MAX: Final = 200
"""Declared names among which the nearest one is looked for."""
NAME_CHARACTERS_MAX: Final = 100

Schema: TypeAlias = "dict[str, Json]"
Way: TypeAlias = "tuple[Way, str | int] | None"
"""Parts of a path, the last one outermost: shared by all that is below a value."""


@dataclass(slots=True)
class _Steps:
    left: int = STEPS_MAX

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise LimitExceeded(
                f"finding unknown fields takes more than {STEPS_MAX} steps: check smaller data, or not strictly",
                metadata={"limit": "STEPS_MAX"},
            )


class Undeclared:
    """Finds members that no schema declares. Holds what it has compiled: safe to use from many tasks.

    draft: address of the root's. compile: a validator of what stands at a place.
    """

    def __init__(
        self,
        root: Json,
        sources: Mapping[str, Json],
        draft: str,
        compile_place: Callable[[Place], jsonschema_rs.Validator],
    ) -> None:
        self._root = root
        self._draft_default = draft
        self._documents = Documents(root, sources, draft)
        self._compile = compile_place
        self._validators: dict[int, jsonschema_rs.Validator] = {}
        self._matchers: dict[str, jsonschema_rs.Validator] = {}
        self._named: dict[str, list[Schema]] = {}
        for schema in self._documents.schemas():
            anchor = schema.get("$dynamicAnchor")
            if isinstance(anchor, str):
                self._named.setdefault(anchor, []).append(schema)
            if schema.get("$recursiveAnchor") is True:
                self._named.setdefault("", []).append(schema)

    def problems(self, value: Data) -> Iterator[Problem]:
        """A problem for each such member, in the order of the data. Raises LimitExceeded."""
        steps = _Steps()
        waiting: list[tuple[Data, Way, list[Json]]] = [(value, None, [self._root])]
        while waiting:
            item, way, schemas = waiting.pop()
            below: list[tuple[Data, Way, list[Json]]] = []
            applied = self._applied(schemas, item, steps) if isinstance(item, dict | list) else []
            if any(self._lists(schema) for schema in applied):
                continue
            if isinstance(item, dict):
                yield from self._members(item, way, applied, below, steps)
            elif isinstance(item, list):
                for index, element in enumerate(item):
                    if isinstance(element, dict | list):
                        below.append((element, (way, index), self._items(applied, index, element, steps)))
            waiting.extend(reversed(below))

    def _members(
        self,
        item: dict[str, Data],
        way: Way,
        applied: list[Schema],
        below: list[tuple[Data, Way, list[Json]]],
        steps: _Steps,
    ) -> Iterator[Problem]:
        free = not any(self._counting(schema) for schema in applied)
        closed = any(self._forbids(schema) for schema in applied)
        for name, member in item.items():
            declared = [found for schema in applied for found in self._declared(schema, name, steps)]
            if not declared:
                declared = [
                    schema["unevaluatedProperties"]
                    for schema in applied
                    if schema.get("unevaluatedProperties", False) is not False
                    and "unevaluatedProperties" in EVALUATED[self._draft(schema)]
                ]
            if not declared and not free and not closed:
                yield _problem(name, way, applied)
            if isinstance(member, dict | list):
                below.append((member, (way, name), declared))

    def _declared(self, schema: Schema, name: str, steps: _Steps) -> Iterator[Json]:
        """The schemas that one schema has for a member."""
        properties, patterns = schema.get("properties"), schema.get("patternProperties")
        steps.take(1)
        found = False
        if isinstance(properties, dict) and name in properties:
            found = True
            yield properties[name]
        if isinstance(patterns, dict):
            steps.take(len(patterns))
            for pattern, value in patterns.items():
                if self._matches(pattern, name):
                    found = True
                    yield value
        if not found and schema.get("additionalProperties", False) is not False:
            yield schema["additionalProperties"]

    def _items(self, applied: list[Schema], index: int, element: Data, steps: _Steps) -> list[Json]:
        """The schemas for one item of an array."""
        found: list[Json] = []
        for schema in applied:
            steps.take(1)
            known = EVALUATED[self._draft(schema)]
            items = schema.get("items")
            listed = schema.get("prefixItems") if "prefixItems" in known else items
            rest = items if "prefixItems" in known else schema.get("additionalItems")
            if isinstance(listed, list):
                found.append(listed[index] if index < len(listed) else rest)
            else:
                found.append(items)
            contained = schema.get("contains")
            if "contains" in known and isinstance(contained, dict) and self._accepts(contained, element, steps):
                found.append(contained)
        if not any(isinstance(one, dict) for one in found):
            found += [
                schema.get("unevaluatedItems")
                for schema in applied
                if "unevaluatedItems" in EVALUATED[self._draft(schema)]
            ]
        return found

    def _applied(self, schemas: list[Json], value: Data, steps: _Steps) -> list[Schema]:
        """Every schema that applies to a value when those do, each once."""
        applied: dict[int, Schema] = {}
        waiting = list(reversed(schemas))
        while waiting:
            schema = waiting.pop()
            if not isinstance(schema, dict) or id(schema) in applied:
                continue
            steps.take(1)
            following = list(self._following(schema, value, steps))
            applied[id(schema)] = schema
            waiting.extend(reversed(following))
        lone = {key for key, schema in applied.items() if "$ref" in schema and self._draft(schema) in LONE_REFERENCES}
        return [schema for key, schema in applied.items() if key not in lone]

    def _following(self, schema: Schema, value: Data, steps: _Steps) -> Iterator[Json]:
        draft = self._draft(schema)
        known = EVALUATED[draft]
        yield from self._referred(schema, known)
        if draft in LONE_REFERENCES and "$ref" in schema:
            return
        every = schema.get("allOf")
        yield from every if isinstance(every, list) else ()
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if isinstance(branches, list):
                steps.take(len(branches))
                yield from [one for one in branches if self._accepts(one, value, steps)] or branches
        if "if" in schema and "if" in known:
            holds = self._accepts(schema["if"], value, steps)
            yield from (schema["if"], schema.get("then")) if holds else (schema.get("else"),)
        for keyword in ("dependencies", "dependentSchemas"):
            dependent = schema.get(keyword)
            if isinstance(dependent, dict) and isinstance(value, dict) and keyword in known:
                steps.take(len(dependent))
                yield from (one for name, one in dependent.items() if name in value)

    def _referred(self, schema: Schema, known: frozenset[str]) -> Iterator[Json]:
        if "$ref" in schema:
            yield self._documents.target(schema, "$ref")
        for keyword in ("$dynamicRef", "$recursiveRef"):
            reference = schema.get(keyword)
            if keyword in known and isinstance(reference, str):
                yield self._documents.target(schema, keyword)
                yield from self._named.get(reference.partition("#")[2], ())

    def _accepts(self, schema: Json, value: Data, steps: _Steps) -> bool:
        """Whether a subschema accepts a value."""
        if not isinstance(schema, dict):
            return schema is not False
        validator = self._validators.get(id(schema))
        if validator is None:
            place = self._documents.place(schema)
            if place is None:
                return True
            steps.take(COMPILING_STEPS)
            validator = self._validators[id(schema)] = self._compile(place)
        return validator.is_valid(value)

    def _matches(self, pattern: str, name: str) -> bool:
        matcher = self._matchers.get(pattern)
        if matcher is None:
            matcher = self._matchers[pattern] = jsonschema_rs.Draft202012Validator(
                {"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20), offline=True
            )
        return matcher.is_valid(name)

    def _forbids(self, schema: Schema) -> bool:
        known = EVALUATED[self._draft(schema)]
        return schema.get("additionalProperties") is False or (
            schema.get("unevaluatedProperties") is False and "unevaluatedProperties" in known
        )

    def _lists(self, schema: Schema) -> bool:
        """Whether a schema lists the values that it accepts."""
        return "enum" in schema or ("const" in schema and "const" in EVALUATED[self._draft(schema)])

    def _counting(self, schema: Schema) -> bool:
        """Whether a schema says anything of values."""
        known = EVALUATED[self._draft(schema)]
        return any(keyword in known for keyword in schema)

    def _draft(self, schema: Schema) -> str:
        place = self._documents.place(schema)
        return place.draft if place else self._draft_default


def _problem(name: str, way: Way, applied: list[Schema]) -> Problem:
    names: dict[str, None] = {}
    for schema in applied:
        properties = schema.get("properties")
        if isinstance(properties, dict) and len(names) < HINTS_MAX:
            names.update(dict.fromkeys(properties))
    hints = [*names][:HINTS_MAX]
    near = difflib.get_close_matches(name[:NAME_CHARACTERS_MAX], hints, n=1)
    hint = f"; did you mean `{near[0][:NAME_CHARACTERS_MAX]}`?" if near else ""
    parts: list[str | int] = [name]
    while way is not None:
        way, part = way
        parts.append(part)
    parts.reverse()
    return Problem(pointer(parts), "", KEYWORD, f"is not declared by the schema{hint}")
