"""Avro: parsing, fingerprints, compatibility and data, ours beside fastavro and Apache's avro.

Target: checking binary data takes at most 1.5 times what bare fastavro.schemaless_reader takes to decode it. The other
ratios are printed for information: fastavro neither validates schemas nor compares them.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.formats import DataRules, Encoding
from services.registry.domain.formats.avro import Avro, canonical
from services.registry.domain.formats.avro.values import as_json, decoded
from tests.bench import measuring

fastavro: Any = import_module("fastavro")
avro_schema: Any = import_module("avro.schema")
avro_io: Any = import_module("avro.io")
avro_compatibility: Any = import_module("avro.compatibility")

ROUNDS = 11
ROUND_SECONDS = 0.05
"""Short rounds in quick turns: what else the machine does falls on all sides."""

LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "sku", "type": "string"}, {"name": "count", "type": "int"}, {"name": "cents", "type": "long"}],
}
CUSTOMER = {
    "type": "record",
    "name": "Customer",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "mail", "type": ["null", "string"], "default": None},
        {"name": "age", "type": "int"},
    ],
}
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "price", "type": "double"},
        {"name": "paid", "type": "boolean"},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "PAID", "SENT"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "notes", "type": {"type": "map", "values": "string"}},
        {"name": "remark", "type": ["null", "string"], "default": None},
        {"name": "customer", "type": CUSTOMER},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 8}},
        {"name": "raw", "type": "bytes"},
    ],
}
NEXT: dict[str, Any] = {**ORDER, "fields": [*ORDER["fields"], {"name": "extra", "type": "int", "default": 0}]}
DATUM: dict[str, Any] = {
    "id": "o-123456",
    "number": 1234567,
    "price": 9.99,
    "paid": True,
    "state": "PAID",
    "tags": ["new", "gift", "express"],
    "notes": {"door": "left", "floor": "3"},
    "remark": "ring twice",
    "customer": {"name": "Ann", "mail": None, "age": 33},
    "lines": [{"sku": f"s{i}", "count": i, "cents": 1000 * i} for i in range(4)],
    "digest": b"12345678",
    "raw": b"raw!",
}

Call = Callable[[], object]


def microseconds(call: Call) -> float:
    """Mean time of one call over one round."""
    calls, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < ROUND_SECONDS:
        for _ in range(5):
            call()
        calls += 5
    return spent / calls * 1e6


def compare(what: str, ours: Call, others: Mapping[str, Call]) -> dict[str, float]:
    """Prints medians of interleaved rounds; the medians of ours to each of the others."""
    sides = {"ours": ours, **others}
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, call in sides.items():
            rounds[name].append(microseconds(call))
    ratios = {
        name: statistics.median(mine / theirs for mine, theirs in zip(rounds["ours"], rounds[name], strict=True))
        for name in others
    }
    shown = [f"ours {statistics.median(rounds['ours']):8.1f} µs"]
    shown += [f"{name} {statistics.median(rounds[name]):8.1f} µs (ratio {ratios[name]:5.2f})" for name in others]
    print(f"{what:28} {'  '.join(shown)}")
    return ratios


def schemas(language: Avro) -> None:
    """Parsing, forms, fingerprints and comparison."""
    text = json.dumps(ORDER)
    parsed, later = language.parse(text, {}), language.parse(json.dumps(NEXT), {})
    theirs, theirs_later = avro_schema.parse(text), avro_schema.parse(json.dumps(NEXT))
    compare(
        "parse",
        lambda: language.parse(text, {}),
        {"fastavro": lambda: fastavro.parse_schema(json.loads(text)), "avro": lambda: avro_schema.parse(text)},
    )
    compare(
        "canonical form, CRC-64",
        lambda: canonical.crc64_fingerprint(parsed.schema),
        {
            "fastavro": lambda: fastavro.schema.fingerprint(
                fastavro.schema.to_parsing_canonical_form(ORDER), "CRC-64-AVRO"
            ),
            "avro": lambda: avro_schema.parse(text).fingerprint("CRC-64-AVRO"),
        },
    )
    checker = {
        "avro": lambda: avro_compatibility.ReaderWriterCompatibilityChecker().get_compatibility(theirs_later, theirs)
    }
    for policy in (Policy.STRICT, Policy.EXACT):
        rules = Rules(policy)
        compare(f"diff, {policy.name}", lambda rules=rules: list(language.diff(later, parsed, rules)), checker)  # type: ignore[misc]
    compare("differences", lambda: language.differences(parsed, later), {})


def data(language: Avro) -> float:
    """Data in both encodings; ours to bare fastavro for binary."""
    parsed = language.parse(json.dumps(ORDER), {})
    known = fastavro.parse_schema(ORDER)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, known, DATUM)
    binary = out.getvalue()
    value = decoded(parsed.schema, parsed.schema.root, binary)
    payload = json.dumps(as_json(parsed.schema, parsed.schema.root, value))
    line = payload.encode()
    as_text = language.validator(parsed, DataRules())
    as_binary = language.validator(parsed, DataRules(Encoding.BINARY))
    with_formats = language.validator(parsed, DataRules(Encoding.BINARY, assert_formats=True))
    reader = avro_io.DatumReader(avro_schema.parse(json.dumps(ORDER)))
    assert not as_text.check(line).problems
    assert not as_binary.check(binary).problems
    compare(
        "validate JSON",
        lambda: as_text.check(line),
        {
            "fastavro": lambda: list(fastavro.json_reader(io.StringIO(payload), known)),
            "json.loads": lambda: json.loads(line),
        },
    )
    bare: dict[str, Call] = {"fastavro": lambda: fastavro.schemaless_reader(io.BytesIO(binary), known)}
    compare("validate binary, formats", lambda: with_formats.check(binary), bare)
    compare("validate binary, refused", lambda: as_binary.check(binary[:-1]), bare)
    decoding: Call = lambda: reader.read(avro_io.BinaryDecoder(io.BytesIO(binary)))  # noqa: E731
    return compare("validate binary", lambda: as_binary.check(binary), {**bare, "avro": decoding})["fastavro"]


def main() -> int:
    language = Avro()
    schemas(language)
    ratio = data(language)
    print(measuring.verdict("binary validation, ours / bare fastavro", ratio, at_most=1.5))
    return 0 if ratio <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
