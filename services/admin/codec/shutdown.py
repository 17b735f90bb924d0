"""Shutdowns as messages of the contract."""

from __future__ import annotations

from llm_schema_registry.admin.v1 import system_pb2
from services.admin.codec import nouns
from services.admin.domain.shutdown import ShutdownRecord


def record(value: ShutdownRecord) -> system_pb2.ShutdownRecord:
    """What a shutdown did."""
    return system_pb2.ShutdownRecord(
        mode=int(value.mode),  # type: ignore[arg-type]  # the same numbers
        replicas=[nouns.outcome(each) for each in value.replicas],
    )
