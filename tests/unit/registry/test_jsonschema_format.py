"""The JSON Schema format: what it accepts, what it refuses, and that nothing it is given can hurt the process."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidField, InvalidSchema
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict
from services.registry.domain.formats import DataRules, Parsed, json_text
from services.registry.domain.formats.jsonschema import JsonSchema

STRICT = Rules(Policy.STRICT)
FORMAT = JsonSchema()
DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def parse(schema: object, sources: dict[str, str] | None = None) -> Parsed:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return FORMAT.parse(text, sources or {})


def refused(schema: object, sources: dict[str, str] | None = None) -> InvalidSchema:
    with pytest.raises(InvalidSchema) as caught:
        parse(schema, sources)
    return caught.value


@pytest.mark.parametrize("draft", DRAFTS)
def test_every_draft_is_read_and_checks_data(draft: str) -> None:
    """A schema of each draft compiles, accepts what it allows and refuses what it does not."""
    parsed = parse({"$schema": draft, "type": "object", "required": ["name"]})
    validator = FORMAT.validator(parsed, DataRules())

    assert not validator.check(b'{"name": 1}').problems
    (problem,) = validator.check(b"{}").problems
    assert (problem.keyword, problem.schema_path) == ("required", "/required")


@pytest.mark.parametrize("draft", DRAFTS)
def test_every_place_at_fault_is_named(draft: str) -> None:
    """Two mistakes give two violations, each with its place in the text."""
    error = refused({"$schema": draft, "type": "strin", "properties": {"a": {"minLength": -1}}})

    assert {violation.field for violation in error.violations} == {"text/type", "text/properties/a/minLength"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "line 1, column 2"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"minimum": NaN}', "NaN"),
        ('{"minimum": Infinity}', "Infinity"),
        ("[]", "an object or a boolean"),
        ("3", "an object or a boolean"),
        ('{"minimum": ' + "1" * 5000 + "}", "cannot be read"),
        ('{"$schema": "http://example.com/mine"}', "must be one of"),
        ('{"$schema": 3}', "must be one of"),
        ('{"$ref": "http://example.com/other.json"}', "is not among the references"),
        ('{"$ref": "file:///etc/passwd"}', "is not among the references"),
        ('{"$ref": "#/nowhere"}', "does not exist"),
        ('{"pattern": "(?=a)b"}', "linear-time"),
        ('{"pattern": "(a{1000}){1000}"}', "text/pattern"),
        ('{"type": "strin", "\\ud800": 1}', "surrogate"),
        ('{"$id": "http://[", "properties": {"a": {"$ref": "#/x"}}}', "address"),
        ('{"$ref": "#"}', "without going into the data"),
        (
            '{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}',
            "without going into the data",
        ),
    ],
)
def test_a_text_that_is_no_schema_is_refused_with_the_reason(text: str, says: str) -> None:
    """The error says what is wrong, in words or by the place."""
    error = refused(text)

    assert says in error.message or any(says in violation.field for violation in error.violations)


@pytest.mark.parametrize(
    "text", ["[" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, '{"not":' * 101 + "{}" + "}" * 101]
)
def test_deep_nesting_is_refused(text: str) -> None:
    """Nesting beyond the limit is an error, never a crash of native code."""
    assert "nested deeper" in refused(text).message


def test_references_are_resolved_from_the_sources_only() -> None:
    """A reference by name finds its source, relative to the schema's own address too, and through other sources."""
    sources = {"b.json": '{"$defs": {"x": {"$ref": "c.json"}}}', "c.json": '{"type": "string"}'}

    for own in ({}, {"$id": "https://example.com/dir/a.json"}):
        parsed = parse({**own, "$ref": "b.json#/$defs/x"}, sources)
        validator = FORMAT.validator(parsed, DataRules())
        assert validator.check(b"1").problems
        assert not validator.check(b'"a"').problems


