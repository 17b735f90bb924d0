"""`llmsr logs`: what the log files of the services say."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import Session

app = typer.Typer()

TOP_MAX = 200
LINE = (
    '{"timestamp": "2026-11-30T12:00:00.000+00:00", "level": "error", "event": "page failed", "service": "registry",'
    ' "path": "/metrics"}'
)


class LevelName(enum.StrEnum):
    """Levels of log lines, by weight."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Logs:
    """Options of `logs`."""

    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="JSON logs, also .gz and .zst; - reads standard input.",
            show_default="standard input",
        ),
    ] = None
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Lines from then on: 30m, 2h or 7d ago, or an ISO time, UTC.")
    ] = ""
    until: Annotated[str, typer.Option(metavar="TIME", help="Lines up to then.")] = ""
    services: Annotated[
        list[str], typer.Option("--service", metavar="NAME", help="Lines of this service. Repeatable.")
    ] = field(default_factory=list)
    methods: Annotated[
        list[str],
        typer.Option(
            "--method",
            metavar="NAME",
            help="Lines of calls of this method: GetSchema, or more of its name. Repeatable.",
        ),
    ] = field(default_factory=list)
    level: Annotated[LevelName, typer.Option(help="From which level on a line is an error.")] = LevelName.WARNING
    top: Annotated[int, typer.Option(min=1, max=TOP_MAX, help="Rows of each table.")] = 10
    fail_on_errors: Annotated[
        bool, typer.Option("--fail-on-errors", help="Status 1 when there are errors, or nothing could be read.")
    ] = False


@command(
    app,
    Logs,
    name="logs",
    examples=[
        f"echo '{LINE}' > /tmp/registry.log",
        "llmsr logs /tmp/registry.log",
        "llmsr logs /tmp/registry.log --since 2h --method GetSchema --top 5",
        "gzip --force /tmp/registry.log",
        "llmsr logs /tmp/registry.log.gz --since 2026-11-30T00:00:00Z --level critical --fail-on-errors",
        "zcat /tmp/registry.log.gz | llmsr --output json logs -",
    ],
)
async def logs(session: Session, options: Logs) -> ExitCode:
    """Tells what the services' JSON logs say: patterns of errors, latencies by method, slow calls, changes of state.

    A call is in the log when it failed, was traced or was slow; with the option observability.log_calls = all every
    call is, and the latencies are those of all. Percentiles are within 1 % of the exact ones. Nobody is asked: the
    files are enough.

    As JSON one document: files, lines, window, levels, services, errors, patterns, top_errors, methods, slowest,
    timeline, transitions, and in more what the tables did not take.
    """
    from llm_schema_registry.cli import logs_read

    return await logs_read.read(session, options)
