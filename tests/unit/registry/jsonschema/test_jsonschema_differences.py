"""What changed between two JSON Schemas, part by part."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict, worst
from services.registry.domain.formats import Difference, Kind
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.formats.jsonschema.differences import DIFFERENCES_MAX
from tests.unit.registry.jsonschema.json_schemas import schemas

FORMAT = JsonSchema()
FINE, BREAKS = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE
GENERATED = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def differences(before: object, after: object) -> list[Difference]:
    return list(FORMAT.differences(*(FORMAT.parse(json.dumps(schema), {}) for schema in (before, after))))


def facts(before: object, after: object) -> list[tuple[Any, ...]]:
    return [
        (one.kind.name, one.rule, one.before_path, one.after_path, one.backward, one.forward)
        for one in differences(before, after)
    ]


def test_a_limit_that_changed_has_both_marks() -> None:
    """Later readers cope, earlier ones do not; the rule is that of the way forward in time."""
    before, after = ({"properties": {"a": {"type": "string", "maxLength": most}}} for most in (3, 5))
    path = "/properties/a/maxLength"

    assert facts(before, after) == [("CHANGED", "MAX_LENGTH_INCREASED", path, path, FINE, BREAKS)]


def test_what_came_and_went_is_shown_where_it_is() -> None:
    """An added part has no earlier place, a removed one no later place."""
    before = {"properties": {"a": {"type": "string"}, "b": {}}}
    after = {"properties": {"c": {"type": "string"}, "b": {}}}

    added = ("ADDED", "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", "", "/properties/c", BREAKS, FINE)
    removed = ("REMOVED", "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL", "/properties/a", "", FINE, BREAKS)
    assert facts(before, after) == [removed, added]


def test_what_no_rule_names_is_told_as_harmless() -> None:
    """Conditions, formats, patterns, names and notes."""
    before = {
        "format": "email",
        "if": {"minLength": 1},
        "patternProperties": {"a": {"minLength": 1}},
        "examples": [1],
        "$defs": {"x": {"maxLength": 2}},
    }
    after = {
        "format": "uri",
        "if": {"minLength": 2},
        "patternProperties": {"a": {"minLength": 2}, "b": {}},
        "propertyNames": {"maxLength": 3},
        "examples": [2],
        "$defs": {"y": {"maxLength": 2}},
    }

    found = facts(before, after)

    assert [row[:4] for row in found] == [
        ("CHANGED", "FORMAT_CHANGED", "/format", "/format"),
        ("CHANGED", "MIN_LENGTH_CHANGED", "/if/minLength", "/if/minLength"),
        ("CHANGED", "MIN_LENGTH_CHANGED", "/patternProperties/a/minLength", "/patternProperties/a/minLength"),
        ("ADDED", "PATTERN_PROPERTIES_ADDED", "", "/patternProperties/b"),
        ("ADDED", "PROPERTY_NAMES_ADDED", "", "/propertyNames"),
        ("CHANGED", "EXAMPLES_CHANGED", "/examples", "/examples"),
        ("REMOVED", "DEFS_REMOVED", "/$defs/x", ""),
        ("ADDED", "DEFS_ADDED", "", "/$defs/y"),
    ]
    assert {row[4:] for row in found} == {(FINE, FINE)}


def test_notes_are_told_once() -> None:
    """A title that changed is one part, not one for the rule and one for the keyword."""
    rules = [row[1] for row in facts({"type": "string", "title": "a"}, {"type": "string", "title": "b", "default": ""})]

    assert sorted(rules) == ["DEFAULT_CHANGED", "TITLE_CHANGED"]


def test_a_type_that_changed_is_one_part() -> None:
    """What else differs because of it is not told again."""
    before = {"properties": {"a": {"type": "string", "maxLength": 3}}}
    after = {"properties": {"a": {"type": "integer", "maximum": 3}}}

    (row,) = [row for row in facts(before, after) if row[1] == "TYPE_CHANGED"]

    assert row == ("CHANGED", "TYPE_CHANGED", "/properties/a/type", "/properties/a/type", BREAKS, BREAKS)


@GENERATED
@given(schemas(), schemas())
def test_marks_are_those_of_strict(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The worst mark each way is the verdict of STRICT, no part stands twice, and the other way round marks swap."""
    parsed = [FORMAT.parse(json.dumps(schema), {}) for schema in (before, after)]

    found = FORMAT.differences(*parsed)

    assert _worst([one.backward for one in found]) == worst(FORMAT.diff(parsed[1], parsed[0], Rules(Policy.STRICT)))
    assert _worst([one.forward for one in found]) == worst(FORMAT.diff(parsed[0], parsed[1], Rules(Policy.STRICT)))
    places = [(one.kind, one.rule, one.before_path, one.after_path) for one in found]
    assert len(set(places)) == len(places)
    swapped = FORMAT.differences(parsed[1], parsed[0])
    assert len(swapped) == len(found)
    assert FORMAT.differences(parsed[0], parsed[0]) == ()


def _worst(marks: list[Verdict]) -> Verdict:
    return BREAKS if BREAKS in marks else Verdict.UNDECIDED if Verdict.UNDECIDED in marks else FINE


@GENERATED
@given(schemas(), schemas())
def test_places_are_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every pointer leads to a part of its text."""
    for one in differences(before, after):
        assert one.before_path == "" if one.kind is Kind.ADDED else _leads(before, one.before_path)
        assert one.after_path == "" if one.kind is Kind.REMOVED else _leads(after, one.after_path)


def _leads(schema: Any, path: str) -> bool:
    for part in path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list):
            schema = schema[int(name)]
        elif name in schema:
            schema = schema[name]
        else:
            return False
    return True


def test_differences_are_limited() -> None:
    """The first thousand are listed."""
    before, after = ({"properties": {f"p{i}": {"format": name} for i in range(2_000)}} for name in "ab")

    found = differences(before, after)

    assert len(found) == DIFFERENCES_MAX
    assert found[0].after_path == "/properties/p0/format"
