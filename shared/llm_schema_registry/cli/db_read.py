"""`llmsr db bloat`, `stats` and `queries`."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from llm_schema_registry.admin.v1 import maintenance_service_pb2 as pb
from llm_schema_registry.cli import db_views
from llm_schema_registry.cli.db import Nothing, Queries
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.session import Session


async def bloat(session: Session, options: Nothing) -> ExitCode:  # noqa: ARG001
    """Writes the estimate."""
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.maintenance.GetBloat, pb.GetBloatRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.table(db_views.BLOAT_COLUMNS, db_views.bloat_rows(answer.bloats), whole=1)
    return ExitCode.FINE


async def stats(session: Session, options: Nothing) -> ExitCode:  # noqa: ARG001
    """Writes the statistics."""
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.maintenance.GetDatabaseStats, pb.GetDatabaseStatsRequest())
    if session.output.json:
        session.output.document(as_document(answer))
        return ExitCode.FINE
    session.output.record(db_views.stats_record(answer.stats))
    session.output.text()
    session.output.table(db_views.TABLE_COLUMNS, db_views.table_rows(answer.stats.tables), whole=1)
    return ExitCode.FINE


async def queries(session: Session, options: Queries) -> ExitCode:
    """Writes what runs for long."""
    at_least = Duration()
    at_least.FromNanoseconds(round(options.at_least * 1e9))
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.maintenance.ListLongQueries, pb.ListLongQueriesRequest(at_least=at_least))
    if session.output.json:
        session.output.document(as_document(answer))
    elif answer.queries:
        session.output.table(db_views.QUERY_COLUMNS, db_views.query_rows(answer.queries), whole=1)
    else:
        session.output.text(f"Nothing runs for as long as {options.at_least:g} s.")
    return ExitCode.FINE
