"""Prometheus is asked by its HTTP API; a small server answers with its documents."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from llm_schema_registry import errors
from services.admin.adapters.prometheus import QUERIES, Prometheus
from services.admin.domain.capacity import Figure

END = datetime(2026, 6, 15, tzinfo=UTC)
START = END - timedelta(days=30)

Answer = Callable[[dict[str, str]], tuple[int, Any]]


@contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """URL of a server that answers range queries, and what it was asked."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.path == "/below/api/v1/query_range"
            asked.append(dict(urllib.parse.parse_qsl(body)))
            status, document = answer(asked[-1])
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/below/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def matrix(*values: list[Any]) -> dict[str, Any]:
    """The document of a range query. Source: Prometheus 3 documentation, HTTP API."""
    result = [{"metric": {}, "values": list(values)}] if values else []
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, "warnings": []}


@pytest.mark.option("admin.prometheus_url")
async def test_figures_are_read() -> None:
    """Every resource is asked for in steps of which 400 make the window; what is no number is left out."""
    second = START.timestamp()
    with answering(lambda _: (200, matrix([second, "1.5"], [second + 300, "NaN"], [second + 600, "2e3"]))) as (
        url,
        asked,
    ):
        found = await Prometheus(url, 5).figures(START, END)

    assert set(found) == set(QUERIES)
    assert found["cpu_cores"] == [Figure(START, 1.5), Figure(START + timedelta(seconds=600), 2000.0)]
    assert {each["step"] for each in asked} == {"6480"}
    assert not any(word in each["query"] for each in asked for word in ("STEP", "TILE"))
    assert any("[6480s:300s]" in each["query"] for each in asked)
    assert {(each["start"], each["end"]) for each in asked} == {(f"{second:.0f}", f"{END.timestamp():.0f}")}


async def test_the_newest_point_is_now() -> None:
    """Points are counted back from the end; what a query looks at in one point does not grow with the window."""
    with answering(lambda _: (200, matrix())) as (url, asked):
        await Prometheus(url, 5).figures(END - timedelta(seconds=1000), END)
        await Prometheus(url, 5).figures(END - timedelta(days=400), END)

    day, year = asked[0], asked[-1]
    assert (float(day["end"]) - float(day["start"])) == 900
    assert (day["step"], year["step"]) == ("300", "86400")
    assert any("[86400s:1800s]" in each["query"] for each in asked)


async def test_nothing_recorded_is_no_figure() -> None:
    """An empty result is an empty series."""
    with answering(lambda _: (200, matrix())) as (url, _):
        found = await Prometheus(url, 5).figures(START, END)

    assert all(each == [] for each in found.values())


@pytest.mark.parametrize(
    ("status", "document", "told"),
    [
        (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}, "bad_data: parse error"),
        (503, {"status": "error", "errorType": "unavailable", "error": "not ready"}, "unavailable: not ready"),
        (502, b"<html>", "HTTP status 502"),
        (200, b"<html>", "none of its API"),
        (200, {"status": "success", "data": {"resultType": "vector", "result": []}}, "none of its API"),
        (200, matrix(["x", "y"]), "none of its API"),
    ],
)
async def test_refusals_are_told(status: int, document: Any, told: str) -> None:
    """An error of Prometheus is told in its own words; what is no answer of its API is said to be none."""
    with answering(lambda _: (status, document)) as (url, _), pytest.raises(errors.PeerFailed, match=told):
        await Prometheus(url, 5).figures(START, END)


async def test_silence_is_told() -> None:
    """Nobody listens: the address is named."""
    with answering(lambda _: (200, matrix())) as (url, _):
        pass

    with pytest.raises(errors.PeerUnreachable, match="does not answer"):
        await Prometheus(url, 5).figures(START, END)
