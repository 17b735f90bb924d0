"""Who may use the admin service: nobody without the admin credential, for reads as well."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.client import AdminClient, ControlClient, Tls, from_rpc_error
from llm_schema_registry.control.v1 import control_service_pb2
from llm_schema_registry.kernel.settings_sources import CONFIG_FILE, SettingsInvalid, load
from llm_schema_registry.objects.s3_options import s3_options
from services.admin.app import OPERATION, PACKAGE
from services.admin.assembly import PREFIX
from services.admin.settings import AdminServiceSettings
from tests.fix_admin import ADMIN_TOKEN, MakeAdminService, admin_environment
from tests.fix_faults import eventually
from tests.fix_service import CONTROL_TOKEN
from tests.fix_steering import System
from tests.fix_tls import Authority

CONTROL = [("authorization", f"Bearer {CONTROL_TOKEN}")]
MODULES = {PACKAGE: ("admin", "recovery", "maintenance"), OPERATION: ("operation",)}


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the packages that the process serves parts of."""
    for package, stems in MODULES.items():
        for stem in stems:
            module = importlib.import_module(f"{package}.{stem}_service_pb2")
            for service in module.DESCRIPTOR.services_by_name.values():
                yield from service.methods


async def answer(channel: Any, method: MethodDescriptor, metadata: Any) -> errors.Error | None:
    """The error that an empty request gets; None for an answer."""
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            async for _ in channel.unary_stream(path)(b"", metadata=metadata, timeout=10):
                return None
        else:
            await channel.unary_unary(path)(b"", metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as failed:
        return from_rpc_error(failed)
    return None


@pytest.mark.option("admin.token")
async def test_every_method_needs_the_admin_token(steered: System) -> None:
    """No method answers without the token, or with another one; the log names method and peer of each denial."""
    wrong: list[Any] = [(), [("authorization", "Bearer nothing")], [("authorization", ADMIN_TOKEN)], CONTROL]
    tried = 0
    async with grpc.aio.insecure_channel(steered.admin.target) as channel:
        for method in methods():
            for metadata in wrong:
                refused = await answer(channel, method, metadata)
                if not isinstance(refused, errors.MethodUnknown):
                    tried += 1
                    assert type(refused) is errors.CredentialInvalid, (method.full_name, refused)
        assert await answer(channel, next(methods()), [("authorization", f"Bearer {ADMIN_TOKEN}")]) is None

    assert tried >= len(wrong) * 10

    def denials() -> list[dict[str, Any]]:
        return [line for line in steered.admin.log_lines() if line.get("reason") == "CREDENTIAL_INVALID"]

    async def written() -> bool:
        # A line is written a moment after the answer.
        return len(denials()) >= tried

    await eventually(written)
    denied = denials()
    assert all(line["peer"] and line["method"] and not line["caller"] for line in denied)
    assert ADMIN_TOKEN not in steered.admin.log


@pytest.mark.option(
    "admin.client_names",
    "peers.tls_enabled",
    "peers.ca_cert_path",
    "peers.client_cert_path",
    "peers.client_key_path",
    "peers.server_name",
)
async def test_certificates_instead_of_tokens(
    make_admin_service: MakeAdminService, database_url: str, authority: Authority, free_port: Callable[[], int]
) -> None:
    """Under mTLS a certificate that admin.client_names names is enough; so is the one that the process shows others."""
    server = authority.issue("server", dns=("system.example",), uris=("spiffe://example.org/admin",))
    operator = authority.issue("operator", uris=("spiffe://example.org/operator",))
    other = authority.issue("other", uris=("spiffe://example.org/other",))
    port = free_port()
    service = make_admin_service(
        database_url,
        registry=["127.0.0.1:1"],
        backup=["127.0.0.1:1"],
        server__local_mode="false",
        server__health_port=0,
        server__listen_address="127.0.0.1",
        server__grpc_port=port,
        server__tls_enabled="true",
        server__tls_cert_path=server.cert,
        server__tls_key_path=server.key,
        security__mtls_enabled="true",
        security__ca_cert_path=authority.cert,
        admin__client_names="spiffe://example.org/operator, another.example",
        admin__token="",
        control__client_names="spiffe://example.org/admin",
        peers__control_token="",
        peers__admin=f"localhost:{port}",
        peers__tls_enabled="true",
        peers__ca_cert_path=authority.cert,
        peers__client_cert_path=server.cert,
        peers__client_key_path=server.key,
        peers__server_name="system.example",
    )
    await service.start_async()
    request = pb.GetEffectiveConfigRequest(service="admin")
    found = []
    for issued, allowed in ((operator, True), (other, False)):
        async with AdminClient(service.target, tls=Tls(authority.cert, issued.cert, issued.key)) as client:
            if allowed:
                found = list((await client.call(client.system.GetEffectiveConfig, request)).replicas)
            else:
                with pytest.raises(errors.CredentialInvalid):
                    await client.call(client.system.GetEffectiveConfig, request)

    assert [(each.address, each.problem) for each in found] == [(f"127.0.0.1:{port}", "")]
    assert len(found[0].options) > 50


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"peers__client_cert_path": "{cert}"}, "peers.client_key_path"),
        ({"peers__ca_cert_path": "/nowhere.pem"}, "peers.ca_cert_path"),
        ({"peers__registry": "registry"}, "peers.registry"),
        ({"admin__token": ""}, "admin.token"),
        ({"admin__token": "short"}, "admin.token"),
        ({"admin__directory": ""}, "admin.directory"),
        ({"s3__bucket": "bucket", "admin__directory": "/tmp/somewhere"}, "admin.directory"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], told: str, authority: Authority, tmp_path: Path) -> None:
    """What does not fit together is refused at the start, by its option."""
    given = {name: value.format(cert=authority.cert) for name, value in options.items()}
    environment = admin_environment("postgresql://nobody@127.0.0.1:1/none", {"admin__directory": tmp_path, **given})

    with pytest.raises(SettingsInvalid) as refused:
        load(AdminServiceSettings, environment)

    assert told in str(refused.value)


