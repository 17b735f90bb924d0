"""A proof that a reader accepts whatever follows a writer's schemas, by induction over the structure of the data.

To show: every value that follows all schemas of a context is accepted by a node. Each assertion of the node is shown
by itself, from the facts of the context, by descending into members and items with what the context says of them, and,
when that does not do, case by case. A claim may be used while it is being shown, but only for a part of the data that
lies deeper: data is finite, so this is induction. Whatever is not shown within the limits is a gap, never a proof.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, TypeAlias

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.exact import scalars
from services.registry.domain.formats.jsonschema.exact.apart import Apart
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown, members
from services.registry.domain.formats.jsonschema.exact.document import Node, same
from services.registry.domain.formats.jsonschema.exact.facts import Context, Facts, Known, made, present
from services.registry.domain.formats.jsonschema.exact.shape import PARTS, Shape
from services.registry.domain.formats.jsonschema.exact.values import Value, data, key, matches

STEPS_MAX: Final = 5_000
DEPTH_MAX: Final = 50
SPLITS_MAX: Final = 3
"""Splits on the way to one assertion: cases multiply."""
CASES_MAX: Final = 300
TRIED_MAX: Final = 6
"""Splits that are tried for one assertion."""
BRANCHES_MAX: Final = 6
"""So few branches are tried again case by case."""
VALUES_MAX: Final = 2_000
EXACT_INTEGER_MAX: Final = 1 << 53

Step: TypeAlias = "str | int | Unnamed | None"
Claim: TypeAlias = tuple[Node, str, Context]


@dataclass(frozen=True, slots=True)
class Unnamed:
    """Members whose names are not declared; they match these patterns."""

    patterns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that must hold for an assertion to hold: a node for a part of the data, in the context of that part.

    step: how the part is reached from the whole: a member's name or what is known of it, an index, or None for the
    value itself. name: the part is a member's name.
    """

    node: Node
    context: Context
    step: Step = None
    name: bool = False


