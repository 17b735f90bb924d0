"""Instances that follow schemas: small ones first, with the names, values and bounds of both sides of a comparison.

What comes out is a guess: whoever asks checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Final

from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.jsonschema.exact import texts
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.facts import Context, Facts, facts
from services.registry.domain.formats.jsonschema.exact.proof import Step, Unnamed
from services.registry.domain.formats.jsonschema.exact.shape import (
    FRACTION,
    NUMBERS,
    Limit,
    Number,
    TextFormat,
    in_place,
)
from services.registry.domain.formats.jsonschema.exact.values import data, exact, key, kind, matches

DEPTH_MAX: Final = 12
VALUES_MAX: Final = 40
"""Values for one part of an instance."""
STEPS_MAX: Final = 2_500
"""Contexts looked at in one comparison."""
GUESSES_MAX: Final = 15_000
"""Values, of parts and of wholes, in one comparison."""
CASES_MAX: Final = 24
HINTS_MAX: Final = 60
LENGTH_MAX: Final = 5_000
ITEMS_MAX: Final = 300
NAMES_MAX: Final = 60
EXACT_MAX: Final = 1 << 53
HOLDING_MAX: Final = 6
HOLDING_DEPTH_MAX: Final = 4
FRESH_MAX: Final = 5
FRESH_NAME: Final = "undeclared"


@dataclass(slots=True)
class Hints:
    """What the other side says that may matter: values, numbers, lengths, names, patterns.

    spelled: it matters whether an integer is written as 1 or as 1.0, as it does in draft 4.
    """

    values: dict[str, Data] = field(default_factory=dict)
    numbers: dict[Number, None] = field(default_factory=dict)
    lengths: dict[int, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    formats: dict[TextFormat, None] = field(default_factory=dict)
    spelled: bool = False

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Hints:
        """What is said by nodes, what they refer to included, as far as HINTS_MAX schemas for the same instance."""
        hints = cls()
        waiting, seen = list(nodes), set[Node]()
        while waiting and len(seen) < HINTS_MAX:
            node = waiting.pop(0)
            if node in seen:
                continue
            seen.add(node)
            hints._add(node)
            waiting += in_place(node.shape)
            waiting += [item for item in (node.shape.negated, node.shape.names) if item is not None]
        return hints

    def _add(self, node: Node) -> None:
        shape = node.shape
        self.spelled = self.spelled or node.resource.draft == 4
        for item in (shape.values or ())[:HINTS_MAX]:
            try:
                self.values[key(item)] = data(item)
            except OverflowError:
                continue
        for limit in (shape.minimum, shape.maximum):
            if limit is not None:
                self.numbers[limit.value] = None
        if shape.multiple is not None:
            self.numbers[shape.multiple] = None
        lengths = [shape.min_length, shape.max_length, shape.min_items, shape.max_items, shape.min_contains]
        lengths += [shape.min_properties, shape.max_properties, shape.max_contains, len(shape.prefix)]
        self.lengths |= dict.fromkeys(length for length in lengths if length is not None)
        for name in (*shape.properties, *sorted(shape.required), *shape.dependent, *shape.dependent_required):
            self.names[name] = None
        for pattern in (shape.pattern, *shape.patterns):
            if pattern is not None:
                self.patterns[pattern] = None
        if shape.format is not None:
            self.formats[shape.format] = None


class Generator:
    """Makes instances, within STEPS_MAX steps altogether."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._left = STEPS_MAX
        self._guesses_left = GUESSES_MAX
        self._kept: dict[Context, list[Data]] = {}

    def first(self, context: Context, depth: int = 0) -> list[Data]:
        """One small instance of a context, checked; empty when none is found."""
        found = self._kept.get(context)
        if found is None:
            self._kept[context] = []  # What is needed to make itself cannot be made.
            found = list(islice(self._checked(context, Hints(), depth), 1))
            if found:
                self._kept[context] = found
            else:
                self._kept.pop(context)
        return found

    def values(self, context: Context, hints: Hints, most: int) -> Iterator[Data]:
        """Different instances of a context, checked."""
        return islice(self._checked(context, hints, 0), most)

    def _checked(self, context: Context, hints: Hints, depth: int) -> Iterator[Data]:
        seen: set[str] = set()
        for value in self._guesses(context, hints, depth):
            self._guesses_left -= 1
            if self._guesses_left < 0 or self._checker.is_exhausted:
                return
            text = key(value) + (kind(value) if hints.spelled else "")
            if text in seen:
                continue
            seen.add(text)
            try:
                if self._checker.all_valid(context.nodes, value):
                    yield value
            except Unknown:
                yield value

    def _guesses(self, context: Context, hints: Hints, depth: int) -> Iterator[Data]:
        """Instances that may follow the context's schemas."""
        self._left -= 1
        known = facts(context)
        if known.is_empty or depth > DEPTH_MAX or self._left < 0:
            return
        if known.values is not None:
            for item in known.values:
                try:
                    yield data(item)
                except OverflowError:
                    continue
                if hints.spelled and isinstance(item, int) and not isinstance(item, bool) and abs(item) < EXACT_MAX:
                    yield float(item)
            return
        cases = next(iter(sorted(known.splits, key=lambda split: -len(split.cases))), None)
        if cases is not None and len(context.choices) < 6:
            several = list(islice(cases.contexts(context), CASES_MAX))
            yield from _in_turn([self._guesses(case, hints, depth + 1) for case in several])
            return
        yield from self._plain(known, hints, depth)

    def _plain(self, known: Facts, hints: Hints, depth: int) -> Iterator[Data]:
        several: list[Iterator[Data]] = []
        if "object" in known.kinds:
            several.append(self.objects(known, hints, {}, depth))
        if "string" in known.kinds:
            several.append(_strings(known, hints))
        if known.kinds & NUMBERS:
            several.append(_numbers(known, hints))
        if "array" in known.kinds:
            several.append(self.arrays(known, hints, {}, depth))
        if "boolean" in known.kinds:
            several.append(iter((True, False)))
        if "null" in known.kinds:
            several.append(iter((None,)))
        yield from _in_turn(several)

    def objects(
        self, known: Facts, hints: Hints, forced: dict[str, list[Data]], depth: int
    ) -> Iterator[dict[str, Data]]:
        """Objects with the required members and the forced ones; then with others added, changed, left out."""
        least = self._least(known, forced, depth)
        if least is None:
            return
        yield least
        yield from ({**least, name: item} for name, items in forced.items() for item in items[1:])
        optional = [name for name in known.declared if name not in least]
        for name in [*optional, *(name for name in hints.names if name not in known.declared)][:NAMES_MAX]:
            for item in self._member(known, name, depth, most=3):
                yield {**least, name: item}
        full = dict(least)
        for name in optional[:NAMES_MAX]:
            self._put(full, known, name, depth)
        yield full
        for count in _near(hints.lengths):
            yield from self._sized(known, least, full, count, depth)
        for name in self._fresh(known, hints):
            for item in self._member(known, name, depth, most=4):
                yield {**least, name: item}
                yield {**full, name: item}
        for name in [*least, *full]:
            if name not in forced:
                for item in self._member(known, name, depth, most=VALUES_MAX):
                    yield {**(least if name in least else full), name: item}

    def _least(self, known: Facts, forced: dict[str, list[Data]], depth: int) -> dict[str, Data] | None:
        least = {name: items[0] for name, items in forced.items() if items}
        wanted = sorted(known.required)
        while wanted:
            name = wanted.pop(0)
            if name in least:
                continue
            found = self._member(known, name, depth, most=1)
            if not found:
                return None
            least[name] = found[0]
        for _, shape in known.shapes:
            for present, needed in shape.dependent_required.items():
                if present in least:
                    for name in sorted(needed - least.keys()):
                        self._put(least, known, name, depth)
        return self._filled_up(known, least, known.min_properties, depth)

    def holding(self, context: Context, step: Step, value: Data, *, name: bool) -> Iterator[Data]:
        """Instances of a context, checked, that have the value at a step, or, with `name`, as a member's name."""
        for candidate in self._holding(context, step, value, 0, name=name):
            if self._checker.is_exhausted:
                return
            try:
                if self._checker.all_valid(context.nodes, candidate):
                    yield candidate
            except Unknown:
                yield candidate

    def _holding(self, context: Context, step: Step, value: Data, depth: int, *, name: bool) -> Iterator[Data]:
        known = facts(context)
        if known.is_empty or depth > HOLDING_DEPTH_MAX:
            return
        if known.splits:
            for case in islice(known.splits[0].contexts(context), CASES_MAX):
                yield from islice(self._holding(case, step, value, depth + 1, name=name), HOLDING_MAX)
            return
        hints = Hints()
        if isinstance(step, int):
            yield from islice(self.arrays(known, hints, {step: [value]}, 0), HOLDING_MAX)
        elif name and isinstance(value, str):
            items = self._member(known, value, 0, most=3)
            yield from islice(self.objects(known, hints, {value: items}, 0), HOLDING_MAX)
        elif isinstance(step, str):
            yield from islice(self.objects(known, hints, {step: [value]}, 0), HOLDING_MAX)
        elif isinstance(step, Unnamed):
            names = [one for one in self._fresh(known, hints) if all(matches(p, one) for p in step.patterns)]
            for one in names[:FRESH_MAX]:
                yield from islice(self.objects(known, hints, {one: [value]}, 0), 2)

    def _filled_up(self, known: Facts, least: dict[str, Data], count: int, depth: int) -> dict[str, Data] | None:
        """An object with as many members as asked for."""
        if len(least) >= count:
            return least
        found = dict(least)
        names = [*known.declared, *self._fresh(known, Hints()), *(f"{FRESH_NAME}{n}" for n in range(min(count, 50)))]
        for name in names:
            if len(found) < count and name not in found:
                self._put(found, known, name, depth)
        return found if len(found) >= count else None

    def _put(self, into: dict[str, Data], known: Facts, name: str, depth: int) -> None:
        """Adds a member, if one can be made."""
        for item in self._member(known, name, depth, most=1):
            into[name] = item

    def _sized(
        self, known: Facts, least: dict[str, Data], full: dict[str, Data], count: int, depth: int
    ) -> Iterator[dict[str, Data]]:
        if count <= len(full):
            added = [name for name in full if name not in least][: max(0, count - len(least))]
            yield {**least, **{name: full[name] for name in added}}
        else:
            found = self._filled_up(known, full, count, depth)
            if found is not None:
                yield found

    def _member(self, known: Facts, name: str, depth: int, *, most: int) -> list[Data]:
        nodes = known.member(name)
        if not nodes:
            anything: list[Data] = [0, "a", None, {}, [], True]
            return anything[:most]
        context = Context(tuple(nodes))
        if most == 1:
            return self.first(context, depth + 1)
        return list(islice(self._checked(context, Hints.of(nodes), depth + 1), most))

    def _fresh(self, known: Facts, hints: Hints) -> list[str]:
        """Names that are not declared: one for each pattern, some that match none."""
        patterns = [pattern for shape in known.members for pattern in shape.patterns]
        found = [name for pattern in [*patterns, *hints.patterns] for name in texts.matching(pattern)[:2]]
        found += [name for pattern in hints.patterns for name in texts.failing(pattern)[:2]]
        found += [FRESH_NAME, "a", "A", "0", "", "a b", "x-a"]
        return [name for name in dict.fromkeys(found) if name not in known.declared][:NAMES_MAX]

    def arrays(self, known: Facts, hints: Hints, forced: dict[int, list[Data]], depth: int) -> Iterator[list[Data]]:
        """Arrays of the lengths that matter, with the forced items."""
        least = max([known.min_items, *(index + 1 for index in forced)])
        lengths = [least, least + 1, *_near(hints.lengths), known.prefix_length, known.prefix_length + 1]
        if known.max_items is not None:
            lengths.append(known.max_items)
        for length in dict.fromkeys(lengths):
            most = ITEMS_MAX if known.max_items is None else min(ITEMS_MAX, known.max_items)
            if least <= length <= most:
                yield from self._of_length(known, length, forced, depth)

    def _of_length(self, known: Facts, length: int, forced: dict[int, list[Data]], depth: int) -> Iterator[list[Data]]:
        pools: list[list[Data]] = []
        wanted = [
            node
            for _, shape in known.shapes
            if shape.contains is not None
            for node in [shape.contains] * shape.min_contains
        ][:ITEMS_MAX]
        for index in range(length):
            nodes = known.item(index)
            special = [wanted[len(wanted) - (length - index)]] if length - index <= len(wanted) else []
            if index in forced:
                pools.append(forced[index])
            elif index > known.prefix_length and not special and len(pools) > known.prefix_length:
                pools.append(pools[known.prefix_length] if known.prefix_length not in forced else pools[-1])
            elif not nodes and not special:
                pools.append([index, "a", None, {}, [], True, 1.5, 0])
            else:
                context = Context((*nodes, *special))
                several = known.unique or length <= 2
                pools.append(
                    list(islice(self._checked(context, Hints.of(nodes), depth + 1), VALUES_MAX if several else 1))
                )
            if not pools[-1]:
                return
        base = _distinct(pools) if known.unique else [pool[0] for pool in pools]
        if base is None:
            return
        yield base
        for index in range(min(length, 3)):
            for item in pools[index][1:]:
                yield [*base[:index], item, *base[index + 1 :]]
        if length >= 2:
            yield [*base[:-1], base[0]]


