"""The HTTP pages of a process: /health/live, /health/ready, /health/startup, and the metrics page."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from llm_schema_registry.kernel.about import About, process_document
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.export import PAGE_TYPE, MetricsPage
from llm_schema_registry.kernel.health import Health
from llm_schema_registry.kernel.http import Page
from llm_schema_registry.kernel.settings import HEALTH_PATHS


def health_pages(about: About, clock: Clock, health: Health) -> dict[str, Callable[[], Page]]:
    """The three probes. 200 when the answer is yes, else 503; the same document in each."""

    def page(*, holds: bool) -> Page:
        document = process_document(about, clock, health.report())
        status = HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, "application/json", json.dumps(document).encode() + b"\n")

    live, ready, startup = HEALTH_PATHS
    return {
        live: lambda: page(holds=True),
        ready: lambda: page(holds=health.report().ready),
        startup: lambda: page(holds=health.report().started),
    }


def metrics_page(page: MetricsPage) -> Callable[[], Page]:
    """The metrics in Prometheus's text format."""
    return lambda: Page(HTTPStatus.OK, PAGE_TYPE, page.render())
