"""What changed from one schema to the next: STRICT's kinds seen from both sides, and what those do not name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2

from services.registry.domain.evolution.report import Verdict
from services.registry.domain.formats import Difference, Kind
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.protobuf import kinds
from services.registry.domain.formats.protobuf.kinds import Change
from services.registry.domain.formats.protobuf.schema import Schema

_OTHER_WAY: Final[Mapping[str, str]] = {
    "MESSAGE_REMOVED": "MESSAGE_ADDED",
    "ENUM_REMOVED": "ENUM_ADDED",
    "ENUM_CONST_REMOVED": "ENUM_CONST_ADDED",
    "ONEOF_REMOVED": "ONEOF_ADDED",
}
_FIELDS: Final = frozenset(
    {"FIELD_ADDED", "FIELD_REMOVED", "ONEOF_FIELD_ADDED", "ONEOF_FIELD_REMOVED"}
    | {"REQUIRED_FIELD_ADDED", "REQUIRED_FIELD_REMOVED"}
)
_MOVES: Final = frozenset({"ONEOF_FIELD_MOVED_TO_TOP_LEVEL", "FIELD_MOVED_TO_EXISTING_ONEOF"})
_TYPES: Final = frozenset(
    {"FIELD_KIND_CHANGED", "FIELD_SCALAR_KIND_CHANGED", "FIELD_NAMED_TYPE_CHANGED", "FIELD_NUMERIC_LABEL_CHANGED"}
    | {"FIELD_STRING_OR_BYTES_LABEL_CHANGED"}
)
"""Kinds that say already that a field's type or label is another."""
_FLIPPED: Final = {Kind.ADDED: Kind.REMOVED, Kind.REMOVED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}


def differences(before: Schema, after: Schema) -> Sequence[Difference]:
    """Each part that differs, once, in the order of the later text where it is there."""
    forward: dict[tuple[str, str, str], Change] = {}
    for change in kinds.changes(before, after, lenient=False):
        forward.setdefault(_key(change, change.reader_path, change.writer_path, _FLIPPED[change.kind]), change)
    found = []
    for change in kinds.changes(after, before, lenient=False):
        other = forward.pop(_key(change, change.writer_path, change.reader_path, change.kind), None)
        found.append(_difference(change, other))
    found += [_difference(None, change) for change in forward.values()]
    told = {f"{one.after_path}/type" for one in found if one.rule in _TYPES}
    return [*found, *(one for one in _unnamed(before, after) if one.after_path not in told)]


def _key(change: Change, before: str, after: str, kind: Kind) -> tuple[str, str, str]:
    """What two views of one difference have in common: its places, and the family of its rule."""
    family = _OTHER_WAY.get(change.rule, change.rule)
    family = "FIELD" if family in _FIELDS else "MOVE" if family in _MOVES else family
    return family, "" if kind is Kind.ADDED else before, "" if kind is Kind.REMOVED else after


def _difference(backward: Change | None, forward: Change | None) -> Difference:
    """backward: as the later schema reads the earlier one. forward: the other way. At least one of them is given."""
    if backward is not None:
        kind, before, after = backward.kind, backward.writer_path, backward.reader_path
        rule, message = backward.rule, backward.message
        named = {
            "at the writer": "in the earlier schema",
            "here": "in the later schema",
            "the reader": "the later schema",
            "the writer": "the earlier schema",
        }
    else:
        assert forward is not None
        kind, before, after = _FLIPPED[forward.kind], forward.reader_path, forward.writer_path
        rule, message = forward.rule, forward.message
        named = {
            "at the writer": "in the later schema",
            "here": "in the earlier schema",
            "the reader": "the earlier schema",
            "the writer": "the later schema",
        }
    for word, words in named.items():
        message = message.replace(word, words)
    return Difference(
        kind,
        rule,
        message,
        "" if kind is Kind.ADDED else before,
        "" if kind is Kind.REMOVED else after,
        _verdict(backward),
        _verdict(forward),
    )


def _verdict(change: Change | None) -> Verdict:
    if change is not None and change.rule == kinds.NOT_DECIDED:
        return Verdict.UNDECIDED
    return Verdict.COMPATIBLE if change is None or change.fine else Verdict.INCOMPATIBLE


Part: TypeAlias = tuple[str, str, object]
"""Place of what something belongs to, its own place, and what stands there."""


