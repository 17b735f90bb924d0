"""Processes and what was done with them, as messages of the contract."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from llm_schema_registry.admin.v1 import admin_service_pb2, system_pb2
from llm_schema_registry.control.v1 import control_service_pb2, process_pb2
from llm_schema_registry.kernel.messages import duration, timestamp
from services.admin.domain.system import (
    SERVICES,
    Dependency,
    Health,
    MetricPoint,
    Option,
    Process,
    Protection,
    Replica,
    ReplicaOptions,
    SmokeCheck,
    State,
    SystemStatus,
)


def read_process(message: process_pb2.Process) -> Process:
    """A process as it sees itself."""
    return Process(
        service=message.service,
        instance_id=message.instance_id,
        version=message.version,
        commit=message.commit,
        start_time=message.start_time.ToDatetime(tzinfo=UTC),
        uptime_seconds=message.uptime.ToNanoseconds() / 1e9,
        state=State(message.state),
        in_flight=message.in_flight,
        health=Health(message.health),
        dependencies=[_read_dependency(each) for each in message.dependencies],
    )


def process(value: Process) -> process_pb2.Process:
    """The message of a process."""
    return process_pb2.Process(
        service=value.service,
        instance_id=value.instance_id,
        version=value.version,
        commit=value.commit,
        start_time=timestamp(value.start_time),
        uptime=duration(value.uptime_seconds),
        state=int(value.state),  # type: ignore[arg-type]  # the same numbers
        in_flight=value.in_flight,
        health=int(value.health),  # type: ignore[arg-type]  # the same numbers
        dependencies=[_dependency(each) for each in value.dependencies],
    )


def replica(value: Replica) -> system_pb2.Replica:
    """A replica as it was found."""
    return system_pb2.Replica(
        address=value.address.target,
        process=process(value.process) if value.process else None,
        problem=value.problem,
    )


def outcome(value: Replica) -> system_pb2.ReplicaOutcome:
    """What a request did at a replica."""
    return system_pb2.ReplicaOutcome(
        service=value.address.service,
        address=value.address.target,
        process=process(value.process) if value.process else None,
        problem=value.problem,
    )


def replica_config(value: ReplicaOptions) -> admin_service_pb2.ReplicaConfig:
    """The options in force at a replica."""
    options = [
        control_service_pb2.EffectiveOption(option=each.name, value=each.value, source=each.source)
        for each in value.options
    ]
    return admin_service_pb2.ReplicaConfig(address=value.address.target, options=options, problem=value.problem)


def read_options(messages: Iterable[control_service_pb2.EffectiveOption]) -> list[Option]:
    """Options in force."""
    return [Option(each.option, each.value, each.source) for each in messages]


def read_points(messages: Iterable[control_service_pb2.MetricPoint]) -> list[MetricPoint]:
    """Values of metrics."""
    return [
        MetricPoint(each.name, each.kind, each.unit, dict(each.attributes), each.value, each.count) for each in messages
    ]


def status(value: SystemStatus) -> system_pb2.SystemStatus:
    """The whole system."""
    return system_pb2.SystemStatus(
        time=timestamp(value.time),
        health=int(value.health),  # type: ignore[arg-type]  # the same numbers
        services=[
            system_pb2.ServiceStatus(service=name, replicas=[replica(each) for each in value.replicas[name]])
            for name in SERVICES
            if name in value.replicas
        ],
        protection=protection(value.protection) if value.protection else None,
        running_operations=value.running_operations,
        problems=value.problems,
    )


def protection(value: Protection) -> system_pb2.ProtectionStatus:
    """What would be left if the database were lost now."""
    return system_pb2.ProtectionStatus(
        newest_backup_id=value.newest_backup_id,
        newest_backup_time=timestamp(value.newest_backup_time),
        newest_verified_backup_id=value.newest_verified_backup_id,
        newest_verified_backup_time=timestamp(value.newest_verified_backup_time),
        archive_lag=duration(value.archive_lag_seconds),
        recovery_point=duration(value.recovery_point_seconds),
        last_drill_time=timestamp(value.last_drill_time),
        last_drill_passed=value.last_drill_passed,
        recovery_time=duration(value.recovery_seconds),
    )


def smoke_check(value: SmokeCheck) -> system_pb2.SmokeCheck:
    """One thing that was tried."""
    return system_pb2.SmokeCheck(
        name=value.name, passed=value.passed, duration=duration(value.seconds), message=value.message
    )


def read_time(message: Timestamp, *, given: bool) -> datetime | None:
    """A moment; None when it was not given."""
    return message.ToDatetime(tzinfo=UTC) if given else None


def _dependency(value: Dependency) -> process_pb2.Dependency:
    return process_pb2.Dependency(
        name=value.name,
        status=int(value.health),  # type: ignore[arg-type]  # the same numbers
        latency=duration(value.latency_seconds),
        message=value.message,
        check_time=timestamp(value.check_time),
        critical=value.critical,
    )


def _read_dependency(message: process_pb2.Dependency) -> Dependency:
    return Dependency(
        name=message.name,
        health=Health(message.status),
        critical=message.critical,
        latency_seconds=message.latency.ToNanoseconds() / 1e9,
        message=message.message,
        check_time=read_time(message.check_time, given=message.HasField("check_time")),
    )
