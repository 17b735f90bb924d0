"""Messages of a writer's type, made to show what its reader gets wrong. Deterministic and bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from services.registry.domain.formats.protobuf.schema import (
    Schema,
    body,
    entry,
    enum_of,
    extensions_of,
    is_map,
    is_message,
    numbered,
    type_of,
)

REQUIRED_DEPTH_MAX: Final = 20
"""Messages within messages that required fields make necessary. Beyond it a message is taken to be impossible."""

REQUIRED_FIELDS_MAX: Final = 2_000
"""Required fields that are filled in for one message, all in all."""

SAMPLES_MAX: Final = 24
"""Values of one field that are tried."""

Setting: TypeAlias = tuple[FieldDescriptor, Sequence[Any]]
"""A field and its values: one for a single field, some for a repeated one, pairs of key and value for a map."""

_INT32: Final = (1, 2, -1, (1 << 31) - 1, -(1 << 31), 0)
_UINT32: Final = (1, 2, (1 << 32) - 1, 1 << 31, 0)
_SAMPLES: Final[dict[int, tuple[Any, ...]]] = {
    FieldDescriptor.TYPE_BOOL: (True, False),
    FieldDescriptor.TYPE_BYTES: (b"\xff\xfe", b"a", b"abcd", b"\n\x01a", b"\x08\x01", b""),
    FieldDescriptor.TYPE_STRING: ("a", "\u00e9", "abcd", "1", "1.5", "true", "NaN", ""),
    FieldDescriptor.TYPE_FLOAT: (1.0, 1.5, -1.5, 1e30, 0.0),
    FieldDescriptor.TYPE_DOUBLE: (1.0, 1.5, 0.1, -1.5, 1e300, 0.0),
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), _INT32),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64),
        (*_INT32, 1 << 31, (1 << 32) + 1, (1 << 63) - 1, -(1 << 63)),
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), _UINT32),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), (*_UINT32, (1 << 32) + 1, (1 << 64) - 1, 1 << 63)
    ),
}


class Impossible(Exception):
    """No message of a type can be written, as far as is looked: it requires itself, or too much."""


class Maker:
    """Makes messages of one schema, with every required field set. completed: how many it has set for that."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.completed = 0

    def message(self, kind: Descriptor, settings: Sequence[Setting] = ()) -> Message:
        """A message with these fields, and the required ones. Raises Impossible."""
        message = self._schema.new(kind)
        for field, values in settings:
            put(message, field, values)
        self._complete(message)
        return message

    def around(self, way: Sequence[FieldDescriptor], inner: Message) -> Message:
        """A message that holds another at the end of a way of fields, the outermost first. Raises Impossible."""
        for field in reversed(way):
            value: Any = inner
            if is_map(field):
                value = (key_samples(field)[0], inner)
            around = field.containing_type
            assert around is not None
            inner = self.message(around, [(field, [value])])
        return inner

    def settings(self, field: FieldDescriptor) -> Iterator[Sequence[Setting]]:
        """Ways to set a field, its edges among them; last, not at all."""
        return islice(self._settings(field), SAMPLES_MAX)

    def _settings(self, field: FieldDescriptor) -> Iterator[Sequence[Setting]]:
        if is_map(field):
            key, value = entry(field)
            keys, found = list(self.values(key)), list(self.values(value))
            yield from ([(field, [(keys[0], one)])] for one in found)
            yield from ([(field, [(one, found[0])])] for one in keys if found)
        else:
            found = list(self.values(field))
            yield from ([(field, [one])] for one in found)
            if field.is_repeated and found:
                yield [(field, [found[0], found[-1]])]
        yield []

    def values(self, field: FieldDescriptor) -> Iterator[Any]:
        """Values of a field, or of one item of it."""
        if is_message(field):
            try:
                yield self.message(body(field))
            except Impossible:
                return
            for inner in body(field).fields[:4]:
                if not is_message(inner):
                    value = next(self.values(inner))
                    try:
                        yield self.message(body(field), [(inner, [value])])
                    except Impossible:
                        return
        elif field.type == FieldDescriptor.TYPE_ENUM:
            yield from enum_samples(enum_of(field))
        else:
            yield from _SAMPLES[field.type]

    def _complete(self, message: Message) -> None:
        """Sets required fields, in it and in what it holds, without recursion. Raises Impossible."""
        waiting = [(message, 0)]
        count = 0
        while waiting:
            item, depth = waiting.pop()
            for field in type_of(item).fields:
                if not field.is_required or item.HasField(field.name):
                    continue
                count += 1
                self.completed += 1
                if depth == REQUIRED_DEPTH_MAX or count > REQUIRED_FIELDS_MAX:
                    raise Impossible
                if is_message(field):
                    inner = getattr(item, field.name)
                    inner.SetInParent()
                    waiting.append((inner, depth + 1))
                else:
                    put(item, field, [next(self.values(field))])


def key_samples(field: FieldDescriptor) -> tuple[Any, ...]:
    """Keys of a map field."""
    return _SAMPLES[entry(field)[0].type]


def enum_samples(enum: EnumDescriptor) -> Iterator[int]:
    """Numbers of an enum, those of its first values; of an open one a number without a name last."""
    yield from list(numbered(enum))[: SAMPLES_MAX - 4]
    if not enum.is_closed:
        yield unnamed(enum)


def unnamed(*enums: EnumDescriptor) -> int:
    """The smallest number above zero that none of the enums has a name for."""
    number = 1
    while any(number in enum.values_by_number for enum in enums):
        number += 1
    return number


def put(message: Message, field: FieldDescriptor, values: Sequence[Any]) -> None:
    """Sets a field. See Setting."""
    if not field.is_repeated and not is_message(field):
        if field.is_extension:
            extensions_of(message)[field] = values[0]
        else:
            setattr(message, field.name, values[0])
        return
    target: Any = extensions_of(message)[field] if field.is_extension else getattr(message, field.name)
    if is_map(field):
        for key, value in values:
            if is_message(entry(field)[1]):
                target[key].CopyFrom(value)
            else:
                target[key] = value
    elif not field.is_repeated:
        target.SetInParent()
        target.CopyFrom(values[0])
    else:
        for value in values:
            if is_message(field):
                target.add().CopyFrom(value)
            else:
                target.append(value)
