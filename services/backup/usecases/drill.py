"""Tries a restore, to know that one would work and how long it would take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.store import Listed, ObjectDamaged, ObjectNotFound, ObjectTooLarge
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain import layout
from services.backup.domain.documents import DocumentInvalid
from services.backup.domain.model import Level, Place
from services.backup.domain.remarks import PROBLEMS_MAX, DrillRecord, decode_drill, encode_drill
from services.backup.domain.targets import Latest
from services.backup.usecases.precedence import trial
from services.backup.usecases.prepare import Prepare
from services.backup.usecases.repository import Repository


class Drill:
    """Runs drills in one repository, and remembers them there."""

    kind = OperationKind.DRILL

    def __init__(self, repository: Repository, prepare: Prepare) -> None:
        self._repository = repository
        self._prepare = prepare
        self._read: dict[tuple[str, str], DrillRecord | str] = {}

    async def run(self, running: Running) -> Subject:
        """Restores the newest backup and all of the archive into a scratch place, verifies, measures and drops it.

        A restore that does not work is a result. Raises errors.BackupNotFound, DatabaseUnavailable, DatabaseUnfit,
        KeyUnavailable, ObjectStoreUnavailable, OperationRunning, OperationCancelled.
        """
        repository = self._repository
        async with trial(repository.leases):
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
            now = await repository.store.now()
            record = DrillRecord(
                backup_id=tried,
                time=now,
                problems=tuple(problems[:PROBLEMS_MAX]),
                recovery_seconds=repository.clock.monotonic() - began,
                recovery_point_seconds=await self._behind(place, last),
                place=place,
            )
            key = layout.drill(now)
            await repository.store.put(key, encode_drill(record, repository.signer))
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
            return decode_drill(key, content, self._repository.verifiers)
        except ObjectNotFound:
            raise errors.OperationNotFound(f"the record of the drill {key} is gone") from None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            raise errors.BackupDamaged(f"{key} does not count: {invalid}", metadata={"key": key}) from None

    async def list(self, count: int) -> Sequence[DrillRecord]:
        """The newest drills, newest first. One that cannot be read, or that nobody signed who is trusted, is passed
        over, and `problems` tells of it."""
        listed = [each async for each in self._repository.store.list(layout.DRILLS) if layout.drill_of(each.key)]
        there = {(each.key, each.etag) for each in listed}
        self._read = {mark: read for mark, read in self._read.items() if mark in there}
        found: list[DrillRecord] = []
        for each in reversed(listed):
            if len(found) == count:
                break
            record = await self._record(each)
            found += [record] if isinstance(record, DrillRecord) else []
        return found

    async def newest(self) -> DrillRecord | None:
        """The newest drill; None when there was none."""
        return next(iter(await self.list(1)), None)

    @property
    def problems(self) -> Sequence[str]:
        """Which records were passed over, and why, as far as they were looked at."""
        return [read for read in self._read.values() if isinstance(read, str)]

    async def _record(self, listed: Listed) -> DrillRecord | str | None:
        """A record, or why it does not count; None when it is gone. Each is read once."""
        mark = listed.key, listed.etag
        if mark not in self._read:
            try:
                self._read[mark] = await self.get(listed.key)
            except errors.BackupDamaged as invalid:
                self._read[mark] = invalid.message
            except errors.OperationNotFound:
                return None
        return self._read[mark]
