"""What changed from one JSON Schema to the next, part by part.

Parts that the STRICT rules name come from comparing both ways, so that each has both marks. Everything else that
differs is found by walking the two texts side by side; the rules do not look at it, so it does no harm by them. Its
names are made of the keyword: FORMAT_CHANGED, IF_ADDED.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.registry.domain.evolution.policy import Policy
from services.registry.domain.evolution.report import Finding, Verdict, worst
from services.registry.domain.formats import Difference, Kind, Parsed, json_text
from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema import rules
from services.registry.domain.formats.jsonschema.keywords import (
    SUBSCHEMA,
    SUBSCHEMA_LISTS,
    SUBSCHEMA_MAPS,
    Path,
    pointer,
)
from services.registry.domain.formats.jsonschema.rules.nodes import Numbers

DIFFERENCES_MAX: Final = 1_000
"""Parts that are listed; those that come first in the texts."""

_NOTES: Final = frozenset(
    {"$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "id", "readOnly", "title"}
    | {"writeOnly"}
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[^A-Z0-9]+")


@dataclass(slots=True)
class _Marks:
    """What both comparisons found of one part."""

    in_before: bool
    in_after: bool
    backward: list[Finding] = field(default_factory=list)
    forward: list[Finding] = field(default_factory=list)


def differences(before: Parsed, after: Parsed) -> Sequence[Difference]:
    """What changed, in the order of the later text; what was removed, before the rest of what held it. No part twice.

    At most DIFFERENCES_MAX. Empty for schemas that differ in white space, member order and notation of numbers alone.
    """
    texts = [json_text.read(parsed.text) for parsed in (before, after)]
    named = _named(before, after)
    found = [*named, *_Walk(named).found(texts[0], texts[1])]
    later, earlier = (_order(text) for text in reversed(texts))

    def place(one: Difference) -> tuple[int, int]:
        path = one.after_path if one.kind is not Kind.REMOVED else one.before_path
        while path not in later:  # What was removed stands first in what held it.
            path = path.rpartition("/")[0]
        return later[path], earlier.get(one.before_path, len(earlier))

    return tuple(sorted(found, key=place)[:DIFFERENCES_MAX])


def _named(before: Parsed, after: Parsed) -> list[Difference]:
    """The parts that rules name."""
    parts: dict[tuple[str, str], _Marks] = {}
    for one in rules.found(after, before, Policy.STRICT):
        key = (one.finding.writer_path, one.finding.reader_path)
        parts.setdefault(key, _Marks(one.in_writer, one.in_reader)).backward.append(one.finding)
    for one in rules.found(before, after, Policy.STRICT):
        key = (one.finding.reader_path, one.finding.writer_path)
        parts.setdefault(key, _Marks(one.in_reader, one.in_writer)).forward.append(one.finding)
    return [_difference(*key, marks) for key, marks in parts.items()]


def _difference(before_path: str, after_path: str, marks: _Marks) -> Difference:
    """A part with the rule that says most of it: the worst one of the way forward in time, else of the way back."""
    backward, forward = worst(marks.backward), worst(marks.forward)
    says = next((one for one in marks.backward if one.verdict is backward), None) or marks.forward[0]
    kind = Kind.CHANGED if marks.in_before and marks.in_after else Kind.ADDED if marks.in_after else Kind.REMOVED
    return Difference(
        kind=kind,
        rule=says.rule,
        message=says.message,
        before_path="" if kind is Kind.ADDED else before_path,
        after_path="" if kind is Kind.REMOVED else after_path,
        backward=backward,
        forward=forward,
    )


class _Walk:
    """Two texts side by side; parts that rules name, and what is below parts added or removed, are left out."""

    def __init__(self, named: Sequence[Difference]) -> None:
        self._numbers = Numbers()
        self._before = {one.before_path for one in named if one.kind is not Kind.ADDED}
        self._after = {one.after_path for one in named if one.kind is not Kind.REMOVED}
        self._left = DIFFERENCES_MAX

    def found(self, before: Json, after: Json) -> Iterator[Difference]:
        """What no rule names."""
        waiting: list[tuple[Json, Json, Path, Path]] = [(before, after, (), ())]
        while waiting and self._left:
            old, new, old_path, new_path = waiting.pop()
            if self._same(old, new):
                continue
            if not isinstance(old, dict) or not isinstance(new, dict):
                yield from self._changed(old_path, new_path, "SCHEMA")
                continue
            names = [*new, *(name for name in old if name not in new)]
            for keyword in names:
                if keyword in old and keyword in new and self._same(old[keyword], new[keyword]):
                    continue
                below = [] if keyword not in old or keyword not in new else _pairs(keyword, old[keyword], new[keyword])
                if below is None or not below:
                    yield from self._part(keyword, old, new, old_path, new_path)
                    continue
                for path, item, other in reversed(below):
                    if item is _ABSENT or other is _ABSENT:
                        yield from self._member(keyword, path, (old_path, new_path), gone=other is _ABSENT)
                    else:
                        waiting.append((item, other, old_path + path, new_path + path))

    def _same(self, old: Json, new: Json) -> bool:
        return self._numbers.of(old) == self._numbers.of(new)

    def _part(self, keyword: str, old: Json, new: Json, old_path: Path, new_path: Path) -> Iterator[Difference]:
        """A keyword that is there in one of two schemas, or differs."""
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        whole = pointer(old_path) in self._before or pointer(new_path) in self._after
        if whole and keyword not in _NOTES:  # A rule has said something of the schema as a whole.
            return
        if keyword in old and keyword in new:
            yield from self._changed((*old_path, keyword), (*new_path, keyword), keyword)
        elif keyword in old:
            yield from self._once(Kind.REMOVED, keyword, pointer((*old_path, keyword)), "")
        else:
            yield from self._once(Kind.ADDED, keyword, "", pointer((*new_path, keyword)))

    def _member(self, keyword: str, path: Path, paths: tuple[Path, Path], *, gone: bool) -> Iterator[Difference]:
        """A subschema with a name that is there in one of two schemas."""
        old, new = (pointer(above + path) for above in paths)
        if gone:
            yield from self._once(Kind.REMOVED, keyword, old, "")
        else:
            yield from self._once(Kind.ADDED, keyword, "", new)

    def _changed(self, old_path: Path, new_path: Path, keyword: str) -> Iterator[Difference]:
        yield from self._once(Kind.CHANGED, keyword, pointer(old_path), pointer(new_path))

    def _once(self, kind: Kind, keyword: str, before: str, after: str) -> Iterator[Difference]:
        """The difference, unless a rule names the part or something in it."""
        if not self._left or (before in self._before and before) or (after in self._after and after):
            return
        if any(known.startswith(f"{before}/") for known in self._before if before and kind is not Kind.ADDED) or any(
            known.startswith(f"{after}/") for known in self._after if after and kind is not Kind.REMOVED
        ):
            return
        self._left -= 1
        name = _SIGNS.sub("_", _CAPITAL.sub("_", keyword).upper()).strip("_")[:100] or "KEYWORD"
        verb = {Kind.ADDED: "was added", Kind.REMOVED: "was removed", Kind.CHANGED: "changed"}[kind]
        note = "" if keyword in _NOTES else "; the STRICT rules do not look at it"
        message = f"`{keyword[:100]}` {verb}{note}"
        yield Difference(kind, f"{name}_{kind.name}", message, before, after, Verdict.COMPATIBLE, Verdict.COMPATIBLE)


_ABSENT: Final[Json] = ["absent"]


def _pairs(keyword: str, old: Json, new: Json) -> list[tuple[Path, Json, Json]]:
    """Subschemas under a keyword that stand for each other, with their path; nothing when they are not to be paired."""
    if isinstance(old, dict) and isinstance(new, dict) and keyword in SUBSCHEMA_MAPS:
        names = [*new, *(name for name in old if name not in new)]
        return [((keyword, name), old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in names]
    if isinstance(old, list) and isinstance(new, list) and keyword in SUBSCHEMA_LISTS and len(old) == len(new):
        return [((keyword, index), *both) for index, both in enumerate(zip(old, new, strict=True))]
    if isinstance(old, dict) and isinstance(new, dict) and keyword in SUBSCHEMA:
        return [((keyword,), old, new)]
    return []


def _order(text: Json) -> dict[str, int]:
    """The rank of every place in a text."""
    order: dict[str, int] = {}
    waiting: list[tuple[str, Json]] = [("", text)]
    while waiting:
        path, value = waiting.pop()
        order[path] = len(order)
        if isinstance(value, dict):
            waiting.extend((path + pointer((name,)), item) for name, item in reversed(value.items()))
        elif isinstance(value, list):
            waiting.extend((f"{path}/{index}", item) for index, item in reversed(list(enumerate(value))))
    return order
