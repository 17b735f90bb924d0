"""Data in Avro's binary encoding: what follows a schema, what does not and where, and what must never happen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.registry.domain.formats import DataRules, Encoding, Problem, Validation
from services.registry.domain.formats.avro import Avro, binary, scanning
from services.registry.domain.formats.avro.language import ParsedAvro
from services.registry.domain.formats.avro.values import TooLarge, as_json, decoded, encoded
from tests.counting import calls_of
from tests.unit.registry.avro import avro_pairs
from tests.unit.registry.avro.avro_schemas import schemas

FORMAT = Avro()
INTS = {"type": "array", "items": "int"}
NULLS = {"type": "array", "items": "null"}
MAP = {"type": "map", "values": ["null", "int"]}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
LARGE_ENUM = {"type": "enum", "name": "E", "symbols": [f"S{i}" for i in range(100)]}
FIXED = {"type": "fixed", "name": "F", "size": 2}
RECORD = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "x", "type": "int"}, {"name": "next", "type": ["null", "R"], "default": None}],
}
TREE = {"type": "record", "name": "R", "fields": [{"name": "r", "type": {"type": "array", "items": "R"}}]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
MOST = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 2^63 - 1.


def parse(schema: object) -> ParsedAvro:
    return FORMAT.parse(json.dumps(schema), {})


def check(schema: object, data: bytes, *, assert_formats: bool = False) -> Validation:
    return FORMAT.validator(parse(schema), DataRules(Encoding.BINARY, assert_formats=assert_formats)).check(data)


GOOD: list[tuple[object, bytes]] = [
    ("null", b""),
    ("boolean", b"\x01"),
    ("int", b"\x00"),
    ("int", b"\xff\xff\xff\xff\x0f"),
    ("long", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ("float", b"\x00\x00\xc0\x7f"),
    ("double", b"\x00" * 8),
    ("bytes", b"\x04\xff\x00"),
    ("bytes", b"\x80\x01" + b"\xff" * 64),
    ("string", b"\x04\xc3\xa9"),
    ("string", b"\x80\x01" + b"a" * 64),
    (ENUM, b"\x02"),
    (LARGE_ENUM, b"\xc6\x01"),
    (FIXED, b"ab"),
    (INTS, b"\x00"),
    (INTS, b"\x04\x02\x04\x02\x06\x00"),
    (INTS, b"\x03\x04\x02\x04\x00"),
    (INTS, b"\x80\x01" + b"\x02" * 64 + b"\x00"),
    (NULLS, b"\x08\x00"),
    ({"type": "array", "items": "double"}, b"\x03\x20" + b"\x00" * 16 + b"\x00"),
    (MAP, b"\x02\x02k\x02\x02\x00"),
    (["int", "string"], b"\x02\x02a"),
    ([{"type": "fixed", "name": f"F{i}", "size": 1} for i in range(99)], b"\xc4\x01a"),
    (RECORD, b"\x02\x02\x04\x00"),
    (TREE, b"\x02" * 150 + b"\x00" * 151),
]
BAD: list[tuple[object, bytes, str, str, str]] = [
    # Schema, data, place in the data, keyword, what is said.
    ("null", b"\x00", "", "", "follow"),
    ("int", b"", "", "int", "byte 0"),
    ("int", b"\x02\x02", "", "", "byte 1"),
    ("int", b"\x80", "", "int", "ends within a number"),
    ("int", b"\x80\x00", "", "int", "more bytes than it needs"),
    ("int", b"\xff\xff\xff\xff\x1f", "", "int", "32 bits"),
    ("int", b"\x80\x80\x80\x80\x80\x01", "", "int", "32 bits"),
    ("long", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "", "long", "64 bits"),
    ("long", b"\xff" * 50, "", "long", "64 bits"),
    ("boolean", b"\x02", "", "boolean", "0 or 1"),
    ("boolean", b"", "", "boolean", "missing"),
    ("float", b"\x00" * 3, "", "float", "missing"),
    ("double", b"\x00" * 7, "", "double", "missing"),
    ("bytes", b"\x01", "", "bytes", "negative"),
    ("bytes", b"\x81\x01", "", "bytes", "negative"),
    ("bytes", b"\x04a", "", "bytes", "missing"),
    ("bytes", MOST, "", "bytes", "missing"),
    ("string", b"\x01a", "", "string", "negative"),
    ("string", b"\x81\x01", "", "string", "negative"),
    ("string", MOST + b"a", "", "string", "missing"),
    ("string", b"\x04a\xff", "", "string", "byte 2 is not UTF-8"),
    ("string", b"\x06\xed\xa0\x80", "", "string", "UTF-8"),
    (ENUM, b"\x01", "", "enum", "no symbol"),
    (ENUM, b"\x04", "", "enum", "no symbol"),
    (LARGE_ENUM, b"\xc8\x01", "", "enum", "no symbol"),
    (FIXED, b"a", "", "fixed", "missing"),
    (INTS, b"\x02\x02", "", "array", "ends within"),
    (INTS, b"\x03\x06\x02\x04\x00", "", "array", "block ends"),
    (INTS, b"\x03\x01\x02\x00", "", "array", "negative"),
    (INTS, MOST + b"\x02", "/1", "int", "ends within"),
    ({"type": "array", "items": "double"}, MOST, "/0", "double", "missing"),
    ({"type": "array", "items": "double"}, b"\x03\x20" + b"\x00" * 9, "/1", "double", "missing"),
    (NULLS, MOST + b"\x00", "", "array", "1000000"),
    ({"type": "array", "items": NULLS}, b"\x02\x80\x89\x7a\x00\x02\x80\x89\x7a\x00\x00", "/1", "array", "1000000"),
    (MAP, b"\x02\x02k\x04\x02\x00", "/k", "union", "no branch"),
    (MAP, b"\x02\x02k\x01\x02\x00", "/k", "union", "no branch"),
    (MAP, b"\x02\x02\xff\x00\x00", "", "map", "UTF-8"),
    ([], b"\x00", "", "union", "no branch"),
    (RECORD, b"\x02\x02\x04\x04", "/next/R/next", "union", "byte 3"),
]


@pytest.mark.parametrize(("schema", "data"), GOOD, ids=lambda value: ascii(value)[:40])
def test_data_that_follows_its_schema(schema: object, data: bytes) -> None:
    """Every type in the encoding that the specification gives it, arrays and maps in blocks of both kinds."""
    assert check(schema, data) == Validation(())


@pytest.mark.parametrize(
    ("schema", "data", "place", "keyword", "says"),
    BAD,
    ids=lambda value: ascii(value)[:40],
)
def test_data_that_does_not(schema: object, data: bytes, place: str, keyword: str, says: str) -> None:
    """One problem, with the place in the data, the type that is not met, and the byte."""
    (problem,) = check(schema, data).problems

    assert (problem.instance_path, problem.keyword) == (place, keyword)
    assert says in problem.message
    assert "byte" in problem.message or "1000000" in problem.message


def test_framed_data_is_binary() -> None:
    """What follows the header of five bytes is the binary encoding and nothing else."""
    validator = FORMAT.validator(parse(RECORD), DataRules(Encoding.FRAMED))

    assert validator.check(b"\x02\x00") == Validation(())
    assert validator.check(b'{"x": 1, "next": null}').problems


def test_every_refused_logical_value_is_listed() -> None:
    """A value that only its logical type refuses does not end the check, and counts only when asked for."""
    schema = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "d", "type": DECIMAL},
            {"name": "u", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "t", "type": {"type": "array", "items": {"type": "int", "logicalType": "time-millis"}}},
            {"name": "f", "type": {"type": "fixed", "name": "F", "size": 1, "logicalType": "decimal", "precision": 1}},
        ],
    }
    bad = b"\x00" + b"\x02x" + b"\x04\x00\x01\x00" + b"\x0a"
    good = b"\x02\x01" + b"\x48123e4567-e89b-12d3-a456-426614174000" + b"\x00" + b"\x09"

    found = check(schema, bad, assert_formats=True).problems

    assert [(one.instance_path, one.keyword) for one in found] == [
        ("/d", "decimal"),
        ("/u", "uuid"),
        ("/t/1", "time-millis"),
        ("/f", "decimal"),
    ]
    assert check(schema, bad) == Validation(())
    assert check(schema, good, assert_formats=True) == Validation(())


def test_problems_are_limited() -> None:
    """A hundred problems are listed; that there are more is said."""
    schema = {"type": "array", "items": {"type": "string", "logicalType": "uuid"}}

    found = check(schema, b"\xe8\x07" + b"\x02x" * 500 + b"\x00", assert_formats=True)

    assert len(found.problems) == 100
    assert found.truncated


def test_problems_do_not_repeat_values() -> None:
    """A value of the data never stands in a message: it may be somebody's secret."""
    schema = {"type": "array", "items": {"type": "string", "logicalType": "uuid"}}

    found = check(schema, b"\x02\x0cs3cret\x00", assert_formats=True)

    assert found.problems
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("depth", [260, 10_000, 1_000_000])
def test_deep_data_is_refused(depth: int) -> None:
    """Nesting beyond the limit is a problem, not a crash: nothing recurses on the data."""
    (problem,) = check(TREE, b"\x02" * depth + b"\x00" * (depth + 1)).problems

    assert "nested deeper than 500 levels" in problem.message