def _unnamed(before: Schema, after: Schema) -> Iterator[Difference]:
    """Differences that none of the 26 kinds has a name for. By the rules none of them does harm.

    What belongs to a message, a field or a service that only one side has goes without saying.
    """
    one, other = list(_parts(before.root)), list(_parts(after.root))
    shared = {path for _, path, _ in one} & {path for _, path, _ in other} | {""}
    earlier, later = ({path: value for _, path, value in parts} for parts in (one, other))
    for around, path, value in other:
        if around not in shared:
            continue
        if path not in earlier:
            if not _is_folder(path):
                yield Difference(Kind.ADDED, f"{_noun(path)}_ADDED", f"{_words(path)} is new", "", path)
        elif earlier[path] != value:
            yield Difference(Kind.CHANGED, f"{_noun(path)}_CHANGED", f"{_words(path)} is another", path, path)
    for around, path, _ in one:
        if around in shared and path not in later and not _is_folder(path):
            yield Difference(Kind.REMOVED, f"{_noun(path)}_REMOVED", f"{_words(path)} is gone", path, "")


def _is_folder(path: str) -> bool:
    """Whether a place is that of something that the kinds do name."""
    return path.split("/")[-2] in {"messages", "fields", "enums", "values"}


def _parts(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Part]:
    """Places of what the kinds pass over, and what stands there."""
    yield "", "/syntax", (file.syntax or "proto2", file.edition)
    yield from (("", pointer(["dependencies", name]), True) for name in file.dependency)
    yield from _options(file, [])
    for service in file.service:
        around = ["services", service.name]
        yield "", pointer(around), True
        yield from _options(service, around)
        for method in service.method:
            place = [*around, "methods", method.name]
            types = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
            yield pointer(around), pointer(place), types
            yield from _options(method, place)
    yield from (("", pointer(["extensions", one.name]), _field(one)) for one in file.extension)
    yield from _enums(file.enum_type, [])
    waiting: list[tuple[list[str], descriptor_pb2.DescriptorProto]] = [([], one) for one in reversed(file.message_type)]
    while waiting:
        above, message = waiting.pop()
        if not message.options.map_entry:
            place = [*above, "messages", message.name]
            yield from _message(file, message, above, place)
            waiting += [(place, one) for one in reversed(message.nested_type)]


def _message(
    file: descriptor_pb2.FileDescriptorProto,
    message: descriptor_pb2.DescriptorProto,
    above: list[str],
    place: list[str],
) -> Iterator[Part]:
    around = pointer(place)
    yield pointer(above), around, True
    yield from _options(message, place)
    yield around, f"{around}/reserved", _reserved(message)
    yield from ((around, pointer([*place, "extensions", one.name]), _field(one)) for one in message.extension)
    for field in message.field:
        at = [*place, "fields", field.name]
        path = pointer(at)
        yield around, path, True
        yield from _options(field, at)
        yield path, f"{path}/json_name", field.json_name
        yield path, f"{path}/default", (field.HasField("default_value"), field.default_value)
        yield path, f"{path}/type", (field.type, field.type_name, field.label)
        yield path, f"{path}/presence", (field.proto3_optional, file.syntax == "proto3")
    yield from _enums(message.enum_type, place)


def _enums(enums: Sequence[descriptor_pb2.EnumDescriptorProto], above: list[str]) -> Iterator[Part]:
    for enum in enums:
        place = [*above, "enums", enum.name]
        yield pointer(above), pointer(place), True
        yield from _options(enum, place)
        yield pointer(place), pointer([*place, "reserved"]), _reserved(enum)
        for value in enum.value:
            at = [*place, "values", value.name]
            yield pointer(place), pointer(at), True
            yield from _options(value, at)


def _reserved(item: Any) -> object:
    return sorted((one.start, one.end) for one in item.reserved_range), sorted(item.reserved_name)


def _field(field: descriptor_pb2.FieldDescriptorProto) -> object:
    return field.number, field.type, field.type_name, field.label, field.extendee


def _options(item: Any, place: list[str]) -> Iterator[Part]:
    if not item.HasField("options"):
        return
    options = item.options
    custom = options.__class__()
    custom.CopyFrom(options)
    for field, value in options.ListFields():
        shown = value.SerializeToString(deterministic=True) if hasattr(value, "SerializeToString") else repr(value)
        custom.ClearField(field.name)
        yield pointer(place), pointer([*place, "options", field.name]), shown
    rest = custom.SerializeToString(deterministic=True)
    if rest:
        yield pointer(place), pointer([*place, "options", "custom"]), rest


def _noun(path: str) -> str:
    """The kind of part that a place holds, for the name of a rule."""
    parts = path.split("/")
    details = {"json_name": "FIELD_JSON_NAME", "default": "FIELD_DEFAULT", "presence": "FIELD_PRESENCE"}
    details |= {"type": "FIELD_TYPE", "reserved": "RESERVED", "syntax": "SYNTAX"}
    folders = {"options": "OPTION", "services": "SERVICE", "methods": "METHOD", "extensions": "EXTENSION"}
    return folders.get(parts[-2]) or details.get(parts[-1], "IMPORT")


def _words(path: str) -> str:
    return f"{_noun(path).lower().replace('_', ' ')} at {path[:200]}"
