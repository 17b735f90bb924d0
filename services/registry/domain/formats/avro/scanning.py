"""Binary data that plainly follows a schema is told from all other at the speed of a decoder in C.

A schema becomes one closure for each of its types; a closure takes the data, a position and the number of recursive
uses that it is within, and returns the position after its value. Nothing is built. A closure never says that data is
wrong: it raises Doubtful, IndexError or UnicodeDecodeError, and who reads byte by byte decides (binary.py). A position
may run past the end, where the next byte that is looked at raises IndexError, and the caller compares the last one.

Work is linear in the data: a type that takes no bytes is not visited, a record with one other field is that field, and
every other step takes at least one byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from services.registry.domain.formats.avro import logical
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
)

Scan: TypeAlias = Callable[[bytes, int, int], int]
Width: TypeAlias = "int | None"
"""Bytes that each value of a type takes, when all take as many."""

_NESTING_MAX: Final = 60
"""Closures that call each other within one definition and those it uses. Real schemas have ten."""

_CALLS_MAX: Final = 300
"""Closures that call each other, recursive types included: well within what the interpreter allows."""

_WIDTHS: Final[Mapping[str, int]] = {"null": 0, "float": 4, "double": 8}


class Doubtful(Exception):
    """The data is not plainly valid."""


def scanners(schema: Schema, *, assert_formats: bool) -> Mapping[Type | Definition, Scan]:
    """Scans of the root and of all types below it; none for a schema that nests too deep for them."""
    compiler = _Compiler(schema, assert_formats=assert_formats)
    try:
        return compiler.compile()
    except Doubtful:
        return {}


def reachable(schema: Schema) -> set[str]:
    """Full names of the definitions that data of the schema may come to."""
    seen: set[str] = set()
    open_types: list[Type] = [schema.root]
    while open_types:
        item = open_types.pop()
        if isinstance(item, Named):
            if item.name in seen:
                continue
            seen.add(item.name)
        open_types.extend(inner_types(schema.resolve(item)))
    return seen


def widths(schema: Schema) -> dict[str, Width]:
    """Widths of all definitions, by full name.

    Definitions come after those that they use, but for recursive uses, and a recursive type has no one width.
    """
    known: dict[str, Width] = {}
    for name, item in schema.types.items():
        known[name] = width(item, known)
    return known


def width(item: Type | Definition, known: Mapping[str, Width]) -> Width:
    """The width of a type. known: those of the definitions that it uses."""
    match item:
        case Named(name=name):
            return known.get(name)
        case Primitive(kind=kind):
            return _WIDTHS.get(kind)
        case Fixed(size=size):
            return size
        case Record(fields=fields):
            total = 0
            for one in fields:
                part = width(one.type, known)
                if part is None:
                    return None
                total += part
            return total
    return None


class _Compiler:
    """Closures for the definitions of one schema."""

    def __init__(self, schema: Schema, *, assert_formats: bool) -> None:
        self._schema = schema
        self._assert_formats = assert_formats
        self._widths = widths(schema)
        self._scans: dict[str, Scan] = {}
        self._all: dict[Type | Definition, Scan] = {}
        self._nesting: dict[str, int] = {}
        self._decimals: set[str] = set()
        self._uses_max = [_CALLS_MAX]

    def compile(self) -> Mapping[Type | Definition, Scan]:
        """Scans by type, the root's among them. Raises Doubtful when closures would call each other too deep."""
        wanted = reachable(self._schema)
        for name, item in self._schema.types.items():
            if name in wanted:
                if self._assert_formats and self._may_be_refused(item):
                    self._decimals.add(name)
                self._scans[name] = self._scan(item)
                self._nesting[name] = self._depth(item)
                if self._nesting[name] > _NESTING_MAX:
                    raise Doubtful
        self._scan(self._schema.root)
        deepest = max([self._depth(self._schema.root), *self._nesting.values()])
        self._uses_max[0] = _CALLS_MAX // (deepest + 1)
        return self._all

    def _depth(self, item: Type | Definition) -> int:
        """Closures that call each other, up to the next recursive use."""
        if isinstance(item, Named):
            return self._nesting.get(item.name, 1)
        return 1 + max((self._depth(one) for one in inner_types(item)), default=0)

    def _scan(self, item: Type | Definition) -> Scan:
        scan = self._all[item] = self._made(item)
        return scan

    def _made(self, item: Type | Definition) -> Scan:
        size = width(item, self._widths)
        if size is not None and not self._may_be_refused(item):
            return _skip(size)
        match item:
            case Named(name=name):
                return self._scans.get(name) or self._recursive(name)
            case Union(branches=branches):
                return _union([self._scan(one) for one in branches])
            case Record():
                return self._record(item)
            case Array(items=inner):
                return self._array(inner)
            case Map(values=inner):
                return _map(self._scan(inner))
            case Enum(symbols=symbols):
                return _index(len(symbols))
            case Primitive() | Fixed():
                scan = _leaf(item)
                return _asserted(scan, item, item.logical) if self._assert_formats and item.logical else scan

    def _may_be_refused(self, item: Type | Definition) -> bool:
        """Whether a type of constant width may hold values that its logical type refuses: only a decimal does."""
        match item:
            case Named(name=name):
                return name in self._decimals
            case Record(fields=fields):
                return any(self._may_be_refused(one.type) for one in fields)
            case Fixed(logical=annotation):
                return annotation is not None and annotation.name == "decimal"
        return False

    def _record(self, record: Record) -> Scan:
        scans: list[Scan] = []
        constant = 0
        for one in record.fields:
            size = width(one.type, self._widths)
            if size is not None and not self._may_be_refused(one.type):
                constant += size
                self._all[one.type] = _skip(size)
                continue
            if constant:
                scans.append(_skip(constant))
                constant = 0
            scans.append(self._scan(one.type))
        if constant:
            scans.append(_skip(constant))
        return scans[0] if len(scans) == 1 else _sequence(scans)

    def _array(self, inner: Type) -> Scan:
        size = width(inner, self._widths)
        if size is not None and not self._may_be_refused(inner):
            self._all[inner] = _skip(size)
            return _constant_items(size)
        return _array(self._scan(inner))

    def _recursive(self, name: str) -> Scan:
        """A use of a type within itself."""
        scans, uses_max = self._scans, self._uses_max

        def scan(data: bytes, position: int, uses: int) -> int:
            if uses >= uses_max[0]:
                raise Doubtful
            return scans[name](data, position, uses + 1)

        return scan