LIE_CALLS_MAX = 10_000_000
"""About a second of work: EMPTY_ITEMS_MAX items, some calls each, are the most that anything may claim."""


@pytest.mark.parametrize(
    "data",
    [MOST + b"\x00", b"\xff" * 100, b"\x02" * 200_000, (MOST + b"\x00") * 1000, b"\x03" + MOST + b"\x02"],
    ids=["claims", "ones", "deep", "many claims", "size"],
)
@pytest.mark.parametrize(
    "schema",
    [
        NULLS,
        TREE,
        RECORD,
        MAP,
        {"type": "array", "items": {"type": "record", "name": "N", "fields": []}},
        {"type": "array", "items": {"type": "array", "items": "null"}},
        {"type": "record", "name": "X", "fields": [{"name": "x", "type": "X"}]},
    ],
    ids=["nulls", "tree", "list", "map", "empty records", "nested nulls", "endless"],
)
def test_lies_cost_nothing(schema: object, data: bytes) -> None:
    """Whatever a payload claims, it is refused within a bounded number of steps."""
    found: list[Validation] = []
    calls = calls_of(lambda: found.append(check(schema, data)))

    assert found[0].problems
    assert calls < LIE_CALLS_MAX


def fan(count: int) -> list[dict[str, Any]]:
    """Records that each hold the one before twice: a datum of the last is walked in 2^count steps."""
    types: list[dict[str, Any]] = [{"type": "record", "name": "T0", "fields": []}]
    for i in range(1, count):
        fields = [{"name": name, "type": f"T{i - 1}"} for name in "ab"]
        types.append({"type": "record", "name": f"T{i}", "fields": fields})
    return types


