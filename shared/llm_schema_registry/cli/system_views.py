"""Processes of the system as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.admin.v1 import system_pb2
from llm_schema_registry.cli.messages import label, moment, seconds
from llm_schema_registry.cli.output import Output
from llm_schema_registry.cli.progress import duration

COLUMNS = ("service", "address", "state", "health", "in flight", "uptime", "version", "instance", "problem")
OUTCOME_COLUMNS = ("service", "address", "state", "instance", "problem")


def tell_status(output: Output, status: system_pb2.SystemStatus) -> None:
    """Writes the status: every replica, then what would be left of the data, then what is wrong."""
    output.table(COLUMNS, _replicas(status))
    output.text()
    output.record(_facts(status))
    if status.problems:
        output.text("\nProblems:\n" + "\n".join(f"  {problem}" for problem in status.problems))


def outcomes(replicas: Iterable[system_pb2.ReplicaOutcome]) -> Iterator[Sequence[object]]:
    """Rows under OUTCOME_COLUMNS."""
    for one in replicas:
        there = one.HasField("process")
        state = label(one.process, "state") if there else ""
        yield one.service, one.address, state, one.process.instance_id, one.problem


def _replicas(status: system_pb2.SystemStatus) -> Iterator[Sequence[object]]:
    for service in status.services:
        if not service.replicas:
            yield service.service, *[""] * (len(COLUMNS) - 2), "no address"
        for one in service.replicas:
            process = one.process
            if not one.HasField("process"):
                yield service.service, one.address, *[""] * (len(COLUMNS) - 3), one.problem
                continue
            facts = (label(process, "state"), label(process, "health"), process.in_flight)
            known = (duration(seconds(process.uptime)), process.version, process.instance_id)
            yield service.service, one.address, *facts, *known, one.problem


def _facts(status: system_pb2.SystemStatus) -> Iterator[tuple[str, object]]:
    yield "health", label(status, "health")
    if status.HasField("protection"):
        yield from _protection(status.protection)
    if status.running_operations:
        yield "running", ", ".join(status.running_operations)


def _protection(found: system_pb2.ProtectionStatus) -> Iterator[tuple[str, object]]:
    yield "newest backup", f"{found.newest_backup_id} {moment(found.newest_backup_time)}".strip()
    yield "newest verified", f"{found.newest_verified_backup_id} {moment(found.newest_verified_backup_time)}".strip()
    if found.HasField("archive_lag"):
        yield "archive behind by", duration(seconds(found.archive_lag))
    if found.HasField("recovery_point"):
        yield "lost if it ended now", duration(seconds(found.recovery_point))
    if found.HasField("last_drill_time"):
        passed = "passed" if found.last_drill_passed else "failed"
        took = duration(seconds(found.recovery_time))
        yield "last drill", f"{moment(found.last_drill_time)} {passed}, recovery took {took}"
