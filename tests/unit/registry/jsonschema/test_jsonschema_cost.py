"""Static limits: schemas that would take too many steps are refused, or known, however their references are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.formats import DataRules, Parsed
from services.registry.domain.formats.jsonschema import JsonSchema, cost
from tests.unit.registry.jsonschema.json_schemas import DRAFTS

FORMAT = JsonSchema()
D4, D6, D7, D2019, D2020 = DRAFTS
LENGTH = 21
"""Definitions in a chain that doubles: two million steps, too many for a limit and few enough for a failing test."""
Schema = dict[str, Any]


def parse(schema: object, sources: dict[str, str] | None = None) -> Parsed:
    return FORMAT.parse(json.dumps(schema), sources or {})


def refused(schema: object, sources: dict[str, str] | None = None) -> InvalidSchema:
    with pytest.raises(InvalidSchema) as caught:
        parse(schema, sources)
    return caught.value


def test_exponential_schemas_are_refused() -> None:
    """Sixty definitions that double the work each are refused at once: the library would never return."""
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    definitions["d60"] = {}

    assert "ways to apply" in refused({"$defs": definitions, "$ref": "#/$defs/d0"}).message


def test_exponential_schemas_are_refused_through_anchors_and_ids() -> None:
    """Other ways to write a reference do not hide the doubling."""
    definitions: dict[str, Any] = {
        f"d{i}": {"$anchor": f"a{i}", "anyOf": [{"$ref": f"#a{i + 1}"}, {"$ref": f"#a{i + 1}"}]} for i in range(60)
    }
    definitions["d60"] = {"$anchor": "a60"}
    embedded: dict[str, Any] = {
        f"e{i}": {"$id": f"http://example.com/e{i}", "oneOf": [{"$ref": f"e{i + 1}"}, {"$ref": f"e{i + 1}"}]}
        for i in range(60)
    }
    embedded["e60"] = {"$id": "http://example.com/e60"}

    assert "ways to apply" in refused({"$defs": definitions, "$ref": "#a0"}).message
    assert "ways to apply" in refused({"$defs": embedded, "$ref": "http://example.com/e0"}).message


def test_exponential_schemas_are_refused_through_sources_of_a_schema_with_an_address() -> None:
    """The name of a source is relative to the schema's own address, also while ways are counted."""
    source: dict[str, Any] = {f"s{i}": {"allOf": [{"$ref": f"#/$defs/s{i + 1}"}] * 2} for i in range(10)} | {"s10": {}}
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(10)}
    definitions["d10"] = {"$ref": "b.json#/$defs/s0"}
    schema = {"$id": "https://example.com/dir/a.json", "$ref": "#/$defs/d0", "$defs": definitions}

    assert "ways to apply" in refused(schema, {"b.json": json.dumps({"$defs": source})}).message


def test_too_many_subschemas_are_refused() -> None:
    """The number of subschemas is bounded."""
    assert "subschemas" in refused({"properties": {f"p{i}": {} for i in range(20_001)}}).message


def test_a_recursive_schema_that_goes_into_the_data_is_fine() -> None:
    """A tree is a schema; only loops that consume nothing are refused."""
    parsed = parse({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}})

    assert FORMAT.validator(parsed, DataRules()).check(b'{"children": [{"children": [3]}]}').problems


@pytest.mark.parametrize(
    ("schema", "explosive"),
    [
        ({"properties": {"a": {"items": {"$ref": "#"}}}}, False),
        ({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, True),
        ({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}, True),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}}}, False),
        ({"anyOf": [{"items": {"$ref": "#"}}, {"prefixItems": [{"$ref": "#"}]}]}, True),
        ({"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}}, True),
        ({"properties": {f"p{n}": {"allOf": [{"type": "string"}, {"maxLength": n}]} for n in range(50)}}, False),
    ],
)
def test_schemas_that_may_explode_with_the_data_are_known(schema: object, *, explosive: bool) -> None:
    """Those that lead back to themselves in two ways are checked where they can be stopped."""
    assert parse(schema).explosive == explosive


@pytest.mark.parametrize("place", ["x", "components/schemas"])
def test_exponential_schemas_are_refused_wherever_they_hide(place: str) -> None:
    """A pointer may lead to any part of a text, so doubling in a place that no keyword names is found too."""
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/{place}/d{i + 1}"}] * 2} for i in range(60)}
    definitions["d60"] = {}
    nested: Any = definitions
    for name in reversed(place.split("/")):
        nested = {name: nested}

    for schema in ({**nested, "$ref": f"#/{place}/d0"}, {**nested, "properties": {"a": {"$ref": f"#/{place}/d0"}}}):
        assert "ways to apply" in refused(schema).message


def doubling(reference: Callable[[int], str], around: Callable[[int, Schema], Schema] = lambda _, one: one) -> Schema:
    """Definitions of which each asks for the next one twice."""
    twice = {f"d{i}": around(i, {"allOf": [{"$ref": reference(i + 1)}] * 2}) for i in range(LENGTH)}
    return {**twice, f"d{LENGTH}": around(LENGTH, {"type": "integer"})}


def moved_by(keyword: str) -> Callable[[int, Schema], Schema]:
    """Gives every reference an address of its own that does not count."""
    return lambda _, one: {"allOf": [{keyword: "http://example.com/x", **ref} for ref in one.get("allOf", [])] or [{}]}


def inside(number: int) -> str:
    return f"#/$defs/d{number}"


