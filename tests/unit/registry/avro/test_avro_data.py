"""Data in Avro's JSON encoding: what follows a schema, what does not and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidField
from services.registry.domain.formats import DataRules, Problem, Validation
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.avro.data import JsonValidator
from tests.unit.registry.avro.avro_schemas import schemas_with_data

FORMAT = Avro()
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "a.F", "size": 2}
RECORD = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "x", "type": "int"}, {"name": "next", "type": ["null", "R"], "default": None}],
}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}


def check(schema: object, data: object, *, assert_formats: bool = False, strict: bool = True) -> Validation:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    rules = DataRules(assert_formats=assert_formats, strict=strict)
    return FORMAT.validator(FORMAT.parse(json.dumps(schema), {}), rules).check(body)


def problems(schema: object, data: object, *, assert_formats: bool = False) -> tuple[Problem, ...]:
    return check(schema, data, assert_formats=assert_formats).problems


GOOD: list[tuple[object, object]] = [
    ("null", None),
    ("boolean", False),
    ("int", -(2**31)),
    ("long", 2**63 - 1),
    ("float", 3.4028234663852886e38),
    ("float", 1),
    ("double", 1e308),
    ("double", 2**70),
    ("bytes", "\u0000\u00ff"),
    ("bytes", ""),
    ("string", "é\U0001f600"),
    (ENUM, "B"),
    (FIXED, "ab"),
    ({"type": "array", "items": "int"}, [1, 2]),
    ({"type": "map", "values": ["null", "int"]}, {"": None, "b": {"int": 1}}),
    (["null", "string"], None),
    (["null", "string"], {"string": "a"}),
    (["null", FIXED], {"a.F": "ab"}),
    (["null", {"type": "array", "items": "int"}], {"array": [1]}),
    (RECORD, {"x": 1, "next": {"R": {"next": None, "x": 2}}}),
]
BAD: list[tuple[object, object, str, str]] = [
    # Schema, data, place in the data, keyword.
    ("null", 0, "", "null"),
    ("boolean", 1, "", "boolean"),
    ("int", 2**31, "", "int"),
    ("int", 1.0, "", "int"),
    ("int", True, "", "int"),
    ("int", "1", "", "int"),
    ("int", None, "", "int"),
    ("long", -(2**63) - 1, "", "long"),
    ("float", 3.5e38, "", "float"),
    ("float", "NaN", "", "float"),
    ("double", 10**400, "", "double"),
    ("double", True, "", "double"),
    ("bytes", "\u0100", "", "bytes"),
    ("bytes", [1], "", "bytes"),
    ("string", None, "", "string"),
    ("string", 1, "", "string"),
    (ENUM, "C", "", "enum"),
    (ENUM, 0, "", "enum"),
    (FIXED, "abc", "", "fixed"),
    (FIXED, "a\u0100", "", "fixed"),
    ({"type": "array", "items": "int"}, [1, "x"], "/1", "int"),
    ({"type": "array", "items": "int"}, {}, "", "array"),
    ({"type": "map", "values": "int"}, {"a/b": "x"}, "/a~1b", "int"),
    ({"type": "map", "values": "int"}, [], "", "map"),
    (["null", "string"], "a", "", "union"),
    (["null", "string"], {"int": 1}, "", "union"),
    (["null", "string"], {"null": None}, "", "union"),
    (["null", "string"], {"string": 1}, "/string", "string"),
    (["null", "string"], {"string": "a", "int": 1}, "", "union"),
    (["null", FIXED], {"F": "ab"}, "", "union"),
    (["string"], None, "", "union"),
    (["null"], 1, "", "union"),
    ([], None, "", "union"),
    (RECORD, {"x": 1}, "", "record"),
    (RECORD, {"x": 1, "next": None, "y": 1}, "/y", "record"),
    (RECORD, {"x": 1, "next": {"R": {"x": "a", "next": None}}}, "/next/R/x", "int"),
    (RECORD, [], "", "record"),
]


@pytest.mark.parametrize(("schema", "data"), GOOD, ids=lambda value: ascii(value)[:40])
def test_data_that_follows_its_schema(schema: object, data: object) -> None:
    """Every type in the encoding that the specification gives it."""
    assert check(schema, data) == Validation(())


@pytest.mark.parametrize(("schema", "data", "place", "keyword"), BAD, ids=lambda value: ascii(value)[:40])
def test_data_that_does_not(schema: object, data: object, place: str, keyword: str) -> None:
    """One problem, with the place in the data and the type that is not met."""
    (problem,) = problems(schema, data)

    assert (problem.instance_path, problem.keyword) == (place, keyword)
    assert problem.message


def test_all_problems_are_listed_with_their_places_in_the_schema() -> None:
    """Problems come in the order of the data's nesting, each with the type that it breaks."""
    found = problems(RECORD, {"x": "a", "next": {"R": {"x": 1.5}}, "y": 1})

    assert [(one.instance_path, one.schema_path, one.keyword) for one in found] == [
        ("/y", "", "record"),
        ("/x", "/fields/0/type", "int"),
        ("/next/R", "", "record"),
        ("/next/R/x", "/fields/0/type", "int"),
    ]


def test_members_that_are_no_fields_count_only_when_strict() -> None:
    """Decoders pass over what a record does not know; a caller may refuse it. What is missing is missed either way."""
    data = {"x": 1, "next": {"R": {"x": 2, "next": None, "more": [{"any": 1}]}}, "y": 1}

    assert check(RECORD, data, strict=False) == Validation(())
    assert [one.instance_path for one in problems(RECORD, data)] == ["/y", "/next/R/more"]
    assert [one.keyword for one in check(RECORD, {"y": 1}, strict=False).problems] == ["record", "record"]


