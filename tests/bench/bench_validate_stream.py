"""StreamValidateData against the bare library: 10,000 payloads over one stream, and in a loop of one process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import jsonschema_rs

from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from tests.bench import measuring

PAYLOADS = 10_000
BATCH = 500
SCHEMA = {
    "type": "object",
    "properties": {
        "tool": {"type": "string", "enum": ["search", "fetch", "calculate"]},
        "arguments": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "maxLength": 500},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "filters": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"field": {"type": "string"}, "value": {"type": ["string", "number"]}},
                        "required": ["field", "value"],
                    },
                },
            },
            "required": ["query"],
        },
        "trace": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "required": ["tool", "arguments"],
}


def payloads() -> list[bytes]:
    """Tool calls of about 900 bytes, one in a hundred of them wrong."""
    made = []
    for number in range(PAYLOADS):
        filters = [{"field": f"field {index}", "value": f"value {index} of {number}"} for index in range(12)]
        arguments = {"query": f"what is {number}? " * 8, "limit": number % 100 + (number % 100 > 0), "filters": filters}
        made.append(json.dumps({"tool": "search", "arguments": arguments, "trace": f"{number:032x}"}).encode())
    return made


def bare(data: list[bytes]) -> tuple[float, int]:
    """Seconds that the library takes in this process, and how many payloads it accepts."""
    validator = jsonschema_rs.validator_for(SCHEMA, offline=True)
    began = time.perf_counter()
    valid = sum(not list(validator.iter_errors(json.loads(payload))) for payload in data)
    return time.perf_counter() - began, valid


async def ours(client: RegistryClient, schema_id: int, data: list[bytes]) -> tuple[float, int]:
    """Seconds from the first request to the last answer, and how many payloads the registry accepts."""

    async def requests() -> AsyncIterator[pb.StreamValidateDataRequest]:
        rules = pb.ValidationRules(schema_id=schema_id)
        for start in range(0, len(data), BATCH):
            yield pb.StreamValidateDataRequest(rules=None if start else rules, payloads=data[start : start + BATCH])

    began = time.perf_counter()
    stream = client.converse(client.validation.StreamValidateData, requests())
    valid = sum([answer.valid_count async for answer in stream])
    return time.perf_counter() - began, valid


async def run(target: str) -> float:
    data = payloads()
    ratios = []
    async with RegistryClient(target) as client:
        made = await client.call(
            client.schemas.RegisterSchema,
            schema_service_pb2.RegisterSchemaRequest(
                subject="bench", format=schema_pb2.SCHEMA_FORMAT_JSON, text=json.dumps(SCHEMA)
            ),
        )
        await ours(client, made.schema.id, data)
        for _ in range(measuring.ROUNDS):
            alone, accepted = bare(data)
            streamed, told = await ours(client, made.schema.id, data)
            assert told == accepted, "both find the same payloads wrong"
            print(f"bare {PAYLOADS / alone:,.0f} payloads/s, streamed {PAYLOADS / streamed:,.0f} payloads/s")
            ratios.append(streamed / alone)
    return sorted(ratios)[len(ratios) // 2]


def main() -> int:
    with measuring.postgres() as server:
        url = server.create_database("bench")
        with measuring.registry(url, observability__log_level="warning") as service:
            ratio = asyncio.run(run(service.target))
    print(measuring.verdict("time, streamed / bare library", ratio, at_most=1.5))
    return 0 if ratio <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
