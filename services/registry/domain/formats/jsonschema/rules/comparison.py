"""A reader's schema compared with a writer's by the reference registry's rules.

Pairs of subschemas are compared once each. A pair that leads back to itself is taken for compatible; when it turns out
not to be, all is compared again with what is known by then, until nothing new is found (the greatest fixpoint). So a
verdict never stands on an assumption that was wrong.

What the rules do not see: `format` and content keywords, the subschemas of contains, propertyNames, if/then/else and of
patterns that both schemas have, and names in `required` that have no entry in `properties` of both schemas. EXACT does.

Where they leave something open we are strict: a type that the writer does not state and the reader does is
TYPE_NARROWED, the other way round TYPE_EXTENDED; a boolean exclusiveMaximum or exclusiveMinimum (draft 4) is a limit
like in later drafts; `items` with one schema for all is an empty list of items with that schema for the rest where the
other side has a list. What is found in values that a rule on top calls not covered is part of that rule's finding.

Source: the reference registry (Confluent Schema Registry 8.4 and 8.5), JSON Schema format, by its documented behaviour;
"memo per pair, re-run to a fixpoint" since its pull request 4375.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats.jsonschema.rules.nodes import Node, NotResolved, Side
from services.registry.domain.formats.jsonschema.rules.words import WORDS

STEPS_MAX: Final = 30_000
"""Pairs of subschemas that one comparison looks at: about a second. Real schemas have hundreds."""
LOOKS_PER_STEP: Final = 8
"""Names, values and pairs known already that count as one step when they are looked at."""


class TooCostly(Exception):
    """The comparison would take more steps than are allowed."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and in which of the schemas the part that it is about is there at all."""

    finding: Finding
    in_reader: bool = True
    in_writer: bool = True


@dataclass(slots=True, eq=False)
class Result:
    """What comparing a pair gave: findings, and the results of pairs below that count for it."""

    items: list[Found | Result] = field(default_factory=list)
    compatible: bool = True

    def add(self, item: Found | Result) -> None:
        """Takes what was found for this pair."""
        self.items.append(item)
        if isinstance(item, Result):
            self.compatible = self.compatible and item.compatible
        else:
            self.compatible = self.compatible and item.finding.verdict is Verdict.COMPATIBLE

    def found(self) -> Iterator[Found]:
        """All findings in the order in which they were made, those of each pair once. Without recursion."""
        seen: set[int] = set()
        waiting: list[Found | Result] = [self]
        while waiting:
            item = waiting.pop()
            if isinstance(item, Found):
                yield item
            elif id(item) not in seen:
                seen.add(id(item))
                waiting.extend(reversed(item.items))

    def why(self) -> str:
        """The first reason why it is not compatible, as the end of a sentence."""
        verdicts = (item.finding for item in self.found())
        first = next((one for one in verdicts if one.verdict is not Verdict.COMPATIBLE), None)
        return "" if first is None else f": {first.message}"


Steps: TypeAlias = "Generator[tuple[Node, Node], Result, None]"
"""Compares a pair; yields pairs, writer first, and is sent their results."""
Key: TypeAlias = tuple[int, int]


class Comparison:
    """All pairs that comparing two schemas comes to.

    fine: names of the rules that do no harm. compare: the rules for one pair.
    """

    def __init__(
        self, writer: Side, reader: Side, fine: frozenset[str], compare: Callable[[Pair], Steps], steps_max: int
    ) -> None:
        self._writer = writer
        self._reader = reader
        self.fine = fine
        self._compare = compare
        self._steps = steps_max
        self._refuted: set[Key] = set()
        self._assumed: set[Key] = set()
        self._results: dict[Key, Result] = {}
        self._kept: list[Node] = []

    def decide(self) -> Result:
        """The result for the two schemas. Raises TooCostly and NotResolved."""
        writer, reader = self._writer.root(), self._reader.root()
        while True:
            known = len(self._refuted)
            self._results.clear()
            self._assumed.clear()
            result = self._run(writer, reader)
            if len(self._refuted) == known:
                return result

    def count(self, steps: int) -> None:
        """Counts work. Raises TooCostly."""
        self._steps -= steps
        if self._steps < 0:
            raise TooCostly

    def _run(self, writer: Node, reader: Node) -> Result:
        """Compares a pair and all below it, without recursion: schemas may nest as deep as references lead."""
        first = self._begin(writer, reader)
        running = [first]
        sent: Result | None = None
        while running:
            key, pair, steps = running[-1]
            try:
                below = steps.send(sent)  # type: ignore[arg-type]
            except StopIteration:
                running.pop()
                self._results[key] = sent = pair.result
                if not sent.compatible and key in self._assumed:
                    self._refuted.add(key)
                continue
            known = (id(below[0]), id(below[1]))
            sent = self._results.get(known)
            if sent is None:
                running.append(self._begin(*below))
            elif sent is _OPEN:
                self._assumed.add(known)
                sent = Result(compatible=known not in self._refuted)
        return first[1].result

    def _begin(self, writer: Node, reader: Node) -> tuple[Key, Pair, Steps]:
        self.count(1)
        self._kept += (writer, reader)  # Keys are addresses: no node may go before the comparison ends.
        key = (id(writer), id(reader))
        self._results[key] = _OPEN
        pair = Pair(self, writer, reader)
        return key, pair, self._compare(pair)


_OPEN: Final = Result()


@dataclass(slots=True, eq=False)
class Pair:
    """The writer's and the reader's node that are compared, and what is found of them."""

    comparison: Comparison
    writer: Node
    reader: Node
    result: Result = field(default_factory=Result)

    def parts(self, writer: Node, reader: Node) -> Pair:
        """Parts of the two whose findings belong here."""
        return Pair(self.comparison, writer, reader, self.result)

    def count(self, steps: int) -> None:
        """Counts work. Raises TooCostly."""
        self.comparison.count(steps)

    def add(self, rule: str, writer_path: str | None, reader_path: str | None, **details: str) -> None:
        """A finding at two places; None where the part is not there."""
        message, remedy = WORDS[rule]
        words = {"name": "", "old": "", "new": "", "why": "", **details}
        verdict = Verdict.COMPATIBLE if rule in self.comparison.fine else Verdict.INCOMPATIBLE
        finding = Finding(
            rule,
            verdict,
            message.format_map(words),
            remedy.format_map(words),
            reader_path=self.reader.path if reader_path is None else reader_path,
            writer_path=self.writer.path if writer_path is None else writer_path,
        )
        self.result.add(Found(finding, in_reader=reader_path is not None, in_writer=writer_path is not None))


__all__ = ["Comparison", "Found", "NotResolved", "Pair", "Result", "Steps", "TooCostly"]