def test_types_without_bytes_are_not_visited() -> None:
    """A record that holds 2^60 empty ones is as quick to read as nothing."""
    last = {"name": "v", "type": "T59"}
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "t", "type": fan(60)}, last, {"name": "i", "type": "int"}],
    }

    assert check(schema, b"\x00\x02") == Validation(())
    assert check(schema, b"\x00\x80").problems


def test_schemas_that_nest_deep_are_read_value_by_value() -> None:
    """A chain of thousands of types is neither refused nor recursed on while its data is flat enough."""
    types = [{"type": "record", "name": "T0", "fields": [{"name": "i", "type": "int"}, {"name": "j", "type": "int"}]}]
    for i in range(1, 3000):
        fields = [{"name": "t", "type": f"T{i - 1}"}, {"name": "i", "type": "int"}]
        types.append({"type": "record", "name": f"T{i}", "fields": fields})
    parsed = FORMAT.parse('"T400"', {"T2999": json.dumps(types)})
    deep = FORMAT.parse('"T2999"', {"T2999": json.dumps(types)})
    rules = DataRules(Encoding.BINARY)

    assert FORMAT.validator(parsed, rules).check(b"\x02" * 402) == Validation(())
    assert "nested" in FORMAT.validator(deep, rules).check(b"\x02" * 3001).problems[0].message


def reading(parsed: ParsedAvro, data: bytes, *, assert_formats: bool = False) -> tuple[Problem, ...]:
    """What the byte-by-byte reading says, which normally decides only on data that is not plainly valid."""
    widths = scanning.widths(parsed.schema)
    return binary.Reading(parsed.schema, widths, {}, data, assert_formats=assert_formats).validation().problems


def require_agreement(parsed: ParsedAvro, data: bytes) -> None:
    """Checks that the scan accepts nothing that the byte-by-byte reading refuses."""
    for assert_formats in (False, True):
        rules = DataRules(Encoding.BINARY, assert_formats=assert_formats)
        assert FORMAT.validator(parsed, rules).check(data).problems == reading(
            parsed, data, assert_formats=assert_formats
        )


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), st.data())
def test_what_is_written_is_valid_and_read_back(schema: object, data: st.DataObject) -> None:
    """A value of any schema, written in binary, follows the schema and is the same value when it is read."""
    parsed = parse(schema)
    try:
        value = avro_pairs.value(data.draw, parsed.schema)
    except TooLarge:
        return
    written = encoded(parsed.schema, parsed.schema.root, value)

    assert reading(parsed, written, assert_formats=True) == ()
    assert check(schema, written, assert_formats=True) == Validation(())
    read = decoded(parsed.schema, parsed.schema.root, written)
    assert repr(read) == repr(value)
    as_text = as_json(parsed.schema, parsed.schema.root, read)
    text = json.dumps(as_text)
    if "NaN" not in text and "Infinity" not in text:
        assert FORMAT.validator(parsed, DataRules(strict=True)).check(text.encode()) == Validation(())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), st.data())
def test_damaged_data_is_refused_or_valid(schema: object, data: st.DataObject) -> None:
    """Bytes changed, cut off or added never crash the check, and both ways of reading agree."""
    parsed = parse(schema)
    try:
        written = bytearray(encoded(parsed.schema, parsed.schema.root, avro_pairs.value(data.draw, parsed.schema)))
    except TooLarge:
        written = bytearray()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(written)))
        byte = data.draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255))
        match data.draw(st.sampled_from(["change", "insert", "cut", "repeat"])):
            case "change":
                written[at : at + 1] = bytes([byte])
            case "insert":
                written[at:at] = bytes([byte])
            case "cut":
                del written[at:]
            case _:
                written[at:at] = written[at : at + 10]

    require_agreement(parsed, bytes(written))


@settings(max_examples=150, deadline=None)
@given(schemas(), st.binary(max_size=40))
@example(NULLS, MOST + b"\x00")
def test_any_bytes_can_be_checked(schema: object, data: bytes) -> None:
    """Random bytes are refused or valid, the same by both ways of reading."""
    require_agreement(parse(schema), data)
