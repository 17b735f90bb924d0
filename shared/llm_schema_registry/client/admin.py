"""A thin asyncio client of the admin service: the generated stubs on one channel, errors as the server raised them.

async with AdminClient("127.0.0.1:9290", metadata=[("authorization", f"Bearer {token}")]) as admin:
    answer = await admin.call(admin.system.GetSystemStatus, GetSystemStatusRequest())
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry.admin.v1 import (
    admin_service_pb2_grpc,
    maintenance_service_pb2_grpc,
    recovery_service_pb2_grpc,
)
from llm_schema_registry.client.calls import Calls
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc


class AdminClient(Calls):
    """Stubs of the admin service's services: `system`, `recoveries`, `maintenance`, `operations`."""

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
        self.system = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self.recoveries = recovery_service_pb2_grpc.RecoveryServiceStub(self.channel)
        self.maintenance = maintenance_service_pb2_grpc.MaintenanceServiceStub(self.channel)
        self.operations = operation_service_pb2_grpc.OperationServiceStub(self.channel)
