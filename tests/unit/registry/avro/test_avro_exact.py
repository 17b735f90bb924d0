"""Avro's EXACT policy: what is compatible is read as it was meant, and what is not is shown by a witness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Verdict, worst
from services.registry.domain.formats import DataRules, Encoding, Parsed, Validation
from services.registry.domain.formats.avro import Avro, exact
from services.registry.domain.formats.avro.language import ParsedAvro
from services.registry.domain.formats.avro.reading import Reader, Rejected
from services.registry.domain.formats.avro.values import Chosen, TooLarge, Value, decoded
from tests.counting import calls_of
from tests.unit.registry.avro import avro_pairs
from tests.unit.registry.avro.avro_schemas import respelled, schemas

EXACT, STRICT, LENIENT = (Rules(policy) for policy in (Policy.EXACT, Policy.STRICT, Policy.LENIENT))
FORMAT = Avro()
SLOW_EXAMPLES = 10_000


ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "corpora" / "compatibility" / "avro.json").read_text()
)
KINDS = {
    "AMBIGUOUS_ALIAS",
    "BYTES_READ_AS_STRING",
    "DECIMAL_PRECISION_DECREASED",
    "DECIMAL_SCALE_CHANGED",
    "DEFAULT_NOT_OF_LOGICAL_TYPE",
    "ENUM_SYMBOL_READ_AS_DEFAULT",
    "LOGICAL_TYPE_ADDED",
    "LOGICAL_TYPE_CHANGED",
    "LOGICAL_TYPE_REMOVED",
    "LOSSY_PROMOTION",
    "UNION_BRANCH_DEPENDS_ON_READER",
}
"""What EXACT finds beyond the STRICT rules."""


def parse(schema: object) -> ParsedAvro:
    return FORMAT.parse(json.dumps(schema), {})


def diff(reader: object, writer: object) -> list[Finding]:
    return list(FORMAT.diff(parse(reader), parse(writer), EXACT))


def record(*fields: dict[str, Any], name: str = "R", **more: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def one(name: str, item: object, **more: object) -> dict[str, Any]:
    return {"name": name, "type": item, **more}


def require_shown(finding: Finding, reader: ParsedAvro, writer: ParsedAvro) -> None:
    """Checks a witness against the writer's schema in both encodings, and against the reader once more."""
    witness = finding.witness
    assert witness is not None
    as_text = FORMAT.validator(writer, DataRules(assert_formats=True, strict=True))
    as_binary = FORMAT.validator(writer, DataRules(Encoding.BINARY, assert_formats=True))
    assert as_text.check(witness.text.encode()) == Validation(())
    assert as_binary.check(witness.binary) == Validation(())
    value = decoded(writer.schema, writer.schema.root, witness.binary)
    try:
        _, changed = Reader(reader.schema, writer.schema).read(value)
    except Rejected:
        assert witness.read == ""
    else:
        assert changed
        json.loads(witness.read)


def check_pair(reader: ParsedAvro, writer: ParsedAvro, draw: avro_pairs.Draw, values: int) -> None:
    """Everything that holds for any two schemas."""
    found = list(exact.findings(reader.schema, writer.schema))
    verdict = worst(found)
    for finding in found:
        if finding.verdict is Verdict.INCOMPATIBLE:
            require_shown(finding, reader, writer)
        else:
            assert finding.verdict is Verdict.UNDECIDED
            assert "as it was meant" not in finding.message
            assert "not valid for the writer" not in finding.message
    strict = worst(FORMAT.diff(reader, writer, STRICT))
    if verdict is Verdict.COMPATIBLE:
        assert strict is Verdict.COMPATIBLE
    judge = Reader(reader.schema, writer.schema)
    for _ in range(values if verdict is Verdict.COMPATIBLE else 0):
        try:
            value = avro_pairs.value(draw, writer.schema)
        except TooLarge:
            return
        read, changed = judge.read(value)
        assert not changed
        assert kept(read, value)


def kept(read: Value, value: Value) -> bool:
    """Whether what the reader has of a value is what was written: a judgement that knows no schema.

    Fields may be missing, more, or called otherwise where their number tells nothing, so only those of equal name
    are compared.
    """
    read = read.value if isinstance(read, Chosen) else read
    value = value.value if isinstance(value, Chosen) else value
    match read, value:
        case dict(), dict():
            return all(kept(read[name], value[name]) for name in read.keys() & value.keys())
        case list(), list():
            return len(read) == len(value) and all(map(kept, read, value))
        case (str(), bytes()) | (bytes(), str()):
            return as_bytes(read) == as_bytes(value)
    return read == value or (read != read and value != value)  # noqa: PLR0124


