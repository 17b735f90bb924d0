"""The system as its parts answer: status, options, modes and caches, over real processes."""

from __future__ import annotations

import pytest
import redis

from deploy.local.valkey import Valkey
from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import system_pb2
from llm_schema_registry.client import AdminClient, RegistryClient
from llm_schema_registry.common.v1 import service_state_pb2
from llm_schema_registry.control.v1 import process_pb2
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_faults import eventually
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService
from tests.fix_steering import System


async def status(client: AdminClient) -> system_pb2.SystemStatus:
    """The status."""
    return (await client.call(client.system.GetSystemStatus, pb.GetSystemStatusRequest())).status


async def mode(client: AdminClient, wanted: service_state_pb2.ServiceState.ValueType) -> pb.SetModeResponse:
    """Sets the registry's mode."""
    return await client.call(client.system.SetMode, pb.SetModeRequest(mode=wanted))


def registration(subject: str) -> schema_service_pb2.RegisterSchemaRequest:
    """A registration."""
    return schema_service_pb2.RegisterSchemaRequest(
        subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=f'{{"title": "{subject}"}}'
    )


@pytest.mark.option("peers.registry", "peers.backup", "peers.admin", "peers.control_token", "admin.directory")
async def test_status_shows_every_process(steered: System) -> None:
    """Each service has its replica, which says its own state; the missing backup is a problem in words."""
    async with admin_client(steered.admin) as client:
        found = await status(client)

    assert [each.service for each in found.services] == ["registry", "backup", "admin"]
    for named, service in zip(found.services, [*steered.registries, steered.backup, steered.admin], strict=True):
        [replica] = named.replicas
        assert (replica.address, replica.problem) == (service.target, "")
        assert replica.process.service == named.service
        assert replica.process.state == service_state_pb2.SERVICE_STATE_SERVING
        assert replica.process.version
        assert replica.process.start_time.seconds
    assert found.health == process_pb2.HEALTH_STATUS_DEGRADED
    assert "there is no backup yet" in found.problems
    assert found.protection.newest_backup_id == ""


@pytest.mark.option("peers.timeout_seconds")
async def test_a_replica_that_is_down_is_named(
    make_admin_service: MakeAdminService, steered: System, database_url: str
) -> None:
    """One of two replicas is gone, the backup service too: both are named with their address, the gravest first."""
    registry = steered.registries[0]
    service = make_admin_service(
        database_url, registry=[registry.target, "127.0.0.1:1"], backup=["127.0.0.1:1"], peers__timeout_seconds=3
    )
    await service.start_async()

    async with admin_client(service) as client:
        found = await status(client)

    assert found.health == process_pb2.HEALTH_STATUS_UNHEALTHY
    assert found.problems[0] == "no replica of backup serves"
    assert any(problem.startswith("registry at 127.0.0.1:1 does not answer") for problem in found.problems)
    [registry_status] = [each for each in found.services if each.service == "registry"]
    assert [bool(each.problem) for each in registry_status.replicas] == [False, True]
    assert not found.HasField("protection")


@pytest.mark.slow
async def test_admin_serves_without_the_database(
    make_admin_service: MakeAdminService, make_service: MakeService, own_postgres: object
) -> None:
    """PostgreSQL stopped: admin is ready, starts anew as well, and says what is wrong with the registry."""
    server: OwnPostgres = own_postgres()  # type: ignore[operator]
    registry = make_service(server.create_database("alone"), health__poll_seconds=0.2)
    await registry.start_async()
    service = make_admin_service(
        registry.environment["SCHEMA_REGISTRY__DATABASE__URL"], registry=[registry.target], backup=["127.0.0.1:1"]
    )
    await service.start_async()
    await server.stop_async()

    async with admin_client(service) as client:

        async def told() -> bool:
            return any("postgresql is UNHEALTHY" in each for each in (await status(client)).problems)

        await eventually(told)
    assert service.http("/health/ready")[0] == 200
    assert await service.stop_async() == 0
    await service.start_async()
    assert service.http("/health/ready")[0] == 200


async def test_modes_reach_every_replica(steered: System) -> None:
    """READ_ONLY refuses writes and answers reads; SERVING takes them again; an unknown mode or service is named."""
    async with admin_client(steered.admin) as client, RegistryClient(steered.registries[0].target) as registry:
        read_only = await mode(client, service_state_pb2.SERVICE_STATE_READ_ONLY)
        with pytest.raises(errors.ReadOnly):
            await registry.call(registry.schemas.RegisterSchema, registration("modes"))
        serving = await mode(client, service_state_pb2.SERVICE_STATE_SERVING)
        await registry.call(registry.schemas.RegisterSchema, registration("modes"))
        request = pb.SetModeRequest(mode=service_state_pb2.SERVICE_STATE_DRAINING, services=["gateway"])
        with pytest.raises(errors.InvalidField) as refused:
            await client.call(client.system.SetMode, request)

    assert [each.process.state for each in read_only.replicas] == [service_state_pb2.SERVICE_STATE_READ_ONLY]
    assert [each.process.state for each in serving.replicas] == [service_state_pb2.SERVICE_STATE_SERVING]
    assert sorted(each.field for each in refused.value.violations) == ["mode", "services"]


async def test_flush_reaches_memory_and_valkey(steered: System, valkey_server: Valkey) -> None:
    """Only keys below the registry's prefix go; what was flushed is read from the database again."""
    with redis.Redis.from_url(valkey_server.url) as keys:
        async with admin_client(steered.admin) as client, RegistryClient(steered.registries[0].target) as registry:
            made = await registry.call(registry.schemas.RegisterSchema, registration("flushed"))
            request = schema_service_pb2.GetSchemaRequest(id=made.schema.id)
            await registry.call(registry.schemas.GetSchema, request)
            keys.set("steered:left by an older epoch", "1")
            keys.set("steere", "not ours")
            keys.set("other:steered:", "not ours")

            answer = await client.call(client.system.FlushCaches, pb.FlushCachesRequest())
            left = set(keys.scan_iter("*steere*"))
            again = await registry.call(registry.schemas.GetSchema, request)

    assert [each.problem for each in answer.replicas] == [""]
    assert left == {b"steere", b"other:steered:"}
    assert again.schema.text == made.schema.text


async def test_options_of_every_service(steered: System) -> None:
    """Every option with its source, and no secret."""
    async with admin_client(steered.admin) as client:
        for service in ("registry", "backup", "admin"):
            request = pb.GetEffectiveConfigRequest(service=service)
            [replica] = (await client.call(client.system.GetEffectiveConfig, request)).replicas
            options = {each.option: each for each in replica.options}
            assert options["control.token"].value == "********"
            assert options["server.grpc_port"].source != "default"
        with pytest.raises(errors.InvalidField):
            await client.call(client.system.GetEffectiveConfig, pb.GetEffectiveConfigRequest(service="gateway"))
