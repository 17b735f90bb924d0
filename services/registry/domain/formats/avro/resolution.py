"""Whether a reader's schema can read all that a writer's schema writes, and where not.

Rules and their names are those of Java's SchemaCompatibility; logical types take no part in them. They decide on the
schemas alone. Differences: each pair of types is reported once; a recursive pair counts as
compatible only when nothing refutes it anywhere (the greatest fixpoint), where the reference implementation keeps
what it assumed on the way; a field with several matches takes the writer's field of its own name first, where the
reference implementation fails; a missing field is READER_FIELD_MISSING_DEFAULT_VALUE also when it is an enum with a
default of its own, where the reference implementation says TYPE_MISMATCH.

Source: Apache Avro 1.12 Specification, "Schema Resolution" and "Aliases"; org.apache.avro.SchemaCompatibility.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Fixed,
    Map,
    Named,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.reading import by_name, same_kind, same_name, written

STEPS_MAX: Final = 500_000
"""Pairs of types that one comparison looks at: about a second. Real schemas have some hundreds."""

_LISTED_MAX: Final = 20

Use: TypeAlias = Type | Definition
Key: TypeAlias = tuple[Resolved, Resolved]


NOT_DECIDED: Final = Finding(
    rule="NOT_DECIDED",
    verdict=Verdict.UNDECIDED,
    message=f"comparing the schemas takes more than {STEPS_MAX} steps",
    remedy="make unions smaller, or register under level NONE once you have checked the change yourself",
)
"""Says that a comparison was given up."""


class TooCostly(Exception):
    """The comparison would look at more pairs than are allowed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A reader's and a writer's type, as they are used, and the last places on the way to them in each text."""

    reader: Use
    writer: Use
    reader_path: str = ""
    writer_path: str = ""


@dataclass(slots=True)
class Pair:
    """A reader's and a writer's type. fine: compatible as far as is known; it only ever turns to False.

    hopes: refuted children that refute the pair: all of them for branches of a reader's union, otherwise one.
    """

    children: Sequence[tuple[Use, Use]]
    hopes: int
    fine: bool
    parents: list[Pair] = field(default_factory=list)


def findings(reader: Schema, writer: Schema) -> Iterator[Finding]:
    """Where the reader may fail on what the writer writes, each place once, in the order of the reader's text."""
    comparison = Comparison(reader, writer)
    try:
        comparison.decide()
    except TooCostly:
        yield NOT_DECIDED
        return
    yield from comparison.findings(Place(reader.root, writer.root), explain=True)


