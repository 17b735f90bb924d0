"""TLS and mTLS over real connections: who gets in, under which name, and how certificates are replaced."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.kernel.certificates import Certificates, CertificatesInvalid
from llm_schema_registry.kernel.settings import SecuritySettings, ServerSettings, ServiceSettings
from tests.fix_echo import EchoCode, health_stub, local_settings, open_channel, serve_echo
from tests.fix_tls import Authority, Leaf, secure_channel

SPIFFE = "spiffe://example.org/registry-client"


def tls_settings(leaf: Leaf, authority: Path | None = None) -> ServiceSettings:
    """Settings with TLS; with an authority, mTLS outside of local mode."""
    server = ServerSettings(
        listen_address="127.0.0.1",
        local_mode=authority is None,
        grpc_port=0,
        http_port=0,
        health_port=0,
        drain_seconds=0,
        tls_enabled=True,
        tls_cert_path=leaf.cert,
        tls_key_path=leaf.key,
    )
    security = SecuritySettings(mtls_enabled=authority is not None, ca_cert_path=authority)
    return local_settings(server=server, security=security)


async def common_name(port: int) -> str:
    """Common name of the certificate that a port presents to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return str(x509.load_der_x509_certificate(raw).subject.rfc4514_string())


@pytest.mark.option("server.tls_enabled", "server.tls_cert_path", "server.tls_key_path")
async def test_tls_is_spoken(echo_code: EchoCode, authority: Authority) -> None:
    """With TLS on, the configured certificate is presented and a plaintext caller is turned away."""
    settings = tls_settings(authority.issue("first"))
    async with serve_echo(echo_code, settings) as server:
        async with secure_channel(server.ports.grpc, authority) as channel:
            assert (await server.stub(channel).Echo(server.request("hello"))).text == "hello"
        async with open_channel(server.ports.grpc) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await server.stub(channel).Echo(server.request("hello"), timeout=5)

        assert await common_name(server.ports.grpc) == "CN=first"
        assert server.ports.health is None


@pytest.mark.option("security.mtls_enabled", "security.ca_cert_path")
async def test_mtls_names_the_caller(echo_code: EchoCode, authority: Authority) -> None:
    """Under mTLS the caller is named by its certificate; one without a certificate of the authority gets nowhere."""
    settings = tls_settings(authority.issue("server"), authority.cert)
    client = authority.issue("client", uris=(SPIFFE,))
    async with serve_echo(echo_code, settings) as server:
        async with secure_channel(server.ports.grpc, authority, client) as channel:
            assert (await server.stub(channel).Echo(server.request())).caller == SPIFFE
        async with secure_channel(server.ports.grpc, authority) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.stub(channel).Echo(server.request(), timeout=5)

        assert type(from_rpc_error(caught.value)) is errors.NotServing


async def test_foreign_certificates_are_refused(echo_code: EchoCode, authority: Authority, tmp_path: Path) -> None:
    """A client certificate of another authority gets nowhere."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    stranger = Authority(folder).issue("stranger")
    settings = tls_settings(authority.issue("server"), authority.cert)
    async with (
        serve_echo(echo_code, settings) as server,
        secure_channel(server.ports.grpc, authority, stranger) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub(channel).Echo(server.request(), timeout=5)


@pytest.mark.option("server.health_port")
async def test_chosen_health_port_is_bound(
    echo_code: EchoCode, authority: Authority, free_port: Callable[[], int]
) -> None:
    """Health answers on the port that the settings name."""
    port = free_port()
    settings = tls_settings(authority.issue("server"), authority.cert)
    chosen = settings.model_copy(update={"server": settings.server.model_copy(update={"health_port": port})})
    async with serve_echo(echo_code, chosen) as server, open_channel(port) as channel:
        answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest())

        assert server.ports.health == port
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_port_is_plaintext_and_serves_only_health(echo_code: EchoCode, authority: Authority) -> None:
    """Under mTLS probes find health, and nothing else, on a plaintext port."""
    settings = tls_settings(authority.issue("server"), authority.cert)
    async with serve_echo(echo_code, settings) as server:
        assert server.ports.health
        async with open_channel(server.ports.health) as channel:
            answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.stub(channel).Echo(server.request())

        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert type(from_rpc_error(caught.value)) is errors.MethodUnknown


async def test_certificates_reload_when_files_change(echo_code: EchoCode, authority: Authority) -> None:
    """New files are presented to new connections; files that cannot be used are logged once and change nothing."""
    leaf = authority.issue("first")
    async with serve_echo(echo_code, tls_settings(leaf)) as server:
        port = server.ports.grpc
        assert await common_name(port) == "CN=first"

        second = authority.issue("second")
        second.key.replace(leaf.key)
        second.cert.replace(leaf.cert)
        assert await common_name(port) == "CN=second"

        leaf.cert.write_text("no certificate")
        assert [await common_name(port) for _ in range(3)] == ["CN=second"] * 3
        assert [line["event"] for line in server.lines() if line["event"].startswith("certificates")] == [
            "certificates reloaded",
            "certificates not reloaded, those before stay",
        ]

        third = authority.issue("third")
        third.key.replace(leaf.key)
        third.cert.replace(leaf.cert)
        assert await common_name(port) == "CN=third"


@pytest.mark.option("security.ca_cert_path")
async def test_authority_reloads_when_its_file_changes(
    echo_code: EchoCode, authority: Authority, tmp_path: Path
) -> None:
    """After the authority's file has changed, new connections need a certificate of the new authority."""
    folder = tmp_path / "next"
    folder.mkdir()
    following = Authority(folder)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.cert.read_bytes())
    before, after = authority.issue("before"), following.issue("after")
    async with serve_echo(echo_code, tls_settings(authority.issue("server"), clients)) as server:

        async def gets_in(leaf: Leaf) -> bool:
            async with secure_channel(server.ports.grpc, authority, leaf) as channel:
                try:
                    await server.stub(channel).Echo(server.request(), timeout=5)
                except grpc.aio.AioRpcError:
                    return False
                return True

        assert [await gets_in(before), await gets_in(after)] == [True, False]

        clients.write_text("no certificate")
        assert await gets_in(before)

        following.cert.replace(clients)
        assert [await gets_in(before), await gets_in(after)] == [False, True]


@pytest.mark.parametrize("broken", ["cert", "key", "authority", "pair"])
def test_unusable_files_are_refused_at_start(authority: Authority, broken: str) -> None:
    """Files that are no PEM, or a key of another certificate, keep the process from starting."""
    leaf, other = authority.issue("server"), authority.issue("other")
    match broken:
        case "cert":
            leaf.cert.write_text("x")
        case "key":
            leaf.key.write_text("x")
        case "authority":
            authority.cert.write_text("x")
        case _:
            leaf = Leaf(leaf.cert, other.key)

    with pytest.raises(CertificatesInvalid):
        Certificates.of(tls_settings(leaf, authority.cert), logger=Any)
