"""How a reader takes what a writer wrote: the rules of schema resolution, carried out on one value.

The specification's "first schema in the reader's union that matches" is read as the reference implementation does: a
branch of the writer's own type and full name comes before one that needs a promotion, an alias, or leaves the namespace
out (org.apache.avro.Resolver.ReaderUnion). Others take the words as they stand, which `first_match` tells. A
field with several matches takes the writer's field of its own name.

Source: Apache Avro 1.12 Specification, "Schema Resolution" and "Aliases".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Final

from services.registry.domain.formats.avro import meaning
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
    unqualified,
)
from services.registry.domain.formats.avro.scalars import scalar_fault
from services.registry.domain.formats.avro.values import DEPTH_MAX, VALUES_MAX, Chosen, Meant, TooLarge, Value
from services.registry.domain.formats.json_text import Json

PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "long": frozenset({"int"}),
    "float": frozenset({"int", "long"}),
    "double": frozenset({"int", "long", "float"}),
    "bytes": frozenset({"string"}),
    "string": frozenset({"bytes"}),
}
"""What else a reader's primitive type reads."""


class Rejected(Exception):
    """The reader cannot take the value. `str()` says why."""


def same_kind(reader: Resolved | Type, writer: Resolved | Type) -> bool:
    """Whether two types that are no unions are of one kind, or the writer's is promoted to the reader's."""
    if isinstance(reader, Named) or isinstance(writer, Named):
        return False
    return reader.kind == writer.kind or writer.kind in PROMOTIONS.get(reader.kind, ())


def same_name(reader: Definition, writer: Definition) -> bool:
    """Whether names match: without their namespaces, or an alias of the reader's with the writer's full name."""
    return unqualified(reader.name) == unqualified(writer.name) or writer.name in reader.aliases


def by_name(record: Record) -> Mapping[str, Field]:
    """The fields of a record."""
    return {one.name: one for one in record.fields}


def written(one: Field, fields: Mapping[str, Field]) -> Field | None:
    """The writer's field that a reader's field is filled from; None when only its default can."""
    return next((fields[name] for name in (one.name, *one.aliases) if name in fields), None)


def pick(schema: Schema, union: Union, writer: Resolved) -> int | None:
    """Index of the branch of a reader's union that takes the writer's type, which is no union; None for none."""
    likely: list[int] = []
    for index, branch in enumerate(union.branches):
        reader = schema.resolve(branch)
        if isinstance(reader, Record | Enum | Fixed) and isinstance(writer, Record | Enum | Fixed):
            if reader.kind != writer.kind:
                continue
            if reader.name == writer.name:
                return index
            if same_name(reader, writer):
                likely.append(index)
        elif reader.kind == writer.kind:
            return index
        elif same_kind(reader, writer):
            likely.append(index)
    if isinstance(writer, Fixed):
        likely.sort(key=lambda index: _size(schema.resolve(union.branches[index])) != writer.size)
    return likely[0] if likely else None


def first_match(schema: Schema, union: Union, writer: Resolved) -> int | None:
    """Index of the first branch that matches at all, which is what the specification says and some libraries pick."""
    for index, branch in enumerate(union.branches):
        reader = schema.resolve(branch)
        if isinstance(reader, Record | Enum | Fixed) and isinstance(writer, Record | Enum | Fixed):
            if reader.kind == writer.kind and same_name(reader, writer) and _size(reader) == _size(writer):
                return index
        elif same_kind(reader, writer):
            return index
    return None


