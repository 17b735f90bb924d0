"""Whether a reader takes all that a writer writes for what it means, with data that shows where it does not.

Every pair of types that reading comes to is visited once. A pair does no harm when its own rule holds and all pairs
below it do none: by induction over the value, whatever the writer wrote is then read, and means the same. That is the
proof behind a comparison without findings. The rules are those of schema resolution, and beyond them:

- A promotion must keep every number, and bytes that become a string must be UTF-8.
- A symbol must not become the default of the reader's enum.
- A logical type is part of what a value means: 1 as `timestamp-millis` is not 1 as `timestamp-micros`, nor plainly 1.
  A decimal keeps its scale and loses no digits of precision; more digits do no harm. A UUID in a string is that string.
  Logical types that the specification does not know are ignored, as it demands.
- A default that fills a field must follow the logical types of the field.
- Of a union, the branch counts that the reader picks (`reading.pick`), not any that would do. Where implementations
  pick different ones and not all keep the meaning, nothing is decided: fastavro reads an int as the float of
  [float, int].

Fields that only the writer has are passed over, and fields that only the reader has are filled with their defaults:
that is what resolution is for, and does no harm.

A finding is INCOMPATIBLE only with a witness: written, checked, read back, and seen to be refused or to mean something
else. Without one it is UNDECIDED and says why. In `read` a value of a logical type that means something else is
replaced by what it means there, as the bare numbers are often the same.

Source: Apache Avro 1.12 Specification, "Schema Resolution", "Aliases", "Logical Types".
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from services.registry.domain.evolution.report import Finding, Verdict, Witness
from services.registry.domain.formats.avro import resolution
from services.registry.domain.formats.avro.binary import BinaryValidator
from services.registry.domain.formats.avro.leaves import leaf_fault
from services.registry.domain.formats.avro.model import (
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.reading import (
    Reader,
    Rejected,
    by_name,
    first_match,
    pick,
    same_name,
    written,
)
from services.registry.domain.formats.avro.resolution import STEPS_MAX, Place, TooCostly, below, described, path_of
from services.registry.domain.formats.avro.values import (
    DEPTH_MAX,
    Chosen,
    Smallest,
    TooLarge,
    Value,
    as_json,
    decoded,
    encoded,
)

WITNESS_BYTES_MAX: Final = 1 << 16
"""Of a witness in the binary encoding."""

_LISTED_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Visit:
    """A pair of types that reading comes to, and from where: the way back to the root is the way to a witness.

    step: name of the writer's field, index of the writer's branch, or "" for an item or a member; None when the value
    is the same as above.
    """

    reader: Resolved
    writer: Resolved
    reader_path: str
    writer_path: str
    above: Visit | None = None
    step: str | int | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding without its witness. leaf: a writer's value that should show it, in one place; the smallest if none."""

    finding: Finding
    leaf: tuple[Value] | None = None


def findings(reader: Schema, writer: Schema) -> Iterator[Finding]:
    """Where the reader fails on the writer's data or misunderstands it, each place once, outer ones first."""
    comparison = _Comparison(reader, writer)
    try:
        for visit in comparison.visits():
            for suspicion in comparison.suspicions(visit):
                yield comparison.confirmed(visit, suspicion)
    except TooCostly:
        yield resolution.NOT_DECIDED


