"""The meaning of a schema alone, as bytes: equal exactly when two texts mean the same.

What counts: package, names, numbers, types, cardinality, presence, defaults, packing, JSON names, oneofs, reserved and
extension ranges, services, custom options (validation rules are written in them), and of imported types those that
the text's fields need. Features of editions and of proto2 and proto3 count as what they lead to, so a text may move
from a syntax to an edition and mean the same.

What does not count, because no data and no program's contract depends on it: comments, the order of fields, enums,
services, methods, extensions, reserved ranges and imports, how ranges are cut, paths of imports, `deprecated`, and
options that steer code generators (java_package, go_package, ctype, jstype, lazy, optimize_for, and the like).

The order of messages counts, at the top and within a message: the framed encoding names a message by its place, and
data without a name is of the first message. Were the order ignored, `normalize` could give a serializer the id of a
text in which its indexes mean other messages. The order of enum values counts where it means something: the first value
is the default, and of aliases the first is written in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from services.registry.domain.formats.protobuf import wire
from services.registry.domain.formats.protobuf.schema import Schema, is_entry, is_message, qualified

Form: TypeAlias = Any


def semantic_form(schema: Schema) -> bytes:
    """One text for all schemas of one meaning."""
    root = schema.root
    form = {
        "package": root.package,
        "options": _options(root),
        "messages": [_message(schema, schema.message(qualified(root.package, m.name)), m) for m in root.message_type],
        "enums": _sorted(_enum(schema, qualified(root.package, enum.name), enum) for enum in root.enum_type),
        "extensions": _sorted(_extension(schema, root.package, field) for field in root.extension),
        "services": _sorted(_service(service) for service in root.service),
        "imported": _imported(schema),
    }
    return json.dumps(form, sort_keys=True, separators=(",", ":")).encode("utf-8")


def _message(schema: Schema, message: Descriptor, proto: descriptor_pb2.DescriptorProto) -> Form:
    name = message.full_name
    inner = [(message.nested_types_by_name[one.name], one) for one in proto.nested_type]
    return {
        "name": proto.name,
        "fields": _sorted(_field(schema, message.fields_by_name[one.name], one) for one in proto.field),
        "messages": [_message(schema, found, one) for found, one in inner if not is_entry(found)],
        "entries": _sorted(_message(schema, found, one) for found, one in inner if is_entry(found)),
        "enums": _sorted(_enum(schema, qualified(name, one.name), one) for one in proto.enum_type),
        "extensions": _sorted(_extension(schema, name, one) for one in proto.extension),
        "oneofs": _sorted([one.name, _options(one)] for one in proto.oneof_decl),
        "reserved": _joined((one.start, one.end) for one in proto.reserved_range),
        "reserved_names": sorted(set(proto.reserved_name)),
        "extension_ranges": _sorted([one.start, one.end, _options(one)] for one in proto.extension_range),
        "message_set": proto.options.message_set_wire_format,
        "options": _options(proto),
    }


def _field(schema: Schema, field: FieldDescriptor, proto: descriptor_pb2.FieldDescriptorProto) -> Form:
    single = not field.is_repeated and not is_message(field)
    return {
        "number": field.number,
        "name": field.name,
        "json_name": field.json_name,
        "type": field.type,
        "type_name": proto.type_name,
        "cardinality": [field.is_required, field.is_repeated, field.has_presence, field.is_packed],
        "default": _scalar(field.default_value) if single else None,
        "has_default": proto.HasField("default_value"),
        "oneof": schema.oneof(field),
        "optional": field.full_name in schema.optional,
        "options": _options(proto),
    }


def _extension(schema: Schema, around: str, proto: descriptor_pb2.FieldDescriptorProto) -> Form:
    field = schema.pool.FindExtensionByName(qualified(around, proto.name))
    return _field(schema, field, proto) | {"extends": proto.extendee}


def _enum(schema: Schema, full_name: str, proto: descriptor_pb2.EnumDescriptorProto) -> Form:
    enum: EnumDescriptor = schema.pool.FindEnumTypeByName(full_name)
    values = sorted(proto.value, key=lambda value: value.number)  # Stable: aliases keep their order.
    return {
        "name": proto.name,
        "closed": enum.is_closed,
        "first": proto.value[0].number,
        "values": [[value.number, value.name, _options(value)] for value in values],
        "reserved": _joined((one.start, one.end + 1) for one in proto.reserved_range),
        "reserved_names": sorted(set(proto.reserved_name)),
        "options": _options(proto),
    }


def _service(proto: descriptor_pb2.ServiceDescriptorProto) -> Form:
    return {
        "name": proto.name,
        "options": _options(proto),
        "methods": _sorted(
            [
                *(one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming),
                *(one.options.idempotency_level, _options(one)),
            ]
            for one in proto.method
        ),
    }


def _imported(schema: Schema) -> Form:
    """Definitions in other files that the text's fields lead to, by full name, and extensions that these files make."""
    protos = _protos(schema.files[:-1])
    found: dict[str, Form] = {}
    waiting: list[Descriptor | EnumDescriptor] = []
    for message in schema.all_messages():
        for entry_or_message in (message, *(inner for inner in message.nested_types if is_entry(inner))):
            waiting += _used(schema, entry_or_message)
    for file in schema.files:
        for extension in _extensions(schema, file):
            waiting += _types(extension)
    while waiting:
        item = waiting.pop()
        proto = protos.get(item.full_name)
        if item.full_name in found or proto is None:
            continue
        if isinstance(item, EnumDescriptor):
            enum = cast("descriptor_pb2.EnumDescriptorProto", proto)
            found[item.full_name] = _enum(schema, item.full_name, enum)
        else:
            found[item.full_name] = _message(schema, item, cast("descriptor_pb2.DescriptorProto", proto))
            waiting += _used(schema, item)
            waiting += item.nested_types
    foreign = (
        _field(schema, one, proto) | {"extends": proto.extendee}
        for file in schema.files[:-1]
        if not file.name.startswith("google/protobuf/")
        for one, proto in zip(_extensions(schema, file), _extension_protos(file), strict=True)
    )
    return {"types": found, "extensions": _sorted(foreign)}


