"""Protobuf data: ProtoJSON, binary and framed payloads, what is wrong with them and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidField
from services.registry.adapters.protoc import compile_files
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import worst
from services.registry.domain.formats import DataRules, Encoding, Problem, Validation
from services.registry.domain.formats.protobuf import Protobuf, wire
from services.registry.domain.formats.protobuf.data import message_indexes
from services.registry.domain.formats.protobuf.json_payload import ITEMS_PER_TRY
from services.registry.domain.formats.protobuf.schema import load
from services.registry.domain.limits import VALIDATION_ERRORS_MAX
from tests.counting import calls_of
from tests.unit.registry.protobuf.proto_schemas import File, files, message_of

FORMAT = Protobuf(compile_files)
CALLS_PER_ITEM_MAX = 40
SHOP = FORMAT.parse(
    """
    syntax = "proto3"; package shop;
    import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto"; import "google/protobuf/any.proto";
    message Order {
      string order_id = 1; repeated Line lines = 2; google.protobuf.Timestamp at = 3; map<int32, Line> by_number = 4;
      oneof payment { string card = 5; int64 cash = 6; } Color color = 7; optional int32 note = 8; bytes blob = 9;
      google.protobuf.Struct extra = 10; google.protobuf.Int32Value count = 11; Order parent = 12;
      repeated double d = 13;
      google.protobuf.Any any = 14; map<string, int32> totals = 15;
      message Line { string sku = 1; int32 quantity = 2; message Deep { bool x = 1; } }
    }
    enum Color { RED = 0; BLUE = 1; }
    message Other { map<string, string> m = 1; message First { } message Second { int32 a = 1; } }
    """,
    {},
)
OLD = FORMAT.parse(
    """
    syntax = "proto2"; package old;
    message M {
      required string name = 1; optional E e = 2; repeated N n = 3; map<string, E> by_name = 4; extensions 100 to 200;
    }
    message N { required int32 a = 1; optional string s = 2; }
    enum E { A = 0; B = 1; }
    extend M { optional E extended = 100; }
    """,
    {},
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text()
            | st.sampled_from(["orderId", "lines", "at", "extra", "any", "byNumber", "count", "parent", "@type"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def check(data: bytes, parsed: Any = SHOP, **rules: Any) -> Validation:
    return FORMAT.validator(parsed, DataRules(**rules)).check(data)


def places(value: object, parsed: Any = SHOP, **rules: Any) -> list[tuple[str, str]]:
    found = check(json.dumps(value).encode(), parsed, **rules).problems
    return [(problem.instance_path, problem.keyword) for problem in found]


def binary(data: bytes, parsed: Any = SHOP, **rules: Any) -> list[tuple[str, str]]:
    found = check(data, parsed, encoding=Encoding.BINARY, **rules).problems
    return [(problem.instance_path, problem.keyword) for problem in found]


def test_good_json_has_no_problems() -> None:
    """Both spellings of names, null, numbers as text, and the forms of well-known types are accepted."""
    good: dict[str, Any] = {
        "orderId": "a",
        "lines": [{"sku": "x", "quantity": "7"}],
        "at": "2026-11-23T12:00:00Z",
        "by_number": {"-3": {}},
        "cash": "9007199254740993",
        "card": None,
        "color": "BLUE",
        "blob": "AQID",
        "extra": {"a": [1, None, {"b": True}]},
        "count": 3,
        "d": ["NaN", "Infinity", 1],
        "any": {"@type": "type.googleapis.com/shop.Order.Line", "sku": "a"},
    }

    assert places(good, strict=True) == []


def test_all_faults_of_json_are_found_with_their_places() -> None:
    """Types, ranges, maps, enums, oneofs and well-known types: each fault at its place, none hides another."""
    bad: dict[str, Any] = {
        "orderId": 1,
        "lines": [{"quantity": 2147483648}, 5, {"sku": False}],
        "at": "yesterday",
        "byNumber": {"x": {}, "1": {"quantity": "a"}},
        "card": "a",
        "cash": 1,
        "color": "GREEN",
        "blob": 5,
        "count": "many",
        "d": [1, "a", None],
        "totals": {"a": 1.5},
        "any": {"@type": "type.googleapis.com/no.Such"},
        "parent": {"parent": {"note": True}},
    }

    assert sorted(places(bad)) == [
        ("/any", "type"),
        ("/at", "type"),
        ("/blob", "type"),
        ("/byNumber/1/quantity", "type"),
        ("/byNumber/x", "key"),
        ("/cash", "oneof"),
        ("/color", "type"),
        ("/count", "type"),
        ("/d/1", "type"),
        ("/d/2", "type"),
        ("/lines/0/quantity", "type"),
        ("/lines/1", "type"),
        ("/lines/2/sku", "type"),
        ("/orderId", "type"),
        ("/parent/parent/note", "type"),
        ("/totals/a", "type"),
    ]


def test_problems_say_what_is_allowed_and_repeat_no_value() -> None:
    """The message names the range or the values of the schema, never the data."""
    (problem,) = check(b'{"color": "SECRET"}').problems

    assert problem == Problem(
        "/color",
        "/messages/Order/fields/color",
        "type",
        "must be a name or number of `shop.Color`: RED, BLUE, or any other number",
    )


def test_unknown_members_are_accepted_unless_strict() -> None:
    """In strict mode they are refused at every depth, with the name that was probably meant."""
    value = {"lines": [{"quantty": 1}], "parent": {"b": 2}, "a": 1}

    assert places(value) == []
    assert sorted(places(value, strict=True)) == [
        ("/a", "unknown"),
        ("/lines/0/quantty", "unknown"),
        ("/parent/b", "unknown"),
    ]
    assert "did you mean `quantity`?" in check(json.dumps(value).encode(), strict=True).problems[1].message


def test_an_unknown_member_hides_no_fault() -> None:
    """What is wrong beside an unknown member is found in both modes; an unknown name of an enum is always a fault."""
    assert places({"x": 1, "color": "GREEN"}) == [("/color", "type")]


def test_enums_of_imported_types_are_no_hiding_place_either() -> None:
    """An unknown name is a fault where the enum is only reached through a map of an imported message."""
    dep = 'syntax = "proto3"; package d; message D { E e = 1; } enum E { A = 0; }'
    text = 'syntax = "proto3"; import "d.proto"; message M { map<string, d.D> m = 1; } message Plain { int32 a = 1; }'
    parsed = FORMAT.parse(text, {"d.proto": dep})

    assert places({"m": {"k": {"e": "B", "other": 1}}}, parsed) == [("/m/k/e", "type")]
    assert places({"a": 1, "other": {"a": "B"}}, parsed, message_type="Plain") == []
    assert places({"a": "B", "other": 1}, parsed, message_type="Plain") == [("/a", "type")]


def test_missing_required_fields_are_found_in_both_encodings() -> None:
    """Each is named, in messages within the message too."""
    assert places({"n": [{"a": 1}, {}]}, OLD) == [("/name", "required"), ("/n/1/a", "required")]
    assert sorted(binary(b"\x1a\x02\x08\x01\x1a\x00", OLD)) == [("/n/1/a", "required"), ("/name", "required")]


def test_problems_are_limited() -> None:
    """At most VALIDATION_ERRORS_MAX are listed, and the answer says that there were more."""
    found = check(json.dumps({"d": ["x"] * (VALIDATION_ERRORS_MAX + 1)}).encode())

    assert len(found.problems) == VALIDATION_ERRORS_MAX
    assert found.truncated


def test_a_fault_in_a_long_list_is_found_in_few_steps() -> None:
    """Items are asked about together where none is at fault, and the ones at fault keep their places."""
    values: list[object] = [1.5] * (2 * ITEMS_PER_TRY + 10)
    values[ITEMS_PER_TRY + 3 : ITEMS_PER_TRY + 3] = ["x"]
    values += [None]
    value = json.dumps({"d": values}).encode()
    validator = FORMAT.validator(SHOP, DataRules())
    found: list[Problem] = []

    calls = calls_of(lambda: found.extend(validator.check(value).problems))

    assert [problem.instance_path for problem in found] == [f"/d/{ITEMS_PER_TRY + 3}", f"/d/{2 * ITEMS_PER_TRY + 11}"]
    assert calls < CALLS_PER_ITEM_MAX * len(values)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'{"a": NaN}', b'{"orderId": "a", "orderId": "b"}', b'"\\ud800"', b"[" * 1000 + b"]" * 1000],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    """Unreadable data is an error about the field `data`."""
    with pytest.raises(InvalidField) as caught:
        check(data)

    assert [violation.field for violation in caught.value.violations] == ["data"]


def test_deep_json_is_a_problem() -> None:
    """Messages nested deeper than the library reads are refused with the depth, in JSON and in binary."""
    value: dict[str, Any] = {}
    for _ in range(110):
        value = {"parent": value}
    data = b""
    for _ in range(110):
        length = len(data)
        data = b"\x62" + (bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])) + data

    assert [keyword for _, keyword in places(value)] == ["depth"]
    assert [keyword for _, keyword in binary(data)] == ["depth"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x0a\x05ab", [("", "binary")]),
        (b"\x12\x03\x0a\x05a", [("/lines", "binary")]),
        (b"\x0a\x01\xff", [("/order_id", "string")]),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", [("", "binary")]),
        (b"\x0f", [("", "binary")]),
        (b"\x00", [("", "binary")]),
        (b"\xa3\x06", [("", "binary")]),
        (b"\x0c", [("", "binary")]),
    ],
)
def test_unreadable_binary_is_a_problem_with_its_place(data: bytes, expected: list[tuple[str, str]]) -> None:
    """Truncated values, bad text, overlong numbers, bad wire types, field zero, groups that do not end."""
    assert binary(data) == expected


def test_unknown_fields_in_binary_are_accepted_unless_strict() -> None:
    """In strict mode they are refused at every depth, by number; so is a field in another encoding than its type's."""
    data = b"\x0a\x01a" + b"\xa0\x06\x01" + b"\x12\x03\xa0\x06\x01" + b"\x22\x05\x12\x03\xa0\x06\x01" + b"\x3d\0\0\0\0"

    assert binary(data) == []
    assert sorted(binary(data, strict=True)) == [
        ("/100", "unknown"),
        ("/by_number/0/100", "unknown"),
        ("/color", "unknown"),
        ("/lines/0/100", "unknown"),
    ]


