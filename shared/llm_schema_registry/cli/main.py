"""The program: its global options and its nouns.

Exit status: 0 fine, 1 refused or failed, 2 usage, 3 unreachable, 130 interrupted. Results go to standard output,
everything else to standard error.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llm_schema_registry.cli import (
    backup,
    capacity,
    config,
    db,
    logs,
    operation,
    recover,
    restore,
    schema,
    smoke,
    system,
)
from llm_schema_registry.cli.command import command, parameters
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.output import Output, OutputFormat
from llm_schema_registry.cli.session import GlobalOptions

PROGRAM = "llmsr"
DISTRIBUTION = "llm-schema-registry"

app = typer.Typer(
    name=PROGRAM,
    # Help stays plain: examples can be copied out of it, it reads the same in a pipe, and it comes at once.
    rich_markup_mode=None,
    help=(
        "The registry from a shell.\n\nThe options here stand before a command or behind it. Results go to standard"
        " output, everything else to standard error.\n\nExit status: 0 fine, 1 refused or failed (also: not compatible,"
        " not valid, not passed), 2 usage, 3 unreachable, 130 interrupted."
    ),
    epilog="\b\nExamples:\n  llmsr --version\n  llmsr --output json schema list\n  llmsr --output json backup list",
)
app.add_typer(schema.app, name="schema")
app.add_typer(backup.app, name="backup")
app.add_typer(restore.app, name="restore")
app.add_typer(recover.app, name="recover")
app.add_typer(operation.app, name="operation")
app.add_typer(config.app, name="config")
app.add_typer(logs.app)
app.add_typer(system.app, name="system")
command(app, smoke.Smoke, examples=smoke.EXAMPLES)(smoke.smoke)
app.add_typer(db.app, name="db")
command(app, capacity.Capacity, examples=capacity.EXAMPLES)(capacity.capacity)


def _version(wanted: bool) -> None:  # typer calls it so.
    if wanted:
        sys.stdout.write(f"{PROGRAM} {importlib.metadata.version(DISTRIBUTION)}\n")
        raise typer.Exit


def _remember(context: typer.Context, *, version: bool, **chosen: Any) -> None:
    del version  # Its callback has ended the program.
    context.obj = GlobalOptions(**chosen)


_version_option = typer.Option("--version", callback=_version, is_eager=True, help="Write the version and end.")
_remember.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *parameters(GlobalOptions),
        inspect.Parameter(
            "version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, _version_option]
        ),
    ]
)
_remember.__annotations__ = {}
app.callback()(_remember)


def run() -> None:
    """Runs the program with the process's arguments and ends the process."""
    # gRPC reads it when it is loaded, which is later. Its own log would stand between our lines; who wants it says so.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs the program and returns its exit status. Raises only what is a defect of ours."""
    output = Output(_wanted(arguments))
    try:
        _check_text(arguments)
        status = typer.main.get_command(app).main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as failed:
        output.usage(failed.format_message(), _hint(failed))
        return ExitCode.USAGE
    except UsageFault as fault:
        output.usage(str(fault))
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    return status if isinstance(status, int) else ExitCode.FINE


def _wanted(arguments: Sequence[str]) -> OutputFormat:
    """The format that the arguments ask for, also when they cannot be read otherwise."""
    asked = os.environ.get("LLMSR_OUTPUT", "")
    for index, word in enumerate(arguments):
        if word.startswith("--output="):
            asked = word.removeprefix("--output=")
        elif word == "--output":
            asked = "".join(arguments[index + 1 : index + 2])
    return OutputFormat.JSON if asked == OutputFormat.JSON else OutputFormat.TABLE


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UsageFault for what is not UTF-8: Python hands such bytes on as characters that nothing can send."""
    for position, word in enumerate(arguments, 1):
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise UsageFault(f"Argument {position} is not UTF-8.")


def _hint(failed: typer.TyperException) -> str:
    """Where to read on."""
    context = getattr(failed, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    return f"Try '{path} --help'."
