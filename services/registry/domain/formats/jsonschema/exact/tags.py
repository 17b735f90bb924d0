"""Branches told apart at once: by the kinds of values, and by the values of one member that every object must have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.facts import Context, Facts
from services.registry.domain.formats.jsonschema.exact.shape import NUMBERS
from services.registry.domain.formats.jsonschema.exact.values import key

VALUES_MAX: Final = 500
FEW_MAX: Final = 8
"""So few branches are not worth sorting."""

FactsOf = Callable[[Context], Facts]


@dataclass(frozen=True, slots=True)
class Tags:
    """The branches of a node by kind and by tag.

    name: the member that tells objects apart; None without one. tagged: branches by the text of its value. kinds: of
    each branch. are_apart: no two branches have a value in common.
    """

    name: str | None
    tagged: dict[str, list[int]]
    kinds: tuple[frozenset[str], ...]
    are_apart: bool

    def possible(self, known: Facts, facts: FactsOf) -> list[int]:
        """The branches that a value may follow, given what is known of it."""
        found = [index for index, kinds in enumerate(self.kinds) if kinds & known.kinds]
        if self.name is None or known.kinds != {"object"} or self.name not in known.required:
            return found
        values = facts(Context(tuple(known.member(self.name)))).values
        if values is None:
            return found
        allowed = {index for item in values for index in self.tagged.get(key(item), [])}
        return [index for index in found if index in allowed]


def tags(branches: Sequence[Node], facts: FactsOf) -> Tags:
    """How branches can be told apart."""
    all_known = [facts(Context((branch,))) for branch in branches]
    kinds = tuple(frozenset() if known.is_empty else frozenset(known.kinds) for known in all_known)
    objects = [index for index, own in enumerate(kinds) if "object" in own]
    others_are_apart = _are_disjoint([_coarse(own - {"object"}) for own in kinds])
    if len(objects) <= 1:
        return Tags(None, {}, kinds, others_are_apart)
    shared = set.intersection(*(all_known[index].required for index in objects))
    for name in sorted(shared):
        tagged: dict[str, list[int]] = {}
        for index in objects:
            values = facts(Context(tuple(all_known[index].member(name)))).values
            if values is None or len(values) > VALUES_MAX:
                break
            for item in values:
                tagged.setdefault(key(item), []).append(index)
        else:
            alone = all(len(indexes) == 1 for indexes in tagged.values())
            if alone or len(tagged) > 1:
                return Tags(name, tagged, kinds, alone and others_are_apart)
    return Tags(None, {}, kinds, are_apart=False)


def _coarse(kinds: frozenset[str]) -> frozenset[str]:
    """Numbers as one: 1 and 1.0 are equal."""
    return kinds - NUMBERS | ({"number"} if kinds & NUMBERS else set())


def _are_disjoint(sets: Sequence[frozenset[str]]) -> bool:
    return sum(map(len, sets)) == len(frozenset().union(*sets))
