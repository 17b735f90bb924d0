"""Options of the database and of capacity: what each makes of the parts, and what is wrong with bad values."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load
from services.admin.settings import AdminServiceSettings
from tests.fix_admin import admin_environment

URL = "postgresql://somebody@db.internal:5432/registry"


def settings(folder: Path, **options: object) -> AdminServiceSettings:
    """The settings with options over those of the tests."""
    environment = admin_environment(URL, {"admin__directory": folder, **options})
    return load(AdminServiceSettings, environment).settings


def reached(settings: AdminServiceSettings) -> PostgresOptions:
    """What the pool is told."""
    return PostgresOptions.of(settings.database, settings.service_name)


@pytest.mark.option(
    "database.url",
    "database.pool_min",
    "database.pool_max",
    "database.connection_timeout_seconds",
    "database.statement_timeout_seconds",
    "database.ssl_enabled",
    "database.ssl_root_cert_path",
)
def test_database_options_reach_the_pool(tmp_path: Path) -> None:
    """Each option is the pool's."""
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    options = {
        "database__pool_min": 1,
        "database__pool_max": 2,
        "database__connection_timeout_seconds": 3,
        "database__statement_timeout_seconds": 4,
        "database__ssl_enabled": "true",
        "database__ssl_root_cert_path": authority,
    }

    found = reached(settings(tmp_path, **options))

    assert (found.url, found.pool_min, found.pool_max) == (URL, 1, 2)
    assert (found.connection_timeout_seconds, found.statement_timeout_seconds) == (3, 4)
    assert (found.ssl_enabled, found.ssl_root_cert_path) == (True, authority)


def test_pool_is_small_and_empty_by_default(tmp_path: Path) -> None:
    """The admin service keeps no connection open that nobody asked for."""
    environment = admin_environment(URL, {"admin__directory": tmp_path})
    for name in ("POOL_MIN", "POOL_MAX"):
        del environment[f"SCHEMA_REGISTRY__DATABASE__{name}"]

    found = reached(load(AdminServiceSettings, environment).settings)

    assert (found.pool_min, found.pool_max) == (0, 5)


@pytest.mark.parametrize(
    "url", ["prometheus:9090", "ftp://prometheus", "http://", "http://user:secret@prometheus:9090"]
)
def test_prometheus_must_be_reachable_by_http(tmp_path: Path, url: str) -> None:
    """What is no address of a web server, and one with a password, is refused."""
    with pytest.raises(SettingsInvalid, match=r"admin\.prometheus_url"):
        settings(tmp_path, admin__prometheus_url=url)
