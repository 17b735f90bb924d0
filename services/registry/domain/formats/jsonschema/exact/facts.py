"""What is known of data that several schemas accept: their assertions joined, and the cases that they leave open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown, members
from services.registry.domain.formats.jsonschema.exact.document import Node, same
from services.registry.domain.formats.jsonschema.exact.shape import (
    BLANK,
    FRACTION,
    KINDS,
    NOTHING,
    NUMBERS,
    Limit,
    Shape,
    TextFormat,
)
from services.registry.domain.formats.jsonschema.exact.values import exact, key, kind

NODES_MAX: Final = 2_000
RANGE_MAX: Final = 40
"""Integers in a range of at most so many are taken one by one."""
SHAPES_MAX: Final = 30_000
"""Schemas joined into facts in one comparison."""
OTHERS_MAX: Final = 64
NAME_STEPS_MAX: Final = 500
EXCLUSIVE_MAX: Final = 48
"""Of more branches of a `oneOf` it is not used that just one holds."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which case of a split a context assumes."""

    owner: Node
    keyword: str
    index: int


@dataclass(frozen=True, slots=True)
class Context:
    """Schemas that the data is known to follow, and the choices made on the way to them. Compared by identity."""

    nodes: tuple[Node, ...]
    choices: frozenset[Choice] = frozenset()

    def joined(self, nodes: Sequence[Node], choice: Choice | None = None) -> Context:
        """The context with more known."""
        added = tuple(node for node in nodes if node not in self.nodes)
        return Context(self.nodes + added, self.choices if choice is None else self.choices | {choice})


@dataclass(frozen=True, slots=True)
class Split:
    """Cases of which at least one holds, each as further schemas."""

    owner: Node
    keyword: str
    cases: tuple[tuple[Node, ...], ...]
    exclusive: bool = False

    def case(self, index: int) -> tuple[Node, ...]:
        """The schemas of one case. Of exclusive cases, that none of the others holds is known too.

        It is known of the others as they stand in the text, not as an assumption changed them: just one branch of the
        text accepts the value, and that is the one whose changed form does.
        """
        chosen = self.cases[index]
        if not self.exclusive or len(self.cases) > EXCLUSIVE_MAX:
            return chosen
        others = tuple(node.origin for at, case in enumerate(self.cases) if at != index for node in case)
        return *chosen, made(
            self.owner, f"only branch {index}", lambda: Shape(negated=_any_of(self.owner, index, others))
        )

    def contexts(self, context: Context) -> Iterator[Context]:
        """The context once for each case."""
        for index in range(len(self.cases)):
            yield context.joined(self.case(index), Choice(self.owner, self.keyword, index))


@dataclass(frozen=True, slots=True)
class Other:
    """Members whose names match all of some patterns, and the schemas that they follow."""

    nodes: tuple[Node, ...]
    patterns: frozenset[str]

    def joined(self, other: Other) -> Other:
        """What is both."""
        return Other(self.nodes + other.nodes, self.patterns | other.patterns)


