"""Compiled schemas as values: descriptors in a pool of their own, and the places of everything in them.

Places are JSON pointers by names, in the text and never by index: /package, /messages/Order,
/messages/Order/messages/Line (nested), /messages/Order/fields/total, /messages/Order/oneofs/payment, /enums/Color,
/enums/Color/values/RED, /messages/Order/enums/State, /extensions/note, /services/Shop, /services/Shop/methods/Buy,
/options/deprecated. What an imported file defines lies below /imports/<its path>.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from cachetools import LRUCache
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    EnumValueDescriptor,
    FieldDescriptor,
    FileDescriptor,
    OneofDescriptor,
)
from google.protobuf.message import Message
from google.protobuf.reflection import GeneratedProtocolMessageType

from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.protobuf import descriptors

KEPT_BYTES_MAX: Final = 8 << 20
"""Serialized descriptors of which one process keeps the pools: some hundreds of schemas of usual size."""

HELD_FIELDS_MAX: Final = 128
"""Fields of a message that others hold. 64 KiB of data may hold 32 768 empty ones: with more fields that is more than
some 30 MB, or a second for JSON."""

Item: TypeAlias = Descriptor | EnumDescriptor | FieldDescriptor | EnumValueDescriptor


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A valid schema. files: imports before what imports them, last the text itself, without source info.

    optional: full names of proto3 fields that are declared `optional`; each has a oneof that no text shows.
    size: bytes of it all, serialized. classes: those of messages that were asked for, and of what
    they lead to.
    """

    files: tuple[descriptor_pb2.FileDescriptorProto, ...]
    pool: descriptor_pool.DescriptorPool
    optional: frozenset[str]
    size: int
    classes: dict[str, type[Message]]

    @property
    def root(self) -> descriptor_pb2.FileDescriptorProto:
        """The text's own file."""
        return self.files[-1]

    @property
    def package(self) -> str:
        """The text's package; empty when it has none."""
        return self.root.package

    def messages(self) -> list[Descriptor]:
        """Messages at the top of the text, in its order."""
        return [self.message(qualified(self.package, item.name)) for item in self.root.message_type]

    def enums(self) -> list[EnumDescriptor]:
        """Enums at the top of the text, in its order."""
        found = (qualified(self.package, item.name) for item in self.root.enum_type)
        return [self.pool.FindEnumTypeByName(name) for name in found]

    def all_messages(self) -> Iterator[Descriptor]:
        """Messages of the text, nested ones after those around them, without map entries."""
        waiting = list(reversed(self.messages()))
        while waiting:
            message = waiting.pop()
            yield message
            waiting.extend(reversed(nested(message)))

    def message(self, full_name: str) -> Descriptor:
        """A message by its full name. Raises KeyError."""
        return self.pool.FindMessageTypeByName(full_name)

    def in_root(self, item: Descriptor | EnumDescriptor) -> bool:
        """Whether the text itself defines a type."""
        return bool(item.file.name == self.root.name)

    def path(self, item: Item) -> str:
        """The place of a message, an enum, one of its values, or a field."""
        parts: list[str | int] = []
        inner: Item | None = item
        while inner is not None:
            parts[:0] = (_FOLDERS[type(inner).__name__], inner.name)
            if isinstance(inner, FieldDescriptor) and inner.is_extension:
                parts[0] = "extensions"
                inner = inner.extension_scope
            elif isinstance(inner, EnumValueDescriptor):
                inner = inner.type
            else:
                inner = inner.containing_type
        file = file_of(item.type if isinstance(item, EnumValueDescriptor) else item)
        if file.name != self.root.name:
            parts[:0] = ("imports", file.name)
        return pointer(parts)

    def oneof(self, field: FieldDescriptor) -> str:
        """Name of the oneof that a field was written in; empty when it stands alone."""
        if field.containing_oneof is None or field.full_name in self.optional:
            return ""
        return str(field.containing_oneof.name)

    def fields(self, message: Descriptor) -> dict[int, FieldDescriptor]:
        """Fields of a message and extensions of it, by number."""
        found = {field.number: field for field in message.fields}
        if message.is_extendable:
            found |= {field.number: field for field in self.pool.FindAllExtensions(message)}
        return found

    def new(self, message: Descriptor) -> Message:
        """An empty message of a type."""
        if message.full_name not in self.classes:
            self._make(message)
        return self.classes[message.full_name]()

    def _make(self, first: Descriptor) -> None:
        """Makes the classes of a message and of all that its fields lead to. The library would do so recursively."""
        waiting = [first]
        while waiting:
            message = waiting.pop()
            if message.full_name not in self.classes:
                made = GeneratedProtocolMessageType(
                    message.name, (Message,), {"DESCRIPTOR": message, "__module__": None}
                )
                self.classes[message.full_name] = cast("type[Message]", made)
                waiting += [body(field) for field in self.fields(message).values() if is_message(field)]


_kept: Final[LRUCache[bytes, Schema]] = LRUCache(KEPT_BYTES_MAX, getsizeof=lambda schema: schema.size)

_FOLDERS: Final = {
    "Descriptor": "messages",
    "EnumDescriptor": "enums",
    "FieldDescriptor": "fields",
    "EnumValueDescriptor": "values",
}


