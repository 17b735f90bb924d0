"""What the tests of EXACT share: verdicts of pairs, and two validators that know nothing of how they were found."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import jsonschema_rs

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Verdict, worst
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema import JsonSchema, compiling
from services.registry.domain.formats.jsonschema.exact import findings
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.closing import Closing
from services.registry.domain.formats.jsonschema.exact.document import Document
from services.registry.domain.formats.jsonschema.exact.facts import Context
from services.registry.domain.formats.jsonschema.exact.filling import Filling
from services.registry.domain.formats.jsonschema.exact.generate import Generator, Hints
from tests import schema_mutations

BOTH = Rules(Policy.EXACT)
NEITHER = Rules(Policy.EXACT, declared_properties_only=False)
FILLING = Rules(Policy.EXACT, declared_properties_only=False, reader_fills_defaults=True)
FORMATS = Rules(Policy.EXACT, declared_properties_only=False, assert_formats=True)
ALL_RULES = (BOTH, NEITHER, FILLING, Rules(Policy.EXACT, reader_fills_defaults=True))
STEPS = 50_000_000

SECOND: dict[str, type[Any]] = {
    "http://json-schema.org/draft-04/schema": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}


def parsed(schema: Any, sources: dict[str, Any] | None = None, *, draft: str = "") -> Parsed:
    """A schema as the registry reads it."""
    texts = {name: json.dumps(source) for name, source in (sources or {}).items()}
    return JsonSchema().parse(schema if isinstance(schema, str) else json.dumps(schema), texts, dialect=draft)


def parsed_or_none(schema: Any, *, draft: str = "") -> Parsed | None:
    """A schema as the registry reads it; None when it is refused."""
    try:
        return parsed(schema, draft=draft)
    except InvalidSchema:
        return None


def compiled(one: Parsed, *, assert_formats: bool = False) -> jsonschema_rs.Validator:
    """The validator that data of a schema is checked with."""
    return compiling.compiled(one.text, json.loads(one.text), one.dialect, one.sources, assert_formats=assert_formats)


def compare(reader: Any, writer: Any, rules: Rules = NEITHER) -> list[Finding]:
    """All findings of two schemas."""
    return list(findings(parsed(reader), parsed(writer), rules))


def verdict(reader: Any, writer: Any, rules: Rules = NEITHER) -> Verdict:
    """The verdict on two schemas."""
    return worst(compare(reader, writer, rules))


def second_agrees(one: Parsed) -> bool:
    """Whether the second validator reads the schema as the first: it does not know some keywords of some drafts."""
    later = "20" in one.dialect and '"dependencies"' in one.text
    return not later and "content" not in one.text and '"unevaluated' not in one.text


@dataclass
class Oracle:
    """Judges instances of a pair independently of the engine's proofs and searches."""

    reader: Parsed
    writer: Parsed
    rules: Rules
    checked: int = 0
    _compiled: list[jsonschema_rs.Validator] = field(init=False)
    _second: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        formats = self.rules.assert_formats
        self._compiled = [compiled(one, assert_formats=formats) for one in (self.reader, self.writer)]
        self._second = [SECOND[one.dialect](json.loads(one.text)) for one in (self.reader, self.writer)]
        self._document = Document(self.writer, assert_formats=formats)
        self._reading = Document(self.reader, assert_formats=formats)
        self._closing = Closing(self._document)

    def may_write(self, value: Any) -> bool:
        """Whether the writer may send it under the assumptions."""
        if not self._compiled[1].is_valid(value):
            return False
        if not self.rules.declared_properties_only:
            return True
        try:
            return self._closing.obeys(value, Checker(STEPS))
        except Unknown:
            return False

    def reads(self, value: Any) -> bool:
        """Whether the reader takes it under the assumptions."""
        if self._compiled[0].is_valid(value):
            return True
        if not self.rules.reader_fills_defaults:
            return False
        return self._compiled[0].is_valid(Filling().filled(self._reading.root, value))

    def refutation(self, values: Iterable[Any]) -> Any:
        """The first of some values that the writer may send and the reader does not take, in a list; else empty."""
        for value in values:
            if self.may_write(value):
                self.checked += 1
                if not self.reads(value):
                    return [value]
        return []

    def second_refutation(self, values: Iterable[Any]) -> Any:
        """The same by the second validator alone, without assumptions; it asserts no formats."""
        if self.rules.assert_formats or not (second_agrees(self.reader) and second_agrees(self.writer)):
            return []
        for value in values:
            if self._second[1].is_valid(value) and not self._second[0].is_valid(value) and self.may_write(value):
                return [value]
        return []

    def is_witness(self, finding: Finding) -> bool:
        """Whether both validators confirm a finding's witness."""
        assert finding.witness is not None
        value = json.loads(finding.witness.text)
        if not self.may_write(value) or self.reads(value):
            return False
        if self.rules.assert_formats or not (second_agrees(self.reader) and second_agrees(self.writer)):
            return True
        return bool(self._second[1].is_valid(value) and not self._second[0].is_valid(value))


def near_values(dice: random.Random, findings_values: list[Any], count: int) -> list[Any]:
    """Values made from given ones by small changes."""
    return [_changed(dice, dice.choice(findings_values)) for _ in range(count)] if findings_values else []


def _changed(dice: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        rest = {other: item for other, item in value.items() if other != name}
        return rest if dice.random() < 0.3 else {**rest, name: _changed(dice, value[name])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        index = dice.randrange(len(value))
        return [*value[:index], *([] if dice.random() < 0.3 else [_changed(dice, value[index])]), *value[index + 1 :]]
    return dice.choice((None, True, 0, 1, 1.0, -1, 2.5, "", "a", "ab", [], {}, [1], {"a": 1}, value))


def written_by(one: Parsed, other: Parsed, count: int) -> list[Any]:
    """Instances of a schema, made with the names and bounds of both."""
    node = Document(one).root
    hints = Hints.of([node, Document(other).root])
    return list(islice(Generator(Checker(STEPS)).values(Context((node,)), hints, count), count))


def instances(reader: Parsed, writer: Parsed, dice: random.Random, count: int) -> list[Any]:
    """Instances to try on a pair: guided, near to those, and at random."""
    guided = written_by(writer, reader, count // 4) + written_by(reader, writer, count // 8)
    return [*guided, *near_values(dice, guided, count // 4), *schema_mutations.random_values(dice, count // 2)]


def check_pair(reader: Parsed, writer: Parsed, rules: Rules, dice: random.Random, count: int) -> Verdict:
    """The verdict on a pair, after everything that can refute it was tried. Fails when something does."""
    found = list(findings(reader, writer, rules))
    oracle = Oracle(reader, writer, rules)
    about = f"reader {reader.text[:2000]} ({reader.dialect}) writer {writer.text[:2000]} ({writer.dialect}) {rules}"
    for finding in found:
        if finding.verdict is Verdict.INCOMPATIBLE:
            assert oracle.is_witness(finding), f"no witness: {finding.witness} of {about}"
    if not found:
        values = instances(reader, writer, dice, count)
        assert oracle.refutation(values) == [], f"refuted: {about}"
        if not rules.reader_fills_defaults:
            assert oracle.second_refutation(values[: count // 10]) == [], f"refuted by the second validator: {about}"
    return worst(found)
