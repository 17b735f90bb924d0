"""What a shutdown did so far, and what is left of it, as it is kept."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.admin.domain.system import Address, Health, Process, Replica, State


class ShutdownMode(enum.IntEnum):
    """How several processes are stopped; numbers of admin/v1/system.proto."""

    ROLLING = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class ShutdownRecord:
    """What a shutdown did. replicas: in the order in which they were stopped.

    pending: where a process is being restarted that does the rest itself once it serves, and the id of the one before.
    """

    operation: str
    mode: ShutdownMode
    replicas: tuple[Replica, ...] = ()
    pending: tuple[Address, str] | None = None

    def with_replica(self, replica: Replica) -> ShutdownRecord:
        """The record with what was done at one more replica; nothing is pending then."""
        return replace(self, replicas=(*self.replicas, replica), pending=None)


def to_document(record: ShutdownRecord) -> dict[str, Any]:
    """The record as it is stored, of texts, numbers, lists and objects."""
    pending = record.pending
    return {
        "operation": record.operation,
        "mode": record.mode.name,
        "replicas": [_replica(each) for each in record.replicas],
        "pending": {**_address(pending[0]), "instance_id": pending[1]} if pending else None,
    }


def from_document(document: Mapping[str, Any]) -> ShutdownRecord:
    """The record of a stored document. Raises ValueError, KeyError or TypeError when it is none."""
    pending = document["pending"]
    return ShutdownRecord(
        operation=str(document["operation"]),
        mode=ShutdownMode[document["mode"]],
        replicas=tuple(_read_replica(each) for each in document["replicas"]),
        pending=(_read_address(pending), str(pending["instance_id"])) if pending else None,
    )


def _address(address: Address) -> dict[str, Any]:
    return {"service": address.service, "target": address.target}


def _read_address(document: Mapping[str, Any]) -> Address:
    return Address(str(document["service"]), str(document["target"]))


def _replica(replica: Replica) -> dict[str, Any]:
    """Without the dependencies: they are of the moment."""
    process = replica.process
    told = None
    if process is not None:
        told = {
            "instance_id": process.instance_id,
            "version": process.version,
            "commit": process.commit,
            "start_time": process.start_time.isoformat(),
            "uptime_seconds": process.uptime_seconds,
            "state": process.state.name,
            "in_flight": process.in_flight,
            "health": process.health.name,
        }
    return {**_address(replica.address), "process": told, "problem": replica.problem}


def _read_replica(document: Mapping[str, Any]) -> Replica:
    address, told = _read_address(document), document["process"]
    if told is None:
        return Replica(address, None, str(document["problem"]))
    process = Process(
        service=address.service,
        instance_id=str(told["instance_id"]),
        version=str(told["version"]),
        commit=str(told["commit"]),
        start_time=datetime.fromisoformat(told["start_time"]),
        uptime_seconds=float(told["uptime_seconds"]),
        state=State[told["state"]],
        in_flight=int(told["in_flight"]),
        health=Health[told["health"]],
    )
    return Replica(address, process, str(document["problem"]))
