"""EXACT: a reader copes with a writer in binary and in ProtoJSON; a verdict is a proof, or a message shows the fault.

What is compared: every message that the writer's text defines, with the reader's message of the same name relative to
the package, and from there what fields lead to, whatever the types are called. `reading` says what it is to read a
message right. The proof is that no pair of fields on the way has one of the faults below, recursive types assumed right
until refuted (the greatest fixpoint). What may be a fault is shown by a message, built by `samples` and judged by
`reading`; without one it is UNDECIDED.

Harmless by proof: fields that only one side has, since the other keeps them as unknown or has them unset; packed or
expanded lists, since parsers accept both; names of types and of the package, which no data carries but that of Any,
names of extensions in JSON, names of messages that are sent on their own, and names that JSON has a form of its own
for (google.protobuf.Timestamp and the like); widening within one encoding (int32 to int64, uint32 to uint64 or int64,
sint32 to sint64) and numbers read as an open enum; a single field of implicit presence read as one with presence, since
what is not set reads as zero in both. Strings are UTF-8, also where no parser looks: other data breaks the writer's own
schema, as `data` has it.

A pair of schemas does not tell which is older: the reader's lack of a field is its addition by the writer or its
removal by the reader, and a number that one side reserves is a proper removal or a reuse. In data of this writer both
are harmless. That a number or name comes to mean something else is seen where it does, in the comparison with the
version that used it (levels with _TRANSITIVE). What an Any holds is compared nowhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Final, TypeAlias

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.registry.domain.evolution.report import Finding, Verdict, Witness
from services.registry.domain.formats.protobuf import reading, wire
from services.registry.domain.formats.protobuf.samples import (
    Impossible,
    Maker,
    Setting,
    enum_samples,
    key_samples,
    unnamed,
)
from services.registry.domain.formats.protobuf.schema import (
    Names,
    Schema,
    body,
    entry,
    enum_of,
    is_map,
    is_message,
    json_key,
    numbered,
    oneof_of,
    relative,
    shown,
    type_name,
)

PAIRS_MAX: Final = 20_000
"""Pairs of message types that one comparison looks at."""

STEPS_MAX: Final = 5_000_000
"""What one comparison spends on building and reading messages, in fields looked at: a second or two."""

STEPS_PER_TRY: Final = 400
"""What one message costs beside its fields."""

STEPS_PER_REQUIRED_FIELD: Final = 25
"""What a required field costs that is set and read for one message."""

TRIES_PER_FAULT_MAX: Final = 48

CASES_MAX: Final = 20
"""Pairs of fields, or values of an enum, that are tried for one fault."""

WIDENED: Final = frozenset({("int32", "int64"), ("uint32", "uint64"), ("uint32", "int64"), ("sint32", "sint64")})
"""Writer's and reader's scalars where every value of the one is the same value of the other, in binary and JSON."""

SETTINGS_PER_PAIR: Final = 3
"""Ways to set two fields together that are tried."""

Way: TypeAlias = tuple[FieldDescriptor, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A reader's and a writer's message type, and how a writer's message that is sent comes to hold it.

    target: the reader's type for the message that is sent. way: fields from that message to here; empty for itself.
    """

    reader: Descriptor
    writer: Descriptor
    target: Descriptor
    way: Way = ()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What may be a fault. settings: writers' messages that may show it, as what is set in them."""

    rule: str
    message: str
    remedy: str
    reader_path: str
    writer_path: str
    settings: Iterable[Sequence[Setting]]


_KEEP: Final = "keep the field as it was and add a new one with a new number and name"


def findings(reader: Schema, writer: Schema) -> Iterator[Finding]:
    """Where the reader fails, or reads something else than was written; in the order of the writer's text."""
    yield from _Comparison(reader, writer).findings()


