"""Recoveries: ten steps, where each stands, and what may follow what. A journal holds every state that is made here.

A recovery goes forward step by step, stands still where a step failed, and goes forward again or back from there. Once
it has begun to go back it can only go on going back.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from llm_schema_registry import errors
from services.admin.domain.system import State

CAUSE_CHARACTERS_MAX = 200
MESSAGE_CHARACTERS_MAX = 2000
_CONFIRMATION = re.compile(r"[0-9]{1,19}@([0-9]{1,9})/([0-9]{1,19})", re.ASCII)


class StepName(enum.StrEnum):
    """The steps, in their order."""

    PREFLIGHT = "preflight"
    FENCE = "fence"
    FETCH = "fetch"
    VERIFY = "verify"
    SAFETY = "safety"
    RESTORE = "restore"
    INTEGRITY = "integrity"
    SWITCH = "switch"
    RESUME = "resume"
    SMOKE = "smoke"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step does and how it is undone, for a person (empty: nothing to undo), and how long it may take."""

    name: StepName
    purpose: str
    undo: str
    timeout_seconds: float


PLAN = (
    StepPlan(StepName.PREFLIGHT, "look at every process, the target, the backup, keys, versions and space", "", 120),
    StepPlan(StepName.FENCE, "let the replicas take no writes", "give each replica the mode that it had", 60),
    StepPlan(StepName.FETCH, "choose the backup to begin from and open it with the keys (V2)", "", 300),
    StepPlan(StepName.VERIFY, "read every byte of the backup (V3)", "", 3600),
    StepPlan(StepName.SAFETY, "back the present state up", "", 3600),
    StepPlan(
        StepName.RESTORE, "restore beside the live database, replay the archive", "drop what was restored", 4 * 3600
    ),
    StepPlan(StepName.INTEGRITY, "compare what was restored, and what would be lost", "", 120),
    StepPlan(StepName.SWITCH, "swap the restored database in, empty every cache", "swap the replaced one back", 900),
    StepPlan(StepName.RESUME, "let the replicas serve, wait until each does", "", 300),
    StepPlan(StepName.SMOKE, "try the registry", "", 180),
)
NAMES = tuple(each.name for each in PLAN)
PLANS: Mapping[StepName, StepPlan] = {each.name: each for each in PLAN}


class StepState(enum.Enum):
    """Where a step stands; numbers of admin/v1/recovery.proto."""

    PENDING = 1
    RUNNING = 2
    DONE = 3
    SKIPPED = 4
    FAILED = 5
    UNDONE = 6


class RecoveryState(enum.Enum):
    """Where a recovery stands; numbers of admin/v1/recovery.proto."""

    PLANNED = 1
    RUNNING = 2
    UNCONFIRMED = 3
    STOPPED = 4
    ABORTING = 5
    DONE = 6
    ABORTED = 7


OVER = frozenset({RecoveryState.PLANNED, RecoveryState.DONE, RecoveryState.ABORTED})
PASSED = frozenset({StepState.DONE, StepState.SKIPPED})


class TargetKind(enum.Enum):
    """What a target names."""

    LATEST = "latest"
    BACKUP = "backup"
    TIME = "time"
    PLACE = "place"


class Traffic(enum.Enum):
    """How much is served before the swap; numbers of admin/v1/recovery.proto."""

    FENCE_WRITES = 1
    SERVE = 2
    STOP_FIRST = 3


class Safety(enum.Enum):
    """What to do about a backup of the present state; numbers of admin/v1/recovery.proto."""

    REQUIRED = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the history. position: of its newest change."""

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.position}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a recovery goes to. Of the other fields the one that its kind names is set."""

    kind: TargetKind
    backup_id: str = ""
    time: datetime | None = None
    place: Place | None = None

    @property
    def latest(self) -> bool:
        return self.kind is TargetKind.LATEST


@dataclass(frozen=True, slots=True)
class Spec:
    """What a recovery is to do. confirmation: of the loss window that is accepted, empty for none."""

    target: Target
    traffic: Traffic = Traffic.FENCE_WRITES
    safety: Safety = Safety.REQUIRED
    confirmation: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """What the live history has and the restored one has not. readable: whether the live database said so itself."""

    readable: bool
    live: Place
    changes: int
    confirmation: str
    first_time: datetime | None = None
    last_time: datetime | None = None

    def accepted(self, confirmation: str, *, latest: bool) -> bool:
        """Whether nothing would be lost, or nothing beyond what was confirmed. latest: the swap replays the rest of a
        live history that can be read."""
        if not self.changes or (latest and self.readable):
            return True
        up_to = confirmed_place(confirmation)
        return up_to is not None and up_to.epoch == self.live.epoch and self.live.position <= up_to.position

    @property
    def told(self) -> str:
        """The window in words."""
        unread = "" if self.readable else "the live database cannot be read; of what the archive knows, "
        if not self.changes:
            return f"{unread}nothing would be lost up to {self.live}"
        return f"{unread}{self.changes} changes up to {self.live} would be lost"