def _distinct(pools: Sequence[Sequence[Data]]) -> list[Data] | None:
    found: list[Data] = []
    seen: set[str] = set()
    for pool in pools:
        item = next(((item,) for item in pool if key(item) not in seen), None)
        if item is None:
            return None
        found.append(item[0])
        seen.add(key(item[0]))
    return found


def _in_turn(several: Sequence[Iterator[Data]]) -> Iterator[Data]:
    """One of each, again and again."""
    waiting = list(several)
    while waiting:
        left = []
        for one in waiting:
            for value in islice(one, 1):
                yield value
                left.append(one)
        waiting = left


def _near(lengths: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(n for length in lengths for n in (length, length + 1, length - 1) if 0 <= n <= ITEMS_MAX))


def _strings(known: Facts, hints: Hints) -> Iterator[Data]:
    seeds = [value for value in hints.values.values() if isinstance(value, str)]
    matching = [text for pattern in sorted(known.texts) for text in texts.matching(pattern)]
    others = [text for pattern in hints.patterns for text in (*texts.failing(pattern), *texts.matching(pattern))]
    lengths = [known.min_length, *([] if known.max_length is None else [known.max_length]), *hints.lengths]
    near = [n for length in dict.fromkeys(lengths) for n in (length, length + 1, length - 1) if 0 <= n <= LENGTH_MAX]
    formatted = {text for one in (*known.formats, *hints.formats) for text in texts.FORMATTED.get(one.name, ())}
    others += [*sorted(formatted), *(texts.UNFORMATTED if hints.formats else ())]
    plain = [*matching, *others, "", "a", "0", *seeds, *(seed + "a" for seed in seeds[:3]), "A", " ", "é", "\n"]
    for text in plain:
        yield text
    for text in [*matching[:3], "a"]:
        for length in near:
            if length < len(text):
                yield text[:length]
            elif text:
                yield text + text[-1] * (length - len(text))
                yield text[0] * (length - len(text)) + text
    for text in plain:
        if len(text) < known.min_length <= LENGTH_MAX:
            yield text.ljust(known.min_length, "a")


def _numbers(known: Facts, hints: Hints) -> Iterator[Data]:
    bounds: list[Number] = [0, 1]
    for limit in (known.minimum, known.maximum):
        if isinstance(limit, Limit):
            bounds.insert(0, limit.value)
    bounds += hints.numbers
    bounds += [value for value in hints.values.values() if isinstance(value, int) and not isinstance(value, bool)]
    steps = [Fraction(1), *known.multiples]
    for step in steps[:3]:
        for value in dict.fromkeys(bounds):
            floor = exact(value) // step * step
            for number in (exact(value), floor, floor + step, floor - step, -exact(value)):
                if number.denominator == 1:
                    yield int(number)
                elif FRACTION in known.kinds and abs(number) < 10**300:
                    yield float(number)
    yield from (1.0, 1.5, -1, 0.5, 2, 100, -100, 1e10, 10**20, -(10**20), 1e300)
    for value in dict.fromkeys(bounds):
        if abs(exact(value)) < 10**15:
            yield float(Decimal(value)) + 0.5
            yield float(Decimal(value)) - 0.25
