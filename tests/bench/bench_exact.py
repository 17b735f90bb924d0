"""EXACT on edits of real JSON Schemas, in both directions, with the default assumption and with none.

Prints the share of decided pairs, the time of a verdict, what is left undecided by kind of edit, and beside it the
library's `covers` alone. Targets: at least 97.5 % decided, median below 2 ms, 99th percentile below 1 s; when one of
them is missed the exit code is 1. Last, one schema of 200 properties beside its 100 versions: below 1 s in all.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

import jsonschema_rs

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.formats.jsonschema.exact import findings
from tests import schema_mutations

SEED = 20260102
PAIRS = 1000
DECIDED_SHARE = 0.975
MEDIAN_SECONDS = 0.002
LATE_SECONDS = 1.0


def edited_pairs(count: int, seed: int) -> Iterator[tuple[str, str, Parsed, Parsed]]:
    """(kind, name, before, after) of edits of real schemas and their parts that are schemas again."""
    dice = random.Random(seed)
    language = JsonSchema()
    real = list(schema_mutations.pieces())
    while count:
        name, schema = dice.choice(real)
        edited = schema_mutations.mutated(schema, dice)
        if edited is None:
            continue
        try:
            pair = language.parse(json.dumps(schema), {}), language.parse(json.dumps(edited[1]), {})
        except InvalidSchema:
            continue
        count -= 1
        yield edited[0], name, *pair


def covers(reader: Parsed, writer: Parsed) -> str:
    """What the library says by itself."""
    try:
        one, other = (
            jsonschema_rs.canonicalize(
                json.loads(parsed.text),
                validate_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
                offline=True,
            )
            for parsed in (reader, writer)
        )
        return str(one.covers(other))
    except ValueError:
        return "error"


def measure(pairs: list[tuple[str, str, Parsed, Parsed]], rules: Rules) -> bool:
    """Prints the figures for one set of assumptions, and says whether they meet the targets."""
    verdicts: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    seconds: list[float] = []
    for kind, name, before, after in pairs:
        for direction, reader, writer in (("backward", after, before), ("forward", before, after)):
            start = time.perf_counter()
            found = list(findings(reader, writer, rules))
            seconds.append(time.perf_counter() - start)
            verdict = found[0].verdict.name if found else "COMPATIBLE"
            verdicts[verdict] += 1
            if verdict == "UNDECIDED":
                causes[kind] += 1
            if "-v" in sys.argv and (verdict == "UNDECIDED" or seconds[-1] > LATE_SECONDS):
                print(f"  {verdict} {kind} {direction} {name} {seconds[-1]:.2f}s {found[0].message if found else ''}")
    seconds.sort()
    total = sum(verdicts.values())
    decided = total - verdicts["UNDECIDED"]
    median, late = seconds[total // 2], seconds[total * 99 // 100]
    print(f"declared_properties_only={rules.declared_properties_only}: {dict(verdicts)}")
    print(
        f"  decided {100 * decided / total:.2f} % of {total} (target {100 * DECIDED_SHARE} %); "
        f"undecided by edit: {dict(causes)}"
    )
    print(
        f"  median {1000 * median:.2f} ms (target {1000 * MEDIAN_SECONDS:.0f}), 99th percentile {1000 * late:.0f} ms "
        f"(target {1000 * LATE_SECONDS:.0f}), longest {1000 * seconds[-1]:.0f} ms"
    )
    return decided >= DECIDED_SHARE * total and median < MEDIAN_SECONDS and late < LATE_SECONDS


def history(properties: int, versions: int) -> None:
    """Prints the time for comparing one schema with the versions before it, each of which added a property."""
    language = JsonSchema()
    declared = {
        f"property_{n}": {"type": "string", "maxLength": n, "description": f"No. {n}."} for n in range(properties)
    }
    names = list(declared)
    parsed = [
        language.parse(
            json.dumps({"type": "object", "properties": {name: declared[name] for name in names[:count]}}), {}
        )
        for count in range(properties - versions, properties + 1)
    ]
    for direction in ("backward", "forward"):
        pairs = [(parsed[-1], old) if direction == "backward" else (old, parsed[-1]) for old in parsed[:-1]]
        start = time.perf_counter()
        count = sum(1 for reader, writer in pairs for _ in findings(reader, writer, Rules(Policy.EXACT)))
        print(
            f"{properties} properties, {versions} versions, {direction}: {time.perf_counter() - start:.2f} s "
            f"(target 1), {count} findings"
        )


def main() -> int:
    """Runs everything; 1 when a target of the verdicts is missed."""
    count = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdecimal() else PAIRS
    print(f"edits of {len(list(schema_mutations.pieces()))} real schemas and parts of them, seed {SEED}")
    pairs = list(edited_pairs(count, SEED))
    met = [
        measure(pairs, Rules(Policy.EXACT)),
        measure(pairs, Rules(Policy.EXACT, declared_properties_only=False)),
    ]
    alone: Counter[str] = Counter()
    start = time.perf_counter()
    for _, _, before, after in pairs:
        alone[covers(after, before)] += 1
        alone[covers(before, after)] += 1
    mean = 1000 * (time.perf_counter() - start) / (2 * len(pairs))
    share = 100 * (alone["yes"] + alone["no"]) / (2 * len(pairs))
    print(f"covers alone, no assumption: {dict(alone)}: decided {share:.2f} %, mean {mean:.2f} ms")
    history(200, 100)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
