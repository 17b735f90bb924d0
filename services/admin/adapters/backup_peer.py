"""The backup service, over gRPC, as far as the state of the system goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.client.backup import BackupClient
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.operation.v1 import operation_service_pb2
from services.admin.domain.system import BACKUP, Protection
from services.admin.ports import Peers

OPERATIONS_MAX = 50
PAGE_SIZE = 200
PAGES_MAX = 50


class BackupPeer:
    """See Protections. Any replica answers for all."""

    def __init__(self, peers: Peers, tls: Tls | None, timeout_seconds: float) -> None:
        self._peers = peers
        self._tls = tls
        self._timeout_seconds = timeout_seconds

    async def protection(self) -> tuple[Protection, Sequence[str]]:
        """See Protections."""
        verified = pb.ListBackupsRequest(verified_level=backup_pb2.VERIFICATION_LEVEL_V3, page_size=1)
        async with self.client() as client:
            newest = await client.call(client.backups.ListBackups, pb.ListBackupsRequest(page_size=1))
            proven = await client.call(client.backups.ListBackups, verified)
            archive = await client.call(client.backups.GetArchiveStatus, pb.GetArchiveStatusRequest())
            drills = await client.call(client.backups.ListDrills, pb.ListDrillsRequest(page_size=1))
        found = _protection(newest.backups, proven.backups, archive.status)
        return _with_drill(found, drills.drills), [
            *newest.problems,
            *([archive.status.problem] if archive.status.problem else []),
            *([] if newest.backups else ["there is no backup yet"]),
            *(f"the last drill failed: {problem}" for each in drills.drills for problem in each.problems),
        ]

    async def running_operations(self) -> Sequence[str]:
        """See Protections."""
        request = operation_service_pb2.ListOperationsRequest(running_only=True, page_size=OPERATIONS_MAX)
        async with self.client() as client:
            answer = await client.call(client.operations.ListOperations, request)
        return [each.name for each in answer.operations]

    async def stored_bytes(self) -> int:
        """See Stores."""
        request = pb.ListBackupsRequest(page_size=PAGE_SIZE)
        async with self.client() as client:
            archive = await client.call(client.backups.GetArchiveStatus, pb.GetArchiveStatusRequest())
            total = int(archive.status.stored_bytes)
            for _ in range(PAGES_MAX):
                page = await client.call(client.backups.ListBackups, request)
                total += sum(each.stored_bytes for each in page.backups)
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    break
        return total

    @asynccontextmanager
    async def client(self) -> AsyncIterator[BackupClient]:
        """A client of the backup service. Raises errors.PeerUnreachable when no replica answers."""
        addresses = [each.target for each in await self._peers.replicas(BACKUP)]
        if not addresses:
            raise errors.PeerUnreachable("no replica of the backup service is known (peers.backup)", retry_seconds=5)
        async with BackupClient(addresses, tls=self._tls, timeout_seconds=self._timeout_seconds) as client:
            try:
                yield client
            except errors.Error as failed:
                if failed.code not in {errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED}:
                    raise
                if failed.reason not in {"NOT_SERVING", "DEADLINE", "INTERNAL"}:
                    raise
                raise errors.PeerUnreachable(
                    f"the backup service at {', '.join(addresses)} does not answer: {failed.message}", retry_seconds=1
                ) from None


def _protection(
    newest: Sequence[backup_pb2.Backup], proven: Sequence[backup_pb2.Backup], archive: backup_pb2.ArchiveStatus
) -> Protection:
    lag = archive.lag.ToNanoseconds() / 1e9 if archive.HasField("lag") else None
    return Protection(
        newest_backup_id=newest[0].id if newest else "",
        newest_backup_time=newest[0].start_time.ToDatetime(tzinfo=UTC) if newest else None,
        newest_verified_backup_id=proven[0].id if proven else "",
        newest_verified_backup_time=proven[0].start_time.ToDatetime(tzinfo=UTC) if proven else None,
        archive_lag_seconds=lag,
        recovery_point_seconds=lag if archive.enabled else None,
    )


def _with_drill(found: Protection, drills: Sequence[backup_pb2.Drill]) -> Protection:
    if not drills:
        return found
    newest = drills[0]
    return replace(
        found,
        last_drill_time=newest.time.ToDatetime(tzinfo=UTC),
        last_drill_passed=newest.passed,
        recovery_seconds=newest.recovery_time.ToNanoseconds() / 1e9,
    )
