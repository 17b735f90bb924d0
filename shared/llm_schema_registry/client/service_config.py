"""The gRPC service config that the contract's method policies ask for.

Source: gRFC A2 (service config), A6 (client retries), grpc/doc/service_config.md (2026-11).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from llm_schema_registry.admin.v1 import admin_service_pb2, maintenance_service_pb2, recovery_service_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2, restore_service_pb2
from llm_schema_registry.common.v1 import method_policy_pb2
from llm_schema_registry.control.v1 import control_service_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2
from llm_schema_registry.registry.v1 import (
    change_service_pb2,
    compatibility_service_pb2,
    schema_service_pb2,
    subject_service_pb2,
    validation_service_pb2,
)

ATTEMPTS_MAX = 5
"""The most that gRPC allows. With the waits between them they outlast channel.RECONNECT_SECONDS_MAX, so that a call
which found no replica is repeated after the next attempt to connect."""
BACKOFF_SECONDS = 0.1
BACKOFF_MULTIPLIER = 3
BACKOFF_SECONDS_MAX = 1.0
RETRIED_CODES = ["UNAVAILABLE", "CANCELLED"]
"""CANCELLED is what gRPC's server tells calls that it has received and not begun when it stops (grpcio 1.85), and those
that are left after the grace. A call that its own caller cancels is not repeated."""

_FILES = (
    admin_service_pb2,
    backup_service_pb2,
    change_service_pb2,
    compatibility_service_pb2,
    control_service_pb2,
    maintenance_service_pb2,
    operation_service_pb2,
    recovery_service_pb2,
    restore_service_pb2,
    schema_service_pb2,
    subject_service_pb2,
    validation_service_pb2,
)


def services() -> Iterator[ServiceDescriptor]:
    """Every service of the contract."""
    for file in _FILES:
        yield from file.DESCRIPTOR.services_by_name.values()


def policy(method: MethodDescriptor) -> method_policy_pb2.MethodPolicy:
    """The method's policy; an empty one for a method without."""
    return method.GetOptions().Extensions[method_policy_pb2.policy]


def default_deadlines() -> Iterator[tuple[str, float]]:
    """(full name, seconds) of every method that has a default deadline."""
    for service in services():
        for method in service.methods:
            seconds = _seconds(policy(method))
            if seconds:
                yield f"{service.full_name}/{method.name}", seconds


def service_config(described: Iterable[ServiceDescriptor] | None = None) -> str:
    """JSON: round robin, and repeats for the methods that are safe to repeat.

    Repeated are calls that end UNAVAILABLE, and those that the server ended CANCELLED: up to ATTEMPTS_MAX attempts,
    BACKOFF_SECONDS growing up to BACKOFF_SECONDS_MAX between them, all within the deadline. Deadlines are not in it:
    one here could not be exceeded by a caller who allows more (channel.Defaults sets them).
    """
    methods = [
        _method(service, method)
        for service in (services() if described is None else described)
        for method in service.methods
    ]
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": methods})


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> dict[str, object]:
    rules = policy(method)
    config: dict[str, object] = {"name": [{"service": service.full_name, "method": method.name}]}
    if rules.retryable:
        config["retryPolicy"] = {
            "maxAttempts": ATTEMPTS_MAX,
            "initialBackoff": f"{BACKOFF_SECONDS:g}s",
            "maxBackoff": f"{BACKOFF_SECONDS_MAX:g}s",
            "backoffMultiplier": BACKOFF_MULTIPLIER,
            "retryableStatusCodes": RETRIED_CODES,
        }
    return config


def _seconds(rules: method_policy_pb2.MethodPolicy) -> float:
    deadline = rules.default_deadline
    return float(deadline.seconds + deadline.nanos / 1e9)