class _Comparison:
    """A reader's and a writer's schema, and the pairs of types to visit."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader = reader
        self._writer = writer
        self._judge = Reader(reader, writer)
        self._smallest: Smallest | None = None
        self._validator: BinaryValidator | None = None
        self._steps = 0

    def visits(self) -> Iterator[Visit]:
        """Every pair of types that reading comes to, nearest first. Raises TooCostly."""
        seen: set[tuple[Resolved, Resolved]] = set()
        root = Visit(self._reader.resolve(self._reader.root), self._writer.resolve(self._writer.root), "", "")
        waiting = deque([root])
        while waiting:
            visit = waiting.popleft()
            if (visit.reader, visit.writer) in seen:
                continue
            seen.add((visit.reader, visit.writer))
            self._count(1)
            yield visit
            waiting.extend(self._below(visit))

    def suspicions(self, visit: Visit) -> Iterator[Suspicion]:
        """What may be wrong with a pair of types, whatever is below it."""
        reader, writer = visit.reader, visit.writer
        if isinstance(writer, Union):
            return
        if isinstance(reader, Union):
            picked = self._pick(reader, writer)
            if picked is None:
                yield Suspicion(_missing_branch(visit, writer))
            else:
                yield from self._of_picks(visit, reader, writer, picked)
            return
        for found in resolution.faults(Place(reader, writer, visit.reader_path, visit.writer_path)):
            lacking = found.rule == "MISSING_ENUM_SYMBOLS"
            yield Suspicion(found, (_unknown(reader, writer)[0],) if lacking else None)
        match reader, writer:
            case Enum(), Enum() if reader.default is not None and same_name(reader, writer):
                yield from _defaulted(visit, reader, writer)
            case Record(), Record():
                yield from self._of_fields(visit, reader, writer)
            case (Primitive() | Fixed(), Primitive() | Fixed()):
                fault = leaf_fault(reader, writer)
                if fault is not None:
                    rule, message, remedy, value = fault
                    yield Suspicion(_finding(visit, rule, message, remedy), (value,))

    def confirmed(self, visit: Visit, suspicion: Suspicion) -> Finding:
        """The finding with its witness; UNDECIDED where there is none."""
        finding = suspicion.finding
        if finding.verdict is Verdict.UNDECIDED:
            return finding
        try:
            witness = self._witness(visit, suspicion)
        except TooLarge as reason:
            return replace(
                finding, verdict=Verdict.UNDECIDED, message=f"{finding.message}; no data shows it, as {reason}"
            )
        return replace(finding, witness=witness)

    def _witness(self, visit: Visit, suspicion: Suspicion) -> Witness:
        """Data that shows the finding. Raises TooLarge."""
        leaf = self._least(visit.writer) if suspicion.leaf is None else suspicion.leaf[0]
        value = self._whole(visit, leaf)
        binary = encoded(self._writer, self._writer.root, value)
        if len(binary) > WITNESS_BYTES_MAX:
            raise TooLarge("the smallest data that could show it is too large")
        if self._validator is None:
            self._validator = BinaryValidator(self._writer, assert_formats=True)
        if self._validator.check(binary).problems:
            raise TooLarge("the data that should show it is not valid for the writer")
        value = decoded(self._writer, self._writer.root, binary)
        text = json.dumps(as_json(self._writer, self._writer.root, value))
        try:
            read, changed = self._judge.read(value)
        except Rejected:
            return Witness(text, binary)
        if not changed:
            raise TooLarge("the data that should show it is read as it was meant")
        return Witness(text, binary, json.dumps(as_json(self._reader, self._reader.root, read)))

    def _whole(self, visit: Visit, value: Value) -> Value:
        """A datum of the writer that holds a value at the place of a visit. Raises TooLarge."""
        if visit.depth > DEPTH_MAX:
            raise TooLarge("the smallest data that could show it is nested too deep")
        at: Visit | None = visit
        while at is not None and at.above is not None:
            container = at.above.writer
            match at.step, container:
                case int(), Union():
                    value = Chosen(at.step, value)
                case str(), Array():
                    value = [value]
                case str(), Map():
                    value = {"key": value}
                case str(), Record(fields=fields):
                    value = {one.name: value if one.name == at.step else self._least(one.type) for one in fields}
            at = at.above
        return value

    def _least(self, item: Type | Resolved) -> Value:
        if self._smallest is None:
            self._smallest = Smallest(self._writer)
        return self._smallest.value(item)

    def _of_picks(self, visit: Visit, union: Union, writer: Resolved, picked: int) -> Iterator[Suspicion]:
        """A finding when some readers pick another branch, and that one may change the meaning."""
        first = first_match(self._reader, union, writer)
        if first is None or first == picked:
            return
        branch = self._reader.resolve(union.branches[first])
        if isinstance(branch, Primitive) and isinstance(writer, Primitive) and leaf_fault(branch, writer) is None:
            return
        names = described(branch), described(self._reader.resolve(union.branches[picked]))
        message = (
            f"of the reader's union some implementations take {names[0]} for the writer's {described(writer)}, "
            f"as it is the first that matches, and others take {names[1]}"
        )
        found = _finding(visit, "UNION_BRANCH_DEPENDS_ON_READER", message, f"put {names[1]} before {names[0]}")
        yield Suspicion(replace(found, verdict=Verdict.UNDECIDED))

    def _of_fields(self, visit: Visit, reader: Record, writer: Record) -> Iterator[Suspicion]:
        known = by_name(writer)
        self._count(len(reader.fields))
        for index, one in enumerate(reader.fields):
            sources = [name for name in dict.fromkeys((one.name, *one.aliases)) if name in known]
            if len(sources) == 1 or not (sources or one.has_default):
                continue
            place = replace(visit, reader_path=below(reader, visit.reader_path, f"/fields/{index}"))
            if sources:
                yield Suspicion(_ambiguous(place, one, sources))
            else:
                try:
                    self._judge.default(one.type, one.default)
                except Rejected as reason:
                    yield Suspicion(_bad_default(place, one, str(reason)))
                except TooLarge as reason:
                    yield Suspicion(replace(_bad_default(place, one, str(reason)), verdict=Verdict.UNDECIDED))

    def _below(self, visit: Visit) -> Iterator[Visit]:
        """The pairs that reading a pair of types comes to next."""
        match visit.reader, visit.writer:
            case reader, Union(branches=branches):
                self._count(len(branches))
                for index, branch in enumerate(branches):
                    yield self._next(visit, reader, branch, index)
            case Union() as union, writer:
                picked = self._pick(union, writer)
                if picked is not None:
                    yield self._next(visit, union.branches[picked], writer, None)
            case (Array(items=item), Array(items=other)) | (Map(values=item), Map(values=other)):
                yield self._next(visit, item, other, "")
            case Record() as record, Record() as other_record:
                known = by_name(other_record)
                for one in record.fields:
                    source = written(one, known)
                    if source is not None:
                        yield self._next(visit, one.type, source.type, source.name)

    def _next(self, visit: Visit, reader: Type | Resolved, writer: Type | Resolved, step: str | int | None) -> Visit:
        item, other = self._reader.resolve(reader), self._writer.resolve(writer)
        return Visit(
            item,
            other,
            path_of(item, reader, visit.reader_path),
            path_of(other, writer, visit.writer_path),
            visit,
            step,
            visit.depth + (step is not None),
        )

    def _pick(self, union: Union, writer: Resolved) -> int | None:
        self._count(len(union.branches))
        return pick(self._reader, union, writer)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS_MAX:
            raise TooCostly


def _unknown(reader: Resolved, writer: Resolved) -> list[str]:
    assert isinstance(reader, Enum)
    assert isinstance(writer, Enum)
    return [symbol for symbol in writer.symbols if symbol not in reader.known]


def _defaulted(visit: Visit, reader: Enum, writer: Enum) -> Iterator[Suspicion]:
    unknown = _unknown(reader, writer)
    if unknown:
        names = ", ".join(f"`{symbol}`"[:100] for symbol in unknown[:_LISTED_MAX])
        more = f" and {len(unknown) - _LISTED_MAX} more" if len(unknown) > _LISTED_MAX else ""
        message = (
            f"the reader's enum `{reader.name}` takes the writer's {names}{more} for its default `{reader.default}`"
        )
        remedy = "keep the symbols, so that the default stands only for those of the future"
        found = _finding(visit, "ENUM_SYMBOL_READ_AS_DEFAULT", message, remedy)
        paths = below(reader, visit.reader_path, "/default"), below(writer, visit.writer_path, "/symbols")
        yield Suspicion(replace(found, reader_path=paths[0], writer_path=paths[1]), (unknown[0],))


def _missing_branch(visit: Visit, writer: Resolved) -> Finding:
    what = described(writer)
    return _finding(
        visit,
        "MISSING_UNION_BRANCH",
        f"no branch of the reader's union reads {what} of the writer",
        f"add {what} to the reader's union, or keep the branch as it was",
    )


def _ambiguous(visit: Visit, one: Field, sources: list[str]) -> Finding:
    names = " and ".join(f"`{name}`"[:100] for name in sources[:_LISTED_MAX])
    message = (
        f"the reader's field `{one.name}` stands for the writer's {names} at once, by its name and its aliases: some "
        "implementations fail on that, others take the first"
    )
    found = _finding(visit, "AMBIGUOUS_ALIAS", message, "drop the alias as long as data has both fields")
    return replace(found, verdict=Verdict.UNDECIDED)


def _bad_default(visit: Visit, one: Field, reason: str) -> Finding:
    message = f"the reader fills its field `{one.name}` with its default, which its logical type refuses: {reason}"
    return _finding(visit, "DEFAULT_NOT_OF_LOGICAL_TYPE", message, "give the field a default that its type accepts")


def _finding(visit: Visit, rule: str, message: str, remedy: str) -> Finding:
    return Finding(rule, Verdict.INCOMPATIBLE, message, remedy, visit.reader_path, visit.writer_path)
