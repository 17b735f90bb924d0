"""Proofs that no value follows several schemas at once. Whatever is not shown within the limits is not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.registry.domain.formats.jsonschema.exact import scalars
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.document import Node, same
from services.registry.domain.formats.jsonschema.exact.facts import Context, Facts, Known
from services.registry.domain.formats.jsonschema.exact.prover import Prover
from services.registry.domain.formats.jsonschema.exact.tags import Tags, tags
from services.registry.domain.formats.jsonschema.exact.values import data, key, kind

if TYPE_CHECKING:
    from services.registry.domain.formats.jsonschema.exact.proof import Proof

STEPS_MAX: Final = 6_000
DEPTH_MAX: Final = 5
DENIED_MAX: Final = 4
NESTING_MAX: Final = 2
VALUES_MAX: Final = 500
BRANCHES_MAX: Final = 300


class Apart:
    """Shows that schemas have no value in common."""

    def __init__(self, knowledge: Known, checker: Checker, prover: Prover) -> None:
        self._knowledge = knowledge
        self._checker = checker
        self._prover = prover
        self._left = STEPS_MAX
        self._nesting = 0
        self._pairs: dict[tuple[Node, Node], bool] = {}
        self._shown: dict[tuple[Node, Context], bool] = {}
        self._tags: dict[Node, Tags] = {}
        self.proof: Proof | None = None

    def _facts_of(self, context: Context) -> Facts:
        return self._knowledge.of(context)

    def tags(self, node: Node) -> Tags:
        """How the branches of a node's `oneOf` or `anyOf` can be told apart."""
        found = self._tags.get(node)
        if found is None:
            found = self._tags[node] = tags(node.shape.one_of or node.shape.any_of, self._facts_of)
        return found

    def possible(self, node: Node, context: Context) -> list[int]:
        """The branches of a node that a value of the context may follow, as far as can be seen at once."""
        return self.tags(node).possible(self._facts_of(context), self._facts_of)

    def are_apart(self, one: Node, other: Node) -> bool:
        """Whether no value follows both."""
        found = self._pairs.get((one, other))
        if found is None:
            found = self._is_empty(Context((one, other)), DEPTH_MAX) or self._asked(one, Context((other,)))
            if not self._nesting:  # Within a proof it may rest on a claim that is not shown in the end.
                self._pairs[one, other] = self._pairs[other, one] = found
        return found

    def shown(self, node: Node, context: Context) -> bool:
        """Whether no value of a context follows the node."""
        found = self._shown.get((node, context))
        if found is None:
            found = self._is_empty(context.joined([node]), DEPTH_MAX) or self._asked(node, context)
            if not self._nesting:
                self._shown[node, context] = found
        return found

    def _asked(self, node: Node, context: Context) -> bool:
        """Asks the library, at the top only: within other proofs there are too many questions."""
        return not self._nesting and len(context.nodes) > 0 and self._prover.apart(node, context.nodes)

    def _is_empty(self, context: Context, depth: int) -> bool:
        self._left -= 1
        if self._left < 0:
            return False
        known = self._facts_of(context)
        if known.is_empty or self._no_value_passes(context, known) or self._is_denied(known, context):
            return True
        if depth <= 0:
            return False
        if self._no_part_exists(known, depth):
            return True
        return any(
            len(split.cases) <= BRANCHES_MAX
            and all(self._is_empty(case, depth - 2) for case in split.contexts(context))
            for split in known.splits
        )

    def _no_part_exists(self, known: Facts, depth: int) -> bool:
        """Whether something that every value must contain cannot exist."""
        if known.kinds == {"object"}:
            return any(
                len(nodes) > 1 and self._is_empty(Context(tuple(nodes)), depth - 1)
                for name in sorted(known.required)
                if (nodes := known.member(name))
            )
        if known.kinds == {"array"}:
            return any(
                self._is_empty(Context(tuple(known.item(index))), depth - 1)
                for index in range(min(known.min_items, known.prefix_length + 1))
            )
        return False

    def _no_value_passes(self, context: Context, known: Facts) -> bool:
        if known.values is None or len(known.values) > VALUES_MAX:
            return False
        if any(node.resource.draft == 4 for node in context.nodes) and not all(
            kind(item) in {"null", "boolean", "string"} for item in known.values
        ):
            return False  # In draft 4 it matters how an integer is written.
        try:
            several = [(item, data(item)) for item in known.values]
            if any(key(item) != key(value) for item, value in several):
                return False  # Data cannot hold it exactly.
            return not any(self._checker.all_valid(context.nodes, value) for _, value in several)
        except (Unknown, OverflowError):
            return False

    def _is_denied(self, known: Facts, context: Context) -> bool:
        """Whether a `not` among the schemas says the opposite of what the others say."""
        if not known.denied:
            return False
        paths = set()
        for node, _ in known.shapes:
            paths.add(node.origin.path)
            for denied in known.denied.get(node.origin.outline, ()) if node.raw is not None else ():
                if same(node, denied):
                    return True
        several = [node for nodes in known.denied.values() for node in nodes]
        several.sort(key=lambda node: node.path not in paths)
        return any(self._is_implied(denied, known, context) for denied in several[:DENIED_MAX])

    def _is_implied(self, denied: Node, known: Facts, context: Context) -> bool:
        """Whether values of the context all follow a schema that is denied."""
        if denied.shape.opaque or denied.shape.never:
            return False
        if all(scalars.holds(denied.shape, part, known) for part in denied.parts):
            return True
        if self.proof is None or self._nesting >= NESTING_MAX:
            return False
        self._nesting += 1
        try:
            return self.proof.holds(denied, context)
        finally:
            self._nesting -= 1
