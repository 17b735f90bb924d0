"""ControlService.FlushCaches of the registry: memory and Valkey, and a Valkey that is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from llm_schema_registry.client import ControlClient, RegistryClient
from llm_schema_registry.control.v1 import control_service_pb2 as pb
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from tests.fix_service import CONTROL_TOKEN, MakeService
from tests.fix_valkey import OwnValkey

CONTROL = [("authorization", f"Bearer {CONTROL_TOKEN}")]


@pytest.mark.regression("B9")
async def test_both_caches_are_flushed(
    make_service: MakeService, database_url: str, own_valkey: Callable[[], OwnValkey]
) -> None:
    """Entries below the prefix are counted and go, others stay; without Valkey memory is flushed and the rest told."""
    valkey = own_valkey()
    service = make_service(database_url, valkey.url, redis__key_prefix="p*:", server__grace_seconds=1)
    await service.start_async()
    async with (
        RegistryClient(service.target) as registry,
        ControlClient(service.target, metadata=CONTROL) as process,
    ):

        async def read() -> None:
            """Registers and reads, so that both caches hold it."""
            request = schema_service_pb2.RegisterSchemaRequest(
                subject="flushed", format=schema_pb2.SCHEMA_FORMAT_JSON, text="{}"
            )
            made = await registry.call(registry.schemas.RegisterSchema, request)
            await registry.call(registry.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=made.schema.id))

        async def flush() -> dict[str, pb.FlushedCache]:
            """What was flushed, by name."""
            answer = await process.call(process.control.FlushCaches, pb.FlushCachesRequest())
            return {each.name: each for each in answer.caches}

        await read()
        with redis.Redis.from_url(valkey.url) as keys:
            keys.set("px:not below it", "1")
            keys.mset({f"p*:old:{number}": "1" for number in range(1200)})
            first = await flush()
            left = set(keys.scan_iter("*"))
        again = await flush()
        await read()
        await valkey.stop_async()
        gone = await flush()

    assert first["redis"].entries >= 1200
    assert [each.problem for each in first.values()] == ["", ""]
    assert left == {b"px:not below it"}
    assert again["redis"].entries == again["memory"].entries == 0
    assert gone["memory"].problem == ""
    assert "Redis" in gone["redis"].problem
    assert gone["redis"].entries == 0
