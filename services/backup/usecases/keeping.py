"""What happens by itself: backups at their moments, their verification, audits, drills, copies, deletions. One process
of many does it, under a lease; everything it needs to know is in the store. What a process left in the middle of a
restore is ended by `repair`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Operations
from services.backup.domain import layout
from services.backup.domain.model import Kind, Level, Place
from services.backup.domain.schedules import Schedule, due, last_committed
from services.backup.ports import Election
from services.backup.usecases.audit import ROUND_SECONDS as ROUND_OF_AUDIT
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Catalog, Entry, Listing
from services.backup.usecases.copying import NAME, PRIMARY, Copying
from services.backup.usecases.drill import Drill
from services.backup.usecases.make_backup import MakeBackup, Wanted
from services.backup.usecases.prune import Prune, Pruned
from services.backup.usecases.repository import RESTORING, SCHEDULING, Repository
from services.backup.usecases.swap import Swap
from services.backup.usecases.verify import Verify

ROUND_SECONDS = 15.0
RETRY_SECONDS = 60.0
RETRY_SECONDS_MAX = 900.0
AWAY_SECONDS = 5.0
"""Before the first repeat of what the database or the store could not be reached for."""
HOUR_SECONDS = 3600.0
REVERIFY_DAYS = 7
ACTOR = "schedule"
SWITCHED_OFF = (
    "No backup is made, verified, tried or deleted by itself: have cron call `llmsr backup run --verify V3`, `llmsr"
    " backup prune --apply` and `llmsr backup drill`."
)

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Plans:
    """What is due when. schedules: of backups. drill: None for never.

    enabled: without, no backup is made, verified, tried or deleted by itself. What was left over is removed all the
    same, and the archive read: nobody can ask for that.
    """

    schedules: Sequence[Schedule]
    drill: Schedule | None
    enabled: bool = True


@dataclass(slots=True)
class _Chore:
    """Something that is done every so often, and less often while it fails.

    Those of one lane come one after the other; lanes go side by side, so that a restore that is tried for minutes, or
    a copy over a slow line, does not make a backup late.
    """

    name: str
    work: Callable[[], Awaitable[None]]
    every_seconds: float
    lane: str = "backups"
    next_time: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class SecondHands:
    """What is done in the second store."""

    copying: Copying
    verify: Verify
    prune: Prune
    audit: ArchiveAudit


@dataclass(frozen=True, slots=True)
class Hands:
    """The use cases that do the work. second: of the second store; None without one."""

    operations: Operations
    make: MakeBackup
    verify: Verify
    drill: Drill
    prune: Prune
    swap: Swap
    audit: ArchiveAudit
    second: SecondHands | None = None


@dataclass(slots=True)
class KeepingState:
    """leading: this process does it. problems: of chores that failed last, by name. blocked: why retention deletes
    nothing, by store."""

    leading: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)


class Keeping:
    """Does what is due in one repository."""

    def __init__(self, repository: Repository, hands: Hands, plans: Plans, report: Report) -> None:
        self._repository = repository
        self._hands = hands
        self._plans = plans
        self._report = report
        self.state = KeepingState()
        self._put_off: dict[str, float] = {}
        self._drill_from = 0.0
        self._put_off_copies: dict[str, float] = {}
        self._told: set[str] = set()
        scheduled = [
            _Chore("backups", self.make_due, 0),
            _Chore("verification", self.verify_due, 60, "trials"),
            _Chore("verification in the second store", self.verify_copy_due, 60, "copies"),
            _Chore("drill", self.drill_due, 60, "trials"),
            _Chore("retention", self.prune, HOUR_SECONDS),
            _Chore("retention of the second store", self.prune_copy, HOUR_SECONDS, "copies"),
        ]
        # Retention does this as well.
        left_over = [
            _Chore("left-over objects", self.sweep_objects, HOUR_SECONDS),
            _Chore("left-over objects of the second store", self.sweep_copy, HOUR_SECONDS, "copies"),
        ]
        self._chores = [
            *(scheduled if plans.enabled else left_over),
            _Chore("audit of the archive", self.audit, ROUND_OF_AUDIT, "archive"),
            _Chore("audit of the second store", self.audit_copy, ROUND_OF_AUDIT, "copied archive"),
            _Chore("second store", self.copy, 10, "copies"),
            _Chore("kept databases", self.release, 300, "restores"),
            _Chore("left-over databases", self.sweep, HOUR_SECONDS, "trials"),
            _Chore("records of operations", self.forget, HOUR_SECONDS),
        ]

    async def check(self) -> str | None:
        """Which chores failed last, in words; None when none did."""
        return "; ".join(f"{name}: {problem}" for name, problem in self.state.problems.items()) or None

    async def check_retention(self) -> str | None:
        """Why retention deletes nothing in a store, in words; None where it deletes what is due.

        Whoever forces it elsewhere is noticed with the next hour's retention.
        """
        return "; ".join(f"{store} store: {why}" for store, why in self.state.blocked.items()) or None

    async def run(self, election: Election) -> None:
        """Does what is due, for ever, whenever this process can have the office."""
        if not self._plans.enabled:
            self._report("schedules are switched off", message=SWITCHED_OFF)
        told = ""
        while True:
            problem = ""
            try:
                async with election.held(SCHEDULING) as elected:
                    if elected:
                        async with self._repository.leases.held(SCHEDULING):
                            await self._lead()
            except errors.OperationRunning:
                pass
            except errors.Error as error:
                problem = error.message
            except Exception as defect:  # noqa: BLE001 - the edge of a task that must not end: nobody would notice
                problem = "the schedules failed by a defect, which the log has"
                self._report("schedules failed by a defect", exc_info=defect)
            finally:
                # Whoever leads now finds out anew what fails.
                self.state = KeepingState()
            if problem and problem != told:
                self._report("schedules stand still", message=problem)
            told = problem
            await asyncio.sleep(ROUND_SECONDS)

    async def _lead(self) -> None:
        """Does the chores of all lanes until the office is lost, or a lane ends by a defect."""
        self.state.leading = True
        lanes = sorted({chore.lane for chore in self._chores})
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._go_on([each for each in self._chores if each.lane == lane]), name=lane)

    async def _go_on(self, chores: Sequence[_Chore]) -> None:
        while True:
            for chore in chores:
                if self._repository.clock.monotonic() >= chore.next_time:
                    await self._do(chore)
            await asyncio.sleep(ROUND_SECONDS)

    async def _do(self, chore: _Chore) -> None:
        """Does a chore, and notes when to do it again."""
        try:
            await chore.work()
        except errors.Error as failed:
            wait = self._failed(chore, failed)
        except Exception as defect:  # noqa: BLE001 - a defect of one chore must not end the others
            self._report("chore failed by a defect", chore=chore.name, exc_info=defect)
            wait = self._failed(chore, errors.Internal("it failed by a defect, which the log has"))
        else:
            chore.failures, wait = 0, chore.every_seconds
            self.state.problems.pop(chore.name, None)
        chore.next_time = self._repository.clock.monotonic() + wait

    def _failed(self, chore: _Chore, failed: errors.Error) -> float:
        """Seconds to wait after a failure of a chore, which is told once."""
        chore.failures += 1
        if self.state.problems.get(chore.name) != failed.message:
            self._report("chore failed", chore=chore.name, reason=failed.reason, message=failed.message)
        self.state.problems[chore.name] = failed.message
        # What is only away for a while is asked again soon: nothing was begun that a repeat would cost.
        first = AWAY_SECONDS if failed.code is errors.Code.UNAVAILABLE else RETRY_SECONDS
        return min(RETRY_SECONDS_MAX, first * 2.0 ** min(chore.failures - 1, 10))

    # Chores

    async def make_due(self) -> None:
        """Makes the backups whose moments have come. One that fails does not keep the others from being made."""
        now = self._repository.clock.now()
        listing = await self._repository.catalog.listing()
        first_seen = await _first_seen(self._repository.store)
        failure: errors.Error | None = None
        for schedule in self._plans.schedules:
            of_kind = [entry for entry in listing.entries if entry.manifest.kind is schedule.kind]
            last = last_committed([entry.manifest.slot for entry in of_kind if entry.manifest.slot], now)
            # A repository without a backup gets its first one now, not at the next moment.
            at_once = schedule.kind is Kind.DAILY or (schedule is self._plans.schedules[0] and not self._daily)
            since = datetime.min.replace(tzinfo=UTC) if at_once else first_seen
            slot = due(schedule, last, now, since)
            if slot is None:
                continue
            wanted = Wanted(schedule.kind, slot)
            try:
                await self._ended(
                    OperationKind.BACKUP, lambda running, wanted=wanted: self._hands.make.run(wanted, running)
                )
            except errors.Error as failed:
                failure = failure or failed
        if failure is not None:
            raise failure

    @property
    def _daily(self) -> bool:
        return any(schedule.kind is Kind.DAILY for schedule in self._plans.schedules)

    async def verify_due(self) -> None:
        """Verifies one backup that is due, the most important one first.

        One that cannot be verified, for want of a key or a database, is put off for a while, so that others are.
        """
        await self._verify_next(self._repository.catalog, self._hands.verify, self._put_off, Level.V4)

    async def verify_copy_due(self) -> None:
        """The same in the second store, up to V3: its evidence is its own, and kept there. A copy that is damaged is
        made once more, and tried again after an hour when that failed."""
        second = self._hands.second
        if second is None:
            return
        await self._verify_next(second.copying.catalog, second.verify, self._put_off_copies, Level.V3)
        for entry in (await second.copying.catalog.listing()).entries:
            damaged = bool(entry.evidence) and not entry.evidence[0].passed
            if damaged and not entry.buried and entry.id not in self._put_off_copies:
                self._put_off_copies[entry.id] = self._repository.clock.monotonic() + HOUR_SECONDS
                await self._mend_copy(second, entry.id)
                return

    async def _mend_copy(self, second: SecondHands, backup_id: str) -> None:
        """Copies a damaged backup once more, and reads it."""
        try:
            await second.copying.mend(backup_id)
        except (errors.BackupNotFound, errors.BackupDamaged) as failed:
            problem = f"{backup_id} is damaged in the second store and cannot be copied again: {failed.message}"
            if problem not in self._told:
                self._report("a copy stays damaged", message=problem)
                self._told.add(problem)
            return
        await self._ended(OperationKind.VERIFY, lambda running: second.verify.run(backup_id, Level.V3, running))
        passed = (await second.copying.catalog.get(backup_id)).evidence[0].passed
        self._report("a damaged copy was made once more", backup_id=backup_id, passed=passed)

    async def _verify_next(self, catalog: Catalog, verify: Verify, put_off: dict[str, float], deepest: Level) -> None:
        """Verifies the next backup of a store. put_off: until when those that could not be are passed over."""
        listing = await catalog.listing()
        now = self._repository.clock.monotonic()
        for name in [name for name, until in put_off.items() if until <= now]:
            del put_off[name]
        found = next_verification(listing, await catalog.store.now(), frozenset(put_off), deepest)
        if found is None:
            return
        backup_id, level = found
        try:
            await self._ended(OperationKind.VERIFY, lambda running: verify.run(backup_id, level, running))
        except errors.OperationCancelled:
            # It made room for a restore, or somebody wished it: nothing is wrong.
            put_off[backup_id] = now + HOUR_SECONDS
        except errors.Error:
            put_off[backup_id] = now + HOUR_SECONDS
            raise

    async def drill_due(self) -> None:
        """Tries a restore when its moment has come."""
        if self._plans.drill is None:
            return
        newest = await self._hands.drill.newest()
        for problem in sorted(set(self._hands.drill.problems) - self._told):
            self._report("record of a drill passed over", message=problem)
            self._told.add(problem)
        now = await self._repository.store.now()
        first_seen = await _first_seen(self._repository.store)
        slot = due(self._plans.drill, newest.time if newest else None, now, first_seen)
        wanted = slot is not None and self._repository.clock.monotonic() >= self._drill_from
        if wanted and (await self._repository.catalog.listing()).entries:
            try:
                await self._ended(OperationKind.DRILL, self._hands.drill.run)
            except errors.OperationCancelled:
                # It made room for a restore, or somebody wished it: nothing is wrong.
                self._drill_from = self._repository.clock.monotonic() + HOUR_SECONDS

    async def copy(self) -> None:
        """Brings the second store up to date."""
        if self._hands.second is None:
            return
        copying = self._hands.second.copying
        await copying.round()
        if copying.state.problem:
            raise errors.ObjectStoreUnavailable(f"The second store is behind: {copying.state.problem}")

    async def audit(self) -> None:
        """Reads the archive's chain on. A break is told once here, and by health, status, metrics until it is gone."""
        for broken in await self._hands.audit.round():
            self._report("the archive is broken", message=str(broken))

    async def audit_copy(self) -> None:
        """The same in the second store. A segment that is damaged there is copied once more."""
        if self._hands.second is None:
            return
        audit = self._hands.second.audit
        for broken in await audit.round():
            self._report("the archive in the second store is broken", message=str(broken))
        for key in audit.mended:
            place = str(Place(key.epoch, key.first))
            self._report("a segment in the second store was damaged, and was copied again", place=place)

    async def prune(self) -> None:
        """Deletes what is no longer kept."""
        pruned = await self._hands.prune.apply()
        self._note_blocked(PRIMARY, pruned)
        if pruned.buried or pruned.deleted or pruned.segments:
            self._report("retention", buried=pruned.buried, deleted=pruned.deleted, segments=pruned.segments)

    async def prune_copy(self) -> None:
        """Deletes in the second store what the first no longer has and no rule keeps."""
        if self._hands.second is not None:
            self._note_blocked(NAME, await self._hands.second.prune.apply())

    def _note_blocked(self, store: str, pruned: Pruned) -> None:
        """Notes why nothing may be deleted, and tells it when it is new: nothing goes until somebody sees to it."""
        why = pruned.plan.blocked
        if why is None:
            self.state.blocked.pop(store, None)
            return
        if self.state.blocked.get(store) != why:
            self._report("retention deletes nothing", store=store, message=why)
        self.state.blocked[store] = why

    async def sweep_objects(self) -> None:
        """Removes what ended early and left something behind, unless a backup runs."""
        with suppress(errors.OperationRunning):
            await self._hands.prune.sweep()

    async def sweep_copy(self) -> None:
        """The same in the second store."""
        if self._hands.second is not None:
            with suppress(errors.OperationRunning):
                await self._hands.second.prune.sweep()

    async def sweep(self) -> None:
        """Drops scratch databases that a process left behind, unless a restore runs."""
        with suppress(errors.OperationRunning):
            async with self._repository.leases.held(RESTORING):
                for name in await self._hands.swap.prepare.sweep():
                    self._report("left-over database dropped", name=name)

    async def release(self) -> None:
        """Drops databases whose time is over, unless a restore runs: replaced ones, and prepared ones that nobody
        activated."""
        with suppress(errors.OperationRunning):
            for restore_id in await self._hands.swap.release_old():
                self._report("kept database dropped", restore_id=restore_id)

    async def forget(self) -> None:
        """Forgets operations that ended long ago."""
        await self._hands.operations.forget_old()

    async def _ended(self, kind: OperationKind, work: Callable[..., Awaitable[Subject]]) -> None:
        """Runs work as an operation and waits for its end. Raises errors.BackupFailed with its error."""
        operation = await self._hands.operations.begin(kind, work, actor=ACTOR)
        ended = await self._hands.operations.wait(operation.name)
        if ended.error is not None:
            cls = errors.by_reason(ended.error.reason) or errors.Internal
            raise cls(ended.error.message, metadata={"operation": operation.name})


