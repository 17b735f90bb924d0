"""Data and schemas that make native code explode end in a clear error, and hurt nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from tests.fix_calls import Registry
from tests.fix_service import MakeService, Service

Name = Callable[..., str]
DOUBLING = {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}}, "not": {"const": 1}}
"""Each level of data that is at fault doubles the work."""


def nested(levels: int) -> bytes:
    """Data without a fault where it is small, and with one at the end of endless work where it is deep."""
    return b'{"a":' * levels + (b"2" if levels < 10 else b"1") + b"}" * levels


def workers(service: Service) -> list[int]:
    """Process ids of a registry's workers."""
    children = {
        int(pid)
        for task in Path(f"/proc/{service.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    }
    return [pid for pid in children if b"services.registry.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_exploding_data_is_ended_and_others_are_served(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """LIMIT_EXCEEDED within seconds; meanwhile readers are answered, and the stop is not held up."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        bomb = await calls.register(name(), DOUBLING)
        other = await calls.register(name(), {"type": "object"})

        async def check(levels: int) -> pb.ValidateDataResponse:
            request = pb.ValidateDataRequest(schema_id=bomb.schema.id, data=nested(levels))
            return await calls.call(calls.validation.ValidateData, request)

        assert (await check(3)).valid
        attack = [asyncio.create_task(check(60)) for _ in range(2)]
        slowest = 0.0
        while not all(task.done() for task in attack):
            began = time.monotonic()
            await calls.schema(other.schema.id)
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.01)
        for task in attack:
            with pytest.raises(errors.LimitExceeded, match="longer than"):
                await task
        assert slowest < 2
        assert (await check(3)).valid

        dying = asyncio.create_task(check(60))
        await asyncio.sleep(0)
        assert await service.stop_async() == 0
        with pytest.raises(errors.Error):
            await dying


async def test_workers_die_with_their_process(make_service: MakeService, database_url: str, name: Name) -> None:
    """kill -9 of the registry leaves no worker behind."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        bomb = await calls.register(name(), DOUBLING)
        request = pb.ValidateDataRequest(schema_id=bomb.schema.id, data=nested(2))
        await calls.call(calls.validation.ValidateData, request)
        children = workers(service)
        assert children

        service.kill()

        async with asyncio.timeout(60):
            while any(alive(pid) for pid in children):  # noqa: ASYNC110 - the end of another process is no event here
                await asyncio.sleep(0.02)


async def test_a_worker_that_crashes_is_replaced(make_service: MakeService, database_url: str, name: Name) -> None:
    """The call in work gets an error, the next one an answer."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        bomb = await calls.register(name(), DOUBLING)

        async def check(levels: int) -> pb.ValidateDataResponse:
            request = pb.ValidateDataRequest(schema_id=bomb.schema.id, data=nested(levels))
            return await calls.call(calls.validation.ValidateData, request)

        await check(2)
        [worker] = workers(service)
        before = ticks(worker)
        working = asyncio.create_task(check(60))
        while ticks(worker) < before + 5:  # noqa: ASYNC110 - the work of another process is no event here
            await asyncio.sleep(0.02)
        os.kill(worker, signal.SIGKILL)

        with pytest.raises(errors.LimitExceeded, match="ended its process"):
            await working
        assert (await check(2)).valid


def ticks(pid: int) -> int:
    """Time that a process has computed, in hundredths of a second. Source: proc(5), utime of /proc/pid/stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
