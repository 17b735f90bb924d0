"""Rules on allOf, anyOf, oneOf and `not`, and on one of those beside a plain schema."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from itertools import chain
from typing import TypeAlias

from services.registry.domain.formats.jsonschema.rules.comparison import LOOKS_PER_STEP, Pair, Result, Steps
from services.registry.domain.formats.jsonschema.rules.nodes import Node
from services.registry.domain.formats.jsonschema.rules.words import shortened

Decided: TypeAlias = "Generator[tuple[Node, Node], Result, bool]"


def plain_and_combined(pair: Pair) -> Decided:
    """A plain writer and a combined reader. Whether that decides the pair."""
    branches = pair.reader.subschemas()
    if len(branches) > 1 and pair.reader.criterion == "allOf":
        return False
    for branch in branches:
        below = yield pair.writer, branch
        if below.compatible:
            pair.result.add(below)
            if len(branches) > 1:
                pair.add("SUM_TYPE_EXTENDED", pair.writer.path, _place(pair.reader), old="1", new=str(len(branches)))
            return True
    return False


def combined_and_plain(pair: Pair) -> Decided:
    """A combined writer and a plain reader. Whether that decides the pair."""
    branches = pair.writer.subschemas()
    if len(branches) > 1 and pair.writer.criterion != "allOf":
        return False
    for branch in branches:
        below = yield branch, pair.reader
        if below.compatible:
            pair.result.add(below)
            if len(branches) > 1:
                pair.add(
                    "PRODUCT_TYPE_NARROWED", _place(pair.writer), pair.reader.path, old=str(len(branches)), new="1"
                )
            return True
    return False


def combined(pair: Pair) -> Steps:
    """Two combined schemas: how they are combined, how many there are, and which of them correspond."""
    writer, reader = pair.writer, pair.reader
    old, new = writer.subschemas(), reader.subschemas()
    places = (_place(writer), _place(reader))
    if writer.criterion != reader.criterion:
        wider = _is_wider(writer.criterion, len(old), reader.criterion, len(new))
        rule = "COMBINED_TYPE_EXTENDED" if wider else "COMBINED_TYPE_CHANGED"
        pair.add(rule, *places, old=writer.criterion, new=reader.criterion)
        if not wider:
            return
    if len(old) < len(new):
        rule = "PRODUCT_TYPE_EXTENDED" if reader.criterion == "allOf" else "SUM_TYPE_EXTENDED"
        pair.add(rule, *places, old=str(len(old)), new=str(len(new)))
    elif len(old) > len(new):
        rule = "PRODUCT_TYPE_NARROWED" if writer.criterion == "allOf" else "SUM_TYPE_NARROWED"
        pair.add(rule, *places, old=str(len(old)), new=str(len(new)))
    matched = yield from _matched(pair, old, new)
    for index, partner in sorted(matched.items()):
        pair.result.add((yield old[index], new[partner]))
    if len(matched) < min(len(old), len(new)):
        yield from _unmatched(pair, old, new, matched)


def negations(pair: Pair) -> Steps:
    """Two `not`: what the reader excludes must be excluded by the writer too, so they change places."""
    inner = [node.child(node.get("not"), "not") for node in (pair.writer, pair.reader)]
    below = yield inner[1], inner[0]
    if not below.compatible or any(below.found()):
        rule = "NOT_TYPE_NARROWED" if below.compatible else "NOT_TYPE_EXTENDED"
        pair.add(rule, pair.writer.place("not"), pair.reader.place("not"))


def _is_wider(old: str, old_count: int, new: str, new_count: int) -> bool:
    if new == "anyOf" or (old_count == 1 and new_count == 1):
        return True
    return (old_count == 1 and new == "oneOf") or (old == "allOf" and new_count == 1)


def _matched(pair: Pair, old: list[Node], new: list[Node]) -> Generator[tuple[Node, Node], Result, dict[int, int]]:
    """A largest set of pairs, each of a writer's and a reader's subschema that are compatible, none twice.

    Source: augmenting paths (Kuhn), breadth first; pairs are compared only when a path
    asks for them, likely ones first.
    """
    number = pair.writer.side.numbers.of
    alike: dict[int, list[int]] = {}
    for index, node in enumerate(new):
        alike.setdefault(number(node.schema), []).append(index)
    partner: dict[int, int] = {}  # Of a reader's subschema: the writer's.
    mate: dict[int, int] = {}  # Of a writer's: the reader's.
    scanned = 0
    for start in range(len(old)):
        reached: dict[int, int] = {}  # A reader's subschema, and the writer's that the path comes from.
        waiting = deque((start,))
        end: int | None = None
        while waiting and end is None:
            at = waiting.popleft()
            likely = alike.get(number(old[at].schema), ())
            for index in chain(likely, (at,) if at < len(new) else (), range(len(new))):
                scanned += 1
                if scanned % LOOKS_PER_STEP == 0:
                    pair.count(1)
                if index in reached or not (yield old[at], new[index]).compatible:
                    continue
                reached[index] = at
                if index not in partner:
                    end = index
                    break
                waiting.append(partner[index])
        while end is not None:
            at = reached[end]
            left = mate.get(at)
            partner[end], mate[at] = at, end
            end = left
    return mate


def _unmatched(pair: Pair, old: list[Node], new: list[Node], matched: dict[int, int]) -> Steps:
    """The finding that some have no counterpart, with the reason for the first that could have one."""
    left = [index for index in range(len(old)) if index not in matched]
    taken = set(matched.values())
    free = [index for index in range(len(new)) if index not in taken]
    likely = next(((one, other) for one in left for other in free if old[one].kind == new[other].kind), None)
    why = ""
    if likely is not None:
        below = yield old[likely[0]], new[likely[1]]
        why = f"; the one that is most like {likely[0]} does not do{below.why()}"
    names = ", ".join(str(index) for index in left)
    name = f"no subschema of the reader stands for {shortened(names)} of the writer"
    pair.add("COMBINED_TYPE_SUBSCHEMAS_CHANGED", _place(pair.writer), _place(pair.reader), name=name, why=why)


def _place(node: Node) -> str:
    """The keyword that combines, where there is one."""
    return node.place(node.criterion) if node.criterion in node and not node.whole else node.path
