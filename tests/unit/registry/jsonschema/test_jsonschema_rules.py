"""STRICT and LENIENT for JSON Schema: every rule in both directions, places, fixpoints and limits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Verdict, worst
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema import JsonSchema, rules
from services.registry.domain.formats.jsonschema.rules.names import BREAKING, DECLARED_ONLY, FINE, LENIENT
from services.registry.domain.formats.jsonschema.rules.words import WORDS
from tests.unit.registry.jsonschema.json_schemas import rewritten, schemas

FORMAT = JsonSchema()
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "corpora" / "compatibility" / "jsonschema.json").read_text()
)
EVERY = FINE | LENIENT | BREAKING
GENERATED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def parse(schema: object, sources: dict[str, str] | None = None, draft: str = "") -> Parsed:
    return FORMAT.parse(json.dumps(schema), sources or {}, dialect=draft.removesuffix("#"))


def diff(reader: object, writer: object, policy: Policy = Policy.STRICT) -> list[Finding]:
    return list(FORMAT.diff(parse(reader), parse(writer), Rules(policy)))


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_rules(row: dict[str, Any]) -> None:
    """Verdict and kinds are those of the table under both policies."""
    reader, writer = (parse(row[side], draft=row["draft"]) for side in ("reader", "writer"))
    for policy in (Policy.STRICT, Policy.LENIENT):
        found = list(FORMAT.diff(reader, writer, Rules(policy)))

        assert {one.rule for one in found} == set(row[policy.name.lower()]["kinds"])
        assert worst(found).name == row[policy.name.lower()]["verdict"]


def test_the_table_has_every_rule() -> None:
    """Of the 132 kinds all but the three that no comparison finds are expected somewhere, and no unknown one is."""
    assert (len(FINE), len(LENIENT), len(BREAKING)) == (65, 9, 58)
    assert {kind for row in ROWS for kind in row["strict"]["kinds"]} == EVERY - DECLARED_ONLY
    assert set(WORDS) == EVERY - DECLARED_ONLY
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_the_table_has_every_pair_in_both_directions() -> None:
    """A row that says `the other way` is its neighbour swapped; most rows come in such pairs."""
    swapped = [index for index, row in enumerate(ROWS) if row["name"].endswith(", the other way")]

    assert all(ROWS[at]["reader"] == ROWS[at - 1]["writer"] for at in swapped)
    assert all(ROWS[at]["writer"] == ROWS[at - 1]["reader"] for at in swapped)
    assert len(swapped) * 2 > len(ROWS) * 0.9


def test_verdicts_of_rules_follow_the_policy() -> None:
    """A fine rule does no harm, a breaking one does, and the nine between do under STRICT alone."""
    for policy in (Policy.STRICT, Policy.LENIENT):
        fine = FINE | LENIENT if policy is Policy.LENIENT else FINE
        found = [one for row in ROWS for one in FORMAT.diff(*_pair(row), Rules(policy))]

        assert {one.rule for one in found if one.verdict is Verdict.COMPATIBLE} == fine
        assert {one.rule for one in found if one.verdict is Verdict.INCOMPATIBLE} == EVERY - fine - DECLARED_ONLY
        assert all(one.message and one.remedy and "{" not in one.message for one in found)


def _pair(row: dict[str, Any]) -> tuple[Parsed, Parsed]:
    return parse(row["reader"], draft=row["draft"]), parse(row["writer"], draft=row["draft"])


def test_places_are_pointers_into_both_texts() -> None:
    """Names with slashes and tildes are escaped; what is not there is shown where it would be."""
    reader = {"properties": {"a/b": {"type": "array", "items": {"type": "string", "maxLength": 3}}}}
    writer = {"properties": {"a/b": {"type": "array", "items": {"type": "string", "maxLength": 5}}, "c~": {}}}

    narrowed, removed = diff(reader, writer)

    assert (narrowed.rule, removed.rule) == ("MAX_LENGTH_DECREASED", "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL")
    assert narrowed.reader_path == narrowed.writer_path == "/properties/a~1b/items/maxLength"
    assert (removed.reader_path, removed.writer_path) == ("", "/properties/c~0")


def test_a_definition_is_reported_where_it_stands_and_once() -> None:
    """Fifty uses of a definition that changed are one finding."""

    def schema(longest: int) -> dict[str, Any]:
        uses = {f"p{i}": {"$ref": "#/$defs/x"} for i in range(50)}
        return {"properties": uses, "$defs": {"x": {"type": "string", "maxLength": longest}}}

    (found,) = diff(schema(3), schema(5))

    assert found.reader_path == found.writer_path == "/$defs/x/maxLength"


def test_references_into_other_texts_are_followed() -> None:
    """What a source says is compared, and shown at the reference; any part of a text may be a target."""
    reader = parse({"properties": {"a": {"$ref": "b.json#/x/y"}}}, {"b.json": '{"x": {"y": {"type": "string"}}}'})
    writer = parse({"properties": {"a": {"$ref": "b.json#/x/y"}}}, {"b.json": '{"x": {"y": {"type": "integer"}}}'})

    (found,) = FORMAT.diff(reader, writer, Rules(Policy.STRICT))

    assert (found.rule, found.reader_path) == ("TYPE_CHANGED", "/properties/a")


def test_a_reason_is_given_where_branches_do_not_correspond() -> None:
    """The finding names the branch and says why the one most like it does not do."""
    (found,) = diff(
        {"oneOf": [{"type": "string"}, {"type": "object", "maxProperties": 2}]},
        {"oneOf": [{"type": "object", "maxProperties": 3}, {"type": "string"}]},
    )

    assert found.rule == "COMBINED_TYPE_SUBSCHEMAS_CHANGED"
    assert "maxProperties is 2" in found.message


def test_what_was_assumed_of_a_recursive_pair_is_taken_back() -> None:
    """`next` reads `next` only if the tree reads the tree; it does not, so no branch may pass by that assumption."""

    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        inner = {"type": "object", "properties": {"back": {"$ref": "#"}}}
        return {"type": "object", "properties": {"next": {"anyOf": [inner, {"type": "null"}]}, "leaf": leaf}}

    found = diff(tree({"type": "string"}), tree({"type": "integer"}))

    assert {one.rule for one in found} == {"COMBINED_TYPE_SUBSCHEMAS_CHANGED", "TYPE_CHANGED"}


def test_lenient_lets_optional_properties_come_and_go() -> None:
    """The complaint of every user of open objects has an answer."""
    before = {"type": "object", "properties": {"a": {"type": "string"}}}
    after = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}

    assert worst(diff(after, before)) is Verdict.INCOMPATIBLE
    assert worst(diff(after, before, Policy.LENIENT)) is Verdict.COMPATIBLE


def test_a_schema_whose_reference_is_not_understood_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that the walk cannot find is never guessed."""
    monkeypatch.setattr("services.registry.domain.formats.jsonschema.cost.Documents.target", lambda *_: None)
    schema = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}}

    (found,) = rules.findings(parse(schema), parse(schema), Policy.STRICT)

    assert found.verdict is Verdict.UNDECIDED