class Reader:
    """Reads values of one schema as values of another."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader = reader
        self._writer = writer
        self._changed = False
        self._filled = 0

    def read(self, value: Value) -> tuple[Value, bool]:
        """What the reader makes of a writer's value, and whether any part of it means something else now.

        Raises Rejected, and TooLarge when defaults fill in too much.
        """
        self._changed = False
        self._filled = 0
        return self._read(self._reader.root, self._writer.root, value), self._changed

    def _read(self, reader_use: Type | Definition, writer_use: Type | Definition, value: Value) -> Value:
        reader, writer = self._reader.resolve(reader_use), self._writer.resolve(writer_use)
        if isinstance(writer, Union):
            assert isinstance(value, Chosen)
            return self._read(reader, writer.branches[value.index], value.value)
        if isinstance(reader, Union):
            index = pick(self._reader, reader, writer)
            if index is None:
                raise Rejected("no branch of the reader's union takes it")
            return Chosen(index, self._read(reader.branches[index], writer, value))
        match reader, writer, value:
            case Array(items=item), Array(items=other), list():
                return [self._read(item, other, one) for one in value]
            case Map(values=item), Map(values=other), dict():
                return {name: self._read(item, other, one) for name, one in value.items()}
            case Record(), Record(), dict() if same_name(reader, writer):
                return self._record(reader, writer, value)
            case Enum(), Enum(), str() if same_name(reader, writer):
                return self._symbol(reader, value)
            case Fixed(), Fixed(), bytes() if same_name(reader, writer) and reader.size == writer.size:
                return self._leaf(reader, writer, value)
            case Primitive(), Primitive(), _ if same_kind(reader, writer):
                return self._leaf(reader, writer, value)
        raise Rejected("the types do not match")

    def _record(self, reader: Record, writer: Record, value: Mapping[str, Value]) -> Value:
        fields = by_name(writer)
        found: dict[str, Value] = {}
        for one in reader.fields:
            source = written(one, fields)
            if source is not None:
                found[one.name] = self._read(one.type, source.type, value[source.name])
            elif one.has_default:
                found[one.name] = self.default(one.type, one.default)
            else:
                raise Rejected(f"nothing fills the field `{one.name}`")
        return found

    def _symbol(self, reader: Enum, symbol: str) -> Value:
        if symbol in reader.known:
            return symbol
        if reader.default is None:
            raise Rejected("the reader does not know the symbol")
        self._changed = True
        return reader.default

    def _leaf(self, reader: Primitive | Fixed, writer: Primitive | Fixed, value: Value) -> Value:
        found = promoted(reader.kind, value)
        fault = meaning.fault(reader, found)
        if fault is not None:
            raise Rejected(fault)
        if meaning.meaning(reader, found) == meaning.meaning(writer, value):
            return found
        self._changed = True
        return Meant(found, meaning.described(reader, found)) if reader.logical else found

    def default(self, use: Type | Definition, value: Json, depth: int = 0) -> Value:
        """The value that a default of the reader stands for.

        Raises Rejected when a logical type refuses it, and TooLarge.
        """
        self._filled += 1
        if depth > DEPTH_MAX or self._filled > VALUES_MAX:
            raise TooLarge("the defaults that fill it in are too large")
        match self._reader.resolve(use), value:
            case Union(branches=branches), _:
                return self._default_of_union(branches, value, depth)
            case Record(fields=fields), dict():
                return {one.name: self.default(one.type, value.get(one.name, one.default), depth + 1) for one in fields}
            case Array(items=inner), list():
                return [self.default(inner, one, depth + 1) for one in value]
            case Map(values=inner), dict():
                return {name: self.default(inner, one, depth + 1) for name, one in value.items()}
            case (Enum() | Primitive() | Fixed()) as leaf, _:
                return _default_scalar(leaf, value)
        raise Rejected("a default is not of its type")

    def _default_of_union(self, branches: tuple[Type, ...], value: Json, depth: int) -> Value:
        for index, branch in enumerate(branches):
            if self._fits(branch, value, depth):
                return Chosen(index, self.default(branch, value, depth + 1))
        raise Rejected("a default is of no branch of its union")

    def _fits(self, use: Type | Definition, value: Json, depth: int) -> bool:
        """Whether a default is of a type, logical types aside. Raises TooLarge."""
        self._filled += 1
        if depth > DEPTH_MAX or self._filled > VALUES_MAX:
            raise TooLarge("the defaults that fill it in are too large")
        match self._reader.resolve(use), value:
            case Union(branches=branches), _:
                return any(self._fits(branch, value, depth + 1) for branch in branches)
            case Record() as record, dict():
                known = by_name(record)
                return all(name in known for name in value) and all(
                    self._fits(one.type, value[one.name], depth + 1) if one.name in value else one.has_default
                    for one in record.fields
                )
            case Array(items=inner), list():
                return all(self._fits(inner, one, depth + 1) for one in value)
            case Map(values=inner), dict():
                return all(self._fits(inner, one, depth + 1) for one in value.values())
            case (Enum() | Primitive() | Fixed()) as leaf, _:
                return scalar_fault(leaf, value) is None
        return False


def promoted(kind: str, value: Value) -> Value:
    """A scalar as a reader's type holds it. Raises Rejected."""
    match kind, value:
        case "float", int() | float() if not isinstance(value, bool):
            return _single(value)
        case "double", int() if not isinstance(value, bool):
            return float(value)
        case "bytes", str():
            return value.encode()
        case "string", bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise Rejected("the bytes are not UTF-8, which a string must be") from None
    return value


def _single(value: float) -> float:
    """The nearest number of single precision."""
    if not math.isfinite(value):
        return value
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def _default_scalar(leaf: Enum | Primitive | Fixed, value: Json) -> Value:
    found: Value
    if isinstance(value, str) and leaf.kind in ("bytes", "fixed"):
        found = value.encode("latin-1")
    elif leaf.kind in ("float", "double") and value is not None and not isinstance(value, str | list | dict):
        found = promoted(leaf.kind, float(value))
    else:
        assert not isinstance(value, list | dict)
        found = value if isinstance(value, str | bool | int) or value is None else float(value)
    if not isinstance(leaf, Enum):
        fault = meaning.fault(leaf, found)
        if fault is not None:
            raise Rejected(fault)
    return found


def _size(item: Resolved) -> int:
    return item.size if isinstance(item, Fixed) else -1
