"""STRICT and LENIENT: differences between a reader's and a writer's schema by the reference registry's 26 kinds.

STRICT is its rule for each kind, quirks included. Fields match by number across the whole message. Types of numbers
that share an encoding interchange, and so do string and bytes. `repeated`, `required` and singular are labels; a change
of label matters only where both types are numeric scalars. Enums, services, options, reserved ranges, extensions,
defaults and the syntax never matter. Where that rule book is silent: a field that is written as a group in one schema
only changes its kind; a group's own message belongs to its field; a oneof of which nothing is left counts as deleted
with all its members.

LENIENT is what the binary encoding alone needs, so that names and moves of definitions are free:
- PACKAGE_CHANGED is fine: no data carries the package of its own type.
- MESSAGE_REMOVED is fine for a message that fields of the writer hold, since those fields are compared with what the
  reader has in their place. A message that no field holds is a payload of its own, which nothing at the reader reads.
- FIELD_NAMED_TYPE_CHANGED is fine: the two types are compared like those of one name.
- FIELD_KIND_CHANGED is fine between a map and a repeated message of the map's shape, which are written alike.
- FIELD_NUMERIC_LABEL_CHANGED is fine when the reader repeats what the writer writes once, or no longer requires it:
  parsers take one value for a list. A list read into one value loses values, and a packed one all.
- REQUIRED_FIELD_REMOVED and ONEOF_FIELD_REMOVED are fine: the field is an unknown one to the reader, like any other
  that it does not have.

Source: Confluent, "Schema Evolution and Compatibility", Protobuf; protobuf.dev, "Updating A Message Type".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats import Kind
from services.registry.domain.formats.protobuf.schema import (
    Schema,
    body,
    entry,
    is_entry,
    is_map,
    is_message,
    nested,
    numbered,
    relative,
    type_name,
)

FINE: Final = frozenset(
    {"MESSAGE_ADDED", "MESSAGE_MOVED", "ENUM_ADDED", "ENUM_REMOVED", "ENUM_CONST_ADDED", "ENUM_CONST_CHANGED"}
    | {"ENUM_CONST_REMOVED", "FIELD_ADDED", "FIELD_REMOVED", "FIELD_NAME_CHANGED", "ONEOF_ADDED", "ONEOF_REMOVED"}
    | {"FIELD_STRING_OR_BYTES_LABEL_CHANGED", "ONEOF_FIELD_ADDED", "ONEOF_FIELD_MOVED_TO_TOP_LEVEL"}
)
"""Kinds that never do harm."""

BREAKING: Final[Mapping[str, str]] = {
    "PACKAGE_CHANGED": "keep the package, or register the schema under a new subject",
    "MESSAGE_REMOVED": "keep the message, even if unused, or register the schema under a new subject",
    "FIELD_KIND_CHANGED": "keep the field as it was and add a new one with a new number",
    "FIELD_SCALAR_KIND_CHANGED": "keep the field as it was and add a new one with a new number",
    "FIELD_NAMED_TYPE_CHANGED": "keep the type's name, or add a new field with a new number",
    "FIELD_NUMERIC_LABEL_CHANGED": "keep the field as it was and add a new one with a new number",
    "REQUIRED_FIELD_ADDED": "make the field optional",
    "REQUIRED_FIELD_REMOVED": "keep the field, or make it optional everywhere before it goes",
    "ONEOF_FIELD_REMOVED": "keep the member, or remove the whole oneof",
    "MULTIPLE_FIELDS_MOVED_TO_ONEOF": "keep the fields as they were, or move one of them only",
    "FIELD_MOVED_TO_EXISTING_ONEOF": "keep the field as it was and add a new member with a new number",
}
"""Kinds that do harm under STRICT, and what to do."""

NOT_DECIDED: Final = "NOT_DECIDED"
"""The rule of a comparison that ends before its time: none of the 26 kinds."""

PAIRS_MAX: Final = 10_000
"""Pairs of message types that one comparison looks at: twice as many as a schema has messages. Under LENIENT types of
any name meet, so that two circles of some hundred messages make as many pairs as the product of their lengths."""

_GROUPS: Final = (
    ("int32", "int64", "uint32", "uint64", "bool", "enum"),
    ("sint32", "sint64"),
    ("string", "bytes"),
    ("fixed32", "sfixed32"),
    ("fixed64", "sfixed64"),
    ("float",),
    ("double",),
)
_GROUP_OF: Final[Mapping[str, int]] = {name: index for index, names in enumerate(_GROUPS) for name in names}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, as the reader's side tells it. A path is that of what is around it where the part is missing.

    kind: ADDED for what only the reader has. fine: no harm under the policy in force.
    """

    rule: str
    message: str
    reader_path: str
    writer_path: str
    kind: Kind = Kind.CHANGED
    fine: bool = False


