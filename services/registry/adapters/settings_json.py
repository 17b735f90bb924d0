"""Settings as the JSON documents that the tables hold. A key that is absent is not set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from services.registry.domain.evolution.policy import Policy
from services.registry.domain.model import Settings
from services.registry.domain.settings import NAMES


def to_json(settings: Settings) -> Jsonb:
    """What is set; the policy by its name."""
    values = {name: getattr(settings, name) for name in NAMES}
    values["policy"] = settings.policy.name if settings.policy else None
    return Jsonb({name: value for name, value in values.items() if value is not None})


def from_json(document: Mapping[str, Any] | None) -> Settings:
    """The settings of a document; nothing is set in none."""
    if not document:
        return Settings()
    policy = document.get("policy")
    return Settings(**{**document, "policy": Policy[policy] if policy else None})
