"""Forms and fingerprints of Avro schemas: the specification's vectors, and what counts as the same meaning."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict
from services.registry.domain.formats.avro import Avro, canonical, resolution
from services.registry.domain.formats.avro.language import ParsedAvro
from tests.unit.registry.avro.avro_schemas import respelled, schemas

STRICT = Rules(Policy.STRICT)
FORMAT = Avro()

VECTORS: list[tuple[str, str, int]] = [
    # Text, Parsing Canonical Form, CRC-64-AVRO signed. Source: Apache Avro, share/test/data/schema-tests.txt, but for
    # the default of one field, which is a string for a boolean there.
    ('"null"', '"null"', 7195948357588979594),
    ('{"type":"null"}', '"null"', 7195948357588979594),
    ('"boolean"', '"boolean"', -6970731678124411036),
    ('"int"', '"int"', 8247732601305521295),
    ('"long"', '"long"', -3434872931120570953),
    ('"float"', '"float"', 5583340709985441680),
    ('"double"', '"double"', -8181574048448539266),
    ('"bytes"', '"bytes"', 5746618253357095269),
    ('"string"', '"string"', -8142146995180207161),
    ("[  ]", "[]", -1241056759729112623),
    ('[ "int"  ]', '["int"]', -5232228896498058493),
    ('[ "int" , {"type":"boolean"} ]', '["int","boolean"]', 5392556393470105090),
    (
        '{"fields":[], "type":"record", "name":"foo"}',
        '{"name":"foo","type":"record","fields":[]}',
        -4824392279771201922,
    ),
    (
        '{"fields":[], "type":"record", "name":"foo", "namespace":"x.y"}',
        '{"name":"x.y.foo","type":"record","fields":[]}',
        5916914534497305771,
    ),
    (
        '{"fields":[], "type":"record", "name":"a.b.foo", "namespace":"x.y"}',
        '{"name":"a.b.foo","type":"record","fields":[]}',
        -4616218487480524110,
    ),
    (
        '{"fields":[], "type":"record", "name":"foo", "doc":"foo", "aliases":["foo","bar"]}',
        '{"name":"foo","type":"record","fields":[]}',
        -4824392279771201922,
    ),
    (
        '{"fields":[{"type":{"type":"boolean"}, "name":"f1"}], "type":"record", "name":"foo"}',
        '{"name":"foo","type":"record","fields":[{"name":"f1","type":"boolean"}]}',
        7843277075252814651,
    ),
    (
        """{ "fields":[{"type":"boolean", "aliases":[], "name":"f1", "default":true},
                       {"order":"descending","name":"f2","doc":"Hello","type":"int"}],
             "type":"record", "name":"foo"
           }""",
        '{"name":"foo","type":"record","fields":[{"name":"f1","type":"boolean"},{"name":"f2","type":"int"}]}',
        -4860222112080293046,
    ),
    (
        '{"type":"enum", "name":"foo", "symbols":["A1"]}',
        '{"name":"foo","type":"enum","symbols":["A1"]}',
        -6342190197741309591,
    ),
    (
        '{"namespace":"x.y.z", "type":"enum", "name":"foo", "doc":"foo bar", "symbols":["A1", "A2"]}',
        '{"name":"x.y.z.foo","type":"enum","symbols":["A1","A2"]}',
        -4448647247586288245,
    ),
    ('{"name":"foo","type":"fixed","size":15}', '{"name":"foo","type":"fixed","size":15}', 1756455273707447556),
    (
        '{"namespace":"x.y.z", "type":"fixed", "name":"foo", "doc":"foo bar", "size":32}',
        '{"name":"x.y.z.foo","type":"fixed","size":32}',
        -3064184465700546786,
    ),
    ('{ "items":{"type":"null"}, "type":"array"}', '{"type":"array","items":"null"}', -589620603366471059),
    ('{ "values":"string", "type":"map"}', '{"type":"map","values":"string"}', -8732877298790414990),
    (
        '{"name":"PigValue","type":"record","fields":[{"name":"value", "type":["null", "int", "long", "PigValue"]}]}',
        '{"name":"PigValue","type":"record","fields":[{"name":"value","type":["null","int","long","PigValue"]}]}',
        -1759257747318642341,
    ),
]


def parse(schema: object, sources: dict[str, str] | None = None) -> ParsedAvro:
    return FORMAT.parse(json.dumps(schema), sources or {})


def read(text: str) -> ParsedAvro:
    return FORMAT.parse(text, {})


def record(*fields: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


@pytest.mark.parametrize(("text", "form", "fingerprint"), VECTORS, ids=[vector[1][:50] for vector in VECTORS])
def test_the_vectors_of_the_specification(text: str, form: str, fingerprint: int) -> None:
    """Parsing Canonical Form and both fingerprints are those that the specification's project publishes."""
    schema = read(text).schema

    assert canonical.parsing_canonical_form(schema) == form
    assert canonical.crc64_fingerprint(schema) == fingerprint % 2**64
    assert canonical.sha256_fingerprint(schema) == hashlib.sha256(form.encode()).digest()