def findings(reader: Schema, writer: Schema, *, lenient: bool) -> Iterator[Finding]:
    """Every difference of the 26 kinds, harmless ones too, each place once, in the order of the reader's text.

    NOT_DECIDED and UNDECIDED, as the last one, beyond PAIRS_MAX.
    """
    for change in changes(reader, writer, lenient=lenient):
        if change.rule == NOT_DECIDED:
            remedy = "check the change yourself and register under level NONE, or split the schema"
            yield Finding(change.rule, Verdict.UNDECIDED, change.message, remedy)
            continue
        yield Finding(
            change.rule,
            Verdict.COMPATIBLE if change.fine else Verdict.INCOMPATIBLE,
            change.message,
            "" if change.fine else BREAKING[change.rule],
            change.reader_path,
            change.writer_path,
        )


def changes(reader: Schema, writer: Schema, *, lenient: bool) -> Iterator[Change]:
    """See `findings`."""
    return _Comparison(reader, writer, lenient=lenient).changes()


def group(field: FieldDescriptor) -> int:
    """Which scalars a scalar interchanges with."""
    return _GROUP_OF["enum" if field.type == FieldDescriptor.TYPE_ENUM else type_name(field)]


class _Comparison:
    """Walks over pairs of messages, without recursion, each pair once."""

    def __init__(self, reader: Schema, writer: Schema, *, lenient: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._lenient = lenient
        self._seen: set[tuple[str, str]] = set()
        self._open: list[tuple[Descriptor, Descriptor]] = []
        self._held: frozenset[str] | None = None

    def changes(self) -> Iterator[Change]:
        reader, writer = self._reader, self._writer
        if reader.package != writer.package:
            yield self._change(
                "PACKAGE_CHANGED",
                f"the reader's package is `{reader.package[:100]}`, the writer's `{writer.package[:100]}`",
                "/package",
                "/package",
                fine=self._lenient,
            )
        yield from self._messages(reader.messages(), writer.messages(), "", "")
        yield from self._enums(reader.enums(), writer.enums(), "", "")
        while self._open:
            if len(self._seen) > PAIRS_MAX:
                message = f"the schemas have more than {PAIRS_MAX} pairs of messages to compare"
                yield self._change(NOT_DECIDED, message, "", "")
                return
            yield from self._message(*self._open.pop())

    def _change(
        self,
        rule: str,
        message: str,
        reader_path: str,
        writer_path: str,
        kind: Kind = Kind.CHANGED,
        *,
        fine: bool = False,
    ) -> Change:
        return Change(rule, message, reader_path, writer_path, kind, fine or rule in FINE)

    def _compare_later(self, reader: Descriptor, writer: Descriptor) -> None:
        key = (reader.full_name, writer.full_name)
        if key not in self._seen:
            self._seen.add(key)
            self._open.append((reader, writer))

    def _messages(
        self, reader: Sequence[Descriptor], writer: Sequence[Descriptor], reader_around: str, writer_around: str
    ) -> Iterator[Change]:
        """Definitions at one level: by name, and by their place, which the framed encoding counts."""
        read = {item.name: (index, item) for index, item in enumerate(reader)}
        written = {item.name: (index, item) for index, item in enumerate(writer)}
        for name, (_, item) in written.items():
            if name not in read and not _is_group(item):
                yield self._change(
                    "MESSAGE_REMOVED",
                    f"the reader has no message `{name[:100]}`",
                    reader_around,
                    self._writer.path(item),
                    Kind.REMOVED,
                    fine=self._lenient and item.full_name in self._held_by_fields(),
                )
        matched = []
        for name, (index, item) in read.items():
            if name not in written:
                if not _is_group(item):
                    message = f"the writer has no message `{name[:100]}`"
                    yield self._change("MESSAGE_ADDED", message, self._reader.path(item), writer_around, Kind.ADDED)
                continue
            other_index, other = written[name]
            if index != other_index:
                message = f"message `{name[:100]}` is number {index} here and number {other_index} at the writer"
                yield self._change("MESSAGE_MOVED", message, self._reader.path(item), self._writer.path(other))
            matched.append((item, other))
        for item, other in reversed(matched):
            self._compare_later(item, other)

    def _held_by_fields(self) -> frozenset[str]:
        """Full names of messages of the writer that fields of other messages hold."""
        if self._held is None:
            self._held = frozenset(
                body(field).full_name
                for message in self._writer.all_messages()
                for holder in (message, *(inner for inner in message.nested_types if is_entry(inner)))
                for field in holder.fields
                if is_message(field) and body(field).full_name != message.full_name
            )
        return self._held

    def _enums(
        self, reader: Sequence[EnumDescriptor], writer: Sequence[EnumDescriptor], reader_around: str, writer_around: str
    ) -> Iterator[Change]:
        read, written = {item.name: item for item in reader}, {item.name: item for item in writer}
        for name, other in written.items():
            if name not in read:
                message = f"the reader has no enum `{name[:100]}`"
                yield self._change("ENUM_REMOVED", message, reader_around, self._writer.path(other), Kind.REMOVED)
        for name, item in read.items():
            if name in written:
                yield from self._values(item, written[name])
                continue
            message = f"the writer has no enum `{name[:100]}`"
            yield self._change("ENUM_ADDED", message, self._reader.path(item), writer_around, Kind.ADDED)

    def _values(self, reader: EnumDescriptor, writer: EnumDescriptor) -> Iterator[Change]:
        around, other_around = self._reader.path(reader), self._writer.path(writer)
        read, written = numbered(reader), numbered(writer)
        names, other_names = _names(reader), _names(writer)
        for number, value in written.items():
            if number not in read:
                message = f"the reader's enum lacks `{value.name[:100]}` = {number}"
                yield self._change("ENUM_CONST_REMOVED", message, around, self._writer.path(value), Kind.REMOVED)
        for number, value in read.items():
            other = written.get(number)
            path = self._reader.path(value)
            if other is None:
                message = f"the writer's enum lacks `{value.name[:100]}` = {number}"
                yield self._change("ENUM_CONST_ADDED", message, path, other_around, Kind.ADDED)
            elif names[number] != other_names[number]:
                message = f"{number} is `{value.name[:100]}` here and `{other.name[:100]}` at the writer"
                yield self._change("ENUM_CONST_CHANGED", message, path, self._writer.path(other))

    def _message(self, reader: Descriptor, writer: Descriptor) -> Iterator[Change]:
        """All that differs between two messages themselves."""
        around, other_around = self._reader.path(reader), self._writer.path(writer)
        if self._reader.in_root(reader) and self._writer.in_root(writer):
            yield from self._messages(nested(reader), nested(writer), around, other_around)
            yield from self._enums(reader.enum_types, writer.enum_types, around, other_around)
        yield from _OneofComparison(self._reader, self._writer, reader, writer, lenient=self._lenient).changes()
        read, written = reader.fields_by_number, writer.fields_by_number
        for number in sorted({*read} & {*written}):
            yield from self._field(read[number], written[number])

    def _field(self, reader: FieldDescriptor, writer: FieldDescriptor) -> Iterator[Change]:
        """What differs between two fields of one number, apart from their oneofs."""
        if _plainly_alike(reader, writer):
            return
        paths = self._reader.path(reader), self._writer.path(writer)
        if reader.name != writer.name:
            message = f"field {reader.number} is `{reader.name[:100]}` here and `{writer.name[:100]}` at the writer"
            yield self._change("FIELD_NAME_CHANGED", message, *paths)
        types = list(self._type(reader, writer, paths))
        yield from types
        if not types and not is_message(reader):
            yield from self._label(reader, writer, paths)

    def _type(self, reader: FieldDescriptor, writer: FieldDescriptor, paths: tuple[str, str]) -> Iterator[Change]:
        what = (
            f"field `{reader.name[:100]}` is {type_name(reader)[:100]} here and {type_name(writer)[:100]} at the writer"
        )
        kind, other = _kind(reader), _kind(writer)
        if kind != other:
            alike = {kind, other} == {"map", "message"} and reader.is_repeated and writer.is_repeated
            yield self._change("FIELD_KIND_CHANGED", what, *paths, fine=alike and self._lenient)
            if alike and self._lenient:
                self._compare_later(body(reader), body(writer))
        elif kind == "map":
            for one, two in zip(entry(reader), entry(writer), strict=True):
                yield from self._type(one, two, paths)
        elif kind == "scalar":
            if group(reader) != group(writer):
                yield self._change("FIELD_SCALAR_KIND_CHANGED", what, *paths)
        else:
            named_alike = relative(body(reader)) == relative(body(writer))
            if not named_alike:
                yield self._change("FIELD_NAMED_TYPE_CHANGED", what, *paths, fine=self._lenient)
            if named_alike or self._lenient:
                self._compare_later(body(reader), body(writer))

    def _label(self, reader: FieldDescriptor, writer: FieldDescriptor, paths: tuple[str, str]) -> Iterator[Change]:
        """A label is a matter of numeric scalars only, as the rule book has it."""
        if (label := _label_of(reader)) == (other := _label_of(writer)):
            return
        message = f"field `{reader.name[:100]}` is {label} here and {other} at the writer"
        if _GROUPS[group(reader)] == ("string", "bytes"):
            yield self._change("FIELD_STRING_OR_BYTES_LABEL_CHANGED", message, *paths)
            return
        harmless = not reader.is_required and not (writer.is_repeated and not reader.is_repeated)
        yield self._change("FIELD_NUMERIC_LABEL_CHANGED", message, *paths, fine=self._lenient and harmless)


class _OneofComparison:
    """Oneofs of two messages, and fields that only one of them has."""

    def __init__(
        self, reader_schema: Schema, writer_schema: Schema, reader: Descriptor, writer: Descriptor, *, lenient: bool
    ) -> None:
        self._schemas = reader_schema, writer_schema
        self._messages = reader, writer
        self._around = reader_schema.path(reader), writer_schema.path(writer)
        self._lenient = lenient
        self._read = {number: reader_schema.oneof(field) for number, field in reader.fields_by_number.items()}
        self._written = {number: writer_schema.oneof(field) for number, field in writer.fields_by_number.items()}

    def changes(self) -> Iterator[Change]:
        here = dict.fromkeys(name for name in self._read.values() if name)
        there = dict.fromkeys(name for name in self._written.values() if name)
        for name in there:
            if name not in here:
                message = f"the reader has no oneof `{name[:100]}`"
                path = f"{self._around[1]}/oneofs/{name}"
                yield Change("ONEOF_REMOVED", message, self._around[0], path, Kind.REMOVED, fine=True)
        for name in here:
            if name not in there:
                message = f"the writer has no oneof `{name[:100]}`"
                path = f"{self._around[0]}/oneofs/{name}"
                yield Change("ONEOF_ADDED", message, path, self._around[1], Kind.ADDED, fine=True)
            yield from self._moved_in(name, existing=name in there)
        yield from self._only_one_side(set(here))

    def _moved_in(self, name: str, *, existing: bool) -> Iterator[Change]:
        """Fields that were elsewhere before and are members of one oneof here.

        One field, or members of one oneof, may form a new oneof; anything else merges what was apart.
        """
        before = {
            number: self._written[number]
            for number, one in self._read.items()
            if one == name and number in self._written
        }
        outside = [number for number, one in before.items() if not one]
        origins = {one for one in before.values() if one} | ({name} if existing else set())
        if len(origins) + len(outside) <= 1:
            return
        paths = f"{self._around[0]}/oneofs/{name}", self._around[1]
        if len(outside) > 1:
            message = f"{len(outside)} fields that the writer may set together exclude each other in `{name[:100]}`"
            yield Change("MULTIPLE_FIELDS_MOVED_TO_ONEOF", message, *paths)
            return
        for number, one in before.items():
            if one != name:
                field = self._messages[0].fields_by_number[number]
                message = f"field `{field.name[:100]}` is a member of oneof `{name[:100]}` only at the reader"
                path, other = self._field_paths(number)
                yield Change("FIELD_MOVED_TO_EXISTING_ONEOF", message, path, other)

    def _only_one_side(self, kept: set[str]) -> Iterator[Change]:
        reader, writer = (message.fields_by_number for message in self._messages)
        alive = {one for number, one in self._written.items() if number in self._read} | kept
        for number in sorted({*reader} | {*writer}):
            if number in reader and number in writer:
                if self._written[number] and not self._read[number]:
                    message = f"field `{reader[number].name[:100]}` stands alone here and in a oneof at the writer"
                    yield Change("ONEOF_FIELD_MOVED_TO_TOP_LEVEL", message, *self._field_paths(number), fine=True)
            elif number in writer:
                rule, fine = self._removed(number, alive)
                message = f"the reader has no field {number}, `{writer[number].name[:100]}` at the writer"
                path = self._schemas[1].path(writer[number])
                yield Change(rule, message, self._around[0], path, Kind.REMOVED, fine=fine)
            else:
                rule = "ONEOF_FIELD_ADDED" if self._read[number] else "FIELD_ADDED"
                if reader[number].is_required:
                    rule = "REQUIRED_FIELD_ADDED"
                message = f"the writer has no field {number}, `{reader[number].name[:100]}` here"
                path = self._schemas[0].path(reader[number])
                yield Change(rule, message, path, self._around[1], Kind.ADDED, fine=rule in FINE)

    def _removed(self, number: int, alive: set[str]) -> tuple[str, bool]:
        """The kind of a field that only the writer has, and whether it is fine."""
        if self._messages[1].fields_by_number[number].is_required:
            return "REQUIRED_FIELD_REMOVED", self._lenient
        if self._written[number] and self._written[number] in alive:
            return "ONEOF_FIELD_REMOVED", self._lenient
        return "FIELD_REMOVED", True

    def _field_paths(self, number: int) -> tuple[str, str]:
        fields = (message.fields_by_number[number] for message in self._messages)
        reader, writer = (schema.path(field) for schema, field in zip(self._schemas, fields, strict=True))
        return reader, writer


def _plainly_alike(reader: FieldDescriptor, writer: FieldDescriptor) -> bool:
    """Whether two fields are scalars of one name, type and label."""
    return (
        reader.name == writer.name
        and reader.type == writer.type
        and not is_message(reader)
        and _label_of(reader) == _label_of(writer)
    )


def _kind(field: FieldDescriptor) -> str:
    if is_map(field):
        return "map"
    if field.type == FieldDescriptor.TYPE_GROUP:
        return "group"
    return "message" if is_message(field) else "scalar"


def _label_of(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "repeated"
    return "required" if field.is_required else "singular"


def _is_group(message: Descriptor) -> bool:
    """Whether a message is the body of a group field beside it. Source: protobuf.dev, "Groups"."""
    around = message.containing_type
    if around is None:
        return False
    field = around.fields_by_name.get(message.name.lower())
    return field is not None and field.type == FieldDescriptor.TYPE_GROUP and field.message_type == message


def _names(enum: EnumDescriptor) -> dict[int, set[str]]:
    """All names of each number."""
    found: dict[int, set[str]] = {}
    for value in enum.values:
        found.setdefault(value.number, set()).add(value.name)
    return found
