"""What a recovery asks of the backup service, and what it hears."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from services.admin.domain.recovery import Loss, Place, StepName, Target


class Live(enum.Enum):
    """What is found under the live name; numbers of backup/v1/restore.proto."""

    READABLE = 1
    UNREADABLE = 2
    ABSENT = 3
    EMPTY = 4


class RestoreState(enum.Enum):
    """Where a restore stands; numbers of backup/v1/restore.proto."""

    PREPARING = 1
    PREPARED = 2
    ACTIVATING = 3
    ACTIVE = 4
    REVERTING = 5
    REVERTED = 6
    RELEASED = 7
    FAILED = 8


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a restore would reach its target. level: to which its base is verified, 0 for not at all."""

    backup_id: str
    level: int
    place: Place
    segments: int
    loss: Loss
    live: Live
    live_problem: str = ""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """A backup. level: to which it is verified."""

    id: str
    level: int
    verified_time: datetime | None


@dataclass(frozen=True, slots=True)
class RestoreFacts:
    """A restore. loss: by the next step, None where that cannot be told."""

    id: str
    state: RestoreState
    place: Place | None = None
    place_time: datetime | None = None
    loss: Loss | None = None
    epoch: int = 0
    write_outage_seconds: float | None = None
    held: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class VerifyBackup:
    """To verify a backup to a level."""

    backup_id: str
    level: int


@dataclass(frozen=True, slots=True)
class BackUp:
    """To back the present state up, pinned."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """To restore beside the live database, from a backup."""

    target: Target
    backup_id: str


@dataclass(frozen=True, slots=True)
class Activate:
    """To swap a restore in."""

    restore_id: str
    confirmation: str


@dataclass(frozen=True, slots=True)
class Revert:
    """To swap back what a restore replaced."""

    restore_id: str
    confirmation: str


Work = VerifyBackup | BackUp | Prepare | Activate | Revert


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operation ended. made: the id of what it made. problems: of a verification that did not pass. error: None
    when it ended well."""

    made: str = ""
    problems: tuple[str, ...] = ()
    error: errors.Error | None = None


Estimates = Mapping[StepName, float]
"""How long steps took the last time, in seconds."""
