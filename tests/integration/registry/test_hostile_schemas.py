"""Schemas made to hurt: each ends in a clear error or an answer within seconds, and readers hardly notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import (
    compatibility_pb2,
    compatibility_service_pb2,
    schema_pb2,
    schema_service_pb2,
    validation_service_pb2,
)
from tests.fix_calls import Registry
from tests.fix_service import MakeService, Service

Name = Callable[..., str]
JSON, AVRO, PROTOBUF = (
    schema_pb2.SCHEMA_FORMAT_JSON,
    schema_pb2.SCHEMA_FORMAT_AVRO,
    schema_pb2.SCHEMA_FORMAT_PROTOBUF,
)

ANSWER_SECONDS_MAX = 9
"""A worker is given three; the first may have to start, and the machine is shared."""
READER_SECONDS_MAX = 1.5
"""Longest wait of a reader beside an attack: what is done in place is short."""
MEMORY_BYTES_MAX = 700 << 20
"""Of the serving process. Workers have a limit of their own."""


def fan_out(levels: int) -> dict[str, Any]:
    """Definitions that each apply the next one twice to the same instance."""
    defs: dict[str, Any] = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "string"}}}


def product(factors: int, width: int, shift: int = 0) -> dict[str, Any]:
    """An intersection of unions: its normal form has width ** factors branches."""
    unions = [
        {"anyOf": [{"pattern": f"^{factor}x*{branch + shift}"} for branch in range(width)]} for factor in range(factors)
    ]
    return {"type": "string", "allOf": unions}


def branches(count: int, offset: int) -> dict[str, Any]:
    """A union of many objects."""
    return {
        "oneOf": [
            {"type": "object", "properties": {"k": {"enum": [n, f"v{n}"]}, f"p{n}": {"maximum": n}}, "required": ["k"]}
            for n in range(offset, offset + count)
        ]
    }


def nested_message(depth: int) -> str:
    return 'syntax = "proto3";' + "".join(f"message M{level} {{" for level in range(depth)) + "}" * depth


RECORD = '{"type": "record", "name": "R", "fields": ['

REFUSED: dict[str, tuple[int, str]] = {
    "json: 10,000 levels": (JSON, '{"not":' * 10_000 + "{}" + "}" * 10_000),
    "json: 200 levels": (JSON, '{"not":' * 200 + "{}" + "}" * 200),
    "json: exponential references": (JSON, json.dumps(fan_out(60))),
    "json: references in a circle": (JSON, '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}'),
    "json: 30,000 subschemas": (JSON, json.dumps({"anyOf": [{"not": {}}] * 15_000})),
    "json: regular expression of a million states": (JSON, '{"pattern": "((a{100}){100}){100}"}'),
    "json: back-reference": (JSON, r'{"pattern": "(a+)+\\1$"}'),
    "json: NaN": (JSON, '{"maximum": NaN}'),
    "json: Infinity": (JSON, '{"maximum": Infinity}'),
    "json: a name twice": (JSON, '{"type": "string", "type": "integer"}'),
    "json: half a surrogate pair": (JSON, r'{"title": "\ud800"}'),
    "json: byte order mark": (JSON, "\ufeff{}"),
    "json: no end": (JSON, '{"a": ['),
    "json: a file": (JSON, '{"$ref": "file:///etc/passwd"}'),
    "json: the network": (JSON, '{"$ref": "http://127.0.0.1:9/schema.json"}'),
    "json: a foreign dialect": (JSON, '{"$schema": "http://127.0.0.1:9/meta.json"}'),
    "avro: 10,000 levels": (AVRO, '{"type":"array","items":' * 10_000 + '"int"' + "}" * 10_000),
    "avro: a union in a union": (AVRO, '["int", ["string"]]'),
    "avro: a default beyond 64 bits": (
        AVRO,
        RECORD + '{"name": "n", "type": "long", "default": 9223372036854775808}]}',
    ),
    "avro: a name with a look-alike": (AVRO, '{"type": "record", "name": "\u0420", "fields": []}'),
    "avro: an enum of symbols twice": (AVRO, '{"type": "enum", "name": "E", "symbols": ["A", "A"]}'),
    "protobuf: 1,000 levels": (PROTOBUF, nested_message(1000)),
    "protobuf: a megabyte of braces": (PROTOBUF, "{" * 1_000_000),
    "protobuf: a comment without end": (PROTOBUF, 'syntax = "proto3"; /* ' + "x" * 500_000),
    "protobuf: a file": (PROTOBUF, 'syntax = "proto3"; import "../../../../etc/passwd";'),
    "protobuf: an absolute path": (PROTOBUF, 'syntax = "proto3"; import "/etc/passwd";'),
    "protobuf: an import of itself": (PROTOBUF, 'syntax = "proto3"; import "schema.proto";'),
    "protobuf: base64 of nothing": (PROTOBUF, "AAAA" * 1000),
    "protobuf: a field beyond the last number": (PROTOBUF, 'syntax = "proto3"; message M { int32 a = 999999999999; }'),
    "protobuf: NUL": (PROTOBUF, 'syntax = "proto3";\0message M {}'),
}

TAKEN: dict[str, tuple[int, str]] = {
    "json: integers beyond 64 bits": (JSON, '{"maximum": ' + "9" * 400 + ', "minimum": -1e300}'),
    "json: an enum of 100,000 values": (JSON, json.dumps({"enum": list(range(100_000))})),
    "json: an intersection of unions": (JSON, json.dumps(product(10, 3))),
    "json: a slow expression elsewhere": (JSON, '{"pattern": "^(a+)+$"}'),
    "json: every trap of Unicode": (
        JSON,
        json.dumps({"properties": {trap: {} for trap in ("", "\0", "\u202e", "e\u0301")}}),
    ),
    "avro: a union of 2,000 names": (
        AVRO,
        json.dumps([{"type": "enum", "name": f"E{n}", "symbols": ["A"]} for n in range(2000)]),
    ),
    "protobuf: an enum of 10,000 values": (
        PROTOBUF,
        'syntax = "proto3"; enum E {' + "".join(f"V{n} = {n};" for n in range(10_000)) + "}",
    ),
}


@pytest_asyncio.fixture
async def attacked(make_service: MakeService, database_url: str) -> AsyncIterator[tuple[Service, Registry]]:
    """A registry of its own, with its client."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        yield service, Registry(client)


