"""EXACT never says COMPATIBLE where an instance shows the opposite, nor gives a witness that is none.

The quick tests take few pairs. The long one is for `make test-slow`: pairs of random schemas in all drafts and under
all assumptions, edits of real schemas, thousands of instances each, judged by two validators.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Verdict
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema.exact import findings
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.closing import Closing
from services.registry.domain.formats.jsonschema.exact.document import Document
from tests import schema_mutations, schema_rewritings
from tests.exact_oracle import (
    ALL_RULES,
    BOTH,
    FORMATS,
    NEITHER,
    SECOND,
    STEPS,
    Oracle,
    check_pair,
    compiled,
    parsed,
    parsed_or_none,
    written_by,
)

ADDRESSES = (
    *("a.json", "dir/b.json", "dir/", "b", "../c", "/d", "a.json?q=1", "a%20b.json", "//example.com/z"),
    *("http://example.com", "http://example.com/a", "http://example.com/dir/b", "http://example.com/dir/b#"),
    *("urn:x:y", "tag:x,1:b", "file:///a"),
)
SEEDS = st.integers(0, 2**32)
SLOW_PAIRS = 2500
SLOW_REAL_PAIRS = 250
SLOW_VALUES = 1500
SLOW_NEAR_PAIRS = 600
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def pair(dice: random.Random, *, drafts: bool = False) -> tuple[Parsed, Parsed] | None:
    """A random reader and writer; None when one of them is refused."""
    reader, writer = schema_mutations.random_pair(dice)
    first = dice.choice(list(SECOND)) if drafts else ""
    second = dice.choice((first, dice.choice(list(SECOND)))) if drafts else ""
    one, other = parsed_or_none(reader, draft=first), parsed_or_none(writer, draft=second)
    return None if one is None or other is None else (one, other)


@QUICK
@given(SEEDS)
def test_random_pairs_are_judged_soundly(seed: int) -> None:
    """No instance refutes a COMPATIBLE pair, and every witness is one."""
    dice = random.Random(seed)
    given_pair = pair(dice, drafts=dice.random() < 0.4)
    if given_pair is not None:
        check_pair(*given_pair, dice.choice(ALL_RULES), dice, 120)


@QUICK
@given(SEEDS)
def test_rewritten_schemas_are_judged_soundly(seed: int) -> None:
    """No instance near the bounds of both refutes a COMPATIBLE pair of schemas that mean nearly the same."""
    check_near_pair(random.Random(seed), 80)


@QUICK
@given(SEEDS)
def test_a_schema_is_compatible_with_itself(seed: int) -> None:
    """Under all assumptions, also when its text differs by members that mean nothing."""
    dice = random.Random(seed)
    schema = schema_mutations.random_schema(dice, 2)
    one = parsed_or_none(schema)
    if one is None or not isinstance(schema, dict):
        return
    other = parsed({"title": "other", **schema, "x-more": 1})
    for rules in ALL_RULES:
        assert list(findings(one, one, rules)) == []
        assert list(findings(other, one, rules)) == []


@QUICK
@given(SEEDS)
def test_verdicts_do_not_depend_on_the_run(seed: int) -> None:
    """The same pair gets the same findings again."""
    dice = random.Random(seed)
    given_pair = pair(dice)
    if given_pair is not None:
        assert list(findings(*given_pair, BOTH)) == list(findings(*given_pair, BOTH))


@QUICK
@given(SEEDS)
def test_our_checker_agrees_with_the_library(seed: int) -> None:
    """The validator over nodes says of every instance what the library says, in every draft."""
    dice = random.Random(seed)
    one = parsed_or_none(schema_mutations.random_schema(dice, 2), draft=dice.choice(list(SECOND)))
    if one is None:
        return
    validator, node, checker = compiled(one), Document(one).root, Checker(STEPS)
    for value in schema_mutations.random_values(dice, 60):
        try:
            assert checker.is_valid(node, value) == validator.is_valid(value), (one.text, one.dialect, value)
        except Unknown:
            return


@settings(QUICK, max_examples=200)
@given(SEEDS)
def test_references_lead_where_those_of_the_library_lead(seed: int) -> None:
    """With addresses, names of sources and relative references of all sorts, or it is not known where."""
    dice = random.Random(seed)
    schema, sources = addressed(dice, dice.choice(list(SECOND)))
    try:
        one = parsed(schema, sources)
    except InvalidSchema:
        return
    validator, node = compiled(one), Document(one).root
    for text in ("own", *(f"{letter}{n}" for letter in "rtu" for n in range(len(sources)))):
        value: Any = {"a": text}
        try:
            assert Checker().is_valid(node, value) == validator.is_valid(value), (one.text, sources, text)
        except Unknown:
            continue


def addressed(dice: random.Random, draft: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema and sources that refer to one another, each of which accepts other texts in each of its parts."""
    word = "id" if "04" in draft else "$id"
    names = dice.sample(ADDRESSES, k=dice.randint(1, 3))
    sources: dict[str, Any] = {}
    for n, name in enumerate(names):
        below = {"$ref": dice.choice(["#/definitions/t", *names])} if dice.random() < 0.5 else {"enum": [f"u{n}"]}
        sources[name] = {"definitions": {"t": {"enum": [f"t{n}"]}, "u": below}, "enum": [f"r{n}"]}
        if dice.random() < 0.7:
            sources[name][dice.choice((word, word, "id", "$id"))] = dice.choice(ADDRESSES)
    fragment = dice.choice(("", "", "#", "#/definitions/t", "#/definitions/u"))
    schema = {
        "$schema": draft,
        "definitions": {"t": {"enum": ["own"]}},
        "properties": {"a": {"$ref": dice.choice(names) + fragment}},
    }
    if dice.random() < 0.7:
        schema[dice.choice((word, word, "id", "$id"))] = dice.choice(ADDRESSES)
    return schema, sources


