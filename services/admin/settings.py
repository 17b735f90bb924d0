"""The options of the admin service."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, SecretStr

from llm_schema_registry.kernel.settings import (
    RELOADS,
    DatabaseSettings,
    Port,
    Problem,
    Section,
    ServerSettings,
    ServiceSettings,
    required_file,
)
from llm_schema_registry.kernel.settings_stores import S3Settings


def _split(value: object) -> object:
    """Names separated by commas as a list: the form that environment variables and secret files can hold."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class AdminServerSettings(ServerSettings):
    """Where the process listens, its certificates, and how it starts and stops."""

    http_port: Port = Field(
        default=8280, description="HTTP port of /health/* and the metrics page. 0 picks a free one."
    )
    grpc_port: Port = Field(default=9290, description="gRPC port. 0 picks a free one.")
    health_port: Port = Field(
        default=9291,
        description="Plaintext gRPC port that serves only grpc.health.v1, opened when mTLS is on, because Kubernetes"
        " probes speak no TLS. 0 picks a free one.",
    )


class AdminSettings(Section):
    """Who may use this service, in local mode as well, and where it keeps its journals."""

    token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Token that callers send as `authorization: Bearer <token>`; at least 16 characters.",
        json_schema_extra=RELOADS,
    )
    client_names: Names = Field(
        default=(),
        description="Names of client certificates (SPIFFE id, DNS name or URI of the SAN) that may use this service; a"
        " list, or names separated by commas.",
        json_schema_extra=RELOADS,
    )
    directory: Path | None = Field(
        default=None,
        description="Folder that journals of operations and recoveries are kept in when no bucket is set.",
    )

    sample_seconds: float = Field(
        default=300,
        ge=10,
        le=3600,
        description="Time between two samples of what the system uses, for reports on capacity; one replica takes it.",
    )
    prometheus_url: str | None = Field(
        default=None,
        description="Prometheus that has recorded the metrics pages, http://host:9090; without it reports on capacity"
        " are made of this service's own samples.",
    )
    database_bytes_limit: int = Field(
        default=0, ge=0, description="Bytes that the database may take, for reports on capacity; 0 when not known."
    )

    def rules(self) -> Iterator[Problem]:
        """Somebody may use this service, and Prometheus can be asked."""
        if self.token is None and not self.client_names:
            yield Problem("admin.token", "set admin.token or admin.client_names: without either nobody may call")
        if self.prometheus_url is not None:
            parts = urllib.parse.urlsplit(self.prometheus_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
                yield Problem(
                    "admin.prometheus_url", "must be http://host:port or https://host:port, without a password"
                )


class AdminDatabaseSettings(DatabaseSettings):
    """The registry's database, and the pool of connections to it. This service starts without it: what needs it fails
    then."""

    pool_min: int = Field(default=0, ge=0, le=1000, description="Connections kept open.")
    pool_max: int = Field(default=5, ge=1, le=1000, description="Most connections open at once.")


class PeersSettings(Section):
    """The processes of the system: `host:port`, several with commas between; a name stands for all of its addresses,
    which are looked up anew each time (a headless service in Kubernetes)."""

    registry: Names = Field(default=("127.0.0.1:9090",), description="Replicas of the registry.")
    backup: Names = Field(default=("127.0.0.1:9190",), description="Replicas of the backup service.")
    admin: Names = Field(default=(), description="Replicas of this service.")
    control_token: SecretStr | None = Field(
        default=None,
        description="Their control.token; without, this process's client certificate must be in their"
        " control.client_names.",
    )
    tls_enabled: bool = Field(default=False, description="Speak TLS to them.")
    ca_cert_path: Path | None = Field(
        default=None, description="PEM file of the authority of their certificates; the system's without."
    )
    client_cert_path: Path | None = Field(
        default=None, description="PEM file of the certificate that this process shows them."
    )
    client_key_path: Path | None = Field(default=None, description="PEM file of that certificate's key.")
    server_name: str | None = Field(
        default=None, min_length=1, description="Name in their certificates, when it is not the host that is called."
    )
    timeout_seconds: float = Field(default=3, gt=0, le=60, description="Longest wait for one answer of one replica.")

    def rules(self) -> Iterator[Problem]:
        """Addresses can be used, and a certificate has its key."""
        for name in ("registry", "backup", "admin"):
            for target in getattr(self, name):
                host, _, port = target.rpartition(":")
                if not host or not port.isdigit() or not 0 < int(port) < 65536:
                    yield Problem(f"peers.{name}", "must be host:port, for example registry.internal:9090", target)
        if (self.client_cert_path is None) != (self.client_key_path is None):
            missing = "client_cert_path" if self.client_cert_path is None else "client_key_path"
            yield Problem(f"peers.{missing}", "required because the other half of the pair is set")
        for name in ("ca_cert_path", "client_cert_path", "client_key_path"):
            path: Path | None = getattr(self, name)
            if path is not None:
                yield from required_file(f"peers.{name}", path, "peers.tls_enabled")


class AdminServiceSettings(ServiceSettings):
    """All options of the admin service. The database is for maintenance alone: everything else works without it."""

    service_name: ClassVar[str] = "admin"
    others_sections: ClassVar[frozenset[str]] = frozenset(
        {"redis", "cache", "limits", "formats", "second_store", "backup", "archive", "restore"}
    )

    server: AdminServerSettings = Field(default_factory=AdminServerSettings)
    database: AdminDatabaseSettings
    s3: S3Settings = Field(default_factory=S3Settings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    peers: PeersSettings = Field(default_factory=PeersSettings)

    def rules(self) -> Iterator[Problem]:
        """Callers are authenticated, and journals have one place."""
        yield from super().rules()
        if (self.s3.bucket is None) == (self.admin.directory is None):
            yield Problem("admin.directory", "set either s3.bucket or admin.directory")
