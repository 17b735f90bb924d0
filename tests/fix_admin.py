"""The admin service as a process of its own, beside the processes that it steers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_schema_registry.client import AdminClient
from tests.fix_service import CONTROL_TOKEN, Service

ADMIN_TOKEN = "an-admin-token-for-the-tests"
ADMIN_METADATA = [("authorization", f"Bearer {ADMIN_TOKEN}")]

MakeAdminService = Callable[..., Service]


@pytest.fixture
def make_admin_service(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[MakeAdminService]:
    """Makes admin processes: `make_admin_service(database_url, registry=[...], backup=[...], **options)`, not started
    yet.

    registry, backup: addresses of the processes that it steers. Without other options: a folder of the test's own for
    its journals. options: `section__option=value`.
    """
    made: list[Service] = []

    def make(database_url: str, *, registry: list[str], backup: list[str], **options: object) -> Service:
        chosen = {"admin__directory": tmp_path / "admin"} if "s3__bucket" not in options else {}
        peers = {"peers__registry": ",".join(registry), "peers__backup": ",".join(backup)}
        environment = admin_environment(database_url, {**chosen, **peers, **options})
        service = Service(tmp_path_factory.mktemp("admin"), environment, "admin")
        made.append(service)
        return service

    yield make
    for service in made:
        service.kill()


def admin_client(service: Service) -> AdminClient:
    """A client with the admin credential."""
    return AdminClient(service.target, metadata=ADMIN_METADATA)


def admin_environment(database_url: str, options: dict[str, object]) -> dict[str, str]:
    """The options of an admin service on this machine, as environment variables."""
    chosen: dict[str, object] = {
        "server__local_mode": "true",
        "server__grpc_port": 0,
        "server__http_port": 0,
        "server__drain_seconds": 0,
        "server__grace_seconds": 5,
        "control__token": CONTROL_TOKEN,
        "admin__token": ADMIN_TOKEN,
        "peers__control_token": CONTROL_TOKEN,
        "database__url": database_url,
        "database__ssl_enabled": "false",
        "database__pool_min": 0,
        "database__pool_max": 5,
        **options,
    }
    return {f"SCHEMA_REGISTRY__{key.upper()}": str(value) for key, value in chosen.items()}
