"""A registry, its backup service and an admin service that recovers it, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.admin.v1 import recovery_service_pb2 as pb
from llm_schema_registry.backup.v1 import backup_service_pb2, restore_pb2
from llm_schema_registry.client import AdminClient, error_of
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2
from tests.fix_admin import MakeAdminService, admin_client
from tests.fix_backup import BackupCalls
from tests.fix_faults import POLL_SECONDS, eventually
from tests.fix_service import Service

LATEST = restore_pb2.RestoreTarget(latest=True)
STATES = recovery_pb2.RecoveryState.Name
STEP_STATES = recovery_pb2.RecoveryStepState.Name
STEPS = ("preflight", "fence", "fetch", "verify", "safety", "restore", "integrity", "switch", "resume", "smoke")
DONE, SKIPPED, FAILED = (
    recovery_pb2.RECOVERY_STEP_STATE_DONE,
    recovery_pb2.RECOVERY_STEP_STATE_SKIPPED,
    recovery_pb2.RECOVERY_STEP_STATE_FAILED,
)
LIMIT_SECONDS = 200.0


@dataclass
class Site:
    """The three processes, and clients of two of them. folder: of the admin service's journals."""

    registries: Sequence[Service]
    backup_service: Service
    admin_service: Service
    backup: BackupCalls
    admin: AdminClient
    folder: Path | None
    watched: list[operation_pb2.OperationEvent] = field(default_factory=list)

    @property
    def registry(self) -> Service:
        """The first replica of the registry."""
        return self.registries[0]

    async def start(self, target: restore_pb2.RestoreTarget = LATEST, *, dry_run: bool = False, **spec: Any) -> Any:
        """The operation of a recovery that was begun."""
        request = pb.StartRecoveryRequest(
            spec=recovery_pb2.RecoverySpec(target=target, **spec), dry_run=dry_run, request_id=""
        )
        return (await self.admin.call(self.admin.recoveries.StartRecovery, request)).operation

    async def resume(self, recovery_id: str, confirmation: str = "") -> Any:
        """The operation of a recovery that goes on, once the process that worked on it is known to be gone."""
        request = pb.ResumeRecoveryRequest(recovery_id=recovery_id, confirmation=confirmation)
        return await self._when_free(self.admin.recoveries.ResumeRecovery, request)

    async def abort(self, recovery_id: str, confirmation: str = "") -> Any:
        """The operation of a recovery that goes back."""
        request = pb.AbortRecoveryRequest(recovery_id=recovery_id, confirmation=confirmation)
        return await self._when_free(self.admin.recoveries.AbortRecovery, request)

    async def _when_free(self, method: Any, request: Any) -> Any:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                with suppress(errors.OperationRunning):
                    return (await self.admin.call(method, request)).operation
                await asyncio.sleep(POLL_SECONDS)

    async def ended(self, operation: operation_pb2.Operation) -> operation_pb2.Operation:
        """The operation once it has ended; what happened is in `watched`."""
        self.watched = []
        request = operation_service_pb2.WatchOperationRequest(name=operation.name)
        async with asyncio.timeout(LIMIT_SECONDS):
            async for answer in self.admin.stream(self.admin.operations.WatchOperation, request):
                self.watched.append(answer.event)
        assert self.watched[-1].HasField("ended")
        return self.watched[-1].ended

    @property
    def steps_seen(self) -> list[str]:
        """Names of the steps whose end was watched, in order."""
        return [each.step.name for each in self.watched if _ended(each)]

    async def done(self, operation: operation_pb2.Operation) -> recovery_pb2.Recovery:
        """The recovery of an operation that must end well."""
        ended = await self.ended(operation)
        assert not ended.HasField("error"), ended.error
        recovery = recovery_pb2.Recovery()
        assert ended.response.Unpack(recovery)
        return recovery

    async def failed(self, operation: operation_pb2.Operation) -> errors.Error:
        """The error of an operation that must fail."""
        ended = await self.ended(operation)
        assert ended.HasField("error"), ended
        return error_of(ended.error)

    async def get(self, recovery_id: str) -> recovery_pb2.Recovery:
        """A recovery as it stands."""
        request = pb.GetRecoveryRequest(recovery_id=recovery_id)
        return (await self.admin.call(self.admin.recoveries.GetRecovery, request)).recovery

    async def only(self) -> recovery_pb2.Recovery:
        """The one recovery there is."""
        [found] = await self.recoveries()
        return found

    async def archived(self, position: int) -> None:
        """Returns when the archive reaches a position."""

        async def reached() -> bool:
            answer = await self.backup.backups.GetArchiveStatus(backup_service_pb2.GetArchiveStatusRequest())
            return bool(answer.status.position >= position)

        await eventually(reached)

    async def recoveries(self) -> list[recovery_pb2.Recovery]:
        """Those on record, newest first."""
        answer = await self.admin.call(self.admin.recoveries.ListRecoveries, pb.ListRecoveriesRequest())
        return list(answer.recoveries)

    async def replace_admin(self, **environment: str) -> None:
        """Another admin process at the same address; the one before is gone."""
        await asyncio.to_thread(self.admin_service.kill)
        self.admin_service.environment.pop("LLMSR_FAILPOINTS", None)
        self.admin_service.environment.update(environment)
        await self.admin.close()
        await self.admin_service.start_async()
        self.admin = admin_client(self.admin_service)

    def let_the_lease_end(self) -> None:
        """What the time of the lease does, at once: nobody holds the office of the system."""
        assert self.folder is not None, "the journals are in a folder"
        (self.folder / "leases" / "system.json").unlink(missing_ok=True)


@asynccontextmanager
async def site(
    registries: Sequence[Service],
    backup_service: Service,
    make_admin_service: MakeAdminService,
    folder: Path | None,
    database_url: str,
    **options: object,
) -> AsyncIterator[Site]:
    """Starts a backup and an admin service beside registries that run. folder: of journals; None for a bucket, which
    options name."""
    if folder is not None:
        options["admin__directory"] = folder
    await backup_service.start_async()
    admin_service = make_admin_service(
        database_url,
        registry=[each.target for each in registries],
        backup=[backup_service.target],
        **options,
    )
    await admin_service.start_async()
    async with BackupCalls(backup_service.target) as backup:
        made = Site(registries, backup_service, admin_service, backup, admin_client(admin_service), folder)
        try:
            yield made
        finally:
            await made.admin.close()
            for service in (made.admin_service, made.backup_service):
                with suppress(ProcessLookupError):
                    await asyncio.to_thread(service.kill)


def _ended(event: operation_pb2.OperationEvent) -> bool:
    """Whether an event tells the end of a step."""
    return event.HasField("step") and event.step.state != operation_pb2.STEP_STATE_RUNNING


def states(recovery: recovery_pb2.Recovery) -> dict[str, str]:
    """Where each step stands."""
    return {each.name: STEP_STATES(each.state).removeprefix("RECOVERY_STEP_STATE_").lower() for each in recovery.steps}
