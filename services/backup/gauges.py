"""What the backup service tells of itself in metrics. Alerts belong on ages: the absence of success is the signal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.metrics import Metric, Point
from llm_schema_registry.objects.store import ObjectDamaged, ObjectTooLarge
from services.backup.assembly import Assembly
from services.backup.domain.model import Kind, Level
from services.backup.domain.remarks import DrillRecord
from services.backup.usecases.audit import Audited
from services.backup.usecases.catalog import Listing

REFRESH_SECONDS = 30.0
ASK_SECONDS = 20.0


class Gauges:
    """Keeps what the metrics say up to date; a scrape waits for nothing."""

    def __init__(self, assembly: Assembly, clock: Clock) -> None:
        self._assembly = assembly
        self._clock = clock
        self._listing: Listing | None = None
        self._drill: DrillRecord | None = None
        self._lag: float | None = None
        self._window: tuple[datetime, datetime] | None = None
        self._audits: dict[str, Audited] = {}

    async def run(self) -> None:
        """Asks the store every REFRESH_SECONDS, for ever. What cannot be asked keeps its last value: ages grow."""
        while True:
            # The health page says what is wrong with the store.
            with suppress(errors.Error, TimeoutError, ObjectDamaged, ObjectTooLarge):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def _refresh(self) -> None:
        self._listing = await self._assembly.repository.catalog.listing()
        self._drill = await self._assembly.drill.newest()
        status = await self._assembly.status.archive()
        self._lag = status.lag_seconds
        if status.restorable_from and status.restorable_to:
            self._window = status.restorable_from, status.restorable_to
        for named in self._assembly.stores:
            if audited := await named.audit.known():
                self._audits[named.name] = audited

    def metrics(self) -> Iterable[Metric]:
        """All of them, as they were last known."""
        now = self._clock.now()
        yield from self._backups(now)
        yield from self._archive(now)
        if self._drill is not None:
            drill = self._drill
            age = (now - drill.time).total_seconds()
            yield _gauge("backup.drill.age", "s", "Time since the newest drill.", age)
            yield _gauge("backup.drill.passed", "", "1 when the newest drill was right, else 0.", int(drill.passed))
            yield _gauge(
                "backup.recovery.time", "s", "What a recovery took in the newest drill.", drill.recovery_seconds
            )
        yield _gauge("backup.operations", "{operation}", "Running here.", len(self._assembly.operations.running))
        leading = int(self._assembly.keeping.state.leading)
        yield _gauge("backup.schedules.leading", "", "1 in the process that runs the schedules.", leading)
        failing = int(bool(self._assembly.repair.problem))
        yield _gauge("backup.restores.failing", "", "1 when a swap that began cannot be ended.", failing)
        blocked = int(bool(self._assembly.keeping.state.blocked))
        yield _gauge(
            "backup.retention.blocked", "", "1 when retention deletes nothing until somebody sees to it.", blocked
        )
        problems = len(self._assembly.keeping.state.problems)
        yield _gauge("backup.chores.failing", "{chore}", "Chores of the schedules whose last run failed.", problems)

    def _backups(self, now: datetime) -> Iterable[Metric]:
        if self._listing is None:
            return
        entries = [entry for entry in self._listing.entries if not entry.buried]
        ages, counts, sizes = [], [], []
        for kind in Kind:
            of_kind = [entry for entry in entries if entry.manifest.kind is kind]
            counts.append(Point(len(of_kind), {"kind": kind.value}))
            sizes.append(Point(sum(entry.manifest.stored_bytes for entry in of_kind), {"kind": kind.value}))
        for level in (Level.V2, Level.V3, Level.V4):
            newest = next((entry.manifest.facts.time for entry in entries if entry.level >= level), None)
            if newest is not None:
                ages.append(Point((now - newest).total_seconds(), {"level": level.name}))
        yield Metric("backup.newest.age", "gauge", "s", "Age of the newest backup verified to a level.", ages)
        yield Metric("backup.count", "gauge", "{backup}", "Backups there are.", counts)
        yield Metric("backup.stored", "gauge", "By", "Bytes of the backups.", sizes)
        untrusted, problems = len(self._listing.untrusted), len(self._listing.problems)
        yield _gauge("backup.untrusted", "{backup}", "Manifests that cannot be trusted.", untrusted)
        yield _gauge("backup.problems", "{problem}", "What a listing of the backups finds to be wrong.", problems)

    def _archive(self, now: datetime) -> Iterable[Metric]:
        breaks = [Point(len(each.breaks), {"store": name}) for name, each in self._audits.items()]
        yield Metric("backup.archive.breaks", "gauge", "{segment}", "Segments of the archive found broken.", breaks)
        ages = [
            Point((now - each.ended).total_seconds(), {"store": name})
            for name, each in self._audits.items()
            if each.ended is not None
        ]
        yield Metric("backup.archive.audit.age", "gauge", "s", "Time since all of the archive was read again.", ages)
        if self._lag is not None:
            yield _gauge("backup.recovery.point", "s", "What a loss of the database would cost now.", self._lag)
        if self._window is not None:
            start, end = self._window
            seconds = (end - start).total_seconds()
            yield _gauge("backup.restorable.window", "s", "How far back a restore to any moment reaches.", seconds)
        ship = self._assembly.ship
        if ship is not None and ship.state.tip is not None:
            state = ship.state
            yield _gauge("backup.archive.position", "", "Newest change in the archive.", ship.state.tip.position)
            yield _gauge("backup.archive.leading", "", "1 in the process that archives.", int(state.leading))
            yield _gauge("backup.archive.shipped", "{change}", "Changes archived by this process.", state.shipped)


def _gauge(name: str, unit: str, description: str, value: float) -> Metric:
    return Metric(name, "gauge", unit, description, [Point(value)])
