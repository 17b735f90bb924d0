"""Strict checking of JSON data: fields that no schema declares; and remarks on schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema, LimitExceeded
from services.registry.domain.formats import DataRules, Encoding, Problem, json_text
from services.registry.domain.formats.jsonschema import JsonSchema, undeclared
from tests.unit.registry.jsonschema.json_schemas import DRAFTS, VALUES, schemas

FORMAT = JsonSchema()
D4, D6, D7, D2019, D2020 = DRAFTS


def check(
    schema: object, value: object, draft: str = D2020, sources: dict[str, str] | None = None
) -> tuple[Problem, ...]:
    parsed = FORMAT.parse(json.dumps(schema), sources or {}, dialect=draft.removesuffix("#"))
    return FORMAT.validator(parsed, DataRules(strict=True)).check(json.dumps(value).encode()).problems


def unknown(schema: object, value: object, draft: str = D2020, sources: dict[str, str] | None = None) -> set[str]:
    return {one.instance_path for one in check(schema, value, draft, sources) if one.keyword == "unknownField"}


A: dict[str, Any] = {"properties": {"a": {}}}
CASES: list[tuple[str, Any, Any, set[str]]] = [
    ("not declared", A, {"a": 1, "b": 2}, {"/b"}),
    ("an object of which only the type is said", {"type": "object"}, {"b": 1}, {"/b"}),
    ("a value of which nothing is said", A, {"a": {"b": 1}}, set()),
    ("below a property", {"properties": {"a": {"properties": {"x": {}}}}}, {"a": {"x": 1, "y/z": 2}}, {"/a/y~1z"}),
    ("in items", {"items": A}, [{"a": 1}, {"b": 1}], {"/1/b"}),
    ("patterns", {"patternProperties": {"^x": A}}, {"x1": {"a": 1, "c": 1}, "y": 1}, {"/x1/c", "/y"}),
    ("the rest given", {**A, "additionalProperties": A}, {"b": {"a": 1, "c": 1}}, {"/b/c"}),
    ("listed in full", {"properties": {"a": {"enum": [{"x": [{"y": 1}]}]}}}, {"a": {"x": [{"y": 1}]}, "b": 1}, {"/b"}),
    ("forbidden by the schema itself", {**A, "additionalProperties": False}, {"b": 1}, set()),
    ("a reference", {"allOf": [{"$ref": "#/definitions/x"}], "definitions": {"x": A}}, {"a": 1, "b": 1}, {"/b"}),
    ("allOf declares together", {"allOf": [A, {"properties": {"b": {}}}]}, {"a": 1, "b": 1, "c": 1}, {"/c"}),
    (
        "one place in two branches",
        {"allOf": [{"properties": {"o": A}}, {"properties": {"o": {"properties": {"b": {}}}}}]},
        {"o": {"a": 1, "b": 1, "c": 1}},
        {"/o/c"},
    ),
    (
        "branches that accept",
        {"anyOf": [{**A, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
        {"a": 1, "c": 1},
        {"/c"},
    ),
    (
        "branches that do not accept do not declare",
        {"oneOf": [{**A, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b", "z"]}]},
        {"a": 1, "b": 1},
        {"/b"},
    ),
    ("no branch accepts", {"anyOf": [{**A, "required": ["z"]}]}, {"a": 1, "b": 1}, {"/b"}),
    (
        "a schema that leads back",
        {"properties": {"next": {"$ref": "#"}}},
        {"next": {"next": {"b": 1}}},
        {"/next/next/b"},
    ),
    (
        "dependencies",
        {**A, "dependencies": {"a": {"properties": {"b": {}}}}},
        {"a": 1, "b": 1},
        set(),
    ),
]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(("schema", "value", "paths"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_members_that_no_schema_declares(draft: str, schema: Any, value: Any, paths: set[str]) -> None:
    """The same in every draft."""
    assert unknown(schema, value, draft) == paths


def test_keywords_of_later_drafts_count_there_alone() -> None:
    """A conditional declares from draft 7 on, unevaluatedProperties from 2019-09 on."""
    conditional = {"if": {"required": ["k"]}, "then": {"properties": {"k": {}}}, "else": {"properties": {"m": {}}}}
    rest = {"properties": {"a": {}}, "unevaluatedProperties": {"type": "integer"}}

    assert unknown({"type": "object", **conditional}, {"k": 1}, D7) == set()
    assert unknown({"type": "object", **conditional}, {"m": 1}, D2020) == set()
    assert unknown({"type": "object", **conditional}, {"k": 1, "m": 1}, D2019) == {"/m"}
    assert unknown({"type": "object", **conditional}, {"k": 1}, D6) == {"/k"}
    assert unknown(rest, {"b": 1}, D2019) == set()
    assert unknown(rest, {"b": 1}, D7) == {"/b"}


def test_a_constant_is_listed_in_full_from_draft_6_on() -> None:
    """In draft 4 `const` is no keyword, so it declares nothing."""
    schema = {"type": "object", "const": {"a": 1}}

    assert unknown(schema, {"a": 1}, D6) == set()
    assert unknown(schema, {"a": 1}, D4) == {"/a"}


def test_other_texts_declare_too() -> None:
    """Through a reference by name, also where a branch of that text must accept."""
    source = {
        "$defs": {
            "x": {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {}}}]}
        }
    }
    sources = {"b.json": json.dumps(source)}

    for own in ({}, {"$id": "https://example.com/dir/a.json"}):
        schema = {**own, "$ref": "b.json#/$defs/x"}
        assert unknown(schema, {"a": "", "c": 1}, D2020, sources) == {"/c"}
        assert unknown(schema, {"a": 1, "c": 1}, D2020, sources) == {"/a", "/c"}


def test_a_dynamic_reference_may_lead_to_any_schema_of_its_name() -> None:
    """A field that an extension declares is not refused."""
    schema = {
        "$id": "https://example.com/strict",
        "$dynamicAnchor": "node",
        "properties": {"extra": {}, "children": {"items": {"$dynamicRef": "#node"}}},
    }

    assert unknown(schema, {"children": [{"extra": 1, "children": [{"other": 1}]}]}) == {"/children/0/children/0/other"}


def test_a_misspelt_field_gets_a_hint_beside_the_other_problems() -> None:
    """The missing name and the unknown one are both told, and no value is."""
    found = check({"properties": {"customer": {}}, "required": ["customer"]}, {"custmoer": "s3cret"})

    assert {one.keyword for one in found} == {"required", "unknownField"}
    assert any("`customer`" in one.message and one.keyword == "unknownField" for one in found)
    assert not any("s3cret" in one.message for one in found)


def test_unknown_fields_pass_by_default() -> None:
    """Strictness is asked for."""
    parsed = FORMAT.parse(json.dumps(A), {})

    assert not FORMAT.validator(parsed, DataRules()).check(b'{"b": 1}').problems
    assert FORMAT.validator(parsed, DataRules(strict=True, encoding=Encoding.FRAMED)).check(b'{"b": 1}').problems


def test_unknown_fields_are_limited() -> None:
    """A hundred are listed; that there are more is said."""
    parsed = FORMAT.parse('{"type": "object"}', {})

    found = FORMAT.validator(parsed, DataRules(strict=True)).check(
        json.dumps(dict.fromkeys(map(str, range(500)))).encode()
    )

    assert (len(found.problems), found.truncated) == (100, True)


def test_strict_checking_ends_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many schemas at many places are not all looked at."""
    monkeypatch.setattr(undeclared, "STEPS_MAX", 1_000)
    monkeypatch.setattr(undeclared._Steps.__init__, "__defaults__", (1_000,))
    schema: Any = {"items": {"allOf": [{"properties": {f"a{i}": {}}} for i in range(100)]}}

    with pytest.raises(LimitExceeded):
        check(schema, [{"b": 1}] * 100)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), VALUES)
