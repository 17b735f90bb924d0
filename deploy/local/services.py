"""The services of local mode, and what each is told at its start."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.ports import HOST

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "SCHEMA_REGISTRY__"
SECRETS_FOLDER_VARIABLE = "SCHEMA_REGISTRY_SECRETS_DIR"
SECRET_OPTIONS = ("database__url", "redis__url", "control__token", "admin__token", "peers__control_token")
RESTART = 75
"""Exit status of a service that is to be started again. Source: protos, ControlService.Stop."""


@dataclass(frozen=True, slots=True)
class Service:
    """A row of the table: a service and the ports it gets when they are free.

    command: the program; by default `python -m services.<name>`. own: options of its own; `{home}` stands for the data
    folder, `{registry}` for the address of that service, if it comes no later. makes: a path below the data folder that
    a first start makes, and the program's arguments for that.
    """

    name: str
    grpc_port: int
    http_port: int
    command: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    makes: tuple[str, tuple[str, ...]] | None = None

    @property
    def program(self) -> tuple[str, ...]:
        """The command line."""
        return self.command or (sys.executable, "-m", f"services.{self.name}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a launcher starts. Ports are the preferred ones."""

    services: tuple[Service, ...]
    postgres_port: int = 15432
    valkey_port: int = 16379


BACKUP = Service(
    "backup",
    grpc_port=9190,
    http_port=8180,
    own={
        "BACKUP__DIRECTORY": "{home}/backups",
        "BACKUP__SIGNING_KEY_PATH": "{home}/keys/signing.pem",
        "BACKUP__KEY_PATHS": "{home}/keys/recipient.key:{home}/keys/offline.pub.pem",
    },
    makes=("keys/offline.pub.pem", ("keygen", "{home}/keys")),
)
ADMIN = Service(
    "admin",
    grpc_port=9290,
    http_port=8280,
    own={
        "ADMIN__DIRECTORY": "{home}/admin",
        "PEERS__REGISTRY": "{registry}",
        "PEERS__BACKUP": "{backup}",
        "PEERS__ADMIN": "{admin}",
    },
)
PLAN = Plan(services=(Service("registry", grpc_port=9090, http_port=8080), BACKUP, ADMIN))
"""In the order of their stop: who writes, who archives what was written, who steers."""


def options(service: Service, home: Path, ports: Mapping[str, int], *, http_port: int) -> dict[str, str]:
    """Options of a service in local mode that are no secrets, as environment variables.

    ports: gRPC ports of the services so far, its own included.
    """
    grpc_port, places = ports[service.name], {name: f"{HOST}:{port}" for name, port in ports.items()}
    return {
        **{f"{PREFIX}{name}": value.format(home=home, **places) for name, value in service.own.items()},
        f"{PREFIX}SERVER__LOCAL_MODE": "true",
        f"{PREFIX}SERVER__LISTEN_ADDRESS": HOST,
        f"{PREFIX}SERVER__GRPC_PORT": str(grpc_port),
        f"{PREFIX}SERVER__HTTP_PORT": str(http_port),
        # No balancer has to notice, and a person waits.
        f"{PREFIX}SERVER__DRAIN_SECONDS": "0",
        f"{PREFIX}SERVER__GRACE_SECONDS": "5",
        f"{PREFIX}DATABASE__SSL_ENABLED": "false",
        f"{PREFIX}OBSERVABILITY__LOG_FORMAT": "text",
        # The environment goes before files with secrets; an empty variable counts as not set.
        **{f"{PREFIX}{name.upper()}": "" for name in SECRET_OPTIONS},
    }


def secret_options(*, database_url: str, redis_url: str, control_token: str, admin_token: str) -> dict[str, str]:
    """Options of a service that are secrets, as names and contents of files."""
    values = (database_url, redis_url, control_token, admin_token, control_token)
    return dict(zip(SECRET_OPTIONS, values, strict=True))


def is_ready(http_port: int) -> bool:
    """Whether a service on this machine answers that it is ready."""
    connection = http.client.HTTPConnection(HOST, http_port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
