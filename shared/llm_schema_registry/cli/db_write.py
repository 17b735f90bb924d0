"""`llmsr db vacuum`, `analyze` and `reindex`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import maintenance_pb2
from llm_schema_registry.admin.v1 import maintenance_service_pb2 as pb
from llm_schema_registry.cli import db_views, dry_run, operation_results
from llm_schema_registry.cli.db import Analyze, Planned
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.output import counted
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import AdminClient

LISTING = "llmsr operation list"


async def vacuum(session: Session, options: Planned) -> ExitCode:
    """Vacuums, or shows the tables with their dead rows. REFUSED when one was passed over."""
    _require_fit(options)
    async with session.connection.admin() as admin:
        if options.apply:
            request = pb.VacuumRequest(tables=options.tables or [], request_id=options.request_id)
            return await _done(session, admin, (admin.maintenance.Vacuum, request), wait=not options.no_wait)
        answer = await admin.call(admin.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())
    _require_known(options.tables or [], [one.name for one in answer.stats.tables])
    tables = [one for one in answer.stats.tables if not options.tables or one.name in options.tables]
    if not session.output.json:
        session.output.table(db_views.TABLE_COLUMNS, db_views.table_rows(tables), whole=1)
        session.output.text()
    dead = sum(one.size.dead_rows for one in tables)
    dry_run.planned(
        session.output,
        [f"vacuum {counted(len(tables), 'table')} with {counted(dead, 'dead row')}"] if tables else [],
        {"tables": [as_document(one) for one in tables]},
    )
    return ExitCode.FINE


async def analyze(session: Session, options: Analyze) -> ExitCode:
    """Analyzes. REFUSED when a table was passed over."""
    async with session.connection.admin() as admin:
        request = pb.AnalyzeRequest(tables=options.tables or [], request_id=options.request_id)
        return await _done(session, admin, (admin.maintenance.Analyze, request), wait=not options.no_wait)


async def reindex(session: Session, options: Planned) -> ExitCode:
    """Reindexes, or shows the indexes with their bloat. REFUSED when one was passed over."""
    _require_fit(options)
    async with session.connection.admin() as admin:
        if options.apply:
            request = pb.ReindexRequest(tables=options.tables or [], request_id=options.request_id)
            return await _done(session, admin, (admin.maintenance.Reindex, request), wait=not options.no_wait)
        answer = await admin.call(admin.maintenance.GetBloat, pb.GetBloatRequest())
    _require_known(options.tables or [], sorted({one.table for one in answer.bloats}))
    indexes = [one for one in answer.bloats if one.index and (not options.tables or one.table in options.tables)]
    _plan_reindex(session, indexes)
    return ExitCode.FINE


def _require_fit(options: Planned) -> None:
    """Raises UsageFault for options that only go with --apply."""
    if not options.apply and (options.request_id or options.no_wait):
        raise UsageFault("--request-id and --no-wait go with --apply: without it nothing is begun.")


def _plan_reindex(session: Session, indexes: Sequence[maintenance_pb2.Bloat]) -> None:
    if not session.output.json:
        session.output.table(db_views.BLOAT_COLUMNS, db_views.bloat_rows(indexes), whole=1)
        session.output.text()
    noun = "index" if len(indexes) == 1 else "indexes"
    steps = [f"rebuild {len(indexes):,} {noun}, one after the other"] if indexes else []
    dry_run.planned(session.output, steps, {"indexes": [as_document(one) for one in indexes]})


async def _done(session: Session, admin: AdminClient, call: tuple[Any, Any], *, wait: bool) -> ExitCode:
    method, request = call
    answer = await begun(session, admin.call(method, request), listing=LISTING)
    operation = await followed(session, admin, answer.operation, wait=wait)
    return await operation_results.tell(session, admin, operation)


def _require_known(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises errors.InvalidField, as the service does when the work is begun."""
    for name in wanted:
        if name not in known:
            raise errors.InvalidField.of("tables", f"must be of {', '.join(sorted(known))}, not {name[:64]!r}")
