"""The database and what was done to it, as messages of the contract."""

from __future__ import annotations

from llm_schema_registry.admin.v1 import maintenance_pb2 as pb
from llm_schema_registry.kernel.messages import duration, timestamp
from services.admin.domain.maintenance import (
    Bloat,
    DatabaseStats,
    LongQuery,
    Maintained,
    MaintenanceRecord,
    StoredSize,
    TableStats,
)


def record(value: MaintenanceRecord) -> pb.MaintenanceRecord:
    """What was done."""
    objects = [_maintained(each) for each in value.objects]
    return pb.MaintenanceRecord(
        verb=value.verb.value, objects=objects, dropped_indexes=value.dropped, left_indexes=value.left
    )


def bloat(value: Bloat) -> pb.Bloat:
    """What a table or index takes beyond its need."""
    return pb.Bloat(
        name=value.name,
        table=value.table,
        index=value.index,
        total_bytes=value.total_bytes,
        bloat_bytes=value.bloat_bytes,
    )


def stats(value: DatabaseStats) -> pb.DatabaseStats:
    """What the server counted."""
    return pb.DatabaseStats(
        database=value.database,
        server_version=value.server_version,
        total_bytes=value.total_bytes,
        connections=value.connections,
        connections_max=value.connections_max,
        cache_hit_ratio=value.cache_hit_ratio,
        commits=value.commits,
        rollbacks=value.rollbacks,
        deadlocks=value.deadlocks,
        stats_since=timestamp(value.stats_since),
        oldest_transaction_age=value.oldest_transaction_age,
        tables=[_table(each) for each in value.tables],
    )


def long_query(value: LongQuery) -> pb.LongQuery:
    """What runs for long."""
    return pb.LongQuery(
        pid=value.pid,
        application=value.application,
        duration=duration(value.seconds),
        state=value.state,
        wait=value.wait,
        text=value.text,
        blocked_by=value.blocked_by,
    )


def _maintained(value: Maintained) -> pb.MaintainedObject:
    return pb.MaintainedObject(
        name=value.name,
        before=_size(value.before),
        after=_size(value.after) if value.after else None,
        duration=duration(value.seconds),
        problem=value.problem,
        index=value.index,
    )


def _table(value: TableStats) -> pb.TableStats:
    return pb.TableStats(
        name=value.name,
        size=_size(value.size),
        sequential_scans=value.sequential_scans,
        index_scans=value.index_scans,
        last_vacuum_time=timestamp(value.last_vacuum_time),
        last_analyze_time=timestamp(value.last_analyze_time),
    )


def _size(value: StoredSize) -> pb.StoredSize:
    return pb.StoredSize(total_bytes=value.total_bytes, live_rows=value.live_rows, dead_rows=value.dead_rows)
