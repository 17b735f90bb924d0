"""ProtoJSON payloads checked against a message.

The library reads first: what it accepts with every field known is right. It stops at the first fault, so what it
refuses is walked over here for the places; whether a value suits a field it decides itself, one value at a time.
So what it lets pass passes here, even where parsers of other languages may refuse it: strings of digits of other
scripts or with `_` between them as numbers, and characters that are none of base64 within bytes, which it skips.

Source: protobuf.dev, "ProtoJSON Format".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.registry.domain.formats import Problem, Validation, json_data
from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.protobuf.reading import REFUSALS, SPECIAL
from services.registry.domain.formats.protobuf.schema import Names, Schema, body, entry, is_map, is_message, type_name
from services.registry.domain.limits import VALIDATION_ERRORS_MAX

DEPTH_MAX: Final = 100
"""Messages within messages: what the library reads by default."""

ENUM_NAMES_MAX: Final = 20

NEAR_NAMES_MAX: Final = 500
"""Fields among which the one that was probably meant is looked for."""

ITEMS_PER_TRY: Final = 1_000
"""Items of a list that the library is asked about together, before it is asked about each."""

_INTEGERS: Final = {
    "int32": (-(1 << 31), 1 << 31),
    "int64": (-(1 << 63), 1 << 63),
    "uint32": (0, 1 << 32),
    "uint64": (0, 1 << 64),
}
_RANGE_OF: Final = {
    **_INTEGERS,
    "sint32": _INTEGERS["int32"],
    "sfixed32": _INTEGERS["int32"],
    "sint64": _INTEGERS["int64"],
    "sfixed64": _INTEGERS["int64"],
    "fixed32": _INTEGERS["uint32"],
    "fixed64": _INTEGERS["uint64"],
}
_INTEGER: Final = re.compile(r"-?\d{1,20}")

Way: TypeAlias = "tuple[Way, str | int] | None"
Fault: TypeAlias = tuple[str, Way, str, str]
"""Keyword, place in the data, place in the schema, message."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value that should be a message, its place, its depth, and the place in the schema that asks for it."""

    message: Descriptor
    value: Data
    way: Way
    depth: int
    schema_path: str


class JsonValidator:
    """Checks ProtoJSON payloads of one message. Unknown members are accepted unless strict; a name that stands twice in
    one object is never read. Holds no state but what it keeps of the schema.
    """

    def __init__(self, schema: Schema, target: Descriptor, *, strict: bool) -> None:
        self._schema = schema
        self._target = target
        self._class = type(schema.new(target))
        self._strict = strict
        # Told to skip unknown fields, the library skips names that an enum does not have as well: those are faults.
        self._skip_unknown = not strict and not _may_hold_enums(schema, target)
        self._names: dict[str, Names] = {}

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check."""
        value = json_data.read(data, unique_names=True)
        if self._accepts(value, self._class(), skip_unknown=self._skip_unknown):
            return Validation(())
        found = list(islice(self._problems(value), VALIDATION_ERRORS_MAX + 1))
        if not found and not self._accepts(value, self._class(), skip_unknown=not self._strict):
            path = self._schema.path(self._target)
            found = [Problem("", path, "json", f"cannot be read as `{self._target.full_name}` in ProtoJSON")]
        return Validation(tuple(found[:VALIDATION_ERRORS_MAX]), truncated=len(found) > VALIDATION_ERRORS_MAX)

    def _accepts(self, value: Any, message: Message, *, skip_unknown: bool, whole: bool = True) -> bool:
        """Whether the library reads a value as a message; with all required fields when it is a whole one."""
        try:
            json_format.ParseDict(
                value,
                message,
                ignore_unknown_fields=skip_unknown,
                descriptor_pool=self._schema.pool,
                max_recursion_depth=DEPTH_MAX,
            )
        except REFUSALS:
            return False
        return not whole or message.IsInitialized()

    def _problems(self, value: Data) -> Iterator[Problem]:
        """Faults in the order of the data, without recursion."""
        waiting = [Place(self._target, value, None, 1, self._schema.path(self._target))]
        while waiting:
            place = waiting.pop()
            below: list[Place] = []
            for keyword, way, path, message in self._message(place, below):
                yield Problem(pointer(_parts(way)), path, keyword, message)
            waiting.extend(reversed(below))

    def _message(self, place: Place, below: list[Place]) -> Iterator[Fault]:
        """Keyword, place in data and schema, and message of what is wrong with one message itself."""
        name = place.message.full_name
        if place.depth > DEPTH_MAX:
            yield "depth", place.way, place.schema_path, f"messages are nested deeper than {DEPTH_MAX}"
            return
        if name in SPECIAL:
            if not self._accepts(place.value, self._schema.new(place.message), skip_unknown=not self._strict):
                yield "type", place.way, place.schema_path, f"is no {name} as ProtoJSON writes it"
            return
        if not isinstance(place.value, dict):
            yield "type", place.way, place.schema_path, f"must be an object that holds a `{name}`"
            return
        names = self._names_of(place.message)
        cases: dict[str, str] = {}
        given = set()
        for key, value in place.value.items():
            way = (place.way, key)
            field = names.taken_for(key)
            if field is None:
                yield from self._unknown(place, key, way)
                continue
            path = self._schema.path(field)
            if value is not None:
                given.add(field.number)
                yield from _second_case(cases, field, way, path)
            yield from self._field(field, value, Place(place.message, value, way, place.depth, path), below)
        for field in place.message.fields:
            if field.is_required and field.number not in given:
                path = self._schema.path(field)
                yield "required", (place.way, field.json_name), path, "a required field is missing"

    def _names_of(self, message: Descriptor) -> Names:
        kept = self._names.get(message.full_name)
        if kept is None:
            kept = self._names[message.full_name] = Names(self._schema, message)
        return kept

    def _unknown(self, place: Place, key: str, way: Way) -> Iterator[Fault]:
        name = place.message.full_name
        if not self._strict:
            if key.startswith("[") and not self._accepts(
                {key: None}, self._schema.new(place.message), skip_unknown=True, whole=False
            ):
                yield "unknown", way, place.schema_path, f"`{name}` takes no extensions"
            return
        names = [field.json_name for field in place.message.fields[:NEAR_NAMES_MAX]]
        near = difflib.get_close_matches(key[:100], names, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        yield "unknown", way, place.schema_path, f"is no field of `{name}`{hint}"

    def _field(self, field: FieldDescriptor, value: Data, place: Place, below: list[Place]) -> Iterator[Fault]:
        """What is wrong with the value of a field. Messages in it go to `below`. place: the field's own."""
        if value is None and not _takes_null(field):
            return
        if is_map(field):
            yield from self._map(field, value, place, below)
        elif field.is_repeated:
            if not isinstance(value, list):
                yield "type", place.way, place.schema_path, f"must be an array of {type_name(field)}"
                return
            yield from self._items(field, value, place, below)
        elif is_message(field):
            below.append(Place(body(field), value, place.way, place.depth + 1, place.schema_path))
        elif not self._suits(field, place.message, value):
            yield "type", place.way, place.schema_path, f"must be {_expected(field)}"

    def _items(self, field: FieldDescriptor, items: list[Data], place: Place, below: list[Place]) -> Iterator[Fault]:
        """What is wrong with the items of a repeated field."""
        for start in range(0, len(items), ITEMS_PER_TRY):
            part = items[start : start + ITEMS_PER_TRY]
            if not is_message(field) and self._suits(field, place.message, part):
                continue
            for index, one in enumerate(part, start):
                way: Way = (place.way, index)
                if is_message(field) and (one is not None or _takes_null(field)):
                    below.append(Place(body(field), one, way, place.depth + 1, place.schema_path))
                elif not self._suits(field, place.message, [one]):
                    yield "type", way, place.schema_path, f"must be {_expected(field)}"

    def _map(self, field: FieldDescriptor, value: Data, place: Place, below: list[Place]) -> Iterator[Fault]:
        """What is wrong with the entries of a map field."""
        if not isinstance(value, dict):
            yield "type", place.way, place.schema_path, f"must be an object: {type_name(field)}"
            return
        key_field, inner = entry(field)
        for key, one in value.items():
            way: Way = (place.way, key)
            if not _is_key(key_field, key):
                yield "key", way, place.schema_path, f"the member's name must be {_expected(key_field)}"
            elif is_message(inner) and one is not None:
                below.append(Place(body(inner), one, way, place.depth + 1, place.schema_path))
            elif not self._suits(field, place.message, {key: one}):
                yield "type", way, place.schema_path, f"must be {_expected(inner)}"

    def _suits(self, field: FieldDescriptor, message: Descriptor, value: object) -> bool:
        """Whether the library takes a value for a field."""
        key = f"[{field.full_name}]" if field.is_extension else field.json_name
        return self._accepts({key: value}, self._schema.new(message), skip_unknown=False, whole=False)