def load(descriptor_set: bytes) -> Schema:
    """The schema in a serialized FileDescriptorSet whose last file is the text's own. The latest used ones are kept.

    Raises TypeError when the library refuses what the compiler has accepted.
    """
    schema = _kept.get(descriptor_set)
    if schema is None:
        schema = _load(descriptor_set)
        if len(descriptor_set) < KEPT_BYTES_MAX:
            _kept[descriptor_set] = schema
    return schema


def _load(descriptor_set: bytes) -> Schema:
    files = tuple(descriptors.FileDescriptorSet.FromString(descriptor_set).file)
    pool = descriptor_pool.DescriptorPool()
    optional = set()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
        waiting = [(file.package, message) for message in file.message_type]
        while waiting:
            around, message = waiting.pop()
            name = qualified(around, message.name)
            optional |= {f"{name}.{field.name}" for field in message.field if field.proto3_optional}
            waiting += [(name, inner) for inner in message.nested_type]
    return Schema(files, pool, frozenset(optional), len(descriptor_set), {})


def is_costly(schema: Schema) -> bool:
    """Whether data of a few bytes may take much memory and time: messages within messages that have many fields.

    The library lays out every field of a message that stands in two bytes of data, and looks at each of them for two
    characters of JSON.
    """
    messages = list(schema.all_messages())
    seen = {message.full_name for message in messages}
    while messages:
        for field in schema.fields(messages.pop()).values():
            if is_message(field):
                held = body(field)
                if len(held.fields) > HELD_FIELDS_MAX:
                    return True
                if held.full_name not in seen:
                    seen.add(held.full_name)
                    messages.append(held)
    return False


def nested(message: Descriptor) -> list[Descriptor]:
    """Messages in a message in the order of the text, without the entries of its maps."""
    return [inner for inner in message.nested_types if not is_entry(inner)]


def is_entry(message: Descriptor) -> bool:
    """Whether a message is the entry of a map field."""
    return bool(message.has_options and message.GetOptions().map_entry)


def body(field: FieldDescriptor) -> Descriptor:
    """The message type of a field that holds messages."""
    assert field.message_type is not None
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum of a field that holds enum values."""
    assert field.enum_type is not None
    return field.enum_type


def numbered(enum: EnumDescriptor) -> dict[int, EnumValueDescriptor]:
    """Values of an enum by number, of aliases the first: the one that JSON has."""
    found: dict[int, EnumValueDescriptor] = {}
    for value in enum.values:
        found.setdefault(value.number, value)
    return found


def entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """The key and the value of a map field, as fields of its entries."""
    fields = body(field).fields_by_number
    return fields[1], fields[2]


def file_of(item: Any) -> FileDescriptor:
    """The file that a message, an enum or a field is defined in."""
    return cast("FileDescriptor", item.file)


def oneof_of(field: FieldDescriptor) -> OneofDescriptor:
    """The oneof of a field that is in one, be it one that no text shows."""
    assert field.containing_oneof is not None
    return field.containing_oneof


def extensions_of(message: Message) -> Any:
    """The extensions of a message, by their fields."""
    return message.Extensions


def type_of(message: Message) -> Descriptor:
    """The type of a message."""
    return cast("Descriptor", message.DESCRIPTOR)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated and is_entry(body(field))


def is_message(field: FieldDescriptor) -> bool:
    """Whether a field holds messages, in either encoding of them."""
    return field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE


def type_name(field: FieldDescriptor) -> str:
    """A field's type in the words of the language; full names for messages and enums."""
    if is_map(field):
        key, value = entry(field)
        return f"map<{type_name(key)}, {type_name(value)}>"
    if is_message(field):
        return str(body(field).full_name)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return str(enum_of(field).full_name)
    return descriptor_pb2.FieldDescriptorProto.Type.Name(cast("Any", field.type)).removeprefix("TYPE_").lower()


def qualified(around: str, name: str) -> str:
    """The full name of what is declared in a package or a message."""
    return f"{around}.{name}" if around else name


def relative(item: Descriptor | EnumDescriptor) -> str:
    """A type's full name without the package of its file."""
    package = item.file.package
    return str(item.full_name)[len(package) + 1 if package else 0 :]


def shown(names: Sequence[str], most: int = 10) -> str:
    """Names for a message, the first ones only."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name[:100]}`" for name in names[:most]) + more


class Names:
    """Which field of a message JSON members belong to: by JSON name, then by the name in the text."""

    def __init__(self, schema: Schema, message: Descriptor) -> None:
        self._by_json = {field.json_name: field for field in message.fields}
        self._by_name = message.fields_by_name
        self._extensions = {json_key(one): one for one in schema.fields(message).values() if one.is_extension}

    def taken_for(self, key: str) -> FieldDescriptor | None:
        """The field that a member is read as; None for an unknown one."""
        return self._by_json.get(key) or self._by_name.get(key) or self._extensions.get(key)


def json_key(field: FieldDescriptor) -> str:
    """The member that a field is written as. Source: protobuf.dev, "ProtoJSON Format"."""
    return f"[{field.full_name}]" if field.is_extension else str(field.json_name)