@asynccontextmanager
async def reader(calls: Registry, schema_id: int) -> AsyncIterator[list[float]]:
    """Somebody who reads all the time; the seconds that each read took."""
    waits: list[float] = []

    async def read() -> None:
        while True:
            began = time.monotonic()
            await calls.schema(schema_id)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(read())
    try:
        yield waits
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def peak_memory_bytes(service: Service) -> int:
    """Most memory that the process ever had."""
    for line in Path(f"/proc/{service.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel tells no VmHWM")


@pytest.mark.timeout(180)
async def test_hostile_schemas_are_refused_or_taken(attacked: tuple[Service, Registry], name: Name) -> None:
    """Each in time, with a message, within bounded memory, while a reader is served; nothing refused is written."""
    service, calls = attacked
    quiet = await calls.register(name(), {"title": "read by everybody"})
    async with reader(calls, quiet.schema.id) as waits:
        for attack, (form, text) in REFUSED.items():
            began = time.monotonic()
            with pytest.raises((errors.InvalidSchema, errors.LimitExceeded, errors.InvalidField)) as caught:
                await calls.register(attack, text, format=form)
            assert time.monotonic() - began < ANSWER_SECONDS_MAX, attack
            assert caught.value.message, attack
            assert "/tmp" not in caught.value.message, attack
            with pytest.raises(errors.SubjectNotFound):
                await calls.version(attack, 1)
        for attack, (form, text) in TAKEN.items():
            began = time.monotonic()
            made = await calls.register(attack, text, format=form)
            assert time.monotonic() - began < ANSWER_SECONDS_MAX, attack
            assert (await calls.schema(made.schema.id)).text == text

    assert max(waits) < READER_SECONDS_MAX
    assert peak_memory_bytes(service) < MEMORY_BYTES_MAX


