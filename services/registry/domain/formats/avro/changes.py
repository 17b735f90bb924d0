"""What changed from one schema to the next, part by part.

Parts are compared where they stand: fields by name, or by the alias that tells what a field was called before; branches
of unions by kind and name; items and values as such. A type that is used twice is compared at its first use. Marks are
those of the STRICT rules (resolution.py), for the part alone.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.registry.domain.evolution.report import Verdict
from services.registry.domain.formats import Difference, Kind, json_text
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Resolved,
    Schema,
    Union,
)
from services.registry.domain.formats.avro.places import branch_label
from services.registry.domain.formats.avro.reading import by_name, same_name
from services.registry.domain.formats.avro.resolution import (
    STEPS_MAX,
    Comparison,
    Place,
    TooCostly,
    Use,
    below,
    described,
    faults,
    path_of,
)

DIFFERENCES_MAX: Final = 10_000
"""Differences of one pair of schemas that are listed."""

_SHOWN_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Part:
    """Types of both schemas that stand in the same place."""

    before: Resolved
    after: Resolved
    before_path: str
    after_path: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A difference, and what its marks depend on: types before and after, None where the difference knows itself.

    What was added cannot trouble readers of the later schema, and what was removed not those of the earlier.
    """

    difference: Difference
    before: Use | None = None
    after: Use | None = None


def differences(before: Schema, after: Schema) -> list[Difference]:
    """Every difference, outer ones first, in the order of the texts: what was before, then what was added."""
    drafts: list[Draft] = []
    walk = _Walk(before, after)
    for draft in walk.drafts():
        drafts.append(draft)
        if len(drafts) == DIFFERENCES_MAX:
            break
    undecided = [(one.before, one.after) for one in drafts if one.before is not None and one.after is not None]
    backward, forward = Comparison(after, before), Comparison(before, after)
    try:
        backward.decide([(later, earlier) for earlier, later in undecided])
        forward.decide(undecided)
    except TooCostly:
        return [_placed(_unknown(one)) for one in drafts]
    return [_placed(_marked(one, backward, forward)) for one in drafts]


def _placed(difference: Difference) -> Difference:
    """The difference without a path on the side where its part is not."""
    if difference.kind is Kind.ADDED:
        return replace(difference, before_path="")
    return replace(difference, after_path="") if difference.kind is Kind.REMOVED else difference


def _marked(draft: Draft, backward: Comparison, forward: Comparison) -> Difference:
    if draft.before is None or draft.after is None:
        return draft.difference
    kind = draft.difference.kind
    return replace(
        draft.difference,
        backward=_verdict(fine=kind is Kind.ADDED or backward.compatible(draft.after, draft.before)),
        forward=_verdict(fine=kind is Kind.REMOVED or forward.compatible(draft.before, draft.after)),
    )


def _unknown(draft: Draft) -> Difference:
    """The difference when its marks cost too much to find."""
    if draft.before is None:
        return draft.difference
    kind, marks = draft.difference.kind, (Verdict.COMPATIBLE, Verdict.UNDECIDED)
    return replace(draft.difference, backward=marks[kind is not Kind.ADDED], forward=marks[kind is not Kind.REMOVED])