def test_places_in_referenced_types_are_those_of_the_use() -> None:
    """The schema's path leads to where the text uses the referenced type."""
    text = json.dumps({"type": "array", "items": "R"})
    validator = FORMAT.validator(FORMAT.parse(text, {"R": json.dumps(RECORD)}), DataRules())

    (problem,) = validator.check(b'[{"x": "a", "next": null}]').problems

    assert (problem.instance_path, problem.schema_path) == ("/0/x", "/items")


LOGICAL: list[tuple[dict[str, Any], object, bool]] = [
    (DECIMAL, "\u0027\u000f", True),  # 9999
    (DECIMAL, "\u0027\u0010", False),  # 10000
    (DECIMAL, "\u00d8\u00f1", True),  # -9999
    (DECIMAL, "\u00d8\u00f0", False),  # -10000
    (DECIMAL, "\u0000\u0000\u0000\u0001", True),
    (DECIMAL, "", False),
    ({**DECIMAL, "precision": 10**6}, "\u007f" * 1000, True),
    ({**DECIMAL, "precision": 20_000}, "\u007f" * 10_000, False),
    ({"type": "string", "logicalType": "uuid"}, "123e4567-e89b-12d3-a456-426614174000", True),
    ({"type": "string", "logicalType": "uuid"}, "123e4567e89b12d3a456426614174000", False),
    ({"type": "string", "logicalType": "uuid"}, "123e4567-e89b-12d3-a456-426614174000\n", False),
    ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, "\u00ff" * 16, True),
    ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, "\u00ff" * 12, True),
    ({"type": "int", "logicalType": "date"}, 2_932_896, True),
    ({"type": "int", "logicalType": "date"}, 2_932_897, False),
    ({"type": "int", "logicalType": "date"}, -719_163, False),
    ({"type": "int", "logicalType": "time-millis"}, 86_399_999, True),
    ({"type": "int", "logicalType": "time-millis"}, 86_400_000, False),
    ({"type": "long", "logicalType": "time-micros"}, -1, False),
    ({"type": "long", "logicalType": "timestamp-millis"}, 253_402_300_799_999, True),
    ({"type": "long", "logicalType": "timestamp-millis"}, 253_402_300_800_000, False),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, -62_135_596_800_000_001, False),
    ({"type": "long", "logicalType": "timestamp-nanos"}, 2**63 - 1, True),
]


@pytest.mark.parametrize(("schema", "data", "good"), LOGICAL, ids=lambda value: ascii(value)[:40])
def test_logical_types_count_only_when_asserted(schema: dict[str, Any], data: object, *, good: bool) -> None:
    """Unless the caller asks for more, only the underlying type counts."""
    found = problems(schema, data, assert_formats=True)

    assert problems(schema, data) == ()
    assert [problem.keyword for problem in found] == ([] if good else [schema["logicalType"]])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "one JSON value"),
        (b"{", "line 1"),
        (b'"\xff"', "UTF-8"),
        (b"NaN", "NaN"),
        (b"-Infinity", "Infinity"),
        (b"1" * 5000, "cannot be read"),
        (b"1e400", "range of doubles"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b"[" * 501 + b"]" * 501, "nested"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_data_that_cannot_be_read_is_a_bad_request(data: bytes, says: str) -> None:
    """Unreadable data is the caller's fault and names the field."""
    with pytest.raises(InvalidField) as caught:
        check("int", data)

    assert caught.value.violations[0].field == "data"
    assert says in caught.value.message


def test_problems_do_not_repeat_values() -> None:
    """A value of the data never stands in a message: it may be somebody's secret."""
    schema = {"type": "array", "items": ["int", ENUM, FIXED, {"type": "string", "logicalType": "uuid"}]}
    secrets = ["s3cret", {"s3cret": 1}, {"E": "s3cret"}, {"a.F": "s3cret"}, {"int": "s3cret"}, {"string": "s3cret"}]

    found = problems(schema, secrets, assert_formats=True)

    assert len(found) == len(secrets)
    assert not any("s3cret" in problem.message for problem in found)


def test_problems_are_limited() -> None:
    """A hundred problems are listed; that there are more is said."""
    found = check({"type": "array", "items": "string"}, list(range(500)))

    assert len(found.problems) == 100
    assert found.truncated


def test_data_may_be_nested_to_the_limit() -> None:
    """Deep data is checked without recursion."""
    schema = {"type": "record", "name": "R", "fields": [{"name": "r", "type": {"type": "array", "items": "R"}}]}
    data: dict[str, Any] = {"r": [3]}
    for _ in range(240):
        data = {"r": [data]}

    (problem,) = problems(schema, data)

    assert problem.instance_path == "/r/0" * 241


@given(schemas_with_data())
def test_data_made_for_a_schema_follows_it(pair: tuple[Any, Any]) -> None:
    """Whatever a writer can say in the encoding is valid."""
    schema, data = pair

    assert check(schema, data) == Validation(())


@settings(max_examples=150, deadline=None)
@given(schemas_with_data(), schemas_with_data(), st.booleans(), st.booleans())
def test_the_quick_look_accepts_nothing_that_is_wrong(
    pair: tuple[Any, Any], other: tuple[Any, Any], assert_formats: bool, strict: bool
) -> None:
    """Whatever is made for one schema is checked against another, the same by both ways."""
    parsed = FORMAT.parse(json.dumps(pair[0]), {})
    validator = JsonValidator(parsed.schema, assert_formats=assert_formats, strict=strict)

    for data in (pair[1], other[1], {"x": pair[1]}, [pair[1]]):
        assert validator.check(json.dumps(data).encode()) == validator.explain(data)