def as_bytes(value: object) -> bytes:
    assert isinstance(value, str | bytes)
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_rules(row: dict[str, Any]) -> None:
    """Verdict and kinds are those of the table, for the pair as it stands and for the swapped one."""
    found, found_swapped = diff(row["reader"], row["writer"]), diff(row["writer"], row["reader"])

    assert worst(found).name == row["exact"]
    assert {finding.rule for finding in found} == set(row["exact_kinds"])
    assert worst(found_swapped).name == row["exact_swapped"]
    assert {finding.rule for finding in found_swapped} == set(row["exact_kinds_swapped"])


def test_the_table_has_every_rule() -> None:
    """Every kind is expected somewhere, beside those of the STRICT rules."""
    listed = {kind for row in ROWS for kind in [*row["exact_kinds"], *row["exact_kinds_swapped"]]}
    strict = {kind for row in ROWS for kind in [*row["kinds"], *row["kinds_swapped"]]}

    assert listed - strict == KINDS
    assert strict <= listed


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_verdicts_are_proven(data: st.DataObject) -> None:
    """Compatible pairs read all they are given for what it means, and refuted ones have a witness."""
    reader, writer = data.draw(avro_pairs.pairs())

    check_pair(reader, writer, data.draw, values=4)


@pytest.mark.slow
@pytest.mark.rotating(3, "long runs")
@pytest.mark.timeout(300)
@settings(max_examples=SLOW_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.data())
def test_verdicts_are_proven_for_long(data: st.DataObject) -> None:
    """The same over thousands of pairs; a failure prints what reproduces it."""
    reader, writer = data.draw(avro_pairs.pairs())

    check_pair(reader, writer, data.draw, values=12)


@settings(max_examples=60, deadline=None)
@given(schemas())
def test_a_schema_is_compatible_with_itself_under_every_policy(schema: Any) -> None:
    """No policy finds fault with a schema and itself, in the same or in other words, even when they are compared."""
    parsed, other = parse(schema), parse(respelled(schema))

    for rules in (EXACT, STRICT, LENIENT):
        assert list(FORMAT.diff(parsed, other, rules)) == []
    for reader, writer in ((parsed.schema, other.schema), (other.schema, parsed.schema)):
        found = {finding.rule for finding in exact.findings(reader, writer)}
        assert found <= {"UNION_BRANCH_DEPENDS_ON_READER"}  # A union's order matters once schemas are not one.


@settings(max_examples=60, deadline=None)
@given(avro_pairs.pairs())
def test_lenient_is_strict(pair: tuple[ParsedAvro, ParsedAvro]) -> None:
    """Avro has no relaxed rules."""
    assert list(FORMAT.diff(*pair, LENIENT)) == list(FORMAT.diff(*pair, STRICT))