def next_verification(
    listing: Listing, now: datetime, put_off: frozenset[str] = frozenset(), deepest: Level = Level.V4
) -> tuple[str, Level] | None:
    """Which backup to verify next, and how far; None when all is done.

    Daily and monthly ones to V3; the newest daily one, restored, to V4 where that is not too deep; of the rest so
    many that each is read once within a day; after a week all of them again: bytes rot.
    """
    entries = [entry for entry in listing.entries if not entry.buried and entry.id not in put_off]
    durable = [entry for entry in entries if entry.manifest.kind in {Kind.DAILY, Kind.MONTHLY}]
    for entry in durable:
        if not _checked(entry, Level.V3):
            return entry.id, Level.V3
    newest = next((entry for entry in durable if entry.manifest.kind is Kind.DAILY), None)
    restored = deepest >= Level.V4 and newest is not None and newest.level >= Level.V3
    if restored and newest is not None and not _checked(newest, Level.V4):
        return newest.id, Level.V4
    rest = [entry for entry in entries if not _checked(entry, Level.V3)]
    hour = now - timedelta(hours=1)
    lately = sum(1 for entry in entries if (last := _checked(entry, Level.V3)) and last > hour)
    if rest and lately < math.ceil(len(rest) / 24):
        return rest[-1].id, Level.V3
    old = [(last, entry.id) for entry in entries if (last := _checked(entry, Level.V3))]
    if old and min(old)[0] < now - timedelta(days=REVERIFY_DAYS):
        return min(old)[1], Level.V3
    return None


def _checked(entry: Entry, level: Level) -> datetime | None:
    """When the backup was last verified to a level or beyond, or found damaged at any."""
    return max((each.time for each in entry.evidence if each.level >= level or not each.passed), default=None)


async def _first_seen(store: ObjectStore) -> datetime:
    """When the repository was made; the far future before that: nothing can be due in it."""
    stored = await store.head(layout.REPOSITORY)
    return stored.modify_time if stored else datetime.max.replace(tzinfo=UTC)
