"""The database, and what was done to it, as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.admin.v1 import maintenance_pb2
from llm_schema_registry.cli.messages import moment, seconds
from llm_schema_registry.cli.output import Output
from llm_schema_registry.cli.progress import size

DONE_COLUMNS = ("name", "before", "after", "given back", "dead before", "dead after", "took", "problem")
BLOAT_COLUMNS = ("name", "table", "kind", "size", "bloat", "share")
TABLE_COLUMNS = ("table", "size", "rows", "dead", "scans", "index scans", "vacuumed", "analyzed")
QUERY_COLUMNS = ("pid", "for", "state", "waits for", "blocked by", "application", "text")


def tell_record(output: Output, record: maintenance_pb2.MaintenanceRecord) -> None:
    """Writes a table of what was done, and indexes that were dropped or could not be."""
    output.table(DONE_COLUMNS, done_rows(record.objects), whole=1)
    for name in record.dropped_indexes:
        output.note(f"Dropped {name}: a rebuild that did not end had left it.")
    for name in record.left_indexes:
        output.note(f"{name} is not finished, and an open transaction keeps it: the next run drops it.")


def done_rows(objects: Iterable[maintenance_pb2.MaintainedObject]) -> Iterator[Sequence[object]]:
    """Rows under DONE_COLUMNS."""
    for one in objects:
        before, after = one.before, one.after
        done = one.HasField("after")
        counted = not one.index
        yield (
            one.name,
            size(before.total_bytes),
            size(after.total_bytes) if done else "",
            size(max(0, before.total_bytes - after.total_bytes)) if done else "",
            f"{before.dead_rows:,}" if counted else "",
            f"{after.dead_rows:,}" if counted and done else "",
            f"{seconds(one.duration):.2f} s",
            one.problem,
        )


def bloat_rows(bloats: Iterable[maintenance_pb2.Bloat]) -> Iterator[Sequence[object]]:
    """Rows under BLOAT_COLUMNS; nothing where there is no estimate."""
    for one in bloats:
        known = one.HasField("bloat_bytes")
        share = f"{one.bloat_bytes / one.total_bytes:.0%}" if known and one.total_bytes else ""
        kind = "index" if one.index else "table"
        yield one.name, one.table, kind, size(one.total_bytes), size(one.bloat_bytes) if known else "", share


def stats_record(stats: maintenance_pb2.DatabaseStats) -> Iterator[tuple[str, object]]:
    """The database's facts."""
    yield "database", stats.database
    yield "PostgreSQL", stats.server_version
    yield "size", size(stats.total_bytes)
    yield "connections", f"{stats.connections} of {stats.connections_max}"
    yield "cache hits", f"{stats.cache_hit_ratio:.1%}"
    yield "commits", f"{stats.commits:,}"
    yield "rollbacks", f"{stats.rollbacks:,}"
    yield "deadlocks", f"{stats.deadlocks:,}"
    if stats.HasField("stats_since"):
        yield "counted since", moment(stats.stats_since)
    yield "oldest transaction", f"{stats.oldest_transaction_age:,} transactions ago"


def table_rows(tables: Iterable[maintenance_pb2.TableStats]) -> Iterator[Sequence[object]]:
    """Rows under TABLE_COLUMNS."""
    for one in tables:
        yield (
            one.name,
            size(one.size.total_bytes),
            f"{one.size.live_rows:,}",
            f"{one.size.dead_rows:,}",
            f"{one.sequential_scans:,}",
            f"{one.index_scans:,}",
            moment(one.last_vacuum_time),
            moment(one.last_analyze_time),
        )


def query_rows(queries: Iterable[maintenance_pb2.LongQuery]) -> Iterator[Sequence[object]]:
    """Rows under QUERY_COLUMNS."""
    for one in queries:
        blocked = ", ".join(map(str, one.blocked_by))
        yield one.pid, f"{seconds(one.duration):.1f} s", one.state, one.wait, blocked, one.application, one.text
