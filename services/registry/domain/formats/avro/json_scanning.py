"""Data in the JSON encoding that plainly follows a schema is told from all other by one closure for each type.

A closure takes a value as `json_data.read` gives it and the number of recursive uses that it is within, and says
whether the value plainly follows its type. Where it does not, data.py finds out what is wrong, if anything is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.places import by_label
from services.registry.domain.formats.avro.scalars import scalar_fault
from services.registry.domain.formats.avro.scanning import inner_types, reachable
from services.registry.domain.formats.json_data import Data

Fits: TypeAlias = Callable[[Data, int], bool]

_NESTING_MAX: Final = 60
_CALLS_MAX: Final = 300
"""Closures that call each other, two for each level of data: well within what the interpreter allows."""


def scanner(schema: Schema, *, assert_formats: bool, strict: bool) -> Fits | None:
    """Whether a datum plainly follows the schema; None for a schema that nests too deep to tell."""
    return _Compiler(schema, assert_formats=assert_formats, strict=strict).compile()


class _Compiler:
    """Closures for the definitions of one schema."""

    def __init__(self, schema: Schema, *, assert_formats: bool, strict: bool) -> None:
        self._schema = schema
        self._assert_formats = assert_formats
        self._strict = strict
        self._made: dict[str, Fits] = {}
        self._nesting: dict[str, int] = {}
        self._uses_max = [_CALLS_MAX]

    def compile(self) -> Fits | None:
        """The closure of the root. Definitions come after those that they use, but for recursive uses."""
        wanted = reachable(self._schema)
        for name, item in self._schema.types.items():
            if name in wanted:
                self._made[name] = self._fits(item)
                self._nesting[name] = self._depth(item)
                if self._nesting[name] > _NESTING_MAX:
                    return None
        fits = self._fits(self._schema.root)
        deepest = max([self._depth(self._schema.root), *self._nesting.values()])
        self._uses_max[0] = _CALLS_MAX // (2 * deepest + 1)
        return fits

    def _depth(self, item: Type | Definition) -> int:
        if isinstance(item, Named):
            return self._nesting.get(item.name, 1)
        return 1 + max((self._depth(one) for one in inner_types(item)), default=0)

    def _fits(self, item: Type | Definition) -> Fits:
        match item:
            case Named(name=name):
                return self._made.get(name) or self._recursive(name)
            case Union():
                return self._union(item)
            case Record():
                return self._record(item)
            case Array(items=inner):
                return _array(self._fits(inner))
            case Map(values=inner):
                return _map(self._fits(inner))
            case Enum(known=known):
                return lambda value, _: isinstance(value, str) and value in known
            case Primitive() | Fixed():
                if self._assert_formats and item.logical is not None:
                    return _doubt
                return _SCALARS.get(item.kind) or _scalar(item)

    def _recursive(self, name: str) -> Fits:
        made, uses_max = self._made, self._uses_max
        return lambda value, uses: uses < uses_max[0] and made[name](value, uses + 1)

    def _union(self, union: Union) -> Fits:
        labels = by_label(self._schema, union)
        branches = {label: self._fits(one) for label, one in labels.items() if label != "null"}
        null = "null" in labels

        def fits(value: Data, uses: int) -> bool:
            if value is None:
                return null
            if not isinstance(value, dict) or len(value) != 1:
                return False
            for label, inner in value.items():
                branch = branches.get(label)
                return branch is not None and branch(inner, uses)
            return False

        return fits

    def _record(self, record: Record) -> Fits:
        fields = tuple((one.name, self._fits(one.type)) for one in record.fields)
        count, strict = len(fields), self._strict

        def fits(value: Data, uses: int) -> bool:
            if not isinstance(value, dict) or (strict and len(value) != count):
                return False
            try:
                for name, inner in fields:
                    if not inner(value[name], uses):
                        return False
            except KeyError:
                return False
            return True

        return fits


def _array(inner: Fits) -> Fits:
    def fits(value: Data, uses: int) -> bool:
        if not isinstance(value, list):
            return False
        for one in value:  # noqa: SIM110  # A generator costs twice as much.
            if not inner(one, uses):
                return False
        return True

    return fits


def _map(inner: Fits) -> Fits:
    def fits(value: Data, uses: int) -> bool:
        if not isinstance(value, dict):
            return False
        for one in value.values():  # noqa: SIM110  # A generator costs twice as much.
            if not inner(one, uses):
                return False
        return True

    return fits


def _scalar(item: Primitive | Fixed) -> Fits:
    return lambda value, _: scalar_fault(item, value) is None


def _doubt(_: Data, __: int) -> bool:
    return False


_SCALARS: Final[Mapping[str, Fits]] = {
    "null": lambda value, _: value is None,
    "boolean": lambda value, _: value is True or value is False,
    "int": lambda value, _: type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF,
    "long": lambda value, _: type(value) is int and -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF,
    "double": lambda value, _: type(value) is float or (type(value) is int and abs(value) < 1 << 1000),
    "string": lambda value, _: type(value) is str,
}
"""What `json_data.read` has made sure of needs no look: numbers are finite, and strings are text."""