def test_strict_checking_only_adds_problems(schema: dict[str, Any], value: Any) -> None:
    """What the default refuses is refused, what is added is about fields of the data, and no schema breaks it."""
    parsed = FORMAT.parse(json.dumps(schema), {})
    data = json.dumps(value).encode()
    plain = FORMAT.validator(parsed, DataRules()).check(data).problems
    strict = FORMAT.validator(parsed, DataRules(strict=True)).check(data).problems

    assert strict[: len(plain)] == plain
    assert {one.keyword for one in strict[len(plain) :]} <= {"unknownField"}


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_schema_that_declares_all_refuses_nothing(draft: str) -> None:
    """`additionalProperties: true` is an answer, not an omission."""
    assert unknown({"type": "object", "additionalProperties": True}, {"a": {"b": {"c": 1}}}, draft) == set()


REMARKS: list[tuple[str, str, Any, set[str]]] = [
    ("a keyword of a later draft", D7, {"prefixItems": [{}], "properties": {"a": {"dependentRequired": {}}}}, {
        "/prefixItems", "/properties/a/dependentRequired"}),
    ("a keyword of an earlier draft", D2020, {"additionalItems": False}, {"/additionalItems"}),
    ("draft 4 has no constants", D4, {"const": 1}, {"/const"}),
    ("its own draft", D2020, {"prefixItems": [{}], "dependentRequired": {"a": []}, "contentEncoding": "base64"}, set()),
    ("beside a reference", D7, {"$ref": "#/definitions/a", "maxLength": 1, "title": "t", "definitions": {"a": {}}}, {
        "/maxLength"}),
    ("beside a reference later", D2020, {"$ref": "#/$defs/a", "maxLength": 1, "$defs": {"a": {}}}, set()),
    ("ranges", D7, {"minimum": 3, "maximum": 2, "minLength": 2, "maxLength": 2}, {"/minimum"}),
    ("exclusive ranges", D7, {"exclusiveMinimum": 2, "exclusiveMaximum": 2}, {"/exclusiveMinimum"}),
    ("required and forbidden", D7, {"required": ["a", "b"], "properties": {"a": {}}, "additionalProperties": False}, {
        "/required/1"}),
    ("perhaps allowed", D7, {"required": ["b"], "patternProperties": {"b": {}}, "additionalProperties": False},
        set()),
    ("a keyword of another type", D7, {"type": "integer", "pattern": "a", "minimum": 1}, {"/pattern"}),
    ("values of another type", D7, {"type": "string", "enum": ["a", 1, None]}, {"/enum/1", "/enum/2"}),
    ("a constant of another type", D7, {"type": ["integer", "null"], "const": 1.5}, {"/const"}),
    ("a whole number written with a point", D7, {"type": "integer", "enum": [1.0]}, set()),
    ("conditions without a condition", D7, {"then": {}, "else": {}}, {"/then", "/else"}),
    ("a condition without consequence", D7, {"if": {}}, {"/if"}),
    ("misspelt", D7, {"properties": {"tpye": {"tpye": "string"}}}, {"/properties/tpye/tpye"}),
]  # fmt: skip