def test_crc64_of_nothing_is_its_first_value() -> None:
    """The fingerprint of no bytes is the constant EMPTY."""
    assert canonical.crc64(b"") == 0xC15D213AA4D7A795


def test_the_canonical_form_drops_logical_types_and_names_types_in_full() -> None:
    """No attribute survives that does not count for parsing; a second use is a full name."""
    day = {"type": "int", "logicalType": "date"}
    parsed = parse(record({"name": "a", "type": day, "default": 1}, {"name": "b", "type": "R"}, namespace="x"))

    assert canonical.parsing_canonical_form(parsed.schema) == (
        '{"name":"x.R","type":"record","fields":[{"name":"a","type":"int"},{"name":"b","type":"x.R"}]}'
    )


def test_referenced_types_are_written_out() -> None:
    """A schema has one form, whether a type stands in its text or is referenced."""
    inner = {"type": "fixed", "name": "F", "size": 4}
    fields = {"name": "b", "type": "F"}

    inline = parse(record({"name": "a", "type": inner}, fields))
    referring = parse(record({"name": "a", "type": "F"}, fields), {"F": json.dumps(inner)})

    assert referring.semantic_body == inline.semantic_body
    assert referring.identity_body != inline.identity_body


INT = {"name": "a", "type": "int"}
SAME: list[tuple[object, object]] = [
    ("int", {"type": "int"}),
    ("int", {"type": "int", "owner": "x", "logicalType": "nobody-knows"}),
    (record(INT), {"fields": [INT], "doc": "x", "name": "R", "type": "record"}),
    (record(INT, namespace="x"), {**record(INT), "name": "x.R"}),
    (record(INT, aliases=["A", "B"]), record(INT, aliases=["B", "A", "R"])),
    (record({**INT, "order": "ascending"}), record(INT)),
    ({"type": "error", "name": "R", "fields": []}, record()),
    (record({"name": "a", "type": "double", "default": 1}), record({"name": "a", "type": "double", "default": 1.0})),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0},
    ),
]
OTHER: list[tuple[object, object]] = [
    ("int", "long"),
    ("int", {"type": "int", "logicalType": "date"}),
    (record(INT), record({**INT, "default": 0})),
    (record({**INT, "default": 1}), record({**INT, "default": 0})),
    (record(INT), record({**INT, "aliases": ["b"]})),
    (record(INT), record(INT, aliases=["S"])),
    (record(INT), record(INT, namespace="x")),
    (record(INT), record({**INT, "order": "ignore"})),
    (record(INT, {"name": "b", "type": "int"}), record({"name": "b", "type": "int"}, INT)),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "bytes", "logicalType": "decimal", "precision": 5},
    ),
    (["int", "null"], ["null", "int"]),
]


@pytest.mark.parametrize(("left", "right"), SAME, ids=lambda value: str(value)[:40])
def test_what_means_the_same_has_one_semantic_body(left: object, right: object) -> None:
    """Documentation, metadata, spelling and ignored logical types do not count."""
    assert parse(left).semantic_body == parse(right).semantic_body


@pytest.mark.parametrize(("left", "right"), OTHER, ids=lambda value: str(value)[:40])
def test_what_changes_reading_resolving_or_ordering_has_another(left: object, right: object) -> None:
    """Defaults, aliases, valid logical types, orders and positions count."""
    assert parse(left).semantic_body != parse(right).semantic_body


def test_white_space_is_insignificant_and_nothing_else() -> None:
    """The identity ignores white space between tokens; member order and documentation count."""
    base = read('{"type":"int","doc":"a b"}')

    assert read('{ "type" :\n"int",\t"doc":"a b"}').identity_body == base.identity_body
    assert read('{"doc":"a b","type":"int"}').identity_body != base.identity_body


@given(schemas())
def test_the_canonical_form_is_idempotent(schema: Any) -> None:
    """The Parsing Canonical Form is itself a schema, and its own form."""
    form = canonical.parsing_canonical_form(parse(schema).schema)

    assert canonical.parsing_canonical_form(read(form).schema) == form


@given(schemas())
def test_the_semantic_form_is_idempotent(schema: Any) -> None:
    """For types with namespaces the semantic form is a schema of the same meaning, too."""
    body = parse(schema).semantic_body

    assert read(body.decode()).semantic_body == body


@given(schemas())
def test_the_same_meaning_in_other_words_is_compatible_both_ways(schema: Any) -> None:
    """One semantic body, and nothing is found when the schemas are compared all the same."""
    one, other = parse(schema), parse(respelled(schema))

    assert other.semantic_body == one.semantic_body
    assert list(resolution.findings(one.schema, other.schema)) == []
    assert list(resolution.findings(other.schema, one.schema)) == []


@given(schemas(), schemas())
def test_any_two_schemas_can_be_compared(left: Any, right: Any) -> None:
    """Unrelated schemas are compatible or not, never undecided, and nothing is found twice."""
    found = list(FORMAT.diff(parse(left), parse(right), STRICT))

    places = [(one.rule, one.reader_path, one.writer_path, one.message) for one in found]
    assert all(one.verdict is Verdict.INCOMPATIBLE for one in found)
    assert len(set(places)) == len(places)
