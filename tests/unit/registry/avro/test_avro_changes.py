"""What changed between two Avro schemas: every part, its place, and how it is marked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict, worst
from services.registry.domain.formats import Difference, Kind
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.avro.language import ParsedAvro
from tests.unit.registry.avro.avro_pairs import pairs

FORMAT = Avro()
STRICT = Rules(Policy.STRICT)
FINE, BREAKS = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE
ADDED, REMOVED, CHANGED = Kind.ADDED, Kind.REMOVED, Kind.CHANGED
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "F", "size": 4}


def differences(before: object, after: object) -> list[Difference]:
    one, other = (FORMAT.parse(json.dumps(schema), {}) for schema in (before, after))
    return list(FORMAT.differences(one, other))


def record(*fields: dict[str, Any], name: str = "R", **more: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def one(name: str, item: object = "int", **more: object) -> dict[str, Any]:
    return {"name": name, "type": item, **more}


ROWS: list[tuple[object, object, Kind, str, str, str, Verdict, Verdict]] = [
    # Before, after, kind, rule, places, backward, forward.
    ("int", "long", CHANGED, "TYPE_MISMATCH", "", "", FINE, BREAKS),
    ("string", "bytes", CHANGED, "TYPE_PROMOTED", "", "", FINE, FINE),
    ("int", ["null", "int"], CHANGED, "TYPE_CHANGED", "", "", FINE, BREAKS),
    (record(), record(one("a")), ADDED, "READER_FIELD_MISSING_DEFAULT_VALUE", "", "/fields/0", BREAKS, FINE),
    (record(), record(one("a", default=1)), ADDED, "FIELD_ADDED", "", "/fields/0", FINE, FINE),
    (record(one("a")), record(), REMOVED, "READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/0", "", FINE, BREAKS),
    (record(one("a", default=1)), record(), REMOVED, "FIELD_REMOVED", "/fields/0", "", FINE, FINE),
    (record(one("a")), record(one("a", default=1)), ADDED, "DEFAULT_CHANGED", "", "/fields/0", FINE, FINE),
    (
        record(one("a", default=1)),
        record(one("a", default=2)),
        CHANGED,
        "DEFAULT_CHANGED",
        "/fields/0",
        "/fields/0",
        FINE,
        FINE,
    ),
    (record(one("a", default=1)), record(one("a")), REMOVED, "DEFAULT_CHANGED", "/fields/0", "", FINE, FINE),
    (record(one("a")), record(one("a", doc="x")), ADDED, "DOC_CHANGED", "", "/fields/0", FINE, FINE),
    (record(doc="y"), record(doc="x"), CHANGED, "DOC_CHANGED", "", "", FINE, FINE),
    (
        record(one("a", aliases=["b"])),
        record(one("a")),
        REMOVED,
        "ALIASES_CHANGED",
        "/fields/0",
        "",
        FINE,
        FINE,
    ),
    (record(), record(aliases=["S"]), ADDED, "ALIASES_CHANGED", "", "", FINE, FINE),
    (
        record(one("a")),
        record(one("a", order="ignore")),
        CHANGED,
        "FIELD_ORDER_CHANGED",
        "/fields/0",
        "/fields/0",
        FINE,
        FINE,
    ),
    (
        record(one("a"), one("b")),
        record(one("b"), one("a")),
        CHANGED,
        "FIELD_POSITION_CHANGED",
        "/fields",
        "/fields",
        FINE,
        FINE,
    ),
    (record(), record(name="S"), CHANGED, "NAME_MISMATCH", "/name", "/name", BREAKS, BREAKS),
    (record(), record(namespace="x"), CHANGED, "NAME_CHANGED", "/name", "/name", FINE, FINE),
    (ENUM, {**ENUM, "symbols": ["A"]}, REMOVED, "MISSING_ENUM_SYMBOLS", "/symbols", "", BREAKS, FINE),
    (ENUM, {**ENUM, "symbols": ["A", "B", "C"]}, ADDED, "MISSING_ENUM_SYMBOLS", "", "/symbols", FINE, BREAKS),
    (ENUM, {**ENUM, "symbols": ["B", "A"]}, CHANGED, "ENUM_ORDER_CHANGED", "/symbols", "/symbols", FINE, FINE),
    (ENUM, {**ENUM, "default": "A"}, ADDED, "ENUM_DEFAULT_CHANGED", "", "", FINE, FINE),
    (
        {**ENUM, "default": "A"},
        {**ENUM, "default": "A", "symbols": ["A"]},
        REMOVED,
        "ENUM_SYMBOL_REMOVED",
        "/symbols",
        "",
        FINE,
        FINE,
    ),
    (FIXED, {**FIXED, "size": 5}, CHANGED, "FIXED_SIZE_MISMATCH", "/size", "/size", BREAKS, BREAKS),
    (["null", "int"], ["null"], REMOVED, "MISSING_UNION_BRANCH", "/1", "", BREAKS, FINE),
    (["null"], ["null", "int"], ADDED, "MISSING_UNION_BRANCH", "", "/1", FINE, BREAKS),
    (["null", "int"], ["int", "null"], CHANGED, "UNION_ORDER_CHANGED", "", "", FINE, FINE),
    ("int", {"type": "int", "logicalType": "date"}, ADDED, "LOGICAL_TYPE_CHANGED", "", "", FINE, FINE),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1},
        CHANGED,
        "LOGICAL_TYPE_CHANGED",
        "",
        "",
        FINE,
        FINE,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[3]}-{row[2].name}-{number}" for number, row in enumerate(ROWS)])
def test_each_part_that_changed(row: tuple[object, object, Kind, str, str, str, Verdict, Verdict]) -> None:
    """One change is one difference, with its place in both texts and whether readers cope with it."""
    before, after, kind, rule, before_path, after_path, backward, forward = row

    (found,) = differences(before, after)

    assert (found.kind, found.rule) == (kind, rule)
    assert (found.before_path, found.after_path) == (before_path, after_path)
    assert (found.backward, found.forward) == (backward, forward)
    assert found.message


def test_a_field_that_an_alias_tells_is_renamed() -> None:
    """A new name with the old one as alias is one change: old readers have no such field."""
    (found,) = differences(record(one("a")), record(one("b", aliases=["a"])))[:1]

    assert (found.kind, found.backward, found.forward) == (CHANGED, FINE, BREAKS)
    assert "`a`" in found.message
    assert "`b`" in found.message


def test_differences_come_in_the_order_of_the_texts() -> None:
    """What was before comes first, then what was added; outer parts before inner ones."""
    inner = [record(one("x", item), name="I") for item in ("int", "string")]

    found = differences(
        record(one("gone"), one("i", inner[0]), doc="old"), record(one("i", inner[1]), one("new", default=0), doc="new")
    )

    assert [each.rule for each in found] == [
        "DOC_CHANGED",
        "READER_FIELD_MISSING_DEFAULT_VALUE",
        "FIELD_ADDED",
        "TYPE_MISMATCH",
    ]
    assert (found[-1].before_path, found[-1].after_path) == (
        "/fields/1/type/fields/0/type",
        "/fields/0/type/fields/0/type",
    )


def test_a_recursive_type_is_compared_once() -> None:
    """A type that holds itself ends the walk."""
    schemas = [record(one("v", item), one("next", ["null", "R"])) for item in ("int", "long")]

    assert len(differences(*schemas)) == 1


def test_marks_of_huge_unions_are_not_decided() -> None:
    """What the rules give up on is marked so, and the differences are still told."""
    branches = [{"type": "fixed", "name": f"n{i}.F", "size": 1 + i} for i in range(2000)]

    found = differences(branches, [*branches[::-1], "int"])

    assert [each.rule for each in found] == ["MISSING_UNION_BRANCH", "UNION_ORDER_CHANGED"]
    assert (found[0].backward, found[0].forward) == (FINE, Verdict.UNDECIDED)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_marks_agree_with_the_check(pair: tuple[ParsedAvro, ParsedAvro]) -> None:
    """Without a breaking mark the check finds nothing in that direction, and the same text has no differences."""
    before, after = pair

    found = FORMAT.differences(before, after)

    backward, forward = worst(FORMAT.diff(after, before, STRICT)), worst(FORMAT.diff(before, after, STRICT))
    assert FORMAT.differences(before, before) == []
    assert backward is FINE or any(each.backward is not FINE for each in found)
    assert forward is FINE or any(each.forward is not FINE for each in found)