async def test_a_new_token_needs_no_restart(
    make_admin_service: MakeAdminService, database_url: str, tmp_path: Path
) -> None:
    """After Reload the new token is in force and the old one is refused."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("admin: {token: the-first-admin-token}\n")
    service = make_admin_service(database_url, registry=["127.0.0.1:1"], backup=["127.0.0.1:1"])
    del service.environment["SCHEMA_REGISTRY__ADMIN__TOKEN"]
    service.environment[CONFIG_FILE] = str(settings)
    await service.start_async()

    settings.write_text("admin: {token: the-second-admin-token}\n")
    async with ControlClient(service.target, metadata=CONTROL) as control:
        reloaded = await control.call(control.control.Reload, control_service_pb2.ReloadRequest())

    assert list(reloaded.changed_options) == ["admin.token"]
    request = pb.GetEffectiveConfigRequest(service="registry")
    for token, allowed in (("the-second-admin-token", True), ("the-first-admin-token", False)):
        async with AdminClient(service.target, metadata=[("authorization", f"Bearer {token}")]) as client:
            if allowed:
                await client.call(client.system.GetEffectiveConfig, request)
            else:
                with pytest.raises(errors.CredentialInvalid):
                    await client.call(client.system.GetEffectiveConfig, request)


@pytest.mark.option("s3.bucket", "s3.prefix")
def test_journals_lie_below_a_prefix_of_their_own() -> None:
    """In a bucket that the backup service uses too, every key of this service begins with its own prefix."""
    given = {"s3__bucket": "bucket", "s3__prefix": "team/", "s3__region": "eu-central-1"}
    environment = admin_environment("postgresql://nobody@127.0.0.1:1/none", dict(given))
    settings = load(AdminServiceSettings, environment).settings

    options = s3_options(settings.s3, below=PREFIX)

    assert (options.bucket, options.prefix.strip("/"), options.region) == ("bucket", "team/admin", "eu-central-1")
