"""The semantic body: one for schemas that accept the same data as far as that is plain, and never for others."""

from __future__ import annotations

import itertools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.formats import DataRules, Parsed
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.formats.jsonschema.meaning import canonical_text
from tests.unit.registry.jsonschema.json_schemas import DRAFTS, VALUES, rewritten, schemas

FORMAT = JsonSchema()
GENERATED = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
D4, D6, D7, D2019, D2020 = DRAFTS


def parse(schema: object, draft: str = D2020, sources: dict[str, str] | None = None) -> Parsed:
    return FORMAT.parse(json.dumps(schema), sources or {}, dialect=draft.removesuffix("#"))


def meaning(schema: object, draft: str = D2020) -> str:
    return parse(schema, draft).semantic_body.decode()


@GENERATED
@given(schemas(), st.lists(VALUES, min_size=6, max_size=6))
def test_the_canonical_text_is_a_schema_that_accepts_the_same_data(schema: dict[str, Any], values: list[Any]) -> None:
    """It is its own canonical text, and no value tells the two apart, with formats asserted or not."""
    parsed = parse(schema)

    canonical = FORMAT.parse(parsed.semantic_body.decode(), {})

    assert canonical.semantic_body == parsed.semantic_body
    for rules in (DataRules(), DataRules(assert_formats=True)):
        one, other = (FORMAT.validator(either, rules) for either in (parsed, canonical))
        for value in values:
            data = json.dumps(value).encode()
            assert bool(one.check(data).problems) == bool(other.check(data).problems), value


@GENERATED
@given(schemas(), st.data())
def test_the_same_meaning_in_other_words_has_the_same_body(schema: dict[str, Any], data: st.DataObject) -> None:
    """Orders, annotations, notations and keywords without effect do not count."""
    assert parse(data.draw(rewritten(schema))).semantic_body == parse(schema).semantic_body


@GENERATED
@given(schemas(), st.sampled_from(DRAFTS), st.booleans(), st.sampled_from([None, 2]))
def test_the_canonical_text_does_not_depend_on_the_spelling(
    schema: dict[str, Any], draft: str, named: bool, indent: int | None
) -> None:
    """A text of the schema, which saves time, changes nothing."""
    draft = draft.removesuffix("#")
    value = {**schema, "$schema": draft} if named else schema

    for spelled in (json.dumps(value, indent=indent), json.dumps(value, ensure_ascii=False)):
        assert canonical_text(value, draft, {}, spelled=spelled) == canonical_text(value, draft, {})


@pytest.mark.parametrize(
    "spelled",
    [
        r'{"properties": {"a": {"\u0024ref": "#/properties/b/x"}, "b": {"x": {"title": "kept"}}}}',
        '{"properties": {"a": {"$ref": "#/properties/b/x"}, "b": {"x": {"title": "kept"}}}}',
        '{"$schema": "https://json-schema.org/draft/2020-12/schema", "x": {"$schema": "y", "$id": "z"}}',
        '{"x": {"$schema": "y"}}',
        '{"properties": {"a": {"$anchor": "b", "title": "kept"}}}',
        '{"unevaluatedProperties": false, "properties": {"a": true}}',
    ],
)
def test_a_spelling_hides_nothing_special(spelled: str) -> None:
    """What needs looking out for is found in any spelling."""
    value = json.loads(spelled)

    assert canonical_text(value, D2020, {}, spelled=spelled) == canonical_text(value, D2020, {})


@pytest.mark.slow
@pytest.mark.rotating(3, "long runs")
@pytest.mark.timeout(600)
@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas(), st.lists(VALUES, min_size=20, max_size=20), st.data())
def test_meaning_over_a_long_run(schema: dict[str, Any], values: list[Any], data: st.DataObject) -> None:
    """The same over thousands of schemas."""
    parsed = parse(schema)
    canonical = FORMAT.parse(parsed.semantic_body.decode(), {})
    one, other = (FORMAT.validator(either, DataRules()) for either in (parsed, canonical))

    assert canonical.semantic_body == parsed.semantic_body
    assert parse(data.draw(rewritten(schema))).semantic_body == parsed.semantic_body
    for value in values:
        text = json.dumps(value).encode()
        assert bool(one.check(text).problems) == bool(other.check(text).problems), value


