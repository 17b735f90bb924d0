"""Work that outlives the call that began it, as it is recorded."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

STEPS_MAX = 100


class OperationKind(enum.Enum):
    """What an operation does."""

    BACKUP = "backup"
    VERIFY = "verify"
    PREPARE_RESTORE = "prepare-restore"
    ACTIVATE_RESTORE = "activate-restore"
    REVERT_RESTORE = "revert-restore"
    DRILL = "drill"
    PRUNE = "prune"
    RECOVERY = "recovery"
    SHUTDOWN = "shutdown"
    VACUUM = "vacuum"
    ANALYZE = "analyze"
    REINDEX = "reindex"


class StepState(enum.Enum):
    """Where a step stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. message: what it found or did, for a person."""

    name: str
    state: StepState
    start_time: datetime
    end_time: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the present step is. bytes_total: 0 when unknown. remaining_seconds: None when it cannot be said."""

    bytes_done: int = 0
    bytes_total: int = 0
    rows_done: int = 0
    parts_done: int = 0
    remaining_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an operation ended without a result; what a status of a call would say."""

    code: int
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an operation works on, and its result when it ended well.

    kind: `backup`, `verification`, `restore`, `drill`, `recovery` and the like. id: what it is found by; empty while it
    has none.
    """

    kind: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as it stands. error: set when it ended badly. request_digest: of the request that began it."""

    name: str
    kind: OperationKind
    actor: str
    request_id: str
    instance_id: str
    start_time: datetime
    subject: Subject
    end_time: datetime | None = None
    error: Failed | None = None
    steps: tuple[Step, ...] = ()
    progress: Progress = Progress()
    request_digest: str = ""

    @property
    def done(self) -> bool:
        return self.end_time is not None

    def with_step(self, step: Step) -> Operation:
        """The operation with a step added, or with its newest step replaced when that has the same name and runs."""
        newest = self.steps[-1] if self.steps else None
        if newest is not None and newest.name == step.name and newest.state is StepState.RUNNING:
            return replace(self, steps=(*self.steps[:-1], step))
        return replace(self, steps=(*self.steps, step)[-STEPS_MAX:])


def to_document(operation: Operation) -> dict[str, Any]:
    """The operation as it is stored, of texts, whole numbers, lists and objects."""
    return {
        "name": operation.name,
        "kind": operation.kind.value,
        "actor": operation.actor,
        "request_id": operation.request_id,
        "request_digest": operation.request_digest,
        "instance_id": operation.instance_id,
        "start_time": operation.start_time.isoformat(),
        "end_time": operation.end_time.isoformat() if operation.end_time else None,
        "subject": {"kind": operation.subject.kind, "id": operation.subject.id},
        "error": _failed(operation.error) if operation.error else None,
        "steps": [_step(step) for step in operation.steps],
        "progress": _progress(operation.progress),
    }


def from_document(document: Mapping[str, Any]) -> Operation:
    """The operation of a stored document. Raises ValueError, KeyError or TypeError when it is none."""
    error, end_time = document["error"], document["end_time"]
    return Operation(
        name=str(document["name"]),
        kind=OperationKind(document["kind"]),
        actor=str(document["actor"]),
        request_id=str(document["request_id"]),
        instance_id=str(document["instance_id"]),
        start_time=datetime.fromisoformat(document["start_time"]),
        end_time=datetime.fromisoformat(end_time) if end_time else None,
        subject=Subject(str(document["subject"]["kind"]), str(document["subject"]["id"])),
        error=Failed(int(error["code"]), error["reason"], error["message"], error["metadata"]) if error else None,
        steps=tuple(_read_step(step) for step in document["steps"]),
        progress=_read_progress(document["progress"]),
        request_digest=str(document["request_digest"]),
    )


def _failed(error: Failed) -> dict[str, Any]:
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "metadata": dict(error.metadata),
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state.value,
        "start_time": step.start_time.isoformat(),
        "end_time": step.end_time.isoformat() if step.end_time else None,
        "message": step.message,
    }


def _read_step(document: Mapping[str, Any]) -> Step:
    end_time = document["end_time"]
    return Step(
        name=str(document["name"]),
        state=StepState(document["state"]),
        start_time=datetime.fromisoformat(document["start_time"]),
        end_time=datetime.fromisoformat(end_time) if end_time else None,
        message=str(document["message"]),
    )


def _progress(progress: Progress) -> dict[str, Any]:
    remaining = progress.remaining_seconds
    return {
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "rows_done": progress.rows_done,
        "parts_done": progress.parts_done,
        "remaining_ms": None if remaining is None else round(remaining * 1000),
    }


def _read_progress(document: Mapping[str, Any]) -> Progress:
    remaining = document["remaining_ms"]
    return Progress(
        bytes_done=int(document["bytes_done"]),
        bytes_total=int(document["bytes_total"]),
        rows_done=int(document["rows_done"]),
        parts_done=int(document["parts_done"]),
        remaining_seconds=None if remaining is None else remaining / 1000,
    )
