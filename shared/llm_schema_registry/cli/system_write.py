"""`llmsr system mode`, `flush`, `restart` and `shutdown`."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.admin.v1 import system_pb2
from llm_schema_registry.cli import dry_run, operation_results, system_views
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_views import made
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.session import Session
from llm_schema_registry.cli.system import Flush, Mode, ModeName, Stop, SystemService
from llm_schema_registry.client import AdminClient
from llm_schema_registry.common.v1 import service_state_pb2
from llm_schema_registry.control.v1 import process_pb2

REPLICA_SECONDS_MAX = 1800
_MODES = {
    ModeName.SERVING: service_state_pb2.SERVICE_STATE_SERVING,
    ModeName.READ_ONLY: service_state_pb2.SERVICE_STATE_READ_ONLY,
    ModeName.MAINTENANCE: service_state_pb2.SERVICE_STATE_MAINTENANCE,
}
_ORDER = (SystemService.REGISTRY, SystemService.BACKUP, SystemService.ADMIN)


async def mode(session: Session, options: Mode) -> ExitCode:
    """Sets the mode and writes what each replica did."""
    async with session.connection.admin() as admin:
        request = pb.SetModeRequest(mode=_MODES[options.mode], services=options.service)
        answer = await admin.call(admin.system.SetMode, request)
    return _told(session, answer)


async def flush(session: Session, options: Flush) -> ExitCode:
    """Flushes and writes what each replica did."""
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.system.FlushCaches, pb.FlushCachesRequest(services=options.service))
    return _told(session, answer)


async def stop(session: Session, options: Stop, *, rolling: bool) -> ExitCode:
    """Stops processes, or says which would be stopped. REFUSED when one did not do as it must."""
    if not 0 < options.replica_seconds <= REPLICA_SECONDS_MAX:
        raise UsageFault(f"--replica-seconds: write seconds above 0, at most {REPLICA_SECONDS_MAX:,}.")
    async with session.connection.admin() as admin:
        if not options.apply:
            await _plan(session, admin, options, rolling=rolling)
            return ExitCode.FINE
        timeout = Duration()
        timeout.FromNanoseconds(int(options.replica_seconds * 1e9))
        request = pb.ShutdownRequest(
            services=options.service,
            mode=system_pb2.SHUTDOWN_MODE_ROLLING if rolling else system_pb2.SHUTDOWN_MODE_FULL,
            cause=options.cause,
            replica_timeout=timeout,
            request_id=options.request_id,
        )
        call = admin.call(admin.system.Shutdown, request)
        answer = await begun(session, call, listing="llmsr operation list")
        operation = await followed(session, admin, answer.operation, wait=not options.no_wait)
        record = made(operation, system_pb2.ShutdownRecord) if operation is not None else None
        if record is None:
            return await operation_results.tell(session, admin, operation)
    if not session.output.json:
        session.output.table(system_views.OUTCOME_COLUMNS, system_views.outcomes(record.replicas))
    return ExitCode.FINE


async def _plan(session: Session, admin: AdminClient, options: Stop, *, rolling: bool) -> None:
    """Writes which replicas would be stopped, in order."""
    found = (await admin.call(admin.system.GetSystemStatus, pb.GetSystemStatusRequest())).status
    replicas = {each.service: each.replicas for each in found.services}
    wanted = [name for name in _ORDER if name in replicas and (not options.service or name in options.service)]
    verb = "restart" if rolling else "stop"
    steps = [f"{verb} {name} at {_place(each)}" for name in wanted for each in replicas[name]]
    document = {
        "mode": "ROLLING" if rolling else "FULL",
        "replicas": [{"service": str(name), **as_document(each)} for name in wanted for each in replicas[name]],
    }
    dry_run.planned(session.output, steps, document)
    if rolling and any(not each.HasField("process") for name in wanted for each in replicas[name]):
        session.output.note("A rolling restart does not begin while a replica does not answer.")


def _place(replica: system_pb2.Replica) -> str:
    if not replica.HasField("process"):
        return f"{replica.address}, which does not answer"
    health = process_pb2.HealthStatus.Name(replica.process.health).removeprefix("HEALTH_STATUS_")
    return f"{replica.address} ({replica.process.instance_id}, {health})"


def _told(session: Session, answer: pb.SetModeResponse | pb.FlushCachesResponse) -> ExitCode:
    """Writes what each replica did. REFUSED when one did not do it, or there is none."""
    replicas: Sequence[system_pb2.ReplicaOutcome] = answer.replicas
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.table(system_views.OUTCOME_COLUMNS, system_views.outcomes(replicas))
    return ExitCode.FINE if replicas and not any(each.problem for each in replicas) else ExitCode.REFUSED
