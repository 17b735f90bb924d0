"""What the settings say as options of the kernel's parts: for the process, and for tools that need no more of it."""

from __future__ import annotations

from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.settings import RegistrySettings


def postgres_options(settings: RegistrySettings) -> PostgresOptions:
    """How the settings say to reach PostgreSQL."""
    database = settings.database
    return PostgresOptions(
        url=database.url.get_secret_value(),
        pool_min=database.pool_min,
        pool_max=database.pool_max,
        connection_timeout_seconds=database.connection_timeout_seconds,
        statement_timeout_seconds=database.statement_timeout_seconds,
        ssl_enabled=database.ssl_enabled,
        ssl_root_cert_path=database.ssl_root_cert_path,
        application_name="llm_schema_registry registry",
    )
