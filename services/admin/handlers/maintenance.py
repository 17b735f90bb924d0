"""admin.v1.MaintenanceService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_schema_registry.admin.v1 import maintenance_service_pb2 as pb
from llm_schema_registry.admin.v1 import maintenance_service_pb2_grpc as rpc
from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.operation.v1 import operation_pb2
from services.admin.codec import maintenance as codec
from services.admin.domain.maintenance import Verb
from services.admin.handlers.answers import Answers, asked
from services.admin.handlers.fields import Fields
from services.admin.ports import Database
from services.admin.usecases.maintain import Maintain

LONG_SECONDS = 5.0
LONG_SECONDS_MAX = 86_400.0
QUERIES_MAX = 100

Request = pb.VacuumRequest | pb.AnalyzeRequest | pb.ReindexRequest


class MaintenanceService(rpc.MaintenanceServiceServicer):
    """Keeps the registry's database in good order."""

    def __init__(self, maintain: Maintain, database: Database, answers: Answers) -> None:
        self._maintain = maintain
        self._database = database
        self._answers = answers

    async def Vacuum(self, request: pb.VacuumRequest, context: Any) -> pb.VacuumResponse:
        """See the contract."""
        return pb.VacuumResponse(operation=await self._begin(Verb.VACUUM, request))

    async def Analyze(self, request: pb.AnalyzeRequest, context: Any) -> pb.AnalyzeResponse:
        """See the contract."""
        return pb.AnalyzeResponse(operation=await self._begin(Verb.ANALYZE, request))

    async def Reindex(self, request: pb.ReindexRequest, context: Any) -> pb.ReindexResponse:
        """See the contract."""
        return pb.ReindexResponse(operation=await self._begin(Verb.REINDEX, request))

    async def GetBloat(self, request: pb.GetBloatRequest, context: Any) -> pb.GetBloatResponse:
        """See the contract."""
        return pb.GetBloatResponse(bloats=[codec.bloat(each) for each in await self._database.bloat()])

    async def GetDatabaseStats(self, request: pb.GetDatabaseStatsRequest, context: Any) -> pb.GetDatabaseStatsResponse:
        """See the contract."""
        return pb.GetDatabaseStatsResponse(stats=codec.stats(await self._database.stats()))

    async def ListLongQueries(self, request: pb.ListLongQueriesRequest, context: Any) -> pb.ListLongQueriesResponse:
        """See the contract."""
        fields = Fields(())
        given = request.at_least if request.HasField("at_least") else None
        seconds = fields.seconds(given, "at_least", (LONG_SECONDS, 0.0, LONG_SECONDS_MAX))
        fields.require_valid()
        found = await self._database.long_queries(seconds, QUERIES_MAX)
        return pb.ListLongQueriesResponse(queries=[codec.long_query(each) for each in found])

    async def _begin(self, verb: Verb, request: Request) -> operation_pb2.Operation:
        fields = Fields(())
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        tables = await self._tables(request.tables)
        operation = await self._maintain.begin(
            verb, tables, actor=current_caller().name, request=asked(request_id, request)
        )
        return await self._answers.operation(operation)

    async def _tables(self, wanted: Sequence[str]) -> Sequence[str]:
        """Names of tables that there are; all of them when none is named."""
        allowed = await self._database.tables()
        fields = Fields(())
        for name in wanted:
            if name not in allowed:
                fields.refuse("tables", f"must be of {', '.join(allowed)}, not {name[:64]!r}")
        fields.require_valid()
        return [name for name in allowed if not wanted or name in wanted]
