"""A channel as our services want it: TLS, round robin, deadlines, repeats where they are safe, large messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from llm_schema_registry.client.service_config import default_deadlines, service_config

MESSAGE_BYTES_MAX = 16 << 20
KEEPALIVE_SECONDS = 60
"""Not below the server's `performance.min_ping_interval_seconds`, or it ends the connection."""
RECONNECT_SECONDS_MAX = 1
"""Longest wait before a replica is tried again. In a rolling restart the next replica leaves server.drain_seconds after
this one came back, and by then clients must have found it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. root: the authority of the server's certificate, None for the system's. certificate and key: ours."""

    root: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


def open_channel(
    target: str | Sequence[str], *, tls: Tls | None = None, metadata: Sequence[tuple[str, str]] = ()
) -> grpc.aio.Channel:
    """An asyncio channel to one address or to several replicas; close it, or use it with `async with`.

    target: `host:port`, any gRPC name (`dns:///registry:9090`), or several `address:port` with numeric addresses.
    tls: None for plaintext. metadata: sent with every call, for example a credential.
    Mutations get a `request_id` when the caller set none, so that a repeat is answered like the first attempt.
    Raises OSError when a PEM file cannot be read.
    """
    name = target if isinstance(target, str) else _addresses(target)
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", service_config()),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_SECONDS_MAX * 1000),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    interceptors: list[grpc.aio.ClientInterceptor] = [Defaults()]
    if metadata:
        interceptors += [_UnaryMetadata(metadata), _StreamMetadata(metadata), _BothStreamsMetadata(metadata)]
    if tls is None:
        return grpc.aio.insecure_channel(name, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(name, _credentials(tls), options=options, interceptors=interceptors)


class Defaults(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every call its method's deadline, and every mutation a request id, unless the caller gave one.

    gRPC's own `timeout` of the service config ends calls only in this process; a deadline is told to the server.
    The caller's message is left as it is.
    """

    def __init__(self, new_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._new_id = new_id
        self._seconds = {f"/{method}": seconds for method, seconds in default_deadlines()}

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Sends the request, completed."""
        details = client_call_details
        if details.timeout is None:
            details = _details(details, timeout=self._seconds.get(_text(details.method)))
        if isinstance(request, Message) and "request_id" in request.DESCRIPTOR.fields_by_name:
            carrying: Any = request
            if not carrying.request_id:
                carrying = type(request)()
                carrying.CopyFrom(request)
                carrying.request_id = self._new_id()
            return await continuation(details, carrying)
        return await continuation(details, request)


class _UnaryMetadata(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds metadata to unary calls."""

    def __init__(self, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Sends the call with the metadata."""
        return await continuation(_with(client_call_details, self._metadata), request)


class _StreamMetadata(grpc.aio.UnaryStreamClientInterceptor):
    """Adds metadata to calls that answer with a stream."""

    def __init__(self, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = metadata

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Sends the call with the metadata."""
        return await continuation(_with(client_call_details, self._metadata), request)


class _BothStreamsMetadata(grpc.aio.StreamStreamClientInterceptor):
    """Adds metadata to calls of two streams."""

    def __init__(self, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = metadata

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Sends the call with the metadata."""
        return await continuation(_with(client_call_details, self._metadata), request_iterator)


def _with(details: Any, metadata: Sequence[tuple[str, str]]) -> grpc.aio.ClientCallDetails:
    sent = grpc.aio.Metadata(*(details.metadata or ()))
    for key, value in metadata:
        sent.add(key, value)
    return _details(details, metadata=sent)


def _details(details: Any, **changes: Any) -> grpc.aio.ClientCallDetails:
    """Call details with another timeout or other metadata."""
    kept = {"timeout": details.timeout, "metadata": details.metadata} | changes
    return grpc.aio.ClientCallDetails(
        details.method, kept["timeout"], kept["metadata"], details.credentials, details.wait_for_ready
    )


def _text(method: str | bytes) -> str:
    """The method's path; grpc.aio gives it as bytes."""
    return method.decode() if isinstance(method, bytes) else method


def _addresses(targets: Sequence[str]) -> str:
    """One gRPC name for several numeric addresses."""
    family = "ipv6" if targets[0].startswith("[") else "ipv4"
    return f"{family}:{','.join(targets)}"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    def read(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    return grpc.ssl_channel_credentials(
        root_certificates=read(tls.root), private_key=read(tls.key), certificate_chain=read(tls.certificate)
    )
