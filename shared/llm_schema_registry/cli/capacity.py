"""`llmsr capacity`: what it takes. What it does is in capacity_show.py, loaded when it runs, with gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import Session

DAYS_MAX = 400
EXAMPLES = (
    "llmsr capacity",
    "llmsr capacity --window-days 7 --horizon-days 365 --html /tmp/capacity.html",
    """printf 'currency = "EUR"\\ndatabase_gb_month = 0.12\\n' > /tmp/prices.toml
llmsr capacity --prices /tmp/prices.toml""",
)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Options of `capacity`."""

    window_days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How far back to look.")] = 30
    horizon_days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How far to look ahead.")] = 90
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with plots, which stands alone.", show_default=False),
    ] = None
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML or JSON with any of currency, database_gb_month, object_storage_gb_month, vcpu_hour,"
            " vcpus_per_replica, million_requests: what it costs, now and at the horizon.",
            show_default=False,
        ),
    ] = None


async def capacity(session: Session, options: Capacity) -> ExitCode:
    """Shows what the system uses, how fast that grows, and what it will need.

    Growth is a robust line through the window, the band around the forecast holds 95 %. What could not be found out is
    named on standard error. As JSON: GetCapacityReportResponse, with --prices and "costs" besides.
    """
    from llm_schema_registry.cli import capacity_show

    return await capacity_show.show(session, options)
