"""Places in data, and the names that stand for branches of unions in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from services.registry.domain.formats.avro.model import Enum, Fixed, Named, Record, Resolved, Schema, Type, Union

Way: TypeAlias = "tuple[Way, str | int] | None"
"""Parts of a path, the last one outermost: shared by all that is below a value."""


def parts(way: Way) -> list[str | int]:
    """The path from the outside in."""
    found: list[str | int] = []
    while way is not None:
        way, part = way
        found.append(part)
    found.reverse()
    return found


def branch_label(branch: Resolved) -> str:
    """What stands for a branch of a union in the JSON encoding."""
    return branch.name if isinstance(branch, Record | Enum | Fixed) else branch.kind


def by_label(schema: Schema, union: Union) -> Mapping[str, Type]:
    """Branches by the names that stand for them in data. A named type called like a kind of type comes second."""
    found: dict[str, Type] = {}
    for named in (False, True):
        for branch in union.branches:
            if isinstance(branch, Named) is named:
                found.setdefault(branch_label(schema.resolve(branch)), branch)
    return found
