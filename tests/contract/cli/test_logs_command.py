"""`llmsr logs` on what a registry process wrote, and on what nobody should have written."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llm_schema_registry import errors
from llm_schema_registry.cli.logs_summary import Summary, Wanted
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2
from tests.fix_cli import PROGRAM, environment, run_here, run_process, run_terminal
from tests.fix_service import MakeService

Name = Callable[..., str]
TRACE = "0af7651916cd43dd8448eb211c80319c"
REGISTERED, FOUND, MISSED = 3, 40, 5
PREFIX = "llm_schema_registry.registry.v1.SchemaService"


async def called(client: RegistryClient, subject: str) -> None:
    """Some calls, some of which fail."""
    for number in range(REGISTERED):
        text = f'{{"type": "object", "title": "{number}"}}'
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=text
        )
        schema_id = (await client.call(client.schemas.RegisterSchema, request)).schema.id
    for _ in range(FOUND):
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=schema_id))
    for number in range(MISSED):
        with pytest.raises(errors.SchemaNotFound):
            await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1_000_000 + number))


@pytest.fixture
async def log(make_service: MakeService, database_url: str, name: Name) -> Path:
    """The log of a registry that was started, called and stopped, with every call in it."""
    service = make_service(database_url, observability__log_calls="all")
    await service.start_async()
    async with RegistryClient(service.target) as client:
        await called(client, name())
    assert await service.stop_async() == 0
    return service.folder / "log"


def line(**fields: Any) -> str:
    """A log line of a registry."""
    common = {"timestamp": "2026-11-30T12:00:00.000+00:00", "level": "info", "event": "ready", "service": "registry"}
    return json.dumps({**common, **fields}) + "\n"


def lines_of(log: Path) -> list[str]:
    """The lines of a file."""
    return log.read_text().splitlines()


async def test_the_log_of_a_registry_is_understood(log: Path) -> None:
    """Every line is read; calls, failures, latencies, slow calls and the life of the process are told."""
    ran = run_here("logs", str(log), "--output", "json")

    assert (ran.status, ran.stderr) == (0, "")
    found = ran.document
    assert found["lines"]["read"] == len(lines_of(log))
    assert found["lines"]["unreadable"] == {}
    assert list(found["services"]) == ["registry"]
    calls = {row["method"]: row for row in found["methods"]}
    assert (calls[f"{PREFIX}/RegisterSchema"]["calls"], calls[f"{PREFIX}/RegisterSchema"]["failed"]) == (REGISTERED, 0)
    get = calls[f"{PREFIX}/GetSchema"]
    assert (get["calls"], get["failed"]) == (FOUND + MISSED, MISSED)
    assert 0 < get["p50_ms"] <= get["p90_ms"] <= get["p95_ms"] <= get["p99_ms"] <= get["max_ms"]
    assert found["calls"]["all_logged"] is True
    errors_found = [(row["code"], row["reason"], row["method"], row["count"]) for row in found["top_errors"]]
    assert ("NOT_FOUND", "SCHEMA_NOT_FOUND", f"{PREFIX}/GetSchema", MISSED) in errors_found
    assert sum(bucket["calls"] for bucket in found["timeline"]["buckets"]) == found["calls"]["count"]
    assert all(len(slow["trace_id"]) == 32 and slow["request_id"] for slow in found["slowest"])
    steps = [step["detail"] for step in found["transitions"] if step["event"] == "state changed"]
    assert steps[-2:] == ["before=SERVING state=DRAINING", "before=DRAINING state=STOPPED"]


async def test_refusals_are_a_pattern_when_asked_for(log: Path) -> None:
    """A caller's mistake is logged at info: from that level on the refusals of all ids are one pattern."""
    ran = run_here("logs", str(log), "--level", "info", "--top", "200", "--output", "json")

    [pattern] = [one for one in ran.document["patterns"] if "SCHEMA_NOT_FOUND" in one["pattern"]]
    assert (pattern["count"], pattern["level"]) == (MISSED, "info")
    assert len(pattern["trace_id"]) == 32


async def test_successful_calls_are_read_the_quick_way(log: Path) -> None:
    """What the service writes is the line that the quick way knows: else a gigabyte takes its time."""
    summary = Summary(Wanted())
    lines = lines_of(log)
    summary.take(lines)

    assert sum(map(summary._quick, lines)) == REGISTERED + FOUND


async def test_people_get_sections(log: Path) -> None:
    """A table a section; on a terminal with a drawn timeline, and no line wider than it."""
    piped = run_here("logs", str(log))
    shown = run_terminal("logs", str(log))

    assert (piped.status, piped.stderr, shown.status) == (0, "", 0)
    heads = [
        line
        for line in piped.stdout.splitlines()
        if line.startswith(("Errors", "Top", "Lat", "Timeline", "Slow", "Life"))
    ]
    assert [head.split()[0].strip(",") for head in heads] == ["Errors", "Top", "Latency", "Timeline", "Slowest", "Life"]
    assert "SchemaService/GetSchema " in piped.stdout
    assert any("█" in line for line in shown.screen)
    assert max(map(len, shown.screen)) <= 80