@QUICK
@given(SEEDS)
def test_a_closed_schema_accepts_whatever_obeys(seed: int) -> None:
    """Closing excludes no instance of the writer in which all members are declared."""
    dice = random.Random(seed)
    one = parsed_or_none(schema_mutations.random_schema(dice, 3))
    if one is None:
        return
    document, checker = Document(one), Checker(STEPS)
    closing = Closing(document)
    closed = closing.closed(document.root)
    for value in [*written_by(one, one, 40), *schema_mutations.random_values(dice, 60)]:
        try:
            if checker.is_valid(document.root, value) and closing.obeys(value, checker):
                assert checker.is_valid(closed, value), (one.text, value)
        except Unknown:
            return


def check_near_pair(dice: random.Random, count: int) -> Verdict | None:
    """The verdict on a pair of rewritings, under some assumptions, after so many values were tried to refute it."""
    one, other = (parsed_or_none(schema) for schema in schema_rewritings.near_pair(dice))
    if one is None or other is None:
        return None
    rules = dice.choice((*ALL_RULES, FORMATS))
    found = check_pair(one, other, rules, dice, count)
    if found is Verdict.COMPATIBLE:
        values = schema_rewritings.small_values(dice, count)
        assert Oracle(one, other, rules).refutation(values) == [], f"reader {one.text} writer {other.text} {rules}"
    return found


def test_edits_of_real_schemas_are_judged_soundly() -> None:
    """A few edits of real schemas, both directions, by instances made for them."""
    dice = random.Random(7)
    real = [schema for name, schema in schema_mutations.pieces() if len(json.dumps(schema)) < 6000]
    counts = Counter(
        check_pair(one, other, rules, dice, 60)
        for before, after, rules in real_pairs(dice, real, 25)
        for one, other in ((before, after), (after, before))
    )

    assert counts[Verdict.COMPATIBLE] > 5
    assert counts[Verdict.INCOMPATIBLE] > 5


def real_pairs(dice: random.Random, real: list[dict[str, Any]], count: int) -> list[tuple[Parsed, Parsed, Rules]]:
    """Real schemas and edits of them that are schemas, with assumptions."""
    found: list[tuple[Parsed, Parsed, Rules]] = []
    while len(found) < count:
        schema = dice.choice(real)
        edited = schema_mutations.mutated(schema, dice)
        try:
            if edited is not None:
                found.append((parsed(schema), parsed(edited[1]), dice.choice(ALL_RULES)))
        except InvalidSchema:
            continue
    return found


@pytest.mark.slow
@pytest.mark.rotating(3, "long runs")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["random", "real"])
def test_long_run_of_soundness(kind: str, request: pytest.FixtureRequest) -> None:
    """Thousands of pairs with thousands of instances for each that is COMPATIBLE: no violation."""
    seed = request.config.getoption("--hypothesis-seed", default=None)
    dice = random.Random(f"{seed}{kind}")
    sys.stdout.write(f"seed: {seed}\n")
    counts: Counter[Verdict] = Counter()
    if kind == "random":
        for _ in range(SLOW_PAIRS):
            given_pair = pair(dice, drafts=dice.random() < 0.5)
            if given_pair is not None:
                counts[check_pair(*given_pair, dice.choice(ALL_RULES), dice, SLOW_VALUES)] += 1
    else:
        real = [schema for _, schema in schema_mutations.pieces() if len(json.dumps(schema)) < 20_000]
        for before, after, rules in real_pairs(dice, real, SLOW_REAL_PAIRS):
            counts[check_pair(after, before, rules, dice, SLOW_VALUES // 2)] += 1
            counts[check_pair(before, after, NEITHER, dice, SLOW_VALUES // 2)] += 1
    sys.stdout.write(f"{dict(counts)}\n")

    total = sum(counts.values())
    assert counts[Verdict.UNDECIDED] <= 0.04 * total
    assert counts[Verdict.COMPATIBLE] >= 0.3 * total


@pytest.mark.slow
@pytest.mark.rotating(3, "long runs")
@pytest.mark.timeout(900)
def test_long_run_of_rewritten_schemas(request: pytest.FixtureRequest) -> None:
    """Hundreds of pairs that mean nearly the same, so that the bounds of one lie close to those of the other."""
    seed = request.config.getoption("--hypothesis-seed", default=None)
    sys.stdout.write(f"seed: {seed}\n")
    counts = Counter(check_near_pair(random.Random(f"{seed}near{n}"), 300) for n in range(SLOW_NEAR_PAIRS))
    sys.stdout.write(f"{counts}\n")

    assert counts[Verdict.COMPATIBLE] > SLOW_NEAR_PAIRS / 3
    assert counts[Verdict.INCOMPATIBLE] > SLOW_NEAR_PAIRS / 50