HIDDEN: dict[str, Schema] = {
    "a resource without a hierarchy": {
        "$ref": "urn:x:a",
        "$defs": {"a": {"$id": "urn:x:a", "$ref": "#/$defs/d0", "$defs": doubling(inside)}},
    },
    "an unusual scheme": {
        "$id": "xyz://h/a",
        "$ref": "d0",
        "$defs": doubling(lambda i: f"xyz://h/d{i}", lambda i, one: {"$id": f"d{i}", **one}),
    },
    "signs of indexes": {"x": [*doubling(lambda i: f"#/x/+{i}").values()], "$ref": "#/x/+0"},
    "zeros of indexes": {"x": [*doubling(lambda i: f"#/x/0{i}").values()], "$ref": "#/x/00"},
    "a keyword of draft 4 that is none": {"$ref": "#/$defs/d0", "$defs": doubling(inside, moved_by("id"))},
    "an address beside a reference": {
        "$schema": D7,
        "allOf": [{"$ref": "#/definitions/d0"}],
        "definitions": doubling(lambda i: f"#/definitions/d{i}", moved_by("$id")),
    },
    "an address beside a reference, in an embedded resource": {
        "$ref": "http://example.com/a",
        "$defs": {
            "a": {
                "$schema": D7,
                "$id": "http://example.com/a",
                "allOf": [{"$ref": "#/definitions/d0"}],
                "definitions": doubling(lambda i: f"#/definitions/d{i}", moved_by("$id")),
            }
        },
    },
    "capitals": {
        "$ref": "http://example.com/d0",
        "$defs": doubling(
            lambda i: f"http://example.com/d{i}", lambda i, one: {"$id": f"http://EXAMPLE.com/d{i}", **one}
        ),
    },
    "percent signs": {
        "$ref": "http://example.com/d0",
        "$defs": doubling(
            lambda i: f"http://example.com/%64{i}", lambda i, one: {"$id": f"http://example.com/d{i}", **one}
        ),
    },
    "dots": {
        "$ref": "http://example.com/d0",
        "$defs": doubling(
            lambda i: f"http://example.com/x/../d{i}", lambda i, one: {"$id": f"http://example.com/d{i}", **one}
        ),
    },
}


@pytest.mark.parametrize("name", HIDDEN)
def test_no_way_to_write_a_reference_hides_the_doubling(name: str) -> None:
    """Addresses are read as the validating library reads them."""
    assert "ways to apply" in refused(HIDDEN[name]).message


def test_a_source_with_an_opaque_name_hides_nothing() -> None:
    """References in it lead into it, not into the schema that refers to it."""
    source = {"$ref": "#/$defs/d0", "$defs": doubling(inside)}

    assert "ways to apply" in refused({"$ref": "urn:s", "$defs": {"d0": {}}}, {"urn:s": json.dumps(source)}).message


def test_where_an_address_stands_twice_data_is_checked_apart() -> None:
    """Which of the two the library takes is not guessed: keywords that a draft does not know may hold decoys."""
    schema = {
        "$schema": D7,
        "$id": "http://example.com/",
        "allOf": [{"$ref": "d0"}],
        "definitions": doubling(lambda i: f"d{i}", lambda i, one: {"$id": f"d{i}", **one}),
        "$defs": {f"x{i}": {"$id": f"d{i}"} for i in range(LENGTH)},
    }

    assert parse(schema).explosive


def test_doubling_along_the_data_is_known() -> None:
    """Each level of the data is looked at twice as often as the one above, without any loop."""
    levels = {f"d{i}": {"properties": {"a": {"allOf": [{"$ref": inside(i + 1)}] * 2}}} for i in range(LENGTH)}

    assert parse({"$ref": inside(0), "$defs": {**levels, f"d{LENGTH}": {}}}).explosive


def test_loops_that_follow_each_other_are_known() -> None:
    """With k of them the steps grow with the k-th power of the depth of the data."""

    def loops(count: int) -> Parsed:
        chain = {
            f"d{i}": {"properties": {"a": {"anyOf": [{"$ref": inside(i)}, {"$ref": inside(i + 1)}]}}}
            for i in range(count)
        }
        return parse({"$ref": inside(0), "$defs": {**chain, f"d{count}": {}}})

    assert not loops(2).explosive
    assert loops(3).explosive


def test_wide_schemas_with_shared_definitions_stay_in_process() -> None:
    """Properties are at different places in the data, so a definition may be used by many of them."""
    leaf = {f"p{i}": {"$ref": "#/$defs/name"} for i in range(100)}
    groups = {
        f"g{i}": {"type": "object", "properties": {f"a{k}": {"$ref": "#/$defs/leaf"} for k in range(50)}}
        for i in range(50)
    }
    schema = {"properties": groups, "$defs": {"leaf": {"properties": leaf}, "name": {"type": "string", "maxLength": 3}}}

    assert not parse(schema).explosive


@pytest.mark.parametrize(
    ("base", "reference", "address"),
    [
        ("http://a/b/c", "d", "http://a/b/d"),
        ("http://a/b/c", "#x", "http://a/b/c#x"),
        ("", "b.json#/x", "b.json#/x"),
        ("urn:x:a", "#/x", "urn:x:a#/x"),
        ("urn:x:a", "http://a/b", "http://a/b"),
        ("urn:x:a", "b", "urn:b"),
        ("xyz://h/a/b", "c", "xyz://h/a/c"),
        ("xyz://h/a/b", "/c", "xyz://h/c"),
        ("xyz://h/a/b", "//k/c", "xyz://k/c"),
        ("dir/a.json", "b.json", "dir/b.json"),
    ],
)
def test_references_are_relative_to_bases_of_any_scheme(base: str, reference: str, address: str) -> None:
    """RFC 3986 does not know better schemes and worse ones."""
    assert cost.resolved(base, reference) == address
