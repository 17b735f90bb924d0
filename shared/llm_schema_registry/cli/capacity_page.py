"""A report on capacity as one page that stands alone: no scripts, nothing loaded, light and dark, fit for print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli import capacity_views as views
from llm_schema_registry.cli.capacity_plot import plot
from llm_schema_registry.cli.messages import moment
from llm_schema_registry.cli.prices import Cost

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #59636e; --paper: #ffffff; --card: #f6f8fa; --line: #d1d9e0;
  --figure: #0969da; --ahead: #bc4c00; --band: #bc4c0022; --limit: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --paper: #0d1117; --card: #151b23;
  --line: #3d444d; --figure: #4493f8; --ahead: #f0883e; --band: #f0883e2e; --limit: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: 0 0 .5rem; } .quiet { color: var(--quiet); }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem .6rem;
  break-inside: avoid; }
.card header { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; }
.card header b { font-size: 1.15rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); white-space: nowrap; } td:not(:last-child) { white-space: nowrap; }
ol, ul { margin: 0; padding-left: 1.25rem; } li { margin: .3rem 0; }
svg { display: block; width: 100%; height: auto; margin-top: .5rem; } svg text { fill: var(--quiet); font-size: 11px; }
svg .grid { stroke: var(--line); } svg .figure { stroke: var(--figure); fill: none; stroke-width: 1.8; }
svg .dot { fill: var(--figure); } svg .ahead { stroke: var(--ahead); fill: none; stroke-width: 1.8;
  stroke-dasharray: 5 4; } svg .band { fill: var(--band); } svg .limit { stroke: var(--limit); stroke-dasharray: 2 3; }
svg .now { stroke: var(--quiet); stroke-dasharray: 1 3; } svg text.limit { fill: var(--limit); stroke: none; }
.key span { margin-right: 1.25rem; white-space: nowrap; } .key i { display: inline-block; width: 1.5rem; height: 0;
  border-top: 2px solid var(--figure); vertical-align: middle; margin-right: .4rem; }
.key i.ahead { border-top: 2px dashed var(--ahead); } .key i.limit { border-top: 2px dotted var(--limit); }
.key i.band { height: .8rem; border: 0; background: var(--band); }
"""


def page(report: capacity_pb2.CapacityReport, horizon_days: int, costs: Sequence[Cost], currency: str) -> str:
    """The page. costs: empty without prices."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Capacity, {moment(report.time)[:10]}</title><style>{STYLE}</style></head><body>",
        "<h1>Capacity of the schema registry</h1>",
        f'<p class="quiet">{_head(report, horizon_days)}</p>',
        _advice(report),
        _plots(report, horizon_days),
        _costs(costs, currency, horizon_days),
        "<h2>Figures</h2>",
        _table(views.RESOURCE_COLUMNS, views.resource_rows(report.resources)),
        _problems(report),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _head(report: capacity_pb2.CapacityReport, horizon_days: int) -> str:
    since = moment(report.window_start)
    return f"Made {moment(report.time)}; figures since {since}; forecast for {horizon_days} days."


def _advice(report: capacity_pb2.CapacityReport) -> str:
    if not report.advice:
        return "<h2>What to do</h2><p>Nothing has to be done.</p>"
    items = (
        f"<li><b>{escape(one.resource)}</b>"
        + (f" until {moment(one.deadline)[:10]}" if one.HasField("deadline") else "")
        + f": {escape(one.text)}.</li>"
        for one in report.advice
    )
    return f"<h2>What to do</h2><ol>{''.join(items)}</ol>"


def _plots(report: capacity_pb2.CapacityReport, horizon_days: int) -> str:
    if not report.resources:
        return ""
    key = (
        '<p class="key quiet"><span><i></i>figures</span><span><i class="ahead"></i>forecast</span>'
        '<span><i class="band"></i>95 % band</span><span><i class="limit"></i>limit</span></p>'
    )
    cards = "".join(_card(one, report, horizon_days) for one in report.resources)
    return f'<h2>Use and forecast</h2>{key}<div class="plots">{cards}</div>'


def _card(one: capacity_pb2.ResourceForecast, report: capacity_pb2.CapacityReport, horizon_days: int) -> str:
    told = "too few figures for a forecast yet"
    if one.has_forecast:
        told = f"{views.growth(one)} a day; then {views.amount(one.forecast, one.unit)} ({views.band(one)})"
    if one.HasField("limit_time"):
        told += f"; limit reached {moment(one.limit_time)[:10]}"
    head = f"<header><h3>{escape(one.name)}</h3><b>{escape(views.amount(one.current, one.unit))}</b></header>"
    return (
        f'<section class="card">{head}<p class="quiet">{escape(told)}</p>'
        f"{plot(one, report.time.seconds, horizon_days)}</section>"
    )


def _costs(costs: Sequence[Cost], currency: str, horizon_days: int) -> str:
    if not costs:
        return ""
    rows = views.cost_rows(costs, currency)
    return f"<h2>Costs a month, now and in {horizon_days} days</h2>{_table(views.COST_COLUMNS, rows)}"


def _problems(report: capacity_pb2.CapacityReport) -> str:
    if not report.problems:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in report.problems)
    return f"<h2>Not known</h2><ul>{items}</ul>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
