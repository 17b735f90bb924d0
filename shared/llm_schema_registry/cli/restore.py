"""`llmsr restore`: what its commands take. What they do is in restore_*.py, loaded when a command runs, with gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.backup import LevelName, Nothing
from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import NoWait, RequestId
from llm_schema_registry.cli.session import Session

app = typer.Typer(
    help=(
        "Bring the registry back: prepare a restored database beside the live one, swap it in, swap it back.\n\n"
        "The steps: prepare, activate, and then release or revert. Only activate and revert touch what is live."
    )
)

EXAMPLE_RESTORE = "01KAX7H2E9P4Z8D3F6G5J1K0MB"
"""Stands in examples for what everybody has another of; tests put a real one in its place."""

RestoreId = Annotated[
    str, typer.Argument(metavar="ID", help="The restore, as 'llmsr restore list' shows it.", show_default=False)
]
Confirm = Annotated[
    str, typer.Option(metavar="TEXT", help="The confirmation of what will be lost, as the dry run shows it.")
]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Options of `restore prepare`."""

    latest: Annotated[bool, typer.Option("--latest", help="To the newest change that can be had.")] = False
    backup: Annotated[str, typer.Option(metavar="ID", help="To this backup as it is.")] = ""
    time: Annotated[
        str, typer.Option(metavar="TIME", help="To this moment, as in 2026-11-23T18:30:00Z.", show_default=False)
    ] = ""
    place: Annotated[str, typer.Option(metavar="EPOCH/POSITION", help="To the state after this change.")] = ""
    verified: Annotated[LevelName, typer.Option(case_sensitive=False, help="How far its backup must be verified.")] = (
        LevelName.V3
    )
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(
    app,
    Prepare,
    examples=["llmsr restore prepare --latest"],
)
async def prepare(session: Session, options: Prepare) -> ExitCode:
    """Restores into a database beside the live one, verifies it there, and says what its activation would lose.

    Nothing that is live is touched. The target is one of --latest, --backup, --time and --place, and one that cannot be
    reached is an error, never something near. As JSON: JSON lines, the events of WatchOperation, then
    GetRestoreResponse; with --no-wait PrepareRestoreResponse.
    """
    from llm_schema_registry.cli import restore_prepare

    return await restore_prepare.prepare(session, options)


@command(app, Nothing, name="list", examples=["llmsr restore list"])
async def list_(session: Session, options: Nothing) -> ExitCode:
    """Lists the restores, newest first.

    As JSON: ListRestoresResponse.
    """
    from llm_schema_registry.cli import restore_read

    return await restore_read.list_(session, options)


@dataclass(frozen=True, slots=True)
class Show:
    """Options of `restore show`."""

    id: RestoreId


@command(app, Show, examples=[f"llmsr restore show {EXAMPLE_RESTORE}"])
async def show(session: Session, options: Show) -> ExitCode:
    """Shows a restore, what its next step would lose now, and the line to type next.

    As JSON: GetRestoreResponse.
    """
    from llm_schema_registry.cli import restore_read

    return await restore_read.show(session, options)


@dataclass(frozen=True, slots=True)
class Swap:
    """Options of `restore activate` and `restore revert`."""

    id: RestoreId
    confirm: Confirm = ""
    request_id: RequestId = ""
    no_wait: NoWait = False
    apply: Apply = False


@command(app, Swap, examples=[f"llmsr restore activate {EXAMPLE_RESTORE}"])
async def activate(session: Session, options: Swap) -> ExitCode:
    """Swaps a prepared restore in. Without --apply it only says what would happen and what would be lost.

    Writes are refused for a moment, reads go on; the replaced database is kept for a while. A loss must be confirmed:
    without it the command ends with status 1 and the confirmation to pass. As JSON: {"applied": false, "restore"}; with
    --apply JSON lines, the events of WatchOperation, 'ended' with the Restore the last.
    """
    from llm_schema_registry.cli import restore_swap

    return await restore_swap.activate(session, options)


@command(app, Swap, examples=[f"llmsr restore revert {EXAMPLE_RESTORE}"])
async def revert(session: Session, options: Swap) -> ExitCode:
    """Swaps the replaced database back. Without --apply it only says what would happen and what would be lost.

    What was written since the activation is left behind, and must be confirmed. As JSON: as for activate.
    """
    from llm_schema_registry.cli import restore_swap

    return await restore_swap.revert(session, options)


@dataclass(frozen=True, slots=True)
class Release:
    """Options of `restore release`."""

    id: RestoreId
    apply: Apply = False


@command(app, Release, examples=[f"llmsr restore release {EXAMPLE_RESTORE}"])
async def release(session: Session, options: Release) -> ExitCode:
    """Drops what a restore keeps beside the live database. Without --apply it only says what.

    After that an active restore cannot be reverted. As JSON: {"applied": bool, "restore"}.
    """
    from llm_schema_registry.cli import restore_swap

    return await restore_swap.release(session, options)
