"""Random valid .proto texts, mutations of them, and messages that follow them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from services.registry.domain.formats.protobuf.samples import put
from services.registry.domain.formats.protobuf.schema import Schema, entry, is_map, is_message, numbered

SCALARS = ["int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "sfixed64", "bool", "string", "bytes"]
SCALARS += ["float", "double"]
KEYS = ["int32", "int64", "uint32", "bool", "string"]
MESSAGES = ["A", "B", "C"]
ENUMS = ["E", "F"]
NUMBERS_MAX = 5
DEPTH_MAX = 3


@dataclass(frozen=True)
class Field:
    """label: empty, optional, repeated, required or map. oneof: empty, or the name of the one it is in."""

    name: str
    type: str
    label: str
    key: str = "string"
    oneof: str = ""
    options: str = ""


@dataclass(frozen=True)
class File:
    """What a text says: fields by message and number, values by enum."""

    syntax: str
    messages: dict[str, dict[int, Field]]
    enums: dict[str, list[tuple[str, int]]]
    comment: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def text(self, *, order: int = 1, comment: str = "") -> str:
        """The text. order: -1 to turn round what has no order."""
        head = f'edition = "{self.syntax}";' if self.syntax.isdigit() else f'syntax = "{self.syntax}";'
        lines = [head, "package p;", comment]
        enums = [self._enum(name, values, comment) for name, values in self.enums.items()]
        messages = [self._message(name, fields, order, comment) for name, fields in self.messages.items()]
        parts = [*messages, *enums] if order == 1 else [*enums, *messages]
        return "\n".join([*lines, *parts])

    def _enum(self, name: str, values: list[tuple[str, int]], comment: str) -> str:
        listed = " ".join(f"{name}_{value} = {number}; {comment}" for value, number in values)
        return f"enum {name} {{ option allow_alias = false; {listed} }}".replace("option allow_alias = false;", "")

    def _message(self, name: str, fields: dict[int, Field], order: int, comment: str) -> str:
        lines = []
        oneofs: dict[str, list[str]] = {}
        for number, one in sorted(fields.items(), reverse=order == -1):
            options = f" [{one.options}]" if one.options else ""
            if one.label == "map":
                declared = f"map<{one.key}, {one.type}> {one.name} = {number}{options};"
            elif one.oneof:
                oneofs.setdefault(one.oneof, []).append(f"{one.type} {one.name} = {number}{options};")
                continue
            else:
                label = one.label
                if self.syntax == "proto2" and not label:
                    label = "optional"
                if self.syntax == "proto3" and label == "required":
                    label = ""
                if self.syntax.isdigit() and label in {"optional", "required"}:
                    label = ""
                declared = f"{label} {one.type} {one.name} = {number}{options};"
            lines.append(f"{comment} {declared}")
        lines += [f"oneof {oneof} {{ {' '.join(members)} }}" for oneof, members in oneofs.items()]
        return f"message {name} {{ {self.extra.get(name, '')} " + "\n".join(lines) + " }"


@st.composite
def files(draw: st.DrawFn) -> File:
    """A file of up to three messages and two enums that hold one another."""
    names = MESSAGES[: draw(st.integers(1, 3))]
    enums = {name: _values(draw) for name in ENUMS}
    messages: dict[str, dict[int, Field]] = {name: {} for name in names}
    for name in names:
        for number in draw(st.sets(st.integers(1, NUMBERS_MAX), max_size=4)):
            messages[name][number] = _field(draw, number, names)
    return File(draw(st.sampled_from(["proto2", "proto3", "2023"])), messages, enums)


@st.composite
def mutated(draw: st.DrawFn, file: File) -> File:
    """A file with one to three things changed."""
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(file.messages)))
        fields = dict(file.messages[name])
        number = draw(st.integers(1, NUMBERS_MAX))
        names = sorted(file.messages)
        what = draw(st.sampled_from(["field", "drop", "type", "name", "oneof", "label", "enum", "syntax", "message"]))
        old = fields.get(number)
        if what == "drop":
            fields.pop(number, None)
        elif what == "enum":
            enum = draw(st.sampled_from(ENUMS))
            file = replace(file, enums={**file.enums, enum: _values(draw)})
        elif what == "syntax":
            file = replace(file, syntax=draw(st.sampled_from(["proto2", "proto3", "2023"])))
        elif what == "message" and len(file.messages) < len(MESSAGES):
            file = replace(file, messages={**file.messages, MESSAGES[len(file.messages)]: {}})
        elif old is None or what == "field":
            fields[number] = _field(draw, number, names)
        elif what == "type":
            fields[number] = replace(old, type=draw(st.sampled_from([*SCALARS, *ENUMS, *names])))
        elif what == "name":
            fields[number] = replace(old, name=f"n{number}")
        elif what == "oneof" and old.label == "":
            fields[number] = replace(old, oneof="" if old.oneof else "one")
        elif what == "label" and not old.oneof:
            fields[number] = replace(old, label=draw(st.sampled_from(["", "optional", "repeated", "required"])))
        file = replace(file, messages={**file.messages, name: fields})
    return file


def _values(draw: st.DrawFn) -> list[tuple[str, int]]:
    numbers = draw(st.sets(st.integers(1, 4), max_size=3))
    return [("V0", 0), *((f"V{draw(st.sampled_from([number, number, number + 10]))}", number) for number in numbers)]


def _field(draw: st.DrawFn, number: int, messages: list[str]) -> Field:
    kind = draw(st.sampled_from([*SCALARS, *ENUMS, *messages]))
    label = draw(st.sampled_from(["", "", "", "optional", "repeated", "required", "map"]))
    if label == "required" and kind in MESSAGES:
        label = ""  # A message that requires itself is never written.
    name = draw(st.sampled_from([f"f_{number}", f"f_{number}", f"n{number}"]))
    oneof = draw(st.sampled_from(["", "", "one", "two"])) if label == "" else ""
    return Field(name, kind, label, draw(st.sampled_from(KEYS)), oneof)


def message_of(data: st.DataObject, schema: Schema, kind: Descriptor, depth: int = 0) -> Message:
    """A message of a type, with every required field set."""
    message = schema.new(kind)
    for one in kind.fields:
        if not one.is_required and (depth == DEPTH_MAX or not data.draw(st.booleans())):
            continue
        if is_map(one):
            key, value = entry(one)
            pairs = [
                (_value(data, schema, key, depth), _value(data, schema, value, depth))
                for _ in range(data.draw(st.integers(0, 2)))
            ]
            put(message, one, pairs)
        elif one.is_repeated:
            put(message, one, [_value(data, schema, one, depth) for _ in range(data.draw(st.integers(0, 2)))])
        else:
            put(message, one, [_value(data, schema, one, depth)])
    return message


_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _value(data: st.DataObject, schema: Schema, one: FieldDescriptor, depth: int) -> Any:
    if is_message(one):
        assert one.message_type is not None
        return message_of(data, schema, one.message_type, depth + 1)
    if one.enum_type is not None:
        numbers = sorted(numbered(one.enum_type))
        return data.draw(st.sampled_from(numbers if one.enum_type.is_closed else [*numbers, 77]))
    if one.cpp_type in _INTEGERS:
        return data.draw(st.integers(*_INTEGERS[one.cpp_type]) | st.integers(0, 2))
    if one.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return data.draw(st.booleans())
    if one.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return data.draw(st.floats(width=32))
    text = data.draw(st.text(max_size=4))
    return text if one.type == FieldDescriptor.TYPE_STRING else text.encode()
