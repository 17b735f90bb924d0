"""JSON Schema: parse, fingerprint, compare, check data: ours beside the bare libraries. Needs no server.

Target: checking data that follows its schema takes at most 1.5 times what the bare library takes with reading the JSON.
Everything else is printed only; what is refused costs more, because every error becomes a place and a message.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import jsonschema_rs

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import DataRules, Parsed, json_data
from services.registry.domain.formats.jsonschema import JsonSchema
from tests.bench.measuring import ROUNDS, verdict

RATIO_MAX = 1.5
PROPERTIES = 200
VERSIONS = 100
SECONDS_MIN = 0.02
"""A round of one side repeats its work for at least so long."""

FORMAT = JsonSchema()
Work = Callable[[], object]


def order_schema(longest: int) -> dict[str, Any]:
    """A schema as registries hold them: an order with lines, an address, choices and references."""
    line = {
        "type": "object",
        "properties": {
            "sku": {"type": "string", "maxLength": longest},
            "quantity": {"type": "integer", "minimum": 1},
            "price": {"type": "number", "exclusiveMinimum": 0},
        },
        "required": ["sku", "quantity"],
        "additionalProperties": False,
    }
    payment = [
        {"type": "object", "properties": {"card": {"type": "string"}}, "required": ["card"]},
        {"type": "object", "properties": {"iban": {"type": "string"}}, "required": ["iban"]},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Order",
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "status": {"enum": ["new", "paid", "sent", "gone"]},
            "customer": {"type": "object", "properties": {"name": {"type": "string"}, "mail": {"type": "string"}}},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
            "payment": {"oneOf": payment},
        },
        "required": ["id", "lines"],
        "$defs": {"line": line},
    }


def wide_schema(longest: int) -> dict[str, Any]:
    """Two hundred properties."""
    return {
        "type": "object",
        "properties": {f"property{i}": {"type": "string", "maxLength": longest} for i in range(PROPERTIES)},
    }


ORDER = {
    "id": "5d1f0a1e-7c39-4a2b-9a64-0c7fd1a8b0ce",
    "status": "paid",
    "customer": {"name": "Ann Example", "mail": "ann@example.com"},
    "lines": [{"sku": f"sku-{i}", "quantity": i + 1, "price": i + 0.5} for i in range(12)],
    "payment": {"card": "4111"},
}


def microseconds(work: Work) -> float:
    """One round: the time of one call."""
    calls, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS_MIN:
        work()
        calls += 1
    return seconds / calls * 1e6


def compared(name: str, sides: dict[str, Work]) -> dict[str, float]:
    """Prints the medians of interleaved rounds, and gives the median ratio of the first side to each other one."""
    rounds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, work in sides.items():
            rounds[side].append(microseconds(work))
    first = next(iter(sides))
    ratios = {
        side: statistics.median(mine / other for mine, other in zip(rounds[first], times, strict=True))
        for side, times in rounds.items()
    }
    print(name)
    for side, times in rounds.items():
        note = "" if side == first else f"   ours is {ratios[side]:.2f} times that"
        print(f"  {side:34} {statistics.median(times):10.1f} µs{note}")
    return ratios


def parsing() -> None:
    """Reading a schema, and its two fingerprints."""
    for name, schema in (("an order", order_schema(20)), (f"{PROPERTIES} properties", wide_schema(20))):
        text = json.dumps(schema)
        compared(
            f"parse: {name}, {len(text)} bytes",
            {
                "ours": partial(FORMAT.parse, text, {}),
                "jsonschema-rs, compile": partial(jsonschema_rs.Draft202012Validator, text, offline=True),
                "jsonschema, check_schema": partial(jsonschema.Draft202012Validator.check_schema, schema),
            },
        )
        compared(
            f"fingerprint: {name}",
            {
                "ours, both bodies and digests": partial(_fingerprints, text),
                "jsonschema-rs, canonicalize": partial(jsonschema_rs.canonicalize, schema, offline=True),
            },
        )


def _fingerprints(text: str) -> None:
    parsed = FORMAT.parse(text, {})
    hashlib.sha256(parsed.identity_body).digest()
    hashlib.sha256(parsed.semantic_body).digest()


def comparing() -> None:
    """STRICT, both marks, and a long history."""
    for name, make in (("an order", order_schema), (f"{PROPERTIES} properties", wide_schema)):
        reader, writer = (FORMAT.parse(json.dumps(make(longest)), {}) for longest in (30, 20))
        one, other = (jsonschema_rs.canonicalize(make(longest), offline=True) for longest in (30, 20))
        compared(
            f"compare: {name}",
            {
                "ours, STRICT": partial(_strict, reader, writer),
                "ours, differences": partial(FORMAT.differences, writer, reader),
                "jsonschema-rs, covers": partial(one.covers, other),
            },
        )
    candidate = FORMAT.parse(json.dumps(wide_schema(1_000)), {})
    history = [FORMAT.parse(json.dumps(wide_schema(100 + number)), {}) for number in range(VERSIONS)]
    took = statistics.median(microseconds(lambda: [_strict(candidate, old) for old in history]) for _ in range(ROUNDS))
    print(f"compare: {VERSIONS} versions of {PROPERTIES} properties")
    print(f"  {'ours, STRICT':34} {took:10.1f} µs")


def _strict(reader: Parsed, writer: Parsed) -> list[Finding]:
    return list(FORMAT.diff(reader, writer, Rules(Policy.STRICT)))


def _bare(validator: jsonschema_rs.Validator, data: bytes) -> list[object]:
    """What a caller of the library does: read the data, and take of each error what a report needs."""
    errors = validator.iter_errors(json.loads(data))
    return [(error.message, error.instance_path, error.schema_path, error.kind.name) for error in errors]


def _python(validator: Any, data: bytes) -> list[object]:
    errors = validator.iter_errors(json.loads(data))
    return [(error.message, error.absolute_path, error.absolute_schema_path, error.validator) for error in errors]


def checking() -> float:
    """Checking data; the ratio of ours to the bare library."""
    schema = order_schema(20)
    parsed = FORMAT.parse(json.dumps(schema), {})
    ours, strict = (FORMAT.validator(parsed, DataRules(strict=value)) for value in (False, True))
    bare = jsonschema_rs.Draft202012Validator(schema, offline=True)
    python = jsonschema.Draft202012Validator(schema)
    worst = 0.0
    wrong = {**ORDER, "lines": [{"sku": 1, "quantity": 0}] * 3}
    for name, value in (("a valid order", ORDER), ("a wrong order", wrong), ("a hundred orders", [ORDER] * 100)):
        data = json.dumps(value).encode()
        if isinstance(value, list):
            many = {"type": "array", "items": _inlined(schema)}
            parsed = FORMAT.parse(json.dumps(many), {})
            ours, strict = (FORMAT.validator(parsed, DataRules(strict=flag)) for flag in (False, True))
            bare, python = jsonschema_rs.Draft202012Validator(many, offline=True), jsonschema.Draft202012Validator(many)
        ratios = compared(
            f"check: {name}, {len(data)} bytes",
            {
                "ours": partial(ours.check, data),
                "json and jsonschema-rs": partial(_bare, bare, data),
                "json and jsonschema": partial(_python, python, data),
                "ours, strict": partial(strict.check, data),
                "ours, reading alone": partial(json_data.read, data, unique_names=False),
                "json alone": partial(json.loads, data),
            },
        )
        if value is not wrong:
            worst = max(worst, ratios["json and jsonschema-rs"])
    print(verdict("check of valid data: the worst ratio to the bare library", worst, at_most=RATIO_MAX))
    return worst


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without its reference, so that it may stand anywhere."""
    lines = {**schema["properties"]["lines"], "items": schema["$defs"]["line"]}
    kept = {name: value for name, value in schema.items() if name not in ("$schema", "$defs")}
    return {**kept, "properties": {**schema["properties"], "lines": lines}}


def main() -> int:
    """Prints everything; 1 when the target is missed."""
    parsing()
    comparing()
    return int(checking() > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
