"""Tries a restore, to know that one would work and how long it would take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged, ObjectNotFound, ObjectTooLarge
from llm_schema_registry.operations.leases import PATIENCE_SECONDS
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain import layout
from services.backup.domain.model import Level, Place
from services.backup.domain.targets import Latest
from services.backup.usecases.prepare import Prepare
from services.backup.usecases.repository import RESTORING, Repository

PROBLEMS_MAX = 100


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """What a drill found. recovery_point_seconds: what a loss of the database at that moment would have cost."""

    backup_id: str
    time: datetime
    problems: tuple[str, ...]
    recovery_seconds: float
    recovery_point_seconds: float
    place: Place

    @property
    def passed(self) -> bool:
        return not self.problems


class Drill:
    """Runs drills in one repository, and remembers them there."""

    kind = OperationKind.DRILL

    def __init__(self, repository: Repository, prepare: Prepare) -> None:
        self._repository = repository
        self._prepare = prepare

    async def run(self, running: Running) -> Subject:
        """Restores the newest backup and all of the archive into a scratch place, verifies, measures and drops it.

        A restore that does not work is a result. Raises errors.BackupNotFound, DatabaseUnavailable, DatabaseUnfit,
        KeyUnavailable, ObjectStoreUnavailable, OperationRunning.
        """
        repository = self._repository
        async with repository.leases.held(RESTORING, patience_seconds=PATIENCE_SECONDS):
            await self._prepare.sweep()
            survey = await self._prepare.survey()
            if not survey.listing.entries:
                raise errors.BackupNotFound("there is no backup to try")
            # From the bucket alone: what a drill proves must hold when the database is gone.
            survey = survey.without_live()
            began = repository.clock.monotonic()
            newest = survey.listing.entries[0]
            tried, place, last = newest.id, newest.manifest.place, newest.manifest.facts.time
            try:
                way = await self._prepare.way(Latest(), Level.V2, survey)
                tried, place, last = way.base.id, way.base.place, way.base.time
                found = await self._prepare.rehearse(way, survey, running)
                place, last, problems = found.place, found.time, found.problems
            except (errors.BackupDamaged, errors.RestoreFailed, errors.TargetUnreachable) as failed:
                problems = (failed.message,)
            now = repository.clock.now()
            record = DrillRecord(
                backup_id=tried,
                time=now,
                problems=tuple(problems[:PROBLEMS_MAX]),
                recovery_seconds=repository.clock.monotonic() - began,
                recovery_point_seconds=await self._behind(place, last),
                place=place,
            )
            key = layout.drill(now)
            await repository.store.put(key, json.dumps(_document(record), sort_keys=True, indent=1).encode())
        return Subject("drill", key)

    async def _behind(self, place: Place, last: datetime) -> float:
        """Seconds between the newest change restored and the newest of the live history; 0 when it has no more."""
        live = await self._prepare.live_head()
        if live is None or live.place == place:
            return 0.0
        newest = await self._prepare.time_of(live.position)
        return max(0.0, (newest - last).total_seconds()) if newest else 0.0

    async def get(self, key: str) -> DrillRecord:
        """A drill by its key. Raises errors.OperationNotFound, errors.BackupDamaged."""
        try:
            content, _ = await self._repository.store.get(key)
            return _read(json.loads(content))
        except ObjectNotFound:
            raise errors.OperationNotFound(f"the record of the drill {key} is gone") from None
        except (ValueError, KeyError, TypeError, ObjectDamaged, ObjectTooLarge):
            raise errors.BackupDamaged(f"{key} cannot be read", metadata={"key": key}) from None

    async def list(self, count: int) -> Sequence[DrillRecord]:
        """The newest drills, newest first. One that cannot be read is passed over."""
        keys = [each.key async for each in self._repository.store.list(layout.DRILLS) if layout.drill_of(each.key)]
        found: list[DrillRecord] = []
        for key in sorted(keys, reverse=True)[:count]:
            with suppress(errors.BackupDamaged, errors.OperationNotFound):
                found.append(await self.get(key))
        return found

    async def newest(self) -> DrillRecord | None:
        """The newest drill; None when there was none."""
        keys = [each.key async for each in self._repository.store.list(layout.DRILLS) if layout.drill_of(each.key)]
        return await self.get(max(keys)) if keys else None


def _document(record: DrillRecord) -> dict[str, Any]:
    return {
        "backup_id": record.backup_id,
        "time": record.time.isoformat(),
        "problems": list(record.problems),
        "recovery_ms": round(record.recovery_seconds * 1000),
        "recovery_point_ms": round(record.recovery_point_seconds * 1000),
        "epoch": record.place.epoch,
        "position": record.place.position,
    }


def _read(document: dict[str, Any]) -> DrillRecord:
    return DrillRecord(
        backup_id=str(document["backup_id"]),
        time=datetime.fromisoformat(document["time"]),
        problems=tuple(str(problem) for problem in document["problems"]),
        recovery_seconds=document["recovery_ms"] / 1000,
        recovery_point_seconds=document["recovery_point_ms"] / 1000,
        place=Place(int(document["epoch"]), int(document["position"])),
    )
