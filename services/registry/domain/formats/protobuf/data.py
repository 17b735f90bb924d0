"""Data checked against a schema: ProtoJSON, binary, and binary behind the message indexes of the framed form.

Sources: protobuf.dev, "ProtoJSON Format" and "Encoding"; Confluent, "Formats, Serializers, and Deserializers", wire
format, on message indexes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from llm_schema_registry.errors import InvalidField
from services.registry.domain.formats import DataRules, DataValidator, Encoding, Problem, Validation
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.protobuf import wire
from services.registry.domain.formats.protobuf.json_payload import JsonValidator
from services.registry.domain.formats.protobuf.schema import (
    Schema,
    body,
    entry,
    file_of,
    is_entry,
    is_map,
    is_message,
    nested,
    type_of,
)
from services.registry.domain.limits import VALIDATION_ERRORS_MAX

INDEXES_MAX: Final = 32
"""Message indexes of one payload: messages within messages, of which protoc takes 32 levels."""

_VALID: Final = Validation(())

_STEP: Final = re.compile(r'\.?([A-Za-z_]\w*|\([\w.]+\))|\[("?)(.*?)\2\](?=[.\[]|$)', re.DOTALL)


def validator(schema: Schema, rules: DataRules) -> DataValidator:
    """A validator of payloads of one message.

    message_type: a message of the text or of what it imports, by full name; the text's first one when empty.
    Raises InvalidField naming `message_type`.
    """
    target = _target(schema, rules.message_type)
    if rules.encoding is Encoding.JSON:
        return JsonValidator(schema, target, strict=rules.strict)
    if rules.encoding is Encoding.BINARY:
        return BinaryValidator(schema, target, strict=rules.strict)
    return FramedValidator(schema, target if rules.message_type else None, strict=rules.strict)


class BinaryValidator:
    """Checks binary payloads of one message.

    Unknown fields are accepted unless strict; a field that comes in another encoding than that of its type is an
    unknown one to every parser. A number that a closed enum does not have, and text that is no UTF-8, are always at
    fault.
    """

    def __init__(self, schema: Schema, target: Descriptor, *, strict: bool) -> None:
        self._schema = schema
        self._target = target
        self._class: Any = type(schema.new(target))
        self._strict = strict
        traits = _Traits(target)
        self._may_lack = traits.required
        self._may_hold_strangers = strict or traits.closed_enums
        self._look_inside = traits.unseen_text

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check."""
        try:
            message = self._class.FromString(data)
        except (DecodeError, RecursionError):
            return Validation((_explained(self._schema, self._target, data),))
        if self._look_inside or (self._may_lack and not message.IsInitialized()):
            return _limited(self._problems(message))
        if self._may_hold_strangers:
            size = message.ByteSize()
            message.DiscardUnknownFields()
            if message.ByteSize() != size:
                return _limited(self._problems(self._class.FromString(data)))
        return _VALID

    def _problems(self, message: Message) -> Iterator[Problem]:
        if not message.IsInitialized():
            for missing in cast("Any", message).FindInitializationErrors():
                path = pointer(_steps(missing))
                yield Problem(path, "", "required", "a required field is missing")
        yield from self._inside(message)

    def _inside(self, message: Message) -> Iterator[Problem]:
        """Faults that parsers let through, without recursion, in the order of the fields."""
        waiting: list[tuple[tuple[str | int, ...], Message]] = [((), message)]
        while waiting:
            way, item = waiting.pop()
            yield from self._strangers(way, item)
            below: list[tuple[tuple[str | int, ...], Message]] = []
            for field, value in item.ListFields():
                for key, one in _members(field, value):
                    place = (*way, field.name, *key)
                    if isinstance(one, Message):
                        below.append((place, one))
                    elif isinstance(one, bytes) and _is_text(field):
                        yield Problem(pointer(place), self._schema.path(field), "string", "is not UTF-8")
            waiting.extend(reversed(below))

    def _strangers(self, way: Sequence[str | int], message: Message) -> Iterator[Problem]:
        """Unknown fields of one message, each number once."""
        known = None
        for number, varint in dict.fromkeys(
            (one.field_number, one.wire_type == wire.VARINT) for one in cast("Any", UnknownFieldSet(message))
        ):
            known = self._schema.fields(type_of(message)) if known is None else known
            field = known.get(number)
            if field is None:
                if self._strict:
                    name = type_of(message).full_name
                    text = f"field number {number} is not one of `{name}`"
                    yield Problem(pointer((*way, number)), self._schema.path(type_of(message)), "unknown", text)
                continue
            path = pointer((*way, field.name))
            enum = (entry(field)[1] if is_map(field) else field).enum_type
            if enum is not None and enum.is_closed and (varint or field.is_repeated):
                text = f"holds a number that the closed enum `{enum.full_name}` does not have"
                yield Problem(path, self._schema.path(field), "enum", text)
            elif self._strict:
                text = f"field number {number} is written in another encoding than that of its type"
                yield Problem(path, self._schema.path(field), "unknown", text)