def confirmed_place(confirmation: str) -> Place | None:
    """The place up to which changes may be lost, None for an empty text. Raises ValueError for any other text."""
    if not confirmation:
        return None
    found = _CONFIRMATION.fullmatch(confirmation)
    if found is None:
        raise ValueError("must be the confirmation of a loss window, such as 12@1/340: changes@epoch/position")
    return Place(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it stands. attempts: how often it was begun; one that its process left open is not begun anew."""

    name: StepName
    state: StepState = StepState.PENDING
    start_time: datetime | None = None
    end_time: datetime | None = None
    message: str = ""
    attempts: int = 0
    estimate_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovery as it stands. number: of the journal's entry.

    modes: what each registry replica was in before the fence, by address. place_time: of the newest change that was
    brought back. archived_time: until when everything is in the archive, of a live database that cannot be read.
    fence_time: when the replicas stopped taking writes. epoch: that the swap began. left: the modes of those that were
    away when the fence was taken off, by address; they are put into them when they return.
    """

    id: str
    state: RecoveryState
    spec: Spec
    actor: str
    start_time: datetime
    steps: tuple[Step, ...] = tuple(Step(name) for name in NAMES)
    number: int = 0
    backup_id: str = ""
    safety_backup_id: str = ""
    restore_id: str = ""
    loss: Loss | None = None
    end_time: datetime | None = None
    modes: Mapping[str, State] = field(default_factory=dict)
    left: Mapping[str, State] = field(default_factory=dict)
    fence_time: datetime | None = None
    place_time: datetime | None = None
    archived_time: datetime | None = None
    epoch: int = 0
    write_outage_seconds: float | None = None
    write_pause_seconds: float | None = None
    recovery_seconds: float | None = None
    recovery_point_seconds: float | None = None
    problem: str = ""

    def step(self, name: StepName) -> Step:
        return self.steps[NAMES.index(name)]

    @property
    def fence(self) -> State | None:
        """The mode that its fence puts replicas into; None when there is none."""
        return {Traffic.FENCE_WRITES: State.READ_ONLY, Traffic.STOP_FIRST: State.MAINTENANCE}.get(self.spec.traffic)

    @property
    def open(self) -> bool:
        """Whether it is neither done nor gone back."""
        return self.state not in OVER

    @property
    def following(self) -> StepName | None:
        """The step to go on with; None when all passed."""
        return next((each.name for each in self.steps if each.state not in PASSED), None)

    @property
    def to_undo(self) -> Sequence[StepName]:
        """The steps that may have done something, the last one first."""
        touched = (StepState.RUNNING, StepState.DONE, StepState.FAILED)
        return [each.name for each in reversed(self.steps) if each.state in touched]


def began(recovery: Recovery, name: StepName, now: datetime) -> Recovery:
    """A step begins, or is gone on with where its process left it: the attempt is the same one then."""
    _require(recovery, RecoveryState.RUNNING)
    if recovery.following is not name:
        raise ValueError(f"{name} does not follow: {recovery.following} does")
    step = recovery.step(name)
    if step.state is StepState.RUNNING:
        return recovery
    return _with(
        recovery,
        replace(step, state=StepState.RUNNING, start_time=now, end_time=None, message="", attempts=step.attempts + 1),
    )


def passed(recovery: Recovery, name: StepName, now: datetime, message: str, *, skipped: bool = False) -> Recovery:
    """A running step is done, or had nothing to do. Behind the last one the recovery is done."""
    step = _running(recovery, name)
    state = StepState.SKIPPED if skipped else StepState.DONE
    changed = _with(recovery, replace(step, state=state, end_time=now, message=_cut(message)))
    if changed.following is not None:
        return changed
    return replace(
        changed,
        state=RecoveryState.DONE,
        end_time=now,
        recovery_seconds=(now - recovery.start_time).total_seconds(),
        problem="",
    )


def failed(recovery: Recovery, name: StepName, now: datetime, problem: str, *, unconfirmed: bool = False) -> Recovery:
    """A running step failed: the recovery stands still. One that fails before anything was touched has ended."""
    step = replace(_running(recovery, name), state=StepState.FAILED, end_time=now, message=_cut(problem))
    state = RecoveryState.UNCONFIRMED if unconfirmed else RecoveryState.STOPPED
    changed = replace(_with(recovery, step), state=state, problem=_cut(problem))
    if name is StepName.PREFLIGHT:
        return replace(changed, state=RecoveryState.ABORTED, end_time=now)
    return changed


def resumed(recovery: Recovery, confirmation: str) -> Recovery:
    """It goes on, with another confirmation when one is given. Raises errors.IllegalState for one that cannot."""
    if recovery.state not in {RecoveryState.RUNNING, RecoveryState.STOPPED, RecoveryState.UNCONFIRMED}:
        advice = ": AbortRecovery goes on with that" if recovery.state is RecoveryState.ABORTING else ""
        raise illegal(recovery, "resumed", advice)
    spec = replace(recovery.spec, confirmation=confirmation) if confirmation else recovery.spec
    return replace(recovery, state=RecoveryState.RUNNING, spec=spec, problem="")


def rewound(recovery: Recovery) -> Recovery:
    """What was restored is no longer there: the step that restores, and those behind it, are to be done again. Raises
    ValueError once it was swapped in."""
    _require(recovery, RecoveryState.RUNNING)
    again = NAMES[NAMES.index(StepName.RESTORE) :]
    if recovery.step(StepName.SWITCH).state in PASSED:
        raise ValueError("what was swapped in is not restored again")
    steps = tuple(replace(each, state=StepState.PENDING) if each.name in again else each for each in recovery.steps)
    return replace(recovery, steps=steps, restore_id="", loss=None)


def aborting(recovery: Recovery, now: datetime) -> Recovery:
    """It goes back. Raises errors.IllegalState for one that has ended."""
    if not recovery.open:
        raise illegal(recovery, "aborted", ": RevertRestore swaps back" if recovery.restore_id else "")
    if not recovery.to_undo:
        return replace(recovery, state=RecoveryState.ABORTED, end_time=now, problem="")
    return replace(recovery, state=RecoveryState.ABORTING, problem="")


def undone(recovery: Recovery, name: StepName, now: datetime, message: str) -> Recovery:
    """A step was undone, which must be the last one that may have done something."""
    _require(recovery, RecoveryState.ABORTING)
    if not recovery.to_undo or recovery.to_undo[0] is not name:
        raise ValueError(f"{name} is not undone now: {recovery.to_undo[:1]} is")
    step = recovery.step(name)
    changed = _with(recovery, replace(step, state=StepState.UNDONE, end_time=now, message=_cut(message)))
    if changed.to_undo:
        return changed
    return replace(changed, state=RecoveryState.ABORTED, end_time=now)


def not_undone(recovery: Recovery, problem: str) -> Recovery:
    """A step could not be undone. It stands still; where nothing was undone yet it may still go forward."""
    _require(recovery, RecoveryState.ABORTING)
    back = any(each.state is StepState.UNDONE for each in recovery.steps)
    state = RecoveryState.ABORTING if back else RecoveryState.STOPPED
    return replace(recovery, state=state, problem=_cut(problem))


def left_alone(recovery: Recovery) -> Recovery:
    """As it is shown when nobody works on it though the journal says so."""
    if recovery.state is RecoveryState.RUNNING:
        at = recovery.following or NAMES[-1]
        problem = f"the process that worked on it ended during step {at}: resume or abort it"
        return replace(recovery, state=RecoveryState.STOPPED, problem=recovery.problem or problem)
    if recovery.state is RecoveryState.ABORTING and not recovery.problem:
        return replace(recovery, problem="the process that went back ended: abort it again")
    return recovery


def illegal(recovery: Recovery, wanted: str, advice: str = "") -> errors.IllegalState:
    """The error of a recovery that cannot be changed so."""
    return errors.IllegalState(
        f"Recovery {recovery.id} is {recovery.state.name}: it cannot be {wanted}{advice}.",
        metadata={"recovery_id": recovery.id, "state": recovery.state.name},
    )


def _require(recovery: Recovery, state: RecoveryState) -> None:
    if recovery.state is not state:
        raise ValueError(f"the recovery is {recovery.state.name}, not {state.name}")


def _running(recovery: Recovery, name: StepName) -> Step:
    _require(recovery, RecoveryState.RUNNING)
    step = recovery.step(name)
    if step.state is not StepState.RUNNING:
        raise ValueError(f"{name} is {step.state.name}, not RUNNING")
    return step


def _with(recovery: Recovery, step: Step) -> Recovery:
    steps = tuple(step if each.name is step.name else each for each in recovery.steps)
    return replace(recovery, steps=steps)


def _cut(text: str) -> str:
    return text[:MESSAGE_CHARACTERS_MAX]
