"""Restores and what they would lose, as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.cli.messages import label, moment, seconds
from llm_schema_registry.cli.output import Output, counted
from llm_schema_registry.cli.progress import duration

COLUMNS = ("id", "state", "target", "backup", "place", "prepared", "activated", "kept until", "problem")


def place(found: restore_pb2.HistoryPlace) -> str:
    """A point of the history as `--place` takes it: epoch/position."""
    return f"{found.epoch}/{found.position}"


def target(found: restore_pb2.RestoreTarget) -> str:
    """Where a restore goes to."""
    match found.WhichOneof("target"):
        case "latest":
            return "latest"
        case "backup_id":
            return f"backup {found.backup_id}"
        case "time":
            return f"time {moment(found.time)}"
        case "place":
            return f"place {place(found.place)}"
    return "unknown"


def rows(restores: Iterable[restore_pb2.Restore]) -> Iterator[Sequence[object]]:
    """Rows under COLUMNS."""
    for one in restores:
        yield (
            one.id,
            label(one, "state"),
            target(one.target),
            one.backup_id,
            place(one.place) if one.HasField("place") else "",
            moment(one.prepare_time),
            moment(one.activate_time),
            moment(one.keep_until),
            one.problem,
        )


def record(restore: restore_pb2.Restore) -> Iterator[tuple[str, object]]:
    """A restore's facts; those that are empty are left out."""
    prepared, outage = moment(restore.prepare_time), ""
    if restore.HasField("prepare_duration"):
        prepared += f", in {duration(seconds(restore.prepare_duration))}"
    if restore.HasField("write_outage"):
        outage = f"{seconds(restore.write_outage):.2f} s"
    held = f"{restore.subjects} subjects, {restore.versions} versions, {restore.schemas} schemas"
    facts = [
        ("restore", restore.id),
        ("state", label(restore, "state")),
        ("target", target(restore.target)),
        ("backup", restore.backup_id),
        ("place", place(restore.place) if restore.HasField("place") else ""),
        ("newest change", moment(restore.place_time)),
        ("holds", held if restore.HasField("prepare_time") else ""),
        ("prepared in", restore.scratch_name),
        ("replaced", restore.aside_name),
        ("prepared", prepared),
        ("activated", moment(restore.activate_time)),
        ("writes refused", outage),
        ("kept until", moment(restore.keep_until)),
        ("new epoch", restore.new_epoch or ""),
        ("next schema id", restore.next_schema_id or ""),
        ("problem", restore.problem),
    ]
    yield from ((name, value) for name, value in facts if value)


def tell_restore(output: Output, restore: restore_pb2.Restore) -> None:
    """Writes a restore, what its next step would lose, and the line to type next."""
    output.record(record(restore))
    if restore.HasField("loss_window"):
        output.text(f"\n{loss(restore)}")
    if line := next_line(restore):
        output.text(f"\nNext: {line}")


def loss(restore: restore_pb2.Restore) -> str:
    """What the next step would lose, in a sentence or two: the activation, or the revert of an active restore."""
    window = restore.loss_window
    reverting = restore.state == restore_pb2.RESTORE_STATE_ACTIVE
    done = "Reverting" if reverting else "Activating"
    changes = counted(window.changes, "change")
    stands = f"the live registry stands at {place(window.live_place)}"
    if not window.live_readable:
        return (
            f"The live database cannot be read: what it has beyond the archive, which ends at"
            f" {place(window.live_place)}, would be lost. Of what is known, {changes} would be lost."
        )
    if not window.changes:
        return f"{done} it now would lose nothing: {stands}."
    times = ""
    if window.HasField("first_time") and window.HasField("last_time"):
        times = f", made from {moment(window.first_time)} to {moment(window.last_time)}"
    if restore.target.latest and not reverting:
        # What is not replayed yet; the activation replays it behind the fence.
        return f"{done} it replays {changes}{times} first, and loses nothing: {stands}."
    return f"{done} it now would lose {changes}{times}: {stands}."


def confirmation_needed(restore: restore_pb2.Restore) -> str:
    """The confirmation without which the next step is refused; empty when none is needed."""
    window = restore.loss_window
    if not window.changes:
        return ""
    follows = restore.target.latest and window.live_readable
    return "" if follows and restore.state == restore_pb2.RESTORE_STATE_PREPARED else window.confirmation


def next_line(restore: restore_pb2.Restore) -> str:
    """What to type next; empty when there is nothing."""
    if restore.state == restore_pb2.RESTORE_STATE_PREPARED:
        return f"llmsr restore activate {restore.id}"
    if restore.state == restore_pb2.RESTORE_STATE_ACTIVE:
        return f"llmsr restore revert {restore.id}\nOr:   llmsr restore release {restore.id}"
    if restore.state == restore_pb2.RESTORE_STATE_REVERTED:
        return f"llmsr restore release {restore.id}"
    return ""


def apply_line(verb: str, restore_id: str, confirmation: str) -> str:
    """The command that does what a dry run said."""
    confirm = f" --confirm {confirmation}" if confirmation else ""
    return f"llmsr restore {verb} {restore_id}{confirm} --apply"
