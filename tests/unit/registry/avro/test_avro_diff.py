"""Avro compatibility: every rule in both directions, and places, words and limits of the findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.avro import Avro
from tests.counting import calls_of

STRICT = Rules(Policy.STRICT)
FORMAT = Avro()
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "corpora" / "compatibility" / "avro.json").read_text()
)
KINDS = {
    "FIXED_SIZE_MISMATCH",
    "MISSING_ENUM_SYMBOLS",
    "MISSING_UNION_BRANCH",
    "NAME_MISMATCH",
    "READER_FIELD_MISSING_DEFAULT_VALUE",
    "TYPE_MISMATCH",
}


def diff(reader: object, writer: object, sources: dict[str, str] | None = None) -> list[Finding]:
    one, other = (FORMAT.parse(json.dumps(schema), sources or {}) for schema in (reader, writer))
    return list(FORMAT.diff(one, other, STRICT))


def record(*fields: dict[str, Any], name: str = "R", **more: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_rules(row: dict[str, Any]) -> None:
    """The kinds found are those of the table, for the pair as it stands and for the swapped one."""
    found = {finding.rule for finding in diff(row["reader"], row["writer"])}
    found_swapped = {finding.rule for finding in diff(row["writer"], row["reader"])}

    assert found == set(row["kinds"])
    assert found_swapped == set(row["kinds_swapped"])


def test_the_table_has_every_rule_in_both_directions() -> None:
    """Every kind is expected somewhere, and so is its absence for the swapped pair or the other way round."""
    assert {kind for row in ROWS for kind in row["kinds"]} == KINDS
    assert {kind for row in ROWS for kind in row["kinds_swapped"]} == KINDS
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_every_finding_is_refuted_and_explained() -> None:
    """Verdict, message and remedy are there for a person, for each kind."""
    found = [finding for row in ROWS for finding in diff(row["reader"], row["writer"])]

    assert {finding.verdict for finding in found} == {Verdict.INCOMPATIBLE}
    assert all(finding.message and finding.remedy for finding in found)


def test_places_are_pointers_into_both_texts() -> None:
    """Each finding names the place in the reader and in the writer, also inside named types."""
    reader = record({"name": "a", "type": "int"}, {"name": "b", "type": record({"name": "c", "type": "int"}, name="N")})
    writer = record({"name": "b", "type": record({"name": "c", "type": "string"}, name="N")})

    missing, mismatch = diff(reader, writer)

    assert (missing.reader_path, missing.writer_path) == ("/fields/0", "/fields")
    assert (mismatch.reader_path, mismatch.writer_path) == (
        "/fields/1/type/fields/0/type",
        "/fields/0/type/fields/0/type",
    )


def test_places_in_referenced_texts_are_those_of_the_use() -> None:
    """What is wrong in a referenced type is shown where the text itself uses it."""
    sources = {"N": json.dumps(record({"name": "c", "type": "int"}, name="N"))}
    reader = record({"name": "x", "type": "string", "default": ""}, {"name": "b", "type": "N"})
    writer = record({"name": "b", "type": record(name="N")})
    parsed = FORMAT.parse(json.dumps(reader), sources), FORMAT.parse(json.dumps(writer), {})

    (finding,) = FORMAT.diff(*parsed, STRICT)

    assert (finding.reader_path, finding.writer_path) == ("/fields/1/type", "/fields/0/type/fields")


def test_every_place_is_reported_once() -> None:
    """A type that is used in many places is reported where it is defined, not at each use."""
    uses = [{"name": f"f{i}", "type": "N"} for i in range(50)]

    found = diff(
        record({"name": "n", "type": record({"name": "a", "type": "int"}, name="N")}, *uses),
        record({"name": "n", "type": record(name="N")}, *uses),
    )

    assert [finding.rule for finding in found] == ["READER_FIELD_MISSING_DEFAULT_VALUE"]


def test_a_missing_branch_says_why_the_branch_of_that_name_does_not_do() -> None:
    """An optional record that changed is explained by what changed in it."""
    (finding,) = diff(["null", record({"name": "zip", "type": "int"})], ["null", record()])

    assert finding.rule == "MISSING_UNION_BRANCH"
    assert "`zip`" in finding.message


def test_what_was_assumed_of_a_recursive_pair_is_taken_back_when_it_is_refuted() -> None:
    """N reads N only if R reads R; R does not, so no union may take N for read because it was assumed at first."""

    def schema(*more: dict[str, Any]) -> dict[str, Any]:
        inner = record({"name": "back", "type": ["null", "R"]}, name="N")
        tree = record({"name": "n", "type": inner}, *more)
        return record(
            {"name": "first", "type": ["string", tree]}, {"name": "second", "type": ["string", "N"]}, name="T"
        )

    found = diff(schema({"name": "new", "type": "int"}), schema())

    assert [finding.reader_path for finding in found] == ["/fields/0/type", "/fields/1/type"]


def test_the_same_meaning_costs_nothing() -> None:
    """Schemas of one semantic body are not compared at all."""
    schema = record(*({"name": f"f{i}", "type": "int"} for i in range(2000)))

    assert diff(schema, {**schema, "doc": "other"}) == []


def test_a_chain_of_types_may_be_as_long_as_it_likes() -> None:
    """Types nest by name without limit: nothing recurses on them, whether it writes, compares or checks defaults."""

    def chain(last: str) -> Parsed:
        types = [record({"name": "x", "type": last}, name="T0")]
        types += [record({"name": "x", "type": f"T{i - 1}"}, name=f"T{i}") for i in range(1, 4000)]
        return FORMAT.parse('"T3999"', {"T3999": json.dumps(types)})

    (finding,) = FORMAT.diff(chain("int"), chain("string"), STRICT)

    assert (finding.rule, finding.reader_path) == ("TYPE_MISMATCH", "")


def test_huge_unions_are_not_decided_rather_than_compared_for_ever() -> None:
    """Thousands of branches on both sides are refused after a fixed number of steps."""
    branches = [{"type": "fixed", "name": f"n{i}.F", "size": 1 + i} for i in range(2000)]

    found = diff(branches, branches[::-1])

    assert [(finding.rule, finding.verdict) for finding in found] == [("NOT_DECIDED", Verdict.UNDECIDED)]


def test_many_versions_take_work_in_proportion() -> None:
    """A candidate with 200 fields is compared with 100 versions in some thousand calls each: well under a second."""
    versions = [
        FORMAT.parse(json.dumps(record(*({"name": f"f{i}", "type": "int", "default": n} for i in range(200)))), {})
        for n in range(101)
    ]

    found: list[Finding] = []
    calls = calls_of(
        lambda: found.extend(item for old in versions[1:] for item in FORMAT.diff(versions[0], old, STRICT))
    )

    assert found == []
    assert calls < 100 * 10_000