def test_numbers_that_a_closed_enum_lacks_are_problems() -> None:
    """Parsers put them aside silently; the check does not, in extensions neither."""
    data = b"\x0a\x01a" + b"\x10\x07" + b"\xa0\x06\x07" + b"\x22\x05\x0a\x01k\x10\x07"

    assert sorted(binary(data, OLD)) == [("/by_name", "enum"), ("/e", "enum"), ("/extended", "enum")]


def test_text_that_parsers_do_not_look_at_must_be_utf8() -> None:
    """proto2 parsers take any bytes for a string; the check does not."""
    assert binary(b"\x0a\x01a" + b"\x1a\x05\x08\x01\x12\x01\xff", OLD) == [("/n/0/s", "string")]


def test_framed_data_names_its_message_by_indexes() -> None:
    """One zero byte is the first message; otherwise a zigzag count and the way through nested messages."""
    framed = {"encoding": Encoding.FRAMED, "strict": True}

    assert check(b"\x00\x0a\x01a", **framed).problems == ()
    assert check(b"\x02\x00\x0a\x01a", **framed).problems == ()
    assert check(b"\x04\x00\x00\x0a\x01a\x10\x02", **framed).problems == ()
    assert check(b"\x06\x00\x00\x00\x08\x01", **framed).problems == ()
    assert check(b"\x04\x02\x02\x08\x01", **framed, message_type="shop.Other.Second").problems == ()


