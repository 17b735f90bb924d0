"""`llmsr recover`: what its commands take. What they do is in recover_commands.py, loaded when a command runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.backup import Nothing
from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import RequestId
from llm_schema_registry.cli.session import Session

app = typer.Typer(
    help=(
        "Bring the registry back from its backups in ten steps, each of which is seen as it happens.\n\n"
        "'start' checks and says what would be done, and with --apply does it. One that stands still is resumed or"
        " aborted."
    )
)

EXAMPLE_RECOVERY = "01KAX7H2E9P4Z8D3F6G5J1K0MC"
"""Stands in examples for what everybody has another of; tests put a real one in its place."""

RecoveryId = Annotated[
    str, typer.Argument(metavar="ID", help="The recovery, as 'llmsr recover list' shows it.", show_default=False)
]
Confirm = Annotated[
    str, typer.Option(metavar="TEXT", help="The confirmation of what will be lost, as the plan shows it.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and return; 'llmsr operation watch' shows the rest.")]


@dataclass(frozen=True, slots=True)
class Start:
    """Options of `recover start`."""

    to: Annotated[
        str,
        typer.Option(
            metavar="TARGET", help="'latest', a backup's id, a moment as in 2026-11-23T18:30:00Z, or epoch/position."
        ),
    ] = "latest"
    stop_first: Annotated[
        bool, typer.Option("--stop-first", help="Serve nothing until the swap: for corrupt data.")
    ] = False
    serve: Annotated[bool, typer.Option("--serve", help="Take writes until the swap.")] = False
    no_safety: Annotated[bool, typer.Option("--no-safety", help="Make no backup of the present state first.")] = False
    confirm: Confirm = ""
    cause: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")] = ""
    request_id: RequestId = ""
    no_wait: NoWait = False
    apply: Apply = False


@command(app, Start, examples=["llmsr recover start --to latest"])
async def start(session: Session, options: Start) -> ExitCode:
    """Recovers the registry. Without --apply it only checks, and says what would happen and what would be lost.

    A loss must be confirmed: without it the recovery stands still before the swap, with status 1, until 'recover
    resume' brings the confirmation. As JSON: JSON lines, the events of WatchOperation, 'ended' with the Recovery the
    last.
    """
    from llm_schema_registry.cli import recover_commands

    return await recover_commands.start(session, options)


@dataclass(frozen=True, slots=True)
class Onward:
    """Options of `recover resume` and `recover abort`."""

    id: RecoveryId
    confirm: Confirm = ""
    request_id: RequestId = ""
    no_wait: NoWait = False
    apply: Apply = False


@command(app, Onward, examples=[f"llmsr recover resume {EXAMPLE_RECOVERY}"])
async def resume(session: Session, options: Onward) -> ExitCode:
    """Goes on with a recovery where it stopped. Without --apply it only says with which steps.

    As JSON: {"applied": false, "recovery"}; with --apply as for start.
    """
    from llm_schema_registry.cli import recover_commands

    return await recover_commands.resume(session, options)


@command(app, Onward, examples=[f"llmsr recover abort {EXAMPLE_RECOVERY}"])
async def abort(session: Session, options: Onward) -> ExitCode:
    """Undoes a recovery that stands still: what served before serves again. Without --apply it only says how.

    After the swap what was written since must be confirmed. As JSON: as for resume.
    """
    from llm_schema_registry.cli import recover_commands

    return await recover_commands.abort(session, options)


@dataclass(frozen=True, slots=True)
class Show:
    """Options of `recover show`."""

    id: RecoveryId


@command(app, Show, examples=[f"llmsr recover show {EXAMPLE_RECOVERY}"])
async def show(session: Session, options: Show) -> ExitCode:
    """Shows a recovery with its steps, what it measured, and the line to type next.

    As JSON: GetRecoveryResponse.
    """
    from llm_schema_registry.cli import recover_commands

    return await recover_commands.show(session, options)


@command(app, Nothing, name="list", examples=["llmsr recover list"])
async def list_(session: Session, options: Nothing) -> ExitCode:
    """Lists the recoveries, newest first.

    As JSON: ListRecoveriesResponse.
    """
    from llm_schema_registry.cli import recover_commands

    return await recover_commands.list_(session, options)
