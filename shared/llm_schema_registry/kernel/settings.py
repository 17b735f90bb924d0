"""The options of a service, as frozen models: one class a section, one field an option.

A service composes the sections it uses into its own subclass of `Settings`; `settings_sources.load` fills it. An
option enters a model only when something is wired to it. Names and defaults are a contract: an operator's files and
environment name them. Fields that a running process takes over on Reload are marked with `RELOADS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from llm_schema_registry.kernel.urls import is_ip_address, is_postgres, is_redis

LOOPBACK = "127.0.0.1"
CLOSING_SECONDS = 2.0
"""Part of the shutdown time that is kept for closing the database, Redis and telemetry after the calls have ended."""

HEALTH_PATHS = ("/health/live", "/health/ready", "/health/startup")

RELOADS: dict[str, Any] = {"reloads": True}
"""Marks an option that Reload puts in force without a restart."""

_BOOLEAN = TypeAdapter(bool)

Port = Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings: which option, what it holds, what is allowed.

    value is None for a missing option and for a secret, whose value is never shown.
    """

    option: str
    allowed: str
    value: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        holds = "" if self.value is None else f" = {self.value}"
        source = "" if self.source is None else f" (from {self.source})"
        return f"{self.option}{holds}{source}: {self.allowed}"


class Section(BaseModel):
    """A group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def rules(self) -> Iterator[Problem]:
        """What is wrong between options of this section, each of which is right alone."""
        yield from ()


class Settings(Section):
    """All options of one service. Its fields are sections.

    others_sections: names of sections that only other services have. They are passed over, so that all services may
    read one file; what is wrong in them, those services say. service_name: whose options these are.
    """

    service_name: ClassVar[str] = ""
    others_sections: ClassVar[frozenset[str]] = frozenset()

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Each section with its name, in the order of the model."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)


def _split_names(value: object) -> object:
    """A comma-separated text as a list: the form that environment variables and secret files can hold."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class ServerSettings(Section):
    """Where the process listens, its certificates, and how it starts and stops."""

    listen_address: str = Field(
        default="0.0.0.0",  # noqa: S104 - the contract's default; a container listens on its pod's address
        min_length=1,
        description="IP address of every port. 127.0.0.1 in local mode, where no other is allowed.",
    )
    http_port: Port = Field(
        default=8080, description="HTTP port of /health/* and the metrics page. 0 picks a free one."
    )
    grpc_port: Port = Field(default=9090, description="gRPC port. 0 picks a free one.")
    health_port: Port = Field(
        default=9091,
        description="Plaintext gRPC port that serves only grpc.health.v1, opened when mTLS is on, because Kubernetes"
        " probes speak no TLS. 0 picks a free one.",
    )
    local_mode: bool = Field(
        default=False,
        description="One machine, one user: every caller is an administrator, and only 127.0.0.1 is listened on.",
    )
    reuse_port: bool = Field(
        default=False, description="Let several processes listen on the same gRPC port (SO_REUSEPORT)."
    )
    reflection_enabled: bool = Field(
        default=True, description="Serve gRPC reflection, so that grpcurl needs no proto files."
    )
    startup_timeout_seconds: float = Field(
        default=60, gt=0, le=3600, description="How long to wait at start for what the service depends on."
    )
    request_timeout_seconds: float = Field(
        default=30, gt=0, le=3600, description="Longest work on one unary call, whatever its caller allows."
    )
    drain_seconds: float = Field(
        default=5,
        ge=0,
        le=600,
        description="How long a stopping process goes on serving after it became not ready, so that balancers notice.",
    )
    grace_seconds: float = Field(
        default=20, ge=0, le=3600, description="How long calls in flight may then take before they are cancelled."
    )
    shutdown_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=7200,
        description="Longest shutdown in all. At least drain_seconds + grace_seconds + 2 s for closing connections.",
    )
    tls_enabled: bool = Field(default=False, description="Speak TLS on the gRPC port.")
    tls_cert_path: Path | None = Field(
        default=None, description="PEM file of the certificate chain. Read again when it changes."
    )
    tls_key_path: Path | None = Field(
        default=None, description="PEM file of the private key. Read again when it changes."
    )

    @model_validator(mode="before")
    @classmethod
    def _bind_loopback_in_local_mode(cls, data: Any) -> Any:
        """The default address of local mode is loopback; one that was chosen is judged by `rules`."""
        if not isinstance(data, dict) or "listen_address" in data:
            return data
        try:
            local = _BOOLEAN.validate_python(data.get("local_mode", False))
        except ValidationError:
            return data  # The field's own validation says what is wrong.
        return {**data, "listen_address": LOOPBACK} if local else data

    def rules(self) -> Iterator[Problem]:
        """Local mode is loopback only; the stages of a shutdown fit into it; TLS has its files."""
        if self.local_mode and self.listen_address != LOOPBACK:
            allowed = f"local mode has no authentication and listens on {LOOPBACK} only"
            yield Problem("server.listen_address", allowed, repr(self.listen_address))
        elif not is_ip_address(self.listen_address):
            yield Problem("server.listen_address", "must be an IP address", repr(self.listen_address))
        needed = self.drain_seconds + self.grace_seconds + CLOSING_SECONDS
        if needed > self.shutdown_timeout_seconds:
            allowed = (
                f"must be at least server.drain_seconds + server.grace_seconds + {CLOSING_SECONDS:g}"
                f" = {needed:g}; raise it, or lower one of the two"
            )
            yield Problem("server.shutdown_timeout_seconds", allowed, f"{self.shutdown_timeout_seconds:g}")
        if self.tls_enabled:
            yield from required_file("server.tls_cert_path", self.tls_cert_path, "server.tls_enabled")
            yield from required_file("server.tls_key_path", self.tls_key_path, "server.tls_enabled")