class _Comparison:
    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader = reader
        self._writer = writer
        self._maker = Maker(writer)
        self._seen: set[tuple[str, str]] = set()
        self._enums: set[tuple[str, str, bool]] = set()
        self._waiting: deque[Place] = deque()
        self._steps = 0
        self._lost: dict[tuple[str, str], bool] = {}
        self._any: tuple[Place, FieldDescriptor] | None = None

    def findings(self) -> Iterator[Finding]:
        targets = {relative(message): message for message in self._reader.all_messages()}
        for message in self._writer.all_messages():
            target = targets.get(relative(message)) or self._imported(message)
            if target is None:
                yield self._unreadable(message)
            else:
                self._compare_later(Place(target, message, target))
        while self._waiting:
            if len(self._seen) > PAIRS_MAX:
                yield _undecided("NOT_DECIDED", f"the schemas have more than {PAIRS_MAX} pairs of messages to compare")
                return
            place = self._waiting.popleft()
            for suspicion in self._suspicions(place):
                yield self._tried(place, suspicion)
        yield from self._package()

    def _imported(self, message: Descriptor) -> Descriptor | None:
        """The reader's message of the same full name, where the text imports it now."""
        try:
            return self._reader.message(message.full_name)
        except KeyError:
            return None

    def _unreadable(self, message: Descriptor) -> Finding:
        """The finding for a message that the reader does not have under any name it could be known by."""
        name = message.full_name[:100]
        path = self._writer.path(message)
        try:
            sent = self._maker.message(message)
        except Impossible:
            return _undecided("MESSAGE_REMOVED", f"the reader has no message `{name}`", "", path)
        witness = Witness(reading.to_json(self._writer, sent) or "", sent.SerializeToString(deterministic=True))
        return Finding(
            "MESSAGE_REMOVED",
            Verdict.INCOMPATIBLE,
            f"the reader has no message `{name}`, so it reads none that is sent on its own",
            "keep the message under its name, even if unused, or register the schema under a new subject",
            "",
            path,
            witness=witness,
        )

    def _compare_later(self, place: Place) -> None:
        key = (place.reader.full_name, place.writer.full_name)
        if key not in self._seen:
            self._seen.add(key)
            self._waiting.append(place)

    def _tried(self, place: Place, suspicion: Suspicion) -> Finding:
        """A suspicion with its witness, or the finding that there is none."""
        cost = STEPS_PER_TRY + len(place.writer.fields) + len(place.reader.fields)
        for settings in islice(suspicion.settings, TRIES_PER_FAULT_MAX):
            if self._steps + STEPS_PER_REQUIRED_FIELD * self._maker.completed > STEPS_MAX:
                break
            self._steps += cost
            try:
                sent = self._maker.around(place.way, self._maker.message(place.writer, settings))
            except (Impossible, ValueError):
                continue
            witness = reading.judged(self._writer, self._reader, place.target, sent)
            if witness is not None:
                return Finding(
                    suspicion.rule,
                    Verdict.INCOMPATIBLE,
                    suspicion.message,
                    suspicion.remedy,
                    suspicion.reader_path,
                    suspicion.writer_path,
                    witness=witness,
                )
        message = f"{suspicion.message}; no message was found that shows harm, and none that there is no harm"
        return _undecided(suspicion.rule, message, suspicion.reader_path, suspicion.writer_path)

    def _suspicions(self, place: Place) -> Iterator[Suspicion]:
        """What may be wrong with two message types themselves. Types of sound fields are compared later."""
        if reading.same_well_known(place.reader, place.writer):
            return
        known, written = self._reader.fields(place.reader), self._writer.fields(place.writer)
        yield from self._own_forms(place, written)
        names = Names(self._reader, place.reader)
        paths = self._reader.path(place.reader), self._writer.path(place.writer)
        if _is_message_set(place.reader) != _is_message_set(place.writer):
            yield Suspicion("MESSAGE_SET_CHANGED", "only one side is a message set", "keep the option", *paths, ())
        for number, field in known.items():
            if field.is_required and not (number in written and written[number].is_required):
                yield Suspicion(
                    "REQUIRED_FIELD_ADDED",
                    f"the reader requires field {number}, `{field.name[:100]}`, and the writer may leave it out",
                    "make the field optional",
                    self._reader.path(field),
                    self._writer.path(written[number]) if number in written else paths[1],
                    [[]],
                )
        yield from self._merged(place, known, written)
        for number, field in written.items():
            if number in known:
                yield from self._both(place, names, known[number], field)
            else:
                yield from self._unknown(place, names, field)

    def _own_forms(self, place: Place, written: Mapping[int, FieldDescriptor]) -> Iterator[Suspicion]:
        """A type that is called like a well-known one, which JSON writes in a form of its own, whoever defines it."""
        types = place.reader, place.writer
        if all(one.full_name not in reading.SPECIAL for one in types) or _defined_alike(*types):
            return
        yield Suspicion(
            "MESSAGE_FORM_CHANGED",
            f"JSON writes `{types[0].full_name}` or `{types[1].full_name}` in a form of its own, and they differ",
            "keep the message as it was, and out of the package google.protobuf",
            self._reader.path(place.reader),
            self._writer.path(place.writer),
            (setting for field in written.values() for setting in self._maker.settings(field)),
        )

    def _merged(
        self, place: Place, known: dict[int, FieldDescriptor], written: dict[int, FieldDescriptor]
    ) -> Iterator[Suspicion]:
        """Fields that the writer sets together and that exclude each other at the reader."""
        for oneof in place.reader.oneofs:
            apart: dict[str, FieldDescriptor] = {}  # One field of each group that excludes itself at the writer.
            for one in oneof.fields:
                if one.number in written and self._reader.oneof(known[one.number]):
                    field = written[one.number]
                    apart.setdefault(self._writer.oneof(field) or f"/{field.number}", field)
            pairs = list(islice(combinations(apart.values(), 2), CASES_MAX))
            if pairs:
                yield Suspicion(
                    "MULTIPLE_FIELDS_MOVED_TO_ONEOF",
                    f"the writer may set {shown([field.name for field in pairs[0]])} together, and the reader's oneof"
                    f" `{oneof.name[:100]}` keeps one of them",
                    "keep the fields outside of the oneof",
                    f"{self._reader.path(place.reader)}/oneofs/{oneof.name}",
                    self._writer.path(place.writer),
                    ([*one, *other] for pair in pairs for one, other in self._together(pair)),
                )

    def _together(self, pair: Sequence[FieldDescriptor]) -> Iterator[tuple[Sequence[Setting], Sequence[Setting]]]:
        """Ways to set two fields; more than one, since a first value may be what is not written at all."""
        one, other = (self._maker.settings(field) for field in pair)
        return islice(zip(one, other, strict=False), SETTINGS_PER_PAIR)

    def _unknown(self, place: Place, names: Names, field: FieldDescriptor) -> Iterator[Suspicion]:
        """A field that the reader does not have by its number."""
        path, around = self._writer.path(field), self._reader.path(place.reader)
        settings = self._maker.settings(field)
        other = names.taken_for(json_key(field)) or self._called_alike(place, field)
        if other is not None:
            yield Suspicion(
                "FIELD_NAME_REUSED",
                f"the writer's field {field.number} is `{json_key(field)[:100]}` in JSON, which is field {other.number}"
                " at the reader",
                "give the new field a new name, and reserve names and numbers of removed fields",
                self._reader.path(other),
                path,
                settings,
            )
        elif field.is_extension and not place.reader.is_extendable:
            yield Suspicion(
                "EXTENSION_RANGE_REMOVED",
                f"the reader's message takes no extensions, and the writer extends it by `{field.full_name[:100]}`",
                "keep an extension range",
                around,
                path,
                settings,
            )
        elif self._lost_case(place, field):
            yield Suspicion(
                "ONEOF_FIELD_REMOVED",
                f"the reader's oneof lacks `{field.name[:100]}`: it looks unset when the writer has chosen that case",
                "keep the member, or remove the whole oneof",
                around,
                path,
                settings,
            )

    def _called_alike(self, place: Place, field: FieldDescriptor) -> FieldDescriptor | None:
        """The reader's extension that the library takes a member of JSON for, be it one of another message."""
        if not field.is_extension or not place.reader.is_extendable:
            return None
        for name in (field.full_name, field.full_name.rpartition(".")[0]):  # What it is in sets of messages.
            try:
                return self._reader.pool.FindExtensionByName(name)
            except KeyError:
                continue
        return None

    def _lost_case(self, place: Place, field: FieldDescriptor) -> bool:
        """See reading.lost_case. Asked for once for each oneof, since it may have thousands of fields."""
        if not self._writer.oneof(field):
            return False
        key = (place.reader.full_name, oneof_of(field).full_name)
        if key not in self._lost:
            known = self._reader.fields(place.reader)
            self._lost[key] = reading.lost_case(self._writer, self._reader, field, known)
        return self._lost[key]

    def _both(
        self, place: Place, names: Names, reader: FieldDescriptor, writer: FieldDescriptor
    ) -> Iterator[Suspicion]:
        """Two fields of one number. Message types behind sound fields are compared later."""
        if _plainly_alike(reader, writer) and names.taken_for(json_key(writer)) == reader:
            return
        paths = self._reader.path(reader), self._writer.path(writer)
        found = list(self._field_suspicions(names, reader, writer, paths))
        yield from found
        if found or not is_message(writer):
            return
        inner, other = reader.message_type, writer.message_type
        if is_map(writer):
            inner, other = entry(reader)[1].message_type, entry(writer)[1].message_type
        if inner is None or other is None:
            return
        if other.full_name == "google.protobuf.Any" and self._any is None:
            self._any = (place, writer)
        if (inner.full_name in reading.SPECIAL or other.full_name in reading.SPECIAL) and (
            inner.full_name != other.full_name or reading.is_well_known(inner) != reading.is_well_known(other)
        ):
            what = f"field `{reader.name[:100]}` is {type_name(reader)[:100]} here and {type_name(writer)[:100]} there"
            message = f"{what}, which JSON writes in different forms"
            yield Suspicion("FIELD_NAMED_TYPE_CHANGED", message, _KEEP, *paths, self._maker.settings(writer))
            return
        if len(place.way) < wire.DEPTH_MAX:  # No parser reads what is deeper.
            self._compare_later(Place(inner, other, place.target, (*place.way, writer)))

    def _field_suspicions(
        self, names: Names, reader: FieldDescriptor, writer: FieldDescriptor, paths: tuple[str, str]
    ) -> Iterator[Suspicion]:
        key = json_key(writer)
        settings = self._maker.settings
        what = f"field `{reader.name[:100]}` is {_described(reader)} here and {_described(writer)} at the writer"
        if names.taken_for(key) != reader:
            message = (
                f"field {reader.number} is `{key[:100]}` in the writer's JSON, which the reader does not know as such"
            )
            yield Suspicion(
                "FIELD_JSON_NAME_CHANGED", message, "keep the name, or set json_name to it", *paths, settings(writer)
            )
        if is_map(reader) != is_map(writer) or is_message(reader) != is_message(writer):
            yield Suspicion("FIELD_KIND_CHANGED", what, _KEEP, *paths, settings(writer))
            return
        if reader.is_repeated != writer.is_repeated:
            yield Suspicion("FIELD_LABEL_CHANGED", what, _KEEP, *paths, settings(writer))
            return
        if is_map(reader):
            for one, two in zip(entry(reader), entry(writer), strict=True):
                yield from self._type(one, two, writer, paths)
            return
        types = list(self._type(reader, writer, writer, paths))
        yield from types
        if not types and not reader.is_repeated and not is_message(reader):
            yield from self._presence(reader, writer, paths)

    def _presence(
        self, reader: FieldDescriptor, writer: FieldDescriptor, paths: tuple[str, str]
    ) -> Iterator[Suspicion]:
        """What a single scalar reads as when it is not set, and when it is set to what it would be anyway."""
        if writer.has_presence and not reader.has_presence:
            yield Suspicion(
                "FIELD_PRESENCE_CHANGED",
                f"the reader does not tell a `{reader.name[:100]}` that is set to its default from one that is not set",
                "keep `optional`, or the oneof that the field is in",
                *paths,
                ([(writer, [one])] for one in (_zero(writer), *self._maker.values(writer))),
            )
        if not writer.is_required and not reading.same_scalar(writer.default_value, reader.default_value):
            yield Suspicion(
                "FIELD_DEFAULT_CHANGED",
                f"field `{reader.name[:100]}` that is not set reads as another default than the writer's",
                "keep the default, also the first value of an enum",
                *paths,
                [[]],
            )

    def _type(
        self, reader: FieldDescriptor, writer: FieldDescriptor, holder: FieldDescriptor, paths: tuple[str, str]
    ) -> Iterator[Suspicion]:
        """Two types that are both messages or both scalars. holder: the writer's field, which may be a map."""
        what = f"field `{holder.name[:100]}` is {_described(reader)} here and {_described(writer)} at the writer"
        if is_message(reader) != is_message(writer):
            yield Suspicion("FIELD_KIND_CHANGED", what, _KEEP, *paths, self._maker.settings(holder))
        elif is_message(reader):
            if reader.type != writer.type:
                message = f"{what}, one of them a group"
                yield Suspicion("FIELD_KIND_CHANGED", message, _KEEP, *paths, self._maker.settings(holder))
        elif reader.type == writer.type == FieldDescriptor.TYPE_ENUM:
            yield from self._enum(enum_of(reader), enum_of(writer), holder)
        elif not _widened(reader, writer):
            yield Suspicion("FIELD_SCALAR_KIND_CHANGED", what, _KEEP, *paths, self._maker.settings(holder))

    def _enum(self, reader: EnumDescriptor, writer: EnumDescriptor, holder: FieldDescriptor) -> Iterator[Suspicion]:
        """Two enums in one place. What is wrong is found once for each kind of place, and shown by the first."""
        key = (reader.full_name, writer.full_name, is_map(holder))
        if key in self._enums or (reader.full_name == writer.full_name and _is_null(reader) and _is_null(writer)):
            return
        self._enums.add(key)
        paths = self._reader.path(reader), self._writer.path(writer)
        if _is_null(reader) != _is_null(writer):
            message = "JSON writes google.protobuf.NullValue as null, and other enums by name"
            yield Suspicion("FIELD_NAMED_TYPE_CHANGED", message, _KEEP, *paths, self._maker.settings(holder))
        lacking: list[int] = []
        renamed: list[int] = []
        written = numbered(writer)
        for number, value in written.items():
            same = reader.values_by_name.get(value.name)
            if same is None or same.number != number:
                (renamed if number in reader.values_by_number else lacking).append(number)
        for rule, numbers, words in (
            ("ENUM_CONST_REMOVED", lacking, "has no value"),
            ("ENUM_CONST_CHANGED", renamed, "has another name"),
        ):
            if numbers:
                listed = shown([written[number].name for number in numbers])
                yield Suspicion(
                    rule,
                    f"the reader's enum {words} for {listed} of the writer",
                    "keep numbers and names; a second name for a number needs allow_alias",
                    *paths,
                    (_enum_setting(holder, number) for number in numbers[:CASES_MAX]),
                )
        if reader.is_closed and not writer.is_closed:
            message = "the reader's enum is closed and the writer's is open: numbers without a name are lost"
            stranger = unnamed(reader, writer)
            yield Suspicion("ENUM_CLOSED", message, "keep the enum open", *paths, [_enum_setting(holder, stranger)])

    def _package(self) -> Iterator[Finding]:
        """A changed package does harm where an Any may hold a message of the old name."""
        if self._reader.package == self._writer.package:
            return
        message = f"the reader's package is `{self._reader.package[:100]}`, the writer's `{self._writer.package[:100]}`"
        held = next(self._writer.all_messages(), None)
        if self._any is None or held is None:
            yield Finding("PACKAGE_CHANGED", Verdict.COMPATIBLE, message, "", "/package", "/package")
            return
        place, field = self._any
        wrapped = self._writer.new(body(entry(field)[1] if is_map(field) else field))
        wrapped.type_url = f"type.googleapis.com/{held.full_name}"  # type: ignore[attr-defined]
        value = (next(iter(self._maker.settings(field)))[0][1][0][0], wrapped) if is_map(field) else wrapped
        yield self._tried(
            place,
            Suspicion(
                "PACKAGE_CHANGED",
                f"{message}, and the writer has an Any: it may name messages that the reader knows by another name",
                "keep the package, or register the schema under a new subject",
                "/package",
                "/package",
                [[(field, [value])]],
            ),
        )