def test_framed_data_of_another_message_is_a_problem() -> None:
    """Indexes that lead nowhere, or not to the message that is asked for, or that cannot be read."""
    for data, message_type in [
        (b"\x02\x08", ""),
        (b"\x04\x02\x01", ""),
        (b"\x02\x02", "shop.Order"),
        (b"", ""),
        (b"\x04\x00", ""),
        (b"\x03", ""),
        (b"\xfe\xff\xff\x0f", ""),
    ]:
        found = check(data, encoding=Encoding.FRAMED, message_type=message_type)

        assert [problem.keyword for problem in found.problems] == ["indexes"], data


@given(st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_message_indexes_are_read_or_refused(data: bytes) -> None:
    """No bytes make the reader of indexes fail otherwise, and what it reads is within its limits."""
    try:
        indexes, begin = message_indexes(data)
    except wire.WireError:
        return

    assert 1 <= len(indexes) <= 32
    assert 0 < begin <= len(data)


def test_an_unknown_message_type_is_an_error_with_a_hint() -> None:
    """The field is named, and the nearest name; nothing can follow a schema without messages."""
    empty = FORMAT.parse('syntax = "proto3"; package p; enum E { A = 0; }', {})

    for parsed, name, hint in [
        (SHOP, "shop.Oder", "`shop.Order`"),
        (SHOP, "Order", "`shop.Order`"),
        (empty, "", "no message"),
    ]:
        with pytest.raises(InvalidField) as caught:
            FORMAT.validator(parsed, DataRules(message_type=name))

        assert [violation.field for violation in caught.value.violations] == ["message_type"]
        assert hint in caught.value.message


def test_any_message_can_be_asked_for() -> None:
    """Nested ones and imported ones too, by full name."""
    assert places({"quantity": 1}, message_type="shop.Order.Line", strict=True) == []
    assert places("2026-11-23T12:00:00Z", message_type="google.protobuf.Timestamp") == []


def test_types_that_are_called_like_well_known_ones_fail_clearly() -> None:
    """A text may define google.protobuf.Timestamp with other fields: checking data of it never ends in a crash."""
    text = """
    syntax = "proto3"; package google.protobuf;
    message Timestamp { string seconds = 1; } message Any { int32 a = 1; } message Value { string kind = 1; }
    message M { Timestamp t = 1; Any a = 2; Value v = 3; }
    """
    parsed, other = FORMAT.parse(text, {}), FORMAT.parse(text.replace("string seconds", "bytes seconds"), {})

    for value in ({"t": "2026-11-23T12:00:00Z"}, {"t": {"seconds": "a"}}, {"a": {"@type": "x"}}, {"v": 1}, {"v": None}):
        places(value, parsed, message_type="google.protobuf.M", strict=True)
    for policy in Policy:
        assert worst(FORMAT.diff(parsed, other, Rules(policy))) is not None
    assert binary(b"\x0a\x03\x0a\x01a", parsed, message_type="google.protobuf.M", strict=True) == []


@given(value=JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_the_verdict_on_json_is_the_librarys(value: object) -> None:
    """Any JSON value has problems exactly when the library refuses it in strict mode."""
    text = json.dumps(value)
    schema = load(SHOP.descriptor_set)
    message = schema.new(schema.message("shop.Order"))
    try:
        json_format.Parse(text, message, descriptor_pool=schema.pool)
        accepted = True
    except json_format.ParseError:
        accepted = False

    assert (check(text.encode(), strict=True).problems == ()) == accepted


@given(data=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_checked(data: bytes) -> None:
    """No bytes make a check fail, in any encoding and mode; in binary only what the parser refuses is `binary`."""
    for parsed in (SHOP, OLD):
        for encoding in (Encoding.BINARY, Encoding.FRAMED):
            for strict in (False, True):
                check(data, parsed, encoding=encoding, strict=strict)


@given(file=files(), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_schema_writes_is_valid(file: File, data: st.DataObject) -> None:
    """Random messages are valid in both encodings in strict mode, by random schemas."""
    parsed = FORMAT.parse(file.text(), {})
    schema = load(parsed.descriptor_set)
    for kind in schema.all_messages():
        message = message_of(data, schema, kind)
        if not message.IsInitialized():
            continue
        text = json_format.MessageToJson(message, descriptor_pool=schema.pool)

        assert check(text.encode(), parsed, strict=True, message_type=kind.full_name).problems == ()
        sent = message.SerializeToString()
        assert binary(sent, parsed, strict=True, message_type=kind.full_name) == []
