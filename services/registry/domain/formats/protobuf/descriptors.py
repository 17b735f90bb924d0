"""File descriptors: their classes, what of them makes the identity, and their limits.

The classes belong to a pool of their own in which no custom option is known. So options that other modules happen to
have loaded stay bytes here, and one text gives the same bytes in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory
from google.protobuf.message import Message

from services.registry.domain.formats.protobuf import wire

MESSAGES_MAX: Final = 5_000
FIELDS_MAX: Final = 30_000
ENUM_VALUES_MAX: Final = 50_000
METHODS_MAX: Final = 10_000
ANNOTATIONS_MAX: Final = 2_000
ANNOTATION_CHARACTERS_MAX: Final = 1_000

_pool: Final = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"google.protobuf.{name}"))


FileDescriptorProto: Final = cast("type[descriptor_pb2.FileDescriptorProto]", _class("FileDescriptorProto"))
FileDescriptorSet: Final = cast("type[descriptor_pb2.FileDescriptorSet]", _class("FileDescriptorSet"))

_TAKEN: Final = frozenset(dir(empty_pb2.Empty()))
"""Attributes of every message."""


def identity(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    """All of a file but its name, its comments and its white space. Custom options count, whatever order they are in.

    protoc has resolved the names of types and written every JSON name, whichever form the text had.
    Protobuf promises no canonical bytes from one release of its library to the next (protobuf.dev, "Proto Serialization
    Is Not Canonical"): what comes out today is pinned by a test, so that no upgrade gives a stored text another id
    unseen.
    """
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("source_code_info")
    copy.ClearField("name")
    for options in _options(copy):
        _order(options)
    return copy.SerializeToString(deterministic=True)


def beyond_limits(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> str:
    """Which limit some files exceed together, in words; empty when none."""
    counts = {"messages": 0, "fields": 0, "enum values": 0, "methods": 0}
    limits = {
        "messages": MESSAGES_MAX,
        "fields": FIELDS_MAX,
        "enum values": ENUM_VALUES_MAX,
        "methods": METHODS_MAX,
    }
    for file in files:
        enums = list(file.enum_type)
        counts["fields"] += len(file.extension)
        counts["methods"] += sum(len(service.method) for service in file.service)
        for message in messages(file.message_type):
            counts["messages"] += 1
            counts["fields"] += len(message.field) + len(message.extension)
            enums += message.enum_type
        counts["enum values"] += sum(len(enum.value) for enum in enums)
    for what, limit in limits.items():
        if counts[what] > limit:
            return f"with its imports it has {counts[what]} {what}, and {limit} are allowed"
    return ""


def unusable_name(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> str:
    """What is wrong with the first name that the compiler takes and the library cannot work with; empty when nothing.

    Those are names in strings that are no UTF-8, and fields called like what every message of the library has: it
    would take the value of the field for its own method.
    """
    for file in files:
        enums = list(file.enum_type)
        for message in messages(file.message_type):
            enums += message.enum_type
            for field in message.field:
                if isinstance(cast("object", field.json_name), bytes):
                    return f"the json_name of field `{field.name[:100]}` of `{message.name[:100]}` is not UTF-8"
                if field.name in _TAKEN or (field.name == "Extensions" and message.extension_range):
                    return (
                        f"the library that reads data keeps the name `{field.name}` for itself: give field"
                        f" {field.number} of `{message.name[:100]}` another one, and `json_name` if JSON has to keep it"
                    )
            if any(isinstance(cast("object", name), bytes) for name in message.reserved_name):
                return f"a reserved name of `{message.name[:100]}` is not UTF-8"
        for enum in enums:
            if any(isinstance(cast("object", name), bytes) for name in enum.reserved_name):
                return f"a reserved name of `{enum.name[:100]}` is not UTF-8"
    return ""


def messages(
    first: Sequence[descriptor_pb2.DescriptorProto],
) -> Iterator[descriptor_pb2.DescriptorProto]:
    """Messages and all that are nested in them, each before those in it."""
    waiting = list(reversed(first))
    while waiting:
        message = waiting.pop()
        yield message
        waiting.extend(reversed(message.nested_type))


def comments(file: descriptor_pb2.FileDescriptorProto) -> tuple[str, ...]:
    """Comments before messages, fields, enums, services and what is in them, in the order of the text."""
    found = []
    for location in file.source_code_info.location:
        comment = _text(location.leading_comments).strip()
        if comment and location.path and location.path[0] in {4, 5, 6, 7}:
            found.append(comment[:ANNOTATION_CHARACTERS_MAX])
            if len(found) == ANNOTATIONS_MAX:
                break
    return tuple(found)


def _text(value: object) -> str:
    """A string of a descriptor: proto2 lets bytes through that are no UTF-8, and the library gives them as such."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _options(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Message]:
    """Every options message of a file that is set."""
    holders: list[Any] = [file, *file.enum_type, *file.service, *file.extension]
    for message in messages(file.message_type):
        holders += [message, *message.field, *message.oneof_decl, *message.enum_type, *message.extension]
        holders += message.extension_range
    for holder in list(holders):
        holders += getattr(holder, "value", ())
        holders += getattr(holder, "method", ())
    for holder in holders:
        if holder.HasField("options"):
            yield holder.options


def _order(options: Message) -> None:
    """Brings what is in an options message into the order of numbers; what has one number keeps its order."""
    serialized = options.SerializeToString(deterministic=True)
    ordered = b"".join(field.whole for field in sorted(wire.fields(serialized), key=lambda field: field.number))
    if ordered != serialized:
        options.Clear()
        options.MergeFromString(ordered)