def logical(kind: str, name: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


SYMBOLS = {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}
READ: list[tuple[str, object, object, str, str, str]] = [
    # Rule, reader, writer, what is written, what is read, and what the message says.
    ("LOSSY_PROMOTION", "float", "int", "16777217", "16777216.0", "float"),
    ("LOSSY_PROMOTION", "double", "long", "9007199254740993", "9007199254740992.0", "double"),
    ("LOSSY_PROMOTION", ["float", "long"], "int", "16777217", '{"float": 16777216.0}', "float"),
    ("BYTES_READ_AS_STRING", "string", "bytes", '"\\u00ff"', "", "UTF-8"),
    (
        "LOGICAL_TYPE_CHANGED",
        logical("long", "timestamp-micros"),
        logical("long", "timestamp-millis"),
        "1",
        '"timestamp-micros 1970-01-01T00:00:00.000001Z"',
        "1970-01-01T00:00:00.001Z",
    ),
    (
        "LOGICAL_TYPE_CHANGED",
        logical("long", "time-micros"),
        logical("int", "time-millis"),
        "1",
        '"time-micros 00:00:00.000001"',
        "00:00:00.001",
    ),
    ("LOGICAL_TYPE_REMOVED", "int", logical("int", "date"), "1", "1", "date 1970-01-02"),
    ("LOGICAL_TYPE_REMOVED", "double", logical("long", "timestamp-nanos"), "1", "1.0", "timestamp-nanos"),
    ("LOGICAL_TYPE_ADDED", logical("int", "date"), "int", "1", '"date 1970-01-02"', "plain int"),
    ("LOGICAL_TYPE_ADDED", logical("string", "uuid"), "string", '""', "", "UUID"),
    (
        "DECIMAL_SCALE_CHANGED",
        logical("bytes", "decimal", precision=4, scale=3),
        logical("bytes", "decimal", precision=4, scale=2),
        '"\\u0001"',
        '"decimal 0.001"',
        "decimal 0.01",
    ),
    (
        "DECIMAL_PRECISION_DECREASED",
        logical("bytes", "decimal", precision=2),
        logical("bytes", "decimal", precision=3),
        '"d"',
        "",
        "2 digits",
    ),
    (
        "LOGICAL_TYPE_CHANGED",
        logical("bytes", "big-decimal"),
        logical("bytes", "decimal", precision=3),
        '"\\u0001"',
        "",
        "",
    ),
    ("ENUM_SYMBOL_READ_AS_DEFAULT", SYMBOLS, {**SYMBOLS, "symbols": ["A", "B"]}, '"B"', '"A"', "`B`"),
    ("DEFAULT_NOT_OF_LOGICAL_TYPE", record(one("u", logical("string", "uuid"), default="")), record(), "{}", "", "`u`"),
    ("MISSING_UNION_BRANCH", ["null", "int"], ["null", "string"], '{"string": ""}', "", "string"),
    ("NAME_MISMATCH", record(name="S"), record(), "{}", "", "`S`"),
    (
        "FIXED_SIZE_MISMATCH",
        {"type": "fixed", "name": "F", "size": 1},
        {"type": "fixed", "name": "F", "size": 2},
        '"\\u0000\\u0000"',
        "",
        "",
    ),
    ("READER_FIELD_MISSING_DEFAULT_VALUE", record(one("a", "int")), record(), "{}", "", "`a`"),
    ("TYPE_MISMATCH", "int", "string", '""', "", "string"),
]


@pytest.mark.parametrize(("rule", "reader", "writer", "text", "read", "says"), READ, ids=lambda value: str(value)[:40])
def test_what_is_refuted_is_shown(rule: str, reader: object, writer: object, text: str, read: str, says: str) -> None:
    """Each rule gives data that the reader refuses or takes for something else, in words for a person."""
    (finding,) = diff(reader, writer)

    assert (finding.rule, finding.verdict) == (rule, Verdict.INCOMPATIBLE)
    assert finding.witness is not None
    assert (finding.witness.text, finding.witness.read) == (text, read)
    assert says in finding.message
    assert finding.remedy
    require_shown(finding, parse(reader), parse(writer))


FINE: list[tuple[object, object]] = [
    ("double", "int"),
    ("double", "float"),
    ("long", "int"),
    ("bytes", "string"),
    ("string", logical("string", "uuid")),
    ("int", logical("int", "nobody-knows")),
    (logical("bytes", "decimal", precision=5, scale=2), logical("bytes", "decimal", precision=4, scale=2)),
    (["double", "int"], "int"),
    (["null", "double"], ["int", "null"]),
    (record(one("b", "int"), one("c", "int", default=1)), record(one("gone", "string"), one("b", "int"))),
    (record(one("b", "int", aliases=["a"])), record(one("a", "int"))),
    (record(one("b", "int"), one("a", "int")), record(one("a", "int"), one("b", "int"))),
    (record(namespace="x"), record(namespace="y")),
    ({**SYMBOLS, "symbols": ["B", "A"]}, SYMBOLS),
    (
        ["null", record(one("f", "int"), namespace="b"), record(one("f", "float"), namespace="a")],
        record(one("f", "int"), namespace="b"),
    ),
    ("int", []),
]


@pytest.mark.parametrize(("reader", "writer"), FINE, ids=lambda value: str(value)[:40])
def test_what_keeps_its_meaning_is_compatible(reader: object, writer: object) -> None:
    """No finding where every value is read as what it was."""
    assert diff(reader, writer) == []


def test_a_field_with_two_sources_is_not_decided() -> None:
    """Implementations differ on a field that is there under its own name and under an alias."""
    (finding,) = diff(record(one("a", "int", aliases=["b"])), record(one("b", "int"), one("a", "int")))

    assert (finding.rule, finding.verdict, finding.reader_path) == ("AMBIGUOUS_ALIAS", Verdict.UNDECIDED, "/fields/0")


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (["float", "int"], "int"),
        (["string", "bytes"], ["null", "bytes"]),
        ([record(namespace="a"), record(namespace="b")], record(namespace="b")),
    ],
    ids=["promotion", "bytes", "namespace"],
)
def test_a_union_that_libraries_pick_from_differently_is_not_decided(reader: object, writer: object) -> None:
    """The first branch that matches comes before the writer's own type: fastavro takes the one, Java the other."""
    found = diff(reader, writer)

    assert ("UNION_BRANCH_DEPENDS_ON_READER", Verdict.UNDECIDED) in {(one.rule, one.verdict) for one in found}
    assert all(one.rule in ("UNION_BRANCH_DEPENDS_ON_READER", "MISSING_UNION_BRANCH") for one in found)


