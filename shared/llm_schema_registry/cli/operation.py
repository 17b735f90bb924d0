"""`llmsr operation`: what its commands take. What they do is in operation_commands.py, loaded when a command runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.backup import Operations
from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="See and steer operations of the admin service: recoveries, shutdowns, maintenance.")

EXAMPLE_ADMIN_OPERATION = "recovery-01kax7h2e9p4z8d3f6g5j1k0mb"
"""Stands in examples for what everybody has another of; tests put a real one in its place."""


@command(app, Operations, name="list", examples=["llmsr operation list --running"])
async def list_(session: Session, options: Operations) -> ExitCode:
    """Lists what was begun, newest first, with its present step or its error.

    As JSON: ListOperationsResponse.
    """
    from llm_schema_registry.cli import operation_commands

    return await operation_commands.list_(session, options)


@dataclass(frozen=True, slots=True)
class NamedHere:
    """Options of `operation watch` and `operation cancel`."""

    name: Annotated[str, typer.Argument(metavar="NAME", help="The operation, as 'llmsr operation list' shows it.")]


@command(app, NamedHere, examples=[f"llmsr operation watch {EXAMPLE_ADMIN_OPERATION}"])
async def watch(session: Session, options: NamedHere) -> ExitCode:
    """Shows an operation as it goes, and what it made when it has ended. Status 1 when it failed.

    As JSON: JSON lines, the events of WatchOperation.
    """
    from llm_schema_registry.cli import operation_commands

    return await operation_commands.watch(session, options)


@command(app, NamedHere, examples=[f"llmsr operation cancel {EXAMPLE_ADMIN_OPERATION}"])
async def cancel(session: Session, options: NamedHere) -> ExitCode:
    """Asks an operation to end.

    It returns at once: 'llmsr operation watch' shows the end. As JSON: CancelOperationResponse.
    """
    from llm_schema_registry.cli import operation_commands

    return await operation_commands.cancel(session, options)