@dataclass
class Facts:
    """The joined assertions. values: None unless the data is known to be one of few. is_empty: nothing is left.

    followed: what `member` has found, once `members` is complete.
    """

    kinds: frozenset[str] = KINDS
    values: tuple[Json, ...] | None = None
    minimum: Limit | None = None
    maximum: Limit | None = None
    multiples: list[Fraction] = field(default_factory=list)
    min_length: int = 0
    max_length: int | None = None
    texts: set[str] = field(default_factory=set)
    formats: set[TextFormat] = field(default_factory=set)
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False
    min_properties: int = 0
    max_properties: int | None = None
    required: set[str] = field(default_factory=set)
    shapes: list[tuple[Node, Shape]] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    members: list[Shape] = field(default_factory=list)
    followed: dict[str, list[Node]] = field(default_factory=dict)
    is_empty: bool = False

    @cached_property
    def declared(self) -> dict[str, None]:
        """Names that some schema has under `properties`, or requires."""
        found = {name: None for shape in self.members for name in shape.properties}
        return found | dict.fromkeys(sorted(self.required))

    @cached_property
    def denied(self) -> dict[str, list[Node]]:
        """The schemas that the value does not follow, by their text."""
        return self.find_denied()

    def find_denied(self) -> dict[str, list[Node]]:
        """The schemas that the value does not follow, as far as is known yet."""
        found: dict[str, list[Node]] = {}
        for _, shape in self.shapes:
            if shape.negated is not None:
                below = shape.negated.shape
                several = below.any_of if below == Shape(any_of=below.any_of) else (shape.negated,)
                for node in several:
                    found.setdefault(node.origin.outline, []).append(node)
        return found

    def refuses(self, name: str) -> bool:
        """Whether there surely is no member of that name."""
        if any(node.is_never for node in self.member(name)):
            return True
        about = [shape.names for _, shape in self.shapes if shape.names is not None]
        checker = Checker(NAME_STEPS_MAX)
        try:
            return any(not checker.is_valid(node, name) for node in about)
        except Unknown:
            return False

    @cached_property
    def names_max(self) -> int | None:
        """How many members there can be at most; None when that is not known."""
        if self.others():
            return self.max_properties
        return _least(self.max_properties, sum(not self.refuses(name) for name in self.declared))

    def member(self, name: str) -> list[Node]:
        """The schemas that a member of that name follows, if it is there."""
        found = self.followed.get(name)
        if found is None:
            found = self.followed[name] = [*{node: None for shape in self.members for node in members(shape, name)}]
        return found

    def item(self, index: int) -> list[Node]:
        """The schemas that an item at an index follows, if it is there."""
        found: list[Node] = []
        for _, shape in self.shapes:
            node = shape.prefix[index] if index < len(shape.prefix) else shape.items
            if node is None and shape.unevaluated_items is not None and shape.is_plain and shape.contains is None:
                node = shape.unevaluated_items
            if node is not None:
                found.append(node)
        return list(dict.fromkeys(found))

    @property
    def prefix_length(self) -> int:
        """From which index on all items are alike."""
        return max((len(shape.prefix) for _, shape in self.shapes), default=0)

    def others(self, known: frozenset[str] = frozenset()) -> list[Other]:
        """What members follow whose names are not declared: each of them one of these.

        known: patterns that their names are known to match. Without any there are no such members.
        """
        alternatives = [Other((), known)]
        for shape in self.members:
            certain = [(pattern, node) for pattern, node in shape.patterns.items() if pattern in known]
            if certain:
                options = [Other(tuple(node for _, node in certain), known)]
            else:
                options = [Other((node,), frozenset({pattern})) for pattern, node in shape.patterns.items()]
                rest = shape.additional
                if rest is None or not rest.is_never:
                    options.append(Other((rest,) if rest is not None else (), frozenset()))
            if len(alternatives) * len(options) <= OTHERS_MAX:
                alternatives = [one.joined(other) for one in alternatives for other in options]
        return alternatives


class Known:
    """The facts of contexts, found once. Joins at most SHAPES_MAX schemas: beyond, nothing is known."""

    def __init__(self) -> None:
        self._found: dict[Context, Facts] = {}
        self._left = SHAPES_MAX

    def of(self, context: Context) -> Facts:
        """What is known in a context."""
        found = self._found.get(context)
        if found is None:
            found = self._found[context] = facts(context) if self._left >= 0 else Facts()
            self._left -= 1 + len(found.shapes)
        return found


def facts(context: Context) -> Facts:
    """What is known in a context."""
    found = Facts()
    waiting = list(reversed(context.nodes))
    seen: set[Node] = set()
    chosen = {(choice.owner, choice.keyword): choice for choice in context.choices}
    while waiting and not found.is_empty:
        _gather(found, waiting, seen, chosen)
        waiting = _settled(found) if found.splits else []
    if not found.is_empty:
        _members(found, chosen)
        _finish(found)
    return found


def _gather(found: Facts, waiting: list[Node], seen: set[Node], chosen: Mapping[tuple[Node, str], Choice]) -> None:
    """Joins what some schemas and those that they include say."""
    while waiting and len(seen) < NODES_MAX:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        shape = node.shape
        if shape.never:
            found.is_empty = True
            return
        if shape.opaque:
            continue  # Nothing is known of it.
        found.shapes.append((node, shape))
        _join(found, shape)
        waiting += [*reversed(shape.all_of), *([shape.ref] if shape.ref is not None else [])]
        waiting += _twice_denied(shape)
        for split in _splits(node, shape):
            if (node, split.keyword) in chosen:
                continue
            if len(split.cases) == 1:
                waiting.extend(split.cases[0])
            else:
                found.splits.append(split)


def _twice_denied(shape: Shape) -> list[Node]:
    """Schemas that hold because it is denied that they do not."""
    if shape.negated is None:
        return []
    below = shape.negated.shape
    several = [node.shape for node in below.any_of] if below == Shape(any_of=below.any_of) else [below]
    return [one.negated for one in several if one.negated is not None and one == Shape(negated=one.negated)]


