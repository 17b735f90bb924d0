"""Where a proof fails: the places in the data and the assertions of the reader that could not be shown there."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from services.registry.domain.formats.jsonschema.exact.apart import Apart
from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.facts import Context, made
from services.registry.domain.formats.jsonschema.exact.proof import SPLITS_MAX, Proof, Step, only
from services.registry.domain.formats.jsonschema.exact.shape import Shape

GAPS_MAX: Final = 40
STEPS_MAX: Final = 1_500
DEPTH_MAX: Final = 40
BRANCHES_MAX: Final = 4
ROUTES_MAX: Final = 3
"""Ways to one and the same gap that are followed: in one case it may be impossible to build the rest around it."""
CASES_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the data on the way to a gap. node: what the reader says of the whole that the part belongs to."""

    node: Node
    context: Context
    step: Step
    name: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """An assertion that was not shown. route: how its place is reached from the root.

    part: of PARTS; empty for the whole node. is_final: there is nothing below it to be looked at.
    """

    node: Node
    part: str
    context: Context
    route: tuple[Part, ...]
    is_final: bool = False

    @property
    def claim(self) -> Node:
        """A node that says the assertion alone."""
        return self.node if not self.part else only(self.node, self.part)


class Survey:
    """Follows a failed proof down to its gaps."""

    def __init__(self, proof: Proof, apart: Apart) -> None:
        self._proof = proof
        self._apart = apart
        self._left = STEPS_MAX
        self._seen: Counter[tuple[Node, str, Context]] = Counter()

    def gaps(self, node: Node, context: Context) -> list[Gap]:
        """The gaps, at most GAPS_MAX, those that lie least deep in the data first."""
        found: list[Gap] = []
        waiting: deque[Gap] = deque([Gap(node, "", context, ())])
        while waiting and len(found) < GAPS_MAX and self._left > 0:
            task = waiting.popleft()
            for gap in self._of(task) if not task.part else self._of_part(task):
                if gap.is_final:
                    found.append(gap)
                elif len(gap.route) > len(task.route):
                    waiting.append(gap)
                else:
                    waiting.appendleft(gap)
        return found

    def _of(self, task: Gap) -> Iterator[Gap]:
        """The assertions of a node that are not shown."""
        self._left -= 1
        if len(task.route) > DEPTH_MAX or self._proof.holds(task.node, task.context):
            return
        shape = task.node.shape
        if shape.never or shape.opaque:
            yield replace(task, is_final=True)
            return
        for part in reversed(task.node.parts):
            yield replace(task, part=part)

    def _of_part(self, task: Gap) -> Iterator[Gap]:
        """What lies below an assertion that is not shown; the assertion itself when nothing does."""
        node, part, context, route = task.node, task.part, task.context, task.route
        identity = (node, part, context)
        self._left -= 1
        if self._seen[identity] == ROUTES_MAX or self._proof.part_holds(node, part, context):
            return
        self._seen[identity] += 1
        known = self._proof.facts(context)
        if len(context.choices) < SPLITS_MAX and known.splits:
            cases = known.splits[0].contexts(context)
            failing = (case for case in cases if not self._proof.part_holds(node, part, case))
            for case in islice(failing, CASES_MAX):
                yield Gap(node, part, case, route)
            return
        duties = self._proof.duties(node, part, context, known)
        if duties is None:
            yield from self._suggested(node, part, context, route)
            yield replace(task, is_final=True)
            return
        for duty in duties:
            if not self._proof.fulfilled(duty):
                deeper = duty.step is not None or duty.name
                below = (*route, Part(node, context, duty.step, duty.name)) if deeper else route
                yield Gap(duty.node, "", duty.context, below)

    def _suggested(self, node: Node, part: str, context: Context, route: tuple[Part, ...]) -> Iterator[Gap]:
        """Narrower gaps that may lead to a witness of this one."""
        shape = node.shape
        branches = shape.any_of if part == "anyOf" else shape.one_of if part == "oneOf" else ()
        for branch in self._likely(branches, context):
            yield Gap(branch, "", context, route)
        if part == "oneOf":
            for one, other in self._overlapping(shape, context):
                yield Gap(node, part, context.joined([one, other]), route, is_final=True)
        if part == "not" and shape.negated is not None:
            yield Gap(node, part, context.joined([shape.negated]), route, is_final=True)
        if part == "if" and shape.condition is not None:
            condition = shape.condition
            if shape.consequent is not None:
                yield Gap(shape.consequent, "", context.joined([condition]), route)
            if shape.alternative is not None:
                refused = made(node, "else", lambda: Shape(negated=condition))
                yield Gap(shape.alternative, "", context.joined([refused]), route)

    def _likely(self, branches: tuple[Node, ...], context: Context) -> list[Node]:
        """The branches that come nearest to holding."""
        ranked = sorted(
            (sum(not self._proof.part_holds_at_once(branch, part, context) for part in branch.parts), index)
            for index, branch in enumerate(branches)
        )
        return [branches[index] for _, index in ranked[:BRANCHES_MAX]]

    def _overlapping(self, shape: Shape, context: Context) -> Iterator[tuple[Node, Node]]:
        possible = [branch for branch in shape.one_of if not self._apart.shown(branch, context)]
        pairs = [
            (one, other)
            for index, one in enumerate(possible[:20])
            for other in possible[index + 1 : 20]
            if not self._apart.are_apart(one, other)
        ]
        yield from pairs[:BRANCHES_MAX]
