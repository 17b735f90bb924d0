"""Recoveries as their journal holds them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.admin.domain.recovery import (
    NAMES,
    Loss,
    Place,
    Recovery,
    RecoveryState,
    Safety,
    Spec,
    Step,
    StepName,
    StepState,
    Target,
    TargetKind,
    Traffic,
)
from services.admin.domain.system import State


def to_document(recovery: Recovery) -> dict[str, Any]:
    """The journal's entry, of texts, numbers, lists and objects."""
    return {
        "id": recovery.id,
        "number": recovery.number,
        "state": recovery.state.name,
        "spec": _spec(recovery.spec),
        "actor": recovery.actor,
        "start_time": recovery.start_time.isoformat(),
        "end_time": _time(recovery.end_time),
        "steps": [_step(each) for each in recovery.steps],
        "backup_id": recovery.backup_id,
        "safety_backup_id": recovery.safety_backup_id,
        "restore_id": recovery.restore_id,
        "loss": _loss(recovery.loss),
        "modes": {address: mode.name for address, mode in recovery.modes.items()},
        "left": {address: mode.name for address, mode in recovery.left.items()},
        "fence_time": _time(recovery.fence_time),
        "place_time": _time(recovery.place_time),
        "archived_time": _time(recovery.archived_time),
        "epoch": recovery.epoch,
        "write_outage_seconds": recovery.write_outage_seconds,
        "write_pause_seconds": recovery.write_pause_seconds,
        "recovery_seconds": recovery.recovery_seconds,
        "recovery_point_seconds": recovery.recovery_point_seconds,
        "problem": recovery.problem,
    }


def from_document(document: Mapping[str, Any]) -> Recovery:
    """A recovery of a journal's entry. Raises ValueError, KeyError or TypeError when it is none."""
    steps = tuple(_read_step(each) for each in document["steps"])
    if tuple(each.name for each in steps) != NAMES:
        raise ValueError("the steps are not those of a recovery")
    loss = document["loss"]
    return Recovery(
        id=str(document["id"]),
        number=int(document["number"]),
        state=RecoveryState[document["state"]],
        spec=_read_spec(document["spec"]),
        actor=str(document["actor"]),
        start_time=datetime.fromisoformat(document["start_time"]),
        end_time=_read_time(document["end_time"]),
        steps=steps,
        backup_id=str(document["backup_id"]),
        safety_backup_id=str(document["safety_backup_id"]),
        restore_id=str(document["restore_id"]),
        loss=_read_loss(loss) if loss else None,
        modes=_read_modes(document["modes"]),
        left=_read_modes(document.get("left", {})),
        fence_time=_read_time(document["fence_time"]),
        place_time=_read_time(document["place_time"]),
        archived_time=_read_time(document.get("archived_time")),
        epoch=int(document["epoch"]),
        write_outage_seconds=document["write_outage_seconds"],
        write_pause_seconds=document["write_pause_seconds"],
        recovery_seconds=document["recovery_seconds"],
        recovery_point_seconds=document["recovery_point_seconds"],
        problem=str(document["problem"]),
    )


def _read_modes(document: Mapping[str, str]) -> Mapping[str, State]:
    return {str(address): State[mode] for address, mode in document.items()}


def _spec(spec: Spec) -> dict[str, Any]:
    target = spec.target
    return {
        "target": {
            "kind": target.kind.value,
            "backup_id": target.backup_id,
            "time": _time(target.time),
            "place": _place(target.place),
        },
        "traffic": spec.traffic.name,
        "safety": spec.safety.name,
        "confirmation": spec.confirmation,
        "cause": spec.cause,
    }


def _read_spec(document: Mapping[str, Any]) -> Spec:
    target, place = document["target"], document["target"]["place"]
    return Spec(
        target=Target(
            TargetKind(target["kind"]),
            str(target["backup_id"]),
            _read_time(target["time"]),
            _read_place(place) if place else None,
        ),
        traffic=Traffic[document["traffic"]],
        safety=Safety[document["safety"]],
        confirmation=str(document["confirmation"]),
        cause=str(document["cause"]),
    )


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name.value,
        "state": step.state.name,
        "start_time": _time(step.start_time),
        "end_time": _time(step.end_time),
        "message": step.message,
        "attempts": step.attempts,
        "estimate_seconds": step.estimate_seconds,
    }


def _read_step(document: Mapping[str, Any]) -> Step:
    return Step(
        name=StepName(document["name"]),
        state=StepState[document["state"]],
        start_time=_read_time(document["start_time"]),
        end_time=_read_time(document["end_time"]),
        message=str(document["message"]),
        attempts=int(document["attempts"]),
        estimate_seconds=document["estimate_seconds"],
    )


def _loss(loss: Loss | None) -> dict[str, Any] | None:
    if loss is None:
        return None
    return {
        "readable": loss.readable,
        "live": _place(loss.live),
        "changes": loss.changes,
        "confirmation": loss.confirmation,
        "first_time": _time(loss.first_time),
        "last_time": _time(loss.last_time),
    }


def _read_loss(document: Mapping[str, Any]) -> Loss:
    return Loss(
        readable=bool(document["readable"]),
        live=_read_place(document["live"]),
        changes=int(document["changes"]),
        confirmation=str(document["confirmation"]),
        first_time=_read_time(document["first_time"]),
        last_time=_read_time(document["last_time"]),
    )


def _place(place: Place | None) -> dict[str, int] | None:
    return None if place is None else {"epoch": place.epoch, "position": place.position}


def _read_place(document: Mapping[str, Any]) -> Place:
    return Place(int(document["epoch"]), int(document["position"]))


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