def _settled(found: Facts) -> list[Node]:
    """The schemas of splits of which only one case is left, judging by the words; those splits are done with."""
    texts = {node.origin.outline: node for node, _ in found.shapes if node.raw is not None}
    denied = found.find_denied()
    following: list[Node] = []
    remaining: list[Split] = []
    for split in found.splits:
        index = _only_case(split, texts, denied)
        if index is None:
            remaining.append(split)
        else:
            following += split.cases[index]
    found.splits = remaining
    return following


def _only_case(split: Split, texts: Mapping[str, Node], denied: Mapping[str, Sequence[Node]]) -> int | None:
    """The case that must hold, when the others are denied in so many words."""
    condition = split.owner.shape.condition
    if split.keyword == "if" and condition is not None:
        given = texts.get(condition.origin.outline)
        if given is not None and same(given, condition):
            return 0
        return 1 if _is_among(condition, denied) else None
    if split.keyword in {"anyOf", "oneOf"} and denied:
        left = [index for index, case in enumerate(split.cases) if not _is_among(case[0], denied)]
        return left[0] if len(left) == 1 else None
    return None


def _is_among(node: Node, several: Mapping[str, Sequence[Node]]) -> bool:
    return node.raw is not None and any(same(node, other) for other in several.get(node.origin.outline, ()))


def _join(found: Facts, shape: Shape) -> None:
    if shape.kinds is not None:
        found.kinds &= shape.kinds
    if shape.values is not None:
        wanted = {key(item) for item in shape.values}
        found.values = (
            shape.values if found.values is None else tuple(item for item in found.values if key(item) in wanted)
        )
    found.minimum = _tighter(found.minimum, shape.minimum, lower=True)
    found.maximum = _tighter(found.maximum, shape.maximum, lower=False)
    if shape.multiple is not None:
        found.multiples.append(exact(shape.multiple))
    found.min_length = max(found.min_length, shape.min_length)
    found.max_length = _least(found.max_length, shape.max_length)
    if shape.pattern is not None:
        found.texts.add(shape.pattern)
    if shape.format is not None:
        found.formats.add(shape.format)
    found.min_items = max(found.min_items, shape.min_items)
    found.max_items = _least(found.max_items, shape.max_items)
    found.unique = found.unique or shape.unique
    found.min_properties = max(found.min_properties, shape.min_properties)
    found.max_properties = _least(found.max_properties, shape.max_properties)
    found.required |= shape.required
    if shape.contains is not None:
        found.min_items = max(found.min_items, shape.min_contains)


def _any_of(owner: Node, index: int, others: tuple[Node, ...]) -> Node:
    return made(owner, f"not branch {index}", lambda: Shape(any_of=others))


def _splits(node: Node, shape: Shape) -> Iterator[Split]:
    if shape.any_of:
        yield Split(node, "anyOf", tuple((branch,) for branch in shape.any_of))
    if shape.one_of:
        yield Split(node, "oneOf", tuple((branch,) for branch in shape.one_of), exclusive=True)
    if shape.condition is not None and (shape.consequent is not None or shape.alternative is not None):
        refused = made(node, "else", lambda: Shape(negated=shape.condition))
        then = (shape.condition, *([shape.consequent] if shape.consequent is not None else []))
        otherwise = (refused, *([shape.alternative] if shape.alternative is not None else []))
        yield Split(node, "if", (then, otherwise))
    for name, below in shape.dependent.items():
        yield Split(node, f"dependentSchemas {name}", ((present(node, name), below), (lacking(node, name),)))


def present(node: Node, name: str) -> Node:
    """Objects that have a member of that name."""
    return made(node, f"has {name}", lambda: Shape(kinds=frozenset({"object"}), required=frozenset({name})))


def lacking(node: Node, name: str) -> Node:
    """Values that have no member of that name."""
    return made(node, f"lacks {name}", lambda: Shape(properties={name: node.document.made(NOTHING, node)}))


def made(node: Node, what: str, make: Callable[[], Shape]) -> Node:
    """A node that follows from another; the same one whenever it is asked for."""
    kept = node.document.kept
    found = kept.get((node, what))
    if found is None:
        found = kept[node, what] = node.document.made(make(), node)
    return found


