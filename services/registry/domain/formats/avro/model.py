"""Avro schemas as values: what the parser builds and everything else walks over.

Source: Apache Avro 1.12 Specification, "Schema Declaration" and "Names".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from services.registry.domain.formats import Problem
from services.registry.domain.formats.avro.logical import Logical
from services.registry.domain.formats.json_text import Json

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, eq=False)
class Primitive:
    """A primitive type. path: where in the text it stands, as a JSON pointer; None when in a referenced text."""

    kind: str
    path: str | None
    logical: Logical | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A list of items of one type."""

    items: Type
    path: str | None
    kind: str = "array"


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """Values of one type by name."""

    values: Type
    path: str | None
    kind: str = "map"


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """One of several types. No branch is itself a union."""

    branches: tuple[Type, ...]
    path: str | None
    kind: str = "union"


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A use of a named type: by its name, or the place of its definition."""

    name: str
    path: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of a record. default: means something only when has_default."""

    name: str
    type: Type
    path: str | None
    aliases: tuple[str, ...] = ()
    order: str = "ascending"
    has_default: bool = False
    default: Json = None
    doc: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A record, or an error, which is one in all but its use in protocols. name, aliases: full names."""

    name: str
    path: str | None
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    kind: str = "record"
    doc: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Enum:
    """One of several symbols. default: what a reader takes an unknown symbol for; None when it fails on one.

    known: the symbols as a set.
    """

    name: str
    path: str | None
    symbols: tuple[str, ...]
    known: frozenset[str]
    default: str | None = None
    aliases: tuple[str, ...] = ()
    kind: str = "enum"
    doc: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A fixed number of bytes."""

    name: str
    path: str | None
    size: int
    logical: Logical | None = None
    aliases: tuple[str, ...] = ()
    kind: str = "fixed"
    doc: str = ""


Definition: TypeAlias = Record | Enum | Fixed
Type: TypeAlias = Primitive | Array | Map | Union | Named
Resolved: TypeAlias = Primitive | Array | Map | Union | Definition


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A valid schema. types: definitions in the text and in the texts it references, by full name.

    docs: what the text itself says for people. remarks: what is allowed there but probably not meant.
    """

    root: Type
    types: Mapping[str, Definition]
    docs: tuple[str, ...] = ()
    remarks: tuple[Problem, ...] = ()

    def resolve(self, item: Type | Definition) -> Resolved:
        """The type itself, or the definition that a name stands for."""
        return self.types[item.name] if isinstance(item, Named) else item


def is_name(text: str) -> bool:
    """Whether a text may name a field or a symbol, or be a part of a full name."""
    return _NAME.fullmatch(text) is not None


def is_full_name(text: str) -> bool:
    """Whether a text is a dot-separated sequence of names."""
    return all(is_name(part) for part in text.split("."))


def qualified(name: str, namespace: str) -> str:
    """The full name: a name with a dot is one already."""
    return name if "." in name or not namespace else f"{namespace}.{name}"


def unqualified(full_name: str) -> str:
    """The name without its namespace."""
    return full_name.rpartition(".")[2]
