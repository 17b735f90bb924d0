"""Data in Avro's binary encoding, checked against a schema.

Source: Apache Avro 1.12 Specification, "Binary Encoding". Beyond its words, and unlike lenient decoders: a number has
no more bytes than it needs, an int has 32 bits, a boolean is 0 or 1, the size of a block is what its items take, and
nothing follows the datum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from services.registry.domain.formats import Problem, Validation
from services.registry.domain.formats.avro import logical, scanning
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.places import Way, branch_label, parts
from services.registry.domain.formats.json_data import DATA_DEPTH_MAX
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.limits import VALIDATION_ERRORS_MAX

STEPS_MIN: Final = 100_000
STEPS_PER_BYTE: Final = 16
"""Values that may be looked at. Each takes a byte, but for records that hold little but records."""

EMPTY_ITEMS_MAX: Final = 1_000_000
"""Items without bytes that arrays may claim, all in all: a few bytes could otherwise stand for 2^63 of them."""

_VALID: Final = Validation(())
_LONG_BYTES_MAX: Final = 10


SCANS_PER_BYTE: Final = 16
"""How often a byte may be scanned in vain, once for each level around what is wrong. Beyond, values are read singly."""

REFUSALS: Final = (scanning.Doubtful, IndexError, UnicodeDecodeError)
"""What a scan raises on data that is not plainly valid."""


class Unreadable(Exception):
    """The rest of the data has no meaning."""


class BinaryValidator:
    """Checks binary payloads: the whole payload is one datum. Safe to use from many tasks."""

    def __init__(self, schema: Schema, *, assert_formats: bool) -> None:
        self._schema = schema
        self._assert_formats = assert_formats
        self._scans = scanning.scanners(schema, assert_formats=assert_formats)
        self._widths = scanning.widths(schema)

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check.

        What cannot be read ends the check, as nothing tells what the bytes after it stand for; a value that only its
        logical type refuses does not. Instance paths are those of the JSON encoding; messages name the byte.
        """
        scan = self._scans.get(self._schema.root)
        if scan is not None:
            try:
                if scan(data, 0, 0) == len(data):
                    return _VALID
            except REFUSALS:
                pass
        return Reading(self._schema, self._widths, self._scans, data, assert_formats=self._assert_formats).validation()


@dataclass(slots=True)
class _Value:
    """A value to read next."""

    type: Type | Definition
    way: Way
    schema_path: str
    depth: int


@dataclass(slots=True)
class _Items:
    """The rest of an array or a map. left: items of the block to come; end: of the block, -1 when it does not say."""

    container: Array | Map
    way: Way
    schema_path: str
    depth: int
    index: int = 0
    left: int = 0
    end: int = -1