def test_packed_files_and_standard_input_say_the_same(tmp_path: Path) -> None:
    """Plain, .gz of several members, .zst of several frames, a pipe."""
    text = "".join(line(event="page failed", level="error", path=f"/{number}") for number in range(500)).encode()
    plain, gz, zst = tmp_path / "a.log", tmp_path / "a.log.gz", tmp_path / "a.log.zst"
    plain.write_bytes(text)
    gz.write_bytes(gzip.compress(text[:1000]) + gzip.compress(text[1000:]))
    zst.write_bytes(zstandard.compress(text[:1000]) + zstandard.compress(text[1000:]))

    found = [run_here("logs", str(file), "--output", "json").document for file in (plain, gz, zst)]
    piped = run_process("logs", "--output", "json", given=text).document
    together = run_here("logs", str(plain), str(gz), "--output", "json").document

    assert [one["patterns"] for one in [*found, piped]] == [found[0]["patterns"]] * 4
    assert (found[0]["lines"]["read"], together["lines"]["read"]) == (500, 1000)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_file_is_told(tmp_path: Path, suffix: str, damage: str) -> None:
    """What could be read is shown; the damage is named, and the status 1."""
    text = "".join(line(path=os.urandom(30).hex()) for _ in range(20_000)).encode()
    packed = gzip.compress(text) if suffix == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress(text)
    file = tmp_path / f"a.log{suffix}"
    file.write_bytes(packed[: len(packed) // 2] if damage == "cut" else b"no such thing" * 10)

    ran = run_here("logs", str(file), "--output", "json")

    assert ran.status == 1
    assert str(file) in ran.stderr
    assert ran.document["files"][0]["problem"]
    assert (ran.document["lines"]["read"] > 0) is (damage == "cut")


def test_fail_on_errors_is_for_cron(tmp_path: Path) -> None:
    """Status 1 when there is a line at the level or above, or when nothing could be read; else 0."""
    file, text = tmp_path / "a.log", tmp_path / "text.log"
    file.write_text(line(level="warning"))
    text.write_text("2026-11-30T12:00:00.000+00:00 error    page failed\n")

    assert run_here("logs", str(file)).status == 0
    assert run_here("logs", str(file), "--fail-on-errors").status == 1
    assert run_here("logs", str(file), "--fail-on-errors", "--level", "error").status == 0
    assert run_here("logs", str(file), "--fail-on-errors", "--until", "2026-11-29").status == 0
    unread = run_here("logs", str(text), "--fail-on-errors")
    assert (unread.status, "observability.log_format = json" in unread.stderr) == (1, True)
    assert run_here("logs", str(text)).status == 0
    (tmp_path / "empty.log").touch()
    assert run_here("logs", str(tmp_path / "empty.log"), "--fail-on-errors").status == 0


def test_whatever_is_in_a_file_is_counted(tmp_path: Path) -> None:
    """Text, NULs, wrong bytes, a line of 100 MB, twice the same key, a line half written: told apart, and no crash."""
    file = tmp_path / "odd.log"
    with file.open("wb") as odd:
        odd.write(line().encode())
        odd.write(b"a text\n\n[1]\n" + b"\0" * 5000 + b"\n" + b'{"event": "\xff"}\n{"broken": \n{"a": 1}\n')
        for _ in range(100):
            odd.write(b"x" * (1 << 20))
        odd.write(b'\n{"event": "a", "event": "b", "timestamp": "2026-11-30", "level": "error"}\n{"half": "wri')

    process = subprocess.Popen(
        [*PROGRAM, "logs", str(file), "--output", "json"], stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    found = json.load(process.stdout)
    process.stdout.close()
    assert process.wait() == 0

    assert found["lines"] == {
        "read": 2, "outside_time": 0, "other_service_or_method": 0, "blank": 1, "odd_fields": 0,
        "unreadable": {"text": 3, "not_utf8": 1, "broken": 1, "other_shape": 1, "too_long": 1, "cut_off": 1},
    }  # fmt: skip
    assert found["patterns"][0]["pattern"] == "b"


def test_ctrl_c_ends_the_reading(tmp_path: Path) -> None:
    """Ctrl-C while a pipe is read ends with status 130 and no word."""
    process = subprocess.Popen(
        [*PROGRAM, "logs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    for _ in range(3_000):  # More than a pipe takes: when all are written, some were read.
        process.stdin.write(line().encode())
    process.stdin.flush()
    process.send_signal(signal.SIGINT)

    out, err = process.communicate()

    assert (process.returncode, out, err) == (130, b"", b"")