class _Walk:
    """Both schemas, walked over side by side."""

    def __init__(self, before: Schema, after: Schema) -> None:
        self._before = before
        self._after = after
        self._steps = 0

    def drafts(self) -> Iterator[Draft]:
        """Differences of all parts, nearest to the root first."""
        before, after = self._before.resolve(self._before.root), self._after.resolve(self._after.root)
        waiting = deque([Part(before, after, "", "")])
        seen: set[tuple[Resolved, Resolved]] = set()
        while waiting and self._steps <= STEPS_MAX:
            part = waiting.popleft()
            self._steps += 1
            if (part.before, part.after) in seen:
                continue
            seen.add((part.before, part.after))
            yield from self._of(part, waiting)

    def _of(self, part: Part, waiting: deque[Part]) -> Iterator[Draft]:
        """Differences of two types themselves; the parts below them go to `waiting`."""
        match part.before, part.after:
            case Union() as earlier, Union() as later:
                yield from self._of_branches(part, earlier, later, waiting)
            case (Union(), _) | (_, Union()):
                yield _type_changed(part)
            case (Array(items=one), Array(items=other)) | (Map(values=one), Map(values=other)):
                waiting.append(self._part(part, one, other))
            case Record() as earlier, Record() as later:
                yield from _of_definition(part, earlier, later)
                yield from self._of_fields(part, earlier, later, waiting)
            case Enum() as earlier, Enum() as later:
                yield from _of_definition(part, earlier, later)
                yield from _of_symbols(part, earlier, later)
            case Fixed() as earlier, Fixed() as later:
                yield from _of_definition(part, earlier, later)
                if earlier.size != later.size:
                    paths = below(earlier, part.before_path, "/size"), below(later, part.after_path, "/size")
                    message = f"the size changed from {earlier.size} to {later.size}"
                    yield _draft(Kind.CHANGED, "FIXED_SIZE_MISMATCH", message, paths, fine=(False, False))
                yield from _of_logical(part, earlier, later)
            case Primitive() as earlier, Primitive() as later if earlier.kind == later.kind:
                yield from _of_logical(part, earlier, later)
            case _:
                yield _type_changed(part)

    def _of_branches(self, part: Part, before: Union, after: Union, waiting: deque[Part]) -> Iterator[Draft]:
        earlier = {branch_label(self._before.resolve(one)): one for one in before.branches}
        later = {branch_label(self._after.resolve(one)): one for one in after.branches}
        for label, one in earlier.items():
            if label in later:
                waiting.append(self._part(part, one, later[label]))
            else:
                paths = path_of(self._before.resolve(one), one, part.before_path), part.after_path
                difference = Difference(
                    Kind.REMOVED, "MISSING_UNION_BRANCH", f"the branch `{label}` was removed", *paths
                )
                yield Draft(difference, one, after)
        for label, other in later.items():
            if label not in earlier:
                paths = part.before_path, path_of(self._after.resolve(other), other, part.after_path)
                difference = Difference(Kind.ADDED, "MISSING_UNION_BRANCH", f"the branch `{label}` was added", *paths)
                yield Draft(difference, before, other)
        kept = [label for label in earlier if label in later]
        if kept != [label for label in later if label in earlier]:
            paths = part.before_path, part.after_path
            yield _draft(Kind.CHANGED, "UNION_ORDER_CHANGED", "the branches stand in another order", paths)

    def _of_fields(self, part: Part, before: Record, after: Record, waiting: deque[Part]) -> Iterator[Draft]:
        self._steps += len(before.fields) + len(after.fields)
        pairs = _pairs(before, after)
        places = {one.name: (index, one) for index, one in enumerate(after.fields)}
        for index, one in enumerate(before.fields):
            path = below(before, part.before_path, f"/fields/{index}")
            if one.name not in pairs:
                yield _field_draft(Kind.REMOVED, one, (path, below(after, part.after_path, "/fields")))
                continue
            number, other = places[pairs[one.name]]
            paths = path, below(after, part.after_path, f"/fields/{number}")
            yield from _of_field(one, other, paths)
            waiting.append(self._part(Part(before, after, *paths), one.type, other.type))
        taken = set(pairs.values())
        for number, other in enumerate(after.fields):
            if other.name not in taken:
                paths = below(before, part.before_path, "/fields"), below(after, part.after_path, f"/fields/{number}")
                yield _field_draft(Kind.ADDED, other, paths)
        order = [pairs[one.name] for one in before.fields if one.name in pairs]
        if order != [one.name for one in after.fields if one.name in taken]:
            paths = below(before, part.before_path, "/fields"), below(after, part.after_path, "/fields")
            yield _draft(Kind.CHANGED, "FIELD_POSITION_CHANGED", "the fields stand in another order", paths)

    def _part(self, above: Part, before: Use, after: Use) -> Part:
        one, other = self._before.resolve(before), self._after.resolve(after)
        return Part(one, other, path_of(one, before, above.before_path), path_of(other, after, above.after_path))


def _pairs(before: Record, after: Record) -> Mapping[str, str]:
    """Names of the fields that are one field, before and after: by name, else by an alias on either side."""
    earlier, later = by_name(before), by_name(after)
    found = {name: name for name in earlier if name in later}
    for one in after.fields:
        if one.name not in earlier:
            was = next((name for name in one.aliases if name in earlier and name not in found), None)
            if was is not None:
                found[was] = one.name
    taken = set(found.values())
    for one in before.fields:
        if one.name not in found:
            now = next((name for name in one.aliases if name in later and name not in taken), None)
            if now is not None:
                found[one.name] = now
                taken.add(now)
    return found


def _of_definition(part: Part, before: Definition, after: Definition) -> Iterator[Draft]:
    paths = part.before_path, part.after_path
    if before.name != after.name:
        places = below(before, paths[0], "/name"), below(after, paths[1], "/name")
        fine = same_name(after, before), same_name(before, after)
        rule = "NAME_CHANGED" if all(fine) else "NAME_MISMATCH"
        message = f"the name changed from `{before.name}` to `{after.name}`"
        yield _draft(Kind.CHANGED, rule, message, places, fine=fine)
    yield from _of_texts(before, after, paths)


def _of_texts(before: Definition | Field, after: Definition | Field, paths: tuple[str, str]) -> Iterator[Draft]:
    """Aliases and documentation."""
    if set(before.aliases) != set(after.aliases):
        yield _draft(_kind(before.aliases, after.aliases), "ALIASES_CHANGED", "the aliases changed", paths)
    if before.doc != after.doc:
        yield _draft(_kind(before.doc, after.doc), "DOC_CHANGED", "the documentation changed", paths)


