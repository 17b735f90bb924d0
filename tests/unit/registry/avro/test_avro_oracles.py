"""What other implementations make of the same schemas and data: Apache's avro, fastavro, cavro.

Where one of them departs from the specification the case is left out, by a condition that says so.
"""

from __future__ import annotations

import io
import json
import math
from importlib import import_module
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Verdict, worst
from services.registry.domain.formats.avro import Avro, canonical, exact
from services.registry.domain.formats.avro.language import ParsedAvro
from services.registry.domain.formats.avro.reading import Reader
from services.registry.domain.formats.avro.values import TooLarge, encoded
from tests.unit.registry.avro import avro_pairs
from tests.unit.registry.avro.avro_schemas import schemas

avro_schema: Any = import_module("avro.schema")
avro_io: Any = import_module("avro.io")
avro_errors: Any = import_module("avro.errors")
avro_compatibility: Any = import_module("avro.compatibility")
fastavro: Any = import_module("fastavro")
cavro: Any = import_module("cavro")

FORMAT = Avro()
STRICT = Rules(Policy.STRICT)
QUIET = list(HealthCheck)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two plain values are equal; one NaN is another."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, cavro.Record):
        return all(same(ours[name], getattr(theirs, name)) for name in ours)
    return bool(ours == theirs)


def bare(text: Any) -> Any:
    """A schema without its logical types, so that libraries give the bare values."""
    if isinstance(text, list):
        return [bare(item) for item in text]
    if isinstance(text, dict):
        return {name: bare(item) for name, item in text.items() if name not in ("logicalType", "precision", "scale")}
    return text


def apache(parsed: ParsedAvro) -> Any:
    """The schema as Apache's library has it; assumes that it accepts it."""
    return avro_schema.parse(json.dumps(bare(json.loads(parsed.text))))


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
@given(avro_pairs.pairs())
def test_strict_agrees_with_apache(pair: tuple[ParsedAvro, ParsedAvro]) -> None:
    """The verdict is that of Apache's own checker."""
    reader, writer = pair

    theirs = avro_compatibility.ReaderWriterCompatibilityChecker().get_compatibility(apache(reader), apache(writer))

    ours = worst(FORMAT.diff(reader, writer, STRICT))
    assert (ours is Verdict.COMPATIBLE) == (theirs.compatibility.name == "compatible"), (
        reader.text,
        writer.text,
        theirs.messages,
    )


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(schemas(), st.data())
def test_binary_data_agrees_with_the_libraries(schema: Any, data: st.DataObject) -> None:
    """What we write is what others read, and what others write is valid."""
    parsed = FORMAT.parse(json.dumps(bare(schema)), {})
    try:
        value = avro_pairs.value(data.draw, parsed.schema)
    except TooLarge:
        return
    written = encoded(parsed.schema, parsed.schema.root, value)
    plain = avro_pairs.plain(value)

    assert same(plain, fastavro.schemaless_reader(io.BytesIO(written), bare(schema)))
    assert same(plain, cavro.Schema(json.dumps(bare(schema))).binary_decode(written))
    theirs = apache(parsed)
    assert same(plain, avro_io.DatumReader(theirs).read(avro_io.BinaryDecoder(io.BytesIO(written))))


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET)
@given(avro_pairs.pairs(), st.data())
def test_resolution_agrees_with_the_libraries(pair: tuple[ParsedAvro, ParsedAvro], data: st.DataObject) -> None:
    """What is compatible under EXACT, others read to the same value."""
    reader, writer = (FORMAT.parse(json.dumps(bare(json.loads(one.text))), {}) for one in pair)
    assume(list(exact.findings(reader.schema, writer.schema)) == [])
    try:
        value = avro_pairs.value(data.draw, writer.schema)
    except TooLarge:
        return
    written = encoded(writer.schema, writer.schema.root, value)
    read, _ = Reader(reader.schema, writer.schema).read(value)
    plain = avro_pairs.plain(read)

    theirs = fastavro.schemaless_reader(io.BytesIO(written), json.loads(writer.text), json.loads(reader.text))
    assert same(plain, theirs), (reader.text, writer.text, plain, theirs)
    if '"aliases"' in reader.text:
        return  # Apache's library for Python knows no aliases of fields.
    try:
        theirs = avro_io.DatumReader(apache(writer), apache(reader)).read(avro_io.BinaryDecoder(io.BytesIO(written)))
    except (avro_errors.SchemaResolutionException, avro_errors.InvalidDefaultException):
        return  # It promotes nothing within arrays and maps, and takes a default for one of the first branch.
    assert same(plain, theirs), (reader.text, writer.text, plain, theirs)


@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
@given(schemas())
def test_forms_and_fingerprints_agree_with_the_libraries(schema: Any) -> None:
    """The Parsing Canonical Form and its fingerprints are those of fastavro and cavro."""
    parsed = FORMAT.parse(json.dumps(schema), {})

    form = canonical.parsing_canonical_form(parsed.schema)

    assert fastavro.schema.to_parsing_canonical_form(schema) == form
    assert cavro.Schema(json.dumps(schema)).canonical_form == form
    assert bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO")) == canonical.crc64_fingerprint(
        parsed.schema
    ).to_bytes(8, "little")
    assert bytes.fromhex(fastavro.schema.fingerprint(form, "sha256")) == canonical.sha256_fingerprint(parsed.schema)