def _members(found: Facts, chosen: dict[tuple[Node, str], Choice]) -> None:
    """What is said of members by name: by each schema's own words, and by `unevaluatedProperties` of each."""
    for node, shape in found.shapes:
        if shape.is_object:
            found.members.append(shape)
        if shape.unevaluated is not None:
            looking = list(_looking(node, chosen))
            if any(item.opaque for item in looking):
                continue
            if any(item.additional is not None for item in looking):
                continue
            if any(item.unevaluated is not None for item in looking[1:]):
                continue
            anything = made(node, "anything", lambda: BLANK)
            found.members.append(
                Shape(
                    properties={name: anything for item in looking for name in item.properties},
                    patterns={pattern: anything for item in looking for pattern in item.patterns},
                    additional=shape.unevaluated,
                )
            )


def _looking(node: Node, chosen: dict[tuple[Node, str], Choice]) -> Iterator[Shape]:
    """The schemas below a node for the same instance that may have looked at members, the node's own first."""
    waiting = [node]
    count = 0
    while waiting:
        current = waiting.pop()
        count += 1
        if count > NODES_MAX:
            yield Shape(opaque=True)
            return
        shape = current.shape
        yield shape
        if shape.ref is not None:
            waiting.append(shape.ref)
        waiting += [*shape.all_of, *shape.any_of]
        choice = chosen.get((current, "oneOf"))
        waiting += shape.one_of if choice is None else [shape.one_of[choice.index]]
        choice = chosen.get((current, "if"))
        for index, below in ((0, shape.condition), (0, shape.consequent), (1, shape.alternative)):
            if below is not None and (choice is None or choice.index == index):
                waiting.append(below)
        for name, below in shape.dependent.items():
            choice = chosen.get((current, f"dependentSchemas {name}"))
            if choice is None or choice.index == 0:
                waiting.append(below)


def _finish(found: Facts) -> None:
    """Draws conclusions between the facts."""
    if found.minimum is not None and found.maximum is not None:
        low, high = exact(found.minimum.value), exact(found.maximum.value)
        if low > high or (low == high and (found.minimum.exclusive or found.maximum.exclusive)):
            found.kinds -= NUMBERS
    if found.max_length is not None and found.min_length > found.max_length:
        found.kinds -= {"string"}
    found.max_items = _least(found.max_items, _items_possible(found))
    if found.max_items is not None and found.min_items > found.max_items:
        found.kinds -= {"array"}
    if "object" in found.kinds:
        impossible = any(found.refuses(name) for name in found.required)
        least = max(found.min_properties, len(found.required))
        few = least > 0 and found.names_max is not None and least > found.names_max
        if impossible or few:
            found.kinds -= {"object"}
    if any(multiple.denominator == 1 for multiple in found.multiples):
        found.kinds -= {FRACTION}
    if found.values is not None:
        found.values = tuple(item for item in found.values if _may_be(item, found.kinds))
    elif found.kinds <= {"null", "boolean"}:
        listed: tuple[Json, ...] = (None, True, False)
        found.values = tuple(item for item in listed if kind(item) in found.kinds)
    else:
        found.values = _range(found)
    found.is_empty = not found.kinds or found.values == ()


def _may_be(item: Json, kinds: frozenset[str]) -> bool:
    """Whether a value, written in any way, is of one of the kinds: 1 may be written 1.0."""
    own = kind(item)
    return own in kinds or (own in NUMBERS - {FRACTION} and bool(kinds & (NUMBERS - {FRACTION})))


def _items_possible(found: Facts) -> int | None:
    for index in range(found.prefix_length + 1):
        if any(node.is_never for node in found.item(index)):
            return index
    return None


def _range(found: Facts) -> tuple[Json, ...] | None:
    """The integers between two bounds, when they are few."""
    if not found.kinds <= NUMBERS - {FRACTION} or found.minimum is None or found.maximum is None:
        return None
    low, high = exact(found.minimum.value), exact(found.maximum.value)
    if high - low > RANGE_MAX:
        return None
    first, last = -(-low.numerator // low.denominator), high.numerator // high.denominator
    return tuple(
        number
        for number in range(first, last + 1)
        if not (found.minimum.exclusive and number == low) and not (found.maximum.exclusive and number == high)
    )


def _tighter(one: Limit | None, other: Limit | None, *, lower: bool) -> Limit | None:
    if one is None or other is None:
        return one or other
    if one.value == other.value:
        return Limit(one.value, one.exclusive or other.exclusive)
    return one if (one.value > other.value) == lower else other


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