def inner_types(item: Type | Definition) -> Iterator[Type]:
    """The types that a type directly holds."""
    match item:
        case Array(items=inner) | Map(values=inner):
            yield inner
        case Union(branches=branches):
            yield from branches
        case Record(fields=fields):
            yield from (one.type for one in fields)


def _skip(size: int) -> Scan:
    return lambda _, position, __: position + size


def _leaf(item: Primitive | Fixed) -> Scan:
    match item.kind:
        case "boolean":
            return _boolean
        case "int":
            return _int
        case "long":
            return _long
        case "bytes":
            return _bytes
        case "string":
            return _string
        case "fixed":
            assert isinstance(item, Fixed)
            return _skip(item.size)
    return _skip(_WIDTHS[item.kind])


def _boolean(data: bytes, position: int, _: int) -> int:
    if data[position] > 1:
        raise Doubtful
    return position + 1


def _int(data: bytes, position: int, _: int) -> int:
    if data[position] < 0x80:
        return position + 1
    end = position + 1
    while data[end] >= 0x80:
        end += 1
    if not 0 < data[end] <= (0x7F if end - position < 4 else 0x0F) or end - position > 4:
        raise Doubtful
    return end + 1


def _long(data: bytes, position: int, _: int) -> int:
    if data[position] < 0x80:
        return position + 1
    end = position + 1
    while data[end] >= 0x80:
        end += 1
    if not 0 < data[end] <= (0x7F if end - position < 9 else 0x01) or end - position > 9:
        raise Doubtful
    return end + 1


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A long, and the position after it."""
    end = _long(data, position, 0)
    value = 0
    for byte in reversed(data[position:end]):
        value = value << 7 | byte & 0x7F
    return (value >> 1) ^ -(value & 1), end


def _bytes(data: bytes, position: int, _: int) -> int:
    length = data[position]
    if length < 0x80 and not length & 1:
        return position + 1 + (length >> 1)
    length, position = _number(data, position)
    if length < 0:
        raise Doubtful
    return position + length


def _string(data: bytes, position: int, _: int) -> int:
    length = data[position]
    position += 1
    if length < 0x80 and not length & 1:
        end = position + (length >> 1)
    else:
        length, position = _number(data, position - 1)
        if length < 0:
            raise Doubtful
        end = position + length
    data[position:end].decode()
    return end


def _index(count: int) -> Scan:
    """An enum's symbol."""
    if count > 64:
        return lambda data, position, _: _large_index(data, position, count)[1]
    limit = 2 * count

    def scan(data: bytes, position: int, _: int) -> int:
        index = data[position]
        if index >= limit or index & 1:
            raise Doubtful
        return position + 1

    return scan