PAIRS: dict[str, tuple[object, object]] = {
    "an intersection of unions": (product(10, 3), product(10, 3, shift=1)),
    "500 branches": (branches(500, 0), branches(500, 1)),
    "references that double": (
        {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "b": {"type": "string"}}},
        {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "b": {"type": "integer"}}},
    ),
    "20,000 values": ({"enum": list(range(20_000))}, {"enum": list(range(1, 20_001))}),
    "denials of denials": (
        {"not": {"not": {"not": {"anyOf": [{"minLength": n} for n in range(50)]}}}},
        {"not": {"not": {"not": {"anyOf": [{"minLength": n} for n in range(1, 51)]}}}},
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_hostile_pairs_are_compared_in_time(attacked: tuple[Service, Registry], name: Name) -> None:
    """Every policy ends with a verdict, at worst UNDECIDED, while a reader is served."""
    service, calls = attacked
    quiet = await calls.register(name(), {"title": "read by everybody"})
    async with reader(calls, quiet.schema.id) as waits:
        for attack, (new, old) in PAIRS.items():
            subject = name()
            await calls.register(subject, old)
            for policy in compatibility_pb2.CompatibilityPolicy.values()[1:]:
                request = compatibility_service_pb2.CheckCompatibilityRequest(
                    subject=subject,
                    format=JSON,
                    text=json.dumps(new),
                    policy=policy,
                    level=compatibility_pb2.COMPATIBILITY_LEVEL_FULL,
                )
                began = time.monotonic()
                answer = await calls.call(calls.compatibility.CheckCompatibility, request, timeout_seconds=30)
                assert time.monotonic() - began < 2 * ANSWER_SECONDS_MAX, attack
                assert answer.report.verdict != compatibility_pb2.VERDICT_UNSPECIFIED
                if answer.report.verdict != compatibility_pb2.VERDICT_COMPATIBLE:
                    assert answer.report.findings[0].message

    assert max(waits) < READER_SECONDS_MAX
    assert peak_memory_bytes(service) < MEMORY_BYTES_MAX


async def test_what_is_slow_elsewhere_is_fast_here(calls: Registry, name: Name) -> None:
    """A nested repetition never backtracks: the expressions are those of a linear-time engine."""
    made = await calls.register(name(), {"pattern": "^(a+)+$"})
    data = json.dumps("a" * 60_000 + "!").encode()

    began = time.monotonic()
    request = validation_service_pb2.ValidateDataRequest(schema_id=made.schema.id, data=data)
    answer = await calls.call(calls.validation.ValidateData, request)

    assert not answer.valid
    assert time.monotonic() - began < READER_SECONDS_MAX


async def test_references_cannot_run_in_a_circle(calls: Registry, name: Name) -> None:
    """Also over several subjects: a new version may not need what needs its subject."""
    first, second, third = name(), name(), name()
    for subject in (first, second, third):
        await calls.level(subject)

    def needs(subject: str) -> dict[str, Any]:
        return {"references": [schema_pb2.Reference(name=f"{subject}.json", subject=subject, version=1)]}

    await calls.register(first, {"title": "the first"})
    await calls.register(second, {"$ref": f"{first}.json"}, **needs(first))
    await calls.register(third, {"items": {"$ref": f"{second}.json"}}, **needs(second))

    with pytest.raises(errors.ReferenceCycle):
        await calls.register(first, {"not": {"$ref": f"{third}.json"}}, **needs(third))


@pytest.mark.parametrize(
    "trap",
    [
        "caf\u00e9",
        "cafe\u0301",
        "\u202eredro",
        "or\u200bder",
        "\uff41",
        "\u0430dmin",
        "\U0001f4a9",
        "I\u0307",
        "\u00df",
        "a/../b",
        "%2e%2e",
        "'; DROP TABLE registry.subjects; --",
        "{{7*7}}",
    ],
)
async def test_names_are_what_they_are(calls: Registry, name: Name, trap: str) -> None:
    """Names compare by code points: look-alikes, directions and quotes are characters like others."""
    subject = f"{name()} {trap}"

    made = await calls.register(subject, {"title": trap})

    assert made.version.subject == subject
    assert (await calls.version(subject, 1)).subject == subject
    folded = subject.upper() if subject.upper() != subject else subject.lower()
    with pytest.raises(errors.SubjectNotFound):
        await calls.version(folded, 1)


async def test_ten_megabytes_are_refused_unread(calls: Registry, name: Name) -> None:
    """Below the limit of messages by the limit of texts, above it by the server itself."""
    for size, error in ((9 << 20, errors.InvalidField), (11 << 20, errors.MessageTooLarge)):
        request = schema_service_pb2.RegisterSchemaRequest(subject=name(), format=JSON, text='"' + "x" * size + '"')
        with pytest.raises(error):
            await calls.call(calls.schemas.RegisterSchema, request)
