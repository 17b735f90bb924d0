"""admin.v1.AdminService."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import admin_service_pb2_grpc as rpc
from llm_schema_registry.kernel.calls import current_caller
from services.admin.codec import capacity, nouns
from services.admin.handlers.answers import Answers, asked
from services.admin.handlers.fields import Fields
from services.admin.ports import Peers
from services.admin.usecases.capacity import Capacity
from services.admin.usecases.modes import Modes
from services.admin.usecases.shutdown import Shutdown, Wish
from services.admin.usecases.smoke import Smoke
from services.admin.usecases.status import Status
from services.admin.usecases.steer import Steer

DAY_SECONDS = 86_400.0
WINDOW_SECONDS = (30 * DAY_SECONDS, DAY_SECONDS, 400 * DAY_SECONDS)
HORIZON_SECONDS = (90 * DAY_SECONDS, DAY_SECONDS, 400 * DAY_SECONDS)
"""Default, least and most."""


@dataclass(frozen=True, slots=True)
class SystemVerbs:
    """The use cases behind the service."""

    status: Status
    steer: Steer
    modes: Modes
    shutdown: Shutdown
    smoke: Smoke
    capacity: Capacity


class AdminService(rpc.AdminServiceServicer):
    """Shows and steers the whole system."""

    def __init__(self, peers: Peers, verbs: SystemVerbs, answers: Answers) -> None:
        self._peers = peers
        self._verbs = verbs
        self._answers = answers

    async def GetSystemStatus(self, request: pb.GetSystemStatusRequest, context: Any) -> pb.GetSystemStatusResponse:
        """See the contract."""
        return pb.GetSystemStatusResponse(status=nouns.status(await self._verbs.status.system()))

    async def Shutdown(self, request: pb.ShutdownRequest, context: Any) -> pb.ShutdownResponse:
        """See the contract."""
        fields = Fields(self._peers.services)
        wish = Wish(
            services=fields.services(request.services, self._peers.services),
            mode=fields.shutdown_mode(request.mode),
            cause=fields.cause(request.cause),
            replica_seconds=fields.replica_seconds(request.replica_timeout, given=request.HasField("replica_timeout")),
        )
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        operation = await self._verbs.shutdown.begin(
            wish, actor=current_caller().name, request=asked(request_id, request)
        )
        return pb.ShutdownResponse(operation=await self._answers.operation(operation))

    async def SetMode(self, request: pb.SetModeRequest, context: Any) -> pb.SetModeResponse:
        """See the contract."""
        fields = Fields(self._peers.services)
        mode, services = fields.mode(request.mode), fields.services(request.services)
        fields.require_valid()
        found = await self._verbs.modes.set(services, mode)
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

    async def RunSmokeTest(self, request: pb.RunSmokeTestRequest, context: Any) -> pb.RunSmokeTestResponse:
        """See the contract."""
        checks = await self._verbs.smoke.run()
        return pb.RunSmokeTestResponse(
            passed=all(each.passed for each in checks),
            checks=[nouns.smoke_check(each) for each in checks],
            subject=self._verbs.smoke.subject,
        )

    async def GetCapacityReport(
        self, request: pb.GetCapacityReportRequest, context: Any
    ) -> pb.GetCapacityReportResponse:
        """See the contract."""
        fields = Fields(())
        window = fields.seconds(request.window if request.HasField("window") else None, "window", WINDOW_SECONDS)
        ahead = request.horizon if request.HasField("horizon") else None
        horizon = fields.seconds(ahead, "horizon", HORIZON_SECONDS)
        fields.require_valid()
        found = await self._verbs.capacity.report(timedelta(seconds=window), timedelta(seconds=horizon))
        return pb.GetCapacityReportResponse(
            report=capacity.report(
                found.time, found.source, found.window_start, found.resources, (found.advice, found.problems)
            )
        )
