"""The admin process: its services, who may call them, and what it tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from google.protobuf.message import Message

from llm_schema_registry.admin.v1 import (
    admin_service_pb2_grpc,
    maintenance_service_pb2_grpc,
    recovery_service_pb2_grpc,
)
from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.identity import Credential, Role
from llm_schema_registry.kernel.process import Definition, Parts, ReloadHook, Runtime, Servicer
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc
from llm_schema_registry.operations.service import OperationService
from services.admin.assembly import Assembly, Setting, assemble
from services.admin.codec import maintenance as maintenance_codec
from services.admin.codec import recoveries
from services.admin.codec import shutdown as shutdown_codec
from services.admin.handlers.answers import Answers
from services.admin.handlers.maintenance import MaintenanceService
from services.admin.handlers.recoveries import RecoveryService
from services.admin.handlers.system import AdminService, SystemVerbs
from services.admin.settings import AdminServiceSettings
from services.admin.usecases.maintain import SUBJECT as MAINTENANCE
from services.admin.usecases.office import PLAN
from services.admin.usecases.recover import RECOVERY
from services.admin.usecases.shutdown import SUBJECT as SHUTDOWN

PACKAGE = "llm_schema_registry.admin.v1"
OPERATION = "llm_schema_registry.operation.v1"
CLOSING_SECONDS = 5.0
"""For undoing what was cancelled, beside the time that operations have to finish."""


@asynccontextmanager
async def build(runtime: Runtime[AdminServiceSettings]) -> AsyncIterator[Parts[AdminServiceSettings]]:
    """Opens the store of journals, and serves. Neither the store nor the database nor any other process must answer."""
    settings, steps = runtime.settings, runtime.steps

    def report(event: str, **facts: Any) -> None:
        level = runtime.logger.error if "exc_info" in facts else runtime.logger.info
        level(event, **facts)

    stack = await steps.enter("close store, database and peers", AsyncExitStack())
    assembly = await assemble(Setting(settings, runtime.clock, runtime.instance_id, report), stack)
    credential = Credential("admin", Role.ADMIN, *_admin(settings))

    async def end_operations() -> None:
        left = steps.remaining_seconds() - CLOSING_SECONDS
        await assembly.operations.close(max(0.0, min(settings.server.grace_seconds, left)))

    async def replace_credential(newer: AdminServiceSettings) -> None:
        credential.replace(*_admin(newer))

    async def forget_old() -> None:
        await assembly.maintain.forget_old()
        await assembly.recover.forget_old_plans()

    background = [
        asyncio.create_task(assembly.shutdown.keep(), name="shutdowns"),
        asyncio.create_task(assembly.returning.run(), name="returning"),
        asyncio.create_task(assembly.sampler.run(settings.admin.sample_seconds, report, forget_old), name="samples"),
    ]

    async def end_background() -> None:
        await assembly.shutdown.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    steps.add("end background work", end_background)
    steps.add("end operations", end_operations, settings.server.grace_seconds + CLOSING_SECONDS)
    yield Parts(
        servicers=servicers(assembly, runtime),
        dependencies=[
            DependencyCheck("object store", critical=False, check=assembly.store.check),
            DependencyCheck("postgresql", critical=False, check=assembly.database.check),
        ],
        reload=[ReloadHook(frozenset({"admin.token", "admin.client_names"}), replace_credential)],
        authenticator=credential,
    )


DEFINITION = Definition(name="admin", settings=AdminServiceSettings, build=build)


def servicers(assembly: Assembly, runtime: Runtime[AdminServiceSettings]) -> Sequence[Servicer]:
    """The services of the contract."""

    async def shutdown(operation: str) -> Message:
        return shutdown_codec.record(await assembly.shutdown.get(operation))

    async def maintained(operation: str) -> Message:
        return maintenance_codec.record(await assembly.maintain.record(operation))

    async def recovery(recovery_id: str) -> Message:
        return recoveries.recovery(await assembly.recover.get(recovery_id))

    async def plan(recovery_id: str) -> Message:
        return recoveries.recovery(await assembly.recover.planned(recovery_id))

    answers = Answers({SHUTDOWN: shutdown, MAINTENANCE: maintained, RECOVERY: recovery, PLAN: plan})
    verbs = SystemVerbs(
        status=assembly.status,
        steer=assembly.steer,
        modes=assembly.modes,
        shutdown=assembly.shutdown,
        smoke=assembly.smoke,
        capacity=assembly.capacity,
    )
    system = AdminService(assembly.peers, verbs, answers)
    maintenance = MaintenanceService(assembly.maintain, assembly.database, answers)
    recovering = RecoveryService(assembly.recover, answers)
    shown = OperationService(assembly.operations, answers, runtime.clock)
    return [
        Servicer(
            f"{PACKAGE}.AdminService",
            lambda server: admin_service_pb2_grpc.add_AdminServiceServicer_to_server(system, server),
        ),
        Servicer(
            f"{PACKAGE}.MaintenanceService",
            lambda server: maintenance_service_pb2_grpc.add_MaintenanceServiceServicer_to_server(maintenance, server),
        ),
        Servicer(
            f"{PACKAGE}.RecoveryService",
            lambda server: recovery_service_pb2_grpc.add_RecoveryServiceServicer_to_server(recovering, server),
        ),
        Servicer(
            f"{OPERATION}.OperationService",
            lambda server: operation_service_pb2_grpc.add_OperationServiceServicer_to_server(shown, server),
        ),
    ]


def _admin(settings: AdminServiceSettings) -> tuple[str | None, tuple[str, ...]]:
    token = settings.admin.token
    return (token.get_secret_value() if token else None, settings.admin.client_names)