class FramedValidator:
    """Checks payloads that begin with message indexes: a zigzag count and as many zigzag numbers, or one zero byte for
    the first message. They count the messages of the text, then those within the message, map entries left out.

    target: the message that they must name; None when they alone decide.
    """

    def __init__(self, schema: Schema, target: Descriptor | None, *, strict: bool) -> None:
        self._schema = schema
        self._target = target
        self._strict = strict
        self._validators: dict[str, BinaryValidator] = {}

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check."""
        try:
            indexes, begin = message_indexes(data)
        except wire.WireError as error:
            return _single("indexes", f"the message indexes cannot be read: byte {error.offset}: {error}")
        named = _named(self._schema, indexes)
        shown = ", ".join(map(str, indexes))
        if named is None:
            return _single("indexes", f"the message indexes [{shown}] lead to no message of the schema")
        if self._target is not None and named.full_name != self._target.full_name:
            names = f"`{named.full_name}`, and `message_type` is `{self._target.full_name}`"
            return _single("indexes", f"the message indexes [{shown}] name {names}")
        kept = self._validators.get(named.full_name)
        if kept is None:
            kept = self._validators[named.full_name] = BinaryValidator(self._schema, named, strict=self._strict)
        return kept.check(data[begin:])


def message_indexes(data: bytes) -> tuple[list[int], int]:
    """The message indexes at the beginning of framed data, and where the message begins. Raises WireError."""
    raw, position = wire.varint(data, 0, len(data))
    count = wire.zigzag(raw)
    if not 0 <= count <= INDEXES_MAX:
        raise wire.WireError(0, f"{count} is no number of indexes; at most {INDEXES_MAX} are allowed")
    indexes = []
    for _ in range(count):
        raw, position = wire.varint(data, position, len(data))
        indexes.append(wire.zigzag(raw))
    return indexes or [0], position


def _named(schema: Schema, indexes: Sequence[int]) -> Descriptor | None:
    found: Descriptor | None = None
    for index in indexes:
        among = schema.messages() if found is None else nested(found)
        if not 0 <= index < len(among):
            return None
        found = among[index]
    return found


def _target(schema: Schema, name: str) -> Descriptor:
    """The message that data is checked against. Raises InvalidField naming `message_type`."""
    messages = {message.full_name: message for message in schema.all_messages()}
    if not name:
        first = next(iter(messages.values()), None)
        if first is None:
            raise InvalidField.of("message_type", "the schema defines no message, so that no data can follow it")
        return first
    if name in messages:
        return messages[name]
    try:
        imported = schema.message(name)
    except (KeyError, UnicodeEncodeError):
        imported = None
    if imported is not None and not is_entry(imported):
        return imported
    near = difflib.get_close_matches(name[:300], messages, n=1) or difflib.get_close_matches(
        f"{schema.package}.{name[:300]}", messages, n=1
    )
    hint = f"; did you mean `{near[0]}`?" if near else ""
    raise InvalidField.of("message_type", f"the schema defines no message of the full name {name[:100]!r}{hint}")


class _Traits:
    """What a message, or one in it, can have that makes a check look again at what parsers accept.

    required: required fields. closed_enums: whose unknown numbers parsers put aside. unseen_text: text that they take
    for UTF-8 without a look. An extension may be anything.
    """

    def __init__(self, target: Descriptor) -> None:
        self.required = self.closed_enums = self.unseen_text = False
        seen = {target.full_name}
        waiting = [target]
        while waiting:
            message = waiting.pop()
            if message.is_extendable:
                self.required = self.closed_enums = self.unseen_text = True
            for field in message.fields:
                self.required |= field.is_required
                self.closed_enums |= field.enum_type is not None and field.enum_type.is_closed
                self.unseen_text |= _is_text(field) and not _is_proto3(field)
                inner = field.message_type
                if inner is not None and inner.full_name not in seen:
                    seen.add(inner.full_name)
                    waiting.append(inner)


def _is_text(field: FieldDescriptor) -> bool:
    if is_map(field):
        return any(_is_text(inner) for inner in entry(field))
    return bool(field.type == FieldDescriptor.TYPE_STRING)


def _is_proto3(field: FieldDescriptor) -> bool:
    """Whether a field's text is looked at by parsers for sure. Other files can choose."""
    return bool(file_of(field).serialized_pb.endswith(b"b\x06proto3"))


