"""Recoveries as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.cli import restore_views
from llm_schema_registry.cli.messages import label, moment, seconds
from llm_schema_registry.cli.output import Output, counted
from llm_schema_registry.cli.progress import duration

COLUMNS = ("id", "state", "target", "began", "ended", "by", "cause", "problem")
STEP_COLUMNS = ("step", "name", "state", "took", "estimate", "message")
STANDING = frozenset({recovery_pb2.RECOVERY_STATE_STOPPED, recovery_pb2.RECOVERY_STATE_UNCONFIRMED})


def rows(recoveries: Iterable[recovery_pb2.Recovery]) -> Iterator[Sequence[object]]:
    """Rows under COLUMNS."""
    for one in recoveries:
        yield (
            one.id,
            label(one, "state"),
            restore_views.target(one.spec.target),
            moment(one.start_time),
            moment(one.end_time),
            one.actor,
            one.spec.cause,
            one.problem,
        )


def steps(recovery: recovery_pb2.Recovery) -> Iterator[Sequence[object]]:
    """Rows under STEP_COLUMNS."""
    for one in recovery.steps:
        took = estimate = ""
        if one.HasField("start_time") and one.HasField("end_time"):
            took = f"{(one.end_time.ToNanoseconds() - one.start_time.ToNanoseconds()) / 1e9:.1f} s"
        if one.HasField("estimate"):
            estimate = duration(seconds(one.estimate))
        yield one.number, one.name, label(one, "state"), took, estimate, one.message or one.purpose


def record(recovery: recovery_pb2.Recovery) -> Iterator[tuple[str, object]]:
    """A recovery's facts; those that are empty are left out."""
    measured = {
        name: f"{seconds(getattr(recovery, name)):.2f} s"
        for name in ("recovery_time", "recovery_point", "write_outage", "write_pause")
        if recovery.HasField(name)
    }
    facts = [
        ("recovery", recovery.id),
        ("state", label(recovery, "state")),
        ("target", restore_views.target(recovery.spec.target)),
        ("cause", recovery.spec.cause),
        ("by", recovery.actor),
        ("began", moment(recovery.start_time)),
        ("ended", moment(recovery.end_time)),
        ("backup", recovery.backup_id),
        ("safety backup", recovery.safety_backup_id),
        ("restore", recovery.restore_id),
        ("lost", loss(recovery)),
        ("recovery time (RTO)", measured.get("recovery_time", "")),
        ("recovery point (RPO)", measured.get("recovery_point", "")),
        ("writes refused", measured.get("write_outage", "")),
        ("writes paused", measured.get("write_pause", "")),
        ("problem", recovery.problem),
    ]
    yield from ((name, value) for name, value in facts if value)


def loss(recovery: recovery_pb2.Recovery) -> str:
    """What is lost or would be, in words; empty when that is not known."""
    if not recovery.HasField("loss_window"):
        return ""
    window = recovery.loss_window
    if not window.changes:
        return "nothing"
    return f"{counted(window.changes, 'change')} up to {restore_views.place(window.live_place)}"


def tell(output: Output, recovery: recovery_pb2.Recovery) -> None:
    """Writes a recovery, its steps, and the line to type next."""
    output.record(record(recovery))
    output.text("")
    output.table(STEP_COLUMNS, steps(recovery), whole=3)
    if line := next_line(recovery):
        output.text(f"\nNext: {line}")


def next_line(recovery: recovery_pb2.Recovery) -> str:
    """What to type next; empty when there is nothing."""
    if recovery.state == recovery_pb2.RECOVERY_STATE_ABORTING:
        return f"llmsr recover abort {recovery.id} --apply"
    if recovery.state not in STANDING:
        return ""
    confirm = ""
    if recovery.state == recovery_pb2.RECOVERY_STATE_UNCONFIRMED:
        confirm = f" --confirm {recovery.loss_window.confirmation}"
    return f"llmsr recover resume {recovery.id}{confirm} --apply\nOr:   llmsr recover abort {recovery.id} --apply"
