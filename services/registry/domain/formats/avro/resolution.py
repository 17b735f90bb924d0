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

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats.avro.model import (
    Array,
    Definition,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
    unqualified,
)

PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "long": frozenset({"int"}),
    "float": frozenset({"int", "long"}),
    "double": frozenset({"int", "long", "float"}),
    "bytes": frozenset({"string"}),
    "string": frozenset({"bytes"}),
}
"""What else a reader's primitive type reads."""

STEPS_MAX: Final = 500_000
"""Pairs of types that one comparison looks at: about a second. Real schemas have some hundreds."""

_LISTED_MAX: Final = 20

Use: TypeAlias = Type | Definition
Key: TypeAlias = tuple[Resolved, Resolved]


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
        yield Finding(
            rule="NOT_DECIDED",
            verdict=Verdict.UNDECIDED,
            message=f"comparing the schemas takes more than {STEPS_MAX} steps",
            remedy="make unions smaller, or register under level NONE once you have checked the change yourself",
        )
        return
    yield from comparison.findings(Place(reader.root, writer.root), explain=True)


class Comparison:
    """All pairs of types that reading goes through, decided together."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader = reader
        self._writer = writer
        self._pairs: dict[Key, Pair] = {}
        self._steps = 0

    def decide(self) -> None:
        """Finds which pairs are compatible: all, but those that are refuted and those that need them.

        Raises TooCostly.
        """
        self._collect()
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
                _path(reader, used.reader, used.reader_path),
                _path(writer, used.writer, used.writer_path),
            )
            below = [
                Place(item, other, place.reader_path, place.writer_path) for item, other in self._pairs[key].children
            ]
            if not isinstance(reader, Union):
                yield from _faults(place)
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
            f"no branch of the reader's union reads {_described(writer)} of the writer{reason}",
            f"add {_described(writer)} to the reader's union, or keep the branch as it was",
            _path(self._reader.resolve(place.reader), place.reader, place.reader_path),
            _path(writer, place.writer, place.writer_path),
        )

    def _collect(self) -> None:
        """Every pair that reading may come to, each with those that depend on it."""
        root = self._key(self._reader.root, self._writer.root)
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
        fine = next(_faults(Place(reader, writer)), None) is None
        return self._counted(Pair(_children(reader, writer), hopes=1, fine=fine))

    def _may_read(self, branch: Type, writer: Resolved) -> bool:
        """Whether a branch of the reader's union is one to look into: of the same kind and name, or promoted to."""
        reader = self._reader.resolve(branch)
        if isinstance(reader, Record | Enum | Fixed) and isinstance(writer, Record | Enum | Fixed):
            return reader.kind == writer.kind and _same_name(reader, writer)
        return _same_kind(reader, writer)

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
            written = _by_name(writer)
            matches = ((one, _written(one, written)) for one in fields)
            return [(one.type, found.type) for one, found in matches if found is not None]
    return []


def _faults(place: Place) -> Iterator[Finding]:
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
        case reader, writer if not _same_kind(reader, writer):
            assert not isinstance(reader, Named)
            assert not isinstance(writer, Named)
            yield _finding(
                "TYPE_MISMATCH",
                f"the reader expects {_described(reader)} where the writer writes {_described(writer)}",
                f"keep the type, or make the reader's a union that also has {_described(writer)}",
                place.reader_path,
                place.writer_path,
            )


def _name_faults(reader: Definition, writer: Definition, place: Place) -> Iterator[Finding]:
    if not _same_name(reader, writer):
        yield _finding(
            "NAME_MISMATCH",
            f"the reader's {reader.kind} is `{reader.name}` where the writer's is `{writer.name}`",
            f'keep the name, or add "{writer.name}" to the aliases of the reader\'s {reader.kind}',
            _below(reader, place.reader_path, "/name"),
            _below(writer, place.writer_path, "/name"),
        )


def _field_faults(reader: Record, writer: Record, place: Place) -> Iterator[Finding]:
    written = _by_name(writer)
    for index, one in enumerate(reader.fields):
        if not one.has_default and _written(one, written) is None:
            yield _finding(
                "READER_FIELD_MISSING_DEFAULT_VALUE",
                f"the reader's field `{one.name}` of `{reader.name}` has no default, and the writer has no such field",
                f"give `{one.name}` a default, or an alias that names the field it was before",
                _below(reader, place.reader_path, f"/fields/{index}"),
                _below(writer, place.writer_path, "/fields"),
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
            _below(reader, place.reader_path, "/symbols"),
            _below(writer, place.writer_path, "/symbols"),
        )


def _size_faults(reader: Fixed, writer: Fixed, place: Place) -> Iterator[Finding]:
    if reader.size != writer.size:
        yield _finding(
            "FIXED_SIZE_MISMATCH",
            f"the reader's fixed `{reader.name}` has {reader.size} bytes where the writer's has {writer.size}",
            "keep the size, or define a fixed under a new name for a new field",
            _below(reader, place.reader_path, "/size"),
            _below(writer, place.writer_path, "/size"),
        )


def _same_kind(reader: Use, writer: Use) -> bool:
    """Whether two types that are no unions are of one kind, or the writer's is promoted to the reader's."""
    if isinstance(reader, Named) or isinstance(writer, Named):
        return False
    return reader.kind == writer.kind or writer.kind in PROMOTIONS.get(reader.kind, ())


def _same_name(reader: Definition, writer: Definition) -> bool:
    return unqualified(reader.name) == unqualified(writer.name) or writer.name in reader.aliases


def _by_name(record: Record) -> Mapping[str, Field]:
    return {one.name: one for one in record.fields}


def _written(one: Field, written: Mapping[str, Field]) -> Field | None:
    """The writer's field that a reader's field is filled from; None when only its default can."""
    return next((written[name] for name in (one.name, *one.aliases) if name in written), None)


def _path(item: Resolved, use: Use, above: str) -> str:
    """Place of a type: of its definition, or of its use or what is around it when that is in a referenced text."""
    return next((path for path in (item.path, use.path) if path is not None), above)


def _below(item: Definition, path: str, attribute: str) -> str:
    """Place of an attribute of a definition; of the use alone when the definition is in a referenced text."""
    return path if item.path is None else path + attribute


def _described(item: Resolved) -> str:
    if isinstance(item, Record | Enum | Fixed):
        return f"{item.kind} `{item.name}`"
    return item.kind


def _finding(rule: str, message: str, remedy: str, reader_path: str, writer_path: str) -> Finding:
    return Finding(rule, Verdict.INCOMPATIBLE, message, remedy, reader_path, writer_path)