class DatabaseSettings(Section):
    """The PostgreSQL database and the pool of connections to it."""

    url: SecretStr = Field(
        description="Connection URI, postgresql://user:password@host:5432/name.",
    )
    pool_min: int = Field(default=5, ge=0, le=1000, description="Connections kept open.")
    pool_max: int = Field(default=50, ge=1, le=1000, description="Most connections open at once.")
    connection_timeout_seconds: float = Field(
        default=10, gt=0, le=600, description="Longest wait for a connection, from the pool or the server."
    )
    statement_timeout_seconds: float = Field(
        default=30, gt=0, le=3600, description="Longest one statement may run before PostgreSQL cancels it."
    )
    ssl_enabled: bool = Field(
        default=True, description="Require TLS to PostgreSQL; with a root certificate, verify the server."
    )
    ssl_root_cert_path: Path | None = Field(
        default=None, description="PEM file of the authority that PostgreSQL's certificate must come from."
    )

    def rules(self) -> Iterator[Problem]:
        """The URL can be used, the pool's bounds are in order, and a named root certificate exists."""
        if not is_postgres(self.url.get_secret_value()):
            allowed = "must be a PostgreSQL URI: postgresql://user:password@host:5432/name, reserved characters as %XX"
            yield Problem("database.url", allowed)
        if self.pool_min > self.pool_max:
            yield Problem(
                "database.pool_min",
                f"must not be above database.pool_max = {self.pool_max}",
                str(self.pool_min),
            )
        if self.ssl_enabled and self.ssl_root_cert_path is not None:
            yield from required_file("database.ssl_root_cert_path", self.ssl_root_cert_path, "database.ssl_enabled")


class RedisSettings(Section):
    """The Redis or Valkey server that replicas share as a cache. Without a URL each process caches alone."""

    url: SecretStr | None = Field(default=None, description="redis://user:password@host:6379/0")
    pool_min: int = Field(default=5, ge=0, le=1000, description="Connections opened at start.")
    pool_max: int = Field(default=25, ge=1, le=1000, description="Most connections open at once.")
    connection_timeout_seconds: float = Field(default=5, gt=0, le=600, description="Longest wait for a connection.")
    tls_enabled: bool = Field(default=False, description="Speak TLS to Redis, also for a redis:// URL.")
    key_prefix: str = Field(default="schema_registry:", description="Prefix of every key.")
    default_ttl_seconds: int = Field(default=3600, ge=1, le=31_536_000, description="How long an entry lives.")

    def rules(self) -> Iterator[Problem]:
        """The URL can be used, and the pool's bounds are in order."""
        if self.url is not None and not is_redis(self.url.get_secret_value()):
            allowed = "must be a Redis URL: redis://, rediss:// or unix://, as in redis://user:password@host:6379/0"
            yield Problem("redis.url", allowed)
        if self.pool_min > self.pool_max:
            yield Problem(
                "redis.pool_min",
                f"must not be above redis.pool_max = {self.pool_max}",
                str(self.pool_min),
            )


class SecuritySettings(Section):
    """How callers prove who they are."""

    mtls_enabled: bool = Field(
        default=False,
        description="Demand a client certificate from every caller of the gRPC port. Needs server.tls_enabled.",
    )
    ca_cert_path: Path | None = Field(
        default=None,
        description="PEM file of the authorities that client certificates must come from. Read again when it changes.",
    )

    def rules(self) -> Iterator[Problem]:
        """mTLS has its authority."""
        if self.mtls_enabled:
            yield from required_file("security.ca_cert_path", self.ca_cert_path, "security.mtls_enabled")


class ControlSettings(Section):
    """Who may steer the process through ControlService. With neither option nobody may."""

    token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Token that callers send as `authorization: Bearer <token>`; at least 16 characters.",
        json_schema_extra=RELOADS,
    )
    client_names: Annotated[tuple[str, ...], BeforeValidator(_split_names)] = Field(
        default=(),
        description="Names of client certificates (SPIFFE id, DNS name or URI of the SAN) that may steer the process;"
        " a list, or names separated by commas.",
        json_schema_extra=RELOADS,
    )


class HealthSettings(Section):
    """How the dependencies are watched."""

    poll_seconds: float = Field(default=2, gt=0, le=300, description="Time between two checks of a dependency.")
    check_timeout_seconds: float = Field(default=1, gt=0, le=60, description="A check that takes longer has failed.")
    failure_threshold: int = Field(
        default=3, ge=1, le=100, description="Failures in a row until a dependency counts as down. One success ends it."
    )


