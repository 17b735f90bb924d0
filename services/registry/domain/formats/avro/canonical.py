"""Texts that schemas are compared by, and their fingerprints.

Source: Apache Avro 1.12 Specification, "Parsing Canonical Form for Schemas" and "Schema Fingerprints".
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from services.registry.domain.formats import json_text as text
from services.registry.domain.formats.avro.logical import Logical
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
)

Piece: TypeAlias = "str | Type"

_EMPTY: Final = 0xC15D213AA4D7A795


def parsing_canonical_form(schema: Schema) -> str:
    """The specification's form: all that a reader needs to parse data, and nothing else.

    A type of a referenced text is written out where it is first used, so that the form stands for itself. An error is
    written as a record, as in the reference implementation: the specification does not say.
    """
    return _render(schema, _nothing, _nothing)


def semantic_form(schema: Schema) -> str:
    """The Parsing Canonical Form with what else decides how data is read, resolved and ordered.

    Added are aliases (sorted), defaults of fields and enums, valid logical types with precision and scale, and orders
    of fields other than ascending. Left out are docs, metadata, ignored logical types and a type's or field's own
    name as alias. It is one for all texts with the same meaning; it is not itself meant to be parsed.
    """
    return _render(schema, _type_meaning, _field_meaning)


def crc64(data: bytes) -> int:
    """CRC-64-AVRO (Rabin), unsigned. Little-endian, its eight bytes are those of the single-object encoding."""
    table = _table()
    value = _EMPTY
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value


def crc64_fingerprint(schema: Schema) -> int:
    """CRC-64-AVRO of the Parsing Canonical Form."""
    return crc64(parsing_canonical_form(schema).encode("utf-8"))


def sha256_fingerprint(schema: Schema) -> bytes:
    """SHA-256 of the Parsing Canonical Form."""
    return hashlib.sha256(parsing_canonical_form(schema).encode("utf-8")).digest()


@functools.cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY if value & 1 else 0)
        return value

    return tuple(map(entry, range(256)))


def _render(schema: Schema, of_type: Callable[[Primitive | Definition], str], of_field: Callable[[Field], str]) -> str:
    """The schema's text, each definition written out at its first use. Without recursion: types nest without limit.

    of_type, of_field: further members, each beginning with a comma.
    """
    written: set[str] = set()
    finished: list[str] = []
    open_pieces: list[Piece] = [schema.root]
    while open_pieces:
        piece = open_pieces.pop()
        if isinstance(piece, str):
            finished.append(piece)
        elif not isinstance(piece, Named):
            open_pieces.extend(reversed(_pieces(piece, of_type)))
        elif piece.name in written:
            finished.append(json.dumps(piece.name))
        else:
            written.add(piece.name)
            open_pieces.extend(reversed(_definition(schema.types[piece.name], of_type, of_field)))
    return "".join(finished)


def _pieces(item: Primitive | Array | Map | Union, of_type: Callable[[Primitive | Definition], str]) -> Sequence[Piece]:
    match item:
        case Primitive(kind=kind):
            more = of_type(item)
            return [f'{{"type":"{kind}"{more}}}' if more else f'"{kind}"']
        case Array(items=inner):
            return ['{"type":"array","items":', inner, "}"]
        case Map(values=inner):
            return ['{"type":"map","values":', inner, "}"]
        case Union(branches=branches):
            pieces: list[Piece] = ["["]
            for index, branch in enumerate(branches):
                pieces += [",", branch] if index else [branch]
            return [*pieces, "]"]


def _definition(
    item: Definition, of_type: Callable[[Primitive | Definition], str], of_field: Callable[[Field], str]
) -> Sequence[Piece]:
    head = f'{{"name":"{item.name}","type":"{item.kind}"'
    tail = f"{of_type(item)}}}"
    match item:
        case Enum(symbols=symbols):
            return [f'{head},"symbols":[{",".join(map(json.dumps, symbols))}]{tail}']
        case Fixed(size=size):
            return [f'{head},"size":{size}{tail}']
        case Record(fields=fields):
            pieces: list[Piece] = [f'{head},"fields":[']
            for index, field in enumerate(fields):
                pieces += [f'{"," if index else ""}{{"name":"{field.name}","type":', field.type, f"{of_field(field)}}}"]
            return [*pieces, f"]{tail}"]


def _nothing(_: object) -> str:
    return ""


def _type_meaning(item: Primitive | Definition) -> str:
    meaning = "" if isinstance(item, Primitive) else _aliases(item)
    if isinstance(item, Enum) and item.default is not None:
        meaning += f',"default":{json.dumps(item.default)}'
    if isinstance(item, Primitive | Fixed):
        meaning += _logical(item.logical)
    return meaning


def _field_meaning(field: Field) -> str:
    meaning = _aliases(field)
    if field.has_default:
        meaning += f',"default":{text.canonical(field.default)}'
    if field.order != "ascending":
        meaning += f',"order":{json.dumps(field.order)}'
    return meaning


def _aliases(item: Definition | Field) -> str:
    aliases = sorted(set(item.aliases) - {item.name})
    return f',"aliases":[{",".join(map(json.dumps, aliases))}]' if aliases else ""


def _logical(logical: Logical | None) -> str:
    if logical is None:
        return ""
    digits = f',"precision":{logical.precision},"scale":{logical.scale}' if logical.precision else ""
    return f',"logicalType":"{logical.name}"{digits}'