class Reading:
    """One payload, read value by value, without recursion; what a scan finds plainly valid is passed over.

    scans: of some types of the schema, or of none.
    """

    def __init__(
        self,
        schema: Schema,
        widths: Mapping[str, scanning.Width],
        scans: Mapping[Type | Definition, scanning.Scan],
        data: bytes,
        *,
        assert_formats: bool,
    ) -> None:
        self._schema = schema
        self._widths = widths
        self._scans = scans
        self._scannable = SCANS_PER_BYTE * len(data)
        self._data = data
        self._assert_formats = assert_formats
        self._position = 0
        self._steps = STEPS_MIN + STEPS_PER_BYTE * len(data)
        self._empty_items = 0
        self._problems: list[Problem] = []
        self._way: Way = None
        self._schema_path = ""
        self._kind = ""
        self._open: list[_Value | _Items] = [_Value(schema.root, None, "", 0)]

    def validation(self) -> Validation:
        """What is wrong, first to last."""
        try:
            while self._open and len(self._problems) <= VALIDATION_ERRORS_MAX:
                self._next(self._open.pop())
            if not self._open and self._position < len(self._data):
                self._way, self._schema_path, self._kind = None, "", ""
                left = len(self._data) - self._position
                self._refuse(f"the datum ends before byte {self._position}, but more bytes follow: {left}")
        except Unreadable:
            pass
        found = self._problems
        return Validation(tuple(found[:VALIDATION_ERRORS_MAX]), truncated=len(found) > VALIDATION_ERRORS_MAX)

    def _next(self, item: _Value | _Items) -> None:
        self._steps -= 1
        if isinstance(item, _Value) and self._passed(item.type):
            return
        if isinstance(item, _Items):
            self._way, self._schema_path, self._kind = item.way, item.schema_path, item.container.kind
            self._require_steps()
            self._items(item)
            return
        resolved = self._schema.resolve(item.type)
        path = next((one for one in (resolved.path, item.type.path) if one is not None), item.schema_path)
        self._way, self._schema_path, self._kind = item.way, path, resolved.kind
        self._require_steps()
        if item.depth > DATA_DEPTH_MAX:
            self._refuse(f"is nested deeper than {DATA_DEPTH_MAX} levels")
        self._value(resolved, item, path)

    def _value(self, resolved: Resolved, item: _Value, path: str) -> None:
        """Reads a value, or the beginning of one and leaves the rest of it open."""
        way, depth = item.way, item.depth + 1
        match resolved:
            case Record(fields=fields):
                self._steps -= len(fields)
                below = [_Value(one.type, (way, one.name), path, depth) for one in fields if not self._empty(one.type)]
                self._open.extend(reversed(below))
            case Array() | Map():
                self._open.append(_Items(resolved, way, path, depth))
            case Union(branches=branches):
                index = self._index(len(branches), "branch of the union")
                branch = self._schema.resolve(branches[index])
                inner = way if branch.kind == "null" else (way, branch_label(branch))
                self._open.append(_Value(branches[index], inner, path, depth))
            case Enum(symbols=symbols):
                self._index(len(symbols), f"symbol of `{resolved.name}`")
            case Primitive() | Fixed():
                start = self._position
                fault = self._leaf(resolved)
                if fault is not None:
                    assert resolved.logical is not None
                    self._add(resolved.logical.name, f"the value at byte {start} {fault}")

    def _items(self, item: _Items) -> None:
        """Opens the next item, or the next block."""
        if item.left == 0:
            if item.end not in (-1, self._position):
                self._refuse(f"the block ends at byte {self._position}, but says that it ends at byte {item.end}")
            item.left, item.end = self._long(64), -1
            if item.left < 0:
                item.left = -item.left
                item.end = self._length("the size of the block") + self._position
            if item.left == 0:
                return
        inner = item.container.items if isinstance(item.container, Array) else item.container.values
        self._open.append(item)
        if isinstance(item.container, Array) and self._empty(inner):
            self._empty_items += item.left
            if self._empty_items > EMPTY_ITEMS_MAX:
                self._refuse(
                    f"by byte {self._position} arrays claim more than {EMPTY_ITEMS_MAX} items that take no bytes"
                )
            item.index += item.left
            item.left = 0
            return
        while item.left and isinstance(item.container, Array) and self._passed(inner):
            item.index += 1
            item.left -= 1
        if not item.left:
            return
        key: str | int = item.index
        if isinstance(item.container, Map):
            key = self._text()
        item.left -= 1
        item.index += 1
        self._open.append(_Value(inner, (item.way, key), item.schema_path, item.depth))

    def _passed(self, item: Type | Definition) -> bool:
        """Whether a value is plainly valid, and passed over."""
        scan = self._scans.get(item)
        if scan is None or self._scannable < 0 or item is self._schema.root:
            return False
        try:
            end = scan(self._data, self._position, 0)
        except REFUSALS:
            end = len(self._data) + 1
        if end > len(self._data):
            self._scannable -= len(self._data) - self._position
            return False
        self._position = end
        return True

    def _leaf(self, item: Primitive | Fixed) -> str | None:
        """Reads a scalar; why its logical type refuses it."""
        annotation = item.logical if self._assert_formats else None
        match item.kind:
            case "null":
                return None
            case "boolean":
                if self._take(1)[0] > 1:
                    self._refuse(f"a boolean is 0 or 1, which byte {self._position - 1} is not")
            case "int" | "long":
                number = self._long(32 if item.kind == "int" else 64)
                return logical.fault_of_number(annotation, number) if annotation else None
            case "float":
                self._take(4)
            case "double":
                self._take(8)
            case "string":
                text = self._text()
                return logical.fault_of_string(text) if annotation else None
            case _:
                size = item.size if isinstance(item, Fixed) else self._length("the length of the bytes")
                content = self._take(size)
                return logical.fault_of_bytes(annotation, content) if annotation else None
        return None

    def _text(self) -> str:
        length = self._length("the length of the string")
        start = self._position
        content = self._take(length)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            self._refuse(f"byte {start + error.start} is not UTF-8, which a string must be")

    def _index(self, count: int, what: str) -> int:
        start = self._position
        index = self._long(64)
        if not 0 <= index < count:
            self._refuse(f"the number at byte {start} is no {what}: there are {count}, counted from 0")
        return index

    def _length(self, what: str) -> int:
        start = self._position
        length = self._long(64)
        if length < 0:
            self._refuse(f"{what} at byte {start} is negative")
        return length

    def _long(self, bits: int) -> int:
        """A number in the variable-length zig-zag encoding."""
        start, end, data = self._position, self._position, self._data
        while end < len(data) and data[end] >= 0x80 and end - start < _LONG_BYTES_MAX:
            end += 1
        if end == len(data):
            self._refuse(f"the data ends within a number, at byte {end}")
        if end > start and data[end] == 0:
            self._refuse(f"the number at byte {start} has more bytes than it needs")
        value = 0
        for byte in reversed(data[start : end + 1]):
            value = value << 7 | byte & 0x7F
        if value >> bits or end - start >= _LONG_BYTES_MAX:
            self._refuse(f"the number at byte {start} has more than {bits} bits")
        self._position = end + 1
        return (value >> 1) ^ -(value & 1)

    def _take(self, count: int) -> bytes:
        start, end = self._position, self._position + count
        if end > len(self._data):
            missing = end - len(self._data)
            self._refuse(f"the value at byte {start} has {count} bytes, of which the last {missing} are missing")
        self._position = end
        return self._data[start:end]

    def _empty(self, item: Type) -> bool:
        return scanning.width(item, self._widths) == 0

    def _require_steps(self) -> None:
        if self._steps < 0:
            self._refuse("takes too many steps to check: the schema nests records too deep in each other")

    def _refuse(self, message: str) -> NoReturn:
        self._add(self._kind, message)
        raise Unreadable

    def _add(self, keyword: str, message: str) -> None:
        self._problems.append(Problem(pointer(parts(self._way)), self._schema_path, keyword, message))