def _plainly_alike(reader: FieldDescriptor, writer: FieldDescriptor) -> bool:
    """Whether two fields are scalars, no enums, of one type, cardinality, presence and default."""
    return (
        reader.type == writer.type
        and reader.cpp_type not in {FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_ENUM}
        and reader.is_repeated == writer.is_repeated
        and reader.has_presence == writer.has_presence
        and (reader.is_repeated or reading.same_scalar(writer.default_value, reader.default_value))
    )


def _enum_setting(holder: FieldDescriptor, number: int) -> list[Setting]:
    if is_map(holder):
        return [(holder, [(key_samples(holder)[0], number)])]
    return [(holder, [number])]


def _widened(reader: FieldDescriptor, writer: FieldDescriptor) -> bool:
    """Whether every value of the writer's scalar is the same value at the reader, in binary and in JSON."""
    if reader.type == writer.type:
        return True
    if reader.type == FieldDescriptor.TYPE_ENUM:
        return (
            writer.type == FieldDescriptor.TYPE_INT32
            and not enum_of(reader).is_closed
            and not _is_null(enum_of(reader))
        )
    return (type_name(writer), type_name(reader)) in WIDENED


def _is_null(enum: EnumDescriptor) -> bool:
    return bool(enum.full_name == "google.protobuf.NullValue")


def _defined_alike(one: Descriptor, other: Descriptor) -> bool:
    """Whether two messages have one full name and one definition."""
    protos = descriptor_pb2.DescriptorProto(), descriptor_pb2.DescriptorProto()
    for message, proto in zip((one, other), protos, strict=True):
        message.CopyToProto(proto)
    return one.full_name == other.full_name and protos[0] == protos[1]


def _is_message_set(message: Descriptor) -> bool:
    return bool(message.has_options and message.GetOptions().message_set_wire_format)


def _zero(field: FieldDescriptor) -> object:
    """What a single scalar without presence has when nothing was written."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return 0 if 0 in enum_of(field).values_by_number else next(enum_samples(enum_of(field)))
    return type(field.default_value)()


def _described(field: FieldDescriptor) -> str:
    repeated = "repeated " if field.is_repeated and not is_map(field) else ""
    return repeated + type_name(field)[:100]


def _undecided(rule: str, message: str, reader_path: str = "", writer_path: str = "") -> Finding:
    return Finding(
        rule,
        Verdict.UNDECIDED,
        message,
        "check the change yourself and register under level NONE, or keep things as they were",
        reader_path,
        writer_path,
    )