def _members(field: FieldDescriptor, value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Values of a field that may be at fault, with what leads to each from the field."""
    if is_map(field):
        for key in value:
            shown = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
            if isinstance(key, bytes):
                yield (shown,), key
            yield (shown,), value[key]
    elif field.is_repeated:
        if is_message(field) or _is_text(field):
            yield from (((index,), one) for index, one in enumerate(value))
    else:
        yield (), value


def _explained(schema: Schema, target: Descriptor, data: bytes) -> Problem:
    """Why the parser refuses bytes: the first place that is wrong, in the order of the bytes."""
    waiting: list[tuple[tuple[str | int, ...], Descriptor, int, int, int]] = [((), target, 0, len(data), 1)]
    while waiting:
        way, message, start, end, depth = waiting.pop()
        if depth > wire.DEPTH_MAX + 1:
            text = f"messages are nested deeper than {wire.DEPTH_MAX}"
            return Problem(pointer(way[:10]), schema.path(message), "depth", text)
        known = schema.fields(message)
        try:
            for one in wire.fields(data, start, end):
                field = known.get(one.number)
                if field is None or one.wire_type not in {wire.LENGTH, wire.GROUP}:
                    continue
                place = (*way, field.name)
                if is_message(field):
                    waiting.append((place, body(field), one.start, one.end, depth + 1))
                elif _is_text(field) and not _is_utf8(data[one.start : one.end]):
                    return Problem(pointer(place), schema.path(field), "string", "is not UTF-8")
        except wire.WireError as error:
            text = f"cannot be read as `{message.full_name}`: byte {error.offset}: {error}"
            return Problem(pointer(way), schema.path(message), "binary", text)
    return Problem("", schema.path(target), "binary", f"cannot be read as `{target.full_name}`")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _steps(path: str) -> list[str | int]:
    """A path of the library, such as a.b[0].c, as parts."""
    return [found[1] or found[3] for found in _STEP.finditer(path)]


def _limited(problems: Iterable[Problem]) -> Validation:
    found = list(islice(problems, VALIDATION_ERRORS_MAX + 1))
    return Validation(tuple(found[:VALIDATION_ERRORS_MAX]), truncated=len(found) > VALIDATION_ERRORS_MAX)


def _single(keyword: str, message: str) -> Validation:
    return Validation((Problem("", "", keyword, message),))