class Comparison:
    """All pairs of types that reading goes through, decided together."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader = reader
        self._writer = writer
        self._pairs: dict[Key, Pair] = {}
        self._steps = 0

    def decide(self, more: Sequence[tuple[Use, Use]] = ()) -> None:
        """Finds which pairs are compatible: all, but those that are refuted and those that need them.

        more: pairs to decide besides the roots. Raises TooCostly.
        """
        for item, other in ((self._reader.root, self._writer.root), *more):
            self._collect(self._key(item, other))
        refuted = [pair for pair in self._pairs.values() if not pair.fine]
        while refuted:
            for parent in refuted.pop().parents:
                parent.hopes -= 1
                if parent.fine and parent.hopes <= 0:
                    parent.fine = False
                    refuted.append(parent)

    def findings(self, start: Place, *, explain: bool) -> Iterator[Finding]:
        """Findings of a pair and of all below it that are not compatible.

        explain: a union's finding tells why the branch that was probably meant does not do.
        """
        seen: set[Key] = set()
        open_places = [start]
        while open_places:
            used = open_places.pop()
            key = reader, writer = self._key(used.reader, used.writer)
            if self._pairs[key].fine or key in seen:
                continue
            seen.add(key)
            place = Place(
                reader,
                writer,
                path_of(reader, used.reader, used.reader_path),
                path_of(writer, used.writer, used.writer_path),
            )
            below = [
                Place(item, other, place.reader_path, place.writer_path) for item, other in self._pairs[key].children
            ]
            if not isinstance(reader, Union):
                yield from faults(place)
                open_places.extend(reversed(below))
            elif isinstance(writer, Union):
                for branch in below:
                    if not self._pair_of(branch).fine and not self._reported(branch, seen):
                        yield self._missing_branch(branch, explain=explain)
            elif not self._reported(place, seen):
                yield self._missing_branch(place, explain=explain)

    def _reported(self, place: Place, seen: Set[Key]) -> bool:
        """Whether a union's branch fails on a pair whose findings are reported anyway, as in a recursive type."""
        return any(self._key(item, other) in seen for item, other in self._pair_of(place).children)

    def _missing_branch(self, place: Place, *, explain: bool) -> Finding:
        """The finding that no branch of a reader's union reads a writer's type that is no union."""
        writer = self._writer.resolve(place.writer)
        reason = ""
        if explain:
            likely = (Place(item, other) for item, other in self._pair_of(place).children)
            causes = (found for one in likely for found in self.findings(one, explain=False))
            cause = next(causes, None)
            reason = "" if cause is None else f": the branch most like it does not, because {cause.message}"
        return _finding(
            "MISSING_UNION_BRANCH",
            f"no branch of the reader's union reads {described(writer)} of the writer{reason}",
            f"add {described(writer)} to the reader's union, or keep the branch as it was",
            path_of(self._reader.resolve(place.reader), place.reader, place.reader_path),
            path_of(writer, place.writer, place.writer_path),
        )

    def compatible(self, reader: Use, writer: Use) -> bool:
        """Whether the reader's type reads all of the writer's. Both were decided on."""
        return self._pairs[self._key(reader, writer)].fine

    def _collect(self, root: Key) -> None:
        """Every pair that reading may come to, each with those that depend on it."""
        if root in self._pairs:
            return
        self._pairs[root] = self._pair(*root)
        open_pairs = [self._pairs[root]]
        while open_pairs:
            pair = open_pairs.pop()
            for item, other in pair.children:
                key = self._key(item, other)
                below = self._pairs.get(key)
                if below is None:
                    below = self._pairs[key] = self._pair(*key)
                    open_pairs.append(below)
                below.parents.append(pair)

    def _pair(self, reader: Resolved, writer: Resolved) -> Pair:
        if isinstance(writer, Union):
            return self._counted(Pair([(reader, branch) for branch in writer.branches], hopes=1, fine=True))
        if isinstance(reader, Union):
            self._count(len(reader.branches))
            likely = [(branch, writer) for branch in reader.branches if self._may_read(branch, writer)]
            return Pair(likely, hopes=len(likely), fine=bool(likely))
        fine = next(faults(Place(reader, writer)), None) is None
        return self._counted(Pair(_children(reader, writer), hopes=1, fine=fine))

    def _may_read(self, branch: Type, writer: Resolved) -> bool:
        """Whether a branch of the reader's union is one to look into: of the same kind and name, or promoted to."""
        reader = self._reader.resolve(branch)
        if isinstance(reader, Record | Enum | Fixed) and isinstance(writer, Record | Enum | Fixed):
            return reader.kind == writer.kind and same_name(reader, writer)
        return same_kind(reader, writer)

    def _counted(self, pair: Pair) -> Pair:
        self._count(1 + len(pair.children))
        return pair

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS_MAX:
            raise TooCostly

    def _pair_of(self, place: Place) -> Pair:
        return self._pairs[self._key(place.reader, place.writer)]

    def _key(self, reader: Use, writer: Use) -> Key:
        return self._reader.resolve(reader), self._writer.resolve(writer)


def _children(reader: Resolved, writer: Resolved) -> Sequence[tuple[Use, Use]]:
    """Types that must resolve for two types to, neither of which is a union."""
    match reader, writer:
        case Array(items=item), Array(items=other):
            return [(item, other)]
        case Map(values=item), Map(values=other):
            return [(item, other)]
        case Record(fields=fields), Record():
            known = by_name(writer)
            matches = ((one, written(one, known)) for one in fields)
            return [(one.type, found.type) for one, found in matches if found is not None]
    return []


