"""`llmsr smoke`: whether the registry does what clients need. What it does is in smoke_run.py, loaded with gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import Session

EXAMPLES = ["llmsr smoke", "llmsr --output json smoke"]


@dataclass(frozen=True, slots=True)
class Smoke:
    """The command has no options."""


async def smoke(session: Session, options: Smoke) -> ExitCode:
    """Tries the registry as a client would, through the admin service: health, list, register, get, compatibility,
    validate, watch, delete, purge.

    Safe beside live traffic: it works in a subject of its own below '_smoke/' and leaves nothing that lists or searches
    show; a registry that is read-only is only read. Status 0 when everything passed, 1 when something did not, 3 when
    the admin service cannot be reached. As JSON: RunSmokeTestResponse.
    """
    from llm_schema_registry.cli import smoke_run

    return await smoke_run.smoke(session, options)
