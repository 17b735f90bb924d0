"""Data in Avro's JSON encoding, checked against a schema.

Source: Apache Avro 1.12 Specification, "JSON Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.registry.domain.formats import Problem, Validation, json_data
from services.registry.domain.formats.avro import json_scanning, logical
from services.registry.domain.formats.avro.model import (
    Array,
    Fixed,
    Map,
    Primitive,
    Record,
    Resolved,
    Schema,
    Type,
    Union,
)
from services.registry.domain.formats.avro.places import Way, by_label, parts
from services.registry.domain.formats.avro.scalars import scalar_fault
from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.limits import VALIDATION_ERRORS_MAX

_BRANCHES_LISTED_MAX: Final = 20
_VALID: Final = Validation(())


@dataclass(frozen=True, slots=True)
class Place:
    """A value, the type it should be of, its place in the data, and the last place in the schema's text."""

    type: Type
    value: Data
    way: Way
    schema_path: str


class JsonValidator:
    """Checks JSON payloads. Holds no state but the schema: safe to use from many tasks."""

    def __init__(self, schema: Schema, *, assert_formats: bool, strict: bool) -> None:
        self._schema = schema
        self._assert_formats = assert_formats
        self._strict = strict
        self._fits = json_scanning.scanner(schema, assert_formats=assert_formats, strict=strict)
        self._branches: dict[Union, Mapping[str, Type]] = {}

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check.

        A record must have all its fields, also those with defaults; other members are passed over unless `strict`, as
        lenient decoders do. An object in which a name stands twice cannot be read.
        """
        value = json_data.read(data, unique_names=True)
        if self._fits is not None and self._fits(value, 0):
            return _VALID
        return self.explain(value)

    def explain(self, value: Data) -> Validation:
        """What is wrong with a value, found without the closures that tell plainly valid data."""
        found = list(islice(self._problems(value), VALIDATION_ERRORS_MAX + 1))
        return Validation(tuple(found[:VALIDATION_ERRORS_MAX]), truncated=len(found) > VALIDATION_ERRORS_MAX)

    def _problems(self, value: Data) -> Iterator[Problem]:
        """Problems in the order of the data, without recursion."""
        open_places = [Place(self._schema.root, value, None, "")]
        while open_places:
            place = open_places.pop()
            item = self._schema.resolve(place.type)
            path = next((one for one in (item.path, place.type.path) if one is not None), place.schema_path)
            below: list[Place] = []
            for keyword, way, message in self._faults(item, place, path, below):
                yield Problem(pointer(parts(way)), path, keyword, message)
            open_places.extend(reversed(below))

    def _faults(self, item: Resolved, place: Place, path: str, below: list[Place]) -> Iterator[tuple[str, Way, str]]:
        """Keyword, place in the data and message of what is wrong with one value; its inner values go to `below`."""
        value, way = place.value, place.way
        match item:
            case Union():
                message = self._union(item, place, path, below)
            case Record() if isinstance(value, dict):
                below += [Place(f.type, value[f.name], (way, f.name), path) for f in item.fields if f.name in value]
                yield from _member_faults(item, value, way, strict=self._strict)
                return
            case Map(values=inner) if isinstance(value, dict):
                below += [Place(inner, member, (way, name), path) for name, member in value.items()]
                return
            case Array(items=inner) if isinstance(value, list):
                below += [Place(inner, member, (way, index), path) for index, member in enumerate(value)]
                return
            case _:
                message = scalar_fault(item, value)
                if message is None and self._assert_formats and isinstance(item, Primitive | Fixed) and item.logical:
                    message = _logical_fault(item.logical, item.kind, value)
                    if message is not None:
                        yield item.logical.name, way, message
                        return
        if message is not None:
            yield item.kind, way, message

    def _union(self, union: Union, place: Place, path: str, below: list[Place]) -> str | None:
        branches = self._by_label(union)
        value = place.value
        if value is None and "null" in branches:
            return None
        if isinstance(value, dict) and len(value) == 1:
            (label,) = value
            if label in branches and label != "null":
                below.append(Place(branches[label], value[label], (place.way, label), path))
                return None
        labels = [f"`{label}`" for label in branches if label != "null"]
        more = ", …" if len(labels) > _BRANCHES_LISTED_MAX else ""
        null = "null, or " if "null" in branches else ""
        if not labels:
            return "must be null" if null else "fits nothing, as the union is empty"
        names = ", ".join(labels[:_BRANCHES_LISTED_MAX])
        return f"must be {null}an object whose one member is named after the branch: {names}{more}"

    def _by_label(self, union: Union) -> Mapping[str, Type]:
        kept = self._branches.get(union)
        if kept is None:
            kept = self._branches[union] = by_label(self._schema, union)
        return kept


def _member_faults(
    record: Record, value: Mapping[str, Data], way: Way, *, strict: bool
) -> Iterator[tuple[str, Way, str]]:
    names = {field.name for field in record.fields}
    for field in record.fields:
        if field.name not in value:
            hint = "; its default serves readers only" if field.has_default else ""
            yield record.kind, way, f"lacks the field `{field.name}`{hint}"
    for name in value if strict else ():
        if name not in names:
            yield record.kind, (way, name), f"is no field of `{record.name}`"


def _logical_fault(annotation: logical.Logical, kind: str, value: Data) -> str | None:
    if isinstance(value, int):
        return logical.fault_of_number(annotation, value)
    if isinstance(value, str) and kind == "string":
        return logical.fault_of_string(value)
    if isinstance(value, str):
        return logical.fault_of_bytes(annotation, value.encode("latin-1"))
    return None
