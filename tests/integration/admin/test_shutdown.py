"""AdminService.Shutdown with real processes: one after the other under load, and all of them for good."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import system_pb2
from llm_schema_registry.client import AdminClient, RegistryClient
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2
from llm_schema_registry.registry.v1 import change_service_pb2, schema_pb2, schema_service_pb2, subject_service_pb2
from tests.fix_admin import admin_client
from tests.fix_calls import Registry
from tests.fix_faults import mixed_load
from tests.fix_steering import RESTART, MakeSystem, supervised

LIMIT_SECONDS = 120
BROKEN = {errors.Code.UNAVAILABLE, errors.Code.CANCELLED}


async def shut_down(
    client: AdminClient, mode: system_pb2.ShutdownMode.ValueType, services: Sequence[str] = ()
) -> tuple[operation_pb2.Operation, list[str]]:
    """The operation once it has ended, and the steps that were told on the way."""
    request = pb.ShutdownRequest(mode=mode, services=services, cause="a test", request_id="one")
    begun = (await client.call(client.system.Shutdown, request)).operation
    steps: dict[str, None] = {}
    watch = operation_service_pb2.WatchOperationRequest(name=begun.name)
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                async for answer in client.stream(client.operations.WatchOperation, watch):
                    if answer.event.HasField("step"):
                        steps[answer.event.step.name] = None
                    if answer.event.HasField("ended"):
                        return answer.event.ended, list(steps)
            except errors.Error as broken:
                if broken.code not in BROKEN:
                    raise
            await asyncio.sleep(0.2)


def made(operation: operation_pb2.Operation) -> system_pb2.ShutdownRecord:
    """What it did."""
    assert not operation.HasField("error"), operation.error
    record = system_pb2.ShutdownRecord()
    assert operation.response.Unpack(record)
    return record


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_rolling_restart_of_everything_is_not_noticed(new_system: MakeSystem, name: Callable[..., str]) -> None:
    """One request restarts two registries, the backup and the admin service under load: no call of a client fails, no
    acknowledged write is lost, and the watch tells every replica to the end.
    """
    system = new_system(registries=2, server__drain_seconds=1)
    await system.start_async()
    async with AsyncExitStack() as stack:
        supervisors = await stack.enter_async_context(supervised(system.services))
        targets = [each.target for each in system.registries]
        clients = [await stack.enter_async_context(RegistryClient(targets)) for _ in range(3)]
        registries = [Registry(each) for each in clients]
        admin = await stack.enter_async_context(admin_client(system.admin))
        async with mixed_load(registries, name("rolled")) as load:
            ended, steps = await shut_down(admin, system_pb2.SHUTDOWN_MODE_ROLLING)
        calls = registries[0]
        stored = {}
        for subject in load.acknowledged:
            request = subject_service_pb2.GetVersionRequest(subject=subject, number=1)
            stored[subject] = (await calls.call(calls.subjects.GetVersion, request)).schema.id

    assert load.failures == [], Counter(failure.partition(" after ")[0] for failure in load.failures)
    assert stored == load.acknowledged
    assert min(load.calls.values()) > 20, load.calls
    assert [each.statuses for each in supervisors] == [[RESTART]] * 4
    places = [("registry", each) for each in targets] + [
        ("backup", system.backup.target),
        ("admin", system.admin.target),
    ]
    assert steps == ["look at every replica", *(f"restart {service} at {target}" for service, target in places)]
    assert [(each.service, each.address) for each in made(ended).replicas] == places
    assert all(each.process.instance_id for each in made(ended).replicas)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_full_shutdown_ends_everything_in_order(new_system: MakeSystem) -> None:
    """Every process ends with 0; the archive holds the last write that was acknowledged; a later start needs nothing by
    hand and shows the shutdown.
    """
    system = new_system(backup={"archive__seal_seconds": 30})
    await system.start_async()
    [registry] = system.registries
    async with RegistryClient(registry.target) as client, admin_client(system.admin) as admin:
        for number in range(20):
            request = schema_service_pb2.RegisterSchemaRequest(
                subject=f"last-{number}", format=schema_pb2.SCHEMA_FORMAT_JSON, text=f'{{"title": "{number}"}}'
            )
            await client.call(client.schemas.RegisterSchema, request)
        page = await client.call(client.changes.ListChanges, change_service_pb2.ListChangesRequest(page_size=1000))
        position = page.changes[-1].position
        ended, _ = await shut_down(admin, system_pb2.SHUTDOWN_MODE_FULL)

    assert [await asyncio.to_thread(each.wait) for each in system.services] == [0, 0, 0]
    assert [each.service for each in made(ended).replicas] == ["registry", "backup", "admin"]
    assert "operation not recorded" not in system.admin.log
    segments = [path.name for path in (system.store / "archive").glob("*/*-*")]
    assert max(int(segment.rpartition("-")[2]) for segment in segments) == position, segments
    await system.start_async()
    async with admin_client(system.admin) as admin:
        shown = operation_service_pb2.GetOperationRequest(name=ended.name)
        again = (await admin.call(admin.operations.GetOperation, shown)).operation
    assert made(again) == made(ended)
