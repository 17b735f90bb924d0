"""Protobuf: parse, fingerprint, diff and validation of data, beside the bare library and beside buf.

Targets: checking data costs at most 1.5 times what the bare library costs; 100 versions of a message of 200 fields are
compared with the next one in a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from google.protobuf import json_format

from services.registry.adapters.protoc import compile_files
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.formats import DataRules, Encoding, Parsed, work
from services.registry.domain.formats.protobuf import Protobuf, schema, source_text
from services.registry.domain.limits import FINDINGS_MAX
from services.registry.domain.model import Format
from tests.bench import measuring

ROUNDS = 21
FIELDS = 20
TEXT = (
    'syntax = "proto3"; package bench; import "google/protobuf/timestamp.proto"; message Order { '
    + " ".join(f"string text_{number} = {number};" for number in range(1, FIELDS + 1))
    + " google.protobuf.Timestamp at = 101; repeated Line lines = 102; Color color = 103; }"
    + " message Line { string sku = 1; int64 quantity = 2; double price = 3; } enum Color { RED = 0; BLUE = 1; }"
)
DATA = {
    **{f"text{number}": "some text" for number in range(1, FIELDS + 1)},
    "at": "2026-11-23T12:00:00Z",
    "lines": [{"sku": f"sku {number}", "quantity": str(number), "price": 1.5} for number in range(5)],
    "color": "BLUE",
}


def micros(work: Callable[[], object], times: int) -> float:
    """Microseconds of one call, over some calls."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times * 1e6


def compared(name: str, ours: Callable[[], object], bare: Callable[[], object], times: int) -> float:
    """Prints medians of both sides, taken in turns, and gives the median of their ratios."""
    rounds = [(micros(ours, times), micros(bare, times)) for _ in range(ROUNDS)]
    mine, other = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = statistics.median(one / two for one, two in rounds)
    print(f"{name:34} {mine:9.1f} µs   bare {other:9.1f} µs   ratio {ratio:5.2f}")
    return ratio


def data_checks(language: Protobuf) -> list[str]:
    """Checks of payloads beside what the library needs to read them."""
    parsed = language.parse(TEXT, {})
    compiled = schema.load(parsed.descriptor_set)
    kind = type(compiled.new(compiled.message("bench.Order")))
    text = json.dumps(DATA).encode()

    def bare_json(payload: bytes) -> object:
        return json_format.Parse(payload, kind(), descriptor_pool=compiled.pool)

    packed = json_format.Parse(text, kind(), descriptor_pool=compiled.pool).SerializeToString()
    verdicts = []
    for strict in (False, True):
        mode = " strict" if strict else ""
        by_json = language.validator(parsed, DataRules(strict=strict)).check
        ratio = compared(f"check JSON{mode}, {len(text)} bytes", partial(by_json, text), partial(bare_json, text), 50)
        verdicts.append(measuring.verdict(f"check JSON{mode}", ratio, at_most=1.5))
        by_bytes = language.validator(parsed, DataRules(Encoding.BINARY, strict=strict)).check
        ratio = compared(
            f"check binary{mode}, {len(packed)} bytes",
            partial(by_bytes, packed),
            partial(kind.FromString, packed),
            5000,
        )
        if not strict:  # The bare library cannot refuse unknown fields.
            verdicts.append(measuring.verdict("check binary", ratio, at_most=1.5))
    return verdicts


def diff(language: Protobuf, reader: Parsed, writer: Parsed, rules: Rules) -> list[Finding]:
    """All findings."""
    return list(language.diff(reader, writer, rules))


def diffs(language: Protobuf) -> None:
    """Diffs of two versions under each policy, and buf's time for them."""
    old, new = language.parse(TEXT, {}), language.parse(TEXT.replace("int64 quantity", "sint64 quantity"), {})
    for policy in Policy:
        for name, reader in (("changed", new), ("added to", language.parse(TEXT + " message More { }", {}))):
            spent = micros(partial(diff, language, reader, old, Rules(policy)), 50)
            print(f"diff {policy.name:8} {name:20} {spent:9.1f} µs")
    with tempfile.TemporaryDirectory() as folder:
        images: Sequence[Path] = [Path(folder) / "new.binpb", Path(folder) / "old.binpb"]
        for path, parsed in zip(images, (new, old), strict=True):
            path.write_bytes(parsed.descriptor_set)
        buf = Path(sys.executable).parent / "buf"
        if not buf.exists():
            print("diff by buf: it is not installed")
            return
        command = [str(buf), "breaking", str(images[0]), "--against", str(images[1])]
        spent = micros(lambda: subprocess.run(command, check=False, capture_output=True, cwd=folder), 3)
        print(f"diff by buf, a process each        {spent:9.1f} µs")


def many_versions(language: Protobuf) -> list[str]:
    """A check of a candidate against 100 versions, each with another field."""
    fields = "".join(f"string text_{number} = {number};" for number in range(1, 201))
    texts = [f'syntax = "proto3"; message M {{ {fields} int32 extra = {1000 + number}; }}' for number in range(101)]
    candidate, *versions = [language.parse(text, {}) for text in texts]
    verdicts = []
    for policy in Policy:
        check = partial(work.diff, language, [(candidate, old) for old in versions], Rules(policy), FINDINGS_MAX)
        seconds = statistics.median(micros(check, 1) for _ in range(5)) / 1e6
        verdicts.append(measuring.verdict(f"seconds for 100 versions, {policy.name}", seconds, at_most=1.0))
    return verdicts


def main() -> int:
    """Runs all of it. 1 when a target is missed."""
    language = Protobuf(compile_files)
    parsed = language.parse(TEXT, {})
    compared("parse", lambda: language.parse(TEXT, {}), lambda: compile_files(source_text.files(TEXT, {})), 20)
    spent = micros(lambda: fingerprint(Format.PROTOBUF, parsed.identity_body, {}), 2000)
    print(f"fingerprint                        {spent:9.1f} µs")
    diffs(language)
    verdicts = [*many_versions(language), *data_checks(language)]
    print(*verdicts, sep="\n")
    return int(any("MISSED" in line for line in verdicts))


if __name__ == "__main__":
    sys.exit(main())
