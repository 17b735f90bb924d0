"""backup.v1.BackupService."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.backup.v1 import backup_service_pb2_grpc as rpc
from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.kernel.messages import duration, timestamp
from llm_schema_registry.operations.leases import PATIENCE_SECONDS
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Operations
from services.backup.codec import nouns
from services.backup.domain.model import Kind, Level
from services.backup.domain.schedules import Schedule, next_slot
from services.backup.handlers.answers import Answers, asked, drill
from services.backup.handlers.fields import Fields
from services.backup.usecases.drill import Drill
from services.backup.usecases.make_backup import MakeBackup, Wanted
from services.backup.usecases.prune import Prune, Pruned
from services.backup.usecases.repository import WRITING, Repository
from services.backup.usecases.status import ArchiveStatus, NamedStore, Status, StoreStatus
from services.backup.usecases.verify import Verify

KEYS_MAX = 1000
PROBLEMS_MAX = 100
DRILLS, DRILLS_MAX = 10, 100


@dataclass(frozen=True, slots=True)
class BackupVerbs:
    """The use cases behind the service."""

    operations: Operations
    make: MakeBackup
    verify: Verify
    drill: Drill
    prune: Prune
    status: Status


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What the process was told at its start."""

    schedules: Sequence[Schedule]
    stores: Sequence[NamedStore]
    archive_enabled: bool


class BackupService(rpc.BackupServiceServicer):
    """Makes, shows, verifies and deletes backups."""

    def __init__(self, repository: Repository, verbs: BackupVerbs, answers: Answers, facts: BackupFacts) -> None:
        self._repository = repository
        self._verbs = verbs
        self._answers = answers
        self._facts = facts

    async def CreateBackup(self, request: pb.CreateBackupRequest, context: Any) -> pb.CreateBackupResponse:
        """See the contract."""
        fields = Fields()
        wanted = Wanted(fields.kind(request.kind, Kind.MANUAL), pinned=request.pinned)
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        operation = await self._verbs.operations.begin(
            OperationKind.BACKUP,
            partial(self._verbs.make.run, wanted),
            actor=current_caller().name,
            request=asked(request_id, request),
        )
        return pb.CreateBackupResponse(operation=await self._answers.operation(operation))

    async def ListBackups(self, request: pb.ListBackupsRequest, context: Any) -> pb.ListBackupsResponse:
        """See the contract."""
        fields = Fields()
        kind = fields.optional_kind(request.kind)
        level = fields.level(request.verified_level, "verified_level", Level.V0)
        size, before = fields.page_size(request.page_size), fields.page_token(request.page_token)
        fields.require_valid()
        listing = await self._repository.catalog.listing()
        found = [
            entry
            for entry in listing.entries
            if (kind is None or entry.manifest.kind is kind)
            and entry.level >= level
            and (not before or entry.id < before)
        ]
        page = found[:size]
        return pb.ListBackupsResponse(
            backups=[self._answers.backup(entry) for entry in page],
            next_page_token=page[-1].id if len(found) > size else "",
            problems=listing.problems,
        )

    async def GetBackup(self, request: pb.GetBackupRequest, context: Any) -> pb.GetBackupResponse:
        """See the contract."""
        entry = await self._repository.catalog.get(_id(request.backup_id))
        return pb.GetBackupResponse(backup=await self._answers.full_backup(entry))

    async def VerifyBackup(self, request: pb.VerifyBackupRequest, context: Any) -> pb.VerifyBackupResponse:
        """See the contract."""
        fields = Fields()
        backup_id = fields.id(request.backup_id, "backup_id")
        level = fields.level(request.level, "level", Level.V3)
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        await self._repository.catalog.get(backup_id)
        operation = await self._verbs.operations.begin(
            OperationKind.VERIFY,
            partial(self._verbs.verify.run, backup_id, level),
            actor=current_caller().name,
            request=asked(request_id, request),
            subject=Subject("verification", backup_id),
        )
        return pb.VerifyBackupResponse(operation=await self._answers.operation(operation))

    async def UpdateBackup(self, request: pb.UpdateBackupRequest, context: Any) -> pb.UpdateBackupResponse:
        """See the contract."""
        entry = await self._repository.catalog.pin(_id(request.backup_id), pinned=request.pinned)
        return pb.UpdateBackupResponse(backup=await self._answers.full_backup(entry))

    async def DeleteBackup(self, request: pb.DeleteBackupRequest, context: Any) -> pb.DeleteBackupResponse:
        """See the contract."""
        removed = await self._verbs.prune.delete(_id(request.backup_id), dry_run=request.dry_run)
        return pb.DeleteBackupResponse(keys=removed.keys[:KEYS_MAX], stored_bytes=removed.stored_bytes)

    async def PruneBackups(self, request: pb.PruneBackupsRequest, context: Any) -> pb.PruneBackupsResponse:
        """See the contract."""
        prune = self._verbs.prune
        return _pruned(await (prune.plan if request.dry_run else prune.apply)(force=request.force))

    async def GetArchiveStatus(self, request: pb.GetArchiveStatusRequest, context: Any) -> pb.GetArchiveStatusResponse:
        """See the contract."""
        status = await self._verbs.status.archive()
        return pb.GetArchiveStatusResponse(status=_archive(status, enabled=self._facts.archive_enabled))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Any) -> pb.ListSchedulesResponse:
        """See the contract."""
        listing = await self._repository.catalog.listing()
        now = self._repository.clock.now()
        schedules = []
        for schedule in self._facts.schedules:
            slots = [entry.manifest.slot for entry in listing.entries if entry.manifest.kind is schedule.kind]
            schedules.append(
                backup_pb2.BackupSchedule(
                    kind=nouns.KINDS[schedule.kind],
                    cron=schedule.cron,
                    next_time=timestamp(next_slot(schedule, now)),
                    last_slot_time=timestamp(max((slot for slot in slots if slot), default=None)),
                )
            )
        return pb.ListSchedulesResponse(schedules=schedules)

    async def GetStoreStatus(self, request: pb.GetStoreStatusRequest, context: Any) -> pb.GetStoreStatusResponse:
        """See the contract."""
        found = [await self._verbs.status.store(named) for named in self._facts.stores]
        return pb.GetStoreStatusResponse(stores=[_store(each) for each in found])

    async def RebuildCatalog(self, request: pb.RebuildCatalogRequest, context: Any) -> pb.RebuildCatalogResponse:
        """See the contract."""
        listing, problems = await self._repository.catalog.rebuild()
        return pb.RebuildCatalogResponse(backups=len(listing.entries), problems=problems[:PROBLEMS_MAX])

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Any) -> pb.RotateKeysResponse:
        """See the contract."""
        async with self._repository.leases.held(WRITING, patience_seconds=PATIENCE_SECONDS):
            done = await self._repository.keys.rotate(dry_run=request.dry_run)
        return pb.RotateKeysResponse(rewrapped=done.rewrapped, unchanged=done.unchanged, recipients=done.recipients)

    async def ListDrills(self, request: pb.ListDrillsRequest, context: Any) -> pb.ListDrillsResponse:
        """See the contract."""
        fields = Fields()
        if not 0 <= request.page_size <= DRILLS_MAX:
            fields.refuse("page_size", f"must be 0 (for {DRILLS}) to {DRILLS_MAX}")
        fields.require_valid()
        found = await self._verbs.drill.list(request.page_size or DRILLS)
        return pb.ListDrillsResponse(drills=[drill(each) for each in found])

    async def RunDrill(self, request: pb.RunDrillRequest, context: Any) -> pb.RunDrillResponse:
        """See the contract."""
        fields = Fields()
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        if not (await self._repository.catalog.listing()).entries:
            raise errors.BackupNotFound("there is no backup to try: make one first")
        operation = await self._verbs.operations.begin(
            OperationKind.DRILL, self._verbs.drill.run, actor=current_caller().name, request=asked(request_id, request)
        )
        return pb.RunDrillResponse(operation=await self._answers.operation(operation))


