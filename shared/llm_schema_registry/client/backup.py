"""A thin asyncio client of the backup service: the generated stubs on one channel, and errors as the server raised
them.

async with BackupClient("127.0.0.1:9190") as backup:
    answer = await backup.call(backup.backups.CreateBackup, CreateBackupRequest())
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry.backup.v1 import backup_service_pb2_grpc, restore_service_pb2_grpc
from llm_schema_registry.client.calls import Calls
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc


class BackupClient(Calls):
    """Stubs of the backup service's services: `backups`, `restores`, `operations`."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        tls: Tls | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout_seconds: float | None = None,
    ) -> None:
        """As client.calls.Calls."""
        super().__init__(target, tls=tls, metadata=metadata, timeout_seconds=timeout_seconds)
        self.backups = backup_service_pb2_grpc.BackupServiceStub(self.channel)
        self.restores = restore_service_pb2_grpc.RestoreServiceStub(self.channel)
        self.operations = operation_service_pb2_grpc.OperationServiceStub(self.channel)
