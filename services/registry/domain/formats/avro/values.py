"""Data as values: written in the binary and in the JSON encoding, and read back.

A value of `null` is None; numbers, booleans and strings are what they are; bytes and fixed are bytes; a symbol is its
text; arrays are lists; maps and records are dicts; a value of a union says which branch it is of.

Source: Apache Avro 1.12 Specification, "Binary Encoding" and "JSON Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
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
from services.registry.domain.formats.avro.places import branch_label
from services.registry.domain.formats.json_data import Data

DEPTH_MAX: Final = 100
"""Levels of nesting of a value: all functions on values may recurse."""

VALUES_MAX: Final = 10_000
"""Values within one value; a fixed counts one for every 16 bytes."""

_NEVER: Final = 1 << 62
_PASSES_MAX: Final = 100
_NUMBERS: Final[Mapping[str, str]] = {"float": "<f", "double": "<d"}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A value of a union. index: of its branch."""

    index: int
    value: Value


@dataclass(frozen=True, slots=True)
class Meant:
    """A value whose logical type makes it mean something else than was written. text: what it means to the reader."""

    value: Value
    text: str


Value: TypeAlias = "bool | int | float | bytes | str | list[Value] | dict[str, Value] | Chosen | Meant | None"


class TooLarge(Exception):
    """A value would exceed a limit. `str()` says why, as the end of a sentence."""


def encoded(schema: Schema, item: Type | Definition, value: Value) -> bytes:
    """A value of a type in the binary encoding."""
    match schema.resolve(item), value:
        case Union(branches=branches), Chosen(index=index, value=inner):
            return long_bytes(index) + encoded(schema, branches[index], inner)
        case Record(fields=fields), dict():
            return b"".join(encoded(schema, one.type, value[one.name]) for one in fields)
        case Array(items=inner), list():
            return _blocks([encoded(schema, inner, one) for one in value])
        case Map(values=inner), dict():
            return _blocks([_sized(name.encode()) + encoded(schema, inner, one) for name, one in value.items()])
        case Enum(symbols=symbols), str():
            return long_bytes(symbols.index(value))
        case Fixed(), bytes():
            return value
        case Primitive(kind=kind), _:
            return _scalar(kind, value)
    raise TypeError


def decoded(schema: Schema, item: Type | Definition, data: bytes) -> Value:
    """The value that valid data stands for. Raises whatever comes up on other data."""
    value, position = _decoded(schema, item, data, 0)
    assert position == len(data)
    return value


def as_json(schema: Schema, item: Type | Definition, value: Value) -> Data:
    """A value in the JSON encoding, but for one that is meant otherwise, in place of which stands what it means."""
    if isinstance(value, Meant):
        return value.text
    match schema.resolve(item), value:
        case Union(branches=branches), Chosen(index=index, value=inner):
            branch = schema.resolve(branches[index])
            return None if branch.kind == "null" else {branch_label(branch): as_json(schema, branch, inner)}
        case Record(fields=fields), dict():
            return {one.name: as_json(schema, one.type, value[one.name]) for one in fields}
        case Array(items=inner), list():
            return [as_json(schema, inner, one) for one in value]
        case Map(values=inner), dict():
            return {name: as_json(schema, inner, one) for name, one in value.items()}
        case _, bytes():
            return value.decode("latin-1")
        case _, None | bool() | int() | float() | str():
            return value
    raise TypeError


def long_bytes(number: int) -> bytes:
    """A number in the variable-length zig-zag encoding."""
    rest = (number << 1) ^ (number >> 63)
    found = bytearray()
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