def _used(schema: Schema, message: Descriptor) -> Iterable[Descriptor | EnumDescriptor]:
    return [item for field in schema.fields(message).values() for item in _types(field)]


def _types(field: FieldDescriptor) -> list[Descriptor | EnumDescriptor]:
    return [item for item in (field.message_type, field.enum_type) if item is not None]


def _extensions(schema: Schema, file: descriptor_pb2.FileDescriptorProto) -> list[FieldDescriptor]:
    names = [qualified(around, one.name) for around, one in _scoped_extensions(file)]
    return [schema.pool.FindExtensionByName(name) for name in names]


def _extension_protos(file: descriptor_pb2.FileDescriptorProto) -> list[descriptor_pb2.FieldDescriptorProto]:
    return [one for _, one in _scoped_extensions(file)]


def _scoped_extensions(
    file: descriptor_pb2.FileDescriptorProto,
) -> list[tuple[str, descriptor_pb2.FieldDescriptorProto]]:
    found = [(file.package, one) for one in file.extension]
    waiting = [(file.package, message) for message in file.message_type]
    while waiting:
        around, message = waiting.pop()
        name = qualified(around, message.name)
        found += [(name, one) for one in message.extension]
        waiting += [(name, inner) for inner in message.nested_type]
    return found


def _protos(
    files: Sequence[descriptor_pb2.FileDescriptorProto],
) -> dict[str, descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto]:
    """Messages and enums of files by full name."""
    found: dict[str, descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto] = {}
    for file in files:
        waiting = [(file.package, message) for message in file.message_type]
        found |= {qualified(file.package, enum.name): enum for enum in file.enum_type}
        while waiting:
            around, message = waiting.pop()
            name = qualified(around, message.name)
            found[name] = message
            found |= {qualified(name, enum.name): enum for enum in message.enum_type}
            waiting += [(name, inner) for inner in message.nested_type]
    return found


def _options(proto: Any) -> str:
    """Custom options alone: what the options message itself does not know, by number."""
    if not proto.HasField("options"):
        return ""
    options: Message = proto.options
    known = {field.number for field in options.DESCRIPTOR.fields}
    serialized = options.SerializeToString(deterministic=True)
    custom = [field for field in wire.fields(serialized) if field.number not in known]
    return b"".join(field.whole for field in sorted(custom, key=lambda field: field.number)).hex()


def _joined(ranges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Half-open ranges in order, with those that touch as one."""
    joined: list[list[int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return joined


def _scalar(value: object) -> Form:
    """A default for JSON: exact, and bytes told from text."""
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, float):
        return ["float", "nan" if math.isnan(value) else value.hex()]
    return value


def _sorted(forms: Iterable[Form]) -> list[Form]:
    return sorted(forms, key=lambda form: json.dumps(form, sort_keys=True))
