"""EXACT for JSON Schema: single facts about verdicts, witnesses and assumptions, and the corpus of hard pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict, worst
from services.registry.domain.formats.jsonschema.exact import findings
from services.registry.domain.formats.jsonschema.exact.texts import FORMATTED, UNFORMATTED, failing, matching
from services.registry.domain.formats.jsonschema.exact.values import key, matches
from tests.exact_oracle import (
    ALL_RULES,
    BOTH,
    FILLING,
    FORMATS,
    NEITHER,
    SECOND,
    Oracle,
    compare,
    compiled,
    parsed,
    verdict,
)

CORPUS = Path(__file__).parents[2] / "corpora" / "compatibility" / "exact_seeds.json"
SEEDS: list[dict[str, Any]] = json.loads(CORPUS.read_text(encoding="utf-8"))["pairs"]

TABLE: list[dict[str, Any]] = [
    row
    for row in json.loads((CORPUS.parent / "jsonschema.json").read_text(encoding="utf-8"))
    if row["exact"] is not None
]
MAY_BE_UNDECIDED = {
    "maxContains given, the other way",
    "maxContains changed, the other way",
    "unevaluatedItems restricted",
}
"""Rows of the table on which no verdict is reached: `maxContains` and `unevaluatedItems` are searched little."""

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


def objects(**properties: Any) -> dict[str, Any]:
    """A schema of objects with such properties."""
    return {"type": "object", "properties": properties}


def rules_of(seed: dict[str, Any]) -> Rules:
    """The assumptions that a seed names."""
    assumed = seed.get("assumed", [])
    return Rules(
        Policy.EXACT,
        declared_properties_only="declared_properties_only" in assumed,
        reader_fills_defaults="reader_fills_defaults" in assumed,
        assert_formats="assert_formats" in assumed,
    )


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed["name"])
def test_corpus(seed: dict[str, Any]) -> None:
    """Every pair of the corpus gets its verdict, and every witness is confirmed by two validators."""
    reader = parsed(seed["reader"], seed.get("sources"))
    writer = parsed(seed["writer"], seed.get("sources"))
    found = list(findings(reader, writer, rules_of(seed)))

    verdicts = sorted({finding.verdict.name for finding in found}) or ["COMPATIBLE"]
    assert verdicts == [seed["verdict"]]
    assert {finding.rule for finding in found} >= set(seed.get("rules", []))
    if found and found[0].witness is not None and not seed.get("sources"):
        oracle = Oracle(reader, writer, rules_of(seed))
        assert all(oracle.is_witness(finding) for finding in found)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["name"])
def test_table_of_rules(row: dict[str, Any]) -> None:
    """EXACT gives the verdict that the table of all policies has for it, or, where that is said, none."""
    reader, writer = (parsed(row[side], draft=row["draft"]) for side in ("reader", "writer"))

    found = worst(findings(reader, writer, NEITHER)).name

    assert found in {row["exact"], *(["UNDECIDED"] if row["name"] in MAY_BE_UNDECIDED else [])}


def test_a_schema_compared_before_gives_the_same_verdict() -> None:
    """What a worker keeps of a schema from other comparisons changes nothing."""
    several = [objects(a=STRING), objects(a=INTEGER), objects(a=STRING, b=INTEGER), {"oneOf": [STRING, INTEGER]}]
    pairs = [(one, other) for one in several for other in several]

    first = [compare(one, other, BOTH) for one, other in pairs]
    backwards = [compare(one, other, BOTH) for one, other in reversed(pairs)]

    assert backwards == first[::-1]


def test_a_witness_tells_everything() -> None:
    """Rule, both paths, the reason and a remedy stand in the finding."""
    (found,) = compare({**objects(a=STRING), "required": ["a"]}, objects(a=STRING), BOTH)

    assert found.rule == "REQUIRED_REJECTS"
    assert (found.reader_path, found.writer_path) == ("/required", "")
    assert found.witness is not None
    assert found.witness.text == "{}"
    assert found.message == (
        'the reader\'s `/required` rejects data that the writer may send: "a" is a required property'
    )
    assert "default" in found.remedy


def test_what_is_undecided_is_said_with_the_assumption() -> None:
    """Both places, the keyword and what was assumed stand in the finding, and that an editor may accept it."""
    (found,) = compare(
        objects(a={**STRING, "pattern": "^(a|b)*c$"}), objects(a={**STRING, "pattern": "^(b|a)*c$"}), BOTH
    )

    assert found.message == (
        "whether the reader's `/properties/a` accepts in `pattern` all that the writer's `/properties/a` allows could "
        "be neither proved nor refuted, assuming that writers send declared properties only"
    )
    assert "accept_undecided" in found.remedy


def test_every_differing_property_has_its_own_witness() -> None:
    """Ten changed types are ten findings, each with its place."""
    writer = objects(**{f"p{n}": STRING for n in range(10)})
    reader = objects(**{f"p{n}": INTEGER for n in range(10)})

    found = compare(reader, writer)

    assert {finding.reader_path for finding in found} == {f"/properties/p{n}/type" for n in range(10)}


def test_findings_are_limited() -> None:
    """Of a hundred changed types twenty are reported."""
    writer = objects(**{f"p{n}": STRING for n in range(100)})
    reader = objects(**{f"p{n}": INTEGER for n in range(100)})

    assert len(compare(reader, writer)) == 20


def test_undecided_names_both_places() -> None:
    """What can be neither proved nor refuted is refused, with the places and what to do."""
    (found,) = compare(objects(a={"pattern": "^a"}), objects(a={"type": "string", "pattern": "^ab"}))

    assert (found.verdict, found.rule) == (Verdict.UNDECIDED, "UNDECIDED")
    assert (found.reader_path, found.writer_path) == ("/properties/a", "/properties/a")
    assert "accept_undecided" in found.remedy
    assert found.witness is None


def test_an_optional_property_may_be_added_when_only_declared_ones_are_sent() -> None:
    """Without the assumption a writer may already send another kind of value under that name."""
    assert verdict(objects(a=STRING, b=INTEGER), objects(a=STRING), BOTH) is Verdict.COMPATIBLE
    (found,) = compare(objects(a=STRING, b=INTEGER), objects(a=STRING), NEITHER)
    assert found.verdict is Verdict.INCOMPATIBLE
    assert found.reader_path == "/properties/b/type"


def test_names_of_other_branches_are_not_declared() -> None:
    """In one branch of a `oneOf`, the properties of another branch are not declared."""
    one = {**objects(k={"const": "one"}, x=STRING), "required": ["k"]}
    two = {**objects(k={"const": "two"}, y=INTEGER), "required": ["k"]}
    wider = {**objects(k={"const": "one"}, x=STRING, y=STRING), "required": ["k"]}

    assert verdict({"oneOf": [wider, two]}, {"oneOf": [one, two]}, BOTH) is Verdict.COMPATIBLE


def test_names_declared_anywhere_for_an_object_are_declared() -> None:
    """`allOf` of two open objects declares the names of both; closing each alone would forbid everything."""
    writer = {"allOf": [objects(a=STRING), objects(b=STRING)]}

    (found,) = compare({"maxProperties": 1}, writer, BOTH)

    assert found.rule == "MAX_PROPERTIES_REJECTS"
    assert verdict({**objects(a=STRING, b=STRING), "additionalProperties": False}, writer, BOTH) is Verdict.COMPATIBLE


def test_additional_properties_said_openly_are_sent() -> None:
    """`additionalProperties: true` says that there are others, and an object without declarations is a free map."""
    reader = {**objects(a=STRING), "additionalProperties": False}

    assert verdict(reader, objects(a=STRING), BOTH) is Verdict.COMPATIBLE
    assert verdict(reader, {**objects(a=STRING), "additionalProperties": True}, BOTH) is Verdict.INCOMPATIBLE
    assert verdict(reader, {"type": "object"}, BOTH) is Verdict.INCOMPATIBLE


def test_filled_defaults_satisfy_required() -> None:
    """A required property with a default that its own schema accepts is filled in, when readers do so."""
    writer = objects(a=STRING)
    good = {**objects(a=STRING, b={**INTEGER, "default": 1}), "required": ["b"]}
    bad = {**objects(a=STRING, b={**INTEGER, "default": "1"}), "required": ["b"]}
    filled = Rules(Policy.EXACT, reader_fills_defaults=True)

    assert verdict(good, writer, BOTH) is Verdict.INCOMPATIBLE
    assert verdict(good, writer, filled) is Verdict.COMPATIBLE
    assert verdict(bad, writer, filled) is Verdict.INCOMPATIBLE


@pytest.mark.parametrize("name", sorted(FORMATTED))
@pytest.mark.parametrize("draft", sorted(SECOND))
def test_formats_are_followed_where_the_draft_knows_them(name: str, draft: str) -> None:
    """Adding a format that the draft knows is refuted when formats are asserted, and no change where it is unknown."""
    reader, writer = parsed({**STRING, "format": name}, draft=draft), parsed(STRING, draft=draft)
    known = not all(compiled(reader, assert_formats=True).is_valid(text) for text in UNFORMATTED)

    found = list(findings(reader, writer, FORMATS))

    assert [finding.rule for finding in found] == ["FORMAT_REJECTS"] * known
    assert all(Oracle(reader, writer, FORMATS).is_witness(finding) for finding in found)
    assert list(findings(reader, writer, NEITHER)) == []


@pytest.mark.parametrize("name", sorted(FORMATTED))
def test_texts_of_a_format_have_it(name: str) -> None:
    """The texts that searches for witnesses begin with."""
    validator = compiled(parsed({"format": name}), assert_formats=True)

    assert all(validator.is_valid(text) for text in FORMATTED[name])


def test_formats_are_annotations() -> None:
    """A changed `format` does not affect validity."""
    assert verdict({"format": "date"}, {"type": "string", "format": "uri"}) is Verdict.COMPATIBLE


def test_verdicts_repeat() -> None:
    """The same pair gets the same findings every time."""
    for seed in SEEDS[::5]:
        reader, writer = (parsed(seed[side], seed.get("sources")) for side in ("reader", "writer"))
        first = list(findings(reader, writer, rules_of(seed)))
        assert list(findings(reader, writer, rules_of(seed))) == first


@pytest.mark.parametrize("rules", ALL_RULES)
def test_every_seed_is_compatible_with_itself(rules: Rules) -> None:
    """Also when it is written with another order of members and a description, so that the texts differ."""
    for seed in SEEDS:
        schema = seed["reader"]
        if seed.get("self") == "UNDECIDED" or not isinstance(schema, dict):
            continue
        same = dict(reversed([*schema.items(), ("title", "described")]))
        found = list(findings(parsed(same, seed.get("sources")), parsed(schema, seed.get("sources")), rules))
        assert found == [], seed["name"]


def test_a_hundred_branches_are_matched() -> None:
    """A discriminated union of 150 branches that gains 50 is compatible, and one that loses them is not."""
    branches = [{**objects(kind={"const": f"k{n}"}, value=STRING), "required": ["kind"]} for n in range(200)]

    assert verdict({"oneOf": branches}, {"oneOf": branches[:150]}, BOTH) is Verdict.COMPATIBLE
    (found, *_) = compare({"oneOf": branches[:150]}, {"oneOf": branches}, BOTH)
    assert found.rule == "ONE_OF_REJECTS"


def test_hostile_pairs_end() -> None:
    """Combinators that multiply, patterns that are long and deep nesting end with some verdict."""
    many = {"allOf": [{"anyOf": [{"minimum": n}, {"multipleOf": n + 2}, {"maximum": -n}]} for n in range(10)]}
    other = {"allOf": [{"oneOf": [{"minimum": n + 1}, {"multipleOf": n + 3}, {"maximum": -n}]} for n in range(10)]}
    deep: dict[str, Any] = {"minLength": 1}
    for _ in range(40):
        deep = objects(a=deep)

    assert len(compare(many, other)) >= 1
    assert verdict(deep, objects(a=objects(a=STRING)), BOTH) in set(Verdict)
    assert verdict({"pattern": "(a{50}){5}b"}, {"pattern": "(a|b)*c[^d]{3,9}"}) is Verdict.INCOMPATIBLE


@pytest.mark.parametrize(
    "pattern", ["^[a-z]+$", "^\\d{3}-\\d{2}$", "^(a|bc)+x?$", "[^a-z]", "^x-", "^[\\w.-]+@\\w+\\.com$", "^$", "."]
)
def test_texts_are_found_for_patterns(pattern: str) -> None:
    """Some text that matches and, unless all do, some that does not."""
    assert matching(pattern)
    assert all(matches(pattern, text) for text in matching(pattern))
    assert failing(pattern)
    assert not any(matches(pattern, text) for text in failing(pattern))


def test_equal_values_have_one_key() -> None:
    """1 and 1.0 are equal; 1, true and "1" are not; members have no order."""
    assert key(1) == key(1.0)
    several: list[Any] = [1, True, "1", [1], 10, 0.1, -1]
    assert len({key(value) for value in several}) == len(several)
    one: dict[str, Any] = {"a": 1, "b": [2.0]}
    other: dict[str, Any] = {"b": [2], "a": 1.0}
    assert key(one) == key(other)


def test_filling_is_not_assumed_below_any_of() -> None:
    """Which branch's default a reader takes is not known, so none is filled in."""
    reader = {"anyOf": [{**objects(a={**INTEGER, "default": 1}), "required": ["a"]}, STRING]}

    assert verdict(reader, {"type": "object"}, FILLING) is Verdict.INCOMPATIBLE