def _large_index(data: bytes, position: int, count: int) -> tuple[int, int]:
    index, position = _number(data, position)
    if not 0 <= index < count or position > len(data):
        raise Doubtful
    return index, position


def _union(branches: Sequence[Scan]) -> Scan:
    if len(branches) > 64:

        def scan_large(data: bytes, position: int, uses: int) -> int:
            index, position = _large_index(data, position, len(branches))
            return branches[index](data, position, uses)

        return scan_large
    by_byte: list[Scan] = [_doubt] * 256
    by_byte[: 2 * len(branches) : 2] = branches

    def scan(data: bytes, position: int, uses: int) -> int:
        return by_byte[data[position]](data, position + 1, uses)

    return scan


def _doubt(_: bytes, __: int, ___: int) -> int:
    raise Doubtful


def _sequence(scans: Sequence[Scan]) -> Scan:
    parts = tuple(scans)

    def scan(data: bytes, position: int, uses: int) -> int:
        for part in parts:
            position = part(data, position, uses)
        return position

    return scan


def _block(data: bytes, position: int) -> tuple[int, int, int]:
    """Items in a block, the position of the first one, and where the block ends: -1 when it does not say."""
    count, position = _number(data, position)
    if count >= 0:
        return count, position, -1
    size, position = _number(data, position)
    if size < 0:
        raise Doubtful
    return -count, position, position + size


def _array(item: Scan) -> Scan:
    def scan(data: bytes, position: int, uses: int) -> int:
        while True:
            count = data[position]
            position += 1
            if not count:
                return position
            end = -1
            if count & 1 or count >= 0x80:
                count, position, end = _block(data, position - 1)
            else:
                count >>= 1
            for _ in range(count):
                position = item(data, position, uses)
            if end not in (-1, position):
                raise Doubtful

    return scan


def _map(value: Scan) -> Scan:
    def entry(data: bytes, position: int, uses: int) -> int:
        return value(data, _string(data, position, uses), uses)

    return _array(entry)


def _constant_items(size: int) -> Scan:
    """An array whose items all take as many bytes: they need no visit, and there may be any number of them."""

    def scan(data: bytes, position: int, _: int) -> int:
        while True:
            count, position, end = _block(data, position)
            if not count:
                return position
            if not size:  # They may add up to more than any reader can hold.
                raise Doubtful
            position += count * size
            if end not in (-1, position):
                raise Doubtful

    return scan


def _asserted(scan: Scan, item: Resolved, annotation: logical.Logical) -> Scan:
    """A leaf's scan that doubts values which its logical type refuses too."""
    if item.kind in ("int", "long"):

        def number(data: bytes, position: int, uses: int) -> int:
            end = scan(data, position, uses)
            if logical.fault_of_number(annotation, _number(data, position)[0]) is not None:
                raise Doubtful
            return end

        return number

    def content(data: bytes, position: int, uses: int) -> int:
        end = scan(data, position, uses)
        start = position if item.kind == "fixed" else _number(data, position)[1]
        found = data[start:end]
        if item.kind == "string":
            fault = logical.fault_of_string(found.decode())
        else:
            fault = logical.fault_of_bytes(annotation, found)
        if fault is not None:
            raise Doubtful
        return end

    return content
