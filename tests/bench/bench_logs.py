"""How fast `llmsr logs` reads, beside a loop that only decodes each line with json.loads, and the memory it takes.

Both read the same file, in turn; CPU seconds of a process each count, because others use this machine too. The lines
are as a registry with observability.log_calls=all writes them, one in ten a failure, one in two hundred a traceback.
Targets: at most RATIO_MAX times the bare loop, a gigabyte in a minute of one core, and a peak that does not grow with
the file.

    PYTHONPATH=.:shared python tests/bench/bench_logs.py [megabytes]
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measuring import verdict

MEGABYTES = 256
ROUNDS = 3
RATIO_MAX = 4.0
GIGABYTE_SECONDS_MAX = 60.0
PEAK_MIB_MAX = 100.0
GROWTH_MIB_MAX = 24.0
SMALL_PART = 8
"""A file of this part of the size shows whether memory grows."""
PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        sys.stderr.write(line.split()[1])
"""
"""The peak as the process itself knows it: the one that its parent is told may be the parent's own."""
OURS = f"""
import sys
from llm_schema_registry.cli.main import main
assert main(["logs", "--output", "json", sys.argv[1]]) == 0
{PEAK}
"""
LOOP = f"""
import json, sys
with open(sys.argv[1], "rb") as file:
    for line in file:
        json.loads(line)
{PEAK}
"""
METHODS = ("SchemaService/GetSchema", "SchemaService/RegisterSchema", "SubjectService/GetVersion")
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/app/shared/llm_schema_registry/kernel/interceptors.py", line 165, in unary\n'
    "    answer = await self._handler(request, context)\n"
    '  File "/app/services/registry/handlers/schema.py", line {line}, in GetSchema\n'
    "    return codec.answer(found)\n"
    "KeyError: {key}"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took."""

    cpu_seconds: float
    peak_mib: float


def line(number: int, rng: random.Random) -> dict[str, object]:
    """A log line as the services write them."""
    second = number // 400
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_796_000_000 + second))
    common = {
        "timestamp": f"{stamp}.{number % 1000:03d}+00:00",
        "level": "info",
        "event": "call",
        "service": "registry",
        "trace_id": f"{rng.getrandbits(128):032x}",
        "request_id": f"{rng.getrandbits(64):016x}",
        "method": f"llm_schema_registry.registry.v1.{METHODS[number % 3]}",
    }
    if number % 200 == 0:
        exception = TRACEBACK.format(line=rng.randrange(400), key=rng.getrandbits(64))
        return {**common, "level": "error", "event": "unexpected exception", "exception": exception}
    failed = number % 10 == 0
    return {
        **common,
        "level": "warning" if failed else "info",
        "code": "UNAVAILABLE" if failed else "OK",
        "reason": "DATABASE_UNAVAILABLE" if failed else "",
        "message": f"pool of {rng.randrange(90)} gave none to '{rng.getrandbits(32)}' in {rng.random()} s"
        if failed
        else "",
        "duration_ms": round(rng.lognormvariate(0.5, 1), 3),
        "peer": "ipv4:10.0.0.17:40112",
        "caller": "spiffe://example.org/reader",
        "received_bytes": rng.randrange(2_000),
        "sent_bytes": rng.randrange(20_000),
        "logged": "all",
    }


def write(path: Path, megabytes: int) -> None:
    """Fills a file. A block of lines is written again and again: making a gigabyte of new ones takes minutes."""
    rng = random.Random(5)
    block = "".join(json.dumps(line(number, rng)) + "\n" for number in range(20_000)).encode()
    with path.open("wb") as file:
        while file.tell() < megabytes << 20:
            file.write(block)


def cost(code: str, path: Path) -> Cost:
    """Runs Python code on a file to its end."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(spent, int(done.stderr) / 1024)


def report(path: Path, megabytes: int, small: Path) -> Iterator[str]:
    """What was measured, beside the targets."""
    rounds = [(cost(OURS, path), cost(LOOP, path)) for _ in range(ROUNDS)]
    ours, loop = ([pair[side].cpu_seconds for pair in rounds] for side in range(2))
    for name, seconds in (("llmsr logs", ours), ("json.loads", loop)):
        middle = statistics.median(seconds)
        yield f"{name:12} {megabytes / middle:6.0f} MB/s  {middle:6.1f} s CPU for {megabytes} MB"
    times = statistics.median(mine / other for mine, other in zip(ours, loop, strict=True))
    yield verdict("CPU as a multiple of json.loads", times, at_most=RATIO_MAX)
    yield verdict("CPU seconds for 1 GB", statistics.median(ours) * 1000 / megabytes, at_most=GIGABYTE_SECONDS_MAX)
    peak = max(pair[0].peak_mib for pair in rounds)
    yield verdict("peak memory in MiB", peak, at_most=PEAK_MIB_MAX)
    growth = peak - cost(OURS, small).peak_mib
    yield verdict(f"growth in MiB from a file of 1/{SMALL_PART}", growth, at_most=GROWTH_MIB_MAX)


def main() -> int:
    """Prints the measurements; 1 when a target is missed."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "large.log", Path(folder) / "small.log"
        write(path, megabytes)
        write(small, megabytes // SMALL_PART)
        told = []
        for text in report(path, megabytes, small):
            sys.stdout.write(f"{text}\n")
            told.append(text)
    return int(any(text.endswith("MISSED") for text in told))


if __name__ == "__main__":
    sys.exit(main())
