"""Recoveries as messages of the contract, and what the backup service says of restores as the domain's words."""

from __future__ import annotations

from datetime import UTC, datetime

from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.kernel.messages import duration, timestamp
from services.admin.codec.nouns import read_time
from services.admin.domain.recovery import (
    NAMES,
    PLANS,
    Loss,
    Place,
    Recovery,
    Spec,
    Step,
    Target,
    TargetKind,
)
from services.admin.domain.restoring import Live, Outlook, RestoreFacts, RestoreState


def recovery(value: Recovery) -> recovery_pb2.Recovery:
    """The message of a recovery."""
    return recovery_pb2.Recovery(
        id=value.id,
        state=value.state.value,  # type: ignore[arg-type]  # the same numbers
        spec=_spec(value.spec),
        actor=value.actor,
        steps=[_step(each) for each in value.steps],
        backup_id=value.backup_id,
        safety_backup_id=value.safety_backup_id,
        restore_id=value.restore_id,
        loss_window=_loss(value.loss) if value.loss else None,
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        write_outage=duration(value.write_outage_seconds),
        write_pause=duration(value.write_pause_seconds),
        recovery_time=duration(value.recovery_seconds),
        recovery_point=duration(value.recovery_point_seconds),
        problem=value.problem,
    )


def target(value: Target) -> restore_pb2.RestoreTarget:
    """Where a restore goes to."""
    match value.kind:
        case TargetKind.BACKUP:
            return restore_pb2.RestoreTarget(backup_id=value.backup_id)
        case TargetKind.TIME:
            return restore_pb2.RestoreTarget(time=timestamp(value.time))
        case TargetKind.PLACE:
            return restore_pb2.RestoreTarget(place=_place(value.place) if value.place else None)
    return restore_pb2.RestoreTarget(latest=True)


def read_outlook(message: restore_pb2.RestorePlan) -> Outlook:
    """How a restore would reach its target."""
    loss = read_loss(message.loss_window)
    return Outlook(
        backup_id=message.backup_id,
        level=max(0, message.verified_level),
        place=_read_place(message.place),
        segments=message.segments,
        loss=loss,
        live=Live(message.live),
        live_problem=message.live_problem,
    )


def read_restore(message: restore_pb2.Restore) -> RestoreFacts:
    """A restore."""
    return RestoreFacts(
        id=message.id,
        state=RestoreState(message.state),
        place=_read_place(message.place) if message.HasField("place") else None,
        place_time=read_time(message.place_time, given=message.HasField("place_time")),
        loss=read_loss(message.loss_window) if message.HasField("loss_window") else None,
        epoch=message.new_epoch,
        write_outage_seconds=message.write_outage.ToNanoseconds() / 1e9 if message.HasField("write_outage") else None,
        held=f"{message.subjects} subjects, {message.versions} versions, {message.schemas} schemas",
        problem=message.problem,
    )


def read_loss(message: restore_pb2.LossWindow) -> Loss:
    """What would be lost."""
    return Loss(
        readable=message.live_readable,
        live=_read_place(message.live_place),
        changes=message.changes,
        confirmation=message.confirmation,
        first_time=read_time(message.first_time, given=message.HasField("first_time")),
        last_time=read_time(message.last_time, given=message.HasField("last_time")),
    )


def read_target(message: restore_pb2.RestoreTarget) -> Target | str:
    """Where a recovery is to go to, or what is wrong with it."""
    match message.WhichOneof("target"):
        case "latest":
            return Target(TargetKind.LATEST) if message.latest else "latest must be true when it is set"
        case "backup_id":
            return Target(TargetKind.BACKUP, backup_id=message.backup_id)
        case "time":
            time = _time(message)
            return Target(TargetKind.TIME, time=time) if time else "time must be between the years 1 and 9999"
        case "place":
            if message.place.epoch < 1 or message.place.position < 0:
                return "place must have an epoch from 1 and a position from 0"
            return Target(TargetKind.PLACE, place=_read_place(message.place))
    return "is required: latest, backup_id, time or place"


def _time(message: restore_pb2.RestoreTarget) -> datetime | None:
    try:
        return message.time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _spec(value: Spec) -> recovery_pb2.RecoverySpec:
    return recovery_pb2.RecoverySpec(
        target=target(value.target),
        traffic=value.traffic.value,  # type: ignore[arg-type]  # the same numbers
        safety=value.safety.value,  # type: ignore[arg-type]  # the same numbers
        confirmation=value.confirmation,
        cause=value.cause,
    )


def _step(value: Step) -> recovery_pb2.RecoveryStep:
    plan = PLANS[value.name]
    return recovery_pb2.RecoveryStep(
        number=NAMES.index(value.name) + 1,
        name=value.name.value,
        purpose=plan.purpose,
        state=value.state.value,  # type: ignore[arg-type]  # the same numbers
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        timeout=duration(plan.timeout_seconds),
        estimate=duration(value.estimate_seconds),
        message=value.message,
        undo=plan.undo,
        attempts=value.attempts,
    )


def _loss(value: Loss) -> restore_pb2.LossWindow:
    return restore_pb2.LossWindow(
        live_readable=value.readable,
        live_place=_place(value.live),
        changes=value.changes,
        first_time=timestamp(value.first_time),
        last_time=timestamp(value.last_time),
        confirmation=value.confirmation,
    )


def _place(value: Place) -> restore_pb2.HistoryPlace:
    return restore_pb2.HistoryPlace(epoch=value.epoch, position=value.position)


def _read_place(message: restore_pb2.HistoryPlace) -> Place:
    return Place(message.epoch, message.position)