class ObservabilitySettings(Section):
    """What the process tells about itself."""

    metrics_enabled: bool = Field(default=True, description="Count calls, and serve the metrics page.")
    metrics_path: str = Field(
        default="/metrics", pattern=r"^/[A-Za-z0-9_./-]+$", description="Path of the metrics page on the HTTP port."
    )
    metrics_export_seconds: float = Field(
        default=60, gt=0, le=3600, description="Time between two exports of the metrics to the OTLP endpoint."
    )
    tracing_enabled: bool = Field(
        default=True, description="Record traces; they leave the process only with an OTLP endpoint."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+/?$",
        description="OTLP/gRPC endpoint of a collector for metrics and traces, http://host:4317 or https://host:4317.",
    )
    trace_sampling_rate: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Part of the calls that are traced when their caller has not decided.",
        json_schema_extra=RELOADS,
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged.", json_schema_extra=RELOADS
    )
    log_format: Literal["json", "text"] = Field(default="json", description="Form of the log lines.")
    log_calls: Literal["notable", "all"] = Field(
        default="notable",
        description="Which calls get a log line at their end: `notable` ones failed, were traced or were slow; `all`"
        " gives `llmsr logs` the latencies of all calls, for some 50 µs of CPU and 450 bytes of log a call. Health"
        " checks that went well never get one.",
        json_schema_extra=RELOADS,
    )
    slow_call_seconds: float = Field(
        default=1,
        gt=0,
        le=3600,
        description="A call that takes longer is slow. Streams never are.",
        json_schema_extra=RELOADS,
    )

    def rules(self) -> Iterator[Problem]:
        """The metrics page hides no other one."""
        if self.metrics_path in HEALTH_PATHS:
            allowed = "must not be the path of a health page"
            yield Problem("observability.metrics_path", allowed, repr(self.metrics_path))


class FeatureSettings(Section):
    """Switches of whole capabilities."""

    caching_enabled: bool = Field(default=True, description="Cache answers in the process and in Redis.")
    compression_enabled: bool = Field(
        default=True, description="Compress answers of 16 KiB and more for callers that accept gzip or deflate."
    )
    read_only_mode: bool = Field(default=False, description="Start in READ_ONLY: reads are served, writes refused.")


class PerformanceSettings(Section):
    """Limits of the gRPC server."""

    max_request_body_bytes: int = Field(
        default=10_485_760, ge=1024, le=1_073_741_824, description="Largest request message, decompressed."
    )
    keepalive_seconds: float = Field(
        default=60, ge=1, le=7200, description="Time without traffic after which the server pings a connection."
    )
    keepalive_timeout_seconds: float = Field(
        default=20, gt=0, le=600, description="Time without an answer to the ping after which the server closes it."
    )
    min_ping_interval_seconds: float = Field(
        default=30,
        ge=0,
        le=7200,
        description="Clients that ping more often than this are disconnected.",
    )
    max_concurrent_streams: int = Field(
        default=1000, ge=1, le=1_000_000, description="Most calls open at once on one connection."
    )
    max_connection_age_seconds: float = Field(
        default=0,
        ge=0,
        le=86_400,
        description="Age (± 10 %) at which a connection is closed gently, so that clients spread over new replicas;"
        " 0 keeps it for ever.",
    )
    max_connection_age_grace_seconds: float = Field(
        default=60, ge=0, le=86_400, description="How long calls on a connection closed for its age may still take."
    )


class ServiceSettings(Settings):
    """The sections that every service has. A service adds its own, and those of database and Redis."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    security: SecuritySettings = Field(default_factory=SecuritySettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    performance: PerformanceSettings = Field(default_factory=PerformanceSettings)

    def rules(self) -> Iterator[Problem]:
        """Nobody serves strangers: outside local mode callers are authenticated, and mTLS has TLS. Ports differ."""
        opened = ("http_port", "grpc_port", "health_port") if self.security.mtls_enabled else ("http_port", "grpc_port")
        for one, other in itertools.combinations(opened, 2):
            port = getattr(self.server, other)
            if port != 0 and port == getattr(self.server, one):
                yield Problem(f"server.{other}", f"must be another one than server.{one}", str(port))
        if self.security.mtls_enabled and not self.server.tls_enabled:
            yield Problem("security.mtls_enabled", "needs server.tls_enabled = true", "true")
        if not self.server.local_mode and not self.security.mtls_enabled:
            allowed = (
                "outside local mode callers must be authenticated, and client certificates are the one authenticator"
                " of this release: set security.mtls_enabled = true with server.tls_enabled and the certificate paths,"
                " or, on one machine for one user, server.local_mode = true"
            )
            yield Problem("security.mtls_enabled", allowed, "false")


def required_file(option: str, path: Path | None, because: str) -> Iterator[Problem]:
    """A problem when a file that another option makes necessary is not named or not there."""
    if path is None:
        yield Problem(option, f"required because {because} is true: the path of a PEM file")
    elif not path.is_file():
        yield Problem(option, "no such file", str(path))
