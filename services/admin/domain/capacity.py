"""What the system uses: figures over time, as they are taken, kept and put together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

KEEP_DAYS = 400
FINE_DAYS = 7
"""Days for which every sample is kept; of older ones one an hour."""
SECONDS_PER_DAY = 86_400
COARSE_SECONDS = 3600
ROWS_MAX = 8640
"""Of one day: one every ten seconds."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that is used. most: the largest value there can be, None for no such. peak: of several figures the
    largest counts, instead of their mean."""

    name: str
    unit: str
    most: float | None = None
    peak: bool = False


REQUESTS = Resource("requests_per_second", "1/s")
PEAK = Resource("requests_per_second_peak", "1/s", peak=True)
FAILURES = Resource("errors_per_second", "1/s")
CPU = Resource("cpu_cores", "{core}")
MEMORY = Resource("memory_bytes", "By")
CACHE = Resource("cache_hit_ratio", "1", most=1.0)
POOL = Resource("pool_connections", "{connection}")
REPLICAS = Resource("replicas", "{replica}")
DATABASE = Resource("database_bytes", "By")
VERSIONS = Resource("versions", "{version}")
CHANGES = Resource("changes", "{change}")
OBJECTS = Resource("object_store_bytes", "By")
RESOURCES = (
    REQUESTS, PEAK, FAILURES, CPU, MEMORY, CACHE, POOL, REPLICAS, DATABASE, VERSIONS, CHANGES, OBJECTS
)  # fmt: skip
"""Requests, errors, processor, memory, cache, pool and replicas are those of the registry service."""
_BY_NAME = {each.name: each for each in RESOURCES}


@dataclass(frozen=True, slots=True)
class Figure:
    """One value at one moment."""

    time: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What was found at one moment, by the resource's name; what could not be found is not there."""

    time: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the database says of itself. table_bytes: of the registry's tables alone."""

    database_bytes: int
    table_bytes: int
    versions: int
    changes: int


@dataclass(frozen=True, slots=True)
class Written:
    """Changes and bytes of their content up to the end of a stretch of time."""

    time: datetime
    changes: int
    payload_bytes: int


def series(samples: Iterable[Sample], name: str) -> list[Figure]:
    """One resource over time."""
    return [Figure(each.time, each.values[name]) for each in samples if name in each.values]


def coarse(samples: Sequence[Sample], seconds: int = COARSE_SECONDS) -> list[Sample]:
    """One sample for each stretch of time: the mean of those in it, or their peak. A repeat changes nothing."""
    stretches: dict[int, list[Sample]] = {}
    for each in samples:
        stretches.setdefault(int(each.time.timestamp()) // seconds, []).append(each)
    return [_together(each) for _, each in sorted(stretches.items())]


def thinned(figures: Sequence[Figure], count_max: int) -> list[Figure]:
    """At most so many figures, oldest first: each the median of its stretch of time."""
    if len(figures) <= count_max:
        return list(figures)
    start = figures[0].time
    width = (figures[-1].time - start) / count_max
    stretches: dict[int, list[Figure]] = {}
    for each in figures:
        stretches.setdefault(min(int((each.time - start) / width), count_max - 1), []).append(each)
    return [_median(each) for each in stretches.values()]


def by_stretch(figures: Sequence[Figure], width: timedelta) -> list[Figure]:
    """The median of each stretch of time that has figures, oldest first."""
    stretches: dict[int, list[Figure]] = {}
    for each in figures:
        stretches.setdefault(int(each.time.timestamp() // width.total_seconds()), []).append(each)
    return [_median(each) for _, each in sorted(stretches.items())]


def database_figures(usage: Usage, written: Sequence[Written]) -> list[Figure]:
    """What the database took, reckoned back from now: its tables grew as the content of the changes did.

    An estimate: indexes and dead rows count as if they had grown alike, and what retention removed is not seen.
    """
    total_bytes = written[-1].payload_bytes if written else 0
    if not total_bytes:
        return []
    empty = usage.database_bytes - usage.table_bytes
    return [Figure(each.time, empty + usage.table_bytes * each.payload_bytes / total_bytes) for each in written]


def to_document(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples as they are stored."""
    rows = [
        [int(each.time.timestamp()), {key: _short(value) for key, value in each.values.items()}] for each in samples
    ]
    return {"rows": rows}


def from_document(document: Mapping[str, Any]) -> list[Sample]:
    """The samples of a stored document, oldest first; names that this version does not know are left out.

    Raises ValueError, KeyError or TypeError when it is none.
    """
    found = [
        Sample(
            datetime.fromtimestamp(int(seconds), UTC),
            {key: float(value) for key, value in values.items() if key in _BY_NAME},
        )
        for seconds, values in document["rows"]
    ]
    return sorted(found, key=lambda each: each.time)


def _together(samples: Sequence[Sample]) -> Sample:
    values: dict[str, float] = {}
    for name, resource in _BY_NAME.items():
        found = [each.values[name] for each in samples if name in each.values]
        if found:
            values[name] = max(found) if resource.peak else statistics.fmean(found)
    return Sample(samples[0].time, values)


def _median(figures: Sequence[Figure]) -> Figure:
    return Figure(figures[len(figures) // 2].time, statistics.median(each.value for each in figures))


def _short(value: float) -> float:
    """Six digits are plenty, and a year of them has to be read at once."""
    return float(f"{value:.6g}") if abs(value) < 1e6 else float(round(value))
