"""admin.v1.AdminService."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import admin_service_pb2_grpc as rpc
from services.admin.codec import nouns
from services.admin.handlers.fields import Fields
from services.admin.ports import Peers
from services.admin.usecases.status import Status
from services.admin.usecases.steer import Steer


@dataclass(frozen=True, slots=True)
class SystemVerbs:
    """The use cases behind the service."""

    status: Status
    steer: Steer


class AdminService(rpc.AdminServiceServicer):
    """Shows and steers the whole system."""

    def __init__(self, peers: Peers, verbs: SystemVerbs) -> None:
        self._peers = peers
        self._verbs = verbs

    async def GetSystemStatus(self, request: pb.GetSystemStatusRequest, context: Any) -> pb.GetSystemStatusResponse:
        """See the contract."""
        return pb.GetSystemStatusResponse(status=nouns.status(await self._verbs.status.system()))

    async def SetMode(self, request: pb.SetModeRequest, context: Any) -> pb.SetModeResponse:
        """See the contract."""
        fields = Fields(self._peers.services)
        mode, services = fields.mode(request.mode), fields.services(request.services)
        fields.require_valid()
        found = await self._verbs.steer.set_mode(services, mode)
        return pb.SetModeResponse(replicas=[nouns.outcome(each) for each in found])

    async def FlushCaches(self, request: pb.FlushCachesRequest, context: Any) -> pb.FlushCachesResponse:
        """See the contract."""
        fields = Fields(self._peers.services)
        services = fields.services(request.services)
        fields.require_valid()
        found = await self._verbs.steer.flush_caches(services)
        return pb.FlushCachesResponse(replicas=[nouns.outcome(each) for each in found])

    async def GetEffectiveConfig(
        self, request: pb.GetEffectiveConfigRequest, context: Any
    ) -> pb.GetEffectiveConfigResponse:
        """See the contract."""
        fields = Fields(self._peers.services)
        service = fields.service(request.service)
        fields.require_valid()
        found = await self._verbs.steer.options(service)
        return pb.GetEffectiveConfigResponse(replicas=[nouns.replica_config(each) for each in found])

    async def GetCapacityReport(self, request: Any, context: Any) -> pb.GetCapacityReportResponse:  # noqa: D102
        raise errors.MethodUnknown("not here yet")

    async def Shutdown(self, request: Any, context: Any) -> pb.ShutdownResponse:  # noqa: D102
        raise errors.MethodUnknown("not here yet")

    async def RunSmokeTest(self, request: Any, context: Any) -> pb.RunSmokeTestResponse:  # noqa: D102
        raise errors.MethodUnknown("not here yet")