class Smallest:
    """The smallest values of a schema's types."""

    def __init__(self, schema: Schema) -> None:
        """Counts how many values the smallest value of each definition holds.

        Counts only ever fall, and each is that of some value: to stop early is safe. Definitions come after those that
        they use, but for recursive uses, so a few passes do.
        """
        self._schema = schema
        self._counts: dict[str, int] = {}
        for _ in range(_PASSES_MAX):
            before = dict(self._counts)
            for name, item in schema.types.items():
                self._counts[name] = self.count(item)
            if self._counts == before:
                break

    def count(self, item: Type | Definition) -> int:
        """How many values the smallest value of a type holds, or a number beyond VALUES_MAX."""
        match item:
            case Named(name=name):
                return self._counts.get(name, _NEVER)
            case Union(branches=branches):
                return min(min((self.count(one) for one in branches), default=_NEVER) + 1, _NEVER)
            case Record(fields=fields):
                return min(sum(self.count(one.type) for one in fields) + 1, _NEVER)
            case Enum(symbols=symbols):
                return 1 if symbols else _NEVER
            case Fixed(size=size):
                return 1 + size // 16
        return 1

    def value(self, item: Type | Definition, depth: int = 0) -> Value:
        """The smallest value of a type, which its logical type accepts too. Raises TooLarge."""
        count = self.count(item)
        if count >= _NEVER:
            raise TooLarge("no data can be written there")
        if count > VALUES_MAX or depth > DEPTH_MAX:
            raise TooLarge("the smallest data that could show it is too large")
        match self._schema.resolve(item):
            case Union(branches=branches):
                index = min(range(len(branches)), key=lambda one: self.count(branches[one]))
                return Chosen(index, self.value(branches[index], depth + 1))
            case Record(fields=fields):
                return {one.name: self.value(one.type, depth + 1) for one in fields}
            case Array():
                return []
            case Map():
                return {}
            case Enum(symbols=symbols):
                return symbols[0]
            case Fixed(size=size):
                return bytes(size)
            case Primitive() as primitive:
                return smallest_scalar(primitive)


def smallest_scalar(item: Primitive) -> Value:
    """A value of a primitive type, as short as its logical type lets it be."""
    name = item.logical.name if item.logical else ""
    match item.kind:
        case "null":
            return None
        case "boolean":
            return False
        case "int" | "long":
            return 0
        case "float" | "double":
            return 0.0
        case "bytes":
            return {"decimal": b"\x00", "big-decimal": b"\x02\x00\x00"}.get(name, b"")
    return "00000000-0000-0000-0000-000000000000" if name == "uuid" else ""


def _blocks(items: list[bytes]) -> bytes:
    return (long_bytes(len(items)) + b"".join(items) if items else b"") + b"\x00"


def _sized(content: bytes) -> bytes:
    return long_bytes(len(content)) + content


def _scalar(kind: str, value: Value) -> bytes:
    match kind, value:
        case "null", None:
            return b""
        case "boolean", bool():
            return b"\x01" if value else b"\x00"
        case "int" | "long", int():
            return long_bytes(value)
        case "float" | "double", int() | float():
            return struct.pack(_NUMBERS[kind], value)
        case "bytes", bytes():
            return _sized(value)
        case "string", str():
            return _sized(value.encode())
    raise TypeError


def _decoded(schema: Schema, item: Type | Definition, data: bytes, position: int) -> tuple[Value, int]:
    match schema.resolve(item):
        case Union(branches=branches):
            index, position = _long(data, position)
            value, position = _decoded(schema, branches[index], data, position)
            return Chosen(index, value), position
        case Record(fields=fields):
            record: dict[str, Value] = {}
            for one in fields:
                record[one.name], position = _decoded(schema, one.type, data, position)
            return record, position
        case Array() | Map() as container:
            return _decoded_items(schema, container, data, position)
        case Enum(symbols=symbols):
            index, position = _long(data, position)
            return symbols[index], position
        case Fixed(size=size):
            return data[position : position + size], position + size
        case Primitive(kind=kind):
            return _decoded_scalar(kind, data, position)


def _decoded_items(schema: Schema, container: Array | Map, data: bytes, position: int) -> tuple[Value, int]:
    items: list[Value] = []
    entries: dict[str, Value] = {}
    while True:
        count, position = _long(data, position)
        if count < 0:
            _, position = _long(data, position)
        if not count:
            return (items if isinstance(container, Array) else entries), position
        for _ in range(abs(count)):
            if isinstance(container, Array):
                value, position = _decoded(schema, container.items, data, position)
                items.append(value)
            else:
                name, position = _decoded_scalar("string", data, position)
                assert isinstance(name, str)
                entries[name], position = _decoded(schema, container.values, data, position)


def _decoded_scalar(kind: str, data: bytes, position: int) -> tuple[Value, int]:
    match kind:
        case "null":
            return None, position
        case "boolean":
            return data[position] == 1, position + 1
        case "int" | "long":
            return _long(data, position)
        case "float" | "double":
            size = struct.calcsize(_NUMBERS[kind])
            return struct.unpack_from(_NUMBERS[kind], data, position)[0], position + size
    length, position = _long(data, position)
    content = data[position : position + length]
    return (content.decode() if kind == "string" else content), position + length


def _long(data: bytes, position: int) -> tuple[int, int]:
    end = position
    while data[end] >= 0x80:
        end += 1
    value = 0
    for byte in reversed(data[position : end + 1]):
        value = value << 7 | byte & 0x7F
    return (value >> 1) ^ -(value & 1), end + 1
