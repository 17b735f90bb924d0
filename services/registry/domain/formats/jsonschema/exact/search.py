"""The search for witnesses: data that the writer may write and the reader rejects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import jsonschema_rs

from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.document import Document, Node
from services.registry.domain.formats.jsonschema.exact.facts import Context, made
from services.registry.domain.formats.jsonschema.exact.gaps import Gap, Part
from services.registry.domain.formats.jsonschema.exact.generate import Generator, Hints
from services.registry.domain.formats.jsonschema.exact.judge import Judge
from services.registry.domain.formats.jsonschema.exact.prover import Prover
from services.registry.domain.formats.jsonschema.exact.scalars import kinds_of
from services.registry.domain.formats.jsonschema.exact.shape import Shape

LOCAL_MAX: Final = 4
"""Values that break one assertion at its place, which are then built into whole instances."""
WHOLE_MAX: Final = 3
GUESSES_MAX: Final = 300
ROOT_GUESSES_MAX: Final = 200
SHRINKS_MAX: Final = 150


@dataclass(frozen=True, slots=True)
class Found:
    """A witness as JSON, the reader's errors, and the gap that led to it."""

    text: str
    errors: list[jsonschema_rs.ValidationError]
    gap: Gap


class Search:
    """Looks for witnesses of gaps."""

    def __init__(self, judge: Judge, checker: Checker, prover: Prover) -> None:
        self._judge = judge
        self._checker = checker
        self._prover = prover
        self._generator = Generator(checker)

    def witness(self, gap: Gap) -> Found | None:
        """A witness of one gap."""
        for value in self._whole(gap):
            found = self._judge.rejection(value)
            if found is not None:
                text, errors = self._shrunk(value, found)
                return Found(text, errors, gap)
        return None

    def anywhere(self, reader: Node, context: Context) -> Found | None:
        """A witness from whole instances, without regard to gaps."""
        gap = Gap(reader, "", context, ())
        for value in self._values(gap, ROOT_GUESSES_MAX):
            found = self._judge.rejection(value)
            if found is not None:
                text, errors = self._shrunk(value, found)
                return Found(text, errors, gap)
        return None

    def _whole(self, gap: Gap) -> Iterator[Data]:
        """Whole instances that contain, at the gap's place, something that breaks its assertion."""
        local: list[Data] = []
        for value in self._values(gap, GUESSES_MAX):
            try:
                if self._checker.is_valid(gap.claim, value):
                    continue
            except Unknown:
                pass
            local.append(value)
            yield from self._built(gap.route, value)
            if len(local) == LOCAL_MAX:
                return

    def _values(self, gap: Gap, most: int) -> Iterator[Data]:
        """Instances of the gap's context, those that the library says are lost last."""
        hints = Hints.of([gap.node, *gap.context.nodes])
        about = kinds_of(gap.part)
        context = gap.context
        if about is not None:
            context = context.joined([made(gap.node, f"about {gap.part}", lambda: Shape(kinds=about))])
        yield from islice(self._generator.values(context, hints, most), most)
        lost = self._prover.lost(gap.claim, gap.context.nodes)
        if isinstance(lost, dict):
            context = Context((_node(lost),))
            yield from islice(self._generator.values(context, hints, most), most)

    def _built(self, route: tuple[Part, ...], value: Data) -> Iterator[Data]:
        if not route:
            yield value
            return
        part = route[-1]
        for whole in islice(self._generator.holding(part.context, part.step, value, name=part.name), WHOLE_MAX):
            yield from self._built(route[:-1], whole)

    def _shrunk(
        self, value: Data, found: tuple[str, list[jsonschema_rs.ValidationError]]
    ) -> tuple[str, list[jsonschema_rs.ValidationError]]:
        """A smaller witness that the reader rejects at the same place."""
        wanted = found[1][0].schema_path
        tried = 0
        current, progress = value, True
        while progress:
            progress = False
            for smaller in _smaller(current):
                tried += 1
                if tried > SHRINKS_MAX:
                    return found
                again = self._judge.rejection(smaller)
                if again is not None and again[1][0].schema_path == wanted:
                    current, found, progress = smaller, again, True
                    break
        return found


def _node(schema: dict[str, Json]) -> Node:
    return Document.of(schema).root


def _smaller(value: Data) -> Iterator[Data]:
    """The value with one part left out or made plain."""
    if isinstance(value, dict):
        for name in value:
            yield {other: item for other, item in value.items() if other != name}
        for name, item in value.items():
            for smaller in _smaller(item):
                yield {**value, name: smaller}
    elif isinstance(value, list):
        for index in range(len(value)):
            yield [*value[:index], *value[index + 1 :]]
        for index, item in enumerate(value):
            for smaller in _smaller(item):
                yield [*value[:index], smaller, *value[index + 1 :]]
    elif isinstance(value, str) and len(value) > 1:
        yield ""
        yield value[: len(value) // 2]