@pytest.mark.parametrize(("draft", "schema", "paths"), [row[1:] for row in REMARKS], ids=[row[0] for row in REMARKS])
def test_remarks(draft: str, schema: Any, paths: set[str]) -> None:
    """What is probably not meant is said, and nothing else is."""
    assert {
        one.instance_path for one in FORMAT.lint(FORMAT.parse(json.dumps(schema), {}, dialect=draft.removesuffix("#")))
    } == paths


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_default_draft_is_that_of_texts_that_name_none(draft: str) -> None:
    """The identity tells the drafts apart, and a `$schema` of the text wins."""
    address = draft.removesuffix("#")
    plain, said = '{"type":"object"}', json.dumps({"$schema": D6, "type": "object"})

    parsed = FORMAT.parse(plain, {}, dialect=address)

    assert parsed.dialect == address
    assert (parsed.identity_body == FORMAT.parse(plain, {}).identity_body) == (draft == D2020)
    assert FORMAT.parse(said, {}, dialect=address).identity_body == FORMAT.parse(said, {}).identity_body
    assert FORMAT.parse(said, {}, dialect=address).dialect == D6.removesuffix("#")


def test_the_draft_decides_what_data_is_accepted() -> None:
    """A constant is one from draft 6 on."""
    for draft, refused in ((D4, False), (D6, True)):
        parsed = FORMAT.parse('{"const": 1}', {}, dialect=draft.removesuffix("#"))
        assert bool(FORMAT.validator(parsed, DataRules()).check(b"2").problems) == refused


def test_an_unknown_default_draft_is_refused() -> None:
    """A draft that is none is an error, not the default."""
    with pytest.raises(InvalidSchema):
        FORMAT.parse("{}", {}, dialect="https://example.com/mine")


def test_a_number_with_an_endless_exponent_is_no_schema() -> None:
    """A number that no library can hold is an error of the text."""
    with pytest.raises(InvalidSchema, match="exponent"):
        FORMAT.parse('{"maximum": 1e99999999999999999999}', {})


@given(st.integers(0, 600))
@settings(max_examples=20, deadline=None)
def test_depth_of_data_is_limited_however_many_brackets_there_are(depth: int) -> None:
    """A cheap count spares the walk, and never lets a deep value through."""
    validator = FORMAT.validator(FORMAT.parse("{}", {}), DataRules())
    data = b"[" * depth + b"1" + b"]" * depth

    if depth <= 500:
        assert not validator.check(data).problems
    else:
        with pytest.raises(Exception, match="nested"):
            validator.check(data)


def depth(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, items), default=0) if isinstance(value, dict | list) else 0


TRICKY = st.sampled_from(["", "[", "]}", '{"', "\\", '\\"', '"', '"[', "\n", "é\\"])


@given(
    value=st.recursive(TRICKY, lambda inner: st.lists(inner) | st.dictionaries(TRICKY, inner), max_leaves=25),
    around=st.integers(0, 20),
    escaped=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_depth_is_read_off_the_text(value: Any, around: int, *, escaped: bool) -> None:
    """Brackets and quotes in strings do not count, whatever is escaped."""
    for _ in range(around):
        value = [value]
    data = json.dumps(value, ensure_ascii=escaped).encode()

    for levels in (3, 18):
        assert json_text.is_deeper(data, levels) == (depth(value) > levels)