def faults(place: Place) -> Iterator[Finding]:
    """What is wrong with two types themselves, neither of which is a union, whatever is below them."""
    match place.reader, place.writer:
        case (Record() as reader, Record() as writer):
            yield from _name_faults(reader, writer, place)
            yield from _field_faults(reader, writer, place)
        case (Enum() as reader, Enum() as writer):
            yield from _name_faults(reader, writer, place)
            yield from _symbol_faults(reader, writer, place)
        case (Fixed() as reader, Fixed() as writer):
            yield from _name_faults(reader, writer, place)
            yield from _size_faults(reader, writer, place)
        case reader, writer if not same_kind(reader, writer):
            assert not isinstance(reader, Named)
            assert not isinstance(writer, Named)
            yield _finding(
                "TYPE_MISMATCH",
                f"the reader expects {described(reader)} where the writer writes {described(writer)}",
                f"keep the type, or make the reader's a union that also has {described(writer)}",
                place.reader_path,
                place.writer_path,
            )


def _name_faults(reader: Definition, writer: Definition, place: Place) -> Iterator[Finding]:
    if not same_name(reader, writer):
        yield _finding(
            "NAME_MISMATCH",
            f"the reader's {reader.kind} is `{reader.name}` where the writer's is `{writer.name}`",
            f'keep the name, or add "{writer.name}" to the aliases of the reader\'s {reader.kind}',
            below(reader, place.reader_path, "/name"),
            below(writer, place.writer_path, "/name"),
        )


def _field_faults(reader: Record, writer: Record, place: Place) -> Iterator[Finding]:
    known = by_name(writer)
    for index, one in enumerate(reader.fields):
        if not one.has_default and written(one, known) is None:
            yield _finding(
                "READER_FIELD_MISSING_DEFAULT_VALUE",
                f"the reader's field `{one.name}` of `{reader.name}` has no default, and the writer has no such field",
                f"give `{one.name}` a default, or an alias that names the field it was before",
                below(reader, place.reader_path, f"/fields/{index}"),
                below(writer, place.writer_path, "/fields"),
            )


def _symbol_faults(reader: Enum, writer: Enum, place: Place) -> Iterator[Finding]:
    lacking = [symbol for symbol in writer.symbols if symbol not in reader.known]
    if lacking and reader.default is None:
        names = ", ".join(f"`{symbol}`" for symbol in lacking[:_LISTED_MAX])
        more = f" and {len(lacking) - _LISTED_MAX} more" if len(lacking) > _LISTED_MAX else ""
        yield _finding(
            "MISSING_ENUM_SYMBOLS",
            f"the reader's enum `{reader.name}` lacks {names}{more} of the writer and has no default",
            "keep the symbols, or give the reader's enum a default",
            below(reader, place.reader_path, "/symbols"),
            below(writer, place.writer_path, "/symbols"),
        )


def _size_faults(reader: Fixed, writer: Fixed, place: Place) -> Iterator[Finding]:
    if reader.size != writer.size:
        yield _finding(
            "FIXED_SIZE_MISMATCH",
            f"the reader's fixed `{reader.name}` has {reader.size} bytes where the writer's has {writer.size}",
            "keep the size, or define a fixed under a new name for a new field",
            below(reader, place.reader_path, "/size"),
            below(writer, place.writer_path, "/size"),
        )


def path_of(item: Resolved, use: Use, above: str) -> str:
    """Place of a type: of its definition, or of its use or what is around it when that is in a referenced text."""
    return next((path for path in (item.path, use.path) if path is not None), above)


def below(item: Definition, path: str, attribute: str) -> str:
    """Place of an attribute of a definition; of the use alone when the definition is in a referenced text."""
    return path if item.path is None else path + attribute


def described(item: Resolved) -> str:
    if isinstance(item, Record | Enum | Fixed):
        return f"{item.kind} `{item.name}`"
    return item.kind


def _finding(rule: str, message: str, remedy: str, reader_path: str, writer_path: str) -> Finding:
    return Finding(rule, Verdict.INCOMPATIBLE, message, remedy, reader_path, writer_path)
