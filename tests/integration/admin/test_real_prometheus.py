"""Reports on capacity drawn from a real Prometheus, which scrapes the real metrics pages of two services."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_service_pb2
from services.admin.adapters.prometheus import QUERIES, STEP_SECONDS_MIN, Prometheus
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_backup import MakeBackupService, database_of
from tests.fix_faults import eventually
from tests.fix_service import Service

PROGRAM = "PROMETHEUS"
"""Environment variable with the path of the program, when it is not on PATH."""
TILE_SECONDS = 7
"""So that there are several within the load. The first one and the last are recorded in part."""
LOAD_SECONDS = 21.0
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: llm-schema-registry
    static_configs: [{{targets: {targets}}}]
"""


@contextmanager
def prometheus(program: str, folder: Path, port: int, scraped: Sequence[Service]) -> Iterator[str]:
    """The URL of a Prometheus that scrapes services."""
    targets = [f"127.0.0.1:{each.ports['http_port']}" for each in scraped]
    (folder / "prometheus.yml").write_text(CONFIG.format(targets=json.dumps(targets)))
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def asked(url: str, path: str) -> Any:
    """The data of an answer of Prometheus."""
    with urllib.request.urlopen(f"{url}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def value(page: str, name: str) -> float:
    """The sum of a metric on a metrics page."""
    return sum(float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)", page, re.MULTILINE))


@pytest.fixture
def program() -> str:
    """The path of Prometheus."""
    found = os.environ.get(PROGRAM) or shutil.which("prometheus")
    if found is None:
        pytest.skip(f"no prometheus on PATH, and {PROGRAM} names none")
    return found


async def load(registry: Service, seconds: float) -> float:
    """Calls a registry for so long, and returns how many calls a second that were."""
    began, calls = time.monotonic(), 0
    async with RegistryClient(registry.target) as client:
        request = schema_service_pb2.GetSchemaRequest(id=1)
        while time.monotonic() < began + seconds:
            await client.call(client.schemas.GetSchema, request)
            calls += 1
            await asyncio.sleep(0.01)
    return calls / (time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.option("admin.prometheus_url")
async def test_figures_of_a_real_prometheus(
    program: str,
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """Prometheus reads both pages without a complaint. It has a figure of every resource, of the registry alone,
    although the backup service has metrics of the same names, and right from its first seconds on; a report takes
    them from it."""
    registry, database_url = filled_registry, database_of(filled_registry)
    backup = make_backup_service(database_url)
    await backup.start_async()
    with prometheus(program, tmp_path, free_port(), [registry, backup]) as url:
        admin = make_admin_service(
            database_url, registry=[registry.target], backup=[backup.target], admin__prometheus_url=url
        )
        await admin.start_async()

        async def scraped() -> bool:
            with suppress(OSError):
                targets = (await asyncio.to_thread(asked, url, "targets"))["activeTargets"]
                return [each["health"] for each in targets] == ["up"] * 2
            return False

        await eventually(scraped)
        rate = await load(registry, LOAD_SECONDS)
        now = datetime.now(UTC)
        figures = await Prometheus(url, 5, TILE_SECONDS).figures(now - timedelta(seconds=STEP_SECONDS_MIN + 1), now)
        async with admin_client(admin) as client:
            answer = await client.call(client.system.GetCapacityReport, pb.GetCapacityReportRequest())
        targets = (await asyncio.to_thread(asked, url, "targets"))["activeTargets"]
        _, page = await asyncio.to_thread(registry.http, "/metrics")

    assert [(each["health"], each["lastError"]) for each in targets] == [("up", "")] * 2
    found = {name: each[-1].value for name, each in figures.items() if each}
    assert set(found) == set(QUERIES)
    assert rate / 3 < found["requests_per_second"] < 1.3 * rate
    assert found["requests_per_second_peak"] >= found["requests_per_second"]
    assert found["errors_per_second"] == 0
    assert 0.01 < found["cpu_cores"] < 1.5
    assert found["memory_bytes"] == pytest.approx(value(page, "process_memory_usage_bytes"), rel=0.2)
    assert 0 <= found["pool_connections"] <= value(page, "db_client_connection_count")
    assert found["replicas"] == 1
    assert 0.5 < found["cache_hit_ratio"] <= 1
    told = {each.name for each in answer.report.resources if each.source == "prometheus"}
    assert {"memory_bytes", "pool_connections", "replicas"} <= told
    assert not any("Prometheus" in problem for problem in answer.report.problems)
