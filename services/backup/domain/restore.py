"""A restore as its journal tells it: every entry holds all of it, and the last one counts."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.backup.domain.model import Epoch, Place
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target

PROBLEM_CHARACTERS_MAX = 2000


class RestoreState(enum.Enum):
    """Where a restore stands."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    ACTIVATING = "activating"
    ACTIVE = "active"
    REVERTING = "reverting"
    REVERTED = "reverted"
    RELEASED = "released"
    FAILED = "failed"


SWAPPING = frozenset({RestoreState.ACTIVATING, RestoreState.REVERTING})
KEEPING = frozenset({RestoreState.PREPARED, RestoreState.ACTIVE, RestoreState.REVERTED})
"""Keep a place beside the live one until their time is over."""


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore.

    scratch, aside: names of places; after a revert what was restored lies under `scratch` again. keep_until: of what is
    prepared, or was replaced. problem: why it failed, or was released by itself. confirmed: the place
    up to which the live history may be lost, None when nothing may. fork: where the line of its last swap leaves
    the one before, None before that is certain. write_outage_seconds: how long writes were refused.
    schemas, subjects, versions: rows. number: of the journal's entry.
    """

    id: str
    state: RestoreState
    target: Target
    backup_id: str
    scratch: str
    actor: str
    start_time: datetime
    number: int = 0
    place: Place | None = None
    place_time: datetime | None = None
    aside: str = ""
    prepare_time: datetime | None = None
    activate_time: datetime | None = None
    keep_until: datetime | None = None
    new_epoch: int | None = None
    next_schema_id: int | None = None
    confirmed: Place | None = None
    fork: Place | None = None
    write_outage_seconds: float | None = None
    prepare_seconds: float | None = None
    subjects: int = 0
    versions: int = 0
    schemas: int = 0
    problem: str = ""

    @property
    def line(self) -> Epoch | None:
        """The line of history that its last swap began; None before that is certain."""
        if self.new_epoch is None or self.fork is None:
            return None
        return Epoch(self.new_epoch, self.fork.epoch, self.fork.position)


@dataclass(frozen=True, slots=True)
class LossWindow:
    """What the live history has and a restore has not. live: where it stands; readable: by the database's own word.

    first_time, last_time: of the changes that would be lost, None when there are none or they cannot be read.
    """

    readable: bool
    live: Place
    changes: int
    first_time: datetime | None = None
    last_time: datetime | None = None

    @property
    def confirmation(self) -> str:
        """Confirms exactly this window: so many changes, up to this place."""
        return f"{self.changes}@{self.live}"

    def covered_by(self, confirmed: Place | None) -> bool:
        """Whether nothing would be lost, or nothing beyond a place that was confirmed."""
        if not self.changes:
            return True
        same = confirmed is not None and confirmed.epoch == self.live.epoch
        return confirmed is not None and same and self.live.position <= confirmed.position

    @property
    def told(self) -> str:
        """The window in words."""
        if not self.changes:
            return f"nothing would be lost up to {self.live}"
        times = f", made from {self.first_time} to {self.last_time}" if self.first_time and self.last_time else ""
        return f"{self.changes} changes up to {self.live} would be lost{times}"


_CONFIRMATION = re.compile(r"[0-9]{1,19}@([0-9]{1,9})/([0-9]{1,19})", re.ASCII)


def read_confirmation(text: str) -> Place | None:
    """The place up to which changes may be lost, None for an empty text. Raises ValueError for any other text.

    Whoever restores while others write may name a later position than the window did: so many more may be lost.
    """
    if not text:
        return None
    found = _CONFIRMATION.fullmatch(text)
    if found is None:
        raise ValueError("must be the confirmation of a loss window, such as 12@1/340: changes@epoch/position")
    return Place(int(found[1]), int(found[2]))


def to_document(restore: Restore) -> dict[str, Any]:
    """The journal's entry, of texts, whole numbers and objects."""
    return {
        "id": restore.id,
        "number": restore.number,
        "state": restore.state.value,
        "target": _target(restore.target),
        "backup_id": restore.backup_id,
        "scratch": restore.scratch,
        "aside": restore.aside,
        "actor": restore.actor,
        "start_time": restore.start_time.isoformat(),
        "place": _place(restore.place),
        "place_time": _time(restore.place_time),
        "prepare_time": _time(restore.prepare_time),
        "activate_time": _time(restore.activate_time),
        "keep_until": _time(restore.keep_until),
        "new_epoch": restore.new_epoch,
        "next_schema_id": restore.next_schema_id,
        "confirmed": _place(restore.confirmed),
        "fork": _place(restore.fork),
        "write_outage_ms": _ms(restore.write_outage_seconds),
        "prepare_ms": _ms(restore.prepare_seconds),
        "rows": {"subjects": restore.subjects, "versions": restore.versions, "schemas": restore.schemas},
        "problem": restore.problem[:PROBLEM_CHARACTERS_MAX],
    }


def from_document(document: Mapping[str, Any]) -> Restore:
    """A restore of a journal's entry. Raises ValueError, KeyError or TypeError when it is none."""
    rows = document["rows"]
    return Restore(
        id=str(document["id"]),
        number=int(document["number"]),
        state=RestoreState(document["state"]),
        target=_read_target(document["target"]),
        backup_id=str(document["backup_id"]),
        scratch=str(document["scratch"]),
        aside=str(document["aside"]),
        actor=str(document["actor"]),
        start_time=datetime.fromisoformat(document["start_time"]),
        place=_read_place(document["place"]),
        place_time=_read_time(document["place_time"]),
        prepare_time=_read_time(document["prepare_time"]),
        activate_time=_read_time(document["activate_time"]),
        keep_until=_read_time(document["keep_until"]),
        new_epoch=document["new_epoch"],
        next_schema_id=document["next_schema_id"],
        confirmed=_read_place(document["confirmed"]),
        fork=_read_place(document.get("fork")),
        write_outage_seconds=_seconds(document["write_outage_ms"]),
        prepare_seconds=_seconds(document["prepare_ms"]),
        subjects=int(rows["subjects"]),
        versions=int(rows["versions"]),
        schemas=int(rows["schemas"]),
        problem=str(document["problem"]),
    )


def _target(target: Target) -> dict[str, Any]:
    match target:
        case Latest():
            return {"kind": "latest"}
        case AtBackup(backup_id):
            return {"kind": "backup", "backup_id": backup_id}
        case AtPlace(epoch, position):
            return {"kind": "place", "epoch": epoch, "position": position}
        case AtTime(time, epoch):
            return {"kind": "time", "time": time.isoformat(), "epoch": epoch}


def _read_target(document: Mapping[str, Any]) -> Target:
    match document["kind"]:
        case "latest":
            return Latest()
        case "backup":
            return AtBackup(str(document["backup_id"]))
        case "place":
            return AtPlace(int(document["epoch"]), int(document["position"]))
        case "time":
            return AtTime(datetime.fromisoformat(document["time"]), document["epoch"])
    raise ValueError(f"no such target: {document['kind']}")


def _place(place: Place | None) -> dict[str, int] | None:
    return None if place is None else {"epoch": place.epoch, "position": place.position}


def _read_place(document: Mapping[str, Any] | None) -> Place | None:
    return None if document is None else Place(int(document["epoch"]), int(document["position"]))


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
