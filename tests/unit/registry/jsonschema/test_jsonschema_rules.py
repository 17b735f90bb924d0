"""STRICT and LENIENT for JSON Schema: every rule in both directions, places, fixpoints and limits."""

from __future__ import annotations

import itertools
import json
import time
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


def timed(reader: object, writer: object) -> tuple[list[Finding], float]:
    pair = parse(reader), parse(writer)
    began = time.process_time()
    found = list(FORMAT.diff(*pair, Rules(Policy.STRICT)))
    return found, time.process_time() - began


def branches(count: int, size: int) -> dict[str, Any]:
    one = [{"type": "object", "properties": {f"k{i}": {}}, "required": [f"k{i}"]} for i in range(count)]
    return {"oneOf": [{**branch, "maxProperties": size} for branch in one]}


def test_five_hundred_branches_find_their_partners() -> None:
    """Branches in place are compared first, so a long union costs no more than its length."""
    found, seconds = timed(branches(500, 4), branches(500, 3))

    assert {one.rule for one in found} == {"MAX_PROPERTIES_INCREASED"}
    assert seconds < 2


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
    """A quarter of a million pairs are not compared; the answer says so."""
    monkeypatch.setattr(rules, "STEPS_MAX", 10_000)

    (found,) = diff(branches(500, 3), branches(500, 4))

    assert (found.verdict, found.rule) == (Verdict.UNDECIDED, "NOT_DECIDED")
    assert "10000 steps" in found.message


HOSTILE: dict[str, tuple[object, object]] = {
    "a chain of definitions": (
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{min(i + 1, 1999)}"}} for i in range(2000)},
        },
        {
            "title": "t",
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{min(i + 1, 1999)}"}} for i in range(2000)},
        },
    ),
    "two cycles of different lengths": (
        {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{(i + 1) % 89}"}} for i in range(89)}},
        {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{(i + 1) % 97}"}} for i in range(97)}},
    ),
    "definitions that double": (
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {"properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"}} for i in range(60)
            }
            | {"d60": {"type": "string"}},
        },
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {"properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"}} for i in range(60)
            }
            | {"d60": {"type": "integer"}},
        },
    ),
    "eighteen thousand properties in all": (
        {"properties": {f"p{i}": {"maxLength": 3} for i in range(9_000)}},
        {"properties": {f"p{i}": {"maxLength": 4} for i in range(9_000)}},
    ),
    "ten thousand branches": (
        {"anyOf": [{"maxLength": i + 1} for i in range(9_000)]},
        {"anyOf": [{"maxLength": i} for i in range(9_000)]},
    ),
    "a long enum": ({"enum": list(range(50_000))}, {"enum": list(range(1, 50_001))}),
    "deep nesting": (
        json.loads('{"not":' * 99 + '{"maxLength": 3}' + "}" * 99),
        json.loads('{"not":' * 99 + '{"maxLength": 4}' + "}" * 99),
    ),
    "names of every script": (
        {
            "properties": {
                name: {"type": "string"} for name in ("é", "e\u0301", "\u202e", "\U0001f600", "", "\x00", "/~")
            }
        },
        {
            "properties": {
                name: {"type": "number"} for name in ("é", "e\u0301", "\u202e", "\U0001f600", "", "\x00", "/~")
            }
        },
    ),
    "numbers beyond everything": (
        {"multipleOf": 10**400, "maximum": 10**4000},
        {"multipleOf": 3, "maximum": 10**4001},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_compared_within_a_limit(name: str) -> None:
    """An answer comes in a few seconds of CPU, whatever the schemas are."""
    reader, writer = HOSTILE[name]

    found, seconds = timed(reader, writer)

    assert seconds < 5
    assert found or name == "a chain of definitions" or "cycles" in name


def test_a_hundred_versions_of_two_hundred_properties_take_a_second() -> None:
    """A transitive check of a long history is no burden."""

    def version(longest: int) -> Parsed:
        return parse(
            {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": longest} for i in range(200)}}
        )

    candidate, history = version(1_000), [version(100 + number) for number in range(100)]
    began = time.process_time()
    found = [worst(FORMAT.diff(candidate, old, Rules(Policy.STRICT))) for old in history]

    assert set(found) == {Verdict.COMPATIBLE}
    assert time.process_time() - began < 3, "a second on a quiet machine"