@pytest.mark.parametrize(
    ("reader", "writer", "says"),
    [
        ("int", {"type": "enum", "name": "E", "symbols": []}, "no data can be written"),
        (record(one("a", "int")), record(one("a", "string"), one("r", "R")), "no data can be written"),
        (
            {"type": "fixed", "name": "F", "size": 1},
            {"type": "fixed", "name": "F", "size": 2**31 - 1},
            "too large",
        ),
        (
            logical("bytes", "decimal", precision=20_000),
            logical("bytes", "decimal", precision=30_000),
            "as it was meant",
        ),
    ],
    ids=["empty enum", "endless record", "huge", "digits"],
)
def test_without_a_witness_nothing_is_refuted(reader: object, writer: object, says: str) -> None:
    """Where no data can show the difference the verdict is UNDECIDED and says why."""
    found = diff(reader, writer)

    assert {finding.verdict for finding in found} == {Verdict.UNDECIDED}
    assert any(says in finding.message for finding in found)


def chain(last: object, count: int) -> Parsed:
    types = [record(one("x", last), name="T0")]
    types += [record(one("x", f"T{i - 1}"), one("y", f"T{i - 1}"), name=f"T{i}") for i in range(1, count)]
    return FORMAT.parse(f'"T{count - 1}"', {f"T{count - 1}": json.dumps(types)})


def test_types_that_fan_out_for_ever_are_compared_in_a_moment() -> None:
    """The pair is found once though the smallest datum holds 2^60 of it, which no witness shows."""
    (finding,) = FORMAT.diff(chain("int", 60), chain("string", 60), EXACT)

    assert (finding.rule, finding.verdict) == ("TYPE_MISMATCH", Verdict.UNDECIDED)
    assert "too large" in finding.message


def test_a_witness_is_shown_within_recursive_types() -> None:
    """The way to a difference may lead through a type that holds itself."""
    tree = [record(one("value", item), one("kids", {"type": "array", "items": "R"})) for item in ("float", "long")]

    (finding,) = diff(record(one("t", tree[0]), name="Top"), record(one("t", tree[1]), name="Top"))

    assert finding.reader_path == "/fields/0/type/fields/0/type"
    assert finding.witness is not None
    assert finding.witness.text == '{"t": {"value": 16777217, "kids": []}}'


def test_huge_unions_are_not_decided() -> None:
    """Thousands of branches on both sides are given up after a fixed number of steps."""
    branches = [{"type": "fixed", "name": f"n{i}.F", "size": 1 + i} for i in range(2000)]

    assert diff([*branches, "int"], branches[::-1])[-1].rule == "NOT_DECIDED"


def test_many_versions_take_work_in_proportion() -> None:
    """A candidate with 200 fields is compared with 100 versions in some thousand calls each: well under a second."""
    versions = [parse(record(*(one(f"f{i}", "int", default=n) for i in range(200)))) for n in range(101)]

    found: list[Finding] = []
    calls = calls_of(
        lambda: found.extend(item for old in versions[1:] for item in FORMAT.diff(versions[0], old, EXACT))
    )

    assert found == []
    assert calls < 100 * 10_000


def test_hundreds_of_witnesses_take_work_in_proportion() -> None:
    """Each of 200 changed fields is shown by a witness of its own."""
    old, new = (parse(record(*(one(f"f{i}", item) for i in range(200)))) for item in ("int", "float"))

    found: list[Finding] = []
    calls = calls_of(lambda: found.extend(FORMAT.diff(new, old, EXACT)))

    assert [finding.verdict for finding in found] == [Verdict.INCOMPATIBLE] * 200
    assert calls < 200 * 20_000
