"""The registry's database as it is kept in order: sizes, bloat, statistics, what runs for long, what was done."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

QUERY_CHARACTERS_MAX = 500
_LITERAL = re.compile(
    r"""
    \$(?P<tag>[A-Za-z_]\w*|)\$ .*? (?: \$(?P=tag)\$ | \Z)   # a dollar-quoted text, also one that is cut off
    | (?<![A-Za-z0-9_]) [eE] ' (?: [^'\\] | '' | \\. )* (?: ' | \Z)
    | ' (?: [^'] | '' )* (?: ' | \Z)
    | -- [^\n]* | /\* .*? (?: \*/ | \Z)                     # what a comment says may be a value too
    | "(?P<name>[^"]*)(?:"|\Z)                              # a quoted name stays
    | (?<![\w$.]) \d+ (?: \.\d+ )? (?: [eE][+-]?\d+ )?
    """,
    re.VERBOSE | re.DOTALL,
)
"""Where values stand in SQL. Source: PostgreSQL 17 documentation, 4.1.2, constants."""


class Verb(enum.Enum):
    """What is done to tables or indexes."""

    VACUUM = "vacuum"
    ANALYZE = "analyze"
    REINDEX = "reindex"


@dataclass(frozen=True, slots=True)
class StoredSize:
    """What a table or index takes. Rows: as PostgreSQL estimates; 0 for an index."""

    total_bytes: int
    live_rows: int = 0
    dead_rows: int = 0


@dataclass(frozen=True, slots=True)
class Maintained:
    """One table or index, before and after. after: None when it was passed over. problem: why."""

    name: str
    index: bool
    before: StoredSize
    after: StoredSize | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MaintenanceRecord:
    """What was done so far, in order.

    dropped: invalid indexes, of rebuilds that did not end. left: those that a transaction kept from being dropped.
    """

    verb: Verb
    objects: tuple[Maintained, ...] = ()
    dropped: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bloat:
    """What a table or index takes beyond its need. bloat_bytes: None when there are no statistics of it."""

    name: str
    table: str
    index: bool
    total_bytes: int
    bloat_bytes: int | None


@dataclass(frozen=True, slots=True)
class TableStats:
    """What PostgreSQL counted of a table since its statistics began."""

    name: str
    size: StoredSize
    sequential_scans: int
    index_scans: int
    last_vacuum_time: datetime | None
    last_analyze_time: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """What PostgreSQL counted of the database since its statistics began. tables: the largest first."""

    database: str
    server_version: str
    total_bytes: int
    connections: int
    connections_max: int
    cache_hit_ratio: float
    commits: int
    rollbacks: int
    deadlocks: int
    stats_since: datetime | None
    oldest_transaction_age: int
    tables: Sequence[TableStats] = field(default=())


@dataclass(frozen=True, slots=True)
class LongQuery:
    """What a session runs, or leaves its transaction open with. blocked_by: sessions that it waits for."""

    pid: int
    application: str
    seconds: float
    state: str
    wait: str
    text: str
    blocked_by: Sequence[int]


def without_values(text: str) -> str:
    """The beginning of a statement, each value in it as `?`, in one line."""

    def replaced(found: re.Match[str]) -> str:
        if found["name"] is not None:
            return found[0]
        return " " if found[0].startswith(("--", "/*")) else "?"

    return " ".join(_LITERAL.sub(replaced, text).split())[:QUERY_CHARACTERS_MAX]


def to_document(record: MaintenanceRecord) -> dict[str, Any]:
    """The record as it is stored."""
    return {
        "verb": record.verb.value,
        "objects": [
            {
                "name": each.name,
                "index": each.index,
                "before": _sized(each.before),
                "after": _sized(each.after) if each.after else None,
                "seconds": each.seconds,
                "problem": each.problem,
            }
            for each in record.objects
        ],
        "dropped": list(record.dropped),
        "left": list(record.left),
    }


def from_document(document: Mapping[str, Any]) -> MaintenanceRecord:
    """The record of a stored document. Raises ValueError, KeyError or TypeError when it is none."""
    objects = [
        Maintained(
            name=str(each["name"]),
            index=bool(each["index"]),
            before=_read_size(each["before"]),
            after=_read_size(each["after"]) if each["after"] else None,
            seconds=float(each["seconds"]),
            problem=str(each["problem"]),
        )
        for each in document["objects"]
    ]
    dropped, left = (tuple(map(str, document[key])) for key in ("dropped", "left"))
    return MaintenanceRecord(Verb(document["verb"]), tuple(objects), dropped, left)


def _sized(size: StoredSize) -> list[int]:
    return [size.total_bytes, size.live_rows, size.dead_rows]


def _read_size(values: Sequence[Any]) -> StoredSize:
    total_bytes, live_rows, dead_rows = map(int, values)
    return StoredSize(total_bytes, live_rows, dead_rows)
