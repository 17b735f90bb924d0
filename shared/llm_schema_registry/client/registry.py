"""A thin asyncio client of the registry: the generated stubs on one channel, and errors as the server raised them.

async with RegistryClient("127.0.0.1:9090") as registry:
    answer = await registry.call(registry.schemas.GetSchema, GetSchemaRequest(id=1))
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry.client.calls import Calls
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.registry.v1 import (
    change_service_pb2_grpc,
    compatibility_service_pb2_grpc,
    schema_service_pb2_grpc,
    subject_service_pb2_grpc,
    validation_service_pb2_grpc,
)


class RegistryClient(Calls):
    """Stubs of the registry's services: `schemas`, `subjects`, `compatibility`, `validation`, `changes`."""

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
        self.schemas = schema_service_pb2_grpc.SchemaServiceStub(self.channel)
        self.subjects = subject_service_pb2_grpc.SubjectServiceStub(self.channel)
        self.compatibility = compatibility_service_pb2_grpc.CompatibilityServiceStub(self.channel)
        self.validation = validation_service_pb2_grpc.ValidationServiceStub(self.channel)
        self.changes = change_service_pb2_grpc.ChangeServiceStub(self.channel)
