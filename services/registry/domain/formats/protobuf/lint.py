"""What a schema may have but probably does not mean.

Sources: protobuf.dev, "Style Guide", "Proto Best Practices" and "Language Guide (proto 2)", on required fields.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from services.registry.domain.formats import Problem
from services.registry.domain.formats.protobuf.compiling import Fault
from services.registry.domain.formats.protobuf.schema import Schema
from services.registry.domain.limits import VALIDATION_ERRORS_MAX

_GAPS_MAX: Final = 100
"""Numbers left out beyond which a message is taken to leave them out on purpose."""


def remarks(schema: Schema, faults: Sequence[Fault]) -> Iterable[Problem]:
    """At most VALIDATION_ERRORS_MAX. faults: the compiler's, whose warnings on the text are among the remarks."""
    return islice(_remarks(schema, faults), VALIDATION_ERRORS_MAX)


def _remarks(schema: Schema, faults: Sequence[Fault]) -> Iterator[Problem]:
    for fault in faults:
        if fault.warning and fault.file == schema.root.name:
            place = f"line {fault.line}, column {fault.column}: " if fault.line else ""
            yield Problem("", "", "compiler", f"{place}{fault.message}")
    if not schema.package:
        yield Problem("", "", "package", "no package: the names of its types may clash with those of other files")
    if not schema.root.message_type:
        yield Problem("", "", "message", "no message: no data can be checked against it")
    for enum in schema.enums():
        yield from _enum(schema, enum)
    for message in schema.all_messages():
        yield from _message(schema, message)
        for enum in message.enum_types:
            yield from _enum(schema, enum)


def _message(schema: Schema, message: Descriptor) -> Iterator[Problem]:
    for field in message.fields:
        path = schema.path(field)
        if field.is_required:
            yield Problem(path, "", "required", "a required field can neither be added nor removed safely, ever")
        if keyword.iskeyword(field.name):
            yield Problem(path, "", "name", f"`{field.name}` is a reserved word of Python and awkward to read there")
    numbers = {field.number for field in message.fields}
    if not numbers or message.is_extendable or max(numbers) > len(numbers) + _GAPS_MAX:
        return
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    reserved = {number for one in proto.reserved_range for number in range(one.start, min(one.end, max(numbers)))}
    missing = [str(number) for number in range(1, max(numbers)) if number not in numbers | reserved]
    if missing:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        message_text = f"{listed} neither used nor reserved: if fields were removed, reserve their numbers and names"
        yield Problem(schema.path(message), "", "reserved", message_text)


def _enum(schema: Schema, enum: EnumDescriptor) -> Iterator[Problem]:
    first = enum.values[0]
    if first.number != 0:
        message = f"the first value, `{first.name[:100]}`, is what a field that is not set has, and is not zero"
        yield Problem(schema.path(enum), "", "enum", message)