class Proof:
    """Claims, shown or not. What is shown stays known; `learn` adds what was shown elsewhere."""

    def __init__(self, knowledge: Known, checker: Checker, apart: Apart, *, depth_max: int = DEPTH_MAX) -> None:
        self._knowledge = knowledge
        self._checker = checker
        self._depth_max = depth_max
        self._apart = apart
        self._left = STEPS_MAX
        self._known: dict[Claim, bool] = {}
        self._open: dict[Claim, int] = {}
        self._used: set[Claim] = set()
        self._trail: list[Claim] = []
        self._equal: dict[tuple[Node, Node], bool] = {}
        self._at_once: set[int] = set()
        self._not_at_once: set[Claim] = set()
        self._level = 0
        self._depth = 0

    def facts(self, context: Context) -> Facts:
        """What is known in a context."""
        return self._knowledge.of(context)

    def learn(self, node: Node, part: str, context: Context) -> None:
        """Takes a claim as shown, and forgets what could not be shown without it."""
        self._known = {claim: shown for claim, shown in self._known.items() if shown}
        self._not_at_once.clear()
        self._known[node, part, context] = True

    def renew(self) -> None:
        """Allows as many steps again."""
        self._left = STEPS_MAX

    def holds(self, node: Node, context: Context) -> bool:
        """Whether all assertions of a node are shown."""
        if self._is_given(node, context):
            return True
        known = self.facts(context)
        if known.is_empty:
            return True
        shape = node.shape
        if shape.never or shape.opaque:
            return False
        return all(self.part_holds(node, part, context) for part in node.parts)

    def holds_at_once(self, node: Node, context: Context) -> bool:
        """Whether all assertions of a node are shown without taking the context case by case."""
        if self._level in self._at_once:
            return self.holds(node, context)
        self._at_once.add(self._level)
        try:
            return self.holds(node, context)
        finally:
            self._at_once.discard(self._level)

    def part_holds_at_once(self, node: Node, part: str, context: Context) -> bool:
        """Whether one assertion of a node is shown without taking the context case by case."""
        self._at_once.add(self._level)
        try:
            return self.part_holds(node, part, context)
        finally:
            self._at_once.discard(self._level)

    def part_holds(self, node: Node, part: str, context: Context) -> bool:
        """Whether one assertion of a node is shown."""
        claim = (node, part, context)
        found = self._known.get(claim)
        if found is not None:
            return found
        if claim in self._not_at_once and self._level in self._at_once:
            return False
        opened = self._open.get(claim)
        if opened is not None:
            self._used.add(claim)
            return opened < self._level
        self._left -= 1
        if self._left < 0 or self._depth > self._depth_max:
            return False
        return self._enter(claim)

    def _enter(self, claim: Claim) -> bool:
        start = len(self._trail)
        self._open[claim] = self._level
        self._depth += 1
        try:
            shown = self._decide(*claim)
        finally:
            self._depth -= 1
            del self._open[claim]
        if shown:
            self._trail.append(claim)
        elif claim in self._used:
            # What was shown with the help of this claim is not shown after all.
            for other in self._trail[start:]:
                self._known.pop(other, None)
            del self._trail[start:]
        self._used.discard(claim)
        if not shown and self._level in self._at_once:
            self._not_at_once.add(claim)
        else:
            self._known[claim] = shown
        return shown

    def _decide(self, node: Node, part: str, context: Context) -> bool:
        known = self.facts(context)
        if known.is_empty or scalars.holds(node.shape, part, known):
            return True
        if known.values is not None and self._values_hold(node, part, known):
            return True
        if self._directly(node, part, context, known):
            return True
        return self._by_cases(node, part, context, known)

    def _by_cases(self, node: Node, part: str, context: Context, known: Facts) -> bool:
        if len(context.choices) >= SPLITS_MAX or self._level in self._at_once:
            return False
        if any(
            all(self.part_holds(node, part, case) for case in cases) for cases in self.cases(node, part, context, known)
        ):
            return True
        if part == "anyOf" and len(node.shape.any_of) <= BRANCHES_MAX:
            return any(self.holds(branch, context) for branch in self._branches(node, context))
        return False

    def cases(self, node: Node, part: str, context: Context, known: Facts) -> Iterator[list[Context]]:
        """Ways to take a context case by case, for an assertion that cannot be shown at once."""
        alike = sorted(known.splits, key=lambda split: split.owner.origin.path != node.path)
        for split in alike[:TRIED_MAX]:
            if len(split.cases) <= CASES_MAX:
                yield list(split.contexts(context))
        if part in {"anyOf", "oneOf", "if", "not"}:
            yield from scalars.further_cases(node, context, self._knowledge)

    def _is_given(self, node: Node, context: Context) -> bool:
        """Whether the context says it in the same words."""
        for writer in context.nodes:
            if writer is node:
                return True
            equal = self._equal.get((node, writer))
            if equal is None:
                equal = self._equal[node, writer] = same(node, writer)
            if equal:
                return True
        return False

    def _values_hold(self, node: Node, part: str, known: Facts) -> bool:
        """Whether each of the few values that the data can be passes, in every way to write it."""
        if known.values is None or len(known.values) > VALUES_MAX:
            return False
        alone = only(node, part)
        try:
            for item in known.values:
                if not all(self._checker.is_valid(alone, written) for written in written(item, node.resource.draft)):
                    return False
        except (Unknown, OverflowError):
            return False
        return True

    def _directly(self, node: Node, part: str, context: Context, known: Facts) -> bool:
        shape = node.shape
        match part:
            case "anyOf":
                return any(self.holds_at_once(branch, context) for branch in self._branches(node, context))
            case "oneOf":
                return self._exactly_one(node, context)
            case "not":
                return shape.negated is not None and self._apart.shown(shape.negated, context)
            case "if":
                return self._conditional(node, context)
            case "contains":
                return self._contains(shape, known)
            case "dependentRequired" | "required" | "uniqueItems":
                return False
        duties = self.duties(node, part, context, known)
        return duties is not None and all(self.fulfilled(duty) for duty in duties)

    def fulfilled(self, duty: Duty) -> bool:
        """Whether a duty is shown."""
        deeper = duty.step is not None or duty.name
        self._level += deeper
        try:
            return self.holds(duty.node, duty.context)
        finally:
            self._level -= deeper

    def duties(self, node: Node, part: str, context: Context, known: Facts) -> list[Duty] | None:
        """What must be shown for an assertion to hold; None when it is not of that kind."""
        shape = node.shape
        match part:
            case "$ref":
                return [Duty(shape.ref, context)] if shape.ref is not None else None
            case "allOf":
                return [Duty(below, context) for below in shape.all_of]
            case "properties":
                return list(self._member_duties(shape, known))
            case "propertyNames":
                return list(self._name_duties(shape, known))
            case "items":
                return list(self._item_duties(shape, known))
            case "unevaluatedProperties":
                return self._unevaluated_duties(node, context, known)
            case "unevaluatedItems":
                return self._unevaluated_item_duties(node, known)
            case "dependentSchemas":
                return list(_dependent_duties(shape, context, known))
        return None

    def _member_duties(self, shape: Shape, known: Facts) -> Iterator[Duty]:
        names = {**known.declared, **dict.fromkeys(shape.properties)}
        for name in names:
            if known.refuses(name):
                continue
            wanted = list(members(shape, name))
            if wanted:
                following = Context(tuple(known.member(name)))
                yield from (Duty(child, following, name) for child in wanted)
        for pattern, child in shape.patterns.items():
            for other in known.others(frozenset({pattern})):
                yield Duty(child, Context(other.nodes), Unnamed(other.patterns))
        if shape.additional is not None:
            yield from _rest(shape.additional, known, shape.patterns)

    def _name_duties(self, shape: Shape, known: Facts) -> Iterator[Duty]:
        assert shape.names is not None
        about = [item.names for _, item in known.shapes if item.names is not None]
        for name in known.declared:
            if not known.refuses(name):
                yield _named(shape.names, f"name is {name}", Shape(values=(name,)), about)
        if not known.others():
            return
        text = Shape(kinds=frozenset({"string"}))
        closed = [item for item in known.members if item.additional is not None and item.additional.shape.never]
        if not closed:
            yield _named(shape.names, "name", text, about)
            return
        for pattern in closed[0].patterns:
            yield _named(shape.names, f"name matches {pattern}", replace(text, pattern=pattern), about)

    def _item_duties(self, shape: Shape, known: Facts) -> Iterator[Duty]:
        last = max(len(shape.prefix), known.prefix_length)
        for index in range(last + 1):
            if known.max_items is not None and index >= known.max_items:
                return
            child = shape.prefix[index] if index < len(shape.prefix) else shape.items
            if child is not None:
                yield Duty(child, Context(tuple(known.item(index))), index)

    def _unevaluated_duties(self, node: Node, context: Context, known: Facts) -> list[Duty] | None:
        """`unevaluatedProperties` holds for every member that no schema surely looks at."""
        rest = node.shape.unevaluated
        assert rest is not None
        looking = self._surely(node, context)
        if any(item.additional is not None for item in looking):
            return []
        if any(item.unevaluated is not None for item in looking[1:]):
            return []
        found = [
            Duty(rest, Context(tuple(known.member(name))), name)
            for name in known.declared
            if not any(name in item.properties or any(matches(p, name) for p in item.patterns) for item in looking)
        ]
        patterns = {pattern for item in looking for pattern in item.patterns}
        return [*found, *_rest(rest, known, patterns)]

    def _unevaluated_item_duties(self, node: Node, known: Facts) -> list[Duty] | None:
        rest = node.shape.unevaluated_items
        shape = node.shape
        if rest is None or shape.items is not None:
            return []
        first = len(shape.prefix)
        return [
            Duty(rest, Context(tuple(known.item(index))), index)
            for index in range(first, max(first, known.prefix_length) + 1)
            if known.max_items is None or index < known.max_items
        ]

    def _surely(self, node: Node, context: Context) -> list[Shape]:
        """Schemas for the same instance that hold for it, the node's own first."""
        found: list[Shape] = []
        waiting = [node]
        while waiting:
            current = waiting.pop()
            shape = current.shape
            found.append(shape)
            waiting += [*([shape.ref] if shape.ref is not None else []), *shape.all_of]
            waiting += [branch for branch in (*shape.any_of, *shape.one_of) if self.holds(branch, context)]
            if shape.condition is not None and self.holds(shape.condition, context):
                waiting += [below for below in (shape.condition, shape.consequent) if below is not None]
            elif shape.condition is not None and self._apart.shown(shape.condition, context):
                waiting += [shape.alternative] if shape.alternative is not None else []
            required = self.facts(context).required
            waiting += [below for name, below in shape.dependent.items() if name in required]
        return found

    def _branches(self, node: Node, context: Context) -> list[Node]:
        """The branches of `oneOf` or `anyOf` that may hold, those first that the context has in the same words."""
        branches = node.shape.one_of or node.shape.any_of
        if node.shape.one_of and node.shape.any_of:
            return [*node.shape.any_of]
        possible = [branches[index] for index in self._apart.possible(node, context)]
        known = self.facts(context)
        texts = {one.origin.outline for one, _ in known.shapes if one.raw is not None}
        paths = {one.origin.path for one, _ in known.shapes}
        return sorted(possible, key=lambda one: (one.outline not in texts, one.path not in paths))

    def _exactly_one(self, node: Node, context: Context) -> bool:
        branches = node.shape.one_of
        if node.shape.any_of:
            possible, are_apart = list(branches), False
        else:
            possible, are_apart = self._branches(node, context), self._apart.tags(node).are_apart
        for branch in possible:
            if self.holds_at_once(branch, context):
                return are_apart or all(
                    other is branch or self._apart.shown(other, context) or self._apart.are_apart(branch, other)
                    for other in possible
                )
        return False

    def _conditional(self, node: Node, context: Context) -> bool:
        shape = node.shape
        condition = shape.condition
        assert condition is not None
        follows = shape.consequent is None or self.holds_at_once(shape.consequent, context.joined([condition]))
        if not follows and not self._apart.shown(condition, context):
            return False
        if shape.alternative is not None:
            refused = made(node, "else", lambda: Shape(negated=condition))
            if not self.holds_at_once(shape.alternative, context.joined([refused])):
                return self.holds(condition, context)
        return True

    def _contains(self, shape: Shape, known: Facts) -> bool:
        wanted = shape.contains
        assert wanted is not None
        self._level += 1
        try:
            return self._contains_enough(wanted, shape, known) and self._contains_few(wanted, shape, known)
        finally:
            self._level -= 1

    def _contains_enough(self, wanted: Node, shape: Shape, known: Facts) -> bool:
        if shape.min_contains == 0:
            return True
        for _, other in known.shapes:
            if other.contains is not None and other.min_contains >= shape.min_contains:
                every = known.item(0) if known.prefix_length == 0 else []
                if self.holds(wanted, Context((other.contains, *every))):
                    return True
        if known.min_items < shape.min_contains:
            return False
        return all(
            self.holds(wanted, Context(tuple(known.item(index))))
            for index in range(min(shape.min_contains, known.prefix_length + 1))
        )

    def _contains_few(self, wanted: Node, shape: Shape, known: Facts) -> bool:
        most = shape.max_contains
        if most is None or (known.max_items is not None and known.max_items <= most):
            return True
        every = known.item(0) if known.prefix_length == 0 else []
        return any(
            self.holds(other.contains, Context((wanted, *every)))
            for _, other in known.shapes
            if other.contains is not None and other.max_contains is not None and other.max_contains <= most
        )