def _id(value: str) -> str:
    fields = Fields()
    found = fields.id(value, "backup_id")
    fields.require_valid()
    return found


def _pruned(pruned: Pruned) -> pb.PruneBackupsResponse:
    return pb.PruneBackupsResponse(
        decisions=[
            pb.PruneDecision(backup_id=each.id, delete=each.delete, cause=each.why)
            for each in reversed(pruned.plan.decisions)
        ],
        blocked=pruned.plan.blocked or "",
        segments=pruned.segments,
        stored_bytes=pruned.stored_bytes,
        buried=pruned.buried,
        deleted=pruned.deleted,
    )


def _archive(status: ArchiveStatus, *, enabled: bool) -> backup_pb2.ArchiveStatus:
    beat = status.heartbeat
    return backup_pb2.ArchiveStatus(
        enabled=enabled,
        epoch=beat.place.epoch if beat else 0,
        position=beat.place.position if beat else 0,
        live_position=status.live.position if status.live else None,
        lag=duration(status.lag_seconds),
        schema_id_high=beat.schema_id_high if beat else 0,
        heartbeat_time=timestamp(beat.time) if beat else None,
        restorable_from=timestamp(status.restorable_from),
        restorable_to=timestamp(status.restorable_to),
        segments=status.segments,
        stored_bytes=status.stored_bytes,
        problem=status.problem,
        audit_time=timestamp(status.audited),
        breaks=status.breaks,
    )


def _store(status: StoreStatus) -> backup_pb2.StoreStatus:
    found = status.capabilities
    return backup_pb2.StoreStatus(
        name=status.name,
        location=status.location,
        checksums=bool(found and found.checksums),
        conditional_writes=bool(found and found.conditional_writes),
        object_lock=bool(found and found.object_lock),
        encryption=(found.encryption or "") if found else "",
        newest_backup_id=status.newest,
        newest_verified_backup_id=status.verified,
        verified_time=timestamp(status.verified_time),
        problem=status.problem,
        archive_audit_time=timestamp(status.audited),
        archive_breaks=status.breaks,
    )
