"""Default values of fields, checked against the fields' types.

Source: Apache Avro 1.12 Specification, "Records", table of field default values. A default of a union corresponds to
the first branch that it matches (before 1.12: to the first branch). The specification does not say whether the
default of a record may leave out members; as in the reference implementation it may, where the field has a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from services.registry.domain.formats import Problem
from services.registry.domain.formats.avro.model import Array, Definition, Field, Map, Named, Record, Type, Union
from services.registry.domain.formats.avro.scalars import scalar_fault
from services.registry.domain.formats.json_text import Json, pointer

Fault: TypeAlias = tuple[list[str | int], str]
"""Way to the place below the default, innermost part first, and what is wrong there."""


class TooCostly(Exception):
    """Checking takes more steps than are allowed."""


@dataclass(frozen=True, slots=True)
class Default:
    """A default as written: of which field of which record, and where."""

    record: str
    field: str
    type: Type
    value: Json
    path: str


class Defaults:
    """Checks defaults against the types in scope. steps: values that may be looked at, all in all."""

    def __init__(self, types: Mapping[str, Definition], steps: int) -> None:
        self._types = types
        self._steps = steps
        self._borrowed: list[tuple[str, str]] = []

    def faults(self, defaults: Iterable[Default]) -> Iterator[Problem]:
        """Every default at fault, also when it is one that never ends because it takes in itself."""
        uses: dict[tuple[str, str], list[tuple[str, str]]] = {}
        paths: dict[tuple[str, str], str] = {}
        for default in defaults:
            self._borrowed = []
            try:
                fault = self._fault(default.type, default.value)
            except TooCostly:
                yield Problem(default.path, "", "default", "the defaults fit their types in too many ways to check")
                return
            if fault is not None:
                yield Problem(default.path + pointer(fault[0][::-1]), "", "default", fault[1])
            owner = (default.record, default.field)
            uses[owner], paths[owner] = self._borrowed, default.path
        for owner in _endless(uses):
            message = "takes in itself through members it leaves out, so that no reader can fill it in"
            yield Problem(paths[owner], "", "default", message)

    def _fault(self, item: Type, value: Json) -> Fault | None:
        """The first place at which a value does not fit a type; None when it fits."""
        self._steps -= 1
        if self._steps < 0:
            raise TooCostly
        resolved = self._types.get(item.name) if isinstance(item, Named) else item
        if resolved is None or not resolved.kind:  # At fault itself, and named elsewhere.
            return None
        if isinstance(resolved, Union):
            return self._union(resolved, value)
        if isinstance(resolved, Record):
            return self._record(resolved, value)
        if isinstance(resolved, Array) and isinstance(value, list):
            return self._members((resolved.items, index, member) for index, member in enumerate(value))
        if isinstance(resolved, Map) and isinstance(value, dict):
            return self._members((resolved.values, name, member) for name, member in value.items())
        message = scalar_fault(resolved, value)
        return None if message is None else ([], message)

    def _union(self, union: Union, value: Json) -> Fault | None:
        mark = len(self._borrowed)
        fault: Fault | None = None
        for branch in union.branches:
            fault = self._fault(branch, value)
            if fault is None:
                return None
            del self._borrowed[mark:]
        if len(union.branches) == 1:
            return fault
        return [], "matches no branch of the union"

    def _record(self, record: Record, value: Json) -> Fault | None:
        if not isinstance(value, dict):
            return [], "must be an object, as the type is a record"
        self._steps -= len(record.fields)
        fields: dict[str, Field] = {field.name: field for field in record.fields}
        for name in value:
            if name not in fields:
                return [name], "is no field of the record"
        for name, field in fields.items():
            if name not in value and not field.has_default:
                return [], f"lacks the field `{name[:200]}`, which has no default of its own"
            if name not in value:
                self._borrowed.append((record.name, name))
        return self._members((fields[name].type, name, member) for name, member in value.items())

    def _members(self, members: Iterable[tuple[Type, str | int, Json]]) -> Fault | None:
        for item, key, member in members:
            fault = self._fault(item, member)
            if fault is not None:
                fault[0].append(key)
                return fault
        return None


def _endless(uses: Mapping[tuple[str, str], list[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    """Members of `uses` from which a path leads back to themselves: one of each loop found, without recursion."""
    done: set[tuple[str, str]] = set()
    for start in uses:
        entered: dict[tuple[str, str], None] = {}
        open_uses = [(start, iter(uses[start]))] if start not in done else []
        while open_uses:
            owner, following = open_uses[-1]
            entered[owner] = None
            for used in following:
                if used in entered:
                    yield used
                elif used in uses and used not in done:
                    open_uses.append((used, iter(uses[used])))
                    break
            else:
                open_uses.pop()
                entered.pop(owner)
                done.add(owner)
