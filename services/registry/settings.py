"""The options of the registry service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from llm_schema_registry.kernel.settings import DatabaseSettings, Problem, RedisSettings, Section, ServiceSettings


class CacheSettings(Section):
    """What the process keeps in memory. Switched by features.caching_enabled."""

    memory_bytes_max: int = Field(
        default=134_217_728,
        ge=0,
        le=68_719_476_736,
        description="Bytes of schemas kept in the process. The default holds about 85,000 schemas of 1 KiB.",
    )


class LimitSettings(Section):
    """The largest things that callers may send. Each must fit into performance.max_request_body_bytes."""

    schema_text_bytes_max: int = Field(
        default=1_048_576, ge=1024, le=67_108_864, description="Largest text of one schema, in bytes of UTF-8."
    )
    data_bytes_max: int = Field(
        default=1_048_576, ge=1024, le=67_108_864, description="Largest data of one ValidateData call."
    )


class FormatSettings(Section):
    """How schemas are read."""

    json_schema_draft: Literal["4", "6", "7", "2019-09", "2020-12"] = Field(
        default="2020-12",
        description="Draft of JSON Schemas that name none in `$schema`. What is registered already keeps its draft.",
    )


class RegistrySettings(ServiceSettings):
    """All options of the registry service."""

    service_name: ClassVar[str] = "registry"
    others_sections: ClassVar[frozenset[str]] = frozenset(
        {"s3", "second_store", "backup", "archive", "restore", "admin", "peers"}
    )

    database: DatabaseSettings
    redis: RedisSettings = Field(default_factory=RedisSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    formats: FormatSettings = Field(default_factory=FormatSettings)

    def rules(self) -> Iterator[Problem]:
        """Callers are authenticated, and what they may send fits into a request."""
        yield from super().rules()
        most = self.performance.max_request_body_bytes
        for name in ("schema_text_bytes_max", "data_bytes_max"):
            value = getattr(self.limits, name)
            if value > most:
                allowed = f"must not be above performance.max_request_body_bytes = {most}"
                yield Problem(f"limits.{name}", allowed, str(value))