@GENERATED
@given(schemas(), st.data())
def test_a_schema_is_compatible_with_itself_in_other_words(schema: dict[str, Any], data: st.DataObject) -> None:
    """Compared rule by rule there is nothing between a schema and itself, and nothing that meaning does not explain."""
    parsed = parse(schema)
    same = parse(data.draw(rewritten(schema)))

    for policy in (Policy.STRICT, Policy.LENIENT):
        assert list(rules.findings(parsed, parsed, policy)) == []
        assert list(FORMAT.diff(parsed, same, Rules(policy))) == []
        assert list(FORMAT.diff(same, parsed, Rules(policy))) == []


@GENERATED
@given(schemas(), schemas())
def test_lenient_never_refuses_what_strict_allows(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    """LENIENT is wider, and both end for any two schemas."""
    pair = parse(reader), parse(writer)
    strict, lenient = (worst(rules.findings(*pair, policy)) for policy in (Policy.STRICT, Policy.LENIENT))

    assert strict is not Verdict.COMPATIBLE or lenient is Verdict.COMPATIBLE


def branches(count: int, size: int) -> dict[str, Any]:
    one = [{"type": "object", "properties": {f"k{i}": {}}, "required": [f"k{i}"]} for i in range(count)]
    return {"oneOf": [{**branch, "maxProperties": size} for branch in one]}


def test_branches_in_place_find_their_partners_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long union costs no more than its length."""
    monkeypatch.setattr(rules, "STEPS_MAX", 500)

    found = diff(branches(100, 4), branches(100, 3))

    assert {one.rule for one in found} == {"MAX_PROPERTIES_INCREASED"}


@given(st.integers(0, 2**16 - 1))
@settings(max_examples=60, deadline=None)
def test_as_many_branches_as_can_find_a_partner_do(bits: int) -> None:
    """The matching is a largest one: as large as trying all orders gives. A bit says whether a branch reads another."""
    size = 4
    reads = [[bool(bits >> (size * row + column) & 1) for column in range(size)] for row in range(size)]
    writer = {"anyOf": [{"enum": [f"w{row}"]} for row in range(size)]}
    reader = {
        "anyOf": [
            {"enum": [f"r{column}", *(f"w{row}" for row in range(size) if reads[row][column])]}
            for column in range(size)
        ]
    }
    largest = max(
        sum(reads[row][column] for row, column in enumerate(order)) for order in itertools.permutations(range(size))
    )

    refused = "COMBINED_TYPE_SUBSCHEMAS_CHANGED" in {one.rule for one in diff(reader, writer)}

    assert refused == (largest < size)


def test_branches_that_never_match_end_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand pairs are not compared; the answer says so."""
    monkeypatch.setattr(rules, "STEPS_MAX", 1_000)

    (found,) = diff(branches(100, 3), branches(100, 4))

    assert (found.verdict, found.rule) == (Verdict.UNDECIDED, "NOT_DECIDED")
    assert "1000 steps" in found.message


def definitions(count: int, following: Callable[[int], int], **more: object) -> dict[str, Any]:
    """Lists of lists: each definition leads to one."""
    lists = {f"d{i}": {"items": {"$ref": f"#/$defs/d{following(i)}"}} for i in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": lists, **more}


def doubling(leaf: str) -> dict[str, Any]:
    """Sixty definitions that each lead to the next one twice."""
    twice = {f"d{i}": {"properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"}} for i in range(60)}
    return {"$ref": "#/$defs/d0", "$defs": {**twice, "d60": {"type": leaf}}}


def hostile(size: int) -> dict[str, tuple[object, object]]:
    """Pairs that would take long without limits. size: of what may be long, up to 50,000."""
    links, many = max(size // 25, 1), range(size // 6)
    names = ("é", "e\u0301", "\u202e", "\U0001f600", "", "\x00", "/~")
    deep = '{"not":' * 99 + '{"maxLength": %d}' + "}" * 99
    last = links - 1
    return {
        "a chain of definitions": (
            definitions(links, lambda i: min(i + 1, last)),
            definitions(links, lambda i: min(i + 1, last), title="t"),
        ),
        "two cycles of different lengths": (
            definitions(89, lambda i: (i + 1) % 89),
            definitions(97, lambda i: (i + 1) % 97),
        ),
        "definitions that double": (doubling("string"), doubling("integer")),
        "many properties": (
            {"properties": {f"p{i}": {"maxLength": 3} for i in many}},
            {"properties": {f"p{i}": {"maxLength": 4} for i in many}},
        ),
        "many branches": (
            {"anyOf": [{"maxLength": i + 1} for i in many]},
            {"anyOf": [{"maxLength": i} for i in many]},
        ),
        "a long enum": ({"enum": list(range(size))}, {"enum": list(range(1, size + 1))}),
        "deep nesting": (json.loads(deep % 3), json.loads(deep % 4)),
        "names of every script": (
            {"properties": {name: {"type": "string"} for name in names}},
            {"properties": {name: {"type": "number"} for name in names}},
        ),
        "numbers beyond everything": (
            {"multipleOf": 10**400, "maximum": 10**4000},
            {"multipleOf": 3, "maximum": 10**4001},
        ),
    }


@pytest.mark.parametrize("name", hostile(0))
def test_hostile_schemas_are_compared_within_a_limit(name: str) -> None:
    """An answer comes, whatever the schemas are; it is never that nothing changed where something did."""
    found = diff(*hostile(2_000)[name])

    assert found or name in ("a chain of definitions", "two cycles of different lengths")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", hostile(0))
def test_large_hostile_schemas_are_compared_within_a_limit(name: str) -> None:
    """The same at the size at which schemas are still accepted."""
    found = diff(*hostile(50_000)[name])

    assert found or name in ("a chain of definitions", "two cycles of different lengths")


def test_every_property_of_a_wide_schema_takes_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transitive check of a long history is no burden: `make bench` has the seconds."""
    monkeypatch.setattr(rules, "STEPS_MAX", 300)

    def version(longest: int) -> Parsed:
        return parse(
            {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": longest} for i in range(200)}}
        )

    found = list(FORMAT.diff(version(200), version(100), Rules(Policy.STRICT)))

    assert {one.rule for one in found} == {"MAX_LENGTH_INCREASED"}
    assert len(found) == 200


def test_lists_and_schemas_may_depend_on_one_property() -> None:
    """A list of names that came beside a schema for the same property is not overlooked."""
    before: dict[str, Any] = {"type": "object", "dependentSchemas": {"a": {"maxProperties": 3}}}
    after = {**before, "dependentRequired": {"a": ["b"]}}

    assert [one.rule for one in diff(after, before)] == ["DEPENDENCY_ARRAY_ADDED"]
    assert [one.rule for one in diff(before, after)] == ["DEPENDENCY_ARRAY_REMOVED"]


def test_an_empty_schema_for_the_rest_is_true() -> None:
    """`additionalProperties: {}` accepts what `true` accepts: a reader that accepts everything is always fine."""
    before = {"type": "object", "additionalProperties": True, "maxProperties": 3}
    after = {"type": "object", "additionalProperties": {}}

    assert [one.rule for one in diff(after, before)] == ["MAX_PROPERTIES_REMOVED"]