def _rest(node: Node, known: Facts, patterns: Container[str]) -> Iterator[Duty]:
    """What must hold for members whose names are neither declared nor match one of the reader's patterns."""
    for other in known.others():
        if not any(pattern in patterns for pattern in other.patterns):
            yield Duty(node, Context(other.nodes), Unnamed(other.patterns))


def _named(names: Node, what: str, shape: Shape, about: Sequence[Node]) -> Duty:
    """What `propertyNames` asks of names that are of a shape and follow the writer's own `propertyNames`."""
    return Duty(names, Context((*about, made(names, what, lambda: shape))), name=True)


def only(node: Node, part: str) -> Node:
    """The node with one of its assertions; the node itself where others matter to it."""
    if part in {"unevaluatedProperties", "unevaluatedItems"} or len(node.parts) <= 1:
        return node
    kept = {item.name for item in fields(Shape) if item.name in PARTS[part]}
    blank = {item.name: getattr(node.shape, item.name) for item in fields(Shape) if item.name in kept}
    return made(node, f"only {part}", lambda: replace(Shape(), **blank))


def _dependent_duties(shape: Shape, context: Context, known: Facts) -> Iterator[Duty]:
    for name, below in shape.dependent.items():
        if known.refuses(name):
            continue
        yield Duty(below, context.joined([present(below, name)]))


def written(item: Json, draft: int) -> Iterator[Value]:
    """A value of a schema as data holds it; for draft 4, where it matters, also with integers written as 1.0.

    Raises Unknown when data cannot hold it exactly, and OverflowError.
    """
    value = data(item)
    if key(value) != key(item):
        raise Unknown
    yield value
    if draft == 4:
        if isinstance(value, dict | list):
            raise Unknown
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > EXACT_INTEGER_MAX:
                raise Unknown
            yield float(value)
        elif isinstance(value, float) and value == int(value):
            yield int(value)