def _may_hold_enums(schema: Schema, target: Descriptor) -> bool:
    """Whether a message, or one in it, has a field of an enum."""
    seen = {target.full_name}
    waiting = [target]
    while waiting:
        for field in schema.fields(waiting.pop()).values():
            if field.enum_type is not None:
                return True
            if is_message(field) and body(field).full_name not in seen:
                seen.add(body(field).full_name)
                waiting.append(body(field))
    return False


def _second_case(cases: dict[str, str], field: FieldDescriptor, way: Way, path: str) -> Iterator[Fault]:
    """A fault when a oneof has a case already."""
    if field.containing_oneof is None:
        return
    oneof = field.containing_oneof.name
    first = cases.setdefault(oneof, field.json_name)
    if first != field.json_name:
        yield "oneof", way, path, f"the oneof `{oneof}` has `{first}` already"


def _takes_null(field: FieldDescriptor) -> bool:
    return is_message(field) and body(field).full_name == "google.protobuf.Value"


def _is_key(field: FieldDescriptor, key: str) -> bool:
    """Whether the name of a member is a key of a map."""
    name = type_name(field)
    if name == "bool":
        return key in {"true", "false"}
    if name == "string":
        return True
    low, high = _RANGE_OF[name]
    return _INTEGER.fullmatch(key) is not None and low <= int(key) < high


def _expected(field: FieldDescriptor) -> str:
    """What a value must be, in words."""
    name = type_name(field)
    if name in _RANGE_OF:
        low, high = _RANGE_OF[name]
        return f"an integer from {low} to {high - 1} ({name})"
    if field.enum_type is not None:
        values = [value.name for value in field.enum_type.values[:ENUM_NAMES_MAX]]
        more = ", …" if len(field.enum_type.values) > ENUM_NAMES_MAX else ""
        numbers = "" if field.enum_type.is_closed else ", or any other number"
        return f"a name or number of `{name}`: {', '.join(values)}{more}{numbers}"
    words = {
        "bool": "true or false",
        "string": "a string",
        "bytes": "a string in base64",
        "float": 'a number in the range of float, "NaN", "Infinity" or "-Infinity"',
        "double": 'a number, "NaN", "Infinity" or "-Infinity"',
    }
    return words.get(name, f"a `{name}`")


def _parts(way: Way) -> list[str | int]:
    """The path from the outside in."""
    parts: list[str | int] = []
    while way is not None:
        way, part = way
        parts.append(part)
    parts.reverse()
    return parts
