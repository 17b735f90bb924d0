"""The registry as it runs outside of local mode: who has no certificate of the authority gets nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient, Tls, from_rpc_error
from llm_schema_registry.control.v1 import control_service_pb2, control_service_pb2_grpc
from llm_schema_registry.registry.v1 import change_service_pb2
from tests.fix_calls import Registry
from tests.fix_service import CONTROL_TOKEN, MakeService, Service
from tests.fix_tls import Authority, Leaf, secure_channel

Name = Callable[..., str]
ALICE = "spiffe://example.org/alice"
OPERATOR = "spiffe://example.org/operator"


@pytest.fixture
async def service(make_service: MakeService, database_url: str, authority: Authority) -> AsyncIterator[Service]:
    """A registry with mTLS, which the operator's certificate may control, beside the token."""
    leaf = authority.issue("server")
    service = make_service(
        database_url,
        server__local_mode="false",
        server__listen_address="127.0.0.1",
        server__health_port=0,
        server__tls_enabled="true",
        server__tls_cert_path=leaf.cert,
        server__tls_key_path=leaf.key,
        security__mtls_enabled="true",
        security__ca_cert_path=authority.cert,
        control__client_names=f"{OPERATOR},spiffe://example.org/another",
    )
    await service.start_async()
    yield service
    assert await service.stop_async() == 0, service.log[-4000:]


def tls(authority: Authority, leaf: Leaf | None) -> Tls:
    """What a client is given: the authority, and its own certificate if it has one."""
    if leaf is None:
        return Tls(root=authority.cert)
    return Tls(root=authority.cert, certificate=leaf.cert, key=leaf.key)


async def control_state(
    service: Service, authority: Authority, leaf: Leaf, metadata: tuple[tuple[str, str], ...] = ()
) -> int:
    """The state that ControlService tells a caller. Raises the server's error."""
    async with secure_channel(service.ports["grpc_port"], authority, leaf) as channel:
        stub: Any = control_service_pb2_grpc.ControlServiceStub(channel)
        try:
            answer = await stub.GetState(control_service_pb2.GetStateRequest(), metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as failed:
            raise from_rpc_error(failed) from None
    state: int = answer.process.state
    return state


async def test_certificates_decide_who_is_served(
    service: Service, authority: Authority, tmp_path: Path, name: Name
) -> None:
    """A certificate of the authority names the caller in the history; without one, or with a stranger's, nothing."""
    alice = authority.issue("alice", uris=(ALICE,))
    foreign_folder = tmp_path / "foreign"
    foreign_folder.mkdir()
    stranger = Authority(foreign_folder).issue("stranger")
    subject = name()

    async with RegistryClient(service.target, tls=tls(authority, alice)) as client:
        calls = Registry(client)
        made = await calls.register(subject, {"title": subject})
        read = await calls.schema(made.schema.id)
        page = await calls.call(calls.changes.ListChanges, change_service_pb2.ListChangesRequest())

    async def refused(wrong: Tls | None) -> errors.Code:
        async with RegistryClient(service.target, tls=wrong) as client:
            with pytest.raises(errors.Error) as caught:
                await Registry(client).schema(made.schema.id)
        return caught.value.code

    codes = await asyncio.gather(*map(refused, (tls(authority, None), tls(authority, stranger), None)))

    assert read == made.schema
    assert [(change.position, change.actor) for change in page.changes] == [(1, ALICE)]
    assert set(codes) <= {errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED}


async def test_probes_need_no_certificate(service: Service) -> None:
    """The plaintext health port answers Check and nothing else; the HTTP pages answer too."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.ports['health_port']}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answers = [
            (await stub.Check(health_pb2.HealthCheckRequest(service=of), timeout=30)).status
            for of in ("", "readiness", "liveness", "llm_schema_registry.registry.v1.SchemaService")
        ]
        control: Any = control_service_pb2_grpc.ControlServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await control.GetState(control_service_pb2.GetStateRequest(), timeout=30)
    status, body = await asyncio.to_thread(service.http, "/health/ready")

    assert answers == [health_pb2.HealthCheckResponse.SERVING] * 4
    assert type(from_rpc_error(caught.value)) is errors.MethodUnknown
    assert (status, json.loads(body)["ready"]) == (200, True)


async def test_control_needs_a_named_certificate_or_the_token(service: Service, authority: Authority) -> None:
    """A certificate that is good for schemas does not steer the process; a named one does, and so does the token."""
    alice = authority.issue("alice", uris=(ALICE,))
    operator = authority.issue("operator", uris=(OPERATOR,))
    token = (("authorization", f"Bearer {CONTROL_TOKEN}"),)

    states = [await control_state(service, authority, operator), await control_state(service, authority, alice, token)]
    with pytest.raises(errors.CredentialInvalid, match=r"control\.client_names"):
        await control_state(service, authority, alice)

    assert states[0] == states[1]