# fmt: off
EQUAL: list[tuple[str, str, object, object]] = [
    ("annotations", D2020, {"title": "a", "examples": [1], "x-a": 1, "contentEncoding": "base64"}, {}),
    ("a constant", D7, {"const": 1}, {"enum": [1.0]}),
    ("types", D7, {"type": ["number", "integer"]}, {"type": "number"}),
    ("no effect", D2020, {"minLength": 0, "required": [], "uniqueItems": False, "then": False, "minContains": 3}, {}),
    ("accepts all", D2020, {"additionalProperties": {}, "items": True, "properties": {}}, {}),
    ("everything", D7, {"items": [{}, {"title": "x"}]}, {"items": [True, True]}),
    ("branches", D7, {"anyOf": [{"minLength": 1}, {"const": 1}]}, {"anyOf": [{"enum": [1]}, {"minLength": 1}]}),
    (
        "beside a reference",
        D7,
        {"$ref": "#/definitions/a", "maxLength": 1, "definitions": {"a": {}}},
        {"$ref": "#/definitions/a", "definitions": {"a": {}}},
    ),
    (
        "dependent names",
        D2020,
        {"dependentRequired": {"a": ["c", "b"], "b": []}},
        {"dependentRequired": {"a": ["b", "c"]}},
    ),
    ("unknown to the draft", D4, {"const": 1, "if": {}, "contains": {"not": {}}}, {}),
    ("booleans of draft 4", D4, {"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
    ("nothing", D7, False, {"not": {}}),
    ("the draft named or not", D7, {"$schema": D7, "type": "string"}, {"type": "string"}),
]
DIFFERENT: list[tuple[str, str, object, object]] = [
    ("formats", D2020, {"format": "email"}, {}),
    ("content is asserted in draft 7", D7, {"contentMediaType": "application/json"}, {}),
    ("beside a reference", D2020, {"$ref": "#/$defs/a", "maxLength": 1, "$defs": {"a": {}}}, {
        "$ref": "#/$defs/a", "$defs": {"a": {}}}),
    ("branches that are counted", D7, {"oneOf": [{}, {}]}, {"oneOf": [{}]}),
    ("evaluated members", D2020, {"allOf": [{"additionalProperties": True}], "unevaluatedProperties": False}, {
        "allOf": [{}], "unevaluatedProperties": False}),
    ("an if that evaluates", D2020, {"if": {"properties": {"a": {}}}, "unevaluatedProperties": False}, {
        "unevaluatedProperties": False}),
    ("definitions that others may refer to", D2020, {"$defs": {"a": {"type": "string"}}}, {}),
    ("pointers into branches", D2020, {"allOf": [{"minLength": 1}, {"maxLength": 5}], "not": {"$ref": "#/allOf/0"}}, {
        "allOf": [{"maxLength": 5}, {"minLength": 1}], "not": {"$ref": "#/allOf/0"}}),
    *((f"pointers with the index {index}", D7, {"anyOf": [{"anyOf": [{"minLength": 3}, {"maxLength": 1}]}], "not": {
        "$ref": f"#/anyOf/{index}/anyOf/1"}}, {"anyOf": [{"anyOf": [{"maxLength": 1}, {"minLength": 3}]}], "not": {
        "$ref": f"#/anyOf/{index}/anyOf/1"}}) for index in ("0", "00", "+0")),
    ("pointers into what has no effect", D2020, {"x": {"minLength": 1}, "not": {"$ref": "#/x"}}, {
        "x": {"minLength": 2}, "not": {"$ref": "#/x"}}),
    ("pointers through names of digits", D2020, {
        "properties": {"0": {"allOf": [{"minLength": 1}, {"maxLength": 5}]}},
        "not": {"$ref": "#/properties/0/allOf/1"}}, {
        "properties": {"0": {"allOf": [{"maxLength": 5}, {"minLength": 1}]}},
        "not": {"$ref": "#/properties/0/allOf/1"}}),
    ("anchors in what has no effect", D2020, {"then": {"$anchor": "a", "minLength": 1}, "not": {"$ref": "#a"}}, {
        "then": {"$anchor": "a", "minLength": 2}, "not": {"$ref": "#a"}}),
    ("properties called like annotations", D7, {"properties": {"title": {"minLength": 1}}}, {"properties": {}}),
    ("booleans and numbers", D7, {"enum": [1]}, {"enum": [True]}),
    ("big numbers", D7, {"maximum": 10**30}, {"maximum": 10**30 + 1}),
]
# fmt: on


@pytest.mark.parametrize(("draft", "one", "other"), [row[1:] for row in EQUAL], ids=[row[0] for row in EQUAL])
def test_equal_meanings(draft: str, one: object, other: object) -> None:
    """Two texts with one body."""
    assert meaning(one, draft) == meaning(other, draft)


@pytest.mark.parametrize(("draft", "one", "other"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT])
def test_different_meanings(draft: str, one: object, other: object) -> None:
    """Two texts with two bodies."""
    assert meaning(one, draft) != meaning(other, draft)


def test_the_draft_counts() -> None:
    """One text in two drafts is two meanings, and two identities where the text does not say which."""
    bodies = [parse({"items": {"minLength": 1}}, draft) for draft in DRAFTS]

    assert len({body.semantic_body for body in bodies}) == len({body.identity_body for body in bodies}) == 5


def test_equal_bodies_mean_no_findings_under_any_policy() -> None:
    """What means the same is compatible, whatever the rules are."""
    for _, draft, one, other in EQUAL:
        for policy, (reader, writer) in itertools.product(Policy, ((one, other), (other, one))):
            assert list(FORMAT.diff(parse(reader, draft), parse(writer, draft), Rules(policy))) == []


def test_sources_count_by_their_meaning_unless_they_are_pointed_into() -> None:
    """An annotation in a text referred to as a whole does not count; where it is pointed into, everything does."""

    def body(reference: str, **more: object) -> bytes:
        source = {"allOf": [{"minLength": 1}, {"maxLength": 5}], **more}
        return parse({"$ref": reference}, sources={"b.json": json.dumps(source)}).semantic_body

    assert body("b.json", title="t") == body("b.json")
    assert body("b.json", minLength=2) != body("b.json")
    assert body("b.json#/allOf/0", title="t") != body("b.json#/allOf/0")


def real_schemas() -> list[Path]:
    """JSON Schemas that come with installed packages."""
    found = []
    for package in ("check-jsonschema", "jsonschema-specifications", "jsonschema"):
        for file in metadata.files(package) or ():
            path = Path(str(file.locate()))
            if path.suffix == ".json" or path.parent.name in ("metaschemas", "vocabularies"):
                found.append(path)
    return [path for path in found if path.is_file() and path.stat().st_size < 400_000]


def test_real_schemas_stay_themselves() -> None:
    """Every real schema that we read is read again from its canonical text, with the same one."""
    read = 0
    for path in real_schemas():
        try:
            parsed = FORMAT.parse(path.read_text(), {})
        except InvalidSchema:
            continue  # It refers to texts of its own, or uses look-around.
        again = FORMAT.parse(parsed.semantic_body.decode(), {})
        assert again.semantic_body == parsed.semantic_body, path
        read += 1

    assert read >= 10
