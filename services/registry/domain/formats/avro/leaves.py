"""Scalars whose bytes a reader takes, and what they no longer mean then.

Source: Apache Avro 1.12 Specification, "Schema Resolution" and "Logical Types". The specification lets two decimals
match only when precision and scale are equal, and leaves open what follows when they are not; implementations read the
bytes all the same, so what counts here is whether the number is still the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from services.registry.domain.formats.avro import meaning
from services.registry.domain.formats.avro.logical import Logical
from services.registry.domain.formats.avro.model import Fixed, Primitive
from services.registry.domain.formats.avro.reading import Rejected, promoted, same_kind, same_name
from services.registry.domain.formats.avro.values import Value, smallest_scalar

Fault: TypeAlias = tuple[str, str, str, Value]
"""Rule, message, remedy, and a value of the writer that shows it."""

_FIRST_LOST: Final[Mapping[tuple[str, str], int]] = {
    ("int", "float"): (1 << 24) + 1,
    ("long", "float"): (1 << 24) + 1,
    ("long", "double"): (1 << 53) + 1,
}
"""The first integer that a floating-point number cannot hold (IEEE 754: 24 and 53 bits), by writer and reader."""

_PRECISION_SHOWN_MAX: Final = 10_000
"""Digits of a decimal that is written out to show that it has too many: beyond, it is not shown."""


def leaf_fault(reader: Primitive | Fixed, writer: Primitive | Fixed) -> Fault | None:
    """What is wrong with reading a scalar as another, when its bytes can be read; None when its meaning stays."""
    if not _resolve(reader, writer):
        return None
    rule = _logical_rule(reader.logical, writer.logical, writer.kind)
    if rule is not None:
        value = _shown(rule, reader, writer)
        message = f"the writer's {meaning.described(writer, value)} is {_outcome(reader, value)}"
        if rule == "DECIMAL_PRECISION_DECREASED":
            assert reader.logical is not None
            assert writer.logical is not None
            digits = reader.logical.precision
            message = f"the reader's decimal has {digits} digits where the writer's has {writer.logical.precision}"
        return rule, message, _REMEDIES[rule], value
    if reader.logical is not None or (writer.kind, reader.kind) == ("string", "bytes"):
        return None
    lost = _FIRST_LOST.get((writer.kind, reader.kind))
    if lost is not None:
        message = (
            f"the reader's {reader.kind} cannot hold every {writer.kind} of the writer: {lost} is the first it loses"
        )
        return "LOSSY_PROMOTION", message, f"keep {writer.kind}, or read it as a union that also has it", lost
    if (writer.kind, reader.kind) == ("bytes", "string"):
        message = "the reader's string must be UTF-8, which the writer's bytes need not be"
        return "BYTES_READ_AS_STRING", message, "keep bytes, or add a field for the text", b"\xff"
    return None


_REMEDIES: Final[Mapping[str, str]] = {
    "DECIMAL_SCALE_CHANGED": "keep the scale, or add a field for the other one",
    "DECIMAL_PRECISION_DECREASED": "keep at least as many digits of precision",
    "LOGICAL_TYPE_ADDED": "add a field with the logical type, and keep this one as it was",
    "LOGICAL_TYPE_REMOVED": "keep the logical type: readers would get the bare value",
    "LOGICAL_TYPE_CHANGED": "keep the logical type, or add a field for the other one",
}


def _resolve(reader: Primitive | Fixed, writer: Primitive | Fixed) -> bool:
    if isinstance(reader, Fixed) and isinstance(writer, Fixed):
        return reader.size == writer.size and same_name(reader, writer)
    return same_kind(reader, writer)


def _logical_rule(reader: Logical | None, writer: Logical | None, kind: str) -> str | None:
    if reader == writer:
        return None
    if writer is None:
        return "LOGICAL_TYPE_ADDED"
    if reader is None:
        return None if (writer.name, kind) == ("uuid", "string") else "LOGICAL_TYPE_REMOVED"
    if (reader.name, writer.name) != ("decimal", "decimal"):
        return "LOGICAL_TYPE_CHANGED"
    if reader.scale != writer.scale:
        return "DECIMAL_SCALE_CHANGED"
    return "DECIMAL_PRECISION_DECREASED" if reader.precision < writer.precision else None


def _shown(rule: str, reader: Primitive | Fixed, writer: Primitive | Fixed) -> Value:
    """A value that the writer's logical type accepts and that means something else to the reader."""
    if writer.kind in ("int", "long"):
        return 1
    if writer.kind == "string":
        return smallest_scalar(writer) if isinstance(writer, Primitive) else ""
    if writer.logical is not None and writer.logical.name == "big-decimal":
        return b"\x02\x01\x00"
    number = 1
    if rule == "DECIMAL_PRECISION_DECREASED":
        assert reader.logical is not None
        number = 10 ** min(reader.logical.precision, _PRECISION_SHOWN_MAX)
    size = writer.size if isinstance(writer, Fixed) else number.bit_length() // 8 + 1
    return number.to_bytes(size, "big")


def _outcome(reader: Primitive | Fixed, value: Value) -> str:
    try:
        found = promoted(reader.kind, value)
    except Rejected as reason:
        return f"refused by the reader: {reason}"
    fault = meaning.fault(reader, found)
    return f"read as {meaning.described(reader, found)}" if fault is None else f"refused by the reader: it {fault}"
