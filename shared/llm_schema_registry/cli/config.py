"""`llmsr config`: the options that a running process has in force."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="See the options that a running process has in force.")


class ServiceName(enum.StrEnum):
    """Which of the services."""

    REGISTRY = "registry"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Show:
    """Options of `config show`."""

    service: Annotated[ServiceName, typer.Option(help="Whose options.")] = ServiceName.REGISTRY
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LLMSR_CONTROL_TOKEN_FILE",
            help="File with the control token; not needed where a client certificate may steer the process.",
        ),
    ] = None
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not at their default.")] = False


@command(app, Show, examples=["llmsr config show --token-file .local/secrets/control_token"])
async def show(session: Session, options: Show) -> ExitCode:
    """Shows every option in force with its source. Values of secrets are never told.

    As JSON: GetConfigResponse.
    """
    from llm_schema_registry.cli import config_show

    return await config_show.show(session, options)
