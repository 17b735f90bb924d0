"""`llmsr db`: what its commands take. What they do is in db_*.py, loaded when a command runs, with gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import RequestId
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="Keep the registry's database in good order. The admin service does the work.")

SECONDS_MAX = 86_400

Tables = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TABLE]...", help="Only these tables, as 'llmsr db stats' shows them.", show_default="all of them"
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and return; 'llmsr operation watch' shows the rest.")]


@dataclass(frozen=True, slots=True)
class Planned:
    """Options of `db vacuum` and `db reindex`."""

    tables: Tables = None
    apply: Apply = False
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Planned, examples=["llmsr db vacuum", "llmsr db vacuum changes --apply"])
async def vacuum(session: Session, options: Planned) -> ExitCode:
    """Gives back the space of dead rows, table by table. Without --apply it shows what there is to gain.

    Readers and writers go on. A table that somebody has locked is passed over and named, status 1. As JSON: without
    --apply {"applied": false, "tables"}; else JSON lines, the events of WatchOperation, 'ended' with the
    MaintenanceRecord the last.
    """
    from llm_schema_registry.cli import db_write

    return await db_write.vacuum(session, options)


@dataclass(frozen=True, slots=True)
class Analyze:
    """Options of `db analyze`."""

    tables: Tables = None
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Analyze, examples=["llmsr db analyze", "llmsr db analyze versions subjects"])
async def analyze(session: Session, options: Analyze) -> ExitCode:
    """Renews the statistics that PostgreSQL plans queries by, table by table.

    A table that somebody has locked is passed over and named, status 1. As JSON: JSON lines, the events of
    WatchOperation, 'ended' with the MaintenanceRecord the last.
    """
    from llm_schema_registry.cli import db_write

    return await db_write.analyze(session, options)


@command(app, Planned, examples=["llmsr db reindex", "llmsr db reindex subjects --apply"])
async def reindex(session: Session, options: Planned) -> ExitCode:
    """Rebuilds indexes beside the old ones, one after the other. Without --apply it shows what there is to gain.

    Readers and writers go on. An index that could not be finished stays as it was and is named, status 1. As JSON: as
    for vacuum, with "indexes".
    """
    from llm_schema_registry.cli import db_write

    return await db_write.reindex(session, options)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Commands without options of their own."""


@command(app, Nothing, examples=["llmsr db bloat"])
async def bloat(session: Session, options: Nothing) -> ExitCode:
    """Estimates what tables and indexes take beyond what they need, the largest first.

    By PostgreSQL's own statistics: 'llmsr db analyze' makes them better. As JSON: GetBloatResponse.
    """
    from llm_schema_registry.cli import db_read

    return await db_read.bloat(session, options)


@command(app, Nothing, examples=["llmsr db stats"])
async def stats(session: Session, options: Nothing) -> ExitCode:
    """Shows what PostgreSQL says of the database and its tables.

    As JSON: GetDatabaseStatsResponse.
    """
    from llm_schema_registry.cli import db_read

    return await db_read.stats(session, options)


@dataclass(frozen=True, slots=True)
class Queries:
    """Options of `db queries`."""

    at_least: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=SECONDS_MAX, help="Only what runs for at least so long.")
    ] = 5.0


@command(app, Queries, examples=["llmsr db queries", "llmsr db queries --at-least 0.5"])
async def queries(session: Session, options: Queries) -> ExitCode:
    """Shows what runs for long in the database, and who waits for whom; values in statements are shown as '?'.

    As JSON: ListLongQueriesResponse.
    """
    from llm_schema_registry.cli import db_read

    return await db_read.queries(session, options)