def test_formats_count_only_when_asserted() -> None:
    """`format` is an annotation unless the caller asks for more."""
    parsed = parse({"format": "email"})

    assert not FORMAT.validator(parsed, DataRules()).check(b'"nobody"').problems
    assert FORMAT.validator(parsed, DataRules(assert_formats=True)).check(b'"nobody"').problems


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "one JSON value"),
        (b"{", "line 1"),
        (b'"\xff"', "UTF-8"),
        (b"NaN", "NaN"),
        (b"1e999", "beyond the range"),
        (b"1" * 5000, "cannot be read"),
        (b"[" * 501 + b"]" * 501, "nested"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_data_that_cannot_be_read_is_a_bad_request(data: bytes, says: str) -> None:
    """Unreadable data is the caller's fault and names the field."""
    validator = FORMAT.validator(parse({}), DataRules())

    with pytest.raises(InvalidField) as caught:
        validator.check(data)

    assert caught.value.violations[0].field == "data"
    assert says in caught.value.message


def test_problems_do_not_repeat_values() -> None:
    """A value of the data never stands in a message: it may be somebody's secret."""
    parsed = parse({"properties": {"token": {"type": "integer"}, "kind": {"enum": ["a"]}}})

    found = FORMAT.validator(parsed, DataRules()).check(b'{"token": "s3cret", "kind": "s3cret"}')

    assert len(found.problems) == 2
    assert not any("s3cret" in problem.message for problem in found.problems)


def test_problems_are_limited() -> None:
    """A hundred problems are listed; that there are more is said."""
    parsed = parse({"items": {"type": "string"}})

    found = FORMAT.validator(parsed, DataRules()).check(json.dumps(list(range(500))).encode())

    assert len(found.problems) == 100
    assert found.truncated


def test_unknown_keywords_are_warned_of_with_the_nearest_name() -> None:
    """`tpye` has no effect anywhere: a registry says so, and does not take property names for keywords."""
    parsed = parse({"tpye": "object", "properties": {"colour": {"minLenght": 1, "x-order": 1}}, "default": {"foo": 1}})

    warnings = FORMAT.lint(parsed)

    assert {warning.instance_path for warning in warnings} == {"/tpye", "/properties/colour/minLenght"}
    assert any("`type`" in warning.message for warning in warnings)


def test_white_space_is_insignificant_and_nothing_else() -> None:
    """The identity ignores white space between tokens; member order, notation and descriptions count."""
    base = parse('{"type":"object","title":"a b"}')

    assert parse('{ "type" :\n"object",\t"title":"a b"}').identity_body == base.identity_body
    assert parse('{"title":"a b","type":"object"}').identity_body != base.identity_body
    assert parse('{"type":"object","title":"a  b"}').identity_body != base.identity_body


def test_member_order_and_number_notation_do_not_change_the_meaning() -> None:
    """The semantic body is one for all texts of equal value."""
    base = parse('{"type":"number","minimum":1,"maximum":1500}')

    assert parse('{"maximum":1.5e3,"minimum":1.0,"type":"number"}').semantic_body == base.semantic_body
    assert parse('{"type":"number","minimum":1,"maximum":1501}').semantic_body != base.semantic_body


@pytest.mark.parametrize("policy", Policy)
def test_the_policy_decides_how_schemas_are_compared(policy: Policy) -> None:
    """The same meaning is compatible under every policy, and a string for an integer under none."""
    writer, same, other = (
        parse('{"minimum":1,"type":"integer"}'),
        parse('{"type":"integer","minimum":1.0}'),
        parse('{"type":"string"}'),
    )

    assert list(FORMAT.diff(same, writer, Rules(policy))) == []
    assert {finding.verdict for finding in FORMAT.diff(other, writer, Rules(policy))} == {Verdict.INCOMPATIBLE}


def test_annotations_are_collected_for_the_search() -> None:
    """Titles and descriptions, also of nested schemas, and not of properties that happen to have those names."""
    parsed = parse({"title": "Order", "properties": {"title": {"description": "of the book"}}})

    assert sorted(parsed.annotations) == ["Order", "of the book"]


@given(VALUES, st.booleans(), st.sampled_from([1, "\t", " \r"]))
def test_compact_text_lacks_white_space_alone(value: object, escaped: bool, indent: int | str) -> None:
    """Taking white space out changes no other letter, with and without escapes, and doing it twice changes nothing."""
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)

    compact = json_text.compact(text)

    assert compact == json.dumps(value, separators=(",", ":"), ensure_ascii=escaped)
    assert json_text.compact(compact) == compact


@given(VALUES, VALUES)
def test_canonical_texts_are_equal_exactly_for_equal_values(left: object, right: object) -> None:
    """Canonical text is a faithful name of the value (JSON knows no difference between 1 and 1.0)."""
    left_text, right_text = (json_text.canonical(json_text.read(json.dumps(value))) for value in (left, right))

    same = _with_types(left) == _with_types(right)

    assert (left_text == right_text) == same


@given(VALUES, st.sampled_from(["1.0", "1e400", "-0.0", "1" * 30, "0.10"]))
def test_the_fast_canonical_text_is_the_same(value: object, number: str) -> None:
    """A number that needs care takes the long way, and all that stands beside it reads the same either way."""
    plain = json_text.read(json.dumps(value))
    beside = json_text.read(f"[{json.dumps(value)},{number}]")

    both, other = json_text.canonical(beside), json_text.canonical(json_text.read(number))

    assert both == f"[{json_text.canonical(plain)},{other}]"


def _with_types(value: object) -> object:
    """The value with booleans told from numbers, as JSON does and Python does not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return [_with_types(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_types(item) for key, item in value.items()}
    return value


@given(st.text(max_size=300))
def test_any_text_is_a_schema_or_an_error_of_ours(text: str) -> None:
    """No text brings anything but an answer or InvalidSchema."""
    try:
        parsed = parse(text)
    except InvalidSchema:
        return
    assert parsed.text == text
