"""`llmsr capacity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli import capacity_views, prices
from llm_schema_registry.cli.capacity import Capacity
from llm_schema_registry.cli.capacity_page import page
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document, moment
from llm_schema_registry.cli.prices import Cost, Prices
from llm_schema_registry.cli.session import Session

DAY_SECONDS = 86_400


async def show(session: Session, options: Capacity) -> ExitCode:
    """Writes the report, and the page when one is wanted."""
    known = prices.read_prices(options.prices) if options.prices else None
    request = pb.GetCapacityReportRequest(
        window=Duration(seconds=options.window_days * DAY_SECONDS),
        horizon=Duration(seconds=options.horizon_days * DAY_SECONDS),
    )
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.system.GetCapacityReport, request)
    costs = list(prices.costs(known, answer.report)) if known else []
    currency = known.currency if known else ""
    if options.html is not None:
        _write(options.html, page(answer.report, options.horizon_days, costs, currency))
    if session.output.json:
        found = {"costs": {"currency": currency, "items": [asdict(one) for one in costs]}} if known else {}
        session.output.document({**as_document(answer), **found})
        return ExitCode.FINE
    _tell(session, answer.report, options.horizon_days)
    if known:
        _tell_costs(session, costs, known)
    if options.html is not None:
        session.output.note(f"Wrote {options.html}")
    return ExitCode.FINE


def _tell(session: Session, report: capacity_pb2.CapacityReport, horizon_days: int) -> None:
    output = session.output
    output.text(f"Since {moment(report.window_start)}; forecast for {horizon_days} days.\n")
    output.table(capacity_views.RESOURCE_COLUMNS, capacity_views.resource_rows(report.resources), whole=1)
    output.text()
    if report.advice:
        output.table(capacity_views.ADVICE_COLUMNS, capacity_views.advice_rows(report.advice), whole=2)
    else:
        output.text("Nothing has to be done.")
    for problem in report.problems:
        output.note(f"Not known: {problem}")


def _tell_costs(session: Session, costs: Sequence[Cost], known: Prices) -> None:
    session.output.text()
    session.output.table(capacity_views.COST_COLUMNS, capacity_views.cost_rows(costs, known.currency), whole=1)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as failed:
        raise UsageFault(f"--html: {path} cannot be written: {failed.strerror}.") from None