def _of_field(before: Field, after: Field, paths: tuple[str, str]) -> Iterator[Draft]:
    if before.name != after.name:
        message = f"the field `{before.name}` is called `{after.name}` now"
        fine = (
            after.has_default or before.name in after.aliases,
            before.has_default or after.name in before.aliases,
        )
        rule = "FIELD_RENAMED" if all(fine) else "READER_FIELD_MISSING_DEFAULT_VALUE"
        yield _draft(Kind.CHANGED, rule, message, paths, fine=fine)
    yield from _of_texts(before, after, paths)
    if before.order != after.order:
        message = f"the order changed from {before.order} to {after.order}"
        yield _draft(Kind.CHANGED, "FIELD_ORDER_CHANGED", message, paths)
    if before.has_default != after.has_default:
        added = after.has_default
        message = f"the default {_shown(after if added else before)} was {'added' if added else 'removed'}"
        yield _draft(Kind.ADDED if added else Kind.REMOVED, "DEFAULT_CHANGED", message, paths)
    elif before.has_default and json_text.canonical(before.default) != json_text.canonical(after.default):
        message = f"the default changed from {_shown(before)} to {_shown(after)}"
        yield _draft(Kind.CHANGED, "DEFAULT_CHANGED", message, paths)


def _field_draft(kind: Kind, field: Field, paths: tuple[str, str]) -> Draft:
    """A field that is only on one side: readers that have it need a default for it."""
    reads = field.has_default
    rule = f"FIELD_{kind.name}" if reads else "READER_FIELD_MISSING_DEFAULT_VALUE"
    default = "with a default" if reads else "without a default"
    message = f"the field `{field.name}` {default} was {kind.name.lower()}"
    return _draft(kind, rule, message, paths, fine=(reads, True) if kind is Kind.ADDED else (True, reads))


def _of_symbols(part: Part, before: Enum, after: Enum) -> Iterator[Draft]:
    paths = below(before, part.before_path, "/symbols"), below(after, part.after_path, "/symbols")
    removed = [symbol for symbol in before.symbols if symbol not in after.known]
    added = [symbol for symbol in after.symbols if symbol not in before.known]
    for symbol in removed:
        reads = after.default is not None
        rule = "ENUM_SYMBOL_REMOVED" if reads else "MISSING_ENUM_SYMBOLS"
        yield _draft(Kind.REMOVED, rule, f"the symbol `{symbol}` was removed", paths, fine=(reads, True))
    for symbol in added:
        reads = before.default is not None
        rule = "ENUM_SYMBOL_ADDED" if reads else "MISSING_ENUM_SYMBOLS"
        yield _draft(Kind.ADDED, rule, f"the symbol `{symbol}` was added", paths, fine=(True, reads))
    kept = [symbol for symbol in before.symbols if symbol in after.known]
    if kept != [symbol for symbol in after.symbols if symbol in before.known]:
        yield _draft(Kind.CHANGED, "ENUM_ORDER_CHANGED", "the symbols stand in another order", paths)
    if before.default != after.default:
        places = part.before_path, part.after_path
        message = f"the enum's default changed from {before.default or 'none'} to {after.default or 'none'}"
        yield _draft(_kind(before.default, after.default), "ENUM_DEFAULT_CHANGED", message, places)


def _of_logical(part: Part, before: Primitive | Fixed, after: Primitive | Fixed) -> Iterator[Draft]:
    """Logical types take no part in the STRICT rules."""
    one, other = before.logical, after.logical
    if one == other:
        return
    if one is not None and other is not None and one.name == other.name:
        message = (
            f"the decimal changed from precision {one.precision} and scale {one.scale} "
            f"to precision {other.precision} and scale {other.scale}"
        )
    else:
        was, now = (each.name if each else "none" for each in (one, other))
        message = f"the logical type changed from {was} to {now}"
    paths = part.before_path, part.after_path
    yield _draft(_kind(one, other), "LOGICAL_TYPE_CHANGED", message, paths)


def _type_changed(part: Part) -> Draft:
    message = f"the type changed from {described(part.before)} to {described(part.after)}"
    rule = "TYPE_CHANGED"
    if not isinstance(part.before, Union) and not isinstance(part.after, Union):
        found = next(faults(Place(part.after, part.before)), None) or next(faults(Place(part.before, part.after)), None)
        rule = found.rule if found is not None else "TYPE_PROMOTED"
    difference = Difference(Kind.CHANGED, rule, message, part.before_path, part.after_path)
    return Draft(difference, part.before, part.after)


def _draft(
    kind: Kind, rule: str, message: str, paths: tuple[str, str], *, fine: tuple[bool, bool] = (True, True)
) -> Draft:
    backward, forward = _verdict(fine=fine[0]), _verdict(fine=fine[1])
    return Draft(Difference(kind, rule, message, paths[0], paths[1], backward, forward))


def _verdict(*, fine: bool) -> Verdict:
    return Verdict.COMPATIBLE if fine else Verdict.INCOMPATIBLE


def _kind(before: object, after: object) -> Kind:
    if not before:
        return Kind.ADDED
    return Kind.CHANGED if after else Kind.REMOVED


def _shown(field: Field) -> str:
    text = json_text.canonical(field.default) if not isinstance(field.default, str) else json.dumps(field.default)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
